"""The charts of a profile: costs against pixels and depth, and where the time of a pass goes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hymunet.evaluation.charts import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    RULE,
    Chart,
    as_svg,
    blank_axes,
    log_ticks,
)
from hymunet.experiments.quantities import duration

# drawn like this, then replaced by the page's own colour, as `charts` does with the others
_ALERT = "#060606"
_STYLES = (
    (ACCENT, "-", "o"), (_ALERT, "-", "s"), (INK, "--", "^"), (MUTED, ":", "D"),
    (ACCENT, "--", "v"), (_ALERT, ":", "P"), (INK, "-", "X"), (MUTED, "-.", "*"),
)  # fmt: skip
Series = tuple[str, Sequence[float], Sequence[float]]


def growth(title: str, unit: str, series: Sequence[Series]) -> Chart:
    """A cost against the image's side, both logarithmic, a line a network; a thin line grows as
    the pixels do (sides squared).

    Args:
        title: Such as "Time".
        unit: Of the cost.
        series: Name, sides in pixels and costs of each network, smallest first.
    """
    figure, axes = blank_axes("side of the image, pixels (log)")
    sides = sorted({int(x) for _, xs, _ in series for x in xs})
    first = next(ys[0] for _, _, ys in series)
    guide = [first * (side / sides[0]) ** 2 for side in sides]
    axes.plot(sides, guide, color=RULE, linewidth=1, zorder=0)
    axes.annotate(
        "linear", (sides[-1], guide[-1]), xytext=(4, 0), textcoords="offset points",
        fontsize=8, color=MUTED, va="center",
    )  # fmt: skip
    _lines(axes, series)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sides, [str(side) for side in sides])
    log_ticks(axes, "y")
    axes.set_ylabel(unit, fontsize=9, color=MUTED)
    ends = "; ".join(
        f"{name} {ys[0]:.3g} at {xs[0]:g}, {ys[-1]:.3g} at {xs[-1]:g}" for name, xs, ys in series
    )
    return Chart(title, _svg(figure, title), f"{title} in {unit} against the side: {ends}.")


def by_depth(title: str, unit: str, series: Sequence[Series]) -> Chart:
    """A cost against the blocks of every encoder stage; a straight line is linear."""
    figure, axes = blank_axes("blocks in every encoder stage")
    _lines(axes, series)
    depths = sorted({int(x) for _, xs, _ in series for x in xs})
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit, fontsize=9, color=MUTED)
    ends = "; ".join(
        f"{name} {ys[0]:.3g} at {xs[0]:g}, {ys[-1]:.3g} at {xs[-1]:g}" for name, xs, ys in series
    )
    return Chart(title, _svg(figure, title), f"{title} in {unit} against the depth: {ends}.")


def stage_bars(name: str, found: Mapping[str, Any]) -> Chart:
    """A part's share of the time (full bar) and of the multiply-adds, the scan's included (thin
    line beneath), one under the other from the stem to the head.

    Args:
        name: Of the network.
        found: Its `breakdown`.
    """
    parts = found["parts"]
    whole_work = sum(part["work"] for part in parts) or 1
    times = [100 * part["seconds"] / found["seconds"] for part in parts]
    works = [100 * part["work"] / whole_work for part in parts]
    figure, axes = blank_axes("share of the whole, %")
    figure.set_size_inches(4.4, 0.5 + 0.3 * len(parts))
    places = np.arange(len(parts))
    axes.barh(places - 0.12, times, height=0.46, color=ACCENT)
    axes.barh(places + 0.26, works, height=0.2, color=MUTED)
    axes.set_yticks(places, [part["name"] for part in parts])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(*times, *works))
    for place, part, share in zip(places, parts, times, strict=True):
        axes.annotate(
            duration(part["seconds"]), (share, place - 0.12), xytext=(3, 0),
            textcoords="offset points", fontsize=8, color=INK, va="center",
        )  # fmt: skip
    size = found["size"]
    told = ", ".join(
        f"{part['name']} {time:.0f} % of the time and {work:.0f} % of the multiply-adds"
        for part, time, work in zip(parts, times, works, strict=True)
    )
    title = f"{name} at {size}: {duration(found['seconds'])}"
    return Chart(title, _svg(figure, f"stages {name}"), f"{title}: {told}.")


def _lines(axes: Any, series: Sequence[Series]) -> None:
    for i, (name, xs, ys) in enumerate(series):
        colour, line, marker = _STYLES[i % len(_STYLES)]
        axes.plot(
            xs, ys, color=colour, linestyle=line, linewidth=1.6, marker=marker, markersize=4,
            label=name,
        )  # fmt: skip
    axes.legend(
        fontsize=8, frameon=True, facecolor=PAPER, edgecolor="none", labelcolor=INK, loc="best"
    )


def _svg(figure: Any, name: str) -> str:
    text = as_svg(figure, re.sub(r"\W+", "-", name.lower()))  # several stand on one page
    return text.replace(_ALERT, "var(--alert)")
