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
    # How each is judged was chosen on 120 and 150 validation tasks after the pre-training.
    "miniimagenet-pretrained": [
        {"ways": 5, "shots": 5, "episodes": 2000, "blend": "descriptors", "blend_weight": 0.3}
        | {"pooling": "flatten2x2", "precision": "bfloat16"},
        {"ways": 5, "shots": 1, "episodes": 2000, "head": "logistic", "transform": ("normalise",)}
        | {"copies": 4, "copy_augment": "crop-flip", "precision": "bfloat16"},
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


STEPS = "--inner.first-order True --inner.view-augment affine"
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
    # Over the network of `omniglot-plain`, frozen, so that δ = 0 is that row's network.
    "omniglot-arms": Arms(
        "omniglot",
        {
            "encoder": "--encoder.enabled True",
            "steps": f"--inner.steps 1 {STEPS}",
            "encoder+steps": f"--encoder.enabled True --inner.steps 1 {STEPS}",
        },
        [
            {"ways": ways, "shots": shots, "episodes": 600, "precision": "bfloat16"}
            for ways in (5, 20)
            for shots in (1, 5)
        ],
        {"encoder+steps": [{"gate": True}]},
        "--backbone.weights runs/omniglot --outer.freeze backbone --outer.iterations 1000 "
        "--evaluation.every 250 --evaluation.adapt always",
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
