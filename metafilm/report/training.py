"""The sections about a run's training: curves, deviations over time, the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metafilm.film import BIAS, GAIN
from metafilm.report.found import Found, as_text, column
from metafilm.report.page.charts import Curve, field_chart, line_chart
from metafilm.report.page.document import Section, facts, note
from metafilm.report.page.html import Html, tag
from metafilm.storage.environment import environment

FEW_SITES = 8  # whose curves are told apart in one chart
COLUMNS = 120  # of a field over time


def curves(found: Found) -> Section:
    """Loss, accuracy, learning rate and gradient over the iterations."""
    metrics = found.metrics
    charts = []

    def chart(title: str, names: Sequence[tuple[str, str]], unit: str) -> None:
        drawn = [Curve(said, *column(metrics, name)) for name, said in names]
        if any(len(curve.x) > 1 for curve in drawn):
            charts.append(line_chart(title, drawn, "iteration", unit))

    for measure, unit in (("accuracy", "accuracy, %"), ("mse", "mean squared error")):
        chart_of_validation(metrics, measure, unit, charts)
    chart("Pre-training, all training classes", [("pretrain_loss", "loss")], "cross entropy")
    chart("The same, accuracy", [("pretrain_accuracy", "accuracy")], "accuracy, %")
    chart("Outer loss on training tasks", [("loss", "loss")], "loss")
    chart("Accuracy on training tasks", [("accuracy", "accuracy")], "accuracy, %")
    others = [("auxiliary", "auxiliary classification"), ("domain", "guess of the domain")]
    chart("Other losses", others, "cross entropy")
    chart("Penalty on deviations, mean δ²", [("penalty", "penalty")], "mean δ²")
    chart("Norm of the outer gradient", [("gradient_norm", "norm")], "norm")
    chart("Learning rate", [("learning_rate", "learning rate")], "rate")
    if not charts:
        charts = [note("No curves: ", "there is not more than one record of the training.")]
        return Section("Training", "Training", charts)
    lead = (
        "Means over the tasks of each recorded iteration (a pre-training's count up to 0); a band spans "
        "neighbours that lie too close to draw."
    )
    return Section(
        "Training", "Training", [tag("p", lead, class_="soft"), tag("div", charts, class_="grid2")]
    )


def chart_of_validation(metrics: list[dict[str, Any]], measure: str, unit: str, charts: list[Html]) -> None:
    """Validation by stage of adaptation, and on training classes; by domain where there are several."""
    validated = [record for record in metrics if isinstance(record.get(f"validation_{measure}"), int | float)]
    if not validated:
        return
    x, y = column(validated, f"validation_{measure}")
    half = [float(record.get("validation_ci95") or 0.0) for record in validated]
    low = [value - width for value, width in zip(y, half, strict=True)]
    high = [value + width for value, width in zip(y, half, strict=True)]
    drawn = [Curve("validation classes", x, y, low, high)]
    stages = validated[-1].get("validation_stages") or []
    rows = [record.get(f"validation_{measure}_by_step") or [] for record in validated]
    # at the end of a pre-training there are no stages yet
    by_step = [(where, row) for where, row in zip(x, rows, strict=True) if row]
    if len(stages) > 1 and all(len(row) == len(stages) and None not in row for _, row in by_step):
        before = [row[0] for _, row in by_step]
        drawn.append(Curve("the same before adaptation", [where for where, _ in by_step], before))
    drawn.append(Curve("training classes", *column(validated, f"training_classes_{measure}")))
    charts.append(line_chart("Validation", drawn, "iteration", unit))
    domains = validated[-1].get(f"validation_{measure}_by_domain") or {}
    if isinstance(domains, dict) and len(domains) > 1:
        parts = [Curve(str(name), *_by_domain(validated, measure, name)) for name in domains]
        charts.append(line_chart("Validation by data set or criterion", parts, "iteration", unit))


def _by_domain(records: list[dict[str, Any]], measure: str, name: str) -> tuple[list[float], list[float]]:
    known = [
        (float(record["iteration"]), record[f"validation_{measure}_by_domain"].get(name))
        for record in records
        if isinstance(record.get(f"validation_{measure}_by_domain"), dict)
    ]
    known = [(x, y) for x, y in known if isinstance(y, int | float)]
    return [x for x, _ in known], [y for _, y in known]


def deviations_over_training(metrics: list[dict[str, Any]]) -> list[Html]:
    """How large each site's deviations were over the iterations: curves of few sites, a field of many."""
    recorded = [record for record in metrics if isinstance(record.get("sizes"), dict) and record["sizes"]]
    if len(recorded) < 2:
        return []
    charts = []
    names = list(recorded[-1]["sizes"])
    for ending, what in ((GAIN, "gain δγ"), (BIAS, "bias δβ")):
        mine = [name for name in names if name.endswith(ending)]
        sites = [site_of(name) for name in mine]
        series = [_sizes(recorded, name) for name in mine]
        title = f"Over training: size of the {what} by site"
        if len(mine) <= FEW_SITES:
            drawn = [Curve(site, *values) for site, values in zip(sites, series, strict=True)]
            charts.append(line_chart(title, drawn, "iteration", "root mean square"))
        else:
            step = max(1, -(-len(recorded) // COLUMNS))
            columns = [f"iteration {record['iteration']}" for record in recorded[::step]]
            rows = [values[1][::step] for values in series]
            if all(len(row) == len(columns) for row in rows):
                charts.append(field_chart(title, sites, columns, rows))
    return charts


def _sizes(records: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    known = [(record["iteration"], record["sizes"].get(name)) for record in records]
    known = [(x, y) for x, y in known if isinstance(y, int | float)]
    return [float(x) for x, _ in known], [float(y) for _, y in known]


def site_of(parameter: str) -> str:
    """``blocks.0.norm.film.delta_gamma`` -> ``blocks.0.norm``."""
    return parameter.rpartition("film.")[0].rstrip(".") or "output"


def record(found: Found, evaluated: Sequence[tuple[str, Any]]) -> Section:
    """Settings, versions, hardware, wall time: of the training, where the run says, and of this report."""
    results = {name: value for name, value in found.results.items() if name != "environment"}
    trained = [(name.replace("_", " "), as_text(value)) for name, value in results.items()]
    made_with = found.results.get("environment")
    if isinstance(made_with, dict):
        trained += [(f"trained with {name}", as_text(value)) for name, value in made_with.items()]
    here = list(environment().items())
    parts: list[Any] = []
    if trained:
        parts += [tag("h3", "What the run reported"), facts(trained)]
    if evaluated:
        parts += [tag("h3", "This report's tasks"), facts(evaluated)]
    parts += [tag("h3", "This report was made with"), facts(here)]
    if found.config is not None:
        settings = tag("pre", found.config.to_yaml(), tabindex=0)
        parts.append(tag("details", tag("summary", "All settings of the run"), settings))
    return Section("Record", "Record", parts)
