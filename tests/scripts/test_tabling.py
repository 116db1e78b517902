"""Tables of records that several trainings made."""

from scripts.tabling import evaluations


def scored(ways: int, shots: int, accuracy: float, **more) -> dict:
    return {"ways": ways, "shots": shots, "accuracy": accuracy, "ci95": 0.25} | more


def test_trainings_of_several_seeds_stand_beside_their_mean():
    rows = [scored(5, 1, 98.0), scored(5, 1, 99.0), scored(20, 1, 90.0), scored(20, 1, 93.0)]
    assert evaluations.by_seed(rows).splitlines() == [
        "| task | training 1 | training 2 | **mean** |",
        "|---|---|---|---|",
        "| 5-way 1-shot | 98.00 ± 0.25 | 99.00 ± 0.25 | **98.50** |",
        "| 20-way 1-shot | 90.00 ± 0.25 | 93.00 ± 0.25 | **91.50** |",
    ]


def test_trainings_on_a_mixture_of_styles_are_held_against_plain_prototypes():
    def row(arm: str, style: str, accuracy: float, **over: float) -> dict:
        found = scored(5, 5, accuracy) | {"style": style, "setting": {"arm": arm}}
        found |= {"gain_by_step": [0.0, 1.5, 1.25], "gain_ci95_by_step": [0.0, 0.5, 0.75]}
        return found | {"over": {name.replace("_", "-"): [gain, 0.125] for name, gain in over.items()}}

    rows = []
    for style, base in (("unseen-filters", 43.0), ("known-filters", 47.5)):
        rows += [
            row("full", style, base + 3, prototypes=3.0, support_statistics=1.0, prototypes_by_support=2.0),
            row("prototypes", style, base),
            row("support-statistics", style, base + 2, prototypes=2.0, prototypes_by_support=1.0),
            row("prototypes-by-support", style, base + 1, prototypes=1.0),
        ]
    assert evaluations.mixture(rows).splitlines() == [
        "| | filters of the training | over plain | other filters | over plain |",
        "|---|---|---|---|---|",
        "| plain prototypes | 47.50 ± 0.25 | – | 43.00 ± 0.25 | – |",
        "| the same weights, normalised by each task's support in the test | 48.50 ± 0.25 | +1.00 ± 0.12 "
        "| 44.00 ± 0.25 | +1.00 ± 0.12 |",
        "| trained so, too | 49.50 ± 0.25 | +2.00 ± 0.12 | 45.00 ± 0.25 | +2.00 ± 0.12 |",
        "| full method, normalised so | 50.50 ± 0.25 | +3.00 ± 0.12 | 46.00 ± 0.25 | +3.00 ± 0.12 |",
        "| over the network trained so, without encoder and step | | +1.00 ± 0.12 | | +1.00 ± 0.12 |",
        "| its encoder, over its δ = 0 | | +1.50 ± 0.50 | | +1.50 ± 0.50 |",
        "| encoder and step, over its δ = 0 | | +1.25 ± 0.75 | | +1.25 ± 0.75 |",
    ]


def adapted(arm: str, ways: int, stages: list[str], gains: list[float]) -> dict:
    return scored(ways, 1, 90.0 + gains[-1]) | {
        "setting": {"arm": arm},
        "stages": stages,
        "accuracy_by_step": [90.0 + gain for gain in gains],
        "ci95_by_step": [0.5] * len(gains),
        "gain_by_step": gains,
        "gain_ci95_by_step": [0.0, *[0.1] * (len(gains) - 1)],
    }


def test_methods_over_one_network_are_shown_by_their_gains_and_the_gate_apart():
    rows = [
        adapted("encoder", 5, ["identity", "encoder"], [0.0, 0.25]),
        adapted("encoder", 20, ["identity", "encoder"], [0.0, -0.5]),
        adapted("encoder+steps", 5, ["identity", "encoder", "step 1", "gate"], [0.0, 0.2, -1.0, 0.125]),
    ]
    assert evaluations.over_identity(rows).splitlines() == [
        "| | 5-way 1-shot | 20-way 1-shot |",
        "|---|---|---|",
        "| δ = 0 | 90.00 ± 0.50 | 90.00 ± 0.50 |",
        "| encoder | +0.25 ± 0.10 | -0.50 ± 0.10 |",
        "| encoder + 1 step | -1.00 ± 0.10 | – |",
        "| encoder + 1 step, under the gate | +0.12 ± 0.10 | – |",
    ]
