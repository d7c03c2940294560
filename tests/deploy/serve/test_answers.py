"""Run lengths hold their mask."""

import numpy as np
import pytest
from hypothesis import given

from hymunet.deploy.answers import run_lengths
from tests.inference.test_contours import masks


def expanded(size, counts):
    """COCO's run lengths, undone by their definition."""
    values = [index % 2 for index, count in enumerate(counts) for _ in range(count)]
    return np.array(values, bool).reshape(size[::-1]).T


@given(masks)
def test_run_lengths_hold_the_mask(mask):
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    np.testing.assert_array_equal(expanded(mask.shape, counts), mask)


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        ([[1, 1], [0, 1]], [0, 1, 1, 2]),
        ([[0, 0]], [2]),
        ([[1]], [0, 1]),
        ([[0, 1], [1, 0]], [1, 2, 1]),
    ],
)
def test_run_lengths_on_paper(mask, counts):
    assert run_lengths(np.array(mask, bool)) == counts
