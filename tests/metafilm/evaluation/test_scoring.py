"""Accuracy, its interval, the stages, whose support the encoder reads."""

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from episodes import EpisodeSampler
from episodes.datasets.sinusoids import SinusoidSampler
from metafilm import MetafilmError, evaluate
from metafilm.engine.distributed import Group
from metafilm.errors import NotFinite
from metafilm.evaluation import interval
from metafilm.evaluation.other_support import OtherDomain, OtherSupport


def test_against_one_episode_after_another(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 2}).train()
    found = evaluate(learner, sampler, 20)
    assert learner.training, "put back into training mode"
    learner.eval()
    rows = []
    for i in range(20):
        episode = sampler[i]
        outcome = learner(episode, all_stages=True)
        hits = [(p.argmax(-1) == episode.query_labels).float().mean().item() for p in outcome.predictions]
        rows.append([100 * hit for hit in hits])
    table = np.array(rows)
    assert found["stages"] == ["identity", "encoder", "step 1", "step 2"]
    np.testing.assert_allclose(found["accuracy_by_step"], table.mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        found["ci95_by_step"], 2.0930240544083096 * table.std(0, ddof=1) / math.sqrt(20), rtol=1e-6
    )
    gains = table - table[:, :1]
    np.testing.assert_allclose(found["gain_by_step"], gains.mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        found["gain_ci95_by_step"], 2.0930240544083096 * gains.std(0, ddof=1) / math.sqrt(20), rtol=1e-6
    )
    assert found["accuracy"] == found["accuracy_by_step"][-1] and found["ci95"] == found["ci95_by_step"][-1]
    assert len(set(found["accuracy_by_step"])) > 1
    assert (found["episodes"], found["steps"], found["encoder_support"]) == (20, 2, "own")
    assert found["wall_seconds"] > 0


def test_the_number_of_tasks_per_pass_does_not_matter(make_learner, pool) -> None:
    learner = make_learner(inner={"steps": 1})
    sampler = EpisodeSampler(pool, ways=(2, 4), shots=(1, 2), queries=2, seed=3)
    found = [evaluate(learner, sampler, 18, max_tasks=tasks) for tasks in (1, 5)]
    for name in ("accuracy_by_step", "ci95_by_step"):
        assert found[0][name] == pytest.approx(found[1][name])


def test_the_last_stage_alone(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 1})
    found, whole = evaluate(learner, sampler, 6, by_stage=False), evaluate(learner, sampler, 6)
    assert found["stages"] == ["step 1"] and found["accuracy"] == whole["accuracy"]
    assert "gain_by_step" not in found and len(whole["gain_by_step"]) == 3
    assert evaluate(learner, sampler, 6, steps=0)["stages"] == ["identity", "encoder"]


@pytest.mark.parametrize("max_tasks", [1, 3])
def test_shuffled_support_against_one_episode_after_another(make_learner, sampler, max_tasks) -> None:
    """Paired: each episode's own support and another's, in one pass over the episodes."""
    learner = make_learner(inner={"steps": 1}).eval()
    passes = []
    original = sampler.prefetch
    sampler.prefetch = lambda *arguments: passes.append(1) or original(*arguments)
    found = evaluate(learner, sampler, 9, encoder_support="shuffled", max_tasks=max_tasks)
    assert len(passes) == 1
    rows = []
    for number in range(9):
        episode = sampler[number]
        other, _ = OtherSupport(sampler).of(episode)
        shuffled = learner(episode, all_stages=True, encoder_episode=other).predictions
        own = learner(episode).predictions[-1]
        labels = episode.query_labels
        rows.append([100 * float((p.argmax(-1) == labels).double().mean()) for p in [*shuffled, own]])
    table = np.array(rows)
    gains = table[:, -1] - table[:, -2]
    np.testing.assert_allclose(found["accuracy_by_step"], table[:, :-1].mean(0))
    assert found["stages"] == ["identity", "encoder", "step 1"] and len(found["ci95_by_step"]) == 3
    assert found["accuracy_own_support"] == pytest.approx(table[:, -1].mean())
    assert found["encoder_difference"] == pytest.approx(gains.mean()) and gains.any()
    assert found["encoder_difference_ci95"] == pytest.approx(interval(gains.tolist()))
    assert found["encoder_shared_classes"] == 0 and found["encoder_support"] == "shuffled"
    own = evaluate(learner, sampler, 9)
    assert own["accuracy"] == pytest.approx(found["accuracy_own_support"])
    assert own["accuracy_by_step"][0] == found["accuracy_by_step"][0]


def test_shared_classes_are_recorded(make_learner, pool) -> None:
    sampler = EpisodeSampler(pool.subset([0, 1, 2, 3]), 3, 1, 2, 0)
    found = evaluate(make_learner(), sampler, 4, encoder_support="shuffled")
    assert found["encoder_shared_classes"] == 2


def test_shuffled_support_with_tasks_of_several_shapes(make_learner, pool) -> None:
    sampler = EpisodeSampler(pool, ways=(2, 4), shots=(1, 2), queries=2, seed=3)
    learner = make_learner()
    assert 0 <= evaluate(learner, sampler, 8, encoder_support="shuffled")["accuracy"] <= 100
    with pytest.raises(MetafilmError, match="another support needs tasks of one shape"):
        evaluate(learner, sampler, 8, encoder_support="shuffled", max_tasks=8)


def test_no_encoder(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 1})
    found = evaluate(learner, sampler, 4, encoder_support="none")
    assert found["stages"] == ["identity", "step 1"] and found["encoder_support"] == "none"
    alone = evaluate(learner, sampler, 4, encoder_support="none", steps=0)
    assert alone["gain_by_step"] == alone["gain_ci95_by_step"] == [0]
    assert evaluate(make_learner(encoder={"enabled": False}), sampler, 4)["encoder_support"] == "none"


def test_regression_has_the_mean_squared_error(of_functions) -> None:
    learner = of_functions.to(torch.float32)
    sampler = SinusoidSampler(shots=5, queries=4, seed=0)
    found = evaluate(learner, sampler, 6, max_tasks=6)
    episode = sampler.batch(range(6))
    expected = (learner.eval()(episode).predictions[-1] - episode.query_labels).square().mean()
    assert found["mse"] == pytest.approx(expected.item(), rel=1e-4) and "accuracy" not in found
    assert found["mse_by_step"][-1] == found["mse"]
    assert found["gain_by_step"][-1] == pytest.approx(found["mse_by_step"][0] - found["mse"])


class Mixture(EpisodeSampler):
    """Three pools, of which the middle one is never drawn, under names of which two are alike."""

    domains = ("patterns", "nothing", "patterns")

    def __init__(self, pool) -> None:
        pools = (pool.subset([0, 1, 2, 3]), pool.subset([1, 2, 3]), pool.subset([3, 4, 5, 6]))
        super().__init__(pools, 3, 2, 2, 1, weights=(1, 0, 3))


@pytest.mark.parametrize("encoder_support", ["own", "shuffled", "other-domain"])
def test_domains_by_themselves(make_learner, pool, encoder_support) -> None:
    """Each domain's figures are those of its own episodes, scored alone."""
    learner, mixture = make_learner(inner={"steps": 1}).eval(), Mixture(pool)
    found = evaluate(learner, mixture, 16, encoder_support=encoder_support)
    assert list(found["by_domain"]) == ["patterns (0)", "patterns (2)"]
    counts = [part["episodes"] for part in found["by_domain"].values()]
    assert sum(counts) == 16 and 2 <= counts[0] < counts[1]
    for number, part in zip((0, 2), found["by_domain"].values(), strict=True):
        mine = [i for i in range(16) if int(mixture[i].pool_ids[0]) == number]
        rows = []
        for i in mine:
            kind = {"shuffled": OtherSupport, "other-domain": OtherDomain}.get(encoder_support)
            other = kind and kind(mixture).of(mixture[i])[0]
            predictions = learner(mixture[i], all_stages=True, encoder_episode=other).predictions
            predictions.append(learner(mixture[i]).predictions[-1])
            labels = mixture[i].query_labels
            rows.append([100 * float((p.argmax(-1) == labels).double().mean()) for p in predictions])
        table = np.array(rows)
        gains = table[:, :3] - table[:, :1]
        assert part["accuracy"] == pytest.approx(table[:, 2].mean())
        np.testing.assert_allclose(part["accuracy_by_step"], table[:, :3].mean(0))
        np.testing.assert_allclose(part["gain_by_step"], gains.mean(0), atol=1e-9)
        assert part["ci95"] == pytest.approx(interval(table[:, 2].tolist()))
        np.testing.assert_allclose(part["gain_ci95_by_step"], [interval(gain) for gain in gains.T.tolist()])
        if encoder_support != "own":
            assert part["encoder_difference"] == pytest.approx((table[:, 3] - table[:, 2]).mean())


def test_another_data_set_for_the_encoder(make_learner, pool) -> None:
    first, second = pool.subset([0, 1, 2, 3]), pool.subset([4, 5, 6])
    sampler, elsewhere = (EpisodeSampler(part, 3, 2, 2, 1) for part in (first, second))
    learner = make_learner(inner={"steps": 1}).eval()
    found = evaluate(learner, sampler, 6, encoder_support="other-domain", other_domains=[elsewhere])
    scores = []
    for i in range(6):
        predictions = learner(sampler[i], encoder_episode=elsewhere[i]).predictions[-1]
        scores.append(100 * float((predictions.argmax(-1) == sampler[i].query_labels).double().mean()))
    assert found["accuracy"] == pytest.approx(np.mean(scores))
    assert found["accuracy_own_support"] == evaluate(learner, sampler, 6)["accuracy"] != found["accuracy"]
    with pytest.raises(MetafilmError, match="of one data set alone"):
        evaluate(learner, sampler, 6, encoder_support="other-domain")


def test_pools_without_names_go_by_their_numbers(make_learner, pool, sampler) -> None:
    two = EpisodeSampler((pool.subset([0, 1, 2]), pool.subset([3, 4, 5])), 3, 1, 2, 0)
    assert list(evaluate(make_learner(), two, 8)["by_domain"]) == ["pool 0", "pool 1"]
    assert "by_domain" not in evaluate(make_learner(), sampler, 2)


def test_errors(make_learner, sampler) -> None:
    learner = make_learner()
    with pytest.raises(MetafilmError, match="1 episodes give no interval"):
        evaluate(learner, sampler, 1)
    with pytest.raises(MetafilmError, match="'other'; expected own, shuffled, mean, other-domain, none"):
        evaluate(learner, sampler, 4, encoder_support="other")
    with pytest.raises(MetafilmError, match="has no task encoder"):
        evaluate(make_learner(encoder={"enabled": False}), sampler, 4, encoder_support="shuffled")


class Threads(Group):
    """Processes in one: threads that meet at every sum."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, table: dict) -> None:
        super().__init__(rank, size)
        self.meeting, self.table = meeting, table

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def _shared(self, value):
        self.table[self.rank] = value
        self.meeting.wait()
        found = [self.table[rank] for rank in range(self.size)]
        self.meeting.wait()
        return found

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values.copy_(torch.stack(self._shared(values.clone())).sum(0))

    def send(self, content: bytes | None) -> bytes:
        return self._shared(content)[0]


@pytest.mark.parametrize("encoder_support", ["own", "shuffled"])
def test_more_processes_than_episodes(make_learner, sampler, encoder_support) -> None:
    learner = make_learner(inner={"steps": 1})
    expected = evaluate(learner, sampler, 2, encoder_support=encoder_support)
    meeting, table = threading.Barrier(3, timeout=60), {}

    def process(rank: int) -> dict:
        group = Threads(rank, 3, meeting, table)
        try:
            return evaluate(
                copy.deepcopy(learner),
                sampler,
                2,
                encoder_support=encoder_support,
                group=group,
                progress=False,
            )
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(process, range(3)):
            for name in expected.keys() - {"wall_seconds"}:
                assert found[name] == expected[name], name


def test_weights_that_are_no_numbers_have_no_score(make_learner, sampler) -> None:
    learner = make_learner()
    with torch.no_grad():
        learner.backbone.blocks[1].conv.weight[0, 0, 0, 0] = math.nan
        learner.head.log_scale.fill_(math.inf)
    with pytest.raises(NotFinite, match=r"weights are not finite: .*\(1 of .* values\) and 1 other tensors"):
        evaluate(learner, sampler, 4)


def test_predictions_that_are_no_numbers_have_no_score(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 1})
    with torch.no_grad():
        for size in learner.inner.step_sizes:
            size.fill_(1e300)
    with pytest.raises(NotFinite, match="the predictions of episode 0 at stage 'step 1' are not finite"):
        evaluate(learner.train(), sampler, 4)
    assert learner.training and not learner.autocast
    assert 0 <= evaluate(learner, sampler, 4, steps=0)["accuracy"] <= 100


def test_tasks_without_queries_are_an_error_and_no_score(make_learner, pool) -> None:
    with pytest.raises(MetafilmError, match="without queries can't be scored; give at least 1"):
        evaluate(make_learner(), EpisodeSampler(pool, ways=3, shots=2, queries=0), 3)


def test_a_gate_is_asked_where_it_is_wanted(make_learner, sampler) -> None:
    learner = make_learner(inner={"steps": 2})
    assert evaluate(learner, sampler, 3)["stages"][-1] == "step 2"
    assert evaluate(learner, sampler, 3, gate=True)["stages"][-1] == "gate"
    gated = make_learner(inner={"steps": 2, "gate": True})
    assert evaluate(gated, sampler, 3)["stages"][-1] == "gate"
    assert evaluate(gated, sampler, 3, gate=False)["stages"][-1] == "step 2"
