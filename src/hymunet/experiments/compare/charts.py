"""The figure of a comparison: how good against how dear."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hymunet.evaluation.charts import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    Chart,
    as_svg,
    blank_axes,
    log_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Point:
    """One dot of `score_by_cost`: its name, what it costs, its score (mean, low, high; None where
    nobody can know them), and whether it is the one that others are compared with."""

    name: str
    cost: float
    score: Mapping[str, float | None]
    marked: bool = False


def score_by_cost(points: Sequence[Point], title: str, unit: str) -> Chart:
    """Score with its interval against cost, on a logarithmic axis; the marked dot is filled."""
    figure, axes = blank_axes(unit)
    figure.set_size_inches(6.4, 3.6)
    for point in points:
        mean, low, high = (point.score[name] for name in ("mean", "low", "high"))
        assert mean is not None
        if low is not None and high is not None:
            axes.plot([point.cost] * 2, [low, high], color=MUTED, linewidth=1)
        fill = ACCENT if point.marked else PAPER
        axes.plot(point.cost, mean, "o", color=ACCENT, markerfacecolor=fill, markersize=6)
    costs = [point.cost for point in points]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.4, max(costs) * 2.2)  # room for the last name
    log_ticks(axes, "x")
    axes.margins(y=0.12)
    for (x, y), point in zip(_apart(axes, points), points, strict=True):
        axes.annotate(
            point.name, (x, y), xytext=(7, 0), textcoords="offset points", va="center",
            fontsize=9, color=INK,
        )  # fmt: skip
    said = "; ".join(f"{p.name} {p.score['mean']:.3f} at {p.cost:.3g}" for p in points)
    name = re.sub(r"\W+", "-", title.lower())
    return Chart(title, as_svg(figure, name), f"{title}: {said}.")


def _apart(axes: "Axes", points: Sequence[Point]) -> list[tuple[float, float]]:
    """Where names are written: beside their dots, moved up where they would lie over another's."""
    low, high = axes.get_ylim()
    line = (high - low) * 0.055
    left, right = (float(np.log(side)) for side in axes.get_xlim())
    placed: dict[int, tuple[float, float]] = {}
    order = sorted(range(len(points)), key=lambda i: float(points[i].score["mean"] or 0))
    for index in order:
        x, y = points[index].cost, float(points[index].score["mean"] or 0)
        width = (right - left) * 0.018 * (2 + max(len(p.name) for p in points))
        for _ in points:
            near = [
                b for a, b in placed.values() if abs(np.log(a / x)) < width and abs(b - y) < line
            ]
            if not near:
                break
            y = max(near) + line
        placed[index] = (x, y)
    return [placed[index] for index in range(len(points))]
