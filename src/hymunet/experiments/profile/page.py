"""A profile as one HTML file: is it linear, the charts, every cell, every part."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hymunet.evaluation.charts import Chart
from hymunet.evaluation.page import render, style_sheet
from hymunet.experiments.profile.charts import Series, by_depth, growth, stage_bars
from hymunet.experiments.profile.terminal import exponent
from hymunet.experiments.quantities import amount, binary, duration
from hymunet.files import write_text


def write_page(path: Path, summary: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Writes the self-contained page.

    Args:
        path: The file to write, normally profile.html.
        summary: What `summarise_profile` returned, and `made`: rows of name and text.
        notes: What a reader has to know to judge the numbers.

    Raises:
        HyMUNetError: If it cannot be written.
    """
    page = render(
        "hymunet.experiments.profile/page.html.jinja",
        {"duration": duration, "binary": binary, "amount": amount, "exponent": exponent},
        style=style_sheet(),
        summary=summary,
        networks=summary["networks"],
        charts=_charts(summary, "size"),
        depth_charts=_charts(summary, "depth"),
        stages=[
            stage_bars(network["name"], network["breakdown"])
            for network in summary["networks"]
            if network["breakdown"]
        ],
        notes=notes,
    )
    write_text(path, page)


def _charts(summary: Mapping[str, Any], against: str) -> list[Chart]:
    """Time and memory against `size`, of networks as they are, or against `depth`."""
    by_size = against == "size"
    rows = [row for row in summary["cells"] if (row["depth"] is None) is by_size]
    draw, ending = (growth, "") if by_size else (by_depth, " by depth")
    charts = []
    for title, unit, key, factor in (
        ("Time", "ms", "median_s", 1e3),
        ("Peak memory", "MiB", "peak_bytes", 2**-20),
    ):
        if series := _series(summary, rows, key, against, factor):
            charts.append(draw(f"{title}{ending}", unit, series))
    return charts


def _series(
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    key: str,
    against: str,
    factor: float,
) -> list[Series]:
    """Of each network with two or more points, smallest first; sizes that were not measured are
    gaps at the end of a line."""
    series: list[Series] = []
    for network in summary["networks"]:
        points = sorted(
            (row[against], factor * row[key])
            for row in rows
            if row["network"] == network["name"] and row[key]
        )
        if len(points) > 1:
            series.append((network["name"], *map(list, zip(*points, strict=True))))
    return series
