"""Choosing the probability at which a mask is cut: the best one, how flat it is, what it gains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hymunet.evaluation import tables
from hymunet.metrics.calibration import (
    THRESHOLDS,
    ProbabilityCounts,
    best_threshold,
    cross_fitted,
    overlap_by_threshold,
)

FLAT = 0.002  # a difference of the mean that nobody would notice
_HALF = THRESHOLDS.index(0.5)


def choose_threshold(
    counts: Mapping[str, Sequence[ProbabilityCounts]],
    groups: Sequence[str],
    metric: str,
    current: float,
) -> dict[str, Any]:
    """The threshold that maximises the per-image mean of `metric`.

    Args:
        counts: By structure, the pixels of each case; of several structures the mean counts, since
            a model has one threshold.
        groups: A label per case.
        metric: "dice" or "iou".
        current: The threshold that the model cuts at so far.

    Returns:
        `metric`, `current`, `chosen`; `best` (threshold by metric); `at_half` and `at_chosen`
        ({dice, iou} as mean, low, high); `gain` (of `metric` at the chosen one over 0.5, paired, on
        the same cases) and `gain_cross_fitted` (each case at the threshold that the other folds'
        cases chose; None with one group of cases); `flat` (the thresholds around the chosen one
        whose mean lies within `flat_by` of the best: first, last); `curve` (a row a threshold).
    """
    pairs = [overlap_by_threshold(cases) for cases in counts.values()]
    scores = {
        name: np.mean([pair[index] for pair in pairs], axis=0)
        for index, name in enumerate(("dice", "iou"))
    }
    best = {name: best_threshold(values) for name, values in scores.items()}
    own, at = scores[metric], best[metric]
    first, last = _plateau(own.mean(axis=0), at)
    half = own[:, _HALF]
    return {
        "metric": metric,
        "current": current,
        "chosen": THRESHOLDS[at],
        "best": {name: THRESHOLDS[index] for name, index in best.items()},
        "at_half": _means(scores, _HALF, groups),
        "at_chosen": _means(scores, at, groups),
        "gain": tables.mean_of(own[:, at] - half, groups),
        "gain_cross_fitted": tables.mean_of(cross_fitted(own, groups) - half, groups)
        if len(set(groups)) > 1
        else None,
        "flat_by": FLAT,
        "flat": [THRESHOLDS[first], THRESHOLDS[last]],
        "curve": [
            {"threshold": threshold, **{name: float(v[:, i].mean()) for name, v in scores.items()}}
            for i, threshold in enumerate(THRESHOLDS)
        ],
    }


def _means(
    scores: Mapping[str, np.ndarray], index: int, groups: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    return {name: tables.mean_of(values[:, index], groups) for name, values in scores.items()}


def _plateau(means: np.ndarray, best: int) -> tuple[int, int]:
    """The unbroken run of thresholds around the best one that are hardly worse: first, last."""
    good = means >= means[best] - FLAT
    first = last = best
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(means) - 1 and good[last + 1]:
        last += 1
    return first, last
