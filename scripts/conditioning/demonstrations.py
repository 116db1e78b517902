"""Demonstrations of BabyAI's levels by its own bot: what cloning learns from. Needs `metafilm[conditioning]`.

The levels and the bot are those of minigrid (Chevalier-Boisvert et al., "BabyAI", ICLR 2019,
arXiv:1810.08272). A demonstration is a pure function of level and seed: the level of that seed, solved by the
bot. They are made once and kept in parts under the data root (`--data-root`, `$METAFILM_DATA`, the user's
cache folder); a minute makes some 20,000.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from episodes.files.root import data_root, write_atomically
from episodes.progress import Progress
from metafilm.errors import MetafilmError

LEVELS = {"gotolocal": "GoToLocal", "gotoobj": "GoToObj"}
"""The class in minigrid: go to one of eight objects in a room, and to the only one."""
COLOURS = ("blue", "green", "grey", "purple", "red", "yellow")
KINDS = ("ball", "box", "key")
VOCABULARY = ("", "a", "go", "the", "to", *COLOURS, *KINDS)
"""Words by their numbers; 0 is no word."""
WORDS = 5  # "go to the red ball"
VIEW = (7, 7, 3)
"""What the agent sees of the 7×7 cells before it: object, colour and state of each, as numbers."""
NUMBERS = (11, 6, 4)
"""How many objects, colours and states (or directions) there are."""
ACTIONS = ("left", "right", "forward", "pick up", "drop", "toggle", "done")
SPLITS = {"test": 0, "val": 100_000, "train": 1_000_000}
"""The first seed of each."""
PART = 2000  # demonstrations a file


@dataclass(frozen=True)
class Demonstrations:
    """N episodes, one behind the other.

    views: uint8 [F, 7, 7, 3], what was seen before each action. actions: uint8 [F], into `ACTIONS`. lengths:
    int64 [N], actions of each episode, which sum to F. words: uint8 [N, 5], its instruction.
    """

    views: NDArray[np.uint8]
    actions: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    words: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.lengths)


def level(name: str, **options: Any) -> Any:
    """A level of minigrid by its name here.

    Raises:
        MetafilmError: an unknown level, or minigrid is not installed.
    """
    if name not in LEVELS:
        raise MetafilmError(f"unknown level {name!r}; expected one of {', '.join(LEVELS)}")
    if find_spec("minigrid") is None:
        raise MetafilmError("BabyAI's levels need minigrid; pip install 'metafilm[conditioning]'")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pygame, about what it was built with
        from minigrid.envs.babyai import goto
    return getattr(goto, LEVELS[name])(**options)


def reset(environment: Any, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Start the level of a seed: what is seen first, and the instruction's words ``[5]``."""
    with contextlib.redirect_stdout(io.StringIO()):  # it says which draws it rejects
        seen, _ = environment.reset(seed=seed)
    return seen["image"], spell(seen["mission"])


def spell(sentence: str) -> NDArray[np.uint8]:
    """A sentence as words of the vocabulary. Raises MetafilmError: it has others, or more than five."""
    found = np.zeros(WORDS, np.uint8)
    said = sentence.split()
    if len(said) > WORDS or not set(said) <= set(VOCABULARY):
        raise MetafilmError(f"{sentence!r} is not up to {WORDS} of the words{' '.join(VOCABULARY)}")
    found[: len(said)] = [VOCABULARY.index(word) for word in said]
    return found


def solve(environment: Any, seed: int) -> tuple[list[NDArray[np.uint8]], list[int], NDArray[np.uint8]]:
    """How the bot solves the level of a seed: what it saw, what it did, the instruction.

    Raises:
        MetafilmError: it did not.
    """
    from minigrid.utils.baby_ai_bot import BabyAIBot

    view, words = reset(environment, seed)
    bot, views, actions, ended, reward = BabyAIBot(environment), [], [], False, 0.0
    while not ended:
        action = int(bot.replan())
        views.append(view)
        actions.append(action)
        seen, reward, terminated, truncated, _ = environment.step(action)
        view, ended = seen["image"], terminated or truncated
    if reward <= 0:
        raise MetafilmError(f"the bot does not solve {type(environment).__name__} of seed {seed}")
    return views, actions, words


def make(name: str, first: int, count: int, progress: Progress | None = None) -> Demonstrations:
    """Those of the seeds `first` to `first + count - 1`."""
    environment = level(name)
    views, actions, lengths, words = [], [], [], []
    for seed in range(first, first + count):
        seen, done, said = solve(environment, seed)
        views += seen
        actions += done
        lengths.append(len(done))
        words.append(said)
        if progress is not None:
            progress.advance()
    return Demonstrations(
        np.stack(views), np.array(actions, np.uint8), np.array(lengths, np.int64), np.stack(words)
    )


def split(name: str, part: str, count: int, root: str | os.PathLike | None = None) -> Demonstrations:
    """The first demonstrations of a split, from the data root or made and put there.

    Raises:
        MetafilmError: an unknown level or split, less than one demonstration, a damaged file, no minigrid.
    """
    if part not in SPLITS or count < 1:
        raise MetafilmError(f"{count} demonstrations of {part!r}; ask for 1 or more of {', '.join(SPLITS)}")
    if name not in LEVELS:
        level(name)
    parts = []
    with Progress(f"demonstrations of {name}, {part}", count) as progress:
        for first in range(0, count, PART):
            parts.append(_part(name, SPLITS[part] + first, min(PART, count - first), root, progress))
    return Demonstrations(
        *(np.concatenate([getattr(p, field) for p in parts]) for field in Demonstrations.__annotations__)
    )


def _part(
    name: str, first: int, count: int, root: str | os.PathLike | None, progress: Progress
) -> Demonstrations:
    """The first of a file's demonstrations; the file is made whole where it is missing or too short."""
    path = data_root(root) / "babyai" / f"{name}-{first}.npz"
    if path.is_file():
        found = _read(path)
        if len(found) >= count:
            progress.advance(count)
            frames = int(found.lengths[:count].sum())
            return Demonstrations(
                found.views[:frames], found.actions[:frames], found.lengths[:count], found.words[:count]
            )
    found = make(name, first, count, progress)
    arrays = {field: getattr(found, field) for field in Demonstrations.__annotations__}
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    return found


def _read(path: Path) -> Demonstrations:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = Demonstrations(*(file[field] for field in Demonstrations.__annotations__))
        n, frames = len(found.lengths), int(found.lengths.sum())
        right = found.views.shape == (frames, *VIEW) and found.actions.shape == (frames,)
        right &= found.words.shape == (n, WORDS) and (found.words < len(VOCABULARY)).all()
        right &= (found.actions < len(ACTIONS)).all() and (found.views < NUMBERS).all()
        if not right:
            raise ValueError("its arrays don't fit")
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise MetafilmError(f"{path} holds no demonstrations ({error}); remove it, it is made anew") from None
    return found


def goals(words: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Colour and kind that instructions name: ``[N, 5]`` -> int64 ``[N, 2]``, into `COLOURS` and `KINDS`."""
    colour = words[:, 3].astype(np.int64) - VOCABULARY.index(COLOURS[0])
    return np.stack((colour, words[:, 4].astype(np.int64) - VOCABULARY.index(KINDS[0])), 1)


def seeds(name: str, part: str, count: int, pairs: set[tuple[int, int]] | None = None) -> Iterator[int]:
    """The first seeds of a split; with `pairs`, the first whose goal is one of them."""
    environment, seed = (None if pairs is None else level(name)), SPLITS[part]
    while count:
        if environment is None or tuple(goals(reset(environment, seed)[1][None])[0]) in (pairs or ()):
            yield seed
            count -= 1
        seed += 1
