"""Surface metrics against MONAI, SimpleITK, SciPy and brute force; their laws and odd cases."""

import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter
from scipy.spatial.distance import cdist

from hymunet.errors import HyMUNetError
from hymunet.metrics.surface import boundary_iou, surface_distances, surface_mask

GRIDS = [
    ((40, 50), (1.0, 1.0)),
    ((33, 64), (0.7, 1.9)),
    ((14, 22, 18), (1.0, 1.0, 1.0)),
    ((9, 24, 20), (3.3, 0.9, 1.1)),
]


def blob(rng, shape, smoothness=3.0, share=0.3):
    """A random mask of smooth pieces that cover about `share` of the array; may touch its rim."""
    noise = gaussian_filter(rng.standard_normal(shape), smoothness)
    return noise > np.quantile(noise, 1 - share)


def blob_pair(seed, shape):
    rng = np.random.default_rng(seed)
    pred = blob(rng, shape)
    # the reference overlaps the prediction in part, as in real life
    return pred, np.roll(pred, 2, axis=-1) & ~blob(rng, shape, 2.0, 0.2)


def brute_force_surface(mask, valid=None):
    """Pixel by pixel from the definition."""
    valid = np.ones_like(mask) if valid is None else valid
    found = np.zeros_like(mask)
    for position in zip(*np.nonzero(mask & valid), strict=True):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                there = list(position)
                there[axis] += step
                outside = not 0 <= there[axis] < mask.shape[axis]
                if outside or (valid[tuple(there)] and not mask[tuple(there)]):
                    found[position] = True
    return found


def brute_force_distances(pred, target, spacing, valid=None):
    """Every surface point to every other, O(n^2)."""
    points = [np.argwhere(brute_force_surface(m, valid)) * spacing for m in (pred, target)]
    table = cdist(*points)
    return table.min(axis=1), table.min(axis=0)


def brute_force_band(mask, widths, valid=None):
    valid = np.ones_like(mask) if valid is None else valid
    # a margin as wide as the band makes the outside background
    rim = [(w, w) for w in widths]
    background = np.pad(valid & ~mask, rim, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(background, [2 * w + 1 for w in widths])
    return mask & valid & windows.any(axis=tuple(range(mask.ndim, 2 * mask.ndim)))


def for_monai(mask):
    return torch.from_numpy(mask)[None, None].float()  # (B, C, *spatial)


small_masks = st.sampled_from([(1, 1), (1, 6), (5, 7), (2, 3, 4)]).flatmap(
    lambda shape: st.tuples(
        *(
            st.lists(st.booleans(), min_size=(n := int(np.prod(shape))), max_size=n).map(
                lambda bits: np.array(bits, dtype=bool).reshape(shape)
            )
            for _ in range(3)
        )
    )
)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call
@pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_distances_match_monai(shape, spacing, seed):
    pred, target = blob_pair(seed, shape)
    ours = surface_distances(pred, target, spacing_mm=spacing)
    pair = {"y_pred": for_monai(pred), "y": for_monai(target)}
    theirs = {**pair, "include_background": True, "spacing": spacing}
    hausdorff = compute_hausdorff_distance(**theirs)
    hausdorff_95 = compute_hausdorff_distance(**theirs, percentile=95)
    average = compute_average_surface_distance(**theirs, symmetric=True)
    assert ours.hausdorff() == pytest.approx(hausdorff.item(), rel=1e-6)
    assert ours.percentile(95) == pytest.approx(hausdorff_95.item(), rel=1e-6)
    assert ours.average() == pytest.approx(average.item(), rel=1e-6)
    for tolerance in (0.0, 1.5, 4.05):  # never the exact length of a step: rounding would decide
        nsd = compute_surface_dice(**theirs, class_thresholds=[tolerance])
        assert ours.within(tolerance) == pytest.approx(nsd.item(), rel=1e-6)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_hausdorff_matches_simpleitk_on_the_surfaces(shape, spacing, seed):
    # SimpleITK measures between whole masks, where a point inside the other mask is at distance 0;
    # given the surfaces as masks it measures what we do
    pred, target = blob_pair(seed, shape)
    measure = SimpleITK.HausdorffDistanceImageFilter()
    images = []
    for mask in (pred, target):
        image = SimpleITK.GetImageFromArray(surface_mask(mask).astype(np.uint8))
        image.SetSpacing(spacing[::-1])  # SimpleITK orders axes (x, y, z)
        images.append(image)
    measure.Execute(*images)
    ours = surface_distances(pred, target, spacing_mm=spacing).hausdorff()
    assert ours == pytest.approx(measure.GetHausdorffDistance(), rel=1e-6)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=str)
def test_distances_match_a_distance_transform(shape, spacing):
    pred, target = blob_pair(7, shape)
    ours = surface_distances(pred, target, spacing_mm=spacing)
    on_pred, on_target = surface_mask(pred), surface_mask(target)
    to_target = distance_transform_edt(~on_target, sampling=spacing)[on_pred]
    to_pred = distance_transform_edt(~on_pred, sampling=spacing)[on_target]
    np.testing.assert_allclose(ours.pred_to_target, to_target, rtol=1e-12)
    np.testing.assert_allclose(ours.target_to_pred, to_pred, rtol=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=str)
def test_distances_in_a_valid_area_match_brute_force(shape, spacing):
    pred, target = blob_pair(11, shape)
    valid = blob(np.random.default_rng(12), shape, 4.0, 0.6)
    ours = surface_distances(pred, target, valid, spacing)
    to_target, to_pred = brute_force_distances(pred, target, spacing, valid)
    np.testing.assert_allclose(ours.pred_to_target, to_target, rtol=1e-12)
    np.testing.assert_allclose(ours.target_to_pred, to_pred, rtol=1e-12)
    assert ours.percentile(95) == pytest.approx(
        max(np.percentile(to_target, 95), np.percentile(to_pred, 95)), rel=1e-12
    )
    assert ours.average() == pytest.approx(np.concatenate([to_target, to_pred]).mean(), rel=1e-12)


@given(small_masks)
def test_surface_matches_its_definition_and_scipy(masks):
    mask, valid, _ = masks
    np.testing.assert_array_equal(surface_mask(mask), mask & ~binary_erosion(mask))
    assume(valid.any())
    np.testing.assert_array_equal(surface_mask(mask, valid), brute_force_surface(mask, valid))


def test_hd95_takes_the_larger_direction_and_interpolates():
    # one row: the prediction's points lie 0, 0 and 10 px away, the reference's 0, 0
    pred, target = np.zeros((1, 20), dtype=bool), np.zeros((1, 20), dtype=bool)
    target[0, [0, 5]] = True
    pred[0, [0, 5, 15]] = True
    distances = surface_distances(pred, target)
    assert distances.hausdorff() == 10
    assert distances.percentile(95) == pytest.approx(9.0)  # at position 1.9 of 0, 0, 10
    assert distances.average() == pytest.approx(10 / 5)
    assert distances.within(2) == pytest.approx(4 / 5)


def test_tolerance_is_not_missed_by_rounding():
    pred, target = np.zeros((1, 9), dtype=bool), np.zeros((1, 9), dtype=bool)
    pred[0, 0] = target[0, 3] = True
    assert 3 * 0.1 > 0.3
    assert surface_distances(pred, target, spacing_mm=(1.0, 0.1)).within(0.3) == 1


@pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=str)
def test_symmetry_and_identity(shape, spacing):
    pred, target = blob_pair(1, shape)
    forth = surface_distances(pred, target, spacing_mm=spacing)
    back = surface_distances(target, pred, spacing_mm=spacing)
    same = surface_distances(pred, pred, spacing_mm=spacing)
    for measure in ("hausdorff", "average", "within"):
        assert getattr(forth, measure)() == pytest.approx(getattr(back, measure)(), rel=1e-12)
    assert forth.percentile(95) == back.percentile(95)
    assert forth.hausdorff() >= forth.percentile(95) > 0
    assert same.hausdorff() == same.percentile(95) == same.average() == 0
    assert same.within(0) == 1
    assert boundary_iou(pred, target) == boundary_iou(target, pred)
    assert boundary_iou(pred, pred) == 1


def test_translation_changes_nothing():
    canvas = np.zeros((2, 60, 70), dtype=bool)
    canvas[:, 5:35, 5:45] = blob_pair(2, (30, 40))
    moved = np.roll(canvas, (17, 21), axis=(1, 2))
    here, there = surface_distances(*canvas), surface_distances(*moved)
    np.testing.assert_allclose(here.pred_to_target, there.pred_to_target)
    np.testing.assert_allclose(here.target_to_pred, there.target_to_pred)
    assert boundary_iou(*canvas) == boundary_iou(*moved)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=str)
def test_lengths_scale_with_the_spacing(shape, spacing):
    pred, target = blob_pair(3, shape)
    one = surface_distances(pred, target, spacing_mm=spacing)
    four = surface_distances(pred, target, spacing_mm=[4 * step for step in spacing])
    assert four.hausdorff() == pytest.approx(4 * one.hausdorff())
    assert four.percentile(95) == pytest.approx(4 * one.percentile(95))
    assert four.average() == pytest.approx(4 * one.average())
    assert four.diagonal == pytest.approx(4 * one.diagonal)
    assert four.within(8) == one.within(2)


@given(small_masks)
def test_hausdorff_obeys_the_triangle_inequality(masks):
    a, b, c = masks
    assume(a.any() and b.any() and c.any())
    through_b = surface_distances(a, b).hausdorff() + surface_distances(b, c).hausdorff()
    assert surface_distances(a, c).hausdorff() <= through_b + 1e-12


@pytest.mark.parametrize("spacing", [None, (2.0, 0.5)], ids=str)
def test_empty_masks(spacing):
    nothing, something = np.zeros((30, 40), dtype=bool), np.zeros((30, 40), dtype=bool)
    something[4, 5] = True
    diagonal = 50.0 if spacing is None else np.hypot(60, 20)
    both = surface_distances(nothing, nothing, spacing_mm=spacing)
    assert (both.hausdorff(), both.percentile(95), both.average(), both.within()) == (0, 0, 0, 1)
    assert boundary_iou(nothing, nothing, spacing_mm=spacing) == 1
    for pair in ((nothing, something), (something, nothing)):
        one = surface_distances(*pair, spacing_mm=spacing)
        lengths = (one.hausdorff(), one.percentile(95), one.average())
        assert lengths == pytest.approx((diagonal,) * 3)
        assert one.within(1e6) == 0  # a missed structure is never within a tolerance
        assert boundary_iou(*pair, spacing_mm=spacing) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 8), (1, 1, 1), (3, 4, 5)], ids=str)
def test_a_mask_of_the_whole_image_has_the_rim_as_its_surface(shape):
    whole = np.ones(shape, dtype=bool)
    rim = np.ones(shape, dtype=bool)
    if min(shape) > 2:
        rim[(slice(1, -1),) * len(shape)] = False
    np.testing.assert_array_equal(surface_mask(whole), rim)
    assert surface_distances(whole, whole).hausdorff() == 0
    assert boundary_iou(whole, whole) == 1


def test_single_pixels():
    pred, target = np.zeros((2, 12, 12), dtype=bool)
    pred[1, 2] = target[4, 6] = True
    distances = surface_distances(pred, target)
    assert distances.hausdorff() == distances.percentile(95) == distances.average() == 5
    assert (distances.within(4.99), distances.within(5)) == (0, 1)


@given(small_masks)
def test_what_lies_outside_the_valid_area_has_no_effect(masks):
    pred, target, valid = masks
    assume(valid.any())
    before = surface_distances(pred, target, valid)
    after = surface_distances(pred | ~valid, target & valid, valid)
    np.testing.assert_array_equal(before.pred_to_target, after.pred_to_target)
    np.testing.assert_array_equal(before.target_to_pred, after.target_to_pred)
    assert before.hausdorff() == after.hausdorff()
    assert boundary_iou(pred, target, valid) == boundary_iou(pred | ~valid, target & valid, valid)


@given(small_masks)
def test_a_valid_area_only_hides_surface(masks):
    mask, valid, _ = masks
    assume(valid.any())
    assert not (surface_mask(mask, valid) & ~surface_mask(mask)).any()
    everything = np.ones_like(mask)
    np.testing.assert_array_equal(surface_mask(mask, everything), surface_mask(mask))


def test_the_edge_of_the_valid_area_is_no_boundary():
    rows, columns = np.mgrid[:64, :64]
    valid = np.hypot(rows - 32, columns - 32) < 25  # a round field of view
    half = columns < 30
    # the two masks agree; only the straight edge between them and the background is surface
    on_surface = surface_mask(half, valid)
    assert set(columns[on_surface]) == {29}
    # predictions that differ by one column are one pixel apart, whatever the field's edge does
    distances = surface_distances(half, columns < 31, valid)
    assert distances.hausdorff() == pytest.approx(1, abs=0.5)
    # their bands, 2 px wide, run along that edge only and share one column of three
    bands = [brute_force_band(mask, (2, 2), valid) for mask in (half, columns < 31)]
    expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    assert boundary_iou(half, columns < 31, valid) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(1 / 3, abs=0.02)
    # masks that fill the valid area show no surface at all: identical, hence perfect
    filled = surface_distances(valid, np.ones_like(valid), valid)
    assert filled.is_missing
    assert (filled.hausdorff(), filled.within()) == (0, 1)
    assert boundary_iou(valid, np.ones_like(valid), valid) == 1
    # and against nothing they are as wrong as can be
    missed = surface_distances(np.zeros_like(valid), valid, valid)
    assert (missed.hausdorff(), missed.within()) == (pytest.approx(64 * 2**0.5), 0)
    assert boundary_iou(np.zeros_like(valid), valid, valid) == 0


def test_masks_without_surface_in_different_parts_of_the_valid_area_do_not_agree():
    valid = np.zeros((9, 20), dtype=bool)
    valid[2:7, 2:8] = valid[2:7, 11:18] = True
    left, right = valid.copy(), valid.copy()
    left[:, 10:] = right[:, :10] = False
    distances = surface_distances(left, right, valid)
    assert (distances.hausdorff(), distances.within()) == (distances.diagonal, 0)
    assert boundary_iou(left, right, valid) == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(100, 140), (30, 40, 35)], ids=str)
def test_boundary_iou_matches_repeated_erosion(shape, seed):
    # as published: d passes of a square erosion that treats the outside of the image as background
    pred, target = blob_pair(seed, shape)
    passes = max(1, round(0.05 * float(np.sqrt(np.square(shape).sum()))))
    square = np.ones((3,) * len(shape))
    pred_band = pred & ~binary_erosion(pred, square, iterations=passes)
    target_band = target & ~binary_erosion(target, square, iterations=passes)
    expected = (pred_band & target_band).sum() / (pred_band | target_band).sum()
    assert boundary_iou(pred, target, ratio=0.05) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0), (0.4, 1.0)], ids=str)
def test_boundary_iou_in_a_valid_area_matches_brute_force(spacing):
    shape = (60, 80)
    pred, target = blob_pair(5, shape)
    valid = blob(np.random.default_rng(6), shape, 5.0, 0.6)
    width = 0.04 * np.hypot(60 * spacing[0], 80 * spacing[1])
    widths = [max(1, round(width / step)) for step in spacing]
    bands = [brute_force_band(mask, widths, valid) for mask in (pred, target)]
    expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    ours = boundary_iou(pred, target, valid, spacing, ratio=0.04)
    assert ours == pytest.approx(expected, rel=1e-12)


def test_boundary_iou_rounds_the_band_as_published():
    # 45 x 60: the diagonal is 75, 2 % of it 1.5, which rounds to the even 2, at any equal spacing
    target = np.zeros((45, 60), dtype=bool)
    target[10:30, 10:30] = True
    pred = target.copy()
    pred[12:28, 12:28] = False  # exactly the band of width 2
    inner = target & ~pred
    assert boundary_iou(pred, target) == boundary_iou(pred, target, spacing_mm=(0.7, 0.7)) == 1
    assert boundary_iou(inner, target) == 0


def test_boundary_iou_sees_what_iou_hardly_does():
    rows, columns = np.mgrid[:256, :256]
    radius = np.hypot(rows - 128, columns - 128)
    pred, target = radius < 97, radius < 100
    assert (pred & target).sum() / (pred | target).sum() > 0.93
    assert boundary_iou(pred, target) < 0.5


MASK = np.ones((4, 5), dtype=bool)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, np.nan), (1.0, 1.0, 1.0)], ids=str)
def test_bad_spacings_are_refused(spacing):
    with pytest.raises(HyMUNetError, match="spacing_mm must be 2 positive numbers in the order"):
        surface_distances(MASK, MASK, spacing_mm=spacing)
    with pytest.raises(HyMUNetError, match="spacing_mm must be 2 positive numbers in the order"):
        boundary_iou(MASK, MASK, spacing_mm=spacing)


def test_bad_parameters_are_refused():
    with pytest.raises(HyMUNetError, match="length of 0 or more, got -1"):
        surface_distances(MASK, MASK).within(-1)
    with pytest.raises(HyMUNetError, match="between 0 and 100, got 101"):
        surface_distances(MASK, MASK).percentile(101)
    with pytest.raises(HyMUNetError, match=r"in \(0, 1\], got 0"):
        boundary_iou(MASK, MASK, ratio=0)
    with pytest.raises(HyMUNetError, match="same shape"):
        surface_distances(MASK, MASK[:2])
