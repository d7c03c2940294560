"""Whether probabilities mean what they say, and the overlap at every threshold, from one histogram.

A case is kept as counts of its pixels by probability, inside and outside the structure, on a grid
of 1/1500: fine enough to hold the edges of 15 bins and of every threshold of two decimals exactly,
so that what is computed from the counts is what the pixels themselves would give.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from hymunet.errors import HyMUNetError
from hymunet.metrics.statistics import Interval

BINS = 15  # of the calibration error, equally wide
_FINE = 1500
# compared in float32, as a predictor cuts its float32 probabilities
_EDGES = (np.arange(1, _FINE) / _FINE).astype(np.float32)
THRESHOLDS = tuple(k / 100 for k in range(5, 96))


@dataclass(frozen=True)
class ProbabilityCounts:
    """The pixels of one case, sorted by probability into 1500 equally wide bins.

    Bin k holds k/1500 <= p < (k + 1)/1500, the last one p = 1 as well.

    Args:
        inside: Pixels where the event is true, (1500,).
        outside: Pixels where it is not, (1500,).
        probability: Sum of the probabilities, by the bins of the calibration error, (15,).
        squared_error: Sum of (p - event)^2.
    """

    inside: np.ndarray
    outside: np.ndarray
    probability: np.ndarray
    squared_error: float

    @property
    def pixels(self) -> np.ndarray:
        """Pixels by the bins of the calibration error, (15,)."""
        return (self.inside + self.outside).reshape(BINS, -1).sum(axis=1)

    @property
    def events(self) -> np.ndarray:
        """Those of them where the event is true, (15,)."""
        return self.inside.reshape(BINS, -1).sum(axis=1)


def count_probabilities(
    probability: np.ndarray, event: np.ndarray, valid: np.ndarray | None = None
) -> ProbabilityCounts:
    """Sorts the pixels of one case by probability.

    Args:
        probability: Float32 in [0, 1], any shape.
        event: Whether what the probability is of is true there, bool, same shape: that a pixel
            belongs to the structure, or that the most probable class is the right one.
        valid: Pixels that count, bool, same shape; None: all.

    Raises:
        HyMUNetError: If shapes differ, no pixel counts, or a probability is not in [0, 1].
    """
    p, y = np.asarray(probability, np.float32), np.asarray(event, bool)
    if p.shape != y.shape or (valid is not None and valid.shape != p.shape):
        raise HyMUNetError(
            f"probabilities {p.shape}, events {y.shape} and valid area "
            f"{'(none)' if valid is None else valid.shape} must have one shape"
        )
    p, y = (p.ravel(), y.ravel()) if valid is None else (p[valid], y[valid])
    # resampling can leave a probability a rounding error outside
    if p.size == 0 or not (p.min() >= -1e-5 and p.max() <= 1 + 1e-5):
        raise HyMUNetError(
            "expected probabilities from 0 to 1 of at least one pixel, got "
            + (f"{p.min()} to {p.max()}" if p.size else "none: the valid area is empty")
        )
    p = np.clip(p, 0, 1)
    fine = np.searchsorted(_EDGES, p, side="right")
    inside = np.bincount(fine[y], minlength=_FINE)
    sums = np.bincount(fine // (_FINE // BINS), weights=p, minlength=BINS)
    error = float(np.square(p - y, dtype=np.float64).sum())
    return ProbabilityCounts(inside, np.bincount(fine, minlength=_FINE) - inside, sums, error)


def reliability(cases: Sequence[ProbabilityCounts]) -> list[dict[str, float | int | None]]:
    """The reliability table, a row a bin: `low`, `high`, `pixels`, `probability` (the mean of those
    in the bin) and `frequency` (the share where the event is true); None in an empty bin."""
    pixels, events, sums = (total[0] for total in _totals(cases, np.zeros(len(cases), np.int64)))
    return [
        {
            "low": k / BINS,
            "high": (k + 1) / BINS,
            "pixels": int(pixels[k]),
            "probability": float(sums[k] / pixels[k]) if pixels[k] else None,
            "frequency": float(events[k] / pixels[k]) if pixels[k] else None,
        }
        for k in range(BINS)
    ]


def calibration_error(
    cases: Sequence[ProbabilityCounts],
    groups: Sequence[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Expected calibration error over all pixels of all cases, with an interval.

    ECE = sum_b n_b / N |mean probability in b - share of events in b|, over 15 equally wide bins.
    Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602. The interval is a percentile
    bootstrap over groups; an ECE cannot be negative, so that of a perfect model of few pixels is a
    little above 0, and so is its interval.

    Args:
        cases: At least one.
        groups: A label per case; None: each case is a group of its own.
        samples: Repetitions of the bootstrap.
        seed: Of its draws.
    """
    pixels, events, sums = _totals(cases, _codes(groups, len(cases)))

    def error(chosen: np.ndarray) -> float:
        gap = np.abs(sums[chosen].sum(axis=0) - events[chosen].sum(axis=0))
        return float(gap.sum() / pixels[chosen].sum())

    return _bootstrap(error, len(pixels), samples, seed)


def pooled_mean(
    sums: Sequence[float],
    pixels: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """sum(sums) / sum(pixels), a mean over all pixels of all cases (such as the Brier score, whose
    sums are those of (p - event)^2), with a bootstrap interval over groups."""
    codes = _codes(groups, len(sums))
    top = np.bincount(codes, weights=np.asarray(sums, np.float64))
    bottom = np.bincount(codes, weights=np.asarray(pixels, np.float64))
    return _bootstrap(
        lambda chosen: float(top[chosen].sum() / bottom[chosen].sum()), len(top), samples, seed
    )


def overlap_by_threshold(
    cases: Sequence[ProbabilityCounts],
) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU of each case at each of `THRESHOLDS`, the mask being p >= threshold.

    Returns:
        Two arrays (cases, thresholds); 1 where mask and truth are both empty, 0 where one is.
    """
    at = [round(threshold * _FINE) for threshold in THRESHOLDS]
    tp = np.array([case.inside[::-1].cumsum()[::-1][at] for case in cases], np.float64)
    fp = np.array([case.outside[::-1].cumsum()[::-1][at] for case in cases], np.float64)
    target = np.array([case.inside.sum() for case in cases], np.float64)[:, None]
    both, union = tp + fp + target, fp + target
    dice = np.divide(2 * tp, both, out=np.ones_like(tp), where=both > 0)
    iou = np.divide(tp, union, out=np.ones_like(tp), where=union > 0)
    return dice, iou


def best_threshold(scores: np.ndarray) -> int:
    """Index of the threshold with the highest mean score; of equal ones that nearest to a half.

    Args:
        scores: (cases, thresholds), as from `overlap_by_threshold`.
    """
    means = scores.mean(axis=0)
    # sums of equal scores may differ by rounding
    best = np.flatnonzero(means >= means.max() - 1e-12)
    return int(best[np.argmin(np.abs(np.asarray(THRESHOLDS)[best] - 0.5))])


def cross_fitted(
    scores: np.ndarray, groups: Sequence[Hashable] | None = None, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Each case's score at the threshold that is best for the other folds' cases, (cases,).

    The gain of a chosen threshold is flattered on the cases that chose it; this is what choosing
    brings to cases that had no part in it. Groups stay together; with fewer groups than folds,
    each group is a fold.

    Args:
        scores: (cases, thresholds).
        groups: A label per case; None: each case is a group of its own.
        folds: Parts to leave out in turn.
        seed: Of the division into folds.

    Raises:
        HyMUNetError: If there is one group only: nothing is left to choose with.
    """
    codes = _codes(groups, len(scores))
    count = int(codes.max()) + 1
    if count < 2:
        raise HyMUNetError("cross-fitting needs two groups of cases or more, got one")
    fold_of_group = np.random.default_rng(seed).permutation(count) % min(folds, count)
    fold = fold_of_group[codes]
    found = np.empty(len(scores))
    for index in range(min(folds, count)):
        left_out = fold == index
        found[left_out] = scores[left_out, best_threshold(scores[~left_out])]
    return found


def _totals(
    cases: Sequence[ProbabilityCounts], codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, events and sums of probabilities by group and bin, (groups, 15) each."""
    totals = np.zeros((3, int(codes.max()) + 1, BINS))
    for case, code in zip(cases, codes, strict=True):
        totals[:, code] += (case.pixels, case.events, case.probability)
    return totals[0], totals[1], totals[2]


def _codes(groups: Sequence[Hashable] | None, cases: int) -> np.ndarray:
    if groups is None:
        return np.arange(cases)
    if len(groups) != cases:
        raise HyMUNetError(f"expected a group for each of {cases} cases, got {len(groups)}")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], np.int64)


def _bootstrap(
    value: Callable[[np.ndarray], float], groups: int, samples: int, seed: int
) -> Interval:
    """`value` of all groups, with the 2.5 and 97.5 % quantiles of it over groups drawn anew."""
    whole = value(np.arange(groups))
    if groups == 1:
        return Interval(whole, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = [value(rng.integers(groups, size=groups)) for _ in range(samples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(whole, float(low), float(high))
