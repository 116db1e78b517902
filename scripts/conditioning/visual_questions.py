"""Questions about pictures by FiLM, and by MAC beside it: results/conditioning/visual-questions.json.

    python scripts/conditioning/visual_questions.py train --arm film-4 --seed 0   # goes on where it stopped
    python scripts/conditioning/visual_questions.py train --arm mac --scenes 1000 --set decay=1e-4
    python scripts/conditioning/visual_questions.py list                          # the runs there are
    python scripts/conditioning/visual_questions.py write                         # their records

FiLM for visual question answering (Perez et al., AAAI 2018, arXiv:1709.07871) on Sort-of-CLEVR
(episodes/datasets/scenes/sort_of_clevr.py): a question's words go through a GRU and one linear layer to the
gains and biases of four residual blocks. Arms and sizes stand in configs/conditioning/visual-questions.yaml.
Tune with `--set` by the validation accuracy that `train` prints; the test scenes are for `write`.
"""

import argparse
import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from episodes.counter import first_of_shuffled, words  # noqa: E402
from episodes.datasets import sort_of_clevr  # noqa: E402
from episodes.datasets.scenes.sort_of_clevr import ANSWERS, SENTENCES, VOCABULARY, Scenes  # noqa: E402
from episodes.progress import track  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.conditioning import Conditioned, NoCondition, SequenceEncoder  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from metafilm.storage.atomic import atomic_write  # noqa: E402
from scripts.conditioning import running  # noqa: E402
from scripts.conditioning.blocks import Stem, Trunk, with_places  # noqa: E402
from scripts.conditioning.mac import MAC  # noqa: E402

SYSTEM = "visual-questions"
CONFIG = ROOT / "configs" / "conditioning" / f"{SYSTEM}.yaml"
OUT = ROOT / "results" / "conditioning" / f"{SYSTEM}.json"
ORDER = 201  # the stream of random numbers by which training scenes are shuffled
QUESTIONS = torch.from_numpy(SENTENCES).flatten(0, 2)  # [36, 8], all there are


@dataclass(frozen=True)
class Settings(running.Plan):
    """A run's settings; the file and the arms change them."""

    scenes: int = 9800
    legacy: bool = False
    """The known generator's rule for the closest object, and its 200 test scenes."""
    model: str = "film"
    """`film` or `mac`."""
    width: int = 64
    blocks: int = 4
    sites: tuple[int, ...] = (0, 1, 2, 3)
    """Which blocks are modulated; none: the network is blind to the question."""
    decoder: str = "linear"
    modulation: str = "film"
    state: int = 128
    """Of the GRU."""
    steps: int = 4
    """MAC's."""
    dropout: float = 0.15
    """MAC's."""
    pictures: int = 16
    """A step, with their 20 questions each."""
    bfloat16: bool = True
    """Train in half precision, where it allows; scores are always of full precision."""


class Answerer(nn.Module):
    """Pictures and the numbers of the questions asked of each -> logits ``[I·n, 10]``."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.stem = Stem(settings.width)
        if settings.model == "mac":
            self.reader = MAC(
                len(VOCABULARY),
                settings.width + 2,
                len(ANSWERS),
                settings.width,
                settings.steps,
                settings.dropout,
            )
            return
        if settings.model != "film":
            raise MetafilmError(f"unknown model {settings.model!r}; expected film or mac")
        trunk = Trunk(settings.width, settings.blocks, len(ANSWERS))
        condition: nn.Module = NoCondition()
        if settings.sites:
            film.insert(trunk, [f"blocks.{i}.norm" for i in settings.sites])
            condition = SequenceEncoder(
                len(VOCABULARY),
                film.sites(trunk),
                width=settings.state,
                decoder=settings.decoder,
                modulation=settings.modulation,
            )
        self.reader = Conditioned(trunk, condition)

    def forward(self, pictures: Tensor, rows: Tensor) -> Tensor:
        """``pictures``: uint8 ``[I, 75, 75, 3]``. ``rows``: int64 ``[I, n]``, into the 36 questions there
        are, each of which is read once."""
        maps = self.stem(pictures.permute(0, 3, 1, 2).float() / 255)
        if isinstance(self.reader, MAC):
            return self.reader(with_places(maps), QUESTIONS, rows)
        return self.reader(maps.repeat_interleave(rows.shape[1], 0), QUESTIONS, rows=rows.flatten())


@dataclass(frozen=True)
class Examples:
    """Scenes as tensors. rows: which of the 36 questions; both int64 [N, 20]."""

    pictures: Tensor
    rows: Tensor
    answers: Tensor

    @classmethod
    def of(cls, scenes: Scenes) -> "Examples":
        kind = torch.from_numpy(scenes.relational).long()
        colour, way = torch.from_numpy(scenes.asked).unbind(-1)
        rows = (kind * 6 + colour) * 3 + way
        return cls(torch.from_numpy(scenes.images), rows, torch.from_numpy(scenes.answers))

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """The scenes of a step: in each epoch all of them, shuffled anew, without what fills no last step."""
        size = min(size, len(self.pictures))
        epoch, at = divmod(step, len(self.pictures) // size)
        order = first_of_shuffled(words(seed, [epoch], ORDER, (len(self.pictures),)), len(self.pictures))[0]
        chosen = torch.from_numpy(order[at * size : (at + 1) * size])
        return self.pictures[chosen], self.rows[chosen], self.answers[chosen]


@torch.no_grad()
def right(model: nn.Module, examples: Examples, description: str = "scoring", size: int = 50) -> Tensor:
    """Which questions are answered rightly: bool ``[N, 20]``."""
    model.eval()
    parts = (part.split(size) for part in (examples.pictures, examples.rows, examples.answers))
    batches = track(list(zip(*parts, strict=True)), description)
    return torch.cat([model(x, rows).argmax(1).view_as(rows) == answers for x, rows, answers in batches])


def accuracy(answered: Tensor) -> dict[str, dict[str, float]]:
    """Per cent right, and its interval over scenes, by kind of question."""
    found = {}
    for name, part in (("non-relational", answered[:, :10]), ("relational", answered[:, 10:])):
        by_scene = (100 * part.double().mean(1)).tolist()
        found[name] = {"value": sum(by_scene) / len(by_scene), "ci95": interval(by_scene)}
    return found


def train(settings: Settings, folder: Path, arm: str) -> dict[str, Any]:
    """Train a run, or go on with it, and score it; what is kept of it, in the folder too."""
    data = Examples.of(sort_of_clevr.split("train", settings.scenes, legacy=settings.legacy))
    torch.manual_seed(settings.seed)
    model = Answerer(settings).to(memory_format=torch.channels_last)  # the faster one for these sizes

    def loss(step: int) -> Tensor:
        pictures, rows, answers = data.batch(step, settings.pictures, settings.seed)
        with torch.autocast("cpu", torch.bfloat16, settings.bfloat16):
            logits = model(pictures, rows)
        return F.cross_entropy(logits.float(), answers.flatten())

    seconds = running.train(model, loss, settings, folder, f"{arm}, seed {settings.seed}")
    scores = {}
    for name in ("train", "val", "test"):
        scenes = min(settings.scenes, 1000) if name == "train" else None
        part = Examples.of(sort_of_clevr.split(name, scenes, legacy=settings.legacy))
        scores[name] = accuracy(right(model, part, f"{arm}, scoring {name}"))
    found = {
        "arm": arm,
        "settings": asdict(settings),
        "scores": scores,
        "parameters": running.count(model),
        "condition_parameters": running.count(model, "reader.condition"),
        "training_seconds": seconds,
        **running.made_with(),
    }
    atomic_write(folder / "scores.json", (json.dumps(found, indent=2) + "\n").encode())
    return found


def records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all runs: those that differ in their seed alone make one record a metric."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        setting = {k: v for k, v in one["settings"].items() if k != "seed"}
        groups.setdefault(json.dumps([one["arm"], setting], sort_keys=True), []).append(one)
    rows = []
    for group in groups.values():
        group.sort(key=lambda one: one["settings"]["seed"])
        first = group[0]
        usual = asdict(running.settings_of(CONFIG, Settings(), first["arm"]))
        setting = {k: v for k, v in first["settings"].items() if k != "seed"}
        changed = {
            k: v for k, v in setting.items() if k != "scenes" and json.dumps(v) != json.dumps(usual[k])
        }
        for metric in ("non-relational", "relational"):
            runs = [
                {
                    "seed": one["settings"]["seed"],
                    **one["scores"]["test"][metric],
                    "validation": one["scores"]["val"][metric]["value"],
                    "gap": one["scores"]["train"][metric]["value"] - one["scores"]["val"][metric]["value"],
                    "condition_parameters": one["condition_parameters"],
                    **{k: one[k] for k in ("parameters", "training_seconds", "hardware", "commit")},
                }
                for one in group
            ]
            command = f"python scripts/conditioning/visual_questions.py train --arm {first['arm']} --scenes "
            command += f"{setting['scenes']} --seed {runs[0]['seed']}"
            command += "".join(" --set " + shlex.quote(f"{k}={json.dumps(v)}") for k, v in changed.items())
            rows.append(running.record(SYSTEM, first["arm"], setting, metric, runs, command))
    return rows


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("do", choices=("list", "train", "write"))
    parser.add_argument("--arm", default="film-4", help="one of those of the configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=0, help="training scenes (the configuration's)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting")
    parser.add_argument("--runs", type=Path, default=Path("runs") / SYSTEM, help="where runs are kept")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    found = [json.loads(path.read_text()) for path in sorted(options.runs.glob("*/scores.json"))]
    if options.do == "write":
        if not found:
            raise MetafilmError(
                f"no finished runs in {options.runs}; train some, or name their folder by --runs"
            )
        running.put(OUT, records(found))
    elif options.do == "list":
        for one in found:
            scores = ", ".join(f"{k} {v['value']:.1f}" for k, v in one["scores"]["val"].items())
            print(
                f"{one['arm']}, {one['settings']['scenes']} scenes, seed {one['settings']['seed']}: {scores}"
            )
    else:
        changes = [f"seed={options.seed}", *options.set]
        changes += [f"scenes={options.scenes}"] if options.scenes else []
        settings = running.settings_of(CONFIG, Settings(), options.arm, changes)
        name = "-".join([options.arm, *options.set, f"scenes={settings.scenes}", f"seed={settings.seed}"])
        scores = train(settings, options.runs / name.replace("/", "_"), options.arm)["scores"]
        print("validation:", ", ".join(f"{k} {v['value']:.2f}" for k, v in scores["val"].items()))


if __name__ == "__main__":
    try:
        main()
    except MetafilmError as error:
        raise SystemExit(str(error)) from None
