"""The page's arithmetic on masks, against the package's."""

import numpy as np
import pytest
from scipy import ndimage

from hymunet.inference.measurements import measure
from hymunet.inference.postprocess import OPERATIONS, Postprocess

pytestmark = pytest.mark.browser
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def page(browser):
    """The page's scripts; without an engine, since none is asked."""
    from hymunet.deploy.web import PAGE

    browser.driver.get("about:blank")
    for name in ("masks", "measure", "contour"):
        text = (PAGE / f"{name}.js").read_text("utf-8")
        browser.command("Runtime.evaluate", expression=text)
    return browser


def blobs(rng, height, width, classes):
    """Class indices in patches with holes, other classes in holes, and specks."""
    field = ndimage.gaussian_filter(rng.normal(size=(classes + 1, height, width)), (0, 2, 2))
    mask = field.argmax(0).astype(np.uint8)
    specks = rng.random(mask.shape) < 0.03
    mask[specks] = rng.integers(0, classes + 1, specks.sum())
    return mask


CASES = [
    ({"one": OPERATIONS}, False),
    ({"one": OPERATIONS, "two": OPERATIONS, "three": OPERATIONS}, False),
    ({"one": OPERATIONS, "two": OPERATIONS, "three": OPERATIONS}, True),
    ({"two": OPERATIONS[:1], "three": OPERATIONS[1:]}, True),
    ({"three": OPERATIONS[1:], "one": OPERATIONS[:1]}, False),
    ({}, True),
]


@pytest.mark.parametrize(("operations", "nested"), CASES)
def test_masks_are_cleaned_up_as_the_package_does(page, operations, nested):
    rng = np.random.default_rng(0)
    clean = Postprocess(NAMES, nested, operations)
    changed = 0
    for _ in range(20):
        mask = blobs(rng, *rng.integers(3, 40, 2), len(NAMES))
        height, width = mask.shape
        got = page.call(
            "(mask, ...rest) => hymunet.masks.postprocess(Uint8Array.from(mask), ...rest)",
            mask.ravel().tolist(), width, height, NAMES, nested, clean.to_dict(),
        )  # fmt: skip
        expected = clean(mask)
        changed += (expected != mask).any()
        assert np.array_equal(np.array(got).reshape(mask.shape), expected)
    assert changed or not operations


def test_of_equally_large_parts_the_first_stays(page):
    mask = [0, 1, 0, 1, 0]
    call = (
        "(mask) => hymunet.masks.postprocess(Uint8Array.from(mask), 5, 1, ['a'], true, "
        "{a: ['keep_largest']})"
    )
    assert page.call(call, mask) == [0, 1, 0, 0, 0]
    assert page.call(call, [0] * 5) == [0] * 5


def test_the_last_structure_fills_its_holes_first(page):
    mask = np.ones((9, 9), np.uint8)  # a hole that belongs to both: within the two, beside the two
    mask[2:7, 2:7] = 2
    mask[3:6, 3:6] = 0
    mask[4, 4] = 1
    clean = Postprocess(NAMES[:2], False, {"one": ("fill_holes",), "two": ("fill_holes",)})
    got = page.call(
        "(mask, ...rest) => hymunet.masks.postprocess(Uint8Array.from(mask), ...rest)",
        mask.ravel().tolist(), 9, 9, NAMES[:2], False, clean.to_dict(),
    )  # fmt: skip
    assert np.array_equal(np.array(got).reshape(9, 9), clean(mask))
    assert clean(mask)[3, 3] == 2


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("spacing", [None, (0.05, 0.08)])
def test_numbers_are_those_of_measurements_json(page, nested, spacing):
    rng = np.random.default_rng(1)
    for mask in (blobs(rng, 23, 31, 3), blobs(rng, 1, 9, 3), np.zeros((5, 7), np.uint8)):
        height, width = mask.shape
        got = page.call(
            "(mask, ...rest) => hymunet.measure(Uint8Array.from(mask), ...rest)",
            mask.ravel().tolist(), width, height, NAMES, nested, spacing,
        )  # fmt: skip
        expected = measure(mask, list(NAMES), spacing, nested)
        assert [set(row) for row in got] == [set(row) for row in expected]
        for row, known in zip(got, expected, strict=True):
            boxes = [row.pop("bounding_box"), known.pop("bounding_box")]
            centres = [row.pop("centroid"), known.pop("centroid")]
            assert boxes[0] == boxes[1]
            assert row.pop("class") == known.pop("class")
            assert row == pytest.approx(known, abs=0.0101)  # a half is rounded either way
            assert (centres[0] or ()) == pytest.approx(centres[1] or (), abs=0.0101)


def winding(rings, height, width):
    """Even-odd: how many sides of the rings a ray from each pixel's centre to the right crosses."""
    inside = np.zeros((height, width), bool)
    y, x = np.mgrid[:height, :width] + 0.5
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
            if y1 != y2:
                at = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
                inside ^= ((y1 > y) != (y2 > y)) & (x < at)
    return inside


@pytest.mark.parametrize("smooth", [False, True])
def test_outlines_hold_the_pixels_of_the_mask_and_no_others(page, smooth):
    rng = np.random.default_rng(2)
    for _ in range(10):
        height, width = rng.integers(2, 30, 2)
        probability = ndimage.gaussian_filter(rng.random((height, width)), 1)
        mask = probability >= 0.5
        if smooth:  # the cleaning up goes against the probability here and there
            mask ^= rng.random(mask.shape) < 0.05
        rings = page.call(
            "(mask, w, h, p) => hymunet.contours(Uint8Array.from(mask), w, h, p, 0.5)",
            mask.ravel().astype(int).tolist(), int(width), int(height),
            probability.ravel().tolist() if smooth else None,
        )  # fmt: skip
        # a ray through a corner of a ring counts for one of its sides only: no tie
        assert np.array_equal(winding(rings, height, width), mask)


def test_dice_is_as_defined(page):
    call = "(a, b, nested) => hymunet.masks.dice(a, b, 1, nested)"
    assert page.call(call, [1, 1, 0, 2], [1, 0, 0, 2], False) == pytest.approx(2 / 3)
    assert page.call(call, [1, 1, 0, 2], [1, 0, 0, 2], True) == pytest.approx(4 / 5)
    assert page.call(call, [0, 0], [0, 0], True) == 1
    assert page.call(call, [0, 1], [0, 0], True) == 0


@pytest.mark.parametrize(
    ("stored", "values", "expected"),
    [
        ([0, 1, 1], [0, 255], [0, 1, 1]),
        ([0, 255, 255], [0, 255], [0, 1, 1]),
        ([3, 250, 120], [0, 255], [0, 1, 0]),  # greyed by JPEG
        ([0, 2, 4], [0, 1, 2, 4], [0, 2, 3]),
        ([0, 2, 1], [0, 10, 20], [0, 2, 1]),
        ([0, 99], [0, 10, 20], None),
    ],
)
def test_own_masks_are_understood(page, stored, values, expected):
    call = "(stored, values) => hymunet.masks.classIndices(Uint8Array.from(stored), values)"
    assert page.call(call, stored, values) == expected
