"""Draw the pictures of README and pages, docs/PICTURE.svg.

python scripts/figures.py architecture
python scripts/figures.py deviations runs/criteria/encoder+steps [--tasks 300]    # needs the extra `plots`
python scripts/figures.py gains                                                 # of results/adaptation.json
python scripts/figures.py reliability                                       # of results/probabilities.json
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from episodes.episode import shape_in_words
from metafilm import MetaFiLM, film
from metafilm.config.sources import evaluation_source
from metafilm.laboratory import write_svg

DOCS = Path(__file__).resolve().parent.parent / "docs"
INK, GAIN, BIAS, PAPER = "#263238", "#1e6fb8", "#d9711a", "#f3f6f8"


def save(figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    write_svg(figure, path)
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
    """Where tasks lie in the space of deviations, by what they are about, and which layers tell it."""
    learner = MetaFiLM.from_pretrained(name)
    sampler = evaluation_source(learner.config, "test", data_root).sampler
    kinds: tuple[str, ...] = getattr(sampler, "domains", ("tasks",))
    collected: list[dict[str, torch.Tensor]] = []
    groups = []
    for number in range(tasks):
        episode = sampler.batch([number])
        with torch.no_grad():
            collected.append(learner(episode).films[-1])
        groups.append(0 if episode.pool_ids is None else int(episode.pool_ids[0]))
    group = torch.tensor(groups)
    figure, (places, layers) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(1.15, 1))
    whole = torch.stack([torch.cat([value[0] for value in films.values()]) for films in collected])
    centred = whole - whole.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    spots = centred @ axes.T
    for number, kind in enumerate(kinds):
        mine = spots[group == number]
        places.scatter(mine[:, 0], mine[:, 1], s=9, alpha=0.7, color=f"C{number}", label=kind)
    places.legend(fontsize=8, frameon=False)
    places.set(title=f"δ of {tasks} test tasks, first two principal directions", xticks=[], yticks=[])
    for kind, (label, colour) in enumerate((("gains δγ", GAIN), ("biases δβ", BIAS))):
        shares = []
        for site in film.sites(learner.backbone):
            values = torch.stack([films[film.names(site)[kind]][0] for films in collected])
            means = torch.stack([values[group == g].mean(0) for g in groups])
            shares.append(float(means.var(0).sum() / values.var(0).sum()))
        width = 0.38
        where = [position + width * (kind - 0.5) for position in range(1, len(shares) + 1)]
        layers.bar(where, shares, width, color=colour, alpha=0.8, label=label)
    layers.set_xticks(range(1, len(shares) + 1), [f"layer {i}" for i in range(1, len(shares) + 1)])
    layers.set(title="share of δ's variance between the kinds of task", ylim=(0, 1))
    layers.legend(fontsize=8, framealpha=0.9, loc="lower center", ncols=2)
    save(figure, DOCS / "deviations.svg")


def gains() -> None:
    """Gain over δ = 0 against shots, a panel for each domain, a line for each way to adapt."""
    rows = json.loads((DOCS.parent / "results" / "adaptation.json").read_text())
    pairs = sorted({(row["backbone"], row["dataset"]) for row in rows})
    figure, panels = plt.subplots(1, len(pairs), figsize=(3.2 * len(pairs), 3.4), sharey=True, squeeze=False)
    arms = sorted({row["arm"] for row in rows} - {"identity"})
    for axis, pair in zip(panels[0], pairs, strict=True):
        for number, arm in enumerate(arms):
            mine = [row for row in rows if (row["backbone"], row["dataset"], row["arm"]) == (*pair, arm)]
            mine.sort(key=lambda row: row["shots"])
            if mine:
                shots, gain = [row["shots"] for row in mine], [row["gain"] for row in mine]
                half = [row["gain_ci95"] for row in mine]
                axis.errorbar(shots, gain, half, label=arm, color=f"C{number}", marker="o", ms=3, lw=1.2)
        axis.axhline(0, color=INK, lw=0.8)
        axis.set_xscale("log")
        axis.set_xticks((1, 2, 5, 15), ("1", "2", "5", "15"))
        axis.minorticks_off()
        axis.set(title=f"{pair[0]}: {pair[1]}", xlabel="shots")
        axis.title.set_fontsize(9)
    panels[0][0].set_ylabel("gain over δ = 0, points")
    handles = {
        label: handle
        for axis in panels[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles,
        ncols=4,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        frameon=False,
        fontsize=8,
    )
    save(figure, DOCS / "gains.svg")


def reliability() -> None:
    """Accuracy against confidence, a panel for each record: as the logits come, and at the kept temperature.

    A mark's area grows with the root of its share of the predictions.
    """
    rows = json.loads((DOCS.parent / "results" / "probabilities.json").read_text())
    figure, panels = plt.subplots(1, len(rows), figsize=(3.4 * len(rows), 3.4), sharey=True, squeeze=False)
    for axis, row in zip(panels[0], rows, strict=True):
        axis.plot((0, 1), (0, 1), color=INK, lw=0.8, ls=":")
        for when, colour in (("before", BIAS), ("after", GAIN)):
            parts = row[f"reliability_{when}"]
            total = sum(part["count"] for part in parts)
            sizes = [6 + 120 * (part["count"] / total) ** 0.5 for part in parts]
            sure, right = ([part[name] for part in parts] for name in ("confidence", "accuracy"))
            temperature = 1 if when == "before" else row["temperature"]
            axis.plot(sure, right, color=colour, lw=1)
            label = f"T = {temperature:.3g}: {row[f'ece_{when}']:.2f} %"
            axis.scatter(sure, right, sizes, color=colour, alpha=0.7, lw=0, label=label)
        axis.set(
            title=f"{row['dataset']}, {shape_in_words(row['ways'], row['shots'])}", xlabel="probability given"
        )
        axis.title.set_fontsize(9)
        axis.legend(frameon=False, fontsize=8, loc="upper left", title="calibration error", title_fontsize=8)
    panels[0][0].set_ylabel("share that is right")
    save(figure, DOCS / "reliability.svg")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", choices=("architecture", "deviations", "gains", "reliability"))
    parser.add_argument("run", nargs="?", default="omniglot-conv4")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--data-root", type=Path, default=None)
    arguments = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "metafilm"
    if arguments.picture == "architecture":
        architecture()
    elif arguments.picture == "gains":
        gains()
    elif arguments.picture == "reliability":
        reliability()
    else:
        deviations(arguments.run, arguments.tasks, arguments.data_root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
