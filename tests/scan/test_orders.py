"""Scan orders are permutations, start where they should, and visit neighbours."""

import pytest
import torch

from hymunet.scan import scan_orders, selective_scan
from hymunet.scan.orders import is_scan_order

GRIDS = [(1, 1), (1, 5), (4, 3), (7, 7), (2, 3, 4), (1, 1, 1), (5, 1, 2)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_direction_visits_every_token_once(grid):
    order = scan_orders(grid)
    tokens = torch.Size(grid).numel()
    assert order.shape == (2 * len(grid), tokens)
    assert order.dtype == torch.int64
    for row in order:
        assert row.sort().values.tolist() == list(range(tokens))


def test_the_four_directions_of_a_2x3_grid():
    assert scan_orders((2, 3)).tolist() == [
        [0, 1, 2, 3, 4, 5],  # rows
        [5, 4, 3, 2, 1, 0],
        [0, 3, 1, 4, 2, 5],  # columns
        [5, 2, 4, 1, 3, 0],
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_many_directions_are_the_first_ones(count):
    order = scan_orders((2, 3), directions=count)
    assert order.tolist() == scan_orders((2, 3)).tolist()[:count]
    assert is_scan_order(order)  # trusted by the scan, as the whole table is
    assert scan_orders((2, 3), directions=4) is scan_orders((2, 3))


@pytest.mark.parametrize("count", [0, 5])
def test_directions_that_there_are_not(count):
    with pytest.raises(ValueError, match=rf"a grid of 2 axes is scanned in 1 to 4 .* not {count}"):
        scan_orders((2, 3), directions=count)


def test_each_axis_of_a_volume_is_once_the_fastest():
    order = scan_orders((3, 4, 5))
    strides = [int(row[1] - row[0]) for row in order]  # step from the first token to the second
    assert strides == [1, -1, 5, -5, 20, -20]


@pytest.mark.parametrize("grid", [(4, 3), (2, 3, 4)], ids=str)
def test_directions_differ_from_each_other(grid):
    assert len({tuple(row.tolist()) for row in scan_orders(grid)}) == 2 * len(grid)


def test_a_table_is_made_once():
    assert scan_orders((6, 5)) is scan_orders((6, 5))


@pytest.mark.parametrize("grid", [(), (0, 3), (3, -1), 32], ids=str)
def test_an_empty_grid_is_refused(grid):
    with pytest.raises(ValueError, match="axes of length 1 or more"):
        scan_orders(grid)


def test_a_table_made_during_inference_serves_a_training():
    with torch.inference_mode():
        order = scan_orders((11, 13))
    x = torch.ones(143, requires_grad=True)
    x[order[0]].square().sum().backward()  # an inference tensor would raise here
    assert torch.equal(x.grad, torch.full((143,), 2.0))


def test_a_table_that_was_written_into_is_neither_trusted_nor_handed_out_again():
    order = scan_orders((7, 3))
    expected = order.clone()
    assert is_scan_order(order)
    order[1, 4] = 10**9
    assert not is_scan_order(order)
    again = scan_orders((7, 3))
    assert torch.equal(again, expected)
    assert is_scan_order(again)
    u, ones = torch.ones(1, 21, 2), torch.ones(1, 21, 4, 2)
    with pytest.raises(ValueError, match="visit every token once"):
        selective_scan(u, ones, -torch.ones(4, 2, 2), ones, ones, torch.ones(2), order)


def test_copies_are_checked_like_any_other_table():
    assert not is_scan_order(scan_orders((5, 4)).clone())


def test_a_table_made_under_functionalisation_is_not_kept():
    def f(x):
        return x + scan_orders((3, 11))[0]

    torch.func.functionalize(f)(torch.zeros(33))
    assert not torch._is_functional_tensor(scan_orders((3, 11)))
