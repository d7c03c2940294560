"""Overlap metrics against scikit-learn and SimpleITK, their laws, and the policy on empty masks."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from hymunet.errors import HyMUNetError
from hymunet.metrics.overlap import (
    Counts,
    count,
    dice,
    iou,
    overlap_metrics,
    precision,
    recall,
    specificity,
    thresholded_iou,
)

SHAPES = [(1, 1), (1, 7), (5, 9), (3, 4, 5)]

# (prediction, reference), each empty or not -> dice, iou, precision, recall, specificity
EMPTIES = {
    "both": ((False, False), (1, 1, 1, 1, 1)),
    "prediction": ((False, True), (0, 0, 0, 0, 1)),
    "reference": ((True, False), (0, 0, 0, 0, 0)),
}


@st.composite
def mask_pairs(draw):
    """Two masks and a valid area with at least one pixel, of one of SHAPES."""
    shape = draw(st.sampled_from(SHAPES))
    size = int(np.prod(shape))
    bits = [draw(st.lists(st.booleans(), min_size=size, max_size=size)) for _ in range(3)]
    pred, target, valid = (np.array(b, dtype=bool).reshape(shape) for b in bits)
    if not valid.any():
        valid.flat[draw(st.integers(0, size - 1))] = True
    return pred, target, valid


@settings(max_examples=50)  # scikit-learn checks its input at length
@given(mask_pairs())
def test_ratios_match_scikit_learn(masks):
    pred, target, valid = masks
    ours = overlap_metrics(count(pred, target, valid))
    truth, guess = target[valid], pred[valid]
    # scikit-learn's zero_division is 1 or 0 whatever the other mask holds; ours asks for it
    kept = {"zero_division": 1.0 if not truth.any() and not guess.any() else 0.0}
    expected = {
        "dice": sklearn_metrics.f1_score(truth, guess, **kept),
        "iou": sklearn_metrics.jaccard_score(truth, guess, **kept),
        "precision": sklearn_metrics.precision_score(truth, guess, **kept),
        "recall": sklearn_metrics.recall_score(truth, guess, **kept),
        "specificity": sklearn_metrics.recall_score(truth, guess, pos_label=0, zero_division=1.0),
        "accuracy": sklearn_metrics.accuracy_score(truth, guess),
    }
    assert ours == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(23, 31), (7, 11, 13)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_ratios_match_simpleitk(shape, seed):
    rng = np.random.default_rng(seed)
    pred, target = rng.random(shape) < 0.4, rng.random(shape) < 0.6
    ours = overlap_metrics(count(pred, target))
    measure = SimpleITK.LabelOverlapMeasuresImageFilter()
    measure.Execute(
        SimpleITK.GetImageFromArray(pred.astype(np.uint8)),  # its source
        SimpleITK.GetImageFromArray(target.astype(np.uint8)),
    )
    assert ours["dice"] == pytest.approx(measure.GetDiceCoefficient(1), rel=1e-6)
    assert ours["iou"] == pytest.approx(measure.GetJaccardCoefficient(1), rel=1e-6)
    assert ours["recall"] == pytest.approx(1 - measure.GetFalseNegativeError(1), rel=1e-6)
    assert ours["precision"] == pytest.approx(1 - measure.GetFalseDiscoveryRate(1), rel=1e-6)


@given(mask_pairs())
def test_the_four_counts_part_the_valid_pixels(masks):
    pred, target, valid = masks
    counts = count(pred, target, valid)
    assert counts.total == valid.sum()
    assert counts.pred == (pred & valid).sum()
    assert counts.target == (target & valid).sum()
    assert counts.tn == (~pred & ~target & valid).sum()


@given(mask_pairs())
def test_laws(masks):
    pred, target, valid = masks
    forth, back = count(pred, target, valid), count(target, pred, valid)
    assert dice(forth) == dice(back)
    assert iou(forth) == iou(back)
    assert precision(forth) == recall(back)
    assert dice(forth) == pytest.approx(2 * iou(forth) / (1 + iou(forth)), rel=1e-12)
    assert all(value == 1 for value in overlap_metrics(count(pred, pred, valid)).values())
    # the background's recall is the specificity, except without background, where both are 1
    if not (target | ~valid).all():
        assert specificity(forth) == recall(count(~pred, ~target, valid))


@given(mask_pairs())
def test_what_lies_outside_the_valid_area_does_not_count(masks):
    pred, target, valid = masks
    assert count(pred | ~valid, target & valid, valid) == count(pred & valid, target, valid)


@pytest.mark.parametrize(("masks", "expected"), EMPTIES.values(), ids=EMPTIES.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_empty_masks(masks, expected, shape):
    ratios = overlap_metrics(count(*(np.full(shape, filled) for filled in masks)))
    names = ("dice", "iou", "precision", "recall", "specificity")
    assert tuple(ratios[name] for name in names) == expected


def test_specificity_without_background_is_one():
    assert specificity(Counts(tp=5, fp=0, fn=4, tn=0)) == 1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(tp=65, fp=35, fn=0, tn=0), 0.65),
        (Counts(tp=649, fp=351, fn=0, tn=0), 0.0),
        (Counts(tp=9, fp=1, fn=0, tn=0), 0.9),
        (Counts(tp=0, fp=0, fn=0, tn=4), 1.0),
    ],
)
def test_thresholded_iou_drops_to_zero_below_the_threshold(counts, expected):
    assert thresholded_iou(counts) == expected


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32], ids=str)
def test_any_dtype_of_zeros_and_ones(dtype):
    mask = np.array([[0, 1], [1, 1]], dtype=dtype)
    assert count(mask, mask.astype(bool)) == Counts(tp=3, fp=0, fn=0, tn=1)


GOOD = np.zeros((4, 5), dtype=bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, GOOD.T), r"same shape, got \(4, 5\) and \(5, 4\)"),
        ((GOOD[None, None], GOOD[None, None]), r"got shape \(1, 1, 4, 5\); drop batch"),
        ((GOOD[0], GOOD[0]), r"prediction must be 2-D .* got shape \(5,\)"),
        ((GOOD[:0], GOOD[:0]), r"at least one pixel, got shape \(0, 5\)"),
        ((GOOD * 255 + 255, GOOD), "prediction must hold 0 and 1 only, found 255"),
        ((GOOD, np.full((4, 5), np.nan)), "reference must hold 0 and 1 only, found nan"),
        ((GOOD, GOOD, GOOD[:2]), r"valid area must have the masks' shape \(4, 5\), got \(2, 5\)"),
        ((GOOD, GOOD, GOOD), "valid area has no pixel"),
    ],
)
def test_bad_masks_are_refused(arguments, message):
    with pytest.raises(HyMUNetError, match=message):
        count(*arguments)
