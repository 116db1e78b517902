"""Demonstrations of BabyAI's levels against what the levels themselves say, step by step."""

import hashlib
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest

from metafilm.errors import MetafilmError
from scripts.conditioning import demonstrations

pytestmark = pytest.mark.skipif(
    find_spec("minigrid") is None, reason="needs minigrid: pip install 'metafilm[conditioning]'"
)


@pytest.fixture(scope="module")
def made() -> demonstrations.Demonstrations:
    return demonstrations.make("gotolocal", 1_000_000, 25)


def test_replayed_they_reach_their_goals(made) -> None:
    """The actions alone, played again: the same views, and success at the last step and not before."""
    frame = 0
    for number, length in enumerate(made.lengths):
        room = demonstrations.level("gotolocal")
        seen, _ = room.reset(seed=1_000_000 + number)
        sentence = " ".join(demonstrations.VOCABULARY[word] for word in made.words[number] if word)
        assert sentence == seen["mission"]
        for step in range(length):
            assert np.array_equal(seen["image"], made.views[frame])
            seen, reward, ended, _, _ = room.step(int(made.actions[frame]))
            assert (reward > 0) == ended == (step + 1 == length)
            frame += 1
    assert frame == len(made.views) == len(made.actions)
    assert (made.views < demonstrations.NUMBERS).all()


def test_goals_are_what_the_level_is_after(made) -> None:
    goals = demonstrations.goals(made.words)
    for number, (colour, kind) in enumerate(goals):
        room = demonstrations.level("gotolocal")
        demonstrations.reset(room, 1_000_000 + number)
        wanted = room.instrs.desc
        assert (wanted.color, wanted.type) == (
            demonstrations.COLOURS[colour],
            demonstrations.KINDS[kind],
        )


def test_vocabulary_is_minigrids() -> None:
    from minigrid.core import constants

    assert set(demonstrations.COLOURS) == set(constants.COLOR_TO_IDX)
    numbers = (constants.OBJECT_TO_IDX, constants.COLOR_TO_IDX)
    assert (*(max(part.values()) + 1 for part in numbers), 4) == demonstrations.NUMBERS


@pytest.mark.skipif(
    find_spec("minigrid") is not None and version("minigrid") != "3.2.0",
    reason="another version of minigrid may make other rooms of a seed",
)
def test_checksum(made) -> None:
    """Version 1: whoever changes what is shown changes every record made with it."""
    parts = (made.views, made.actions, made.lengths.astype(np.uint8), made.words)
    assert hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16] == "bf23344599478350"


def test_kept_under_the_data_root(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demonstrations, "PART", 4)
    found = demonstrations.split("gotoobj", "val", 6, tmp_path)
    names = sorted(path.name for path in (tmp_path / "babyai").iterdir())
    assert names == ["gotoobj-100000.npz", "gotoobj-100004.npz"]
    direct = demonstrations.make("gotoobj", 100_000, 6)
    monkeypatch.setattr(demonstrations, "solve", None)  # from here on nothing is made
    for count in (6, 5, 2):
        again = demonstrations.split("gotoobj", "val", count, tmp_path)
        assert len(again) == count
        for field in ("views", "actions", "lengths", "words"):
            expected = getattr(direct, field)[: len(getattr(again, field))]
            assert np.array_equal(getattr(again, field), expected)
    assert len(found) == 6
    (tmp_path / "babyai" / "gotoobj-100000.npz").write_bytes(b"damaged")
    with pytest.raises(MetafilmError, match=r"gotoobj-100000\.npz holds no demonstrations .*; remove it"):
        demonstrations.split("gotoobj", "val", 2, tmp_path)


def test_seeds_of_goals() -> None:
    pairs = {(0, 0), (1, 2)}
    found = list(demonstrations.seeds("gotolocal", "test", 3, pairs))
    room = demonstrations.level("gotolocal")
    every = [
        seed
        for seed in range(found[-1] + 1)
        if tuple(demonstrations.goals(demonstrations.reset(room, seed)[1][None])[0]) in pairs
    ]
    assert found == every
    assert list(demonstrations.seeds("gotolocal", "val", 2)) == [100_000, 100_001]


def test_errors(monkeypatch) -> None:
    with pytest.raises(MetafilmError, match="unknown level 'x'; expected one of gotolocal, gotoobj"):
        demonstrations.level("x")
    with pytest.raises(MetafilmError, match="ask for 1 or more of test, val, train"):
        demonstrations.split("gotolocal", "dev", 3)
    with pytest.raises(MetafilmError, match="'put the ball next to it' is not up to 5 of the words"):
        demonstrations.spell("put the ball next to it")
    monkeypatch.setattr(demonstrations, "find_spec", lambda _: None)
    with pytest.raises(MetafilmError, match=r"pip install 'metafilm\[conditioning\]'"):
        demonstrations.level("gotolocal")
