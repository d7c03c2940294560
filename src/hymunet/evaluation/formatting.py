"""How averages are written for people: units, digits and intervals."""

from collections.abc import Mapping
from typing import Any

from hymunet.metrics.case import METRICS

HEADLINE = ("dice", "iou", "precision", "hd95")  # what a reader looks at first


def unit_of(metric: str, summary: Mapping[str, Any]) -> str:
    """The unit of a metric's mean: "", px, mm, voxels, mm², mm³."""
    kind = METRICS[metric].unit
    return "" if kind == "" else (summary[f"{kind}_unit"] or "")


def format_value(value: float | None, metric: str) -> str:
    """Three decimals for ratios, two to none for lengths and areas by their size, – for nothing."""
    if value is None:
        return "–"
    if METRICS[metric].unit == "":
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_interval(mean: Mapping[str, float | None], metric: str) -> str:
    """`low to high`; – when all cases are of one group."""
    if mean["low"] is None:
        return "–"
    return f"{format_value(mean['low'], metric)} to {format_value(mean['high'], metric)}"
