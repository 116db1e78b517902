"""`metafilm demo`: generated characters, learned and scored in a few minutes without a download."""

from pathlib import Path
from typing import Any

from metafilm.cli.eval import record
from metafilm.cli.text.output import require_counts
from metafilm.cli.text.table import stage_in_words
from metafilm.config import load_config
from metafilm.storage.run import RunDirectory
from metafilm.training.run import train
from metafilm.training.tracking import Tracker

TEST_STYLES = {"known styles": "known-strokes", "unseen styles": "unseen-strokes"}


def demo(run_dir: Path, episodes: int = 200) -> int:
    """Train `configs/demo.yaml` in `run_dir`, then score characters and styles that training never showed:
    a network that was pre-trained with one pen and frozen, adapted to others.

    Ctrl-C while it trains leaves a checkpoint from which the next demo goes on. Raises MetafilmError.
    """
    require_counts(episodes=(episodes, 2))
    config = load_config("demo")
    ways, shots = config.evaluation.ways, config.evaluation.shots
    with RunDirectory.open(run_dir, config) as run:
        print(
            f"Meta-training on generated characters, {config.outer.iterations} iterations, in {run_dir}"
            + (" (going on from its checkpoint)" if run.checkpoint_file.is_file() else "")
        )
        with Tracker(run, config) as tracker:
            results = train(config, run, tracker)
        print(
            f"Trained in {results['training_seconds']:.0f} s. Scoring new characters, never seen in training:"
        )
        scored = {
            title: record(str(run_dir), episodes=episodes, style=style)
            for title, style in TEST_STYLES.items()
        }
        run.write_results(results | {"test": scored})
    print(table(scored))
    print(
        f"{ways}-way {shots}-shot, {episodes} tasks each: accuracy in % and, task by task, the gain over "
        "before adaptation; means ± 95 % confidence intervals"
    )
    print(
        "Before adaptation the network knows one plain pen, and its weights stay as they are: each gain is "
        "what FiLM layers alone, set from one picture of each class, make of it."
    )
    print(f"Run directory: {run_dir}   (metafilm eval {run_dir} scores it again, in other settings too)")
    return 0


def table(scored: dict[str, dict[str, Any]]) -> str:
    """Stages down, styles across; of each its accuracy and what it gained since the first stage."""
    first = next(iter(scored.values()))
    stages = [stage_in_words(stage) for stage in first["stages"]]
    width = max(map(len, stages))
    lines = [" " * width + "".join(f"{title:>15}{'gain':>16}" for title in scored)]
    for position, stage in enumerate(stages):
        cells = ""
        for found in scored.values():
            value, half = found["accuracy_by_step"][position], found["ci95_by_step"][position]
            cells += f"{f'{value:.2f} ± {half:.2f}':>15}"
            gain = ""
            if position:
                gain = f"{found['gain_by_step'][position]:+.2f} ± {found['gain_ci95_by_step'][position]:.2f}"
            cells += f"{gain:>16}"
        lines.append((f"{stage:{width}}" + cells).rstrip())
    return "\n".join(lines)
