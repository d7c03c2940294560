"""One case's table of metrics: its keys, agreement with the parts, empties, units and strata."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hymunet.errors import HyMUNetError
from hymunet.metrics import (
    METRICS,
    case_metrics,
    count,
    emptiness,
    size_stratum,
    surface_distances,
)

KEYS = [
    "dice",
    "iou",
    "precision",
    "recall",
    "specificity",
    "accuracy",
    "thresholded_iou",
    "hd",
    "hd95",
    "assd",
    "nsd",
    "boundary_iou",
    "pred_area",
    "target_area",
]
EXTRA = ["tp", "fp", "fn", "tn", "target_fraction"]


def blob(seed, shape=(48, 64)):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4)
    return noise > 0.02


def disc(radius, size=256):
    rows, columns = np.mgrid[:size, :size]
    return np.hypot(rows - size / 2, columns - size / 2) < radius


def test_keys_stand_in_their_fixed_order():
    assert list(METRICS) == KEYS
    assert list(case_metrics(blob(0), blob(1))) == KEYS + EXTRA
    assert all(metric.name == name for name, metric in METRICS.items())


def test_values_come_from_the_parts():
    pred, target = blob(0), blob(1)
    spacing = (0.5, 3.0)
    row = case_metrics(pred, target, spacing_mm=spacing, tolerance=1.3)
    counts, distances = count(pred, target), surface_distances(pred, target, spacing_mm=spacing)
    assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (
        counts.tp,
        counts.fp,
        counts.fn,
        counts.tn,
    )
    assert all(isinstance(row[key], int) for key in ("tp", "fp", "fn", "tn"))
    assert row["hd"] == distances.hausdorff() > row["hd95"] == distances.percentile(95)
    assert row["assd"] == distances.average()
    assert row["nsd"] == distances.within(1.3) != distances.within(2)
    assert row["pred_area"] == pred.sum() * 1.5
    assert row["target_fraction"] == target.mean()
    assert 0 < row["iou"] < 0.65
    assert row["thresholded_iou"] == 0


def test_areas_are_in_the_unit_of_the_spacing():
    volume = np.zeros((4, 5, 6), dtype=bool)
    volume[1:3, 1:3, 1:3] = True
    assert case_metrics(volume, volume)["target_area"] == 8
    assert case_metrics(volume, volume, spacing_mm=(3, 0.5, 0.5))["target_area"] == 6.0


def test_discs_of_known_geometry():
    row = case_metrics(disc(60), disc(63))
    assert row["dice"] == pytest.approx(2 * 60**2 / (60**2 + 63**2), abs=2e-3)
    assert row["hd"] == pytest.approx(3, abs=1)
    assert row["assd"] == pytest.approx(3, abs=0.3)
    assert row["recall"] == pytest.approx((60 / 63) ** 2, abs=2e-3)
    assert row["precision"] == row["specificity"] == 1


@pytest.mark.parametrize("shape", [(1, 1), (6, 8), (1, 1, 1), (2, 3, 6)], ids=str)
@pytest.mark.parametrize("spacing", [None, 0.5], ids=str)
def test_empty_masks_never_leave_a_mean(shape, spacing):
    spacing_mm = None if spacing is None else (spacing,) * len(shape)
    diagonal = math.hypot(*shape) * (spacing or 1)
    nothing, whole = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    ratios = ["dice", "iou", "precision", "recall", "thresholded_iou", "nsd", "boundary_iou"]
    lengths = ["hd", "hd95", "assd"]

    both = case_metrics(nothing, nothing, spacing_mm=spacing_mm)
    assert [both[key] for key in ratios + lengths] == [1] * len(ratios) + [0] * len(lengths)
    assert (both["specificity"], both["accuracy"], emptiness(both)) == (1, 1, "both")

    for masks, which in (((nothing, whole), "prediction"), ((whole, nothing), "reference")):
        one = case_metrics(*masks, spacing_mm=spacing_mm)
        assert [one[key] for key in ratios] == [0] * len(ratios)
        assert [one[key] for key in lengths] == pytest.approx([diagonal] * 3)
        assert emptiness(one) == which
    same = case_metrics(whole, whole, spacing_mm=spacing_mm)
    assert all(value == 1 for key, value in same.items() if key in ratios)
    assert (same["specificity"], same["hd"], emptiness(same)) == (1, 0, "neither")


def test_a_mask_that_is_empty_where_it_counts_is_empty():
    target = np.zeros((8, 8), dtype=bool)
    target[:, :4] = True
    valid = np.zeros((8, 8), dtype=bool)
    valid[:, 5:] = True
    row = case_metrics(np.zeros_like(target), target, valid)
    assert (row["dice"], row["hd"], emptiness(row)) == (1, 0, "both")
    assert row["tn"] == valid.sum()


def test_nothing_outside_the_valid_area_changes_a_number():
    pred, target, valid = blob(0), blob(1), disc(20, 64)[8:56]
    row = case_metrics(pred, target, valid)
    assert row == case_metrics(pred ^ ~valid, target | ~valid, valid)
    assert row != case_metrics(pred, target)
    assert row["target_fraction"] == (target & valid).sum() / valid.sum()
    everywhere = np.ones_like(valid)
    assert case_metrics(pred, target, everywhere) == case_metrics(pred, target)


def test_non_contiguous_and_integer_masks_are_the_same_masks():
    pred, target = blob(0), blob(1)
    row = case_metrics(pred, target)
    assert row == case_metrics(
        np.asfortranarray(pred.astype(np.uint8)), np.repeat(target, 2, axis=1)[:, ::2]
    )
    flipped = case_metrics(pred[::-1, ::-1], target[::-1, ::-1])
    assert flipped == pytest.approx(row, rel=1e-12)


def test_inputs_are_left_as_they_were():
    pred, target, valid = blob(0), blob(1), blob(2)
    copies = pred.copy(), target.copy(), valid.copy()
    case_metrics(pred, target, valid)
    for mask, copy in zip((pred, target, valid), copies, strict=True):
        np.testing.assert_array_equal(mask, copy)


@pytest.mark.parametrize(
    ("name", "spacing_mm", "dims", "text"),
    [
        ("dice", (1.0, 1.0), 2, ""),
        ("hd", None, 2, "px"),
        ("hd", (1.0, 1.0), 2, "mm"),
        ("assd", (1.0, 1.0, 1.0), 3, "mm"),
        ("pred_area", None, 2, "px"),
        ("pred_area", None, 3, "voxels"),
        ("pred_area", (1.0, 1.0), 2, "mm²"),
        ("target_area", (1.0, 1.0, 1.0), 3, "mm³"),
    ],
)
def test_units_follow_the_spacing(name, spacing_mm, dims, text):
    assert METRICS[name].unit_text(spacing_mm, dims) == text


def test_better_points_the_right_way():
    target, good, bad = disc(60), disc(58), disc(40)
    better, worse = case_metrics(good, target), case_metrics(bad, target)
    for name, metric in METRICS.items():
        if metric.higher_is_better is True:
            assert better[name] >= worse[name], name
        elif metric.higher_is_better is False:
            assert better[name] < worse[name], name


@pytest.mark.parametrize(
    ("fraction", "stratum"),
    [
        (0.0, "small"),
        (0.0499, "small"),
        (0.05, "medium"),
        (0.2, "medium"),
        (0.2001, "large"),
        (1.0, "large"),
    ],
)
def test_size_strata(fraction, stratum):
    assert size_stratum(fraction) == stratum


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 37, math.nan])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(HyMUNetError, match=r"area fraction must lie in \[0, 1\]"):
        size_stratum(fraction)


def test_bad_input_is_refused():
    mask = blob(0)
    with pytest.raises(HyMUNetError, match="hold 0 and 1 only, found 255"):
        case_metrics(mask * np.uint8(255), mask)
    with pytest.raises(HyMUNetError, match="must be 2 positive numbers"):
        case_metrics(mask, mask, spacing_mm=(1.0, -1.0))
    with pytest.raises(HyMUNetError, match="tolerance of the surface Dice"):
        case_metrics(mask, mask, tolerance=math.nan)
