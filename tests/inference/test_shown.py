"""What a notebook gets to see of a prediction."""

import numpy as np
import pytest

from hymunet import HyMUNetError, Predictor
from hymunet.data.image_io import Image
from hymunet.inference.measurements import measure
from hymunet.inference.overlay import draw_overlay
from hymunet.inference.predictor import Prediction


def volume():
    mask = np.zeros((3, 8, 9), np.uint8)
    mask[2, 2:5, 2:6] = 1
    pixels = np.arange(mask.size, dtype=np.float32).reshape(1, *mask.shape)
    rows = measure(mask, ["<organ>"], (2.0, 1.0, 1.0))
    return Prediction(mask, pixels, (2.0, 1.0, 1.0), rows, (), Image(pixels))


def test_the_overlay_is_what_predict_draws(toy, picture):
    found = Predictor(toy)(picture)
    shown = np.asarray(found.overlay())
    assert np.array_equal(shown, draw_overlay(picture, found.mask))
    assert not np.array_equal(shown, picture.transpose(1, 2, 0))


def test_of_a_volume_the_slice_with_most_is_shown():
    found = volume()
    assert np.array_equal(found.overlay(), found.overlay(2))
    assert not np.array_equal(found.overlay(), found.overlay(0))
    with pytest.raises(HyMUNetError, match=r"contours are those of pictures.*of a slice"):
        found.contours  # noqa: B018


def test_names_are_text_and_no_markup():
    page = volume()._repr_html_()
    assert "&lt;organ&gt;" in page
    assert "<organ>" not in page
    assert "<td>24.0</td>" in page  # 12 voxels of 2 mm3
    assert "not a medical device" in page


def test_a_line_says_the_shares(toy, picture):
    found = Predictor(toy)(picture)
    assert repr(found) == f"Prediction(37 x 53: foreground {(found.mask > 0).mean():.1%})"


def test_nested_structures_have_the_rings_of_all_that_they_hold(picture):
    rows = measure(np.zeros((2, 2), np.uint8), ["whole", "core"])
    mask = np.array([[2, 2, 2]], np.uint8)
    found = Prediction(mask, picture, None, rows, (), Image(picture), nested=True)
    assert [len(row["rings"]) for row in found.contours] == [1, 1]
