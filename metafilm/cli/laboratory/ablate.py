"""`metafilm ablate`: the regularisation laboratory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from metafilm.config import Config, load_config
from metafilm.errors import MetafilmError
from metafilm.laboratory import Ablation, Base, Job, answers, figure, jobs, tables, write_svg
from metafilm.storage.atomic import atomic_write


def ablate(
    configs: Sequence[str],
    questions: Sequence[str],
    classes: Sequence[int],
    seeds: Sequence[int],
    run_dir: Path,
    *,
    episodes: int,
    iterations: int | None,
    only_list: bool,
    data_root: Path | None,
) -> int:
    """Train and score every arm that is not done, then print the tables of all that the folder has, of other
    calls too, and write them with the figures; 130 after Ctrl-C, once the training under way has written its
    checkpoint.

    Raises MetafilmError, ConfigError and EpisodesError, see `metafilm.laboratory`.
    """
    bases = [Base(name, load_config(name)) for name in configs]
    if iterations is not None:
        bases = [
            Base(base.source, at_length(base.config, iterations), ("--iterations", str(iterations)))
            for base in bases
        ]
    wanted = jobs(bases, questions, [count or None for count in classes], seeds)
    trainings = len({job.training for job in wanted})
    if only_list:
        for job in wanted:
            print(f"{job.question}: {job.arm.name}  {job.training}")
        print(f"{len(wanted)} arms, {trainings} trainings")
        return 0
    if find_spec("matplotlib") is None:
        raise MetafilmError('metafilm ablate draws figures by matplotlib; pip install "metafilm[plots]"')
    number, interrupted = 0, False
    with Ablation(run_dir, episodes) as folder:
        left = len({job.training for job in wanted if folder.done(job) is None})
        print(f"{len(wanted)} arms, {trainings} trainings, of which {left} are to do, in {run_dir}")
        try:
            for number, (job, record) in enumerate(folder.run(wanted, data_root), 1):
                print(f"{number}/{len(wanted)}  {line(job, record)}", flush=True)
        except KeyboardInterrupt:
            interrupted = True
        said = answers(folder.records.values())
        text = tables(said, len(wanted) - number)
        atomic_write(run_dir / "table.md", text.encode())
        for name, of_config in said.items():
            write_svg(figure(of_config), run_dir / f"{name}.svg")
    print(text)
    print(f"records, tables and figures are in {run_dir}")
    if interrupted:
        print("interrupted; the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def at_length(config: Config, iterations: int) -> Config:
    """The configuration with so many optimiser steps."""
    return replace(config, outer=replace(config.outer, iterations=iterations)).validate()


def line(job: Job, record: dict[str, Any]) -> str:
    """One arm in one line."""
    classes = "all" if job.classes is None else job.classes
    where = f"{job.base.config.name}, {classes} classes, seed {job.seed}, {job.question}: {job.arm.name}"
    if record["failed"]:
        return f"{where}: failed: {record['failed']}"
    value = record[record["measure"]]
    return f"{where}: {value:.2f} ± {record['ci95']:.2f}, gap {record['gap']:+.2f}"
