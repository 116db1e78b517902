"""An agent that is told what to do: eyes that an instruction conditions, and a memory (`instructions.py`)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metafilm import film
from metafilm.conditioning import Conditioned, DualAttention, NoCondition, SequenceEncoder
from metafilm.errors import MetafilmError
from scripts.conditioning import running
from scripts.conditioning.blocks import Block
from scripts.conditioning.demonstrations import ACTIONS, NUMBERS, VOCABULARY


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
        thing, colour, state = views.long().unbind(-1)
        number = (thing * NUMBERS[1] + colour) * NUMBERS[2] + state
        return F.embedding(number, table).permute(0, 3, 1, 2)


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
        there = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]  # [N, L]
        padded = seen.new_zeros(*there.shape, seen.shape[1]).masked_scatter(there.unsqueeze(2), seen)
        with torch.autocast(seen.device.type, enabled=False):
            return self.act(self.memory(padded)[0][there])
