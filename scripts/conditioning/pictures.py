"""The figures of the systems here, docs/NAME.svg: bars of their records, and what their networks make.

Needs the extra `plots`, so nothing but `draw` imports it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt

from scripts.conditioning.committed import by_arm, by_scenes
from scripts.figures import BIAS, DOCS, GAIN, save

COLOURS = (GAIN, BIAS, "#5b8c5a", "#8e5ea2", "#9a9a9a", "#c0a000", "#263238")


def saved(figure, name: str) -> None:
    """Write docs/NAME.svg, the same to the last byte for the same records."""
    matplotlib.rcParams["svg.hashsalt"] = "metafilm"
    save(figure, DOCS / f"{name}.svg")
    plt.close(figure)


def bars(axis, groups: Sequence[str], series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """A group of bars per name, a bar and its interval (value, ci95) per series and group."""
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        where = [i + width * (number - (len(series) - 1) / 2) for i in range(len(groups))]
        heights, half = ([pair[n] for pair in values] for n in range(2))
        axis.bar(
            where, heights, width, yerr=half, label=name, color=COLOURS[number % len(COLOURS)], alpha=0.85
        )
    axis.set_xticks(range(len(groups)), groups)
    axis.spines[["top", "right"]].set_visible(False)


def slanted(axis) -> None:
    """Names below an axis that end at their places."""
    for label in axis.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")


def visual_questions(records, scene, questions: Sequence[str]) -> None:
    """A scene with questions, accuracy by arm of what saw all scenes, and by scenes of arms that saw fewer.

    scene: uint8 [S, S, 3].
    """
    kinds = ("non-relational", "relational")
    most = max(one["setting"]["scenes"] for one in records)
    whole = [one for one in records if one["setting"]["scenes"] == most]
    found = [by_arm(whole, kind) for kind in kinds]
    arms = list(found[0])
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9), width_ratios=(1, 1.7, 1.3))
    left.imshow(scene)
    left.set(xticks=[], yticks=[])
    left.set_xlabel("\n".join(questions), fontsize=8)
    bars(
        middle,
        arms,
        {
            kind: [(by[arm]["value"], by[arm]["ci95"]) for arm in arms]
            for kind, by in zip(kinds, found, strict=True)
        },
    )
    slanted(middle)
    middle.set(ylabel="per cent right", ylim=(0, 102))
    middle.legend(fontsize=8, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    fewer = sorted({one["arm"] for one in records if one["setting"]["scenes"] < most})
    for number, arm in enumerate(fewer):
        chosen = by_scenes(records, arm)
        for kind, style in zip(kinds, (":", "-"), strict=True):
            found_here = [of[kind] for of in chosen.values()]
            right.errorbar(
                list(chosen),
                [one["value"] for one in found_here],
                [one["ci95"] for one in found_here],
                linestyle=style,
                marker="o",
                markersize=4,
                color=COLOURS[number],
                label=f"{arm}, {kind}",
            )
    right.set(xscale="log", xlabel="training scenes", ylim=(40, 102), visible=bool(fewer))
    right.spines[["top", "right"]].set_visible(False)
    if fewer:
        right.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    saved(figure, "visual-questions")


def segmentation(records, pictures, phrases, truth, marked) -> None:
    """Overlap by arm, and what the arms mark. pictures: uint8 [n, S, S, 3]. phrases: n sentences. truth: bool
    [n, S, S]. marked: arm -> bool [n, S, S]."""
    kinds = {"attribute phrases": "miou-attribute", "place phrases": "miou-place"}
    arms = list(by_arm(records, "miou-place"))
    figure = plt.figure(figsize=(11, 3.9))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    axis = left.subplots()
    found = [by_arm(records, metric) for metric in kinds.values()]
    bars(
        axis,
        list(kinds),
        {arm: [(of_kind[arm]["value"], of_kind[arm]["ci95"]) for of_kind in found] for arm in arms},
    )
    axis.set(ylabel="mean intersection over union", ylim=(0, 1.02))
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.28))
    columns = {"": None, "meant": truth, **marked}
    panels = right.subplots(len(pictures), len(columns), squeeze=False)
    for row, picture in enumerate(pictures):
        for axis, (name, masks) in zip(panels[row], columns.items(), strict=True):
            shown = picture if masks is None else np.where(masks[row][..., None], picture, picture // 4)
            axis.imshow(shown)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(name, fontsize=8)
        panels[row][0].set_ylabel(phrases[row].replace(" at ", "\nat ").replace(" on ", "\non "), fontsize=7)
    saved(figure, "segmentation")


def sound_questions(records, kinds: Sequence[str], sound, questions: Sequence[str]) -> None:
    """Accuracy by arm and kind of question, and a scene. sound: uint8 [bands, frames]."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(9.5, 5.6), height_ratios=(1, 1.5))
    above.imshow(sound, origin="lower", aspect="auto", cmap="magma", extent=(0, 4, 0, len(sound)))
    above.set(xlabel="seconds", ylabel="band", title="; ".join(questions))
    above.title.set_fontsize(8)
    found = by_arm(records, "accuracy")
    bars(
        below,
        ["all", *kinds],
        {
            arm: [(one["value"], one["ci95"]), *((one[k], float("nan")) for k in kinds)]
            for arm, one in found.items()
        },
    )
    below.set(ylabel="per cent right", ylim=(0, 102))
    below.legend(fontsize=8, frameon=False, ncols=6, loc="lower center", bbox_to_anchor=(0.5, -0.25))
    figure.tight_layout()
    saved(figure, "sound-questions")


def generation(records, drawings, made: Mapping[str, Any]) -> None:
    """Judge accuracy by arm, with the numbers in its condition network, and samples.

    drawings: float [n, S, S], one a class. made: arm -> [n, k, S, S], k of each class.
    """
    figure = plt.figure(figsize=(11, 3.6))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.6))
    axis = left.subplots()
    found = by_arm(records, "judge-accuracy")
    bars(axis, list(found), {"": [(one["value"], one["ci95"]) for one in found.values()]})
    low = max(0.0, min(one["value"] for one in found.values()) - 15)
    axis.set(ylabel="per cent recognised", ylim=(low, 101))
    slanted(axis)
    for number, one in enumerate(found.values()):
        said = f"{one['condition_parameters'] / 1000:.0f} k"
        axis.text(number, low + 1, said, rotation=90, ha="center", va="bottom", color="white", fontsize=8)
    panels = right.subplots(1 + len(made), 1, height_ratios=[1, *[m.shape[1] for m in made.values()]])
    parts = {"drawn": drawings[:, None], **made}
    for axis, (name, pictures) in zip(np.atleast_1d(panels), parts.items(), strict=True):
        rows = [torch.cat(list(pictures[:, k]), 1) for k in range(pictures.shape[1])]
        axis.imshow(1 - torch.cat(rows, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    saved(figure, "generation")
