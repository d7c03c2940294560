"""Intervals that cover, tests that hold their level, and worked examples by hand and by SciPy."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from hymunet.errors import HyMUNetError
from hymunet.metrics import (
    Interval,
    bootstrap_mean,
    case_metrics,
    holm,
    paired_sign_flip,
    pooled,
    t_interval,
)
from hymunet.metrics.statistics import bootstrap_pooled


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    trials = 400
    hits = 0
    for trial in range(trials):
        interval = bootstrap_mean(rng.beta(5, 2, size=60), samples=400, seed=trial)
        hits += interval.low <= 5 / 7 <= interval.high
    # 95 % less the percentile bootstrap's known shortfall at 60 cases; 3 standard errors are 3.5 %
    assert 0.90 <= hits / trials <= 0.985


def test_the_interval_covers_with_correlated_groups_of_unequal_sizes():
    rng = np.random.default_rng(1)
    trials = 300
    hits = {"grouped": 0, "ignored": 0}
    for trial in range(trials):
        sizes = rng.integers(1, 8, size=50)
        groups = np.repeat(np.arange(50), sizes)
        values = rng.normal(size=50)[groups] + 0.2 * rng.normal(size=len(groups))
        for name, given in (("grouped", list(groups)), ("ignored", None)):
            interval = bootstrap_mean(values, given, samples=300, seed=trial)
            hits[name] += interval.low <= 0 <= interval.high
    assert 0.89 <= hits["grouped"] / trials <= 0.985
    assert hits["ignored"] / trials < 0.75  # the mistake that groups are there to prevent


def test_groups_of_equal_cases_widen_the_interval_by_the_root_of_their_size():
    values = np.random.default_rng(2).normal(size=100)
    alone = bootstrap_mean(values, samples=4000)
    repeated = np.repeat(values, 4)
    grouped = bootstrap_mean(repeated, list(np.repeat(np.arange(100), 4)), samples=4000)
    ignored = bootstrap_mean(repeated, samples=4000)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=1e-9)
    assert (grouped.high - grouped.low) / (ignored.high - ignored.low) == pytest.approx(2, rel=0.1)


def test_the_interval_matches_scipy():
    values = np.random.default_rng(3).gamma(2.0, size=80)
    ours = bootstrap_mean(values, samples=20_000)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_the_mean_is_over_cases_not_over_groups():
    interval = bootstrap_mean([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert interval.mean == 0.25
    assert (interval.low, interval.high) == (0, 1)
    # of the four equally likely draws aa, ab, ba, bb the middle two have the mean 1/4, not 1/2
    middle = bootstrap_mean([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"], level=0.3)
    assert (middle.low, middle.high) == (0.25, 0.25)


def test_a_case_without_a_group_is_a_group_of_its_own():
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    assert bootstrap_mean(values, [None] * 5) == bootstrap_mean(values)
    # a label that looks like a position joins nothing
    assert bootstrap_mean(values, [None, 0, None, 1, 0]) == bootstrap_mean(
        values, ["w", "x", "y", "z", "x"]
    )


def test_the_seed_decides_and_nothing_else():
    values = np.random.default_rng(5).random(30)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(list(values), seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_a_higher_level_is_a_wider_interval():
    values = np.random.default_rng(6).random(30)
    narrow, wide = bootstrap_mean(values, level=0.5), bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_equal_values_have_an_interval_of_no_width_around_their_mean():
    interval = bootstrap_mean([0.1] * 7)
    assert interval.low <= interval.mean <= interval.high
    assert interval.high - interval.low < 1e-15


@pytest.mark.parametrize("groups", [None, ["a"], ["a", "a", "a"]], ids=str)
def test_one_group_has_a_mean_but_no_interval(groups):
    values = [0.5] if groups is None or len(groups) == 1 else [0.4, 0.5, 0.6]
    interval = bootstrap_mean(values, groups)
    assert interval.mean == pytest.approx(0.5)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_pooled_counts_are_those_of_one_large_image():
    rng = np.random.default_rng(7)
    pairs = [(rng.random((9, 6)) < 0.3, rng.random((9, 6)) < share) for share in (0.1, 0.5, 0.9)]
    whole = case_metrics(np.hstack([p for p, _ in pairs]), np.hstack([t for _, t in pairs]))
    together = pooled([case_metrics(*pair) for pair in pairs])
    assert list(together) == ["dice", "iou", "precision", "recall", "specificity", "accuracy"]
    assert together == pytest.approx({key: whole[key] for key in together}, rel=1e-12)
    assert together["dice"] == pytest.approx(2 * together["iou"] / (1 + together["iou"]))
    mean = np.mean([case_metrics(*pair)["dice"] for pair in pairs])
    assert abs(together["dice"] - mean) > 0.01  # the two averages are two numbers


def test_pooled_takes_numbers_read_from_a_table():
    assert pooled([{"tp": 3.0, "fp": 1.0, "fn": 0.0, "tn": 4.0}])["precision"] == 0.75


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_sign_flip_of_few_groups_is_exact(size):
    rng = np.random.default_rng(size)
    a, b = rng.random(size), rng.random(size)
    seen = abs((a - b).sum())
    patterns = [abs(np.dot(signs, a - b)) for signs in product((1, -1), repeat=size)]
    expected = np.mean([value >= seen - 1e-12 for value in patterns])
    assert paired_sign_flip(a, b) == expected
    assert paired_sign_flip(b, a) == expected


def test_sign_flip_matches_scipy():
    rng = np.random.default_rng(8)
    a, b = rng.random(10), rng.random(10) - 0.2
    theirs = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert paired_sign_flip(a, b) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_sign_flip_by_hand():
    # all three differ the same way: only +++ and --- are as far from 0, 2 of 8
    assert paired_sign_flip([0.9, 0.8, 0.7], [0.6, 0.6, 0.6]) == 2 / 8
    # differences 3, 1, -1: |sum| 3 or more in +++ ++- +-+ and their mirrors, ties included
    assert paired_sign_flip([3.0, 1.0, 0.0], [0.0, 0.0, 1.0]) == 6 / 8
    assert paired_sign_flip([0.4, 0.6], [0.4, 0.6]) == 1


def test_random_sign_flips_agree_with_all_of_them():
    rng = np.random.default_rng(9)
    a = rng.random(13)
    b = a - rng.normal(0.05, 0.1, size=13)
    exact = paired_sign_flip(a, b, samples=2**13)
    random = paired_sign_flip(a, b, samples=2**13 - 1)
    assert exact != random
    assert random == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**13))
    # a random p-value is never 0, which no finite number of flips could show
    assert paired_sign_flip(np.ones(50), np.zeros(50), samples=999) == 1 / 1000


def test_p_is_uniform_when_the_models_are_equally_good():
    rng = np.random.default_rng(10)
    p = [
        paired_sign_flip(rng.normal(size=25), rng.normal(size=25), samples=299, seed=trial)
        for trial in range(400)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_groups_keep_the_sign_flip_at_its_level():
    rng = np.random.default_rng(11)
    groups = list(np.repeat(np.arange(12), 5))
    rejected = {"grouped": 0, "ignored": 0}
    for trial in range(200):
        difference = rng.normal(size=12)[groups] + 0.2 * rng.normal(size=60)
        zero = np.zeros(60)
        for name, given in (("grouped", groups), ("ignored", None)):
            p = paired_sign_flip(difference, zero, given, samples=199, seed=trial)
            rejected[name] += p <= 0.05
    assert rejected["grouped"] / 200 <= 0.10
    assert rejected["ignored"] / 200 > 0.25


def test_sign_flip_compares_group_means():
    # group means .1, .3, -.2 are as far from 0 as seen in 6 of 8 patterns; their sums would give 4
    a, b = [0.5, 0.5, 0.7, 0.3, 0.8, 0.2], [0.4, 0.4, 0.4, 0.4, 0.5, 0.4]
    assert paired_sign_flip(a, b, ["p", "p", "p", "p", "q", "r"]) == 6 / 8


def test_sign_flip_finds_a_real_difference():
    rng = np.random.default_rng(12)
    b = rng.random(40)
    assert paired_sign_flip(b + 0.03 + 0.02 * rng.normal(size=40), b) < 0.001


def test_holm_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04; never below the one before: .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_what_its_stepwise_rule_rejects():
    rng = np.random.default_rng(13)
    for _ in range(50):
        p = rng.beta(0.3, 3, size=6)
        rejected = np.zeros(6, dtype=bool)
        for rank, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (6 - rank):
                break
            rejected[index] = True
        np.testing.assert_array_equal(np.array(holm(p)) <= 0.05, rejected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([]), "at least one case"),
        (lambda: bootstrap_mean([0.1, math.nan]), "values must be finite, got nan for case 1"),
        (lambda: bootstrap_mean([0.1], ["a", "b"]), "got 2 for 1 cases"),
        (lambda: bootstrap_mean([0.1, 0.2], samples=0), "samples must be at least 1, got 0"),
        (lambda: bootstrap_mean([0.1, 0.2], level=95), "level must lie between 0 and 1, got 95"),
        (lambda: paired_sign_flip([0.1], [0.1, 0.2]), "same cases, got 1 and 2"),
        (lambda: paired_sign_flip([], []), "first model must be one number per case"),
        (lambda: paired_sign_flip([0.1], [math.inf]), "scores of the second must be finite"),
        (lambda: holm([0.1, 1.5]), r"numbers in \[0, 1\]"),
        (lambda: holm([math.nan]), r"numbers in \[0, 1\]"),
        (lambda: pooled([]), "at least one case, got none"),
        (lambda: pooled([{"tp": 1, "fp": 0, "fn": 2}]), "case 0 must have tn .* got nothing"),
        (lambda: pooled([{"tp": 1, "fp": 0, "fn": 2, "tn": -1}]), "must have tn .* got -1"),
        (lambda: pooled([{"tp": 0.5, "fp": 0, "fn": 2, "tn": 1}]), "must have tp .* got 0.5"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(HyMUNetError, match=message):
        call()


def test_t_interval_is_that_of_the_t_test():
    values = [0.81, 0.84, 0.79, 0.88, 0.83]
    found = t_interval(values, level=0.9)
    other = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], [other.low, other.high])
    assert found.mean == pytest.approx(np.mean(values))


def test_t_interval_of_few_repetitions_covers_where_a_bootstrap_does_not():
    draws = np.random.default_rng(0).normal(1.0, 2.0, (1000, 4))
    covered = {
        interval: np.mean([x.low <= 1.0 <= x.high for x in map(interval, draws)])
        for interval in (t_interval, lambda values: bootstrap_mean(values, samples=200))
    }
    by_t, by_bootstrap = covered.values()
    assert by_t == pytest.approx(0.95, abs=0.02)
    assert by_bootstrap < 0.9


def test_an_interval_has_a_sign_when_the_test_rejects():
    rng = np.random.default_rng(0)
    signs = set()
    for shift in np.linspace(-2, 2, 41):
        values = rng.normal(shift, 1.0, 6)
        sign = t_interval(values).sign()
        signs.add(sign)
        assert (sign != 0) == (stats.ttest_1samp(values, 0.0).pvalue < 0.05)
        assert sign in (0, np.sign(values.mean()))
    assert signs == {-1, 0, 1}


def test_what_is_not_known_or_touches_zero_has_no_sign():
    assert t_interval([3.0]).sign() == 0
    assert np.isnan(t_interval([3.0]).low)
    assert Interval(1.0, 0.0, 2.0).sign() == Interval(-1.0, -2.0, 0.0).sign() == 0
    assert t_interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("values", "level", "words"),
    [([], 0.95, "at least one case"), ([1.0, np.nan], 0.95, "finite"), ([1.0, 2.0], 1.0, "level")],
)
def test_t_interval_refuses_what_has_no_answer(values, level, words):
    with pytest.raises(HyMUNetError, match=words):
        t_interval(values, level=level)


def test_a_pooled_interval_is_that_of_resampled_sums():
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), 2)
    # the larger, the better: the mean of the scores is another number than the pooled one
    rows = [
        dict(
            zip(
                ("tp", "fp", "fn", "tn"),
                map(int, rng.integers(0, 300, 4) * (1 + g, 3, 3, 1)),
                strict=True,
            )
        )
        for g in groups
    ]
    found = bootstrap_pooled(rows, list(groups), metric="iou", samples=4000)
    assert found.mean == pytest.approx(pooled(rows)["iou"])
    scores = []
    for _ in range(2000):
        drawn = rng.integers(30, size=30)
        scores.append(pooled([row for g in drawn for row in rows[2 * g : 2 * g + 2]])["iou"])
    low, high = np.quantile(scores, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.08 * (high - low))
    assert found.high == pytest.approx(high, abs=0.08 * (high - low))


def test_a_pooled_score_of_several_classes_is_their_mean():
    rows = [{"tp": 10, "fp": 0, "fn": 0, "tn": 5}, {"tp": 0, "fp": 4, "fn": 4, "tn": 9}] * 3
    found = bootstrap_pooled(rows, [0, 0, 1, 1, 2, 2], ["a", "b"] * 3)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    assert bootstrap_pooled(rows, [0] * 6).mean == pytest.approx(60 / 84)
    assert math.isnan(bootstrap_pooled(rows, [0] * 6).low)
    empty = [{"tp": 0, "fp": 0, "fn": 0, "tn": 9}] * 2
    assert bootstrap_pooled(empty).mean == 1.0
    with pytest.raises(HyMUNetError, match=r"of dice or iou, not 'hd'"):
        bootstrap_pooled(rows, metric="hd")
