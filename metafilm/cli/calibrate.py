"""`metafilm calibrate`: temperatures and thresholds of validation tasks, kept in the weights' file."""

from __future__ import annotations

from pathlib import Path

import torch

from metafilm.cli.text.output import require_counts
from metafilm.config.sources import evaluation_source
from metafilm.engine.memory import keep_freed_memory
from metafilm.errors import MetafilmError
from metafilm.evaluation import calibrated, calibration_error
from metafilm.learner.build import load_learner
from metafilm.storage.calibration import Calibration, write_calibration
from metafilm.storage.models import model_path
from metafilm.storage.run import RunDirectory

REJECT = 0.05  # the false-alarm rate whose threshold is printed


def calibrate(
    run: str,
    *,
    ways: int | None = None,
    shots: tuple[int, ...] = (1, 5),
    episodes: int = 400,
    seed: int = 0,
    data_root: Path | None = None,
) -> int:
    """Measure on the validation split that the run's settings name, print what was found, write it.

    Raises MetafilmError, EpisodesError; RunError: the run is being trained.
    """
    require_counts(ways=(ways, 2), shots=(min(shots, default=0), 1), episodes=(episodes, 2))
    shots = tuple(sorted(set(shots)))
    if not Path(run).exists():
        raise MetafilmError(f"no run directory or .safetensors file {run}; the calibration is written there")
    keep_freed_memory()
    path = model_path(run)
    with RunDirectory(path.parent) as folder:
        if folder.config_file.is_file():
            folder.lock()  # a training would put other weights in the place of those measured
        found, lines = measured(run, ways, shots, episodes, seed, data_root)
        try:
            print("\n".join(lines))
        finally:  # also where nobody reads it
            write_calibration(path, found)
    print(f"written to {path}")
    return 0


def measured(
    run: str, ways: int | None, shots: tuple[int, ...], episodes: int, seed: int, data_root: Path | None
) -> tuple[Calibration, list[str]]:
    """What the validation tasks say, and a line on each number of shots.

    Raises MetafilmError: the weights in the file have changed meanwhile.
    """
    learner = load_learner(run)
    if learner.config is None:
        raise MetafilmError(f"{run} was saved without settings, which would name its validation tasks")
    if learner.regression:
        raise MetafilmError(f"{run} learned functions, whose values have no probabilities to calibrate")
    config, split = learner.config, learner.config.data.validation_split
    sources = [
        evaluation_source(
            config, split, data_root, ways=ways, shots=n, seed=seed, channels=learner.image_shape[0]
        )
        for n in shots
    ]
    tasks = {
        "dataset": config.data.name,
        "split": split,
        "ways": sources[0].sampler.batch([0]).ways,
        "shots": list(shots),
        "episodes": episodes,
        "seed": seed,
    }
    found, judged = calibrated(learner, [source.sampler for source in sources], episodes, tasks)
    lines = []
    for level in found.levels:
        part = judged[int(level.shots)]
        logits, labels = torch.cat(part.logits), torch.cat(part.labels)
        before, after = (
            calibration_error((logits / t).softmax(-1), labels) for t in (1.0, level.temperature)
        )
        lines.append(
            f"{tasks['ways']}-way {level.shots:g}-shot, {episodes} tasks of {split} classes: temperature "
            f"{level.temperature:.3f}; expected calibration error {before:.2f} % without it, {after:.2f} % "
            f"with it; reject {REJECT:g}: unknown where familiarity is below {level.threshold(REJECT):.4g}"
        )
    if load_learner(run).fingerprint() != found.weights:
        raise MetafilmError(f"{run} has other weights than when it was measured; calibrate it again")
    return found, lines
