"""Stored values to classes: as a table says, nothing guessed, nothing passed over."""

from pathlib import Path

import numpy as np
import pytest

from hymunet.data.label_map import inverse_label_map, map_labels
from hymunet.data.label_scheme import label_scheme
from hymunet.data.mask_reading import read_mask, values_in_mask
from hymunet.data.mask_writing import write_mask
from hymunet.errors import HyMUNetError
from tests.data.drawn_files import blocks, picture, volume

MAP = ((0, 0), (1, 2), (2, 1), (4, 3))
PATH = Path("mask.nii.gz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_classes_are_those_of_a_table(dtype):
    stored = np.random.default_rng(0).choice([0, 1, 2, 4], (5, 6, 7)).astype(dtype)
    table = np.array([0, 2, 1, 99, 3])
    labels, ignored, notes = map_labels(stored, PATH, MAP, None, 4)
    np.testing.assert_array_equal(labels, table[stored.astype(int)])
    assert ignored is None
    assert notes == ["values of the mask read as classes: 1 as 2, 2 as 1, 4 as 3"]


def test_a_map_that_changes_nothing_says_nothing():
    labels, _, notes = map_labels(np.array([[0, 1]]), PATH, ((0, 0), (1, 1)), None, 2)
    assert labels.tolist() == [[0, 1]]
    assert notes == []


@pytest.mark.parametrize("label_map", [None, MAP])
def test_ignored_pixels_are_background_and_told(label_map):
    stored = np.array([[0, 1, 255], [255, 2, 1]], np.int16)
    labels, ignored, _ = map_labels(stored, PATH, label_map, 255, 4)
    np.testing.assert_array_equal(ignored, stored == 255)
    expected = [[0, 1, 0], [0, 2, 1]] if label_map is None else [[0, 2, 0], [0, 1, 2]]
    assert labels.tolist() == expected


def test_flaws_are_named():
    for values, num_labels, words in (
        ([0, 3, 9], 4, r"holds 2 values that are no label .*\(3, 9\); expected 0, 1, 2, 4"),
        ([0, -1], 4, r"holds 1 values that are no label .*\(-1\)"),
        ([0, 1], 2, r"make classes up to 3, but 2 classes are expected.*--structures 3"),
        ([0, 0.5], 4, r"holds fractions such as 0.5"),
    ):
        with pytest.raises(HyMUNetError, match=words):
            map_labels(np.array(values), PATH, MAP, None, num_labels)


def test_masks_of_all_kinds_are_read_by_the_map(tmp_path):
    stored = blocks(0, 1, 2, 4, 7)
    path = volume(tmp_path / "a.nii.gz", stored)
    mask = read_mask(path, 4, label_map=MAP, ignore_label=7)
    np.testing.assert_array_equal(mask.labels.T, blocks(0, 2, 1, 3, 0))
    np.testing.assert_array_equal(mask.ignored.T, stored == 7)
    flat = read_mask(picture(tmp_path / "a.png", stored[0]), 4, label_map=MAP, ignore_label=7)
    np.testing.assert_array_equal(flat.labels, blocks(0, 2, 1, 3, 0)[0])
    np.testing.assert_array_equal(flat.ignored, stored[0] == 7)
    assert values_in_mask(path) == values_in_mask(tmp_path / "a.png") == [0, 1, 2, 4, 7]


def test_without_a_map_only_the_ignored_value_is_taken_out(tmp_path):
    path = picture(tmp_path / "a.png", np.array([[0, 1], [1, 9]], np.uint8))
    with pytest.raises(HyMUNetError, match=r"holds 3 values \(0, 1, 9\); expected 0 and 1"):
        read_mask(path)
    assert read_mask(path, ignore_label=9).labels.tolist() == [[0, 1], [1, 0]]
    assert read_mask(picture(tmp_path / "b.png", np.eye(2, dtype=np.uint8))).ignored is None


# --- and back ---------------------------------------------------------------------------------

SEVERAL = ((0, 0), (3, 1), (7, 2), (5, 2))


@pytest.mark.parametrize("label_map", [MAP, SEVERAL, ((0, 0), (1, 1)), ((0, 0), (300, 1))], ids=str)
@pytest.mark.parametrize("suffix", [".png", ".nii.gz"])
def test_what_is_written_with_the_values_is_read_as_the_same_classes(tmp_path, label_map, suffix):
    num_labels = 1 + max(index for _, index in label_map)
    labels = np.random.default_rng(0).integers(0, num_labels, (9, 8))
    values = inverse_label_map(label_map, num_labels)
    path = tmp_path / f"mask{suffix}"
    write_mask(path, labels, None, num_labels, values)
    np.testing.assert_array_equal(read_mask(path, num_labels, label_map=label_map).labels, labels)
    assert set(values_in_mask(path)) == set(values) <= {value for value, _ in label_map}


def test_maps_that_change_nothing_have_no_inverse():
    assert inverse_label_map(None, 4) is None
    assert inverse_label_map(((0, 0), (2, 2), (1, 1)), 3) is None
    # a binary PNG would hold 255, which the map does not know
    assert inverse_label_map(((0, 0), (1, 1)), 2) == (0, 1)


def test_of_several_values_of_a_class_the_data_sets_own_is_written():
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3]}
    for order, expected in (([1, 3], (0, 1, 3)), ([1, 2], (0, 1, 2)), (None, (0, 1, 2))):
        scheme = label_scheme(labels, order, Path("dataset.json"))
        assert inverse_label_map(scheme.label_map, 3) == expected
    assert inverse_label_map(SEVERAL, 3) == (0, 3, 7)


def test_a_class_without_a_value_is_refused():
    for num_labels in (3, 5):
        with pytest.raises(HyMUNetError, match=rf"value for each of the {num_labels} classes"):
            inverse_label_map(MAP, num_labels)


def test_values_that_do_not_fit_are_not_written(tmp_path):
    for values in ((0, 1), (0, 1, 70000), (0, -1, 2)):
        with pytest.raises(HyMUNetError, match="a value from 0 to 65535 for each class"):
            write_mask(tmp_path / "a.png", np.array([[0, 2]]), values=values)
    assert list(tmp_path.iterdir()) == []
