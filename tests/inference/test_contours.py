"""Outlines hold their mask exactly, and count its parts and holes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hymunet.inference.contours import class_contours, rings


def filled(found, shape):
    """Even-odd: how many ring edges a ray to the left crosses, by hand."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    crossings = np.zeros(shape, int)
    for ring in found:
        points = np.array(ring)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            assert (x0 == x1) != (y0 == y1)  # along one axis, and not nowhere
            if x0 == x1:
                crossings += (columns > x0) & (rows > min(y0, y1)) & (rows < max(y0, y1))
    return crossings % 2 == 1


masks = st.builds(
    lambda h, w, seed, share: np.random.default_rng(seed).random((h, w)) < share,
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]),
)


@given(masks)
def test_rings_hold_the_mask(mask):
    np.testing.assert_array_equal(filled(rings(mask), mask.shape), mask)


@given(masks)
def test_a_ring_a_part_and_a_hole(mask):
    parts = ndimage.label(mask, np.ones((3, 3)))[1]
    holes = ndimage.label(~np.pad(mask, 1))[1] - 1  # the outside is no hole
    assert len(rings(mask)) == parts + holes


def test_a_pixel_is_its_square():
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True
    (ring,) = rings(mask)
    assert sorted(map(tuple, ring)) == [(3, 2), (3, 3), (4, 2), (4, 3)]


def test_too_many_corners_are_counted_before_they_are_followed():
    mask = np.indices((20, 20)).sum(0) % 2 == 0
    assert rings(mask, 100) is None
    assert rings(mask, 1000) is not None


def test_structures_may_be_nested():
    mask = np.zeros((5, 5), np.uint8)
    mask[1:4, 1:4] = 1
    mask[2, 2] = 2
    nested = class_contours(mask, ["whole", "core"], nested=True)
    apart = class_contours(mask, ["shell", "core"], nested=False)
    assert [(row["class"], len(row["rings"])) for row in nested] == [("whole", 1), ("core", 1)]
    assert [(row["class"], len(row["rings"])) for row in apart] == [("shell", 2), ("core", 1)]
