"""How many tasks go together: what is measured, chosen and kept."""

import pytest
import torch

from episodes import Episode
from metafilm.config.sources import Source
from metafilm.training import chunks
from metafilm.training.chunks import Chunks
from metafilm.training.outer_loop import OuterLoop


@pytest.fixture
def loop(make_learner):
    learner = make_learner(outer={"meta_batch": 6, "task_chunk": None}, inner={"steps": 1})
    return OuterLoop(learner, learner.config, Source(None, ()))  # type: ignore[arg-type]


def measure(loop, batch) -> Chunks:
    return chunks.measure(loop.learner, loop.config.outer, batch, loop.gradient)


def pretend(monkeypatch, cost) -> None:
    """A task costs so much under these chunks."""

    def seconds(learner, gradient, c, episodes) -> float:
        return cost(c) * episodes[0].tasks

    monkeypatch.setattr(chunks, "_seconds", seconds)


def in_chunks(make_episode, size: int) -> list[Episode]:
    return [make_episode(tasks=size, seed=i) for i in range(6 // size)]


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (lambda c: 1.0, Chunks(1, 1)),  # nothing to gain: the least memory
        (lambda c: 1.0 / c.tasks, Chunks(6, 1)),
        (lambda c: 1.0 / c.queries, Chunks(6, 6)),
        (lambda c: 1.0 + abs(c.tasks - 4) + c.queries, Chunks(4, 1)),
        (lambda c: 1.0 - 0.015 * (c.tasks == 6), Chunks(1, 1)),  # within 2 %
    ],
)
def test_the_smallest_within_2_percent_of_the_fastest(
    loop, make_episode, monkeypatch, cost, expected
) -> None:
    pretend(monkeypatch, cost)
    assert measure(loop, lambda size: in_chunks(make_episode, size)) == expected


def test_memory_bounds_the_chunks(loop, make_episode, monkeypatch) -> None:
    pretend(monkeypatch, lambda c: 1.0 / c.tasks / c.queries)
    adapting, querying = chunks.bytes_kept(loop.learner, make_episode(tasks=1))
    assert adapting > 0 and querying > 0
    for tasks in (4, 2):
        monkeypatch.setattr(chunks, "MEMORY", tasks * max(adapting, querying))
        found = measure(loop, lambda size: in_chunks(make_episode, size))
        assert tasks <= found.tasks <= chunks.MEMORY / adapting
        assert found.queries <= chunks.MEMORY / querying
    monkeypatch.setattr(chunks, "MEMORY", 0)  # one task goes, whatever it needs
    assert measure(loop, lambda size: in_chunks(make_episode, size)) == Chunks(1, 1)


def test_more_steps_keep_more(make_learner, make_episode) -> None:
    kept = []
    for steps in (1, 2, 3):
        learner = make_learner(inner={"steps": steps})
        kept.append(chunks.bytes_kept(learner, make_episode(tasks=1)))
    more = [kept[i + 1][0] - kept[i][0] for i in (0, 1)]
    assert more[0] > 0 and more[1] == pytest.approx(more[0], rel=0.05), "so much for each step"
    assert kept[0][1] == pytest.approx(kept[2][1], rel=0.01), "the queries have their step once"


def test_measuring_moves_nothing(loop, make_episode) -> None:
    before = {name: value.clone() for name, value in loop.learner.state_dict().items()}
    random = torch.get_rng_state()
    found = measure(loop, lambda size: in_chunks(make_episode, size))
    assert 1 <= found.queries <= found.tasks <= 6
    assert loop.iteration == 0 and torch.equal(torch.get_rng_state(), random)
    assert all(value.grad is None for value in loop.learner.parameters())
    for name, value in loop.learner.state_dict().items():
        assert torch.equal(value, before[name]), name
    for module in loop.learner.modules():
        assert not hasattr(module, "recorded") or not module.recorded.any()


def test_what_the_settings_say_is_taken(make_learner) -> None:
    outer = {"meta_batch": 6, "task_chunk": 3, "query_chunk": 2}
    learner = make_learner(outer=outer)
    loop = OuterLoop(learner, learner.config, Source(None, ()))  # type: ignore[arg-type]
    assert loop.chunks == measure(loop, lambda size: []) == Chunks(3, 2)


def test_a_resumed_run_keeps_its_chunks(loop) -> None:
    loop.chunks = Chunks(4, 2)
    other = OuterLoop(loop.learner, loop.config, loop.source)
    other.load(loop.state(), "checkpoint.pt")
    assert other.chunks == Chunks(4, 2)
