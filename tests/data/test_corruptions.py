"""Corruptions: the same each time, faithful to their definitions, truth and picture together."""

import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hymunet.data import corruption_camera as camera
from hymunet.data import corruption_geometry as geometry
from hymunet.data import corruption_marks as marks
from hymunet.data.corruptions import CORRUPTIONS, Sample, corrupt
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError

RANDOM = {"motion", "noise", "dark hairs", "light hairs", "ruler", "pen", "bubbles", "rotation"}
by_corruption = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda one: one.key)


def sample(size=(44, 60), channels=3, valid=False) -> Sample:
    phantom = draw_lesion(4, size)
    area = None
    if valid:
        area = np.zeros(size, bool)
        area[3:-3, 5:-2] = True
    return Sample(phantom.image[:channels], phantom.mask, area)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


# the table


def test_there_are_at_most_24_each_with_its_own_name_and_kinds_stand_together():
    keys = [one.key for one in CORRUPTIONS]
    assert 20 <= len(set(keys)) == len(keys) <= 24
    kinds = [one.kind for one in CORRUPTIONS]
    changes = sum(one != other for one, other in pairwise(kinds))
    assert changes == len(set(kinds)) - 1


def test_the_documentation_lists_them_all():
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text("utf-8")
    section = text.partition("## Robustness")[2].partition("\n## ")[0]
    named = re.findall("`([^`]+)`", section.partition("|---|")[2])
    assert named[: len(CORRUPTIONS)] == [one.key for one in CORRUPTIONS]


@by_corruption
def test_equal_arguments_give_equal_bytes_and_the_input_stays(corruption):
    given = sample((88, 120), valid=True)
    before = [array.copy() for array in (given.pixels, given.labels, given.valid)]
    first = corrupt(given, corruption, "case 1")
    np.random.default_rng(0).random(3)
    for other in CORRUPTIONS[:3]:
        corrupt(given, other, "case 1")
    again = corrupt(given, corruption, "case 1")
    for name in ("pixels", "labels", "valid"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for array, old in zip((given.pixels, given.labels, given.valid), before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert not np.array_equal(first.pixels, given.pixels)


@by_corruption
def test_what_is_drawn_depends_on_the_case_and_what_is_not_does_not(corruption):
    given = sample()
    pictures = {corrupt(given, corruption, f"case {i}").pixels.tobytes() for i in range(12)}
    if corruption.name == "quarter turn":
        assert len(pictures) == 2
    elif corruption.name == "rotation":
        assert len(pictures) == 2  # to the left or to the right
    else:
        assert (len(pictures) == 12) == (corruption.name in RANDOM)
        assert len(pictures) in (1, 12)


@by_corruption
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_classes_are_kept(corruption, channels):
    if corruption.needs_colour and channels == 1:
        with pytest.raises(HyMUNetError, match=r"needs 3 channels .* the picture has 1"):
            corrupt(sample(channels=1), corruption, "x")
        return
    given = sample(channels=channels, valid=True)
    found = corrupt(given, corruption, "x")
    size = given.labels.shape
    if corruption.name == "quarter turn":
        size = size[::-1]
    assert found.pixels.shape == (channels, *size)
    assert found.pixels.dtype == np.uint8
    valid = np.ones(size, bool) if found.valid is None else found.valid
    assert found.labels.shape == valid.shape == size
    assert found.labels.dtype == given.labels.dtype
    assert valid.dtype == bool
    assert set(np.unique(found.labels)) <= {0, 1}
    assert found.pixels.flags.c_contiguous
    if corruption.kind != "geometry":
        np.testing.assert_array_equal(found.labels, given.labels)
        np.testing.assert_array_equal(found.valid, given.valid)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 3)], ids=str)
def test_the_smallest_pictures_pass(size):
    given = Sample(np.full((3, *size), 90, np.uint8), np.ones(size, np.uint8))
    for corruption in CORRUPTIONS:
        found = corrupt(given, corruption, "x")
        assert sorted(found.labels.shape) == sorted(size)
        assert (found.labels == 1).all()


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((3, 8, 8), np.uint16), "3 channels of uint16; convert"),
        (np.zeros((2, 8, 8), np.uint8), "2 channels of uint8"),
        (np.zeros((1, 8, 8, 8), np.uint8), "pictures .2-D., and this image has 3 dimensions"),
    ],
    ids=["16-bit", "two channels", "volume"],
)
def test_what_is_no_8_bit_picture_is_refused_by_name(pixels, words):
    with pytest.raises(HyMUNetError, match=f"case my case: .*{words}"):
        corrupt(Sample(pixels, np.zeros(pixels.shape[1:], np.uint8)), CORRUPTIONS[0], "my case")


# nothing done is nothing changed


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: camera.gaussian_blur(pixels, 0.0),
        lambda pixels: camera.gaussian_blur(pixels, 1e-3),
        lambda pixels: camera.defocus(pixels, 0.0),
        lambda pixels: camera.motion_blur(pixels, 0.0, 1.0),
        lambda pixels: camera.lower_resolution(pixels, 1),
        lambda pixels: camera.noise(pixels, 0.0, rng()),
        lambda pixels: camera.brightness(pixels, 1.0),
        lambda pixels: camera.contrast(pixels, 1.0),
        lambda pixels: camera.colour_cast(pixels, (1, 1, 1)),
        lambda pixels: marks.hairs(Sample(pixels, pixels[0]), 0, marks.DARK_HAIR, rng()).pixels,
        lambda pixels: marks.bubbles(Sample(pixels, pixels[0]), 0, rng()).pixels,
    ],
)
def test_strength_zero_changes_nothing(change):
    given = sample().pixels
    np.testing.assert_array_equal(change(given), given)


@pytest.mark.parametrize(
    "change",
    [
        lambda given: geometry.rotated(given, 0.0),
        lambda given: geometry.rotated(given, 360.0),
        lambda given: geometry.zoomed(given, 1.0),
        lambda given: geometry.quarter_turned(given, 4),
        lambda given: geometry.quarter_turned(geometry.quarter_turned(given, 1), 3),
    ],
)
@pytest.mark.parametrize("valid", [False, True])
def test_no_movement_changes_nothing(change, valid):
    given = sample(valid=valid)
    found = change(given)
    np.testing.assert_array_equal(found.pixels, given.pixels)
    np.testing.assert_array_equal(found.labels, given.labels)
    if valid:
        np.testing.assert_array_equal(found.valid, given.valid)
    else:
        assert found.valid is None


# the camera


def test_gaussian_blur_is_scipys():
    pixels = sample((128, 128)).pixels
    pixels[:, 40:60, :70] = 255  # edges as hard as can be
    expected = np.stack(
        [ndimage.gaussian_filter(p.astype(float), 2.5, mode="reflect", truncate=8) for p in pixels]
    )
    found = camera.gaussian_blur(pixels, 5.0)  # 128 of 256 pixels: half of it
    assert np.abs(found - expected).max() <= 0.55


def test_blur_is_as_wide_in_a_larger_picture():
    small = np.zeros((1, 64, 64), np.uint8)
    small[0, 20:44, 30:] = 255
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    for blur in (
        lambda pixels: camera.gaussian_blur(pixels, 12.0),
        lambda pixels: camera.defocus(pixels, 16.0),
        lambda pixels: camera.motion_blur(pixels, 40.0, 0.7),
    ):
        reduced = blur(large).reshape(1, 64, 4, 64, 4).mean(axis=(2, 4))
        assert np.abs(reduced - blur(small)).max() < 16
        assert np.abs(reduced - small).max() > 60


def test_a_defocused_point_is_a_disc_and_light_is_kept():
    point = np.zeros((1, 256, 256), np.uint8)
    point[0, 128, 100] = 255
    spread = camera.defocus(point, 3.0)[0].astype(int)
    rows, columns = np.nonzero(spread)
    assert np.hypot(rows - 128, columns - 100).max() < 4
    assert spread[128, 100] == spread[128, 102] == spread[126, 100] == round(255 / 28.3)
    flat = np.full((3, 40, 50), 77, np.uint8)
    np.testing.assert_array_equal(camera.defocus(flat, 9.0), flat)


def test_motion_blurs_along_its_direction_only():
    rows = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (1, 64, 64))
    np.testing.assert_array_equal(camera.motion_blur(rows, 40.0, 0.0), rows)
    steps = (rows // 64 % 2) * np.uint8(255)
    np.testing.assert_array_equal(camera.motion_blur(steps, 40.0, 0.0), steps)
    assert len(np.unique(camera.motion_blur(steps, 40.0, np.pi / 2))) > 5
    # seven pixels long with half weights at the ends of neither side: an edge becomes a ramp
    edge = np.zeros((1, 256, 256), np.uint8)
    edge[..., 128:] = 210
    ramp = camera.motion_blur(edge, 6.0, 0.0)[0, 100, 120:136].astype(int)
    np.testing.assert_array_equal(ramp, np.clip(30 * np.arange(-4, 12), 0, 210))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels):
    pixels = sample(channels=channels).pixels
    picture = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=20)
    decoded = np.asarray(Image.open(buffer)).reshape(44, 60, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(camera.jpeg(pixels, 20), decoded)


def test_lower_resolution_forgets_what_is_smaller_than_its_pixels():
    board = np.indices((32, 48)).sum(axis=0, dtype=np.uint8)[None] % 2 * np.uint8(200)
    assert (camera.lower_resolution(board, 2) == 100).all()
    blocks = sample((16, 24)).pixels.repeat(8, axis=1).repeat(8, axis=2)
    middle = camera.lower_resolution(blocks, 2)[:, 4::8, 4::8].astype(int)
    assert np.abs(middle - blocks[:, 4::8, 4::8]).max() <= 1


def test_light_is_arithmetic():
    pixels = np.array([[[0, 10, 100, 200]]], np.uint8)
    np.testing.assert_array_equal(camera.brightness(pixels, 1.3), [[[0, 13, 130, 255]]])
    np.testing.assert_array_equal(camera.brightness(pixels, 0.6), [[[0, 6, 60, 120]]])
    np.testing.assert_array_equal(camera.contrast(pixels, 0.0), np.full((1, 1, 4), 78))
    np.testing.assert_array_equal(camera.contrast(pixels, 2.0), [[[0, 0, 122, 255]]])
    rgb = np.full((3, 1, 1), 100, np.uint8)
    np.testing.assert_array_equal(camera.colour_cast(rgb, (1.1, 1, 0.8)).ravel(), [110, 100, 80])


def test_noise_has_its_deviation_and_no_pattern():
    flat = np.full((3, 120, 120), 128, np.uint8)
    found = camera.noise(flat, 10.0, rng()).astype(float) - 128
    assert found.std() == pytest.approx(10, rel=0.02)
    assert abs(found.mean()) < 0.2
    assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(found[0, 1:].ravel(), found[0, :-1].ravel())[0, 1]) < 0.03


# geometry


@pytest.mark.parametrize("move", [
    lambda given: geometry.rotated(given, 30.0),
    lambda given: geometry.rotated(given, -47.0),
    lambda given: geometry.zoomed(given, 0.6),
    lambda given: geometry.zoomed(given, 1.5),
    lambda given: geometry.quarter_turned(given, 1),
], ids=["30", "-47", "out", "in", "quarter"])  # fmt: skip
def test_picture_truth_and_valid_area_move_alike(move):
    """A picture that shows its own mask and valid area still does so after the move."""
    mask = draw_lesion(2, (60, 84)).mask
    valid = np.zeros(mask.shape, bool)
    valid[10:-8, 12:-20] = True
    drawn = np.stack([mask * 255, valid * 255]).astype(np.uint8)
    moved = move(Sample(drawn, mask, valid))
    assert moved.labels.any()
    np.testing.assert_array_equal(moved.pixels[0] >= 128, moved.labels == 1)
    inside = move(Sample(drawn, mask)).valid  # what was in the frame
    shown = moved.pixels[1] >= 128
    np.testing.assert_array_equal(moved.valid, shown if inside is None else shown & inside)


def test_a_quarter_turn_by_interpolation_is_one_of_pixels():
    given = sample((48, 48))
    turned, exact = geometry.rotated(given, 90.0), geometry.quarter_turned(given)
    np.testing.assert_array_equal(turned.pixels, exact.pixels)
    np.testing.assert_array_equal(turned.labels, exact.labels)
    np.testing.assert_array_equal(exact.labels, np.rot90(given.labels))  # anticlockwise


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (lambda s: geometry.rotated(s, 30), lambda s: geometry.rotated(s, -30)),
        (lambda s: geometry.zoomed(s, 0.6), lambda s: geometry.zoomed(s, 1 / 0.6)),
    ],
    ids=["rotation", "zoom"],
)
def test_there_and_back_is_where_it_was(there, back):
    given = sample((96, 120))
    found = back(there(given))
    middle = (slice(24, 72), slice(30, 90))
    assert dice(found.labels[middle] == 1, given.labels[middle] == 1) > 0.97
    difference = found.pixels[(slice(None), *middle)].astype(int)
    difference -= given.pixels[(slice(None), *middle)]
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_zoom_scales_areas_and_keeps_the_middle(factor):
    y, x = np.mgrid[:120, :160]
    disc = (np.hypot(y - 59.5, x - 79.5) < 24).astype(np.uint8)
    found = geometry.zoomed(Sample(disc[None] * np.uint8(200), disc), factor)
    counted = np.ones(disc.shape, bool) if found.valid is None else found.valid
    there = (found.labels == 1) & counted
    assert there.sum() / disc.sum() == pytest.approx(factor**2, rel=0.02)
    assert ndimage.center_of_mass(there) == pytest.approx((59.5, 79.5), abs=0.1)


def test_what_came_from_outside_the_frame_does_not_count():
    given = sample((100, 100))
    out = geometry.zoomed(given, 0.6)
    np.testing.assert_array_equal(np.flatnonzero(out.valid.any(axis=1)), np.arange(20, 80))
    assert out.valid.sum() == 60 * 60
    turned = geometry.rotated(given, 45.0)
    assert not turned.valid[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert turned.valid[50, [0, 99]].all()
    assert turned.valid.mean() == pytest.approx(2 * (np.sqrt(2) - 1), abs=0.02)  # an octagon
    assert geometry.zoomed(given, 1.5).valid is None
    # but it is the picture's reflection, not black
    assert out.pixels[:, :20].mean() == pytest.approx(out.pixels[:, 20:40].mean(), rel=0.3)


def test_several_classes_stay_whole():
    labels = np.zeros((90, 90), np.uint8)
    labels[20:70, 20:70], labels[30:60, 35:60] = 2, 5
    found = geometry.rotated(Sample(np.zeros((1, 90, 90), np.uint8), labels), 20.0)
    assert set(np.unique(found.labels)) == {0, 2, 5}
    # a rim of class 2 wherever 5 ends: no mixture of 0 and 5 is taken for it, nor the reverse
    assert not (ndimage.binary_dilation(found.labels == 5) & (found.labels == 0)).any()
    assert (found.labels == 5).sum() == pytest.approx(30 * 25, rel=0.03)


# marks


def changed(found: Sample, given: Sample) -> np.ndarray:
    return (found.pixels != given.pixels).any(axis=0)


def test_hairs_are_thin_many_and_of_their_colour():
    skin = Sample(np.full((3, 256, 256), 150, np.uint8), np.zeros((256, 256), np.uint8))
    dark = marks.hairs(skin, 40, marks.DARK_HAIR, rng())
    light = marks.hairs(skin, 40, marks.LIGHT_HAIR, rng())
    assert (dark.pixels <= 150).all()
    assert (light.pixels >= 150).all()
    cover = changed(dark, skin)
    assert 0.05 < cover.mean() < 0.25
    assert ndimage.distance_transform_edt(cover).max() < 8  # lines and their crossings, no blots
    assert len(np.unique(dark.pixels[0])) > 30  # soft edges
    few = changed(marks.hairs(skin, 8, marks.DARK_HAIR, rng()), skin)
    assert 0.1 < few.mean() / cover.mean() < 0.5


@pytest.mark.parametrize("draw", [
    lambda s: marks.hairs(s, 30, marks.DARK_HAIR, rng()),
    lambda s: marks.ruler(s, rng()),
    lambda s: marks.pen(s, rng()),
    lambda s: marks.bubbles(s, 3, rng()),
], ids=["hairs", "ruler", "pen", "bubbles"])  # fmt: skip
def test_the_same_draw_covers_the_same_share_at_any_size(draw):
    shares = []
    for side in (128, 384):
        y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
        given = Sample(
            np.full((3, side, side), 150, np.uint8), (np.hypot(y, x) < 0.2).astype(np.uint8)
        )
        found = draw(given)
        shares.append(np.abs(found.pixels.astype(int) - given.pixels).mean())
    assert shares[0] == pytest.approx(shares[1], rel=0.12)
    assert shares[0] > 0.3


def test_a_ruler_lies_along_one_border():
    skin = Sample(np.full((3, 120, 200), 180, np.uint8), np.zeros((120, 200), np.uint8))
    sides = set()
    for seed in range(12):
        drawn = changed(marks.ruler(skin, np.random.default_rng(seed)), skin)
        near = 0.13 * np.sqrt(120 * 200)
        rows, columns = np.nonzero(drawn)
        distances = {
            "top": rows.max(), "bottom": 119 - rows.min(),
            "left": columns.max(), "right": 199 - columns.min(),
        }  # fmt: skip
        side = min(distances, key=distances.get)
        assert distances[side] < near
        sides.add(side)
        along = drawn.any(axis=0) if side in ("top", "bottom") else drawn.any(axis=1)
        assert along.mean() > 0.95
    assert len(sides) == 4


def test_the_pen_surrounds_the_structure_and_never_covers_it():
    y, x = np.mgrid[:80, :80]
    most = ((np.hypot(y - 39.5, x - 39.5) < 38) | (y < 30)).astype(np.uint8)  # no room around it
    for seed in range(8):
        phantom = draw_lesion(seed, (80, 80))
        for mask in (phantom.mask, most):
            given = Sample(phantom.image, mask)
            drawn = changed(marks.pen(given, np.random.default_rng(seed)), given)
            assert drawn.any() or mask is most
            assert not (drawn & (mask == 1)).any()
    empty = Sample(phantom.image, np.zeros((80, 80), np.uint8))
    assert changed(marks.pen(empty, rng()), empty).any()


def test_grey_pictures_get_grey_marks():
    grey = sample((64, 64), channels=1)
    colour = Sample(np.repeat(grey.pixels, 3, axis=0), grey.labels)
    drawn = marks.pen(colour, rng()).pixels.astype(float)
    luma = np.tensordot([0.299, 0.587, 0.114], drawn, axes=1)
    assert np.abs(marks.pen(grey, rng()).pixels[0] - luma).max() <= 1.01
