"""What adapting a network to a task is worth, at home and abroad: results/adaptation.json.

    python scripts/adaptation.py list                               # the rows there are
    python scripts/adaptation.py score --scores adaptation.jsonl    # makes what is not there yet
    python scripts/adaptation.py score --backbone lite0 --dataset omniglot-within --shots 5 --arm gate
    python scripts/adaptation.py write --scores adaptation.jsonl    # the records, with gains over δ = 0

A row is a backbone, a data set, a number of shots and an arm: a way to go from the support set to a
classifier. All arms of a backbone see the same tasks, so that gains are paired. Scores are kept task by task
as they are made: a run that is stopped goes on where it was. The arms `encoder`, `encoder+steps` and
`constant` need networks meta-trained beforehand (`--encoder`, `--constant`: run directories of
configs/domains.yaml, the second with `--encoder.kind constant`).
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.results` from wherever it is started

import episodes  # noqa: E402
from episodes import Episode, EpisodeSampler  # noqa: E402
from episodes.progress import Progress  # noqa: E402
from episodes.transforms import styles  # noqa: E402
from metafilm import MetaFiLM, film  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from metafilm.heads import CosineHead  # noqa: E402
from metafilm.learner.inner_loop import InnerLoop  # noqa: E402
from metafilm.storage.atomic import atomic_write, finite  # noqa: E402
from scripts.results import commit, hardware  # noqa: E402

OUT = ROOT / "results" / "adaptation.json"
WAYS, QUERIES, SEED, TASKS = 5, 15, 0, 100
SHOTS = (1, 2, 5, 15, 20)


@dataclass(frozen=True)
class Domain:
    """Where tasks come from: a data set of the registry, and how they are drawn. ``most``: shots at most,
    where its classes are small (Omniglot's have 20 images, and 5 stay for the queries)."""

    name: str
    scheme: str | None = None
    within_group: bool = False
    style: str = "none"
    most: int = 20

    def sampler(self, split: str, shots: int, shape: tuple[int, ...], root: Path | None) -> EpisodeSampler:
        pool = episodes.load(self.name, split, root=root, image_size=shape[-1], scheme=self.scheme)
        queries = min(QUERIES, int(pool.counts.min()) - shots)
        return EpisodeSampler(
            pool.with_channels(shape[0]),
            WAYS,
            shots,
            queries,
            SEED,
            within_group=self.within_group,
            transform=styles.by_name(self.style),
        )


DOMAINS = {
    "omniglot-within": Domain("omniglot", within_group=True, most=15),
    "omniglot-across": Domain("omniglot", most=15),
    "strokes-unseen-styles": Domain("strokes", style="unseen-strokes"),
    "miniimagenet": Domain("miniimagenet"),
}


@dataclass(frozen=True)
class Network:
    """A network to adapt: how to get it, how far its steps go (chosen on validation tasks), and which data
    sets it may be asked about.

    ``step_size``: of Adam on the deviations; ``tuning_rate``: of Adam on all weights.
    """

    make: Callable[[argparse.Namespace], MetaFiLM]
    datasets: tuple[str, ...]
    steps: int = 20
    step_size: float = 1.5e-3
    tuning_rate: float = 1e-4
    meta_trained: bool = False  # whether a task encoder was trained for it


def lite0(arguments: argparse.Namespace) -> MetaFiLM:
    return MetaFiLM.from_backbone("timm:tf_efficientnet_lite0", (3, 64, 64), weights="lite0")


def conv4(arguments: argparse.Namespace) -> MetaFiLM:
    """The Conv-4 that was trained on miniImageNet alone, given an inner loop of Adam steps."""
    plain = MetaFiLM.from_pretrained(arguments.conv4)
    network = NETWORKS["conv4-miniimagenet"]
    inner = InnerLoop(film.sites(plain.backbone), 1, network.step_size, learn=False, optimiser="adam")
    return MetaFiLM(
        plain.backbone,
        CosineHead(10.0),
        inner=inner,
        image_shape=plain.image_shape,
        mean=plain.mean.flatten().tolist(),
        std=plain.std.flatten().tolist(),
        evaluation_steps=network.steps,
        view_augment="affine",
    ).eval()


# ImageNet holds miniImageNet's test classes, so that Lite0 is not asked about them.
ABROAD = ("omniglot-within", "omniglot-across", "strokes-unseen-styles")
NETWORKS = {
    "lite0": Network(lite0, ABROAD, meta_trained=True),
    "conv4-miniimagenet": Network(conv4, (*ABROAD, "miniimagenet")),
}


class Arms:
    """Ways from a support set to predictions of the queries, all of one network.

    Every arm: one task -> logits ``[1, Q, ways]``.
    """

    def __init__(self, network: Network, arguments: argparse.Namespace) -> None:
        self.network = network
        self.learner = network.make(arguments)
        self._paths = {"encoder": arguments.encoder, "constant": arguments.constant}
        self._trained: dict[str, MetaFiLM] = {}

    @property
    def table(self) -> dict[str, Callable[[Episode], Tensor]]:
        arms: dict[str, Callable[[Episode], Tensor]] = {
            "identity": lambda task: self.under(self.learner, task, {}),
            "statistics": self.statistics,
            "logistic-regression": self.logistic_regression,
            "steps": lambda task: self.adapted(self.learner, task, "step"),
            "gate": lambda task: self.adapted(self.learner, task, "gate"),
            "fine-tuning": self.fine_tuning,
        }
        if self.network.meta_trained:
            arms |= {
                "constant": lambda task: self.adapted(self.trained("constant"), task, "encoder"),
                "encoder": lambda task: self.adapted(self.trained("encoder"), task, "encoder"),
                "encoder+steps": lambda task: self.adapted(self.trained("encoder"), task, "step"),
            }
        return arms

    def trained(self, kind: str) -> MetaFiLM:
        if kind not in self._trained:
            if self._paths[kind] is None:
                raise SystemExit(f"the arm {kind} needs a meta-trained network: --{kind} RUN")
            learner = MetaFiLM.from_pretrained(self._paths[kind])
            learner.inner, learner.views = self.learner.inner, self.learner.views
            learner.view_augment = self.learner.view_augment
            self._trained[kind] = learner
        return self._trained[kind]

    def under(self, learner: MetaFiLM, task: Episode, deviations: film.FilmDict) -> Tensor:
        return next(learner.predictions(task, [deviations]))[0]

    def adapted(self, learner: MetaFiLM, task: Episode, stage: str) -> Tensor:
        """Under the deviations of the last stage of that name."""
        steps = 0 if stage == "encoder" else self.network.steps
        found = learner.adaptation(task, steps=steps, gate=stage == "gate", all_stages=False)
        films = [
            films for name, films in zip(found.stages, found.films, strict=True) if name.startswith(stage)
        ]
        return self.under(learner, task, films[-1])

    def features(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(self.learner.prepare(images)).unsqueeze(0)

    def classified(self, network: nn.Module, task: Episode) -> Tensor:
        """By the prototypes of a plain network of this task's own."""
        head = self.learner.head
        state = head.fit(self.features(network, task.support_images), task.support_labels, task.ways)
        return head.predict(state, self.features(network, task.query_images))

    def own_network(self) -> nn.Module:
        return film.remove(copy.deepcopy(self.learner.backbone))

    def statistics(self, task: Episode) -> Tensor:
        """Norms that take mean and variance from the support set instead of from their training: what can be
        had without labels and gradients (the domain's first two moments)."""
        network = self.own_network()
        norms = [
            module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        self.features(network, task.support_images)
        return self.classified(network.eval(), task)

    def logistic_regression(self, task: Episode) -> Tensor:
        """scikit-learn's, on frozen features of length 1 (Tian et al., ECCV 2020, arXiv:2003.11539)."""
        from sklearn.linear_model import LogisticRegression

        support, query = (
            nn.functional.normalize(self.features(self.learner.backbone, images)[0], dim=-1).numpy()
            for images in (task.support_images, task.query_images)
        )
        fitted = LogisticRegression(C=1.0, max_iter=1000).fit(support, task.support_labels[0].numpy())
        return torch.from_numpy(fitted.decision_function(query)).unsqueeze(0)

    def fine_tuning(self, task: Episode) -> Tensor:
        """All weights by Adam, as many steps on the same loss as the deviations get."""
        network = self.own_network().requires_grad_(True)
        optimiser = torch.optim.Adam(network.parameters(), self.network.tuning_rate)
        views = self.learner.views_of(task)
        with torch.enable_grad():
            for _ in range(self.network.steps):
                optimiser.zero_grad()
                features = self.features(network, task.support_images)
                held_out = None if views is None else self.features(network, views)
                loss = self.learner.head.inner_loss(features, task.support_labels, task.ways, held_out)
                loss.sum().backward()
                optimiser.step()
        return self.classified(network, task)


@dataclass(frozen=True, order=True)
class Row:
    backbone: str
    dataset: str
    shots: int
    arm: str


def rows(arguments: argparse.Namespace) -> list[Row]:
    """Those asked for."""
    found = []
    for backbone, network in NETWORKS.items():
        arms = ["identity", "statistics", "logistic-regression", "steps", "gate", "fine-tuning"]
        arms += ["constant", "encoder", "encoder+steps"] if network.meta_trained else []
        found += [
            Row(backbone, dataset, shots, arm)
            for dataset in network.datasets
            for shots in SHOTS
            for arm in arms
            if shots <= DOMAINS[dataset].most and (shots != 15 or DOMAINS[dataset].most == 15)
        ]
    wanted = {name: getattr(arguments, name) for name in ("backbone", "dataset", "shots", "arm")}
    return [
        row
        for row in found
        if all(not values or getattr(row, name) in values for name, values in wanted.items())
    ]


def read(path: Path) -> dict[Row, dict[int, dict[str, Any]]]:
    """Row -> task -> its score. A last line cut short by a kill is left out."""
    found: dict[Row, dict[int, dict[str, Any]]] = {}
    lines = path.read_text().splitlines() if path.is_file() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        row = Row(entry["backbone"], entry["dataset"], entry["shots"], entry["arm"])
        found.setdefault(row, {})[entry["task"]] = entry
    return found


def score(arguments: argparse.Namespace) -> None:
    """Make the scores that are not in the file yet."""
    torch.set_num_threads(arguments.threads)
    arms: dict[str, Arms] = {}
    for row in rows(arguments):
        missing = [task for task in range(arguments.tasks) if task not in read(arguments.scores).get(row, {})]
        if not missing:
            continue
        if row.backbone not in arms:
            arms[row.backbone] = Arms(NETWORKS[row.backbone], arguments)
        own = arms[row.backbone]
        learner = own.learner
        learner.autocast = arguments.bfloat16
        sampler = DOMAINS[row.dataset].sampler(
            arguments.split, row.shots, learner.image_shape, arguments.data_root
        )
        title = f"{row.backbone} {row.dataset} {row.shots}-shot {row.arm}"
        with arguments.scores.open("a") as file, Progress(title, total=len(missing)) as bar:
            for number in missing:
                task = sampler[number]
                begin = time.perf_counter()
                with torch.no_grad():
                    predicted = own.table[row.arm](task)
                seconds = time.perf_counter() - begin
                value = float(learner.head.measure(predicted, task.query_labels))
                entry = {**row.__dict__, "task": number, "score": value, "seconds": seconds}
                entry |= {
                    "split": arguments.split,
                    "queries": sampler.queries,
                    "bfloat16": arguments.bfloat16,
                    "hardware": hardware(),
                    "commit": commit(),
                }
                file.write(json.dumps(entry) + "\n")
                file.flush()
                bar.advance()
        done = read(arguments.scores)[row]
        values = [done[task]["score"] for task in sorted(done)]
        print(f"{title}: {sum(values) / len(values):.2f} ± {interval(values):.2f}", flush=True)


def records(scores: dict[Row, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One record a row that has all its tasks, with its gain over δ = 0 on the same tasks."""
    found = []
    for row, own in sorted(scores.items()):
        base = scores.get(replace(row, arm="identity"), {})
        tasks = sorted(own)
        if len(tasks) < TASKS or not set(tasks) <= set(base):
            continue
        values = [own[task]["score"] for task in tasks]
        gains = [own[task]["score"] - base[task]["score"] for task in tasks]
        network = NETWORKS[row.backbone]
        last = own[tasks[-1]]
        found.append(
            {
                "backbone": row.backbone,
                "dataset": row.dataset,
                **{k: v for k, v in DOMAINS[row.dataset].__dict__.items() if k not in ("name", "most")},
                "split": last["split"],
                "ways": WAYS,
                "shots": row.shots,
                "queries": last["queries"],
                "arm": row.arm,
                "steps": network.steps if row.arm in ("steps", "gate", "encoder+steps", "fine-tuning") else 0,
                "accuracy": sum(values) / len(values),
                "ci95": interval(values),
                "gain": sum(gains) / len(gains),
                "gain_ci95": interval(gains) if row.arm != "identity" else 0.0,
                "episodes": len(tasks),
                "seed": SEED,
                "protocol": "inductive",
                "seconds_per_task": sum(own[task]["seconds"] for task in tasks) / len(tasks),
                "hardware": last["hardware"],
                "commit": last["commit"],
                "command": "python scripts/adaptation.py score "
                f"--backbone {row.backbone} --dataset {row.dataset} --shots {row.shots} --arm {row.arm} "
                f"--tasks {len(tasks)} --split {last['split']}" + (" --bfloat16" * last["bfloat16"]),
            }
        )
    return found


def key(record: dict[str, Any]) -> tuple[str, str, int, str]:
    """Which row a record is of."""
    return record["backbone"], record["dataset"], record["shots"], record["arm"]


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("list", "score", "write"))
    parser.add_argument("--scores", type=Path, default=Path("adaptation.jsonl"), help="scores task by task")
    parser.add_argument("--backbone", nargs="+", choices=list(NETWORKS))
    parser.add_argument("--dataset", nargs="+", choices=list(DOMAINS))
    parser.add_argument("--shots", nargs="+", type=int, choices=SHOTS)
    parser.add_argument("--arm", nargs="+")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--split", default="test", help="val while something is still to be chosen")
    parser.add_argument("--encoder", type=Path, help="run directory of the network with a task encoder")
    parser.add_argument("--constant", type=Path, help="run directory of the network with one δ for all tasks")
    parser.add_argument("--conv4", type=Path, help="run directory of the Conv-4 trained on miniImageNet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="the backbone under autocast")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(words)


def main() -> int:
    arguments = parsed()
    if arguments.action == "list":
        for row in rows(arguments):
            print(row.backbone, row.dataset, f"{row.shots}-shot", row.arm)
    elif arguments.action == "score":
        score(arguments)
    else:
        # rows scored elsewhere or before stay, unless these scores have them anew
        before = json.loads(arguments.out.read_text()) if arguments.out.is_file() else []
        both = {key(record): record for record in [*before, *records(read(arguments.scores))]}
        found = [both[name] for name in sorted(both)]
        atomic_write(arguments.out, (json.dumps(finite(found), indent=2) + "\n").encode())
        print(f"{len(found)} records in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
