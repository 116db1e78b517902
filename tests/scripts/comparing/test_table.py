"""The records as tables, and whose gains are paired."""

import pytest

from scripts.comparing import table


def record(system: str, scores: list[float], **others) -> dict:
    made = {"work": "tiny", "budget": "images", "system": system, "split": "test", "seed": 0, "queries": 15}
    made |= {"episodes": len(scores), "accuracy": sum(scores) / len(scores), "scores": scores}
    return made | others


def test_gains_stay_and_are_of_equal_tasks_alone() -> None:
    order = [("tiny", "images", name) for name in ("protonet", "tadam", "metafilm")]
    whole = [
        record("metafilm", [90.0, 80.0]),
        record("protonet", [70.0, 80.0]),
        record("tadam", [60.0, 60.0]),
    ]

    def gains(before, scored, *asked: str) -> dict[str, float | None]:
        found = table.merged(before, scored, [("tiny", "images", name) for name in asked], order)
        assert all("scores" not in one for one in found)
        return {one["system"]: one.get("metafilm_gain") for one in found}

    all_three = table.merged([], whole, order, order)
    assert gains([], whole, *(name for *_, name in order)) == {"protonet": 10, "tadam": 25, "metafilm": None}
    # one row alone is paired with the scores in the folder, or keeps its gain; so do the others
    assert gains([], whole, "protonet") == {"protonet": 10}
    assert gains(all_three, whole[1:2], "protonet") == {"protonet": 10, "tadam": 25, "metafilm": None}
    assert gains(all_three, [], "protonet") == {"protonet": 10, "tadam": 25, "metafilm": None}
    # trained anew, it has not the gain of before
    anew = [record("protonet", [71.0, 80.0])]
    assert gains(all_three, anew, "protonet") == {"protonet": None, "tadam": 25, "metafilm": None}
    anew = [record("metafilm", [92.0, 80.0])]
    assert gains(all_three, anew, "metafilm") == {"protonet": None, "tadam": None, "metafilm": None}
    # nor a gain over tasks of another split or seed
    for other in ({"split": "val"}, {"seed": 1}):
        assert "metafilm_gain" not in table.merged([], [whole[0], whole[1] | other], order, order)[0]


def test_a_training_that_missed_its_seconds_says_so() -> None:
    found = table.missed(100.0, 125.0)
    assert found == {"planned_seconds": 100.0, "seconds_missed_by": pytest.approx(25)}
    row = record("metafilm", [90.0, 80.0], ci95=1.0, images=1, training_seconds=125.0, minutes_to_target=None)
    assert "| 2.1 (+25 % of its budget) |" in table.markdown([row | found])
    near = row | {"training_seconds": 109.0} | table.missed(100.0, 109.0)
    assert "| 1.8 |" in table.markdown([near]) and "tiny (val)" in table.markdown([near | {"split": "val"}])


def test_the_table_of_time_to_a_target_begins_with_the_fastest() -> None:
    shared = {"budget": "target", "split": "test", "target": 94.0, "images": 1200, "ci95": 0.5}
    shared |= {"tried_seconds": [75.0, 150.0]}
    slow = {"training_seconds": 60.0, "curve": [[30.0, 91.0], [60.0, 90.0]], "minutes_to_target": None}
    fast = {"training_seconds": 150.0, "curve": [[100.0, 95.0]], "minutes_to_target": 100 / 60}
    rows = [record("maml", [88.0, 90.0]) | shared | slow, record("metafilm", [94.0, 96.0]) | shared | fast]
    rows.append(record("cavia", [1.0, 2.0]) | shared | fast | {"budget": "time"})
    first, second = table.to_target(rows).splitlines()[2:]
    assert first == "| tiny, 94 % | metafilm | **1.7** | 75, 150 | 1,200 | 95.00 ± 0.50 |"
    assert "| maml | not in 1 (91.0 %) | 75, 150 |" in second
