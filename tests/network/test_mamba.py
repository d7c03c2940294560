"""SS2D and the VSS block: initialisation as in Mamba, symmetry of the cross-scan."""

import math

import pytest
import torch
from torch.nn import functional as F

from hymunet.network.mamba import SS2D, VSSBlock


def test_initialisation_is_mambas():
    torch.manual_seed(0)
    ss2d = SS2D(64, 2, d_state=16)
    assert torch.allclose(-torch.exp(ss2d.A_log)[2, 5], -torch.arange(1.0, 17.0), rtol=1e-5)
    assert torch.equal(ss2d.D, torch.ones(64))
    dt = F.softplus(ss2d.dt_bias)
    assert dt.min().item() >= 0.001 * 0.999
    assert dt.max().item() <= 0.1 * 1.001
    logs = dt.log()
    middle = (math.log(0.001) + math.log(0.1)) / 2
    assert logs.mean().item() == pytest.approx(middle, abs=0.3)


@pytest.mark.parametrize(("dims", "grid"), [(2, (5, 7)), (3, (3, 4, 2))])
def test_shapes_and_directions(dims, grid):
    ss2d = SS2D(6, dims, d_state=3)
    assert ss2d.directions == 2 * dims
    assert ss2d(torch.randn(2, *grid, 6)).shape == (2, *grid, 6)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_fewer_directions_are_the_first_of_all(count):
    few, all_ = SS2D(6, 3, d_state=3, directions=count), SS2D(6, 3, d_state=3)
    state = all_.state_dict()
    for name in ("dt_weight", "dt_bias", "A_log"):
        state[name] = state[name][:count]
        all_.get_parameter(name).data[count:] = 0  # and B = 0: the others add nothing
    weight = state["x_proj.weight"].unflatten(0, (6, -1))
    state["x_proj.weight"] = weight[:count].flatten(0, 1).clone()
    all_.x_proj.weight.data.unflatten(0, (6, -1))[count:] = 0
    few.load_state_dict(state)
    x = torch.randn(2, 3, 4, 2, 6)
    torch.testing.assert_close(few(x), all_(x))
    assert few.state_updates(tokens=10) == 10 * count * 6 * 3


def test_one_direction_sees_only_what_came_before():
    ss2d = SS2D(4, 2, d_state=2, directions=1)
    x = torch.randn(1, 4, 5, 4)
    changed = x.clone()
    changed[0, 2, 1] += 1
    same = (ss2d(x) == ss2d(changed)).all(dim=-1).flatten()
    assert same[: 2 * 5 + 1].all()
    assert not same[2 * 5 + 1 :].any()


def swap(parameter, pairs):
    """Exchanges the directions in `pairs` along the first axis."""
    order = list(range(len(parameter)))
    for a, b in pairs:
        order[a], order[b] = order[b], order[a]
    return parameter[order]


@pytest.mark.parametrize(
    ("transform", "pairs"),
    [
        (lambda x: x.flip(1, 2), [(0, 1), (2, 3)]),  # half a turn reverses every path
        (lambda x: x.transpose(1, 2), [(0, 2), (1, 3)]),  # transposing swaps rows and columns
    ],
    ids=["half turn", "transpose"],
)
def test_turning_the_image_is_renaming_the_directions(transform, pairs):
    ss2d = SS2D(4, 2, d_state=3).double()
    turned = SS2D(4, 2, d_state=3).double()
    state = ss2d.state_dict()
    for name in ("dt_weight", "dt_bias", "A_log"):
        state[name] = swap(state[name], pairs)
    state["x_proj.weight"] = swap(state["x_proj.weight"].unflatten(0, (4, -1)), pairs).flatten(0, 1)
    turned.load_state_dict(state)
    x = torch.randn(2, 5, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(turned(transform(x)), transform(ss2d(x)))


def test_a_closed_gate_leaves_the_residual():
    block = VSSBlock(4, 2, d_state=2, expand=2).eval()
    torch.nn.init.zeros_(block.out_proj.weight)
    x = torch.randn(1, 3, 3, 4)
    assert torch.equal(block(x), x)


def test_state_updates_are_counted():
    assert SS2D(6, 2, d_state=3).state_updates(tokens=10) == 10 * 4 * 6 * 3
