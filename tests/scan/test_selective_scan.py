"""The scan against a loop written from the equation, its gradients, and its laws."""

import pytest
import torch
from torch.autograd import gradcheck

from hymunet.scan import scan_orders, selective_scan, selective_scan_reference
from tests.cases import SCAN_CASES, TOLERANCE, scan_inputs


def by_the_book(u, delta, A, B, C, D, order, delta_bias=None, softplus=False):
    """The equation, one number at a time."""
    batch, length, channels = u.shape
    directions, _, state = A.shape
    y = torch.zeros_like(u)
    last = torch.zeros(batch, directions, channels, state, dtype=u.dtype)
    for b in range(batch):
        for k in range(directions):
            for c in range(channels):
                h = torch.zeros(state, dtype=u.dtype)
                for t in range(length):
                    i = int(order[k, t])
                    dt = delta[b, i, k, c]
                    if delta_bias is not None:
                        dt = dt + delta_bias[k, c]
                    if softplus:
                        dt = torch.log1p(torch.exp(dt))
                    h = torch.exp(dt * A[k, c]) * h + dt * u[b, i, c] * B[b, i, k]
                    y[b, i, c] += C[b, i, k] @ h
                last[b, k, c] = h
    return y + D * u, last


def inputs_for(case, dtype, **kwargs):
    batch, grid, channels, state = case
    order = scan_orders(grid)
    inputs = scan_inputs(batch, order.shape[1], len(order), channels, state, dtype)
    return {**inputs, "order": order, **kwargs}


@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "bias and softplus"])
def test_matches_the_equation(case, fused):
    inputs = inputs_for(case, torch.float64)
    bias = inputs.pop("delta_bias")
    expected, last = by_the_book(
        **{n: t.detach() for n, t in inputs.items()},
        delta_bias=bias.detach() if fused else None,
        softplus=fused,
    )
    y, states = selective_scan_reference(
        **inputs, delta_bias=bias if fused else None, delta_softplus=fused
    )
    torch.testing.assert_close(y, expected, **TOLERANCE[torch.float64])
    torch.testing.assert_close(states, last, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("case", [*SCAN_CASES[:2], (2, (3, 4), 2, 2)], ids=str)
def test_gradients(case):
    inputs = inputs_for(case, torch.float64, delta_softplus=True)
    names = [n for n, t in inputs.items() if torch.is_tensor(t) and t.requires_grad]

    def scan(*tensors):
        return selective_scan(**{**inputs, **dict(zip(names, tensors, strict=True))})

    assert gradcheck(scan, [inputs[n] for n in names])


def test_float32_is_near_float64():
    inputs = inputs_for((2, (8, 8), 4, 8), torch.float64, delta_softplus=True)
    single = {
        n: t.detach().float() if torch.is_tensor(t) and t.is_floating_point() else t
        for n, t in inputs.items()
    }
    y = selective_scan(**single)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), selective_scan(**inputs), **TOLERANCE[torch.float32])


def test_half_precision_keeps_its_type_and_computes_in_float32():
    inputs = inputs_for((1, (4, 4), 3, 4), torch.float32, delta_softplus=True)
    half = {
        n: t.detach().bfloat16() if n in ("u", "delta", "B", "C") else t for n, t in inputs.items()
    }
    y = selective_scan(**half)
    rounded = {n: t.float() if n in ("u", "delta", "B", "C") else t for n, t in half.items()}
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), selective_scan(**rounded), rtol=1e-2, atol=1e-2)


def test_no_decay_and_unit_gains_is_a_cumulative_sum():
    u = torch.randn(2, 9, 3, dtype=torch.float64)
    ones = torch.ones(2, 9, 1, 3, dtype=torch.float64)
    A = torch.zeros(1, 3, 1, dtype=torch.float64)
    gains = torch.ones(2, 9, 1, 1, dtype=torch.float64)
    y = selective_scan(u, ones, A, gains, gains, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(y, u.cumsum(dim=1))


def test_a_prefix_does_not_see_what_follows():
    inputs = inputs_for((1, (1, 12), 2, 3), torch.float64, delta_softplus=True)
    raster = {**inputs, "order": torch.arange(12).expand(4, 12)}
    changed = {**raster, "u": raster["u"].detach().clone()}
    changed["u"][:, 7:] += 1.0
    before, after = selective_scan(**raster), selective_scan(**changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_permuting_the_tokens_and_the_order_changes_nothing():
    inputs = inputs_for((1, (4, 5), 2, 3), torch.float64, delta_softplus=True)
    permutation = torch.randperm(20)
    moved = {
        n: t[:, permutation] if n in ("u", "delta", "B", "C") else t for n, t in inputs.items()
    }
    moved["order"] = permutation.argsort()[inputs["order"]]  # where each token went
    torch.testing.assert_close(
        selective_scan(**moved),
        selective_scan(**inputs)[:, permutation],
        **TOLERANCE[torch.float64],
    )


def test_directions_add_up():
    inputs = inputs_for((1, (3, 4), 2, 3), torch.float64, delta_softplus=True)
    whole = selective_scan(**inputs)
    parts = []
    for k in range(4):
        one = {
            "delta": inputs["delta"][:, :, k : k + 1],
            "B": inputs["B"][:, :, k : k + 1],
            "C": inputs["C"][:, :, k : k + 1],
            "A": inputs["A"][k : k + 1],
            "order": inputs["order"][k : k + 1],
            "delta_bias": inputs["delta_bias"][k : k + 1],
            "D": inputs["D"] if k == 0 else torch.zeros_like(inputs["D"]),
        }
        parts.append(selective_scan(**{**inputs, **one}))
    torch.testing.assert_close(whole, sum(parts), **TOLERANCE[torch.float64])


def test_without_an_order_every_direction_walks_the_raster():
    inputs = inputs_for((1, (2, 3), 2, 2), torch.float64)
    raster = torch.arange(6).expand(4, 6).contiguous()
    without = selective_scan(**{**inputs, "order": None})
    torch.testing.assert_close(without, selective_scan(**{**inputs, "order": raster}))


def test_a_long_scan_costs_memory_in_proportion_to_its_length():
    # saved tensors, counted exactly: twice the length must not cost more than twice the numbers
    def saved(length):
        inputs = scan_inputs(1, length, 2, 3, 4, torch.float32)
        count = [0]

        def pack(tensor):
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            selective_scan(**inputs)
        return count[0]

    assert saved(256) <= 2.05 * saved(128)


def test_nan_is_not_hidden():
    inputs = inputs_for((1, (2, 3), 2, 2), torch.float32)
    u = inputs["u"].detach().clone()
    u[0, 2, 1] = float("nan")
    y = selective_scan(**{**inputs, "u": u})
    assert y[0, :, 1].isnan().any()
    assert not y[0, :, 0].isnan().any()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("delta", (1, 6, 4, 3), r"delta must be \(1, 6, 4, 2\)"),
        ("B", (1, 6, 4, 3), r"B must be \(1, 6, 4, 2\)"),
        ("C", (1, 5, 4, 2), r"C must be \(1, 6, 4, 2\)"),
        ("D", (3,), r"D must be \(2,\)"),
        ("u", (6, 2), r"u must be \(batch, length, channels\)"),
        ("A", (2, 2), r"A must be \(directions, channels, state\)"),
        ("delta_bias", (4, 3), r"delta_bias must be \(4, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, shape, words):
    inputs = inputs_for((1, (2, 3), 2, 2), torch.float32)
    with pytest.raises(ValueError, match=words):
        selective_scan(**{**inputs, name: torch.zeros(shape)})


def test_an_order_that_is_no_permutation_is_refused():
    inputs = inputs_for((1, (2, 3), 2, 2), torch.float32)
    twice = inputs["order"].clone()
    twice[1, 0] = twice[1, 1]
    with pytest.raises(ValueError, match="visit every token once"):
        selective_scan(**{**inputs, "order": twice})
    with pytest.raises(ValueError, match=r"\(directions, length\) = \(4, 6\)"):
        selective_scan(**{**inputs, "order": inputs["order"][:, :5]})


def test_complex_states_are_refused():
    inputs = inputs_for((1, (2, 3), 2, 2), torch.float32)
    with pytest.raises(ValueError, match="A is complex"):
        selective_scan(**{**inputs, "A": inputs["A"].to(torch.complex64)})
