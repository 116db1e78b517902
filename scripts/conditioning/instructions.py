"""Instructions followed by FiLM, and by attention beside it: results/conditioning/instructions.json.

    python scripts/conditioning/instructions.py train --arm film --seed 0   # goes on where it stopped
    python scripts/conditioning/instructions.py list                        # the runs there are
    python scripts/conditioning/instructions.py write                       # their records
    python scripts/conditioning/instructions.py draw                        # docs/instructions.svg of them
    python scripts/conditioning/instructions.py film --arm film             # docs/instructions.gif, an agent

An agent in a room of BabyAI's (minigrid; `pip install 'metafilm[conditioning]'`) sees the 7×7 cells before it
and is told where to go. It learns by cloning BabyAI's own bot (scripts/conditioning/demonstrations.py). The
instruction modulates the residual blocks that look at the cells; what they find goes through an LSTM, as what
lies behind has to be remembered. Arms and sizes stand in configs/conditioning/instructions.yaml. Tune with
`--set` by the validation success that `train` prints; the test seeds are for `write`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from episodes.counter import first_of_shuffled, words  # noqa: E402
from episodes.progress import Progress  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.conditioning import Conditioned, DualAttention, NoCondition, SequenceEncoder  # noqa: E402
from metafilm.errors import MetafilmError  # noqa: E402
from metafilm.evaluation.intervals import interval  # noqa: E402
from metafilm.storage.atomic import atomic_write  # noqa: E402
from scripts.conditioning import demonstrations, running  # noqa: E402
from scripts.conditioning.blocks import Block  # noqa: E402
from scripts.conditioning.commands import System  # noqa: E402
from scripts.conditioning.demonstrations import (  # noqa: E402
    ACTIONS,
    COLOURS,
    KINDS,
    NUMBERS,
    VOCABULARY,
    Demonstrations,
)

ORDER = 211  # the stream of random numbers by which demonstrations are shuffled
WITHHELD = (("blue", "key"), ("green", "ball"), ("red", "box"), ("yellow", "key"))
"""Goals that nobody shows an agent which is to go to them unseen; it has seen them as things in its way."""
TRIES = 500  # seeds of a score


@dataclass(frozen=True)
class Settings(running.Plan):
    """A run's settings; the file and the arms change them."""

    level: str = "gotolocal"
    demonstrations: int = 20_000
    withheld: bool = False
    """Leave out demonstrations whose goal is one of `WITHHELD`."""
    condition: str = "film"
    """`film`, `dual` (attention) or `none`."""
    modulation: str = "film"
    decoder: str = "linear"
    width: int = 64
    blocks: int = 2
    words: int = 64
    """Size of the sentence's state."""
    state: int = 64
    """Of the agent's own memory."""
    episodes: int = 32
    """A step."""
    bfloat16: bool = True
    """Train in half precision, where it allows; agents act in full precision."""


class Cells(nn.Module):
    """What each cell holds: uint8 ``[F, 7, 7, 3]`` -> ``[F, width, 7, 7]``, the sum of three embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(nn.Parameter(torch.randn(n, width) / 3**0.5) for n in NUMBERS)

    def forward(self, views: Tensor) -> Tensor:
        things, colours, states = self.tables
        table = (things[:, None, None] + colours[:, None] + states).flatten(0, 2)  # one row per combination
        number = torch.tensor((NUMBERS[1] * NUMBERS[2], NUMBERS[2], 1))
        return F.embedding((views.long() * number).sum(-1), table).permute(0, 3, 1, 2)


class Eyes(nn.Module):
    """What is seen -> ``[F, width]``. Sites: ``each``, what every cell holds, and the blocks' norms; for dual
    attention ``each`` alone, where it has a map a word."""

    def __init__(self, width: int, blocks: int, dual: bool) -> None:
        super().__init__()
        maps = len(VOCABULARY) if dual else width
        self.cells = Cells(width)
        self.look = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.name = nn.Conv2d(width, maps, 1, bias=False)
        self.each = nn.BatchNorm2d(maps, affine=dual)
        self.entry = nn.Sequential()
        if dual:  # attention leaves a 49th of each map: the norm makes up for it
            self.entry.extend((nn.Conv2d(maps, width, 1, bias=False), nn.BatchNorm2d(width)))
        self.dual = dual
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.last = nn.Sequential(
            nn.Conv2d(width, width // 4, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(49 * (width // 4), width),
            nn.ReLU(),
        )

    def forward(self, views: Tensor) -> Tensor:
        seen = self.look(self.cells(views))
        maps = F.relu(self.entry(self.each(self.name(seen))))
        if self.dual:  # where nobody is to look there still are things in the way
            maps = maps + seen
        return self.last(self.blocks(maps))


class Agent(nn.Module):
    """What is seen in an episode so far, and the instruction -> which action is next."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        dual = settings.condition == "dual"
        eyes, condition = Eyes(settings.width, settings.blocks, dual), NoCondition()
        if dual:
            film.insert(eyes, ["each"])
            condition = DualAttention(len(VOCABULARY), film.sites(eyes), width=settings.words)
        elif settings.condition == "film":
            film.insert(eyes, ["each", *(f"blocks.{i}.norm" for i in range(settings.blocks))])
            condition = SequenceEncoder(
                len(VOCABULARY),
                film.sites(eyes),
                width=settings.words,
                decoder=settings.decoder,
                modulation=settings.modulation,
            )
        elif settings.condition != "none":
            raise MetafilmError(f"unknown condition {settings.condition!r}; expected film, dual or none")
        self.eyes = Conditioned(eyes, condition)
        self.memory = nn.LSTM(settings.width, settings.state, batch_first=True)
        self.act = nn.Linear(settings.state, len(ACTIONS))

    def see(self, views: Tensor, said: Tensor, rows: Tensor) -> Tensor:
        """``views``: uint8 ``[F, 7, 7, 3]``. ``said``: int64 ``[S, 5]`` instructions. ``rows``: int64
        ``[F]``, which of them each view has. -> ``[F, width]``."""
        return self.eyes(views, said, rows=rows)

    def forward(self, views: Tensor, said: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
        """Whole episodes, one behind the other; ``lengths`` int64 ``[N]`` sum to F -> logits ``[F, 7]``."""
        seen = self.see(views, said, rows).to(self.act.weight.dtype)
        there = torch.arange(int(lengths.max())) < lengths[:, None]  # [N, L]
        padded = seen.new_zeros(*there.shape, seen.shape[1]).masked_scatter(there.unsqueeze(2), seen)
        with torch.autocast("cpu", enabled=False):
            return self.act(self.memory(padded)[0][there])


@dataclass(frozen=True)
class Examples:
    """Demonstrations as tensors; of sentences that are the same one is kept, and each episode's number."""

    views: Tensor
    actions: Tensor
    lengths: Tensor
    said: Tensor
    sentence: Tensor
    starts: Tensor

    @classmethod
    def of(cls, shown: Demonstrations, without: Sequence[tuple[str, str]] = ()) -> "Examples":
        """Without: goals whose episodes are left out."""
        goals = demonstrations.goals(shown.words)
        out = [(COLOURS.index(colour), KINDS.index(kind)) for colour, kind in without]
        keep = np.array([tuple(goal) not in out for goal in goals.tolist()])
        frames = np.repeat(keep, shown.lengths)
        said, sentence = np.unique(shown.words[keep], axis=0, return_inverse=True)
        lengths = torch.from_numpy(shown.lengths[keep])
        return cls(
            torch.from_numpy(shown.views[frames]),
            torch.from_numpy(shown.actions[frames]).long(),
            lengths,
            torch.from_numpy(said).long(),
            torch.from_numpy(sentence.reshape(-1)).long(),
            lengths.cumsum(0) - lengths,
        )

    def batch(self, step: int, size: int, seed: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """The episodes of a step, as an agent takes them, and their actions: in each epoch all of them,
        shuffled anew, without what fills no last step."""
        size = min(size, len(self.lengths))
        epoch, at = divmod(step, len(self.lengths) // size)
        return self.chosen(_order(seed, epoch, len(self.lengths))[at * size : (at + 1) * size])

    def chosen(self, episodes: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        lengths, rows = (
            self.lengths[episodes],
            self.sentence[episodes].repeat_interleave(self.lengths[episodes]),
        )
        ends = lengths.cumsum(0)
        frames = torch.arange(int(ends[-1])) + (self.starts[episodes] - ends + lengths).repeat_interleave(
            lengths
        )
        return (self.views[frames], self.said, rows, lengths), self.actions[frames]


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.from_numpy(first_of_shuffled(words(seed, [epoch], ORDER, (count,)), count)[0])


@torch.no_grad()
def play(agent: Agent, level: str, seeds: Sequence[int], description: str = "playing") -> NDArray[np.bool_]:
    """In which levels of these seeds the agent reaches its goal in time, doing what it finds likeliest."""
    agent.eval()
    rooms = [demonstrations.level(level) for _ in seeds]
    started = [demonstrations.reset(room, seed) for room, seed in zip(rooms, seeds, strict=True)]
    views, said = [view for view, _ in started], torch.from_numpy(np.stack([s for _, s in started])).long()
    won = np.zeros(len(rooms), bool)
    going = torch.arange(len(rooms))
    memory = torch.zeros(2, 1, len(rooms), agent.memory.hidden_size)
    with Progress(description, len(rooms)) as progress:
        while len(going):
            now = torch.from_numpy(np.stack([views[i] for i in going]))
            seen = agent.see(now, said[going], torch.arange(len(going)))
            h, (hidden, cell) = agent.memory(seen.unsqueeze(1), tuple(memory[:, :, going]))
            memory[:, :, going] = torch.stack((hidden, cell))
            on = []
            for i, action in zip(going.tolist(), agent.act(h[:, 0]).argmax(1).tolist(), strict=True):
                result, reward, terminated, truncated, _ = rooms[i].step(action)
                views[i], won[i] = result["image"], reward > 0
                on.append(not (terminated or truncated))
            progress.advance(on.count(False))
            going = going[torch.tensor(on)]
    return won


def success(won: NDArray[np.bool_]) -> dict[str, float]:
    """Per cent, and its interval over episodes."""
    each = (100.0 * won).tolist()
    return {"value": sum(each) / len(each), "ci95": interval(each)}


def score(agent: Agent, settings: Settings, part: str, description: str) -> dict[str, dict[str, float]]:
    """Success over the split's first 500 seeds, and over the first 500 whose goal is withheld."""
    found = {}
    for metric, pairs in ((f"success-{settings.level}", None), ("success-unseen", WITHHELD)):
        if pairs is None or settings.withheld:
            numbers = None if pairs is None else {(COLOURS.index(c), KINDS.index(k)) for c, k in pairs}
            tries = list(demonstrations.seeds(settings.level, part, TRIES, numbers))
            found[metric] = success(play(agent, settings.level, tries, f"{description}, {metric}"))
    return found


def train(settings: Settings, folder: Path, arm: str) -> dict[str, Any]:
    """Train a run, or go on with it, and score it."""
    shown = demonstrations.split(settings.level, "train", settings.demonstrations)
    data = Examples.of(shown, WITHHELD if settings.withheld else ())
    torch.manual_seed(settings.seed)
    agent = Agent(settings).to(memory_format=torch.channels_last)

    def loss(step: int) -> Tensor:
        episodes, actions = data.batch(step, settings.episodes, settings.seed)
        with torch.autocast("cpu", torch.bfloat16, settings.bfloat16):
            logits = agent(*episodes)
        return F.cross_entropy(logits, actions)

    seconds = running.train(agent, loss, settings, folder, f"{arm}, seed {settings.seed}")
    return {
        "scores": {part: score(agent, settings, part, f"{arm}, {part}") for part in ("val", "test")},
        "parameters": running.count(agent),
        "beside": {"condition_parameters": running.count(agent, "eyes.condition")},
        "training_seconds": seconds,
    }


@torch.no_grad()
def film_it(options: argparse.Namespace, _found: list[dict[str, Any]]) -> None:
    """An agent's first rooms of the validation seeds, from above, as docs/instructions.gif."""
    from PIL import Image, ImageDraw

    settings = SYSTEM.settings(options.arm, [f"seed={options.seed}", *options.set])
    agent = Agent(settings)
    running.restore(agent, SYSTEM.folder(options.runs, options.arm, options.seed, options.set))
    room = demonstrations.level(settings.level, render_mode="rgb_array", tile_size=24, highlight=True)
    pictures = []

    def shoot(sentence: str) -> None:
        above = Image.fromarray(room.get_frame(True, 24))
        picture = Image.new("RGB", (above.width, above.height + 20), "white")
        picture.paste(above, (0, 20))
        ImageDraw.Draw(picture).text((6, 4), sentence, fill="black")
        pictures.append(picture.quantize(64))

    for seed in demonstrations.seeds(settings.level, "val", 6):
        view, said = demonstrations.reset(room, seed)
        memory, ended = None, False
        shoot(room.mission)
        while not ended:
            seen = agent.see(
                torch.from_numpy(view)[None], torch.from_numpy(said)[None].long(), torch.zeros(1).long()
            )
            h, memory = agent.memory(seen.unsqueeze(1), memory)
            result, _, terminated, truncated, _ = room.step(int(agent.act(h[0, 0]).argmax()))
            view, ended = result["image"], terminated or truncated
            shoot(room.mission)
        pictures += pictures[-1:] * 2
    path = ROOT / "docs" / "instructions.gif"
    atomic_write(
        path,
        lambda file: pictures[0].save(
            file, "GIF", save_all=True, append_images=pictures[1:], duration=350, loop=0, optimize=True
        ),
    )
    print(path)


def draw(_options: argparse.Namespace, _found: list[dict[str, Any]]) -> None:
    """Success by arm, on all goals and on withheld ones, of the records: docs/instructions.svg."""
    from scripts.figures import DOCS, plt, save

    rows = json.loads(SYSTEM.out.read_text())
    panels = (
        ("success-gotolocal", False, "GoToLocal, all goals shown"),
        ("success-unseen", True, "goals never shown"),
    )
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
    names = list(dict.fromkeys(row["arm"].removesuffix("-withheld") for row in rows))
    for axis, (metric, withheld, title) in zip(axes, panels, strict=True):
        for place, name in enumerate(names):
            for row in rows:
                mine = row["arm"].removesuffix("-withheld") == name and row["metric"] == metric
                if mine and row["setting"]["withheld"] == withheld:
                    axis.barh(place, row["value"], color="#1e6fb8", alpha=0.85, xerr=row["ci95"])
                    axis.text(2, place, f"{row['value']:.1f}", va="center", color="white", fontsize=9)
        axis.set(title=title, xlim=(0, 100), xlabel="% reached, 500 test seeds")
        axis.set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    save(figure, DOCS / "instructions.svg")


SYSTEM = System(
    "instructions",
    Settings(),
    train,
    "test episodes",
    more={"film": film_it, "draw": draw},
)


def main(arguments: list[str] | None = None) -> None:
    SYSTEM.main(__doc__, arguments)


if __name__ == "__main__":
    try:
        main()
    except MetafilmError as error:
        raise SystemExit(str(error)) from None
