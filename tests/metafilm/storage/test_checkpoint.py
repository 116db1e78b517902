"""A checkpoint is the state that was saved, or an error; never something else, and never code."""

import os
import sys

import pytest
import torch

from metafilm.errors import RunError
from metafilm.storage import checkpoint


@pytest.fixture
def file(tmp_path, state):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, state(7))
    return path


def test_round_trip(file, state) -> None:
    loaded = checkpoint.load(file)
    assert loaded.keys() == state().keys()
    assert torch.equal(loaded["learner"]["a"], torch.arange(3.0))
    assert (loaded["iteration"], loaded["best"], loaded["seconds"]) == (7, None, 1.5)
    assert os.listdir(file.parent) == ["checkpoint.pt"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
@pytest.mark.parametrize("room", [1_000, 30_000, 94_080, 94_112, 119_000])
def test_a_disk_that_fills_up_anywhere_in_the_file_is_the_error_shown(file, state, room) -> None:
    """The system refuses what goes beyond a limit, as a full disk does; PyTorch would complain of itself."""
    import resource

    before, larger = file.read_bytes(), state(8) | {"learner": {"a": torch.zeros(30_000)}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError) as caught:
            checkpoint.save(file, larger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(file)
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_pytorch_reads_it_and_it_reads_pytorch(file, state) -> None:
    assert torch.load(file, weights_only=True)["iteration"] == 7
    torch.save(state(8), file)  # as before there were checksums
    assert checkpoint.load(file)["iteration"] == 8


def test_an_older_one_with_random_numbers_is_read(file, state) -> None:
    checkpoint.save(file, state(8) | {"random": torch.get_rng_state()})
    assert checkpoint.load(file)["iteration"] == 8


def test_every_flipped_bit_is_noticed_or_harmless(file) -> None:
    """PyTorch itself reads most of them without a word, and the run would go on from other weights."""
    whole = file.read_bytes()
    seal = len(whole) - checkpoint.SEAL
    for place in [*range(0, seal, 97), seal - 1]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(RunError, match=r"is damaged .*its checksum does not fit"):
            checkpoint.load(file)
    for place in range(seal, len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            assert checkpoint.load(file)["iteration"] == 7
        except RunError as error:
            assert "its checksum does not fit" in str(error)


def test_a_part_of_it(file) -> None:
    whole = file.read_bytes()
    for size in (0, 1, 30, checkpoint.SEAL, len(whole) // 2, len(whole) - checkpoint.SEAL - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(RunError, match="is damaged"):
            checkpoint.load(file)


CHANGES = {
    "learner": ([], "'learner' is list, expected a dict of tensors"),
    "optimiser": ({"state": {}}, "'optimiser' is dict, expected a dict with 'state' and 'param_groups'"),
    "average": ({"values": {"a": 1}, "updates": 1}, "'average' is dict"),
    "iteration": ("7", "'iteration' is str, expected a whole number from 0"),
    "best": ("good", "'best' is str"),
    "best_iteration": (-1, "'best_iteration' is int"),
    "seconds": (None, "'seconds' is NoneType"),
    "chunks": ([1, 0], "'chunks' is list, expected two whole numbers from 1"),
}


def test_what_is_missing_or_of_another_kind_is_all_named(file, state) -> None:
    for name, (value, message) in CHANGES.items():
        checkpoint.save(file, state() | {name: value})
        with pytest.raises(RunError, match=f"is no state of a run .*{message}"):
            checkpoint.load(file)
    checkpoint.save(file, {"iteration": "7"})
    with pytest.raises(RunError) as caught:
        checkpoint.load(file)
    for name in state().keys() - {"iteration"}:
        assert f"{name!r} is missing" in str(caught.value)
    torch.save([1, 2], file)
    with pytest.raises(RunError, match="it holds list, expected a dict of states"):
        checkpoint.load(file)


def test_it_runs_no_code_and_nobody_is_told_to_let_it(file, tmp_path) -> None:
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"iteration": Payload()}, file)
    with pytest.raises(RunError, match="more than tensors, numbers and text") as caught:
        checkpoint.load(file)
    assert "weights_only" not in str(caught.value) and "trust" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("links", [True, False])
def test_the_one_before_is_kept(file, state, tmp_path, links, monkeypatch) -> None:
    previous = tmp_path / "before.pt"
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    for iteration in (8, 9):
        checkpoint.save(file, state(iteration), previous)
        assert checkpoint.load(file)["iteration"] == iteration
        assert checkpoint.load(previous)["iteration"] == iteration - 1
    if links:  # a kill after the rotation, before the new file came
        previous.unlink()
        os.link(file, previous)
        checkpoint.save(file, state(10), previous)
        assert checkpoint.load(previous)["iteration"] == 9
    assert sorted(os.listdir(tmp_path)) == ["before.pt", "checkpoint.pt"]


def test_a_save_that_fails_leaves_both(file, state, tmp_path, monkeypatch) -> None:
    previous = tmp_path / "before.pt"
    checkpoint.save(file, state(8), previous)

    def full(_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(file, state(9), previous)
    monkeypatch.undo()
    assert (checkpoint.load(file)["iteration"], checkpoint.load(previous)["iteration"]) == (8, 7)
    assert sorted(os.listdir(tmp_path)) == ["before.pt", "checkpoint.pt"]
