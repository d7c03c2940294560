"""Kinds of cases: bands of size, contrast, compactness and border, into which scores are divided.

A mean over a test set hides where a model fails. Each case is therefore described from its image
and its *reference* (never from the prediction, which would move a case between bands when the
model changes), put into bands, and the score of each band is given with its interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hymunet.metrics.case import size_stratum
from hymunet.metrics.shape import RING_PX, compactness, contrast, touches_border

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
            f"strata of contrast are cut at {cuts['contrast']:.3g}, the median of "
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
