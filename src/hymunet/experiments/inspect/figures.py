"""Maps of a network as small pictures for a page: heat maps, components as colours, contours."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from hymunet.evaluation.charts import ACCENT, INK, MUTED, RULE, Chart, as_svg, blank_axes, log_ticks
from hymunet.evaluation.thumbnails import outline
from hymunet.experiments.inspect.receptive_field import SHARES, densest
from hymunet.experiments.inspect.scan_memory import LOWEST, STEP, quantile

DECIBELS = 40  # below the maximum; what is fainter is shown as the darkest
FINEST = 240  # pixels of a map's longer side


@dataclass(frozen=True)
class Map:
    """A picture: PNG data address, size, outlines by name as SVG path data, a sentence for those
    who cannot see it, and a caption."""

    png: str
    width: int
    height: int
    outlines: dict[str, str]
    alt: str
    caption: str


def heat_map(
    values: np.ndarray, low: float, high: float, alt: str, caption: str, **masks: np.ndarray
) -> Map:
    """(height, width) in false colours (viridis: perceptually even, safe for the colour-blind),
    from `low` to `high`, with the outlines of `masks`."""
    from matplotlib import colormaps

    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    colours = (colormaps["viridis"](scaled)[..., :3] * 255).round().astype(np.uint8)
    return _map(colours, alt, caption, masks)


def field_map(energy: np.ndarray, alt: str, caption: str, smoothing: float = 0.0) -> Map:
    """A field in decibels below its maximum, with the contours of the smallest sets that hold 50
    and 95 % of its energy; for these it is smoothed by a Gaussian, in positions, since a mean over
    few images is speckled."""
    brightest = energy.max() or 1.0
    decibels = 10 * np.log10(np.maximum(energy / brightest, 1e-30))
    smooth = gaussian_filter(energy, smoothing) if smoothing else energy
    contours = {f"share{share * 100:.0f}": densest(smooth, share) for share in SHARES}
    return heat_map(decibels, -DECIBELS, 0, alt, caption, **contours)


def colour_map(components: np.ndarray, alt: str, caption: str) -> Map:
    """Three components (3, height, width) as red, green and blue, each from its 2nd to its 98th
    percentile."""
    low, high = np.percentile(components.reshape(3, -1), [2, 98], axis=1)[..., None, None]
    scaled = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    return _map((scaled * 255).round().astype(np.uint8).transpose(1, 2, 0), alt, caption, {})


def _map(colours: np.ndarray, alt: str, caption: str, masks: dict[str, np.ndarray]) -> Map:
    from PIL import Image as Picture

    height, width = colours.shape[:2]
    picture = Picture.fromarray(np.ascontiguousarray(colours))
    scale = FINEST / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1:
        picture = picture.resize(size, Picture.Resampling.LANCZOS)
    # coarse maps stay as they are: the page enlarges them cell by cell
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    lines = {name: outline(mask.astype(np.uint8), size) for name, mask in masks.items()}
    return Map(address, *size, lines, alt, caption)


def structures_and_fields(diameters: Sequence[float], fields: Sequence[dict[str, Any]]) -> Chart:
    """How large the structures are, against the diameter that holds 95 % of each part's field."""
    figure, axes = blank_axes("diameter, px of the network's input (log)")
    known = [(row["part"], row["images"]["d95"]) for row in fields if row["images"]]
    ends = [*diameters, *(d95 for _, d95 in known)]
    low, high = max(1.0, min(ends) * 0.9), max(ends) * 1.1
    if len(diameters):
        axes.hist(diameters, np.geomspace(low, high, 30).tolist(), color=RULE)
    top = axes.get_ylim()[1] * 1.45
    for place, (name, d95) in enumerate(known):
        colour = ACCENT if name == "output" else MUTED
        axes.axvline(d95, color=colour, linewidth=1.3)
        axes.annotate(
            name, (d95, top * (1 - 0.075 * (place % 4) - 0.02)), xytext=(-3, 0), va="top",
            textcoords="offset points", ha="right", fontsize=8.5, color=colour,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(low / 1.6, high)
    axes.set_ylim(0, top)
    log_ticks(axes, "x")
    axes.set_ylabel("structures", fontsize=9, color=MUTED)
    lines = ", ".join(f"{name} {d95:.0f}" for name, d95 in known)
    alt = f"Diameters of {len(diameters)} structures; lines where 95 % of a field lie: {lines} px."
    return Chart("Sizes of structures, and where 95 % of each field lie", as_svg(figure, "s"), alt)


def memory_chart(memory: dict[int, np.ndarray], tokens: dict[int, tuple[int, int]]) -> Chart:
    """Distribution of memory lengths of each Mamba stage, all directions together.

    Args:
        memory: By stage: counts as of `memory_histogram`, (directions, BINS).
        tokens: By stage: tokens of a line and of the whole grid, marked by dots.
    """
    figure, axes = blank_axes("memory, tokens (log)")
    step = 20  # bins of 0.1 decades
    x = LOWEST + (np.arange(memory[next(iter(memory))].shape[1] // step) + 0.5) * step * STEP
    told = []
    for place, (stage, counts) in enumerate(sorted(memory.items())):
        share = counts.sum(axis=0).reshape(-1, step).sum(axis=1) / counts.sum() * 100
        colour = (MUTED, ACCENT, INK)[place % 3] if len(memory) > 1 else ACCENT
        axes.plot(10**x, share, color=colour, linewidth=1.6)
        # the first name to the left of the curves, the others one below the other to the right
        cumulative = np.cumsum(share)
        at = int(np.searchsorted(cumulative, 15 if place == 0 else min(97, 75 + 10 * place)))
        axes.annotate(
            f"encoder {stage + 1}", (10 ** x[at], share[at]), xytext=(-5 if place == 0 else 5, 0),
            textcoords="offset points", ha="right" if place == 0 else "left", va="bottom",
            fontsize=9, color=colour,
        )  # fmt: skip
        heights = np.interp(np.log10(tokens[stage]), x, share)
        axes.plot(tokens[stage], heights, "o", color=colour, markersize=4.5)
        middle = quantile(counts.sum(axis=0), 0.5)
        told.append(f"encoder {stage + 1} in the median {middle:.3g}")
    axes.set_xscale("log")
    every = np.sum([counts.sum(axis=0) for counts in memory.values()], axis=0)
    axes.set_xlim(quantile(every, 0.0005), quantile(every, 0.9995))
    axes.xaxis.set_major_locator(_powers())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.margins(y=0.2)
    axes.set_ylabel("% of states", fontsize=9, color=MUTED)
    alt = f"Distribution of memory lengths in tokens: {', '.join(told)}."
    return Chart("Memory of states; dots: a line, the whole grid", as_svg(figure, "memory"), alt)


def spectrum_chart(spectrum: np.ndarray, periods: Sequence[int]) -> Chart:
    """Mean log10 power of the logits along the axes, 0 to 1/2 cycles a pixel, with the frequencies
    at which a checkerboard would stand out."""
    figure, axes = blank_axes("cycles a pixel")
    frequency = np.linspace(0, 0.5, len(spectrum))
    for period in periods:
        axes.axvline(1 / period, color=RULE, linewidth=1)
        axes.annotate(
            f"1/{period}", (1 / period, 1), xycoords=("data", "axes fraction"), xytext=(-3, -2),
            textcoords="offset points", ha="right", va="top", fontsize=9, color=MUTED,
        )  # fmt: skip
    axes.plot(frequency, spectrum - spectrum.max(), color=ACCENT, linewidth=1.6)
    axes.set_xlim(0, 0.505)
    axes.xaxis.set_major_locator(_fixed([0, 0.125, 0.25, 0.375, 0.5]))
    axes.set_ylabel("log10 power", fontsize=9, color=MUTED)
    alt = "Power of the logits by frequency along the axes; a checkerboard would be a peak at the "
    alt += f"marks {', '.join(f'1/{period}' for period in periods)}."
    return Chart("Spectrum of the logits, along the axes", as_svg(figure, "spectrum"), alt)


def _powers() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(10, subs=(1.0,))


def _fixed(places: Sequence[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(list(places))
