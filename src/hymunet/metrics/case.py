"""Every metric of one structure in one case, what each is called, and the strata of lesion size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hymunet.errors import HyMUNetError
from hymunet.metrics.overlap import binary_masks, count, overlap_metrics, thresholded_iou
from hymunet.metrics.surface import (
    NSD_TOLERANCE,
    boundary_iou,
    checked_spacing,
    surface_distances,
)


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Args:
        name: Its key in tables and in `case_metrics`.
        label: What a reader sees.
        unit: "" for a ratio in [0, 1], "length" or "area" (in 3-D: volume).
        higher_is_better: None when the number only describes the case.
        description: One sentence for a legend.
    """

    name: str
    label: str
    unit: Literal["", "length", "area"]
    higher_is_better: bool | None
    description: str

    def unit_text(self, spacing_mm: Sequence[float] | None, spatial_dims: int = 2) -> str:
        """The unit to print: "", "px" or "voxels" without a spacing, else "mm", "mm²", "mm³"."""
        if self.unit == "":
            return ""
        if spacing_mm is None:
            return "voxels" if spatial_dims == 3 and self.unit == "area" else "px"
        if self.unit == "length":
            return "mm"
        return "mm³" if spatial_dims == 3 else "mm²"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "", True, "Twice the overlap over the sum of both areas."),
        Metric("iou", "IoU", "", True, "Overlap over union (Jaccard)."),
        Metric("precision", "Precision", "", True, "Share of the predicted area that is true."),
        Metric("recall", "Recall", "", True, "Share of the true area that was found."),
        Metric("specificity", "Specificity", "", True, "Share of the background left unmarked."),
        Metric("accuracy", "Accuracy", "", True, "Share of all pixels that are right."),
        Metric(
            "thresholded_iou",
            "Thresholded IoU",
            "",
            True,
            "IoU, counted as 0 below 0.65 (ISIC 2018).",
        ),
        Metric("hd", "HD", "length", False, "Largest distance between the two surfaces."),
        Metric("hd95", "HD95", "length", False, "Larger 95th percentile of the surface distances."),
        Metric("assd", "ASSD", "length", False, "Average distance over both surfaces' points."),
        Metric(
            "nsd",
            "NSD",
            "",
            True,
            "Share of both surfaces within the tolerance of each other "
            "(2 mm, or 2 px without a spacing, unless stated).",
        ),
        Metric(
            "boundary_iou",
            "Boundary IoU",
            "",
            True,
            "IoU of the bands along the inner edge, 2 % of the image diagonal wide.",
        ),
        Metric("pred_area", "Predicted area", "area", None, "Size of the prediction."),
        Metric("target_area", "True area", "area", None, "Size of the reference."),
    )
}


def case_metrics(
    pred: np.ndarray,
    target: np.ndarray,
    valid: np.ndarray | None = None,
    spacing_mm: Sequence[float] | None = None,
    *,
    tolerance: float = NSD_TOLERANCE,
) -> dict[str, float]:
    """Measures one structure of one case; definitions and sources are in docs/metrics.md.

    Args:
        pred: Predicted mask (height, width) or (depth, height, width), bool or 0/1.
        target: Reference mask of the same shape.
        valid: The pixels that count, same shape; None: all. Its edge is not a boundary.
        spacing_mm: Size of a pixel along each axis. Lengths are then in mm and areas in mm²
            (3-D: mm³); None: in pixels. It does not change ratios, except nsd, whose tolerance is
            a length, and boundary_iou where the spacing is unequal.
        tolerance: Of nsd, in mm with a spacing, else in px.

    Returns:
        The keys of `METRICS` in their order, never NaN; then the counts tp, fp, fn, tn as ints,
        and target_fraction, the reference's share of the pixels that count (see `size_stratum`).
        When a mask is empty: ratios 1 if both are, else 0; distances 0 if both are, else the
        image's diagonal.

    Raises:
        HyMUNetError: If shapes differ or are not 2-D or 3-D, values other than 0 and 1 occur, no
            pixel is valid, or spacing or tolerance make no sense.
    """
    pred, target, valid = binary_masks(pred, target, valid)
    pixel = float(np.prod(checked_spacing(spacing_mm, pred.ndim)))
    counts = count(pred, target, valid)
    distances = surface_distances(pred, target, valid, spacing_mm)
    return {
        **overlap_metrics(counts),
        "thresholded_iou": thresholded_iou(counts),
        "hd": distances.hausdorff(),
        "hd95": distances.percentile(95),
        "assd": distances.average(),
        "nsd": distances.within(tolerance),
        "boundary_iou": boundary_iou(pred, target, valid, spacing_mm),
        "pred_area": counts.pred * pixel,
        "target_area": counts.target * pixel,
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
        "target_fraction": counts.target / counts.total,
    }


def emptiness(
    metrics: Mapping[str, float],
) -> Literal["neither", "prediction", "reference", "both"]:
    """Which mask of a case was empty: such cases get a fixed score and are counted apart.

    Args:
        metrics: What `case_metrics` returned.
    """
    no_pred, no_target = metrics["pred_area"] == 0, metrics["target_area"] == 0
    if no_pred and no_target:
        return "both"
    if no_pred:
        return "prediction"
    return "reference" if no_target else "neither"


def size_stratum(area_fraction: float) -> Literal["small", "medium", "large"]:
    """Small below 5 % of the frame, large above 20 %, medium between (both ends included).

    Raises:
        HyMUNetError: If the fraction is not in [0, 1].
    """
    if not (math.isfinite(area_fraction) and 0 <= area_fraction <= 1):
        raise HyMUNetError(
            f"the area fraction must lie in [0, 1], got {area_fraction}; "
            "divide the structure's pixels by the pixels that count"
        )
    if area_fraction < 0.05:
        return "small"
    return "large" if area_fraction > 0.2 else "medium"
