"""What a segmentation is worth: metrics of one case, and statistics over many."""

from hymunet.metrics.case import METRICS, Metric, case_metrics, emptiness, size_stratum
from hymunet.metrics.overlap import Counts, count
from hymunet.metrics.statistics import (
    Interval,
    bootstrap_mean,
    holm,
    paired_sign_flip,
    pooled,
    t_interval,
)
from hymunet.metrics.surface import SurfaceDistances, boundary_iou, surface_distances, surface_mask

__all__ = [
    "METRICS",
    "Counts",
    "Interval",
    "Metric",
    "SurfaceDistances",
    "bootstrap_mean",
    "boundary_iou",
    "case_metrics",
    "count",
    "emptiness",
    "holm",
    "paired_sign_flip",
    "pooled",
    "size_stratum",
    "surface_distances",
    "surface_mask",
    "t_interval",
]
