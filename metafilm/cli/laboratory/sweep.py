"""`metafilm sweep`: search settings on validation classes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from metafilm.config import Config
from metafilm.laboratory import Plan, StudyFolder, conclude, parse_space, space_of, sweep


def search(
    config: Config,
    searched: Sequence[str],
    run_dir: Path | None,
    *,
    trials: int,
    workers: int,
    sampler: str,
    pruner: str,
    startup: int,
    data_root: Path | None,
    command: str,
) -> int:
    """Sweep, or go on with a sweep, and print its table, whatever ends it; 130 after Ctrl-C, once every
    training has written its checkpoint. With nothing `searched`, a sweep that is there goes on with what it
    searches. Raises ConfigError, MetafilmError and EpisodesError, see `metafilm.laboratory`."""
    path = run_dir or Path("runs") / f"{config.name}-sweep{'' if sampler == 'tpe' else f'-{sampler}'}"
    # an older version's default may be another
    before = None if searched else space_of(path)
    plan = Plan(config, before or parse_space(searched, config), sampler, pruner, startup)
    folder = StudyFolder.open(path, plan)
    there = len(folder.trials())
    print(f"sweeping {config.name} in {path}" + (f", which has {there} trials" if there else ""))
    for name, wanted in plan.space.items():
        print(f"  {name} = {wanted}")
    interrupted = False
    try:
        sweep(folder, trials, workers, data_root)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if folder.trials():
            print("\n".join(conclude(folder, command)))
    if interrupted:
        print(f"interrupted; the same command goes on in {path}", file=sys.stderr)
        return 130
    return 0
