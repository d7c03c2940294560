"""Overlays: the picture where nothing was found, a tint inside, an outline at the border."""

import numpy as np
import pytest
from scipy import ndimage

from hymunet.inference.overlay import COLOURS, draw_overlay


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (3, 30, 40), dtype=np.uint8)


def square():
    mask = np.zeros((30, 40), np.uint8)
    mask[8:20, 10:25] = 1
    return mask


def shown(pixels):
    return np.moveaxis(pixels, 0, -1)


def test_outline_tint_and_picture(rgb):
    mask, before = square(), rgb.copy()
    canvas = draw_overlay(rgb, mask, tint=0.25)
    assert canvas.shape == (30, 40, 3)
    assert canvas.dtype == np.uint8
    # the border: pixels of the mask with a side on a pixel outside, by shifting
    padded = np.pad(mask, 1)
    shifts = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    border = (mask == 1) & (np.min(shifts, axis=0) == 0)
    assert border.sum() == 2 * (12 + 15) - 4
    assert (canvas[border] == COLOURS[0]).all()
    inside = (mask == 1) & ~border
    blend = 0.75 * shown(rgb)[inside].astype(float) + 0.25 * np.array(COLOURS[0])
    np.testing.assert_allclose(canvas[inside], blend, atol=0.51)
    np.testing.assert_array_equal(canvas[mask == 0], shown(rgb)[mask == 0])
    np.testing.assert_array_equal(rgb, before)


def test_nothing_found_leaves_the_picture(rgb):
    np.testing.assert_array_equal(draw_overlay(rgb, np.zeros((30, 40), np.uint8)), shown(rgb))


def test_a_border_at_the_frame_is_drawn(rgb):
    canvas = draw_overlay(rgb, np.ones((30, 40), np.uint8))
    frame = np.ones((30, 40), bool)
    frame[1:-1, 1:-1] = False
    assert (canvas[frame] == COLOURS[0]).all()
    assert not (canvas[~frame] == COLOURS[0]).all(axis=-1).all()


def test_a_colour_a_class(rgb):
    mask = np.zeros((30, 40), np.uint8)
    for index in range(1, 8):  # one more than there are colours
        mask[index * 3 : index * 3 + 2, 5:30] = index
    canvas = draw_overlay(rgb, mask)
    for index in range(1, 8):
        assert (canvas[mask == index] == COLOURS[(index - 1) % len(COLOURS)]).all(), index
    assert len(set(COLOURS)) == len(COLOURS)


def test_grey_and_other_numbers_of_channels():
    grey = np.arange(30 * 40, dtype=np.uint16).reshape(1, 30, 40).astype(np.uint8)
    empty = np.zeros((30, 40), np.uint8)
    canvas = draw_overlay(grey, empty)
    for channel in range(3):
        np.testing.assert_array_equal(canvas[..., channel], grey[0])
    four = np.concatenate([grey, 255 - grey, grey, grey])
    np.testing.assert_array_equal(draw_overlay(four, empty), canvas)  # the first is shown


def test_sixteen_bits_are_shown_as_eight(rgb):
    deep = rgb.astype(np.uint16) * 257
    np.testing.assert_array_equal(draw_overlay(deep, square()), draw_overlay(rgb, square()))


def test_floats_are_stretched_between_their_percentiles():
    values = np.linspace(-5, 5, 101 * 101, dtype=np.float32).reshape(1, 101, 101)
    values[0, 50, 50] = 1e6  # one hot pixel does not darken the rest
    canvas = draw_overlay(values, np.zeros((101, 101), np.uint8))[..., 0].astype(int)
    assert canvas[0, 0] == 0
    assert canvas[-1, -1] == 255
    assert abs(canvas[25, 50] - 255 * (0.25 - 0.01) / 0.98) < 2
    assert (draw_overlay(np.full((1, 9, 9), 7.0), np.zeros((9, 9), np.uint8)) == 0).all()


@pytest.mark.parametrize(("side", "width"), [(20, 1), (600, 2), (1500, 5)])
def test_the_outline_is_thicker_on_large_pictures(side, width):
    """So that it is seen when the picture is shown on a screen."""
    mask = np.zeros((40, side), np.uint8)
    mask[5:35, 5:-5] = 1
    canvas = draw_overlay(np.zeros((1, 40, side), np.uint8), mask)
    depth = ndimage.distance_transform_cdt(mask, "taxicab")
    rim = (canvas == COLOURS[0]).all(axis=-1)
    np.testing.assert_array_equal(rim, (depth > 0) & (depth <= width))
