"""The rows of the committed tables that scripts/results.py makes: what is scored, and how.

Every choice in them (head, copies, transform) was made on validation classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCORING = {"queries": 15, "seed": 0, "split": "test"}
IMAGE_ROWS: dict[str, list[dict[str, Any]]] = {
    "omniglot": [
        {"ways": 5, "shots": 1, "episodes": 1000},
        {"ways": 5, "shots": 5, "episodes": 1000},
        {"ways": 20, "shots": 1, "episodes": 1000},
        {"ways": 20, "shots": 5, "episodes": 1000},
        {"ways": 5, "shots": 1, "episodes": 1000, "encoder_support": "shuffled"},
    ],
    # Neither encoder nor steps. That pictures are looked at five times was chosen on 400 validation tasks.
    "omniglot-plain": [
        {"ways": ways, "shots": shots, "episodes": 2000, "precision": "bfloat16"}
        | {"copies": 4, "query_copies": 4, "copy_augment": "affine"}
        for ways in (5, 20)
        for shots in (1, 5)
    ],
    # Lake's evaluation alphabets, each by itself; chosen likewise, within the five of validation.
    "omniglot-alphabets": [
        {"ways": 20, "shots": 1, "episodes": 2000, "dataset": "omniglot", "precision": "bfloat16"}
        | {"within_group": True, "rotated_classes": "no"}
        | {"copies": 4, "query_copies": 4, "copy_augment": "affine"}
    ],
    "miniimagenet": [
        {"ways": 5, "shots": 5, "episodes": 600},
        {"ways": 5, "shots": 1, "episodes": 600},
        {"ways": 5, "shots": 5, "episodes": 600, "encoder_support": "shuffled"},
    ],
    # How each is judged was chosen on 200 and 300 validation tasks.
    "miniimagenet-pretrained": [
        {"ways": 5, "shots": 5, "episodes": 2000, "blend": "descriptors", "blend_weight": 0.3}
        | {"pooling": "flatten2x2", "copies": 9, "query_copies": 9, "copy_augment": "crop-flip"}
        | {"precision": "bfloat16"},
        {"ways": 5, "shots": 1, "episodes": 2000, "head": "logistic", "transform": ("normalise",)}
        | {"copies": 4, "query_copies": 4, "copy_augment": "crop-flip", "precision": "bfloat16"},
    ],
}


@dataclass(frozen=True)
class Arms:
    """What a method is held against, a training each.

    Attributes:
        config: of configs/, of all of them.
        changes: to it, by arm, as its command line has them; ``shared``: of every arm.
        rows: how each is scored.
        variants: each of these settings over each row, of arms that are scored otherwise than plainly.
    """

    config: str
    changes: dict[str, str]
    rows: list[dict[str, Any]]
    variants: dict[str, list[dict[str, Any]]]
    shared: str = ""

    def train_command(self, arm: str, run: Path) -> str:
        words = ["metafilm train", f"configs/{self.config}.yaml", self.changes[arm], self.shared]
        return " ".join(filter(None, [*words, "--run-dir", run.as_posix()]))


def over_frozen(
    config: str, rows: list[dict[str, Any]], views: str, more: str = "", every: int = 250
) -> Arms:
    """Encoder, step and both over the network of a plain row, frozen, so that δ = 0 is that row's network.

    Args:
        config: of the plain row, whose run lies in runs/.
        rows: how each is scored.
        views: the augmentation of the step's views.
        more: changes to the config, of every arm.
        every: so many of the 1,000 iterations its validation.
    """
    step = f"--inner.steps 1 --inner.first-order True --inner.view-augment {views}"
    return Arms(
        config,
        {
            "encoder": "--encoder.enabled True",
            "steps": step,
            "encoder+steps": f"--encoder.enabled True {step}",
        },
        rows,
        {"encoder+steps": [{"gate": True}]},
        f"--backbone.weights runs/{config} --outer.freeze backbone --outer.iterations 1000 "
        f"--evaluation.every {every} --evaluation.adapt always {more}".rstrip(),
    )


ARMS = {
    # Of about the same time each.
    "criteria": Arms(
        "criteria",
        {
            "prototypes": "--encoder.enabled False --encoder.spread False --inner.steps 0 "
            "--outer.iterations 15000 --evaluation.every 3000",
            "constant+steps": "--encoder.kind constant --encoder.spread False",
            "encoder": "--inner.steps 0 --outer.iterations 8000 --evaluation.every 1600",
            "encoder+steps": "",
        },
        [{"ways": 5, "shots": shots, "episodes": 1200} for shots in (3, 5)],
        # without steps: from another criterion's deviations they overflow in some tasks
        {"encoder+steps": [{}, {"encoder_support": "other-domain", "steps": 0}]},
        "--task-chunk 1",
    ),
    "omniglot-arms": over_frozen(
        "omniglot",
        [
            {"ways": ways, "shots": shots, "episodes": 600, "precision": "bfloat16"}
            for ways in (5, 20)
            for shots in (1, 5)
        ],
        "affine",
    ),
    # Whose training has no other classes to validate on.
    "omniglot-alphabets-arms": over_frozen(
        "omniglot_alphabets",
        [
            {"ways": 20, "shots": 1, "episodes": 600, "dataset": "omniglot", "precision": "bfloat16"}
            | {"within_group": True, "rotated_classes": "no"}
        ],
        "affine",
        every=1000,
    ),
    "miniimagenet-arms": over_frozen(
        "miniimagenet",
        [{"ways": 5, "shots": shots, "episodes": 600, "precision": "bfloat16"} for shots in (5, 1)],
        "crop-flip",
        "--pretrain.iterations 0 --outer.plain 0",
    ),
}


def five_ways(shots: int, episodes: int) -> dict[str, Any]:
    return {"ways": 5, "shots": shots, "queries": 15, "episodes": episodes, "seed": 0, "split": "test"}


# Weights that come with the package: what a gate does at home, and drawings as people make them.
SHIPPED_ROWS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "gate": [("omniglot-conv4", five_ways(shots, 600) | {"gate": True}) for shots in (1, 5)],
    "drawings": [
        (weights, {"dataset": dataset, "style": style} | more | five_ways(shots, 600))
        for dataset, style, more in (
            ("omniglot", "none", {}),
            ("omniglot", "unseen-filters", {}),
            ("strokes", "unseen-strokes", {"rotated_classes": "no"}),  # one of the two learned turned ones
        )
        for shots in (1, 5)
        for weights in ("drawings-conv4", "omniglot-conv4")
    ],
}

# Both halves, either and neither.
SINUSOID_ROWS = [{"encoder": encoder, "steps": steps} for encoder in (True, False) for steps in (1, 0)]
