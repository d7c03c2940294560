"""Memory of a known step and rate, counted by direction; and what a token hears of the others."""

import math

import numpy as np
import pytest
import torch

from hymunet.experiments.inspect.scan_memory import (
    BINS,
    direction_names,
    memory_histogram,
    memory_length,
    memory_numbers,
    quantile,
    share_above,
)
from hymunet.network.mamba import SS2D
from hymunet.scan import scan_orders, selective_scan


def known_scan(dt: list[float], rates: list[float], dimensions: int = 2) -> SS2D:
    """A scan whose steps are dt[k] in direction k for every token, and whose rates are given."""
    scan = SS2D(3, dimensions, len(rates))
    with torch.no_grad():
        scan.dt_weight.zero_()
        scan.dt_bias.copy_(torch.tensor(dt)[:, None].expm1().log().expand(-1, 3))
        scan.A_log.copy_(torch.tensor(rates).log().expand_as(scan.A_log))
    return scan


def test_the_memory_is_the_number_of_steps_to_one_part_in_e():
    length = memory_length(torch.tensor(0.02), torch.tensor(-5.0))
    assert float(length) == pytest.approx(10)
    assert math.exp(0.02 * -5.0) ** float(length) == pytest.approx(math.exp(-1))


def test_an_impulse_in_the_scan_has_fallen_so_far_after_its_memory():
    dt, rate, tokens = 0.05, 2.0, 41
    u = torch.zeros(1, tokens, 1)
    u[0, 0] = 1.0
    ones = torch.ones(1, tokens, 1, 1)
    y = selective_scan(
        u, dt * ones, torch.full((1, 1, 1), -rate), ones, ones, torch.zeros(1),
        order=torch.arange(tokens)[None],
    )  # fmt: skip
    length = round(float(memory_length(torch.tensor(dt), torch.tensor(-rate))))
    assert float(y[0, length, 0] / y[0, 0, 0]) == pytest.approx(math.exp(-1), rel=1e-4)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_known_steps_and_rates_are_found_in_each_direction(dimensions):
    steps = [0.01 * 2**k for k in range(2 * dimensions)]
    scan = known_scan(steps, [1.0], dimensions)
    tokens = torch.randn(2, *[4] * dimensions, 3)
    counts = memory_histogram(scan, tokens)
    assert counts.shape == (2 * dimensions, BINS)
    assert (counts.sum(axis=1) == 2 * 4**dimensions * 3).all()
    for row, dt in zip(memory_numbers(counts, [4] * dimensions, 8), steps, strict=True):
        for q in ("p5", "p50", "p95"):
            assert row["tokens"][q] == pytest.approx(1 / dt, rel=0.013)
            assert row["decay"][q] == pytest.approx(math.exp(-dt), rel=0.01)


def test_pixels_are_along_the_line_and_across_lines():
    scan = known_scan([1 / 120, 1 / 120, 0.5, 0.5], [1.0])
    counts = memory_histogram(scan, torch.randn(1, 5, 20, 3))
    rows, _, columns, _ = memory_numbers(counts, (5, 20), 8)
    # 120 tokens: the whole row of 20, and 6 rows on
    assert rows["along_px"]["p50"] == 20 * 8
    assert rows["across_px"]["p50"] == pytest.approx(6 * 8, rel=0.013)
    assert rows["beyond_line"] == 1
    assert columns["along_px"]["p50"] == pytest.approx(2 * 8, rel=0.013)
    assert columns["across_px"]["p50"] == pytest.approx(2 / 5 * 8, rel=0.013)
    assert columns["beyond_line"] == 0
    assert [rows["beyond_all"], columns["beyond_all"]] == [1, 0]


def test_quantiles_and_shares_are_those_of_the_lengths_and_nothing_is_lost():
    rates = [0.001, 1.0, 10.0, 1e-12]  # the last one hardly decays
    counts = memory_histogram(known_scan([0.1] * 4, rates), torch.randn(1, 3, 3, 3)).sum(axis=0)
    assert counts.sum() == 4 * 9 * 3 * 4
    assert quantile(counts, 0.2) == pytest.approx(1, rel=0.013)
    assert quantile(counts, 0.4) == pytest.approx(10, rel=0.013)
    assert quantile(counts, 0.7) == pytest.approx(1e4, rel=0.013)
    assert share_above(counts, 100) == pytest.approx(0.5)
    assert counts[-1] == counts.sum() / 4  # beyond the last bin


def test_a_step_that_is_0_is_an_endless_memory():
    scan = known_scan([0.1] * 4, [1.0])
    with torch.no_grad():
        scan.dt_bias.fill_(-1e4)
    counts = memory_histogram(scan, torch.randn(1, 2, 2, 3))
    assert (counts[:, -1] == counts.sum(axis=1)).all()


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_directions_are_named_as_the_scan_walks(shape):
    names = direction_names(len(shape))
    orders = scan_orders(shape)
    assert len(names) == len(orders)
    axes = {"width": -1, "height": -2, "depth": -3}
    for name, order in zip(names, orders, strict=True):
        first, second = (np.unravel_index(int(order[t]), shape) for t in (0, 1))
        step = np.subtract(second, first)
        axis = axes[name.split()[1].rstrip(",")]
        assert step[axis] == (1 if name.endswith("forwards") else -1)
        assert np.abs(step).sum() == 1
