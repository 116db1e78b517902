"""`metafilm report`: a page about a run that needs nothing else to be read."""

from pathlib import Path

from episodes import EpisodesError
from metafilm.backbones import LIBRARIES
from metafilm.cli.eval import cautions, familiar, named, settings_for, test_config
from metafilm.cli.text.output import require_counts
from metafilm.config.classes import classes_of
from metafilm.config.sources import evaluation_source
from metafilm.engine.memory import keep_freed_memory
from metafilm.errors import MetafilmError, first_line
from metafilm.evaluation import overlap
from metafilm.learner.build import load_learner
from metafilm.report import Asked, Found, find, run_report, write


def report(
    run_or_name: str,
    out: Path | None = None,
    *,
    episodes: int = 100,
    split: str = "val",
    ways: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    dataset: str | None = None,
    data_root: Path | None = None,
) -> int:
    """Write the page; arguments as the options of `metafilm report`. Raises MetafilmError, EpisodesError."""
    require_counts(ways=(ways, 2), shots=(shots, 1), episodes=(episodes, 0))
    keep_freed_memory()
    if run_or_name == "lite0" or run_or_name.startswith(tuple(f"{library}:" for library in LIBRARIES)):
        found = Found(run_or_name, missing=["There is no training to show: this is a pre-trained network."])
    else:
        found = find(run_or_name)
    asked = None
    if episodes == 1:
        raise MetafilmError("--episodes 1 gives no interval: score at least 2, or 0 to do without")
    if episodes and not (found.run is not None and found.weights is None):
        asked = tasks(found, episodes, split, ways, shots, seed, dataset, data_root)
    elif not episodes:
        found.missing.append("No tasks were scored, as --episodes 0 asks.")
    place = out or default_place(found)
    write(place, run_report(found, asked))
    for text in found.missing:
        print(text)
    print(f"written to {place}, {place.stat().st_size / 1000:.0f} kB")
    return 0


def default_place(found: Found) -> Path:
    """report.html in the run's folder; of weights alone in the folder where one is."""
    if found.run is not None:
        return found.run.path / "report.html"
    stem = Path(found.name).name.removesuffix(".safetensors").replace(":", "-")
    return Path(f"{stem}-report.html")


def tasks(
    found: Found,
    episodes: int,
    split: str,
    ways: int | None,
    shots: int | None,
    seed: int,
    dataset: str | None,
    data_root: Path | None,
) -> Asked | None:
    """What is to be scored; None, with a word in `found.missing`, where the data or the weights fail. Classes
    that the weights know already are named there too."""
    try:
        learner = load_learner(found.name)
        config = learner.config or settings_for(found.name, learner, dataset)
        config = test_config(config, learner, dataset, None, False)
        source = evaluation_source(
            config,
            split,
            data_root,
            ways=ways,
            shots=shots,
            seed=seed,
            channels=None if learner.regression else learner.image_shape[0],
        )
    except (EpisodesError, MetafilmError) as error:
        if found.run is None or not found.metrics:  # without tasks there is nothing to show
            raise
        found.missing.append(f"No tasks were scored: {first_line(error)}.")
        return None
    known = familiar(learner, classes_of(config, split, source.pools), data_root)
    found.missing += [
        f"{text[0].upper()}{text[1:]}."
        for text in cautions({**known, "overlap": overlap(learner, named(config))})
    ]
    return Asked(learner, config, source, split, episodes, seed)
