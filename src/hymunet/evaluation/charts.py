"""The report's charts as inline SVG: learning curves, and how the scores are spread over cases."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hymunet.wording import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DOTS = 800
# Drawn in these colours, then replaced by the page's own, so that a figure follows light and dark
_COLOURS = {
    "#010101": "currentColor",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--accent)",
    "#050505": "var(--paper)",
}
INK, MUTED, RULE, ACCENT, PAPER = _COLOURS


@dataclass(frozen=True)
class Chart:
    """One small figure: its title, SVG text and a sentence for those who cannot see it."""

    title: str
    svg: str
    alt: str


def learning_curves(metrics_csv: Path) -> list[Chart]:
    """Loss and validation Dice by epoch from a run's metrics.csv; empty when it has no numbers."""
    with open(metrics_csv, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    charts = []
    losses = {
        name: _column(rows, f"{key}_loss")
        for name, key in (("training", "train"), ("validation", "val"))
    }
    if any(len(x) for x, _ in losses.values()):
        figure, axes = blank_axes("epoch")
        ends = []
        for (name, (x, y)), colour in zip(losses.items(), (MUTED, ACCENT), strict=True):
            if len(x):
                axes.plot(x, y, color=colour, linewidth=1.6, marker="o" if len(x) == 1 else None)
                ends.append((x[-1], y[-1], name, colour))
        _label_ends(axes, ends)
        last = ", ".join(f"{name} {y:.3g}" for _, y, name, _ in ends)
        charts.append(Chart("Loss", as_svg(figure, "loss"), f"Loss by epoch; at the end {last}."))
    epochs, dice = _column(rows, "val_dice")
    if len(epochs):
        figure, axes = blank_axes("epoch")
        best = int(np.argmax(dice))
        axes.plot(epochs, dice, color=ACCENT, linewidth=1.6)
        axes.plot(epochs[best], dice[best], "o", color=ACCENT, markersize=5)
        right = epochs[best] > (epochs[0] + epochs[-1]) / 2
        axes.annotate(
            f"best {dice[best]:.3f}, epoch {epochs[best]:.0f}",
            (epochs[best], dice[best]),
            xytext=(-2 if right else 2, 7),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=9,
            color=INK,
        )
        axes.margins(y=0.18)
        alt = f"Validation Dice by epoch; the best is {dice[best]:.3f} at {epochs[best]:.0f}."
        charts.append(Chart("Validation Dice", as_svg(figure, "dice"), alt))
    return charts


def sorted_scores(scores: Sequence[float], name: str = "Dice") -> Chart:
    """Every case's score, worst to best, against its rank: the whole distribution at a glance."""
    values = np.sort(np.asarray(scores, dtype=float))
    rank = (np.arange(len(values)) + 0.5) / len(values) * 100
    figure, axes = blank_axes("share of cases, %")
    median, tenth = float(np.median(values)), float(np.quantile(values, 0.1))
    axes.axhline(median, color=RULE, linewidth=1)
    if len(values) > MOST_DOTS:
        axes.plot(*_thin(rank, values), color=ACCENT, linewidth=1.8)
    else:
        size = float(np.clip(60 / np.sqrt(len(values)), 2.5, 6))
        axes.plot(rank, values, "o", color=ACCENT, markersize=size, markeredgewidth=0, alpha=0.75)
    axes.set_ylim(*_score_limits(values))
    axes.set_xlim(0, 100)
    axes.annotate(
        f"median {median:.3f}", (0, median), xytext=(3, 3), textcoords="offset points",
        fontsize=9, color=INK,
    )  # fmt: skip
    alt = (
        f"{name} of each of {plural(len(values), 'case')}, sorted: median {median:.3f}, "
        f"a tenth of the cases below {tenth:.3f}, lowest {values[0]:.3f}."
    )
    return Chart(f"{name} of each case, sorted", as_svg(figure, "sorted"), alt)


def histogram(values: Sequence[float], title: str, unit: str, log: bool = False) -> Chart:
    """How many cases have which value; with `log` values must be above 0, on a logarithmic axis."""
    numbers = np.asarray(values, dtype=float)
    low, middle, high = (float(v) for v in np.percentile(numbers, (5, 50, 95)))
    count = int(np.clip(np.sqrt(len(numbers)) * 2, 5, 40))
    ends = float(numbers.min()), float(numbers.max())
    if ends[0] == ends[1]:
        ends = (ends[0] * 0.9, ends[1] * 1.1) if ends[0] > 0 else (ends[0] - 1, ends[1] + 1)
    edges = np.geomspace(*ends, count + 1) if log else np.linspace(*ends, count + 1)
    figure, axes = blank_axes(unit)
    axes.hist(numbers, edges.tolist(), color=ACCENT)
    axes.axvline(middle, color=INK, linewidth=1)
    if log:
        axes.set_xscale("log")
        log_ticks(axes, "x")
    axes.set_ylabel("cases")
    alt = (
        f"{title} of {plural(len(numbers), 'case')}: median {middle:.3g}, 5 to 95 % of them "
        f"{low:.3g} to {high:.3g}."
    )
    name = re.sub(r"\W+", "-", title.lower())  # several stand on one page
    return Chart(f"{title} (median {middle:.3g})", as_svg(figure, name), alt)


def score_by_size(fractions: Sequence[float], scores: Sequence[float], name: str = "Dice") -> Chart:
    """Score against the reference's share of the frame, on a logarithmic axis."""
    x, y = np.asarray(fractions, dtype=float) * 100, np.asarray(scores, dtype=float)
    shown = np.arange(len(x))
    if len(x) > MOST_DOTS:  # an even sample, the same for the same data
        shown = np.sort(np.random.default_rng(0).choice(len(x), MOST_DOTS, replace=False))
    figure, axes = blank_axes("share of the frame, % (log)")
    size = float(np.clip(60 / np.sqrt(len(shown)), 2.5, 6))
    axes.plot(x[shown], y[shown], "o", color=ACCENT, markersize=size, markeredgewidth=0, alpha=0.6)
    axes.set_xscale("log")
    low, high = float(x.min()) / 1.3, min(130.0, float(x.max()) * 1.3)
    axes.set_xlim(low, high)
    ticks = [t for t in (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    for cut in (5, 20):
        if low < cut < high:
            axes.axvline(cut, color=RULE, linewidth=1, zorder=0)
    axes.set_ylim(*_score_limits(y))
    sampled = (
        f" ({MOST_DOTS} of {plural(len(x), 'case')}, drawn at random)" if len(x) > MOST_DOTS else ""
    )
    return Chart(
        f"{name} by size of the reference{sampled}",
        as_svg(figure, "size"),
        f"{name} against the size of the reference for {plural(len(shown), 'case')}; lines at 5 "
        "and 20 %.",
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and finite values of one column; a cell that is empty or no number is left out."""
    points = []
    for row in rows:
        try:
            point = float(row.get("epoch") or "nan"), float(row.get(name) or "nan")
        except ValueError:
            continue
        if np.isfinite(point).all():
            points.append(point)
    table = np.asarray(points, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    index = np.unique(np.linspace(0, len(x) - 1, MOST_DOTS).round().astype(int))
    return x[index], y[index]


def _score_limits(values: np.ndarray) -> tuple[float, float]:
    """From 0 when any score is poor, else from a tenth below the lowest; 1 is always the top."""
    lowest = float(values.min())
    low = 0.0 if lowest < 0.5 else np.floor(lowest * 10 - 0.5) / 10
    return low - 0.02 * (1 - low), 1 + 0.02 * (1 - low)


def _label_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside the ends of the lines instead of a legend; the higher line's name above."""
    for place, (x, y, name, colour) in enumerate(sorted(ends, key=lambda end: -end[1])):
        axes.annotate(
            name, (x, y), xytext=(0, 6 if place == 0 else -6), textcoords="offset points",
            ha="right", va="bottom" if place == 0 else "top", fontsize=9, color=colour,
        )  # fmt: skip
    axes.margins(y=0.15)


def blank_axes(x_label: str) -> tuple["Figure", "Axes"]:
    """An empty small figure in the page's manner, its x axis named."""
    # Figure itself, not pyplot: no global state, no window, safe in a server's thread
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.4, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label, fontsize=9, color=MUTED)
    axes.tick_params(labelsize=9, color=RULE, labelcolor=MUTED, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)
    return figure, axes


def log_ticks(axes: "Axes", which: Literal["x", "y"]) -> None:
    """Three ticks or more on a logarithmic axis, however little it spans: at powers of ten, else at
    1, 2 and 5 times these, else evenly spaced. Once what is drawn is in place."""
    from matplotlib.ticker import MaxNLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ([1.0], [1.0, 2.0, 5.0]):
        ticks = np.outer(powers, steps).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 3:
            break
    else:
        ticks = np.asarray(MaxNLocator(4).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
    axes.minorticks_off()
    axis.set_ticks(ticks.tolist(), [f"{tick:g}" for tick in ticks])
    axis.set_view_interval(low, high, ignore=True)


def as_svg(figure: "Figure", name: str) -> str:
    """The figure for a page: no namespace, no address, own ids, the page's colours and font."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    text = re.sub(r'(<svg)[^>]*?(viewBox="[^"]*")[^>]*>', r'\1 \2 aria-hidden="true">', text)
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(r' id="(?!m|p)[^"]*"', "", text)  # only markers and clip paths are referred to
    text = re.sub(r' id="', f' id="{name}-', text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    for drawn, shown in _COLOURS.items():
        text = text.replace(drawn, shown)
    return re.sub(r"\s*\n\s*", " ", text).strip()
