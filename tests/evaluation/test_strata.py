"""Contrast, compactness and border of shapes whose values are known, and averages by hand."""

import math

import numpy as np
import pytest

from hymunet.errors import HyMUNetError
from hymunet.evaluation.strata import (
    BORDER_BANDS,
    COMPACTNESS_BANDS,
    CONTRAST_BANDS,
    STRATA,
    add_bands,
    compactness,
    contrast,
    describe,
    find_failures,
    members,
    perimeter,
    summarise,
    touches_border,
)
from hymunet.metrics.case import case_metrics


def disc(radius: float, size: int = 201, centre: tuple[float, float] | None = None) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    cy, cx = centre or ((size - 1) / 2, (size - 1) / 2)
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


def row(name: str, pred: np.ndarray, target: np.ndarray, **other: object) -> dict:
    base = {
        "case": name, "class": "lesion", "group": name, "seen": "", "unit": "px",
        "dimensions": target.ndim, **case_metrics(pred, target),
    }  # fmt: skip
    return base | describe(None, target) | other


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


@pytest.mark.parametrize(("radius", "error"), [(10, 0.04), (25, 0.02), (60.5, 0.01)], ids=str)
def test_a_disc_has_its_circumference_and_compactness_near_one(radius, error):
    assert perimeter(disc(radius)) == pytest.approx(2 * math.pi * radius, rel=error)
    assert compactness(disc(radius)) == pytest.approx(1, abs=2 * error)


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


def test_bands_are_cut_where_they_say():
    properties = [
        # fraction, contrast, compactness, border
        (0.0, None, None, None),
        (0.049, 1.0, 0.1, False),
        (0.05, 2.0, 0.2, True),
        (0.2, 3.0, 0.3, False),
        (0.21, 4.0, 0.4, False),
        (0.9, 5.0, 0.5, False),
        (0.9, 6.0, 0.6, False),
    ]
    names = ("target_fraction", "contrast", "compactness", "touches_border")
    rows = [dict(zip(names, values, strict=True)) for values in properties]
    cuts, notes = add_bands(rows)
    assert [r["size_band"] for r in rows] == [
        None, "< 5 %", "5-20 %", "5-20 %", "> 20 %", "> 20 %", "> 20 %"
    ]  # fmt: skip
    low, high = CONTRAST_BANDS
    assert [r["contrast_band"] for r in rows] == [None, low, low, low, high, high, high]
    thirds = [band for band in COMPACTNESS_BANDS for _ in range(2)]
    assert [r["compactness_band"] for r in rows] == [None, *thirds]
    assert [r["border_band"] for r in rows][1:3] == list(BORDER_BANDS)
    assert cuts["contrast"] == 3.5
    assert notes == ["contrast is cut at 3.5, the median of these cases"]

    cuts, notes = add_bands(rows, contrast_median=1.5)
    assert [r["contrast_band"] for r in rows] == [None, low, high, high, high, high, high]
    assert notes == ["contrast is cut at 1.5, the median of the training cases"]
    assert sum(map(len, members(rows, STRATA[0]).values())) == 6


def test_summary_of_three_cases_by_hand():
    target = square(2, 6, 2, 6)  # 16 of 100 pixels
    half, nothing = square(2, 4, 2, 6), np.zeros((10, 10), bool)
    rows = [row("a", target, target), row("b", half, target), row("c", nothing, target)]
    summary, notes = summarise(rows)
    entry = summary["classes"]["lesion"]
    # Dice 1, 2*8/(8+16), 0; IoU 1, 1/2, 0; thresholded IoU 1, 0, 0
    assert entry["per_image"]["dice"]["mean"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert entry["per_image"]["iou"]["mean"] == pytest.approx(0.5)
    assert entry["per_image"]["thresholded_iou"]["mean"] == pytest.approx(1 / 3)
    assert entry["per_image"]["dice"]["low"] < 5 / 9 < entry["per_image"]["dice"]["high"]
    # a missed lesion is as far away as the image is wide: sqrt(200)
    assert entry["per_image"]["hd"]["mean"] == pytest.approx((0 + 2 + math.sqrt(200)) / 3)
    assert entry["without_empty"]["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert entry["n_without_empty"] == 2
    # 24 true positives, 24 missed pixels: J = 1/2, D = 2J/(1+J)
    assert entry["pooled"]["iou"] == pytest.approx(0.5)
    assert entry["pooled"]["dice"] == pytest.approx(2 / 3)
    assert entry["failures"]["missed"] == ["c"]
    band = entry["strata"]["size"]["5-20 %"]
    assert band["n"] == 3
    assert band["dice"]["mean"] == entry["per_image"]["dice"]["mean"]
    assert entry["strata"]["contrast"] == {}
    assert (summary["n"], summary["length_unit"], summary["area_unit"]) == (3, "px", "px")
    assert notes == []


def test_every_kind_of_failure_is_told_from_the_others():
    one, other, nothing = square(0, 2, 0, 2), square(5, 7, 5, 7), np.zeros((10, 10), bool)
    rows = [
        row("missed", nothing, one),
        row("no_overlap", other, one),
        row("false_alarm", one, nothing),
        row("both_empty", nothing, nothing),
        row("fine", one, one),
    ]
    found = find_failures(rows)
    assert found == {name: [name] for name in found}
    assert len(found) == 4


def test_one_group_has_no_interval_and_mixed_units_no_mean_distance():
    target = square(2, 6, 2, 6)
    rows = [row(name, target, target, group="patient") for name in "ab"]
    rows[1]["unit"] = "mm"
    summary, notes = summarise(rows)
    mean = summary["classes"]["lesion"]["per_image"]
    assert mean["dice"] == {"mean": 1.0, "low": None, "high": None}
    assert not {"hd", "hd95", "assd", "nsd", "pred_area"} & set(mean)
    assert summary["length_unit"] is None
    assert "known for 1 of 2 cases" in notes[0]


def test_several_classes_get_a_mean_over_classes():
    target = square(2, 6, 2, 6)
    nothing = np.zeros((10, 10), bool)
    rows = [row("a", target, target), {**row("a", nothing, target), "class": "core"}]
    summary, _ = summarise(rows)
    assert list(summary["classes"]) == ["lesion", "core"]
    assert summary["mean_of_classes"]["dice"]["mean"] == 0.5
    assert summary["n"] == 1
