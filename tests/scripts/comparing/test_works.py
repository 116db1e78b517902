"""The works and systems side by side: what each trains on, and with which steps."""

import json
from dataclasses import replace

import pytest

from scripts.comparing import ours, peers
from scripts.comparing.works import WORKS


@pytest.mark.parametrize("name", ours.SYSTEMS)
@pytest.mark.parametrize("work", ["omniglot-20w1s", "miniimagenet-5w5s"])
def test_budgets_in_images_are_kept(work, name) -> None:
    """Whatever share goes into the classification stage."""
    work, system = WORKS[work], ours.SYSTEMS[name]
    before, after = ours.planned(work, system, "images", work.images, None)
    settled = ours.config(work, system, "one", before, after, 6)
    seen = before * settled.pretrain.batch if before else 0
    episodes = settled.episodes
    assert isinstance(episodes.ways, int) and isinstance(episodes.shots, int)
    shape = episodes.ways * (episodes.shots + episodes.queries)
    seen += after * (settled.outer.meta_batch * shape + settled.outer.plain)
    assert abs(seen - work.images) <= settled.pretrain.batch + settled.outer.meta_batch * shape
    assert bool(before) == bool(system.pretrained)


def test_omniglot_is_that_of_the_field() -> None:
    """Turned characters are classes of their own, in training and in the test (Vinyals et al. 2016)."""
    settled = ours.config(WORKS["omniglot-20w1s"], ours.SYSTEMS["protonet"], "one", 0, 10, 2)
    assert settled.data.rotated_classes and settled.data.image_size == 28


def test_inner_steps_are_as_large_as_published() -> None:
    """cbfinn/maml's loss is a sum over the support divided by the shots: ways times a mean."""
    assert WORKS["omniglot-20w1s"].maml_step == 2.0 and WORKS["miniimagenet-5w5s"].maml_step == 0.05
    for work in (WORKS["omniglot-20w1s"], WORKS["miniimagenet-5w5s"]):
        settled = ours.config(work, ours.SYSTEMS["maml"], "maml", 0, 10, 2)
        assert (settled.inner.step_size, settled.inner.adapts) == (work.maml_step, "all")
        assert settled.inner.steps == 5 and not (settled.encoder.enabled or settled.inner.first_order)
        fit = ours.config(work, ours.SYSTEMS["fit"], "fit", 10, 10, 2)
        assert fit.inner.view_augment == work.augment  # though it takes its steps in evaluation alone
        assert (fit.inner.optimiser, fit.inner.step_size) == ("adam", 0.0035)
        cavia = ours.config(work, ours.SYSTEMS["cavia"], "cavia", 0, 10, 2)
        assert (cavia.inner.steps, cavia.inner.step_size, cavia.inner.learn_step_size) == (2, 1.0, False)


@pytest.mark.usefixtures("learn2learn")
@pytest.mark.parametrize("name", ["learn2learn-maml", "learn2learn-anil"])
def test_peers_take_the_works_inner_steps(tiny, name) -> None:
    peer = peers.SYSTEMS[name].make(replace(tiny, maml_step=0.7))
    assert isinstance(peer, peers.Adapting) and (peer.maml.lr, peer.steps) == (0.7, 5)


def test_networks_with_fewer_poolings_are_those_of_their_systems() -> None:
    def backbone(work: str, name: str) -> tuple[object, ...]:
        found = ours.config(WORKS[work], ours.SYSTEMS[name], name, 10, 10, 2).backbone
        return found.pools, found.pooling, found.last_relu

    assert backbone("omniglot-20w1s", "metafilm-cells") == (2, None, True)
    assert backbone("miniimagenet-5w5s", "metafilm-cells") == (3, None, True)
    assert backbone("miniimagenet-5w5s", "metafilm-mean") == (3, "mean", False)
    assert backbone("miniimagenet-5w5s", "metafilm-plain") == (4, None, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cavia", "maml", "tadam", "cnaps", "fit"])
def test_each_method_trains_and_is_scored_in_a_budget_of_time(run, tmp_path, name) -> None:
    run("score", "--budget", "time", "--system", name, "--seconds", "0.2")
    row = json.loads((tmp_path / "tiny" / "time" / f"{name}-val-4.json").read_text())
    before, after = row["iterations"]
    assert after >= 1 and (before > 0) == bool(ours.SYSTEMS[name].pretrained)
    assert len(row["scores"]) == 4 and row["note"] == ours.SYSTEMS[name].note
