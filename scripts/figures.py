"""Draw the README's pictures: docs/architecture.svg and docs/deviations.svg.

python scripts/figures.py architecture
python scripts/figures.py deviations omniglot-conv4 [--tasks 200]      # needs Omniglot and the extra `plots`
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from metafilm import MetaFiLM, film
from metafilm.config.sources import evaluation_source
from metafilm.storage.atomic import atomic_write

DOCS = Path(__file__).resolve().parent.parent / "docs"
INK, GAIN, BIAS, PAPER = "#263238", "#1e6fb8", "#d9711a", "#f3f6f8"


def save(figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    atomic_write(
        path, lambda file: figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    )
    print(path)


def architecture() -> None:
    """Episodes, task encoder, inner loop, backbone, head, and the outer gradient."""
    figure, axes = plt.subplots(figsize=(10, 4.2))
    axes.set(xlim=(0, 100), ylim=(-3, 42))
    axes.axis("off")

    def box(x, y, width, height, text, colour=PAPER):
        axes.add_patch(
            FancyBboxPatch(
                (x, y), width, height, boxstyle="round,pad=0.3,rounding_size=1.2", fc=colour, ec=INK, lw=1.2
            )
        )
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=10, color=INK)

    def arrow(start, end, text="", colour=INK, style="-", bend=0.0, offset=(0.0, 1.2)):
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=13,
                color=colour,
                lw=1.4,
                ls=style,
                connectionstyle=f"arc3,rad={bend}",
            )
        )
        if text:
            axes.text(
                (start[0] + end[0]) / 2 + offset[0],
                (start[1] + end[1]) / 2 + offset[1],
                text,
                ha="center",
                fontsize=9.5,
                color=colour,
            )

    box(1, 24, 12, 9, "episode:\nsupport set")
    box(1, 6, 12, 9, "episode:\nquery set")
    box(22, 24, 17, 9, "task encoder\n(prototypes → δ)")
    box(50, 24, 19, 9, "inner loop\nK steps, ∇ only\nthrough δ")
    box(50, 6, 19, 9, "shared backbone\n(1+δγ) ⊙ F + δβ", "#e3eef7")
    box(79, 6, 9, 9, "head")
    box(92, 8, 7, 5, "loss")
    arrow((13.5, 28.5), (21.5, 28.5))
    arrow((39.5, 28.5), (49.5, 28.5), "δ⁰", GAIN)
    arrow((59.5, 23.5), (59.5, 15.6), "δᴷ", GAIN, offset=(2.2, -0.4))
    arrow((13.5, 10.5), (49.5, 10.5))
    arrow((69.5, 10.5), (78.5, 10.5), "features")
    arrow((88.5, 10.5), (91.5, 10.5))
    arrow(
        (95.5, 7.4),
        (59.5, 5.4),
        "outer loop: the gradient reaches backbone, encoder, head and step sizes",
        BIAS,
        "--",
        -0.22,
        (0.0, -8.2),
    )
    axes.text(
        50,
        38.5,
        "a task is a small set of FiLM deviations δ of one shared network; δ = 0 is the plain network",
        ha="center",
        fontsize=10.5,
        color=INK,
    )
    save(figure, DOCS / "architecture.svg")


def deviations(name: str, tasks: int, data_root: Path | None) -> None:
    """δγ and δβ per layer over test tasks of a trained learner, after the inner loop."""
    learner = MetaFiLM.from_pretrained(name)
    source = evaluation_source(learner.config, "test", data_root)
    collected: dict[str, list[torch.Tensor]] = {}
    for number in range(tasks):
        with torch.no_grad():
            final = learner(source.sampler[number]).films[-1]
        for key, value in final.items():
            collected.setdefault(key, []).append(value[0])
    sites = film.sites(learner.backbone)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    titles = (("gain deviation δγ", GAIN), ("bias deviation δβ", BIAS))
    for kind, (axis, (title, colour)) in enumerate(zip(axes, titles, strict=True)):
        values = [torch.stack(collected[film.names(site)[kind]]) for site in sites]  # [tasks, C]
        parts = axis.violinplot([value.flatten().numpy() for value in values], showextrema=False, widths=0.8)
        for body in parts["bodies"]:
            body.set(facecolor=colour, alpha=0.55)
        for position, value in enumerate(values, 1):
            between = value.std(0).mean()
            axis.text(
                position, axis.get_ylim()[1], f"±{between:.3f}", ha="center", va="top", fontsize=8, color=INK
            )
        axis.axhline(0, color=INK, lw=0.8)
        axis.set_xticks(range(1, len(sites) + 1), [f"layer {i}" for i in range(1, len(sites) + 1)])
        axis.set_title(title, color=colour, fontsize=11)
    axes[0].set_ylabel("deviation per feature map")
    figure.suptitle(
        f"{name}, {tasks} test tasks (above: mean spread of a feature map between tasks)", fontsize=10
    )
    save(figure, DOCS / "deviations.svg")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", choices=("architecture", "deviations"))
    parser.add_argument("run", nargs="?", default="omniglot-conv4")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--data-root", type=Path, default=None)
    arguments = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "metafilm"
    if arguments.picture == "architecture":
        architecture()
    else:
        deviations(arguments.run, arguments.tasks, arguments.data_root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
