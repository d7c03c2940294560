"""A case's files together: one size, one map of labels, and what does not count left out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from hymunet.data.case import Case
from hymunet.data.case_io import read_case, read_label
from hymunet.errors import HyMUNetError
from tests.data.drawn_files import picture as save


def picture(path: Path, shape=(6, 8), value=1) -> Path:
    return save(path, np.full(shape, value, np.uint8))


def test_a_case_is_read_whole_or_refused(tmp_path):
    image = picture(tmp_path / "i.png", value=90)
    mask = picture(tmp_path / "m.png", value=255)
    valid = np.zeros((6, 8), np.uint8)
    valid[2:] = 255
    Pillow.fromarray(valid).save(tmp_path / "v.png")
    case = Case("x", (image,), mask, tmp_path / "v.png", spacing_mm=(0.5, 0.25))
    read, labels, area = read_case(case, 3, 2)
    assert read.pixels.shape == (3, 6, 8)
    assert read.spacing_mm == (0.5, 0.25)
    assert (labels.labels == 1).all()
    assert area.dtype == bool
    np.testing.assert_array_equal(area, valid > 0)
    assert read_case(Case("x", (image,), mask), None, 2)[2] is None

    small = picture(tmp_path / "s.png", (8, 6))
    for flawed, words in (
        (
            Case("x", (image,), small),
            r"case x: .*i.png has size \(6, 8\), the mask .*s.png.*\(8, 6\)",
        ),
        (Case("x", (image,), mask, small), r"the valid area .* has \(8, 6\)"),
        (Case("x", (image,)), r"case x has no mask"),
        (
            Case("x", (image,), mask, picture(tmp_path / "0.png", value=0)),
            r"valid area .* is empty",
        ),
    ):
        with pytest.raises(HyMUNetError, match=words):
            read_case(flawed, 3, 2)


def test_stored_values_become_the_classes_of_the_case(tmp_path):
    image = picture(tmp_path / "i.png", (2, 3), 90)
    stored = np.array([[0, 1, 2], [4, 4, 0]], np.uint8)
    mask = save(tmp_path / "m.png", stored)
    case = Case("x", (image,), mask, label_map=((0, 0), (1, 2), (2, 1), (4, 3)))
    assert read_case(case, 3, 4)[1].labels.tolist() == [[0, 2, 1], [3, 3, 0]]
    assert read_label(case, 4).labels.tolist() == [[0, 2, 1], [3, 3, 0]]
    assert read_case(case, 3, 4)[2] is None
    with pytest.raises(
        HyMUNetError, match=r"m.png holds 3 values that .*\(1, 2, 4\); expected 0, 9"
    ):
        read_case(Case("x", (image,), mask, label_map=((0, 0), (9, 1))), 3, 4)


def test_what_is_ignored_does_not_count_nor_does_what_is_not_valid(tmp_path):
    image = picture(tmp_path / "i.png", (2, 3), 90)
    mask = save(tmp_path / "m.png", np.array([[0, 1, 2], [1, 2, 0]], np.uint8))
    field = save(tmp_path / "v.png", np.array([[255, 0, 255], [255, 255, 255]], np.uint8))
    case = Case("x", (image,), mask, ignore_label=2)
    _, labels, valid = read_case(case, 3, 2)
    assert labels.labels.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert valid.tolist() == [[True, True, False], [True, False, True]]
    both = read_case(Case("x", (image,), mask, field, ignore_label=2), 3, 2)[2]
    assert both.tolist() == [[True, False, False], [True, False, True]]
    nothing = Case("x", (image,), picture(tmp_path / "n.png", (2, 3), 2), ignore_label=2)
    with pytest.raises(HyMUNetError, match=r"all of .*n.png that would count is 2"):
        read_case(nothing, 3, 2)
