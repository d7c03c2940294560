"""Calibration errors against other libraries; thresholds against masks that are really cut."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from hymunet.errors import HyMUNetError
from hymunet.metrics.calibration import (
    BINS,
    THRESHOLDS,
    best_threshold,
    calibration_error,
    count_probabilities,
    cross_fitted,
    overlap_by_threshold,
    pooled_mean,
    reliability,
)
from hymunet.metrics.overlap import count, dice, iou


def case(seed: int, size=(23, 31), sharp=6.0):
    """Probabilities, float32, and events that follow them roughly."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(rng.normal(-1, 1), 2, size)
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return p, rng.random(size) < 1 / (1 + np.exp(-sharp * logits))


def counted(*seeds):
    return [count_probabilities(*case(seed)) for seed in seeds]


def pooled(*seeds):
    pairs = [case(seed) for seed in seeds]
    return tuple(np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))


# calibration


def test_the_calibration_error_is_that_of_scikit_learns_curve():
    p, event = pooled(0, 1, 2)
    frequency, mean = calibration_curve(event, p.astype(np.float64), n_bins=BINS)
    pixels = np.histogram(p, bins=np.linspace(0, 1, BINS + 1))[0]
    expected = (pixels[pixels > 0] * np.abs(frequency - mean)).sum() / p.size
    found = calibration_error(counted(0, 1, 2), samples=10)
    assert found.mean == pytest.approx(expected, rel=1e-6)
    assert 0.05 < expected < 0.5


def test_the_calibration_error_is_torchmetrics():
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.classification")
    p, event = pooled(3, 4)
    judge = classification.BinaryCalibrationError(n_bins=BINS, norm="l1")
    expected = judge(torch.from_numpy(p), torch.from_numpy(event).long())
    found = calibration_error(counted(3, 4), samples=10).mean
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_the_brier_score_is_scikit_learns():
    p, event = pooled(0, 5)
    cases = counted(0, 5)
    found = pooled_mean([one.squared_error for one in cases], [p.size / 2] * 2, samples=10)
    assert found.mean == pytest.approx(brier_score_loss(event, p.astype(np.float64)), rel=1e-6)


def test_by_hand():
    """Always 0.9 and right half the time: 0.4 too sure. Always right and sure: nothing to say."""
    event = np.arange(100) % 2 == 0
    sure = count_probabilities(np.full(100, 0.9, np.float32), event)
    assert calibration_error([sure]).mean == pytest.approx(0.4, abs=1e-6)
    right = count_probabilities(event.astype(np.float32), event)
    assert calibration_error([right]).mean == 0
    assert right.squared_error == 0
    row = reliability([sure])[13]
    assert (row["low"], row["high"]) == pytest.approx((13 / 15, 14 / 15))
    assert (row["pixels"], row["probability"], row["frequency"]) == pytest.approx((100, 0.9, 0.5))
    empty = [r for r in reliability([sure]) if r["pixels"] == 0]
    assert len(empty) == 14
    assert all(r["probability"] is None and r["frequency"] is None for r in empty)


def test_true_probabilities_are_calibrated_and_doubted_ones_are_not():
    p, _ = case(6, (300, 300))
    event = np.random.default_rng(1).random(p.shape) < p
    assert calibration_error([count_probabilities(p, event)]).mean < 0.01
    half = 0.5 + 0.5 * (p - 0.5)
    assert calibration_error([count_probabilities(half, event)]).mean > 0.05


def test_bins_hold_their_lower_edge_and_the_last_one_holds_one():
    edges = (np.arange(BINS + 1) / BINS).astype(np.float32)
    counts = count_probabilities(edges, np.zeros(BINS + 1, bool))
    np.testing.assert_array_equal(counts.pixels, [1] * (BINS - 1) + [2])
    below = np.nextafter(edges[1:], np.float32(0))
    counts = count_probabilities(below, np.ones(BINS, bool))
    np.testing.assert_array_equal(counts.events, [1] * BINS)


def test_pixels_outside_the_valid_area_change_nothing():
    p, event = case(7)
    valid = np.zeros(p.shape, bool)
    valid[4:15, 6:20] = True
    found = count_probabilities(p, event, valid)
    alone = count_probabilities(p[4:15, 6:20], event[4:15, 6:20])
    for name in ("inside", "outside", "probability", "squared_error"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-12)
    assert found.pixels.sum() == 11 * 14


def test_what_is_no_probability_is_refused():
    event = np.zeros(3, bool)
    with pytest.raises(HyMUNetError, match=r"from 0 to 1 .* got -0\.5 to"):
        count_probabilities(np.array([-0.5, 0, 1], np.float32), event)
    with pytest.raises(HyMUNetError, match="from 0 to 1"):
        count_probabilities(np.array([np.nan, 0, 1], np.float32), event)
    with pytest.raises(HyMUNetError, match="the valid area is empty"):
        count_probabilities(np.zeros(3, np.float32), event, event)
    with pytest.raises(HyMUNetError, match="must have one shape"):
        count_probabilities(np.zeros(4, np.float32), event)
    rounding = np.array([-1e-8, 1 + 1e-7], np.float32)
    assert count_probabilities(rounding, event[:2]).pixels.sum() == 2


# intervals


def test_intervals_resample_groups():
    cases = counted(*range(20))
    once = calibration_error(cases, [f"g{i}" for i in range(20)], samples=400)
    assert once.low < once.mean < once.high
    twice = calibration_error(cases * 2, [f"g{i % 20}" for i in range(40)], samples=400)
    for name in ("mean", "low", "high"):
        assert getattr(twice, name) == pytest.approx(getattr(once, name))  # copies add nothing
    alone = calibration_error(cases * 2, None, samples=400)
    assert alone.high - alone.low < 0.85 * (once.high - once.low)
    one = calibration_error(cases, ["patient"] * 20)
    assert np.isnan(one.low)
    assert one.mean == pytest.approx(once.mean)
    with pytest.raises(HyMUNetError, match="a group for each of 20 cases, got 3"):
        calibration_error(cases, ["a"] * 3)


def test_the_interval_of_a_mean_is_that_of_the_plain_bootstrap():
    from hymunet.metrics.statistics import bootstrap_mean

    values = np.random.default_rng(2).random(60)
    groups = [f"g{i // 2}" for i in range(60)]
    found = pooled_mean(values * 7, [7.0] * 60, groups)
    expected = bootstrap_mean(values, groups)
    assert found.mean == pytest.approx(expected.mean)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


# thresholds


def test_the_overlap_at_every_threshold_is_that_of_the_mask():
    """Cut as a predictor cuts, with probabilities that lie on thresholds."""
    pairs = [case(8), case(9)]
    on_edges = np.float32([k / 100 for k in range(101)] * 3).reshape(3, 101)
    pairs.append((on_edges, np.random.default_rng(3).random((3, 101)) < 0.4))
    pairs.append((np.full((4, 4), 0.3, np.float32), np.zeros((4, 4), bool)))  # nothing there
    found = overlap_by_threshold([count_probabilities(*pair) for pair in pairs])
    for row, (p, event) in enumerate(pairs):
        for column, threshold in enumerate(THRESHOLDS):
            counts = count(p >= threshold, event)
            assert found[0][row, column] == pytest.approx(dice(counts), abs=1e-12)
            assert found[1][row, column] == pytest.approx(iou(counts), abs=1e-12)
    assert found[0][3].tolist() == [0.0] * 26 + [1.0] * 65  # at 0.30 it is still all there


def test_the_best_threshold_is_the_highest_mean_and_ties_go_to_a_half():
    scores = np.zeros((2, len(THRESHOLDS)))
    assert THRESHOLDS[best_threshold(scores)] == 0.5
    scores[:, [10, 40, 80]] = 0.7  # 0.15, 0.45, 0.85
    assert THRESHOLDS[best_threshold(scores)] == 0.45
    scores[0, 10] = 0.8
    assert THRESHOLDS[best_threshold(scores)] == 0.15


def test_cross_fitting_lets_no_case_choose_for_itself():
    scores = np.zeros((6, len(THRESHOLDS)))
    scores[np.arange(6), [5, 15, 25, 35, 55, 65]] = 1  # each has its own favourite
    assert scores[:, best_threshold(scores)].mean() == pytest.approx(1 / 6)
    np.testing.assert_array_equal(cross_fitted(scores, folds=6), np.zeros(6))
    same = np.tile(np.linspace(0, 1, len(THRESHOLDS)), (6, 1))
    np.testing.assert_array_equal(cross_fitted(same), np.ones(6))
    # two groups that disagree: each is cut where the other wants it
    scores = np.zeros((4, len(THRESHOLDS)))
    scores[:2, 20], scores[2:, 70] = 1, 1
    scores[:2, 70], scores[2:, 20] = 0.25, 0.5
    np.testing.assert_array_equal(
        cross_fitted(scores, ["a", "a", "b", "b"]), [0.25] * 2 + [0.5] * 2
    )
    with pytest.raises(HyMUNetError, match="two groups of cases or more, got one"):
        cross_fitted(scores, ["a"] * 4)
