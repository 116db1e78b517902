"""What an ablation's records say: means over seeds, gains in pairs, what chance does."""

import math
import statistics

import pytest

from metafilm.evaluation import interval
from metafilm.laboratory import answers, figure, tables
from metafilm.laboratory.gains import with_gains


def one(seed: int, scores: list[float], changes: dict | None = None, **others) -> dict:
    """A record, as far as answers need it."""
    arm, at = ("none", 1) if changes else ("base", 0)
    return {
        "settings": {"name": "tiny"},
        "classes": 8,
        "seed": seed,
        "changes": changes or {},
        "encoder_support": "own",
        "answers": {"penalty": [{"arm": arm, "place": at}]},
        "measure": "accuracy",
        "scores": scores,
        "training_classes_scores": [90.0, 80.0, 100.0],
        "failed": None,
        **others,
    }


def test_answers_are_means_over_seeds_on_the_same_tasks() -> None:
    """A task's scores are averaged first: two seeds that agree on each task are no more certain than one."""
    none, scores = {"outer.penalty": 0.0}, [50.0, 60.0, 70.0]
    records = [one(0, scores, none), one(1, [52.0, 60.0, 68.0], none), one(2, [0.0], none, failed="diverged")]
    cell = answers(records)["tiny"]["penalty"]["none"][8]
    assert (cell["new"], cell["known"], cell["gap"], cell["seeds"], cell["failed"]) == (60, 90, 30, 2, 1)
    assert cell["new_ci95"] == pytest.approx(interval([51.0, 60.0, 69.0])) and "gain" not in cell
    assert cell["gap_ci95"] == pytest.approx(math.hypot(cell["new_ci95"], interval([90.0, 80.0, 100.0])))
    text = tables(answers(records), 3)
    assert f"| none | 60.00 ± {cell['new_ci95']:.2f} (90.00, +30.00), 2/3 seeds |" in text
    assert "3 arms are not there yet" in text
    twice = answers([one(0, scores), one(1, scores)])["tiny"]["penalty"]["base"][8]
    assert twice["new_ci95"] == answers([one(0, scores)])["tiny"]["penalty"]["base"][8]["new_ci95"]


def test_arms_are_compared_in_pairs_with_the_configuration() -> None:
    """Of each seed with its own; of errors a smaller one is better."""
    none = {"outer.penalty": 0.0}
    records = [one(0, [51.0, 62.0, 70.0], none), one(1, [50.0, 60.0, 73.0], none)]
    records += [one(seed, [50.0, 60.0, 70.0]) for seed in (0, 1)]
    said = answers(records)["tiny"]["penalty"]
    assert list(said) == ["base", "none"] and "gain" not in said["base"][8]
    assert said["none"][8]["gain"] == 1 and said["none"][8]["gain_ci95"] == interval([0.5, 1.0, 1.5])
    assert f"; +1.00 ± {interval([0.5, 1.0, 1.5]):.2f} (90" in tables(answers(records))
    errors = answers([record | {"measure": "mse"} for record in records])["tiny"]["penalty"]
    assert errors["none"][8]["gain"] == -1
    diverged = [record | ({} if record["changes"] else {"failed": "diverged"}) for record in records]
    assert "gain" not in answers(diverged)["tiny"]["penalty"]["none"][8]


def test_three_seeds_say_what_trainings_differ_by() -> None:
    none = {"outer.penalty": 0.0}
    bases = [one(seed, [50.0, 60.0, 70.0]) for seed in range(3)]
    records = bases + [one(seed, [50.0 + 9 * seed, 60.0 + 9 * seed, 70.0], none) for seed in range(3)]
    gains = answers(records)["tiny"]["penalty"]["none"][8]
    assert gains["gain"] == 6 and gains["gain_ci95"] == pytest.approx(interval([0.0, 6.0, 12.0]))
    two = answers([record for record in records if record["seed"] < 2])["tiny"]["penalty"]["none"][8]
    assert two["gain_ci95"] == interval([4.5, 4.5, 0.0]) < interval([0.0, 6.0]), "two can't say it"


def test_what_chance_does_is_told_by_decays_of_next_to_nothing() -> None:
    arms = [({}, 60.0), ({"outer.weight_decay": 0.0}, 63.0), ({"outer.encoder_weight_decay": 0.01}, 57.0)]
    arms += [({"outer.weight_decay": 0.001}, 64.0), ({"outer.weight_decay": 1.0}, 90.0)]
    records = []
    for changes, score in [*arms, ({"outer.penalty": 0.0}, 20.0)]:
        outer = {"optimiser": "adamw", "learning_rate": 0.002, "iterations": 1000}
        outer |= {"weight_decay": 0.0005, "encoder_weight_decay": 0.0}
        outer |= {setting.removeprefix("outer."): value for setting, value in changes.items()}
        scores = [score - 5, score, score + 5]
        records.append(one(0, scores, changes, settings={"name": "tiny", "outer": outer}))
    found, said = statistics.stdev([60.0, 63.0, 57.0, 64.0]), answers(records)
    assert said["tiny"]["penalty"]["none"][8]["chance"] == pytest.approx(found)
    assert f"deviation of {found:.2f} with 8 classes" in tables(said)
    # a gain is over all four of them: one alone may be lucky
    assert said["tiny"]["penalty"]["base"][8]["gain"] == pytest.approx(60 - 61)
    (decay,) = (one for one in with_gains(records) if one["changes"] == {"outer.weight_decay": 1.0})
    assert decay["gain"] == pytest.approx(90 - 61) and decay["gain_ci95"] == pytest.approx(0, abs=1e-9)
    (band,) = figure(said["tiny"]).axes[0].patches
    assert band.get_width() == pytest.approx(6 * found * (1 + 1 / 4) ** 0.5)
    assert "chance" not in answers(records[1:])["tiny"]["penalty"]["none"][8], "three are too few"


def test_trainings_are_alike_that_decay_as_the_configuration_does() -> None:
    """With a decay that counts, those of next to none are others: nothing is held against them."""
    records = []
    for decay, score in ((0.3, 98.0), (0.0, 95.0), (1e-4, 95.0), (1e-3, 95.0), (1e-2, 95.0)):
        outer = {"optimiser": "adamw", "learning_rate": 0.002, "iterations": 1000}
        outer |= {"weight_decay": decay, "encoder_weight_decay": 0.0}
        changes = {} if decay == 0.3 else {"outer.weight_decay": decay}
        settings = {"name": "tiny", "outer": outer}
        records.append(one(0, [score - 5, score, score + 5], changes, settings=settings))
    base, *others = with_gains(records)
    assert base["gain"] is None, "the configuration over itself"
    assert all(other["gain"] == pytest.approx(-3) for other in others)


def test_a_figure_shows_gains_gaps_and_what_chance_does() -> None:
    """The configuration gains 0; without a score of it nothing is known to gain."""
    none = {"outer.penalty": 0.0}
    records = [one(0, [51.0, 62.0, 70.0], none), one(0, [50.0, 60.0, 70.0])]
    said = answers(records)["tiny"]
    for arms in said.values():
        for row in arms.values():
            row[8]["chance"] = 2.0

    def drawn(said) -> tuple[list[float], list[float]]:
        left, right = figure(said).axes
        assert [label.get_text() for label in left.get_yticklabels()][1:] == list(said["penalty"])
        return tuple([bar.lines[0].get_xdata()[0] for bar in axes.containers] for axes in (left, right))

    gains, gaps = drawn(said)
    assert gains == [0.0, said["penalty"]["none"][8]["gain"]] == [0.0, 1.0]
    assert gaps == [said["penalty"][arm][8]["gap"] for arm in ("base", "none")]
    (band,) = (patch for patch in figure(said).axes[0].patches)
    # a gain over one training is a difference of two
    assert band.get_x() == pytest.approx(-6 * 2**0.5) and band.get_width() == pytest.approx(12 * 2**0.5)
    for row in said["penalty"].values():  # of four seeds a mean is twice as certain
        row[8]["seeds"] = 4
    assert figure(said).axes[0].patches[0].get_width() == pytest.approx(6 * 2**0.5)
    diverged = [record | ({} if record["changes"] else {"failed": "diverged"}) for record in records]
    gains, gaps = drawn(answers(diverged)["tiny"])
    assert len(gains) == len(gaps) == 1 and math.isnan(gains[0]) and not math.isnan(gaps[0])
    assert "failed" in [text.get_text() for text in figure(answers(diverged)["tiny"]).axes[0].texts]
