"""Contrast, perimeter, compactness and border of shapes whose values are known."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hymunet.errors import HyMUNetError
from hymunet.metrics.shape import compactness, contrast, perimeter, touches_border


def disc(radius: float, size: int = 201, centre: tuple[float, float] | None = None) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    cy, cx = centre or ((size - 1) / 2, (size - 1) / 2)
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


def square(*edges: int, size: int = 10) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    top, bottom, left, right = edges
    mask[top:bottom, left:right] = True
    return mask


def test_contrast_of_a_constant_disc_on_a_noisy_ring_by_hand():
    inside = disc(20)
    ring = disc(30) & ~inside  # centres at most 10 px outside; checked against the definition below
    image = np.full((1, 201, 201), 60.0)
    checker = np.indices(inside.shape).sum(axis=0) % 2
    image[0][~inside] = np.where(checker, 104.0, 96.0)[~inside]

    y, x = np.nonzero(inside)
    distance = np.array(
        [np.hypot(y - i, x - j).min() for i, j in zip(*np.nonzero(~inside), strict=True)]
    )
    exact = np.zeros_like(inside)
    exact[~inside] = distance <= 10
    assert 0 < np.count_nonzero(exact ^ ring) < 0.05 * exact.sum()

    values = image[0][exact]
    within = np.sum((values - values.mean()) ** 2) / (inside.sum() + exact.sum())
    expected = abs(60 - values.mean()) / math.sqrt(within)
    assert contrast(image, inside) == pytest.approx(expected, rel=1e-12)


def test_contrast_ignores_gain_and_offset_and_what_lies_beyond_the_ring():
    rng = np.random.default_rng(0)
    inside, image = disc(12, 81), rng.normal(100, 5, (1, 81, 81))
    image[0][inside] += 30
    reference = contrast(image, inside)
    assert contrast(3 * image - 7, inside) == pytest.approx(reference)
    far = image.copy()
    far[0][~disc(24, 81)] = 1e6
    assert contrast(far, inside) == pytest.approx(reference)
    near = image.copy()
    near[0][~disc(20, 81)] = 1e6
    assert contrast(near, inside) != pytest.approx(reference)


def test_contrast_takes_the_channel_that_shows_the_structure_and_only_valid_pixels():
    rng = np.random.default_rng(1)
    inside = disc(12, 81)
    flat, visible = rng.normal(0, 1, (2, 81, 81))
    visible[inside] += 9
    both = contrast(np.stack([flat, visible]), inside)
    assert both == contrast(visible[None], inside) > contrast(flat[None], inside)
    half = np.zeros_like(inside)
    half[:, :41] = True
    spoiled = visible.copy()
    spoiled[~half] = 1e5
    assert contrast(spoiled[None], inside, half) == contrast(visible[None], inside, half)


def test_contrast_without_a_structure_or_surroundings_is_none_and_without_noise_infinite():
    image = np.zeros((1, 9, 9))
    assert contrast(image, np.zeros((9, 9), bool)) is None
    assert contrast(image, np.ones((9, 9), bool)) is None
    inside = square(3, 6, 3, 6, size=9)
    assert contrast(image, inside) == 0
    image[0][inside] = 1
    assert contrast(image, inside) == math.inf
    with pytest.raises(HyMUNetError, match=r"mask of the image's size \(9, 9\), got \(8, 9\)"):
        contrast(image, np.ones((8, 9), bool))


def blobs(seed: int, shape: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Several smooth pieces, some of them cut by the image's edge."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3)
    return noise > np.quantile(noise, 0.7)


def rectangle(angle: float, height: float, width: float, size: int = 640) -> np.ndarray:
    """A rectangle around the middle, turned by `angle` radians."""
    y, x = np.mgrid[:size, :size] - size / 2
    along, across = (
        x * np.cos(angle) + y * np.sin(angle),
        y * np.cos(angle) - x * np.sin(angle),
    )
    return (np.abs(across) <= height / 2) & (np.abs(along) <= width / 2)


@pytest.mark.parametrize(("radius", "error"), [(10, 0.04), (25, 0.02), (60.5, 0.01)], ids=str)
def test_a_disc_has_its_circumference_and_compactness_near_one(radius, error):
    assert perimeter(disc(radius)) == pytest.approx(2 * math.pi * radius, rel=error)
    assert compactness(disc(radius)) == pytest.approx(1, abs=2 * error)


@pytest.mark.parametrize(("radius", "error"), [(20, 0.02), (50, 0.01)], ids=str)
def test_a_disc_has_its_circumference_wherever_its_centre_lies(radius, error):
    size = 2 * radius + 9
    middle = (size - 1) / 2
    offsets = [(0, 0), (0.5, 0.5), (0, 0.5), *np.random.default_rng(0).uniform(-0.5, 0.5, (20, 2))]
    for dy, dx in offsets:
        mask = disc(radius, size, (middle + dy, middle + dx))
        assert perimeter(mask) == pytest.approx(2 * math.pi * radius, rel=error)


@pytest.mark.parametrize("spacing", [(1, 2), (2, 1), (1, 3), (0.7, 1.9)], ids=str)
@pytest.mark.parametrize("radius", [30, 60], ids=str)
def test_a_disc_on_an_anisotropic_grid_has_the_circumference_in_mm(spacing, radius):
    height, width = (int(2.4 * radius / step) for step in spacing)
    y, x = np.mgrid[:height, :width]
    mask = np.hypot((y - height / 2) * spacing[0], (x - width / 2) * spacing[1]) <= radius
    assert perimeter(mask, spacing) == pytest.approx(2 * math.pi * radius, rel=0.03)
    # it is no disc under another spacing, so that one that is ignored or swapped would be seen
    assert perimeter(mask, spacing[::-1]) > 1.2 * 2 * math.pi * radius


@pytest.mark.parametrize("seed", range(3), ids=str)
def test_a_perimeter_scales_with_the_spacing_and_turns_with_the_axes(seed):
    mask = blobs(seed)
    assert perimeter(mask, (2, 2)) == 2 * perimeter(mask)
    assert perimeter(mask, (1.5, 0.4)) == pytest.approx(3 * perimeter(mask, (0.5, 0.4 / 3)))
    assert perimeter(mask.T, (0.4, 1.5)) == pytest.approx(perimeter(mask, (1.5, 0.4)))
    assert perimeter(mask[::-1], (1.5, 0.4)) == pytest.approx(perimeter(mask, (1.5, 0.4)))
    assert perimeter(np.pad(mask, 7)) == perimeter(mask)  # the image's edge is an outline


def test_a_straight_outline_is_as_accurate_as_the_docstring_says():
    # 1 % for the corners and the staircase of a rectangle of finite size
    for angle in np.arange(0, 90, 7.5):
        ratio = perimeter(rectangle(math.radians(angle), 250, 350)) / 1200
        assert -0.052 - 0.01 <= ratio - 1 <= 0.026 + 0.01
        if angle % 45 == 0:  # along the counted lines, where it is shortest
            assert ratio - 1 == pytest.approx(-0.052, abs=0.01)
        if angle % 45 == 22.5:
            assert ratio - 1 == pytest.approx(0.026, abs=0.01)


def test_a_perimeter_of_nothing_is_zero_and_a_useless_spacing_is_refused():
    assert perimeter(np.zeros((4, 5), bool), (0.5, 2)) == 0
    with pytest.raises(HyMUNetError, match="spacing_mm must be 2 positive numbers"):
        perimeter(np.ones((4, 5), bool), (1, 1, 1))
    with pytest.raises(HyMUNetError, match="spacing_mm must be 2 positive numbers"):
        perimeter(np.ones((4, 5), bool), (0, 1))


def test_compactness_falls_from_disc_over_square_and_ellipse_to_a_line():
    y, x = np.mgrid[-100:101, -100:101]
    ellipse = (y / 20) ** 2 + (x / 80) ** 2 <= 1
    shapes = [
        disc(40),
        np.pad(np.ones((80, 80), bool), 20),
        ellipse,
        square(5, 6, 0, 200, size=200),
    ]
    values = [compactness(shape) for shape in shapes]
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(math.pi / 4, abs=0.1)
    assert values[-1] < 0.05
    turned = np.rot90(ellipse)
    assert compactness(turned) == compactness(ellipse)


def test_compactness_is_undefined_for_nothing_and_for_volumes():
    assert compactness(np.zeros((5, 5), bool)) is None
    assert compactness(np.ones((5, 5, 5), bool)) is None
    with pytest.raises(HyMUNetError, match="needs a 2-D mask, got 3"):
        perimeter(np.ones((5, 5, 5), bool))


@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 6)], ids=str)
def test_border_is_touched_from_each_side_and_by_nothing_else(shape):
    inner = np.zeros(shape, bool)
    inner[(slice(1, -1),) * len(shape)] = True
    assert not touches_border(inner)
    for axis in range(len(shape)):
        for side in (0, -1):
            mask = np.zeros(shape, bool)
            place = [2] * len(shape)
            place[axis] = side
            mask[tuple(place)] = True
            assert touches_border(mask)
