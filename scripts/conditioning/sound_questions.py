"""Questions about sounds, "what instrument plays the loud c tone": results/conditioning/sound-questions.json.

    python scripts/conditioning/sound_questions.py train --arm both --seed 0    # goes on where it stopped
    python scripts/conditioning/sound_questions.py list                         # the runs there are
    python scripts/conditioning/sound_questions.py write                        # their records
    python scripts/conditioning/sound_questions.py draw                         # their figure

FiLM's network for pictures (scripts/conditioning/blocks.py) on a log spectrogram, as Abdelnour, Rouat and
Salvi do it ("NAAQA: a neural architecture for acoustic question answering", 2021, arXiv:2106.06147). There
coordinate maps of time help much and those of frequency little; the arms are these maps. Tones and questions
are those of episodes/datasets/scenes/tone_scenes.py. Arms and sizes stand in
configs/conditioning/sound-questions.yaml. Tune with `--set` by the validation accuracy that `train` prints;
the test scenes are for `write`.
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

from episodes.datasets.scenes import tone_scenes, tones  # noqa: E402
from episodes.datasets.scenes.tone_scenes import ANSWERS, KINDS, VOCABULARY, Scenes  # noqa: E402
from episodes.progress import track  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.conditioning import Conditioned, NoCondition, SequenceEncoder  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from scripts import device  # noqa: E402
from scripts.conditioning import running, tested  # noqa: E402
from scripts.conditioning.blocks import Block, Trunk, with_places  # noqa: E402
from scripts.conditioning.recorded import Batched  # noqa: E402

ORDER = 203  # the stream of random numbers by which training scenes are shuffled


@dataclass(frozen=True)
class Settings(running.Plan):
    """A run's settings; the file and the arms change them."""

    scenes: int = 16_000
    width: int = 128
    blocks: int = 4
    axes: tuple[str, ...] = ("x",)
    """Of which there are coordinate maps: x is time, y frequency."""
    conditioned: bool = True
    """Off: the network is blind to the question."""
    temporal: bool = False
    """A gain for every place in time, besides those of the features."""
    decoder: str = "linear"
    start: float = 6**0.5
    """Of the post-multipliers: deviations of size 1 from the first step; 0 is the identity."""
    state: int = 128
    """Of the GRU."""
    sounds: int = 8
    """A step, with their 8 questions each."""
    bfloat16: bool = True
    """Train in half precision, where it allows; scores are always of full precision."""


class Listener(nn.Module):
    """Spectrograms and the questions asked of each -> logits ``[I·n, answers]``.

    The second convolution spans all frequencies, since what a tone is lies in all of them together; what
    follows it are maps over time alone, which a question modulates. So maps of frequency stand before it, and
    those of time before every block as well, whose convolutions reach further from block to block: the tone
    before another one can be a second away.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width, self.axes = settings.width, settings.axes
        if set(self.axes) - {"x", "y"}:
            raise MetafilmError(
                f"coordinate maps of {', '.join(self.axes)}; there are x, which is time, and y"
            )
        rows = tones.BANDS // 2
        self.near = _layer(1 + len(self.axes), 32, (3, 3), (2, 2), (1, 1))  # [32, 32, 64]
        self.across = _layer(32 + len(self.axes), width, (rows, 3), (1, 2), (0, 1))  # [width, 1, 32]
        self.along = _layer(width, width, (1, 3), (1, 1), (0, 1))
        times = ("x",) if "x" in self.axes else ()
        blocks = [Block(width, times, kernel=(1, 3), dilation=2**i) for i in range(settings.blocks)]
        trunk = Trunk(width, blocks, len(ANSWERS), axes=times)
        condition: nn.Module = NoCondition()
        if settings.conditioned:
            film.insert(trunk, [f"blocks.{i}.norm" for i in range(settings.blocks)])
            sites = film.sites(trunk)
            condition = SequenceEncoder(
                len(VOCABULARY),
                sites,
                width=settings.state,
                decoder=settings.decoder,
                start=settings.start,
                maps=dict.fromkeys(sites, (1, tones.FRAMES // 4)) if settings.temporal else None,
            )
        self.reader = Conditioned(trunk, condition)

    def forward(self, sounds: Tensor, questions: Tensor) -> Tensor:
        """``sounds``: uint8 ``[I, 64, 128]``. ``questions``: int64 ``[I, n, L]``."""
        near = self.near(with_places(sounds.unsqueeze(1).float() / 40 - 1, self.axes))
        maps = self.along(self.across(with_places(near, self.axes)))
        return self.reader(maps.repeat_interleave(questions.shape[1], 0), questions.flatten(0, 1))


def _layer(
    before: int, after: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


@dataclass(frozen=True)
class Examples:
    """Scenes as tensors."""

    sounds: Tensor
    questions: Tensor
    asked: Tensor
    answers: Tensor

    @classmethod
    def of(cls, scenes: Scenes) -> "Examples":
        parts = (scenes.sounds, scenes.questions, scenes.asked, scenes.answers)
        return cls(*(torch.from_numpy(part) for part in parts))


def make(settings: Settings) -> Listener:
    """The model as it starts."""
    torch.manual_seed(settings.seed)
    return Listener(settings).to(memory_format=torch.channels_last)  # the faster one for these sizes


def fit(model: Listener, settings: Settings, folder: Path, description: str) -> float:
    """Train the model; the seconds it took."""
    data = device.beside(model, Examples.of(tone_scenes.split("train", settings.scenes)))

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = tested.shuffled(step, settings.sounds, data.sounds, settings.seed, ORDER)
        return data.sounds[chosen], data.questions[chosen], data.answers[chosen]

    def loss(sounds: Tensor, questions: Tensor, answers: Tensor) -> Tensor:
        with device.half(model, settings.bfloat16):
            logits = model(sounds, questions)
        return F.cross_entropy(logits.float(), answers.flatten())

    return running.train(model, Batched(batch, loss), settings, folder, description)


@torch.no_grad()
def score(model: nn.Module, settings: Settings, split: str, description: str, folder: Path) -> tested.Scores:
    """Per cent right, its interval over scenes, and per cent of each kind of question."""
    data = device.beside(model, Examples.of(tone_scenes.split(split)))
    model.eval()
    found = []
    for part in track(list(torch.arange(len(data.sounds)).split(50)), description):
        chosen = part.to(data.sounds.device)
        given = model(data.sounds[chosen], data.questions[chosen]).argmax(1)
        found.append(given.view(len(chosen), -1) == data.answers[chosen])
    right = torch.cat(found).cpu()
    by_scene = (100 * right.double().mean(1)).tolist()
    by_kind = {
        kind: 100 * right[data.asked.cpu() == n].double().mean().item() for n, kind in enumerate(KINDS)
    }
    return {"accuracy": {"value": sum(by_scene) / len(by_scene), "ci95": interval(by_scene), **by_kind}}


def draw(_options: argparse.Namespace, _found: list[dict[str, Any]]) -> None:
    """docs/sound-questions.svg: the records, and a test scene with three of its questions."""
    from scripts.conditioning import pictures  # needs matplotlib

    scene = tone_scenes.split("test", 1)
    asked = []
    for words, answer in zip(scene.questions[0, :3].tolist(), scene.answers[0, :3].tolist(), strict=True):
        asked.append(f"{' '.join(VOCABULARY[w] for w in words if w)}? {ANSWERS[answer]}")
    pictures.sound_questions(json.loads(SYSTEM.out.read_text()), KINDS, scene.sounds[0], asked)


SYSTEM = tested.system(
    "sound-questions",
    Settings(),
    make,
    fit,
    score,
    "test scenes",
    "1000 test scenes of 8 questions",
    arm="both",
    more={"draw": draw},
)

if __name__ == "__main__":
    SYSTEM.start(__doc__)
