"""Measurements of masks whose areas, borders and parts are known by hand."""

import json
import math

import numpy as np
import pytest

from hymunet.inference.measurements import measure


def one(mask, spacing_mm=None):
    (row,) = measure(np.asarray(mask, np.uint8), ["lesion"], spacing_mm)
    return row


def disc(radius, size, centre):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


@pytest.mark.parametrize("radius", [20, 40.5, 77])
def test_a_disc(radius):
    mask = disc(radius, (200, 180), (99, 88))
    row = one(mask)
    assert row["class"] == "lesion"
    assert row["area_px"] == mask.sum()
    assert row["fraction"] == mask.sum() / (200 * 180)
    assert row["diameter_px"] == pytest.approx(2 * radius, rel=0.01)
    assert row["perimeter_px"] == pytest.approx(2 * math.pi * radius, rel=0.02)
    reach = math.floor(radius)
    assert row["bounding_box"] == [[99 - reach, 99 + reach + 1], [88 - reach, 88 + reach + 1]]
    assert row["centroid"] == [99.0, 88.0]
    assert row["parts"] == 1
    assert not [name for name in row if "mm" in name]


def test_a_rectangle_in_millimetres():
    """4 x 6 pixels of 2 mm x 0.5 mm."""
    mask = np.zeros((10, 12))
    mask[3:7, 5:11] = 1
    row = one(mask, (2.0, 0.5))
    assert row["area_px"] == 24
    assert row["area_mm2"] == 24.0
    assert row["bounding_box"] == [[3, 7], [5, 11]]  # in pixels, one past the last
    assert row["centroid"] == [4.5, 7.5]
    assert row["diameter_px"] == pytest.approx(2 * math.sqrt(24 / math.pi), abs=0.005)
    assert row["diameter_mm"] == pytest.approx(2 * math.sqrt(24 / math.pi), abs=5e-5)


def test_millimetres_are_pixels_times_their_size():
    mask = disc(30, (80, 90), (40, 41))
    pixels, row = one(mask), one(mask, (0.25, 0.25))
    assert row["area_mm2"] == pytest.approx(pixels["area_px"] / 16, abs=1e-4)
    assert row["perimeter_mm"] == pytest.approx(pixels["perimeter_px"] / 4, abs=0.002)
    assert row["diameter_mm"] == pytest.approx(pixels["diameter_px"] / 4, abs=0.002)


def test_an_ellipse_that_is_a_disc_in_millimetres():
    """Pixels twice as high as wide; a circle of 30 mm."""
    rows, columns = np.ogrid[:100, :160]
    mask = (2 * (rows - 50)) ** 2 + (columns - 80) ** 2 <= 30**2
    row = one(mask, (2.0, 1.0))
    assert row["diameter_mm"] == pytest.approx(60, rel=0.01)
    assert row["perimeter_mm"] == pytest.approx(2 * math.pi * 30, rel=0.03)


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 1),  # corners touch
        ([[1, 0, 1], [0, 1, 0], [1, 0, 1]], 1),
        ([[1, 0, 1], [1, 0, 1], [1, 0, 1]], 2),
        ([[1, 0, 1], [0, 0, 0], [1, 0, 1]], 4),
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], 1),
    ],
)
def test_parts_touch_at_corners(mask, parts):
    assert one(mask)["parts"] == parts
    framed = np.pad(mask, 4)
    assert one(framed)["parts"] == parts


def test_corners_touch_in_volumes_too():
    volume = np.zeros((5, 5, 5))
    volume[1, 1, 1] = volume[2, 2, 2] = 1
    assert one(volume)["parts"] == 1
    volume[2, 2, 2], volume[3, 3, 3] = 0, 1
    assert one(volume)["parts"] == 2


def test_an_empty_mask():
    row = one(np.zeros((5, 7)), (1.0, 1.0))
    assert row == {
        "class": "lesion", "area_px": 0, "fraction": 0.0, "parts": 0, "bounding_box": None,
        "centroid": None, "perimeter_px": 0.0, "diameter_px": 0.0, "area_mm2": 0.0,
        "perimeter_mm": 0.0, "diameter_mm": 0.0,
    }  # fmt: skip


def test_a_full_mask_and_a_single_pixel():
    full = one(np.ones((5, 7)))
    assert (full["area_px"], full["fraction"], full["parts"]) == (35, 1.0, 1)
    assert full["bounding_box"] == [[0, 5], [0, 7]]
    assert one([[1]])["bounding_box"] == [[0, 1], [0, 1]]
    assert one([[1]])["centroid"] == [0.0, 0.0]


def test_a_place_in_the_frame_changes_the_place_alone():
    """The border at the frame counts like any other."""
    mask = disc(9, (20, 20), (9, 9))[:19, :19]
    alone, framed = one(mask), one(np.pad(mask, ((7, 3), (11, 5))))
    place = ("fraction", "bounding_box", "centroid")
    assert {k: v for k, v in framed.items() if k not in place} == {
        k: v for k, v in alone.items() if k not in place
    }
    assert framed["bounding_box"] == [[7, 26], [11, 30]]
    assert framed["centroid"] == [16.0, 20.0]


def test_a_volume():
    """2 x 3 x 4 voxels of 5 mm x 0.5 mm x 0.25 mm; no perimeter."""
    volume = np.zeros((6, 8, 9))
    volume[1:3, 2:5, 3:7] = 1
    row = one(volume, (5.0, 0.5, 0.25))
    assert row == {
        "class": "lesion", "volume_voxels": 24, "fraction": 24 / (6 * 8 * 9), "parts": 1,
        "bounding_box": [[1, 3], [2, 5], [3, 7]], "centroid": [1.5, 3.0, 4.5],
        "volume_mm3": 24 * 0.625,
    }  # fmt: skip


def test_a_row_a_class_whether_it_occurs_or_not():
    mask = np.array([[0, 1, 1], [3, 3, 3]], np.uint8)
    rows = measure(mask, ["skin", "hair", "ruler"])
    assert [(row["class"], row["area_px"]) for row in rows] == [
        ("skin", 2),
        ("hair", 0),
        ("ruler", 3),
    ]
    assert [row["bounding_box"] for row in rows] == [[[0, 1], [1, 3]], None, [[1, 2], [0, 3]]]


def test_nested_classes_hold_those_above():
    mask = np.array([[0, 1, 1], [2, 3, 3]], np.uint8)
    rows = measure(mask, ["whole", "core", "enhancing"], nested=True)
    assert [row["area_px"] for row in rows] == [5, 3, 2]


def test_rows_are_plain_json():
    rows = measure(disc(5, (12, 12), (6, 6)).astype(np.uint8), ["a", "b"], (0.5, 0.5))
    assert json.loads(json.dumps(rows)) == rows
