"""Small pictures of cases: outlines that enclose their mask, slices that show the most."""

import re

import numpy as np
import pytest

from hymunet.evaluation.thumbnails import LONGEST_OUTLINE, outline, thumbnail


def test_an_outline_encloses_the_area_of_its_mask():
    mask = np.zeros((40, 60), np.uint8)
    mask[5:35, 10:50] = 1
    points = np.array(
        [pair.split() for pair in re.split("[ML]", outline(mask, (60, 40)))[1:]], dtype=float
    )
    x, y = points.T
    area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    assert area == pytest.approx(mask.sum(), rel=0.01)
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((10, 50, 5, 35), abs=0.6)
    doubled = outline(mask, (120, 80))
    assert max(float(p.split()[0]) for p in re.split("[ML]", doubled)[1:]) == pytest.approx(
        100, 0.01
    )


def test_the_outline_of_a_speckled_mask_stays_short_and_of_nothing_is_empty():
    speckle = np.random.default_rng(0).integers(0, 2, (600, 800)).astype(np.uint8)
    assert 0 < len(outline(speckle, (320, 240))) <= LONGEST_OUTLINE
    assert outline(np.zeros((9, 9), np.uint8), (9, 9)) == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32], ids=lambda d: d.__name__)
def test_thumbnails_are_small_and_show_the_slice_with_the_most_reference(dtype):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 50, 700)).astype(dtype)
    flat = thumbnail(pixels, np.zeros((50, 700), np.uint8), np.zeros((50, 700), np.uint8))
    assert (flat.width, flat.height) == (320, 23)
    volume = np.zeros((9, 20, 30), np.uint8)
    volume[4, 5:9, 5:9], volume[6, 5:15, 5:15] = 1, 1
    deep = thumbnail(np.zeros((4, 9, 20, 30), dtype), volume, np.zeros_like(volume))
    assert deep.where == "slice 7 of 9"
    assert deep.truth
    assert deep.predicted == ""


def test_structures_within_each_other_share_no_line():
    nested = np.zeros((20, 20), np.uint8)
    nested[2:18, 2:18], nested[6:14, 6:14] = 1, 2
    assert outline(nested, (20, 20)).count("M") == 3  # the line between the two is there twice
    once = outline(nested, (20, 20), [(1, 2), (2,)])
    assert once.count("M") == 2
    assert once == outline(nested, (20, 20), [(2, 1)]) + outline(nested, (20, 20), [(2,)])
