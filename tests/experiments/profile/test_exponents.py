"""Exponents and slopes: known laws come back, intervals hold the truth as often as they say."""

import numpy as np
import pytest

from hymunet.experiments.profile.exponents import (
    Estimate,
    Step,
    power_law,
    power_steps,
    slope,
    slope_steps,
    verdict,
)

SIDES = [128, 256, 512, 1024]
PIXELS = [side**2 for side in SIDES]


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0, 1.1, 2.0])
def test_a_power_law_comes_back(k):
    rounds = [[c * x**k for x in PIXELS] for c in (1e-7, 3e-7, 2e-6)]  # machines differ in c alone
    fit = power_law(PIXELS, rounds)
    assert fit.value == pytest.approx(k, abs=1e-12)
    assert (fit.low, fit.high) == (pytest.approx(k, abs=1e-9), pytest.approx(k, abs=1e-9))
    for step in power_steps(SIDES, PIXELS, rounds):
        assert step.estimate.value == pytest.approx(k, abs=1e-9)


def test_it_is_the_least_squares_line_of_numpy():
    rng = np.random.default_rng(0)
    rounds = rng.lognormal(size=(4, 4)).tolist()
    medians = np.median(rounds, axis=0)
    by_numpy = np.polyfit(np.log(PIXELS), np.log(medians), 1)[0]
    assert power_law(PIXELS, rounds).value == pytest.approx(by_numpy)
    assert slope([1, 2, 4, 9], rounds).value == pytest.approx(
        np.polyfit([1, 2, 4, 9], medians, 1)[0]
    )


def test_one_busy_round_does_not_decide():
    quiet = [[c * x for x in PIXELS] for c in (1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08)]
    busy = [5.0 * PIXELS[0], *(float(x) for x in PIXELS[1:])]
    fit = power_law(PIXELS, [*quiet, busy])
    assert (fit.value, fit.low, fit.high) == (pytest.approx(1.0, abs=0.02),) * 3


@pytest.mark.parametrize(("rounds", "share"), [(3, 0.75), (6, 0.969), (9, 0.961), (20, 0.959)])
def test_the_interval_holds_the_truth_as_often_as_it_says(rounds, share):
    """1 - 2 P(Binomial(n, 1/2) < k); the value in it makes it a little wider."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        noise = rng.lognormal(sigma=0.05, size=(rounds, len(PIXELS)))
        fit = power_law(PIXELS, [[x**1.3 * n for x, n in zip(PIXELS, row, strict=True)]
                                 for row in noise])  # fmt: skip
        held += fit.low <= 1.3 <= fit.high
    assert 1000 * share - 25 <= held <= 1000 * share + 25


def test_one_round_has_no_interval():
    assert power_law(PIXELS, [PIXELS]) == Estimate(pytest.approx(1.0), None, None)


def test_steps_show_what_a_fixed_cost_hides():
    """Linear in the pixels with a constant: exponents rise towards 1; with a square: towards 2."""
    constant = power_steps(SIDES, PIXELS, [[x + 2e4 for x in PIXELS]])
    assert [(step.start, step.stop) for step in constant] == [(128, 256), (256, 512), (512, 1024)]
    found = [step.estimate.value for step in constant]
    assert found == sorted(found)
    assert found[-1] < 1.0 < found[-1] + 0.1
    square = power_steps(SIDES, PIXELS, [[x + x**2 / 1e6 for x in PIXELS]])
    assert square[0].estimate.value < 1.1 < square[-1].estimate.value


def test_slopes_of_a_line_and_of_a_curve():
    depths = [1, 2, 4]
    line = [[3 + 2 * d for d in depths], [4 + 2 * d for d in depths]]
    assert slope(depths, line) == Estimate(*[pytest.approx(2.0)] * 3)
    assert [step.estimate.value for step in slope_steps(depths, line)] == [2.0, 2.0]
    curve = slope_steps(depths, [[d**2 for d in depths]])
    assert [step.estimate.value for step in curve] == [pytest.approx(3.0), pytest.approx(6.0)]


@pytest.mark.parametrize(
    ("fit", "last", "words"),
    [
        ((0.98, 0.95, 1.01), (1.02, 0.99, 1.05), "linear or less"),
        ((1.5, 1.4, 1.6), (1.9, 1.8, 2.0), "faster than the pixels"),
        ((1.0, 0.9, 1.1), (1.3, 1.2, 1.4), "faster than the pixels from 512 to 1024"),
        ((1.08, 1.0, 1.16), (1.0, 0.9, 1.05), "undecided"),
        ((1.0, 0.9, 1.05), (1.1, 0.9, 1.3), "undecided"),
    ],
)
def test_verdicts_go_by_intervals_and_by_the_largest_sizes(fit, last, words):
    said = verdict(Estimate(*fit), [Step(512, 1024, Estimate(*last))])
    assert said.startswith(words)
    assert (said == words) or words == "undecided"


def test_one_round_decides_nothing_unless_it_is_counted():
    fit, steps = Estimate(0.7), [Step(512, 1024, Estimate(0.9))]
    assert verdict(fit, steps).startswith("undecided")
    assert verdict(fit, steps, exact=True) == "linear or less"
    assert verdict(Estimate(1.5), steps).startswith("undecided")


@pytest.mark.parametrize(
    ("x", "rounds", "words"),
    [
        ([4, 9], [[1.0, 0.0]], "positive numbers"),
        ([0, 9], [[1.0, 2.0]], "positive numbers"),
        ([4, 4], [[1.0, 2.0]], "two different x"),
        ([4, 9], [[1.0]], "as many y in each round"),
        ([4, 9], [], "as many y"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, rounds, words):
    with pytest.raises(ValueError, match=words):
        power_law(x, rounds)
