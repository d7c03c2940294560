"""Windows cover everything, weigh as MONAI's do, and change nothing where they need not."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from monai.inferers.utils import compute_importance_map

from hymunet.errors import HyMUNetError
from hymunet.inference.sliding_window import importance, sliding_window, window_starts


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.95))
def test_windows_cover_the_axis_and_overlap_enough(length, window, overlap):
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - window)
    for one, after in pairwise(starts):
        assert one < after <= one + max(1, window * (1 - overlap))


@pytest.mark.parametrize("window", [(16, 24), (8, 12, 20)])
def test_importance_is_monais(window):
    theirs = compute_importance_map(window, mode="gaussian", sigma_scale=0.125)
    torch.testing.assert_close(importance(window)[0, 0], theirs)


@pytest.mark.parametrize(
    ("shape", "window"), [((40, 56), (16, 24)), ((10, 30), (16, 24)), ((20, 18, 25), (8, 12, 20))]
)
def test_a_prediction_of_each_pixel_alone_comes_back_unchanged(shape, window):
    image = torch.rand((1, 2, *shape), generator=torch.Generator().manual_seed(0))
    for batch_size in (1, 3):
        result = sliding_window(lambda x: x.square(), image, window, 0.5, batch_size)
        torch.testing.assert_close(result, image.square())


def test_monais_windows_give_the_same_mean():
    # length = window + whole steps: then MONAI's windows stand where ours do
    image = torch.rand((1, 1, 32, 48), generator=torch.Generator().manual_seed(1))
    kernel = torch.rand((2, 1, 3, 3), generator=torch.Generator().manual_seed(2))

    def predict(x):  # depends on the window's border, so the weights matter
        return torch.nn.functional.conv2d(x, kernel, padding=1)

    ours = sliding_window(predict, image, (16, 24), overlap=0.5)
    theirs = sliding_window_inference(image, (16, 24), 2, predict, overlap=0.5, mode="gaussian")
    torch.testing.assert_close(ours, theirs)


def test_the_number_of_windows_at_a_time_changes_nothing_and_progress_is_told():
    image = torch.rand((1, 1, 30, 41), generator=torch.Generator().manual_seed(3))
    kernel = torch.ones((1, 1, 5, 5)) / 25
    told = []
    one = sliding_window(lambda x: torch.conv2d(x, kernel, padding=2), image, (16, 16))
    many = sliding_window(
        lambda x: torch.conv2d(x, kernel, padding=2),
        image,
        (16, 16),
        batch_size=4,
        on_window=lambda done, of: told.append((done, of)),
    )
    torch.testing.assert_close(one, many)
    assert told == [(4, 15), (8, 15), (12, 15), (15, 15)]


@pytest.mark.parametrize(
    ("shape", "window", "overlap", "message"),
    [
        ((2, 1, 8, 8), (4, 4), 0.5, "expected one image"),
        ((1, 1, 8, 8), (4, 4, 4), 0.5, "3 spatial dimensions"),
        ((1, 1, 8, 8), (4, 4), 1.0, "overlap"),
    ],
)
def test_what_cannot_be_windowed_is_refused(shape, window, overlap, message):
    with pytest.raises(HyMUNetError, match=message):
        sliding_window(lambda x: x, torch.zeros(shape), window, overlap)
