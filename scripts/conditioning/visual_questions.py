"""Questions about pictures by FiLM, and by MAC beside it: results/conditioning/visual-questions.json.

    python scripts/conditioning/visual_questions.py train --arm film-4 --seed 0   # goes on where it stopped
    python scripts/conditioning/visual_questions.py train --arm mac --set scenes=1000 --set decay=1e-4
    python scripts/conditioning/visual_questions.py list                          # the runs there are
    python scripts/conditioning/visual_questions.py write                         # their records

FiLM for visual question answering (Perez et al., AAAI 2018, arXiv:1709.07871) on Sort-of-CLEVR
(episodes/datasets/scenes/sort_of_clevr.py): a question's words go through a GRU and one linear layer to the
gains and biases of four residual blocks. Arms and sizes stand in configs/conditioning/visual-questions.yaml.
Tune with `--set` by the validation accuracy that `train` prints; the test scenes are for `write`.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from episodes.datasets import sort_of_clevr  # noqa: E402
from episodes.datasets.scenes.sort_of_clevr import ANSWERS, SENTENCES, VOCABULARY, Scenes  # noqa: E402
from episodes.progress import track  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.conditioning import Conditioned, NoCondition, SequenceEncoder  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from scripts import device  # noqa: E402
from scripts.conditioning import running, tested  # noqa: E402
from scripts.conditioning.blocks import Stem, Trunk, with_places  # noqa: E402
from scripts.conditioning.mac import MAC  # noqa: E402
from scripts.conditioning.recorded import Batched  # noqa: E402

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
    start: float = 6**0.5
    """Of the post-multipliers: deviations of size 1 from the first step; 0 is the identity."""
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
        self.register_buffer("questions", QUESTIONS, persistent=False)
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
                start=settings.start,
                modulation=settings.modulation,
            )
        self.reader = Conditioned(trunk, condition)

    def forward(self, pictures: Tensor, rows: Tensor) -> Tensor:
        """``pictures``: uint8 ``[I, 75, 75, 3]``. ``rows``: int64 ``[I, n]``, into the 36 questions there
        are, each of which is read once."""
        maps = self.stem(pictures.permute(0, 3, 1, 2).float() / 255)
        if isinstance(self.reader, MAC):
            return self.reader(with_places(maps), self.questions, rows)
        return self.reader(maps.repeat_interleave(rows.shape[1], 0), self.questions, rows=rows.flatten())


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
        chosen = tested.shuffled(step, size, self.rows, seed, ORDER)
        return self.pictures[chosen], self.rows[chosen], self.answers[chosen]


@torch.no_grad()
def right(model: nn.Module, examples: Examples, description: str = "scoring", size: int = 50) -> Tensor:
    """Which questions are answered rightly: bool ``[N, 20]``."""
    model.eval()
    examples = device.beside(model, examples)
    parts = (part.split(size) for part in (examples.pictures, examples.rows, examples.answers))
    batches = track(list(zip(*parts, strict=True)), description)
    found = [model(x, rows).argmax(1).view_as(rows) == answers for x, rows, answers in batches]
    return torch.cat(found).cpu()


def accuracy(answered: Tensor) -> dict[str, dict[str, float]]:
    """Per cent right, and its interval over scenes, by kind of question."""
    found = {}
    for name, part in (("non-relational", answered[:, :10]), ("relational", answered[:, 10:])):
        by_scene = (100 * part.double().mean(1)).tolist()
        found[name] = {"value": sum(by_scene) / len(by_scene), "ci95": interval(by_scene)}
    return found


def make(settings: Settings) -> Answerer:
    """The model as it starts."""
    torch.manual_seed(settings.seed)
    return Answerer(settings).to(memory_format=torch.channels_last)  # the faster one for these sizes


def fit(model: Answerer, settings: Settings, folder: Path, description: str) -> float:
    """Train the model; the seconds it took."""
    scenes = sort_of_clevr.split("train", settings.scenes, legacy=settings.legacy)
    data = device.beside(model, Examples.of(scenes))

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        return data.batch(step, settings.pictures, settings.seed)

    def loss(pictures: Tensor, rows: Tensor, answers: Tensor) -> Tensor:
        with device.half(model, settings.bfloat16):
            logits = model(pictures, rows)
        return F.cross_entropy(logits.float(), answers.flatten())

    return running.train(model, Batched(batch, loss), settings, folder, description)


def score(model: Answerer, settings: Settings, split: str, description: str, _folder: Path) -> tested.Scores:
    """Accuracy by kind of question; beside that of validation, how much more there is on training scenes."""
    found = accuracy(right(model, part(settings, split), description))
    if split == "val":
        train = accuracy(right(model, part(settings, "train"), description))
        for metric, one in found.items():
            one["gap"] = train[metric]["value"] - one["value"]
    return found


def part(settings: Settings, split: str) -> Examples:
    """A split, of training scenes 1,000 at most."""
    scenes = min(settings.scenes, 1000) if split == "train" else None
    return Examples.of(sort_of_clevr.split(split, scenes, legacy=settings.legacy))


def draw(_options: argparse.Namespace, _found: list[dict[str, Any]]) -> None:
    """docs/visual-questions.svg: the records, and a test scene with four of its questions."""
    from scripts.conditioning import pictures  # needs matplotlib

    scenes = sort_of_clevr.split("test", 1)
    examples = Examples.of(scenes)
    asked = []
    for number in (0, 1, 10, 11):
        words = QUESTIONS[examples.rows[0, number]].tolist()
        answer = ANSWERS[scenes.answers[0, number]]
        asked.append(f"{' '.join(VOCABULARY[word] for word in words if word)}? {answer}")
    pictures.visual_questions(json.loads(SYSTEM.out.read_text()), scenes.images[0], asked)


SYSTEM = tested.system(
    "visual-questions",
    Settings(),
    make,
    fit,
    score,
    "test scenes",
    "2000 test scenes (legacy: 200) of 20 questions",
    arm="film-4",
    more={"draw": draw},
)

if __name__ == "__main__":
    SYSTEM.start(__doc__)
