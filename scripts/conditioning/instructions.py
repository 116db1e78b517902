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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from episodes.progress import Progress  # noqa: E402
from metafilm.evaluation.intervals import share_interval  # noqa: E402
from metafilm.storage.atomic import atomic_write  # noqa: E402
from scripts import device  # noqa: E402
from scripts.conditioning import demonstrations, running, tested  # noqa: E402
from scripts.conditioning.agent import Agent, Settings  # noqa: E402
from scripts.conditioning.demonstrations import COLOURS, KINDS, Demonstrations  # noqa: E402

ORDER = 211  # the stream of random numbers by which demonstrations are shuffled
WITHHELD = (("blue", "key"), ("green", "ball"), ("red", "box"), ("yellow", "key"))
"""Goals that nobody shows an agent which is to go to them unseen; it has seen them as things in its way."""
TRIES = 500  # seeds of a score


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
        return self.chosen(tested.shuffled(step, size, self.lengths, seed, ORDER))

    def chosen(self, episodes: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        lengths, rows = (
            self.lengths[episodes],
            self.sentence[episodes].repeat_interleave(self.lengths[episodes]),
        )
        ends = lengths.cumsum(0)
        frames = (self.starts[episodes] - ends + lengths).repeat_interleave(lengths)
        frames += torch.arange(len(frames), device=frames.device)
        return (self.views[frames], self.said, rows, lengths), self.actions[frames]


@torch.no_grad()
def play(agent: Agent, level: str, seeds: Sequence[int], description: str = "playing") -> NDArray[np.bool_]:
    """In which levels of these seeds the agent reaches its goal in time, doing what it finds likeliest."""
    agent.eval()
    rooms = [demonstrations.level(level) for _ in seeds]
    started = [demonstrations.reset(room, seed) for room, seed in zip(rooms, seeds, strict=True)]
    here = device.of(agent)
    views = [view for view, _ in started]
    said = torch.from_numpy(np.stack([s for _, s in started])).long().to(here)
    won = np.zeros(len(rooms), bool)
    going = torch.arange(len(rooms))
    memory = torch.zeros(2, 1, len(rooms), agent.memory.hidden_size, device=here)
    with Progress(description, len(rooms)) as progress:
        while len(going):
            now = torch.from_numpy(np.stack([views[i] for i in going])).to(here)
            seen = agent.see(now, said[going], torch.arange(len(going), device=here))
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
    count = int(won.sum())
    return {"value": 100 * count / len(won), "ci95": 100 * share_interval(count, len(won))}


def score(agent: Agent, settings: Settings, split: str, description: str, _folder: Path) -> tested.Scores:
    """Success over the split's first 500 seeds, and over the first 500 whose goal is withheld."""
    found = {}
    for metric, pairs in ((f"success-{settings.level}", None), ("success-unseen", WITHHELD)):
        if pairs is None or settings.withheld:
            numbers = None if pairs is None else {(COLOURS.index(c), KINDS.index(k)) for c, k in pairs}
            tries = list(demonstrations.seeds(settings.level, split, TRIES, numbers))
            found[metric] = success(play(agent, settings.level, tries, f"{description}, {metric}"))
    return found


def make(settings: Settings) -> Agent:
    """The agent as it starts."""
    torch.manual_seed(settings.seed)
    return Agent(settings).to(memory_format=torch.channels_last)


def fit(agent: Agent, settings: Settings, folder: Path, description: str) -> float:
    """Train the agent; the seconds it took."""
    shown = demonstrations.split(settings.level, "train", settings.demonstrations)
    data = device.beside(agent, Examples.of(shown, WITHHELD if settings.withheld else ()))

    def loss(step: int) -> Tensor:
        episodes, actions = data.batch(step, settings.episodes, settings.seed)
        with device.half(agent, settings.bfloat16):
            logits = agent(*episodes)
        return F.cross_entropy(logits, actions)

    return running.train(agent, loss, settings, folder, description)


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
    shown = {metric for metric, _, _ in panels}
    names = list(dict.fromkeys(r["arm"].removesuffix("-withheld") for r in rows if r["metric"] in shown))
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


SYSTEM = tested.system(
    "instructions",
    Settings(),
    make,
    fit,
    score,
    "test episodes",
    f"{TRIES} test episodes",
    more={"film": film_it, "draw": draw},
)

if __name__ == "__main__":
    SYSTEM.start(__doc__)
