"""The threshold that misses, on average, no more of a structure than was asked for.

Conformal risk control: Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024,
https://arxiv.org/abs/2208.02814. With L_i(t) the share of case i's structure that {p >= t} misses,
and R(t) the mean of L_1 ... L_n, the largest t with

    (n R(t) + 1) / (n + 1) <= miss rate

has E[L_(n+1)(t)] <= miss rate for a new case that is exchangeable with these, since L grows with t
and never exceeds 1. Every float32 between 0 and 1 is a threshold that can be chosen: no grid.

A sum over cases is all that decides, so the search needs little memory: first the sum at 65 025
levels (`MissesByLevel`), then only the pixels between the two levels that enclose the answer.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hymunet.errors import HyMUNetError
from hymunet.metrics.overlap import Counts

LOSS = "share of the structure's pixels with p < threshold; 0 for a case without the structure"
HIGHEST = float(np.nextafter(np.float32(1), np.float32(0)))  # a predictor cuts below 1
LOWEST = float(np.finfo(np.float32).tiny)  # smaller numbers are 0 to some processors

# a level is the upper bits of a float32 of [0, 1], whose bits are in the order of the numbers
_SHIFT = 14
_LEVELS = (int(np.float32(1).view(np.uint32)) >> _SHIFT) + 1
_CLOSE = 1e-9  # sums of floats that are nearer to the limit than this are done again in fractions


@dataclass(frozen=True)
class Pixels:
    """Probabilities of some pixels of a case: counted below a range, kept one by one within it.

    Args:
        size: Pixels in all.
        below: Those below the range.
        values: The different probabilities in it, float32, ascending.
        upto: Pixels of the range that lie below each of them, then all of the range.
    """

    size: int
    below: int
    values: np.ndarray
    upto: np.ndarray

    def under(self, threshold: float) -> int:
        """Pixels with p < threshold; exact for thresholds within the range."""
        # in float32, as the predictor compares
        at = np.searchsorted(self.values, np.float32(threshold), side="left")
        return self.below + int(self.upto[at])


@dataclass(frozen=True)
class Controlled:
    """A threshold and what is known of it.

    Args:
        threshold: The largest one that keeps the rate; a float32 as float.
        n: Cases.
        without_structure: Those of them whose structure is empty; they count as 0.
        achieved: R(threshold).
        bound: (n R(threshold) + 1) / (n + 1), at most the rate that was asked for.
    """

    threshold: float
    n: int
    without_structure: int
    achieved: float
    bound: float


class MissesByLevel:
    """The sum over cases of what each of 65 025 thresholds misses, in half a megabyte."""

    def __init__(self) -> None:
        self._sum = np.zeros(_LEVELS + 1)  # entry k: at the level's lower edge

    def add(self, inside: np.ndarray) -> None:
        """Takes the probabilities of a case's structure, any shape; none: nothing is missed.

        Raises:
            HyMUNetError: If one is not in [0, 1].
        """
        p = _probabilities(inside)
        if p.size:
            counts = np.bincount(p.view(np.uint32) >> _SHIFT, minlength=_LEVELS)
            self._sum[1:] += np.cumsum(counts) / p.size

    def bracket(self, n: int, miss_rate: float) -> tuple[float, float]:
        """Two levels, of which the first keeps the rate and the second does not (or is beyond 1):
        the threshold lies between them."""
        limit = float(_limit(n, miss_rate))
        first = np.searchsorted(self._sum, limit - _CLOSE, side="right") - 1
        last = np.searchsorted(self._sum, limit + _CLOSE, side="right")
        # never above the highest threshold there is, which lies in the level before that of 1
        return _edge(min(max(int(first), 0), _LEVELS - 2)), _edge(min(int(last), _LEVELS))


def pixels(probability: np.ndarray, low: float = 0.0, high: float = math.inf) -> Pixels:
    """Keeps the probabilities with low <= p < high one by one, and counts the rest.

    Args:
        probability: Of the pixels meant (inside the structure, or outside it), any shape.
        low: As `MissesByLevel.bracket` gives it; without a range all are kept.
        high: Likewise.

    Raises:
        HyMUNetError: If one is not in [0, 1].
    """
    p = _probabilities(probability)
    values, counts = np.unique(p[(p >= low) & (p < high)], return_counts=True)
    below = int(np.count_nonzero(p < low))
    return Pixels(p.size, below, values, np.concatenate([[0], np.cumsum(counts)]))


def counts_at(inside: Pixels, outside: Pixels, threshold: float) -> Counts:
    """What the mask {p >= threshold} gets right and wrong in one case."""
    fn, tn = inside.under(threshold), outside.under(threshold)
    return Counts(inside.size - fn, outside.size - tn, fn, tn)


def cases_needed(miss_rate: float) -> int:
    """The fewest cases with which any threshold can keep the rate: 1 / miss rate - 1, rounded up.

    Raises:
        HyMUNetError: If the rate is not between 0 and 1.
    """
    return max(1, math.ceil(1 / _exact(miss_rate)) - 1)


def control_miss_rate(cases: Sequence[Pixels], miss_rate: float) -> Controlled:
    """The largest threshold t with (n R(t) + 1) / (n + 1) <= miss rate.

    Exact: of all float32 in (0, 1), and with sums in whole fractions where rounding could decide.

    Args:
        cases: The structure's pixels in each case, independent cases each; all of one range.
        miss_rate: Between 0 and 1, taken as the decimal number that it prints as.

    Raises:
        HyMUNetError: If the rate is not between 0 and 1, the cases are too few for it, so few of
            them hold the structure that finding nothing would keep it, or only a threshold of 0,
            which takes every pixel, would.
    """
    n, needed = len(cases), cases_needed(miss_rate)
    if n < needed:
        raise too_few(n, miss_rate)
    limit = _limit(n, miss_rate)
    holding = sum(case.size > 0 for case in cases)
    if holding <= limit:
        raise HyMUNetError(
            f"only {holding} of {n} cases hold the structure: finding nothing at all would miss no "
            f"more than {100 * miss_rate:g} % on average, so no threshold follows; name more cases "
            "that hold it, or a lower rate"
        )
    # between two neighbours of these nothing changes; beyond the last one all is missed
    steps = np.append(
        np.unique(np.concatenate([case.values for case in cases])), np.float32(np.inf)
    )
    first = bisect_left(steps, True, key=lambda t: _exceeds(cases, t, limit))
    threshold = HIGHEST if first == len(steps) else float(steps[max(first - 1, 0)])
    threshold = min(threshold, HIGHEST)
    if threshold < LOWEST:
        raise HyMUNetError(
            f"no threshold above 0 misses at most {100 * miss_rate:g} % on average here: the "
            "network gives too much of the structure a probability of 0; ask for a higher rate, or "
            "train a model that finds more"
        )
    missed = math.fsum(case.under(threshold) / case.size for case in cases if case.size)
    return Controlled(threshold, n, n - holding, missed / n, (missed + 1) / (n + 1))


def too_few(n: int, miss_rate: float) -> HyMUNetError:
    """The error for a number of cases with which nothing can be promised."""
    needed = cases_needed(miss_rate)
    return HyMUNetError(
        f"a miss rate of {100 * miss_rate:g} % needs {needed} independent cases or more (1 / rate "
        f"- 1), and there are {n}: even a mask that misses nothing in them proves no less than "
        f"{100 / (n + 1):.3g} %; name more cases, or ask for a higher rate"
    )


def _limit(n: int, miss_rate: float) -> Fraction:
    """What the losses of all cases may add up to."""
    return _exact(miss_rate) * (n + 1) - 1


def _exact(miss_rate: float) -> Fraction:
    if not 0 < miss_rate < 1:
        raise HyMUNetError(
            f"a miss rate is a share between 0 and 1, both excluded, such as 0.1, not {miss_rate}"
        )
    return Fraction(str(miss_rate))


def _exceeds(cases: Sequence[Pixels], threshold: float, limit: Fraction) -> bool:
    missed = [(case.under(threshold), case.size) for case in cases if case.size]
    total = math.fsum(under / size for under, size in missed)
    if abs(total - limit) > _CLOSE:
        return total > limit
    return sum((Fraction(under, size) for under, size in missed), Fraction()) > limit


def _edge(level: int) -> float:
    return float(np.uint32(level << _SHIFT).view(np.float32))


def _probabilities(values: np.ndarray) -> np.ndarray:
    """As a flat float32 array in [0, 1], without a negative zero."""
    p = np.asarray(values, np.float32).ravel()
    # resampling can leave a probability a rounding error outside
    if p.size and not (p.min() >= -1e-5 and p.max() <= 1 + 1e-5):
        raise HyMUNetError(f"expected probabilities from 0 to 1, got {p.min()} to {p.max()}")
    return np.clip(p, 0, 1) + np.float32(0)
