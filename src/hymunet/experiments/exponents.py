"""How a cost grows: the exponent of a power law, the slope of a line, each with an interval.

The interval says how far the figure moves from one round of measurements to the next, in one run on
one machine. It does not say that a power law is the right law: for that there are the exponents
between neighbouring sizes, which are all alike where it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# an exponent of pixels up to this passes for linear
LINEAR = 1.1


@dataclass(frozen=True)
class Estimate:
    """A mean over rounds with its 95 % interval; no interval where there was one round only."""

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
        The mean over rounds and its interval by Student's t.

    Raises:
        ValueError: If there are no two different x, a number is not positive, or a round is not as
            long as x.
    """
    if min(x, default=0) <= 0 or any(min(y, default=0) <= 0 for y in rounds):
        raise ValueError("a power law is fitted to positive numbers only")
    return slope(np.log(x).tolist(), [np.log(y).tolist() for y in rounds])


def slope(x: Sequence[float], rounds: Sequence[Sequence[float]]) -> Estimate:
    """b of y = a + b x by least squares, round by round; as `power_law`, without logarithms."""
    if len(set(x)) < 2 or not rounds or any(len(y) != len(x) for y in rounds):
        raise ValueError(
            f"a slope needs two different x and as many y in each round, not x = {list(x)} and "
            f"{[len(y) for y in rounds]} y"
        )
    centred = np.asarray(x, dtype=float) - np.mean(x)
    slopes = np.asarray(rounds, dtype=float) @ centred / (centred @ centred)
    return _over_rounds(slopes)


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


def verdict(fit: Estimate, steps: Sequence[Step]) -> str:
    """Is it linear in the pixels? Judged by intervals, and by the largest sizes on their own, since
    at small ones a fixed cost hides what grows."""
    last = steps[-1].estimate if steps else fit
    if _low(fit) > LINEAR:
        return "faster than the pixels"
    if _low(last) > LINEAR:
        return f"faster than the pixels from {steps[-1].start} to {steps[-1].stop}"
    if _high(fit) <= LINEAR and _high(last) <= LINEAR:
        return "linear or less"
    return "undecided: repeat more often"


def _low(estimate: Estimate) -> float:
    return estimate.value if estimate.low is None else estimate.low


def _high(estimate: Estimate) -> float:
    return estimate.value if estimate.high is None else estimate.high


def _over_rounds(values: np.ndarray) -> Estimate:
    from scipy.stats import t

    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Estimate(mean)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5)
    return Estimate(mean, mean - half, mean + half)
