"""A comparison as one HTML file: what it costs to be how good, each model, and the differences."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hymunet.evaluation.page import render, style_sheet
from hymunet.evaluation.strata import STRATA
from hymunet.experiments.compare import tables
from hymunet.experiments.compare.charts import Point, score_by_cost
from hymunet.experiments.compare.kinds import METRICS_WITHIN
from hymunet.files import write_text
from hymunet.metrics.case import METRICS

BARS = ("dice", "boundary_iou")


def write_page(path: Path, summary: Mapping[str, Any], title: str) -> None:
    """Writes the self-contained page.

    Args:
        path: Normally report.html.
        summary: Of `hymunet.experiments.compare.comparison.summarise`.
        title: Its heading.

    Raises:
        HyMUNetError: If the file cannot be written.
    """
    compared = [model for model in summary["models"] if model["difference"]]
    page = render(
        "hymunet.experiments.compare/page.html.jinja",
        {},
        style=style_sheet(),
        title=title,
        summary=summary,
        about=tables.about(summary),
        score_headings=tables.score_headings(summary),
        score_rows=[tables.score_cells(model) for model in summary["models"]],
        cost_headings=tables.cost_headings(summary),
        cost_rows=[tables.cost_cells(model, summary) for model in summary["models"]],
        charts=_charts(summary),
        effects=[_effects(compared, metric) for metric in BARS] if compared else [],
        difference_headings=tables.difference_headings(summary),
        difference_rows=[tables.difference_cells(model) for model in compared],
        kinds=[
            (
                tables.kind_caption(summary, metric),
                tables.kind_headings(compared),
                tables.kind_rows(compared, metric),
            )
            for metric in (METRICS_WITHIN if compared else ())
        ],
        strata=STRATA,
        made=_made(summary),
        notes=[*tables.COST_NOTES, *summary["notes"]],
    )
    write_text(path, page)


def _made(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of how this was made."""
    made = summary["made"]
    machine = made["machine"]
    return [
        ("command", made["command"]),
        ("data", summary["root"]),
        ("date", made["date"]),
        ("machine", f"{machine['system']}, {machine['device']}, threads: {machine['threads']}"),
        ("versions", ", ".join(f"{name} {one}" for name, one in made["versions"].items())),
    ]


def _charts(summary: Mapping[str, Any]) -> list[Any]:
    """Dice against latency, on the CPU and where there is one on the GPU."""
    charts = []
    for device in ("cpu", "gpu"):
        points = [
            Point(
                model["name"],
                1e3 * model["cost"][f"{device}_s"],
                model["per_image"]["dice"],
                model["name"] == summary["reference"],
            )
            for model in summary["models"]
            if model["cost"][f"{device}_s"]
        ]
        if points:
            unit = f"ms an image, {device.upper()} (log)"
            charts.append(score_by_cost(points, f"Dice against {device.upper()} latency", unit))
    return charts


def _effects(models: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Differences of one metric as bars on one axis, 0 included, by factor."""
    ends = [0.0]
    for model in models:
        ends += [v for k, v in model["difference"][metric].items()
                 if k in ("mean", "low", "high") and v is not None]  # fmt: skip
    step = 10 ** math.floor(math.log10(max(max(ends) - min(ends), 1e-4))) / 5
    low, high = math.floor(min(ends) / step) * step, math.ceil(max(ends) / step) * step
    high = high if high > low else low + step

    def at(value: float) -> float:
        return (value - low) / (high - low) * 100

    factors: dict[str, list[dict[str, Any]]] = {}
    for model in models:
        found = model["difference"][metric]
        factors.setdefault(model["factor"], []).append(
            {
                "name": model["name"],
                "what": model["what"],
                "text": tables.change_text(found, metric),
                "p": tables.p_text(found["p_holm"]),
                "mean": at(found["mean"]),
                "low": None if found["low"] is None else at(found["low"]),
                "high": None if found["high"] is None else at(found["high"]),
            }
        )
    return {
        "label": METRICS[metric].label,
        "zero": at(0.0),
        "from": tables.signed(low, metric),
        "to": tables.signed(high, metric),
        "factors": factors,
    }
