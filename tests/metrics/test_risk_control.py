"""The rule against a search over every threshold, and its promise against many drawn worlds."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hymunet.errors import HyMUNetError
from hymunet.metrics.overlap import count
from hymunet.metrics.risk_control import (
    HIGHEST,
    MissesByLevel,
    cases_needed,
    control_miss_rate,
    counts_at,
    pixels,
)

# few different numbers make ties, within a case and between cases; 0 and 1 are what sigmoids round
# to, and the neighbours of a number share its level
NUMBERS = [0, 1e-30, 0.1, 0.3, np.nextafter(np.float32(0.3), 1), 0.5, 0.7, 1 - 2**-24, 1]
PROBABILITIES = arrays.arrays(
    np.float32,
    st.integers(0, 6),
    elements=st.sampled_from(NUMBERS) | st.floats(0, 1, width=32),
)
WORLDS = st.lists(PROBABILITIES, min_size=1, max_size=8)
RATES = st.sampled_from([0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.9])


def missed(world, threshold):
    """R(t) in fractions, from its definition."""
    shares = [Fraction(int((p < np.float32(threshold)).sum()), p.size) for p in world if p.size]
    return sum(shares, Fraction()) / len(world)


def keeps(world, threshold, rate):
    n = len(world)
    return (n * missed(world, threshold) + 1) / (n + 1) <= Fraction(str(rate))


def neighbour(threshold):
    return float(np.nextafter(np.float32(threshold), np.float32(2)))


def searched(world, rate):
    """The largest threshold that keeps the rate, of all at which anything changes and of those
    just above them; None: only 0 does."""
    steps = [0.0, HIGHEST, *map(float, np.concatenate(world))]
    steps += [neighbour(step) for step in steps]
    kept = [step for step in steps if step <= HIGHEST and keeps(world, step, rate)]
    return max(kept) if max(kept, default=0) >= np.finfo(np.float32).tiny else None


def solvable(world, rate):
    holding = sum(p.size > 0 for p in world)
    enough = Fraction(1, len(world) + 1) <= Fraction(str(rate))
    return enough and holding > Fraction(str(rate)) * (len(world) + 1) - 1


@given(WORLDS, RATES)
def test_it_is_the_largest_of_all_thresholds(world, rate):
    assume(solvable(world, rate))
    expected = searched(world, rate)
    cases = [pixels(p) for p in world]
    if expected is None:
        with pytest.raises(HyMUNetError, match="no threshold above 0 misses at most"):
            control_miss_rate(cases, rate)
        return
    found = control_miss_rate(cases, rate)
    assert found.threshold == expected
    assert found.achieved == pytest.approx(float(missed(world, expected)), abs=1e-12)
    assert found.bound == pytest.approx((len(world) * found.achieved + 1) / (len(world) + 1))
    assert found.bound <= rate + 1e-12
    assert (found.n, found.without_structure) == (len(world), sum(p.size == 0 for p in world))
    if expected < HIGHEST:
        assert not keeps(world, neighbour(expected), rate)


@given(WORLDS, RATES)
def test_the_pixels_between_two_levels_are_enough(world, rate):
    assume(solvable(world, rate))
    assume(searched(world, rate) is not None)
    levels = MissesByLevel()
    for p in world:
        levels.add(p)
    low, high = levels.bracket(len(world), rate)
    within = [pixels(p, low, high) for p in world]
    whole = control_miss_rate([pixels(p) for p in world], rate)
    assert control_miss_rate(within, rate) == whole
    assert low <= whole.threshold <= high
    for p, one in zip(world, within, strict=True):
        assert one.size == p.size
        assert one.under(whole.threshold) == int((p < np.float32(whole.threshold)).sum())


def test_of_many_pixels_few_are_kept():
    rng = np.random.default_rng(0)
    world = [rng.random(50_000, np.float32) for _ in range(20)]
    levels = MissesByLevel()
    for p in world:
        levels.add(p)
    within = [pixels(p, *levels.bracket(20, 0.2)) for p in world]
    assert sum(one.values.size for one in within) < 0.01 * 20 * 50_000
    assert control_miss_rate(within, 0.2) == control_miss_rate([pixels(p) for p in world], 0.2)


@given(WORLDS, RATES, RATES)
def test_a_higher_rate_never_lowers_the_threshold(world, one, other):
    low, high = sorted((one, other))
    assume(solvable(world, low) and solvable(world, high))
    assume(searched(world, low) is not None)
    cases = [pixels(p) for p in world]
    first, second = (control_miss_rate(cases, rate) for rate in (low, high))
    assert first.threshold <= second.threshold
    assert first.achieved <= second.achieved


MODERATE = arrays.arrays(np.float32, st.integers(1, 9), elements=st.floats(2**-6, 1, width=32))


@given(st.lists(MODERATE, min_size=4, max_size=8))
def test_masks_stay_when_probabilities_are_stretched(world):
    stretched = [(p.astype(np.float64) ** 2 / 2).astype(np.float32) for p in world]
    every = np.unique(np.concatenate(world))
    assume(np.unique(np.concatenate(stretched)).size == every.size)  # rounding merged none
    one, other = (control_miss_rate([pixels(p) for p in w], 0.3) for w in (world, stretched))
    for p, q in zip(world, stretched, strict=True):
        np.testing.assert_array_equal(
            p >= np.float32(one.threshold), q >= np.float32(other.threshold)
        )


def test_a_tie_goes_with_the_structure():
    world = [np.float32([0.4] * 10)] * 9  # a threshold above 0.4 misses all
    assert control_miss_rate([pixels(p) for p in world], 0.1).threshold == np.float32(0.4)
    # ten of a hundred pixels, exactly what may be missed: 19 x 0.1 + 1 = 0.145 x 20
    world = [np.float32([0.2] + [0.6] * 9)] * 19
    found = control_miss_rate([pixels(p) for p in world], 0.145)
    assert (found.threshold, found.achieved) == (np.float32(0.6), pytest.approx(0.1))
    assert control_miss_rate([pixels(p) for p in world], 0.1449).threshold == np.float32(0.2)


def test_an_empty_truth_misses_nothing_and_counts():
    full = [np.float32([k / 10]) for k in range(1, 6)]
    empty = [np.float32([])] * 4
    cases = [pixels(p) for p in full + empty]
    found = control_miss_rate(cases, 0.3)  # 0.3 x 10 - 1: two of nine may be lost
    assert found.threshold == np.float32(0.3)
    assert (found.without_structure, found.achieved) == (4, pytest.approx(2 / 9))
    assert control_miss_rate(cases[:5], 0.3).threshold == np.float32(0.1)  # none of five


def test_the_fewest_cases():
    for rate in (0.5, 0.3, 0.1, 0.07, 0.05, 0.01, 0.001):
        needed = cases_needed(rate)
        assert Fraction(1, needed + 1) <= Fraction(str(rate)) < Fraction(1, needed)
        perfect = [pixels(np.float32([0.9, 0.8]))] * needed
        assert control_miss_rate(perfect, rate).threshold == np.float32(0.8)
        with pytest.raises(HyMUNetError, match=f"needs {needed} independent cases or more"):
            control_miss_rate(perfect[1:], rate)
    assert [cases_needed(rate) for rate in (0.1, 0.05, 0.3)] == [9, 19, 3]


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan])
def test_a_rate_is_a_share(rate):
    with pytest.raises(HyMUNetError, match="a share between 0 and 1, both excluded"):
        cases_needed(rate)


def test_what_cannot_be_a_threshold():
    blind = [pixels(np.float32([0, 0, 0.5]))] * 20
    with pytest.raises(HyMUNetError, match="no threshold above 0 misses at most 10 %"):
        control_miss_rate(blind, 0.1)
    rare = [pixels(np.float32([0.5]))] + [pixels(np.float32([]))] * 19
    with pytest.raises(HyMUNetError, match="only 1 of 20 cases hold the structure"):
        control_miss_rate(rare, 0.1)
    with pytest.raises(HyMUNetError, match="expected probabilities from 0 to 1"):
        pixels(np.float32([0.5, np.nan]))
    with pytest.raises(HyMUNetError, match="expected probabilities from 0 to 1"):
        MissesByLevel().add(np.float32([1.5]))
    sure = [pixels(np.float32([1, 1, 1]))] * 20  # a predictor cuts below 1
    assert control_miss_rate(sure, 0.1).threshold == HIGHEST < 1


@given(st.integers(0, 10_000), st.sampled_from(NUMBERS))
def test_counts_are_those_of_the_mask(seed, threshold):
    rng = np.random.default_rng(seed)
    p = rng.choice(np.float32(NUMBERS), (4, 5))
    truth = rng.random((4, 5)) < 0.4
    inside, outside = pixels(p[truth]), pixels(p[~truth])
    assert counts_at(inside, outside, threshold) == count(p >= np.float32(threshold), truth)


# The promise itself, on worlds that are drawn from a known population


class Population:
    """Cases differ far more from each other than the pixels of a case do, as images do: a case is
    found or lost almost as a whole, which is where choosing on few cases fails."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def draw(self, n):
        mean = self.rng.normal(2.0, 1.5, n)
        sizes = self.rng.integers(10, 30, n)
        return [
            (1 / (1 + np.exp(-self.rng.normal(m, 0.4, s)))).astype(np.float32)
            for m, s in zip(mean, sizes, strict=True)
        ]

    def risk(self, cases=5_000):
        """R of the population as a function of thresholds, from many new cases."""
        new = self.draw(cases)
        p = np.concatenate(new)
        share = np.concatenate([np.full(one.size, 1 / one.size / cases) for one in new])
        order = np.argsort(p)
        sums = np.concatenate([[0.0], np.cumsum(share[order])])
        return lambda t: sums[np.searchsorted(p[order], np.float32(t), side="left")]


def naive(world, rate):
    """The largest threshold whose mean over these cases keeps the rate, without the correction."""
    steps = np.unique(np.concatenate(world))
    means = np.mean([np.searchsorted(np.sort(p), steps) / p.size for p in world], axis=0)
    return steps[np.flatnonzero(means <= rate)[-1]]


@pytest.mark.parametrize(("n", "rate"), [(9, 0.1), (12, 0.1), (30, 0.1), (15, 0.25)])
def test_new_cases_miss_no_more_than_promised_on_average_and_not_much_less(n, rate):
    population, draws = Population(n), 300
    risk = population.risk()
    worlds = [population.draw(n) for _ in range(draws)]
    found = np.array(
        [risk(control_miss_rate([pixels(p) for p in w], rate).threshold) for w in worlds]
    )
    # that of the draws and that of the new cases, whose losses deviate by 0.3 at most
    error = math.hypot(found.std() / math.sqrt(draws), 0.3 / math.sqrt(5_000))
    assert found.mean() <= rate + 3 * error
    # their Theorem 2, for losses whose steps are small: 1 / 10 of a case at most here
    assert found.mean() >= rate - 2 / (n + 1) - 0.1 / (n + 1) - 3 * error
    assert found.mean() >= rate / 3  # and it is of use: theirs is below 0 for few cases
    # single sets lie above it: the promise is an average
    assert (found > rate).mean() > 0.05
    without = np.array([risk(naive(w, rate)) for w in worlds])
    if n <= 12:
        assert without.mean() > rate + 3 * error
    assert without.mean() > found.mean()
