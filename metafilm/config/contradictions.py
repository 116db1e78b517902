"""What settings ask of each other."""

from collections.abc import Iterator

from metafilm import heads
from metafilm.backbones import LIBRARIES, LIBRARY_WEIGHTS, flattens
from metafilm.config.messages import flag
from metafilm.config.settings import (
    REGRESSION_DATA,
    Backbone,
    Data,
    Encoder,
    Episodes,
    Evaluation,
    Film,
    Head,
    Inner,
    Outer,
    Pretrain,
)

POOLED = ("conv4", "resnet12")  # networks whose last maps are pooled by name
Problem = tuple[str, str]
"""A setting's name and what is wrong with it, e.g. ("film.sites", "none leaves ...")."""


def of_beginning(
    data: Data, episodes: Episodes, backbone: Backbone, pretrain: Pretrain, outer: Outer, head: Head
) -> Iterator[Problem]:
    """What no run is begun with, though older ones have it, or weights that are judged in another way."""
    if data.rotated_classes and episodes.rotation == "per-class":
        yield (
            "data.rotated_classes",
            f"must be False with {flag('episodes.rotation')} per-class, which turns classes into these",
        )
    trained = pretrain.iterations or outer.plain
    if trained and pretrain.classifier == "reconstruction" and not _local(head):
        known = ", ".join(name for name, kind in heads.HEADS.items() if kind.local)
        yield (
            "pretrain.classifier",
            f"reconstruction compares cells, as the {head.name} head doesn't; take {flag('head.name')} "
            f"{known}, or another classifier",
        )
    if data.name in REGRESSION_DATA:
        yield from _of_images(data, episodes)
        if backbone.name != "mlp":
            yield "backbone.name", f"must be mlp for functions, which are no images, is {backbone.name}"
    elif backbone.name == "mlp":
        yield "backbone.name", f"mlp is for functions, not for images ({flag('data.name')}); take conv4"


def _of_images(data: Data, episodes: Episodes) -> Iterator[Problem]:
    """Settings of images and classes, which functions lack."""
    unused = {
        "episodes.warp": (episodes.warp, False),
        "episodes.within_group": (episodes.within_group, False),
        "episodes.augment": (episodes.augment, "none"),
        "episodes.rotation": (episodes.rotation, "none"),
        "data.rotated_classes": (data.rotated_classes, False),
        "data.image_size": (data.image_size, None),
        "data.scheme": (data.scheme, None),
    }
    for name, (value, empty) in unused.items():
        if value != empty:
            yield name, f"must be {'empty' if empty is None else empty} for functions, which have no images"
    if not isinstance(episodes.shots, int):
        yield "episodes.shots", "must be one number for functions, all of whose tasks have as many points"


def of_data(data: Data, episodes: Episodes) -> Iterator[Problem]:
    if data.classes is None:
        return
    if data.name in REGRESSION_DATA:
        yield "data.classes", "must be empty for functions, which have no classes"
    if episodes.criteria != "none":
        yield (
            "data.classes",
            f"must be empty with {flag('episodes.criteria')}, whose tasks sort by attributes",
        )


def of_modulation(film: Film, encoder: Encoder, inner: Inner, outer: Outer) -> Iterator[Problem]:
    kind = film.modulation
    if kind == "film":
        return
    by_support = encoder.enabled and encoder.kind == "support"
    if not by_support and (kind not in ("gain", "shift") or encoder.enabled):
        yield "film.modulation", f"{kind} needs a task encoder that reads the support; set it to film"
    if kind in ("gated", "bounded") and (inner.steps or inner.evaluation_steps):
        yield "film.modulation", f"{kind} keeps bounds that inner steps would leave; add --inner.steps 0"
    if outer.compile:
        yield "outer.compile", f"knows {flag('film.modulation')} film alone, not {kind}"


def of_adapting_all(inner: Inner, outer: Outer) -> Iterator[Problem]:
    if inner.adapts != "all":
        return
    if inner.gate:
        yield "inner.gate", f"chooses deviations; leave it out with {flag('inner.adapts')} all"
    if outer.film_noise:
        yield "outer.film_noise", f"lies under deviations; set it to 0 with {flag('inner.adapts')} all"
    if outer.compile:
        yield "outer.compile", f"traces steps on deviations alone, not with {flag('inner.adapts')} all"


def of_film(film: Film, encoder: Encoder, inner: Inner, outer: Outer) -> Iterator[Problem]:
    if film.sites != "none":
        return
    if encoder.enabled:
        yield "film.sites", "none leaves the task encoder nothing to predict; add --encoder.enabled False"
    if inner.steps or inner.evaluation_steps:
        yield "film.sites", "none leaves the inner loop nothing to adapt; add --inner.steps 0"
    if outer.film_noise:
        yield "film.sites", "none leaves no place for noise; add --outer.film-noise 0"


def of_encoder(encoder: Encoder, data: Data, outer: Outer) -> Iterator[Problem]:
    for name, wanted in (("encoder.spread", encoder.spread), ("outer.domain", outer.domain)):
        if wanted and (not encoder.enabled or encoder.kind == "constant"):
            yield name, f"needs a task encoder that reads the support; add {flag('encoder.kind')} support"
    if encoder.spread and data.name in REGRESSION_DATA:
        yield "encoder.spread", "must be false for functions, which have no classes"


def of_backbone(backbone: Backbone, outer: Outer) -> Iterator[Problem]:
    library = backbone.name.partition(":")[0] in LIBRARIES
    if backbone.weights in LIBRARY_WEIGHTS and not library:
        yield (
            "backbone.weights",
            f"{backbone.weights} is for networks of {' and '.join(LIBRARIES)}, not for {backbone.name}; "
            "name a run directory, a model.safetensors or shipped weights",
        )
    if backbone.pooling is not None and backbone.name not in POOLED:
        yield "backbone.pooling", f"is for conv4 and resnet12; {backbone.name} pools in its own way"
    if backbone.pools != 4 and backbone.name != "conv4":
        yield "backbone.pools", f"is for conv4; leave it at 4 for {backbone.name}"
    if not backbone.last_relu and backbone.name != "conv4":
        yield "backbone.last_relu", f"is for conv4; leave it true for {backbone.name}"
    if library and outer.compile:
        yield "outer.compile", f"knows metafilm's own backbones alone, not {backbone.name}"


def _flattens(backbone: Backbone) -> bool:
    """Whether the features' number follows the images' size, as far as the settings tell."""
    if backbone.name not in POOLED:
        return True
    return flattens(backbone.pooling or ("flatten" if backbone.name == "conv4" else "mean"))


def _local(head: Head) -> bool:
    """Whether a head compares the cells of maps, or one that is blended with it."""
    return any(heads.HEADS[name].local for name in (head.name, head.blend) if name is not None)


def of_head(
    head: Head, backbone: Backbone, data: Data, episodes: Episodes, outer: Outer, evaluation: Evaluation
) -> Iterator[Problem]:
    kind = heads.HEADS[head.name]
    regression = data.name in REGRESSION_DATA
    if regression != kind.regression:
        yield "head.name", f"{head.name} does not fit --data.name {data.name}"
    if regression and outer.auxiliary:
        yield "outer.auxiliary", "must be 0 for functions: they have no classes to tell apart"
    if regression and outer.label_smoothing:
        yield "outer.label_smoothing", "must be 0 for functions, whose targets are no classes"
    if head.transform and not kind.uses_support:
        yield "head.transform", f"is for heads fitted to the support, not for {head.name}"
    for setting, name in (("head.name", head.name), ("head.blend", head.blend)):
        if name is None or not heads.HEADS[name].local:
            continue
        if not _flattens(backbone):
            yield setting, f"{name} compares the cells of maps; add {flag('backbone.pooling')} flatten"
        if backbone.name not in POOLED:
            yield setting, f"{name} compares the cells of the maps of conv4 or resnet12 alone"
        if outer.compile:
            yield "outer.compile", f"can't trace the {name} head"
    whole = [name for name in (head.name, head.blend) if name is not None and not heads.HEADS[name].local]
    if head.transform and not whole:
        yield "head.transform", f"is for features of whole images, not for the {head.name} head"
    if head.blend is not None:
        if head.blend == head.name:
            yield "head.blend", f"is {head.name} already; name another head, or leave it empty"
        for name in (head.name, head.blend):
            if not heads.HEADS[name].uses_support:
                yield "head.blend", f"is for heads fitted to the support, which {name} is not"
        if outer.compile:
            yield "outer.compile", "can't trace two heads; leave --head.blend empty"
    if evaluation.copies and not kind.uses_support:
        yield "evaluation.copies", f"must be 0 for the {head.name} head, which is not fitted to the support"
    if evaluation.query_copies and kind.regression:
        yield (
            "evaluation.query_copies",
            f"must be 0 for the {head.name} head, whose points have no copies",
        )
    # a classifier that isn't fitted to the support has one learned output per class
    fixed = not kind.uses_support and not kind.regression
    if fixed and isinstance(episodes.ways, tuple):
        yield "episodes.ways", f"must be one number for the {head.name} head, whose outputs are fixed"
    elif fixed and evaluation.ways not in (None, episodes.ways):
        yield (
            "evaluation.ways",
            f"must be {flag('episodes.ways')} ({episodes.ways}) or empty for the {head.name} head, whose "
            f"outputs are fixed, is {evaluation.ways}",
        )


def of_criteria(data: Data, episodes: Episodes, outer: Outer) -> Iterator[Problem]:
    if episodes.criteria == "none":
        return
    if not isinstance(data.name, str) or data.name in REGRESSION_DATA:
        yield "episodes.criteria", "needs one data set whose images have attributes; set it to none"
    with_it = f"with {flag('episodes.criteria')}"
    if outer.auxiliary:
        yield "outer.auxiliary", f"must be 0 {with_it}: an image has a class by each of them"
    if episodes.within_group:
        yield "episodes.within_group", f"must be False {with_it}, which have groups of their own"
    if data.rotated_classes:
        yield "data.rotated_classes", f"must be False {with_it}: turned images need not keep their attributes"
    if episodes.warp:
        yield "episodes.warp", f"must be False {with_it}: it changes what tasks are sorted by"
    for name in ("rotation", "style"):
        if (value := getattr(episodes, name)) != "none":
            yield (
                f"episodes.{name}",
                f"must be none {with_it}, is {value}: it changes what tasks are sorted by",
            )


def of_mixture(data: Data, episodes: Episodes, outer: Outer) -> Iterator[Problem]:
    count = len(data.names)
    given = {"data.weights": data.weights}
    given |= {f"episodes.{name}": getattr(episodes, name) for name in ("within_group", "augment", "style")}
    for name, value in given.items():
        if isinstance(value, tuple) and len(value) != count:
            yield name, f"needs a value for each of {count} data sets, has {len(value)}"
    if outer.one_domain and count == 1:
        yield "outer.one_domain", f"needs several data sets in {flag('data.name')}"
    if outer.domain and count == 1:
        yield "outer.domain", f"needs several data sets in {flag('data.name')} to tell apart"


def of_plain(
    pretrain: Pretrain, outer: Outer, data: Data, episodes: Episodes, backbone: Backbone, head: Head
) -> Iterator[Problem]:
    for name, wanted in (("pretrain.iterations", pretrain.iterations), ("outer.plain", outer.plain)):
        if wanted and data.name in REGRESSION_DATA:
            yield name, "must be 0 for functions: they have no classes to tell apart"
        if wanted and episodes.criteria != "none":
            yield name, f"must be 0 with {flag('episodes.criteria')}: an image has a class by each of them"
    if not pretrain.iterations:
        return
    # for heads of cells the stage takes their mean
    local = _local(head) and backbone.name in POOLED
    if pretrain.image_sizes and _flattens(backbone) and not local:
        yield (
            "pretrain.image_sizes",
            f"needs features that fit any image size; add {flag('backbone.pooling')} mean or max",
        )


def of_gate(head: Head, encoder: Encoder, inner: Inner) -> Iterator[Problem]:
    if not inner.gate:
        return
    if heads.HEADS[head.name].regression:
        yield "inner.gate", f"compares classes, and the {head.name} head has none; leave it out"
    if not (inner.steps or inner.evaluation_steps or encoder.enabled):
        yield "inner.gate", "has nothing to choose from without steps and encoder; add --inner.steps 1"


def of_adapt(evaluation: Evaluation, encoder: Encoder, inner: Inner) -> Iterator[Problem]:
    if evaluation.adapt in ("encoder", "never") and inner.gate:
        yield (
            "evaluation.adapt",
            f"must be auto or always with a gate, which judges each task; or use {flag('inner.gate')} False",
        )
    if evaluation.adapt == "encoder" and not encoder.enabled:
        yield (
            "evaluation.adapt",
            f"must not be encoder without a task encoder; add {flag('encoder.enabled')} True",
        )


def of_freeze(outer: Outer, encoder: Encoder, inner: Inner) -> Iterator[Problem]:
    steps = inner.steps or inner.evaluation_steps
    there = {"backbone": True, "head": True, "encoder": encoder.enabled, "inner": steps}
    if all(part in outer.freeze for part, is_there in there.items() if is_there):
        frozen = " ".join(outer.freeze)
        yield "outer.freeze", f"must leave the outer loop a part to learn, is {frozen}; take one out"
    learns = [part for part, is_there in there.items() if is_there and part not in outer.freeze]
    if learns == ["inner"] and inner.start and not outer.auxiliary:
        yield (
            "inner.start",
            f"must be 0 where nothing but the inner loop learns ({flag('outer.freeze')}), is {inner.start}: "
            "before it there would be nothing to learn",
        )


def of_outer(outer: Outer, episodes: Episodes, inner: Inner) -> Iterator[Problem]:
    for name in ("task_chunk", "query_chunk"):
        value, most = getattr(outer, name), outer.meta_batch
        if value is not None and value > most:
            yield f"outer.{name}", f"must not exceed {flag('outer.meta_batch')} ({most}), is {value}"
    if outer.compile and (inner.optimiser != "sgd" or inner.proximal):
        yield (
            "outer.compile",
            "traces plain inner steps alone; use --inner.optimiser sgd, --inner.proximal 0",
        )
    if outer.plain in (1, 2, 3):
        yield "outer.plain", f"must be 0 or at least 4 images, is {outer.plain}"
    if outer.plain and "backbone" in outer.freeze:
        yield "outer.plain", f"has nothing to teach a frozen backbone; take it out of {flag('outer.freeze')}"
    for name in ("domain", "film_noise"):
        if outer.compile and getattr(outer, name):
            yield "outer.compile", f"does not know {flag('outer', name)}; set that to 0"
    if outer.compile and inner.batch is not None:
        yield "outer.compile", "traces steps on the whole support alone; leave --inner.batch empty"
    for name in ("ways", "shots"):
        if outer.compile and isinstance(getattr(episodes, name), tuple):
            yield f"episodes.{name}", "must be one number with --outer.compile: each shape compiles anew"
