"""How a cost grows: the exponent of a power law, the slope of a line, each with an interval.

A figure is fitted to the medians over rounds of measurements; its interval is that of the median of
the figures of single rounds, by order statistics, so one round in which the machine was busy does
not decide. It says how far the figure moves in one run on one machine. It does not say that a power
law is the right law: for that there are the exponents between neighbouring sizes, which are all
alike where it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# an exponent of pixels up to this passes for linear
LINEAR = 1.1
UNDECIDED = "undecided: repeat more often"


@dataclass(frozen=True)
class Estimate:
    """A figure of several rounds with its interval, of 95 % from six rounds on; fewer rounds give
    their whole range (five 94 %, three 75 %), and one gives none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Step:
    """What was found between two neighbouring sizes or depths."""

    start: int
    stop: int
    estimate: Estimate


def power_law(x: Sequence[float], rounds: Sequence[Sequence[float]]) -> Estimate:
    """k of y ~ x^k by least squares on logarithms, round by round.

    Args:
        x: Two or more different positive numbers.
        rounds: A list a round, of a positive y for each x.

    Returns:
        The exponent of the medians, with its interval.

    Raises:
        ValueError: If there are no two different x, a number is not positive, or a round is not as
            long as x.
    """
    if min(x, default=0) <= 0 or any(min(y, default=0) <= 0 for y in rounds):
        raise ValueError("a power law is fitted to positive numbers only")
    return _fit(x, rounds, np.log)


def slope(x: Sequence[float], rounds: Sequence[Sequence[float]]) -> Estimate:
    """b of y = a + b x by least squares; as `power_law`, without logarithms."""
    return _fit(x, rounds, np.asarray)


def _fit(
    x: Sequence[float],
    rounds: Sequence[Sequence[float]],
    scale: Callable[[np.ndarray], np.ndarray],
) -> Estimate:
    if len(set(x)) < 2 or not rounds or any(len(y) != len(x) for y in rounds):
        raise ValueError(
            f"a slope needs two different x and as many y in each round, not x = {list(x)} and "
            f"{[len(y) for y in rounds]} y"
        )
    y = np.asarray(rounds, dtype=float)
    scaled = scale(np.asarray(x, dtype=float))
    weights = scaled - scaled.mean()
    weights /= weights @ weights
    value = float(scale(np.median(y, axis=0)) @ weights)
    if len(y) < 2:
        return Estimate(value)
    low, high = _median_interval(scale(y) @ weights)
    return Estimate(value, min(low, value), max(high, value))


def power_steps(
    sizes: Sequence[int], x: Sequence[float], rounds: Sequence[Sequence[float]]
) -> list[Step]:
    """The exponent between each two neighbours; `sizes` name the ends."""
    return [
        Step(sizes[i], sizes[i + 1], power_law(x[i : i + 2], [y[i : i + 2] for y in rounds]))
        for i in range(len(x) - 1)
    ]


def slope_steps(x: Sequence[int], rounds: Sequence[Sequence[float]]) -> list[Step]:
    """The slope between each two neighbours."""
    return [
        Step(x[i], x[i + 1], slope(x[i : i + 2], [y[i : i + 2] for y in rounds]))
        for i in range(len(x) - 1)
    ]


def verdict(fit: Estimate, steps: Sequence[Step], exact: bool = False) -> str:
    """Is it linear in the pixels? Judged by intervals, and by the largest sizes on their own, since
    at small ones a fixed cost hides what grows. Of one round nothing is decided, unless its numbers
    are `exact`: counted, or all that there is to know."""
    if fit.low is None and not exact:
        return UNDECIDED
    last = steps[-1].estimate if steps else fit
    if _low(fit) > LINEAR:
        return "faster than the pixels"
    if _low(last) > LINEAR:
        return f"faster than the pixels from {steps[-1].start} to {steps[-1].stop}"
    if _high(fit) <= LINEAR and _high(last) <= LINEAR:
        return "linear or less"
    return UNDECIDED


def _low(estimate: Estimate) -> float:
    return estimate.value if estimate.low is None else estimate.low


def _high(estimate: Estimate) -> float:
    return estimate.value if estimate.high is None else estimate.high


def _median_interval(values: np.ndarray) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median in 95 % of samples or more,
    whatever the distribution: the k-th lowest and highest with P(Binomial(n, 1/2) < k) <= 2.5 %."""
    from scipy.stats import binom

    n = len(values)
    k = max(1, int(binom.ppf(0.025, n, 0.5)))
    ordered = np.sort(values)
    return float(ordered[k - 1]), float(ordered[n - k])
