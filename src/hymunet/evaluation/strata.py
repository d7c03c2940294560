"""Averages of the case table: over all cases, and by size, contrast, compactness and border.

A mean over a test set hides where a model fails. Each case is therefore described from its image
and its *reference* (never from the prediction, which would move a case between bands when the
model changes), put into bands, and the score of each band is given with its interval.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from hymunet.errors import HyMUNetError
from hymunet.metrics.case import METRICS, size_stratum
from hymunet.metrics.statistics import bootstrap_mean, pooled

RING_PX = 10
STRATA_METRICS = ("dice", "iou")
SIZE_BANDS = {"small": "< 5 %", "medium": "5-20 %", "large": "> 20 %"}
CONTRAST_BANDS = ("lower", "higher")
COMPACTNESS_BANDS = ("least compact third", "middle third", "most compact third")
BORDER_BANDS = ("inside the frame", "touches the border")


@dataclass(frozen=True)
class Stratum:
    """One way to divide the cases.

    Args:
        name: Key of the band in a row of the case table, `<name>_band`.
        label: Heading for people.
        bands: Names of the bands in the order in which they are shown.
        description: One line: how the bands are defined.
    """

    name: str
    label: str
    bands: tuple[str, ...]
    description: str


STRATA = (
    Stratum("size", "Size", tuple(SIZE_BANDS.values()), "the reference as a share of the frame"),
    Stratum(
        "contrast",
        "Contrast",
        CONTRAST_BANDS,
        f"|mean inside − mean of a {RING_PX}-px ring| / SD within the two, best channel",
    ),
    Stratum(
        "compactness",
        "Compactness",
        COMPACTNESS_BANDS,
        "4π area / perimeter² of the reference: 1 for a disc, low for a ragged or long shape",
    ),
    Stratum("border", "Border", BORDER_BANDS, "whether the reference touches the image's edge"),
)


def contrast(
    pixels: np.ndarray, inside: np.ndarray, valid: np.ndarray | None = None, ring_px: int = RING_PX
) -> float | None:
    """How far a structure stands out from its surroundings, |m_in - m_ring| / s.

    s^2 is the mean squared deviation of the pixels inside and in the ring from the mean of their
    own region, so texture on either side lowers the contrast. The ring holds the pixels outside
    the structure at a Euclidean distance of at most `ring_px` pixels. Of several channels the one
    with the largest contrast counts: a lesion that one channel shows is visible.

    Args:
        pixels: Image, (channels, *spatial).
        inside: The structure, bool, (*spatial).
        valid: Pixels that count, bool, (*spatial); None: all.
        ring_px: Width of the ring in pixels.

    Returns:
        A value >= 0, infinite when both regions are flat and differ; None when the structure is
        empty or has no surroundings.

    Raises:
        HyMUNetError: If the shapes do not fit.
    """
    if pixels.shape[1:] != inside.shape:
        raise HyMUNetError(
            f"expected a mask of the image's size {pixels.shape[1:]}, got {inside.shape}; "
            "pass image and mask of the same case"
        )
    inside = inside.astype(bool)
    counted = np.ones(inside.shape, bool) if valid is None else valid.astype(bool)
    if not (inside & counted).any():
        return None
    # the distance is only needed near the structure: a crop keeps large frames cheap
    window = tuple(
        slice(max(0, part.start - ring_px - 1), part.stop + ring_px + 1)
        for part in ndimage.find_objects(inside.astype(np.uint8))[0]
    )
    inside, counted = inside[window], counted[window]
    outside = ndimage.distance_transform_edt(~inside)
    ring = (outside > 0) & (outside <= ring_px) & counted
    inside = inside & counted
    if not ring.any():
        return None
    best = 0.0
    for channel in pixels:
        values = channel[window].astype(np.float64)
        first, second = values[inside], values[ring]
        difference = abs(float(first.mean()) - float(second.mean()))
        variance = (first.var() * first.size + second.var() * second.size) / (
            first.size + second.size
        )
        if difference > 0:
            best = max(best, difference / math.sqrt(variance) if variance > 0 else math.inf)
    return best


def perimeter(mask: np.ndarray) -> float:
    """Length of a 2-D outline in pixels, by the Cauchy-Crofton formula in four directions.

    L = pi/8 (N_0 + N_90 + (N_45 + N_135) / sqrt(2)), where N_k counts the changes between inside
    and outside along all grid lines of direction k. Unlike a count of edge pixels it does not
    depend on the direction of the outline by more than a few per cent.

    Raises:
        HyMUNetError: If `mask` is not 2-D.
    """
    if mask.ndim != 2:
        raise HyMUNetError(f"a perimeter needs a 2-D mask, got {mask.ndim} dimensions")
    padded = np.pad(mask.astype(bool), 1)
    straight = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(
        padded[:, 1:] != padded[:, :-1]
    )
    diagonal = np.count_nonzero(padded[1:, 1:] != padded[:-1, :-1]) + np.count_nonzero(
        padded[1:, :-1] != padded[:-1, 1:]
    )
    return math.pi / 8 * (int(straight) + int(diagonal) / math.sqrt(2))


def compactness(mask: np.ndarray) -> float | None:
    """Isoperimetric quotient 4 pi area / perimeter^2: 1 for a disc, towards 0 for a line.

    Shapes of a few pixels come out above 1, an artefact of the grid; they are cut to 1. None for
    an empty mask and for volumes, where the quotient is not defined.
    """
    area = int(np.count_nonzero(mask))
    if mask.ndim != 2 or area == 0:
        return None
    return min(1.0, 4 * math.pi * area / perimeter(mask) ** 2)


def touches_border(mask: np.ndarray) -> bool:
    """Whether any pixel of the mask lies on the first or last line of any axis."""
    return any(
        bool(np.take(mask, line, axis=axis).any()) for axis in range(mask.ndim) for line in (0, -1)
    )


def describe(
    pixels: np.ndarray | None, target: np.ndarray, valid: np.ndarray | None = None
) -> dict[str, float | bool | None]:
    """Contrast, compactness and border of one reference; each None where it is undefined.

    Its size is already in the case table, `target_fraction`.

    Args:
        pixels: Image, (channels, *spatial); None when only masks are at hand (no contrast then).
        target: Reference structure, bool, (*spatial).
        valid: Pixels that count, bool, (*spatial); None: all.

    Returns:
        contrast, compactness, touches_border. All None for an absent structure.
    """
    target = target.astype(bool)
    if valid is not None:
        target = target & valid.astype(bool)
    if not target.any():
        return dict.fromkeys(("contrast", "compactness", "touches_border"))
    return {
        "contrast": None if pixels is None else contrast(pixels, target, valid),
        "compactness": compactness(target),
        "touches_border": touches_border(target),
    }


def add_bands(
    rows: Sequence[dict], contrast_median: float | None = None
) -> tuple[dict[str, float], list[str]]:
    """Writes `size_band`, `contrast_band`, `compactness_band` and `border_band` into each row.

    Args:
        rows: Rows of one class with `target_fraction` and the keys of `describe`; changed in
            place. A band is None where its property is, or the structure is absent.
        contrast_median: Median contrast of the training cases, the cut between lower and higher;
            None: the median of these rows, which depends on the test set and is noted.

    Returns:
        The cuts that were used (contrast, compactness_low, compactness_high; only those that
        exist) and notes for people.
    """
    cuts: dict[str, float] = {}
    notes = []
    contrasts = [row["contrast"] for row in rows if row["contrast"] is not None]
    if contrasts:
        cuts["contrast"] = (
            float(np.median(contrasts)) if contrast_median is None else float(contrast_median)
        )
        notes.append(
            f"contrast is cut at {cuts['contrast']:.3g}, the median of "
            + ("these cases" if contrast_median is None else "the training cases")
        )
    shapes = [row["compactness"] for row in rows if row["compactness"] is not None]
    if len(set(shapes)) >= 3:
        low, high = np.quantile(shapes, [1 / 3, 2 / 3])
        cuts["compactness_low"], cuts["compactness_high"] = float(low), float(high)
    for row in rows:
        row["size_band"] = _band(
            row["target_fraction"] or None, lambda fraction: SIZE_BANDS[size_stratum(fraction)]
        )
        row["contrast_band"] = _band(
            row["contrast"], lambda value: CONTRAST_BANDS[int(value >= cuts["contrast"])]
        )
        row["compactness_band"] = (
            _band(
                row["compactness"],
                lambda value: COMPACTNESS_BANDS[
                    int(value > cuts["compactness_low"]) + int(value > cuts["compactness_high"])
                ],
            )
            if "compactness_low" in cuts
            else None
        )
        row["border_band"] = _band(
            row["touches_border"], lambda touches: BORDER_BANDS[int(touches)]
        )
    return cuts, notes


def _band(value: float | None, choose: Callable[[float], str]) -> str | None:
    return None if value is None else choose(value)


def members(rows: Sequence[Mapping], stratum: Stratum) -> dict[str, list[Mapping]]:
    """The rows of each band that has any, in the order of `stratum.bands`."""
    found: dict[str, list[Mapping]] = {
        band: [row for row in rows if row[f"{stratum.name}_band"] == band] for band in stratum.bands
    }
    return {band: inside for band, inside in found.items() if inside}


def summarise(
    rows: Sequence[dict[str, Any]], contrast_median: float | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Averages of the case table; writes the bands of the strata into its rows.

    Args:
        rows: As `hymunet.evaluation.evaluate.score_case` makes them, all cases and classes.
        contrast_median: See `add_bands`.

    Returns:
        The summary and notes. By class: `per_image` (mean, low, high by metric; low and high are
        None when all cases are of one group), `without_empty` (means over the cases where both
        masks hold something), `pooled`, `failures` (case ids), `strata`.
    """
    names = list(METRICS)
    notes = []
    if _unit("area", rows) is None:
        known = len({row["case"] for row in rows if row["unit"] == "mm"})
        notes.append(
            f"the spacing is known for {known} of {len({row['case'] for row in rows})} cases: "
            "what depends on a length is not averaged; cases.csv holds each in its own unit"
        )
        # the tolerance of nsd is a length too
        names = [name for name in names if METRICS[name].unit == "" and name != "nsd"]
    seen = Counter({row["case"]: row["seen"] for row in rows}.values())
    summary: dict[str, Any] = {
        "n": len({row["case"] for row in rows}),
        "groups": len({row["group"] for row in rows}),
        "trained_on": seen["train"],
        "chose_the_epoch": seen["val"],
        "length_unit": _unit("length", rows),
        "area_unit": _unit("area", rows),
        "interval": "95 % bootstrap over groups",
        "classes": {},
    }
    for name in dict.fromkeys(row["class"] for row in rows):
        own = [row for row in rows if row["class"] == name]
        cuts, band_notes = add_bands(own, contrast_median)
        prefix = f"{name}: " if len({row["class"] for row in rows}) > 1 else ""
        notes += [prefix + note for note in band_notes]
        failures = find_failures(own)
        full = [row for row in own if _area(row, "tp", "fp") and _area(row, "tp", "fn")]
        summary["classes"][name] = {
            "n": len(own),
            "per_image": {metric: _mean(own, metric) for metric in names},
            "n_without_empty": len(full),
            "without_empty": {
                metric: float(np.mean([row[metric] for row in full])) if full else None
                for metric in names
            },
            "pooled": pooled(own),
            "failures": failures,
            "cuts": cuts,
            "strata": {
                stratum.name: {
                    band: {"n": len(inside)}
                    | {metric: _mean(inside, metric) for metric in STRATA_METRICS}
                    for band, inside in members(own, stratum).items()
                }
                for stratum in STRATA
            },
        }
    if len(summary["classes"]) > 1:
        summary["mean_of_classes"] = {
            metric: _mean(mean_over_classes(rows, metric), metric) for metric in names
        }
    return summary, notes


def find_failures(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Ids of the cases of one class where an average says little, by kind.

    missed: the structure is there, the prediction is empty. no_overlap: both hold something, no
    pixel in common. false_alarm: something predicted where there is nothing. both_empty: rightly
    nothing.
    """
    kinds: dict[str, list[str]] = {
        "missed": [], "no_overlap": [], "false_alarm": [], "both_empty": []
    }  # fmt: skip
    for row in rows:
        there, predicted = _area(row, "tp", "fn"), _area(row, "tp", "fp")
        if there and not predicted:
            kinds["missed"].append(row["case"])
        elif there and not row["tp"]:
            kinds["no_overlap"].append(row["case"])
        elif predicted and not there:
            kinds["false_alarm"].append(row["case"])
        elif not predicted:
            kinds["both_empty"].append(row["case"])
    return kinds


def mean_over_classes(rows: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """One row per case: the mean of `metric` over its classes, with the case's id and group."""
    by_case: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    return [
        {"case": case, "group": own[0]["group"], metric: float(np.mean([r[metric] for r in own]))}
        for case, own in by_case.items()
    ]


def _mean(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float | None]:
    interval = bootstrap_mean([row[metric] for row in rows], [row["group"] for row in rows])
    # one group has no interval: NaN there, None here, so that the summary is plain JSON
    return {
        name: None if math.isnan(value) else value
        for name, value in (
            ("mean", interval.mean), ("low", interval.low), ("high", interval.high)
        )
    }  # fmt: skip


def _area(row: Mapping[str, Any], *counts: str) -> int:
    return sum(row[count] for count in counts)


def _unit(kind: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The unit of "length" or "area" metrics; None where the cases do not share it."""
    metric = next(metric for metric in METRICS.values() if metric.unit == kind)
    units = {
        metric.unit_text((1.0,) if row["unit"] == "mm" else None, row["dimensions"]) for row in rows
    }
    return units.pop() if len(units) == 1 else None
