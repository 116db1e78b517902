"""train-28, train-84 and evaluate-28: whole steps of every system beside the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import floor, other_systems, ours, plain
from .learn2learn_systems import NAMES, load
from .learn2learn_systems import systems as learn2learn_systems
from .records import Record, Run, build
from .rounds import System, choose_all, interleave, say
from .tasks import EVALUATE_28, TRAIN_28, TRAIN_84, Setting

PRECISIONS = ("float32", "bfloat16")


def training(
    run: Run,
    work: str,
    rounds: int | None = None,
    *,
    setting: Setting | None = None,
    peer_tasks: int | None = None,
    precisions: Sequence[str] = PRECISIONS,
    only: Sequence[str] = (),
) -> list[Record]:
    """``work``: train-28 or train-84, both precisions in the same rounds. ``only``: names; none: all
    systems."""
    small = work == "train-28"
    setting = setting or (TRAIN_28 if small else TRAIN_84)
    peer_tasks = peer_tasks or (4 if small else 1)
    counted = list(floor.of_training(setting))
    say(f"{work}: metafilm agrees with the plain loop to {plain.check_agreement():.1e} (float64)")
    # at 84x84 a task fills the cache by itself
    at_once = setting.tasks if small else 1
    systems, missing = both(
        setting,
        "train",
        peer_tasks,
        only,
        lambda precision: ours.training(setting, precision),
        lambda precision: floor.system(setting, counted, precision, tasks=at_once),
        precisions,
    )
    return measure(run, work, systems, missing, rounds or (9 if small else 3), 3 if small else 1)


def evaluation(
    run: Run,
    rounds: int | None = None,
    *,
    setting: Setting = EVALUATE_28,
    peer_tasks: int = 8,
    only: Sequence[str] = (),
) -> list[Record]:
    """evaluate-28: adapt on the support, predict the queries, score; both precisions in the same rounds."""
    counted = list(floor.of_evaluation(setting))
    systems, missing = both(
        setting,
        "evaluate",
        peer_tasks,
        only,
        lambda precision: ours.evaluation(setting, precision),
        lambda precision: floor.system(setting, counted, precision),
    )
    return measure(run, "evaluate-28", systems, missing, rounds or 9, 3)


def both(
    setting: Setting,
    work: str,
    peer_tasks: int,
    only: Sequence[str],
    metafilm: Callable[[str], System],
    bare: Callable[[str], System],
    precisions: Sequence[str] = PRECISIONS,
) -> tuple[list[System], list[str]]:
    """metafilm, its peers and the floor at each precision, and which are not installed. ``work``: train or
    evaluate."""
    systems: list[System] = []
    missing: list[str] = []
    for precision in precisions:
        makers: dict[str, Callable[[], list[System]]] = {
            "metafilm": lambda p=precision: [metafilm(p)],
            "learn2learn": lambda p=precision: _learn2learn(setting, p, work, peer_tasks, only),
            other_systems.PARALLEL: lambda p=precision: [
                other_systems.parallel(setting, p, work, peer_tasks)
            ],
            other_systems.LOOP: lambda p=precision: [other_systems.loop(setting, p, work, peer_tasks)],
            "floor": lambda p=precision: [bare(p)],
        }
        made, refused = make(makers, only)
        systems += made
        missing += refused
    return systems, missing


def _learn2learn(
    setting: Setting, precision: str, work: str, tasks: int, only: Sequence[str]
) -> list[System]:
    load()
    names = tuple(name for name in NAMES if not only or name in only)
    return learn2learn_systems(setting, precision, work, tasks, names)


def make(
    makers: dict[str, Callable[[], list[System]]], only: Sequence[str]
) -> tuple[list[System], list[str]]:
    """The systems asked for, and which of them are not installed."""
    systems, missing = [], []
    for name, maker in makers.items():
        if only and not any(wanted.startswith(name) for wanted in only):
            continue
        try:
            systems += maker()
        except ImportError as error:
            missing.append(f"{name} is not installed ({error})")
            say(f"  left out: {missing[-1]}")
    return systems, missing


def measure(
    run: Run, work: str, systems: list[System], missing: list[str], rounds: int, warm_up: int
) -> list[Record]:
    """Choose variants, interleave, and make records; what could not run is noted on metafilm's."""
    say(f"{work}: {len(systems)} systems")
    chosen, refused = choose_all(systems)
    samples = interleave(chosen, rounds, warm_up)
    records = build(run, work, chosen, samples)
    for record in records:
        if record["system"] == "metafilm" and (missing or refused):
            record["note"] += f"; left out: {'; '.join(dict.fromkeys(missing + refused))}"
    return records
