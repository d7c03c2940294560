"""mamba_ssm's layouts against a loop written from its equation, and the laws of groups and gate."""

import pytest
import torch
from torch.autograd import gradcheck

from hymunet.scan.compat import selective_scan_fn
from tests.cases import TOLERANCE

# (batch, dim, length, state, groups)
CASES = [(1, 1, 1, 1, 1), (2, 3, 7, 2, 1), (1, 6, 5, 3, 2), (2, 8, 9, 4, 4), (1, 4, 3, 2, 4)]


def arguments(batch, dim, length, state, groups, dtype=torch.float64):
    """All arguments, the optional ones too; B and C have no axis for one group."""

    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    maps = (batch, state, length) if groups == 1 else (batch, groups, state, length)
    inputs = {
        "u": draw(batch, dim, length),
        "delta": draw(batch, dim, length),
        "A": -torch.rand(dim, state, dtype=dtype) - 0.1,
        "B": draw(*maps),
        "C": draw(*maps),
        "D": draw(dim),
        "z": draw(batch, dim, length),
        "delta_bias": draw(dim),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def by_the_book(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The equation, a channel and a step at a time."""
    batch, dim, length = u.shape
    outs, lasts = [], []
    for b in range(batch):
        for d in range(dim):
            if B.ndim == 3:
                gain_in, gain_out = B[b], C[b]
            else:
                group = d * B.shape[1] // dim
                gain_in, gain_out = B[b, group], C[b, group]
            h = torch.zeros(A.shape[1], dtype=u.dtype)
            for t in range(length):
                step = delta[b, d, t] + (0 if delta_bias is None else delta_bias[d])
                if delta_softplus:
                    step = torch.log1p(torch.exp(step))
                h = torch.exp(step * A[d]) * h + step * u[b, d, t] * gain_in[:, t]
                out = (gain_out[:, t] * h).sum() + (0 if D is None else D[d] * u[b, d, t])
                if z is not None:
                    out = out * z[b, d, t] / (1 + torch.exp(-z[b, d, t]))
                outs.append(out)
            lasts.append(h)
    return torch.stack(outs).view(u.shape), torch.stack(lasts).view(batch, dim, -1)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("softplus", [False, True], ids=["plain", "softplus"])
def test_matches_the_equation(case, softplus):
    inputs = arguments(*case)
    expected = by_the_book(**inputs, delta_softplus=softplus)
    got = selective_scan_fn(**inputs, delta_softplus=softplus, return_last_state=True)
    torch.testing.assert_close(got, expected, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("left_out", ["D", "z", "delta_bias"])
def test_optional_arguments_may_be_left_out(left_out):
    inputs = arguments(2, 4, 5, 3, 2)
    del inputs[left_out]
    expected, _ = by_the_book(**inputs, delta_softplus=True)
    got = selective_scan_fn(**inputs, delta_softplus=True)
    torch.testing.assert_close(got, expected, **TOLERANCE[torch.float64])


def test_arguments_by_position_are_in_mamba_ssm_order():
    inputs = arguments(1, 4, 5, 2, 2)
    order = ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"]
    expected = by_the_book(**inputs, delta_softplus=True)
    got = selective_scan_fn(*(inputs[name] for name in order), True, True)
    torch.testing.assert_close(got, expected, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("case", [(1, 2, 4, 2, 1), (2, 4, 3, 2, 2)], ids=str)
def test_gradients_through_output_and_last_state(case):
    inputs = arguments(*case)

    def scan(*tensors):
        named = dict(zip(inputs, tensors, strict=True))
        return selective_scan_fn(**named, delta_softplus=True, return_last_state=True)

    assert gradcheck(scan, tuple(inputs.values()))


def test_gradients_match_those_of_the_equation():
    inputs = arguments(2, 6, 7, 3, 3)
    weights = [torch.randn(2, 6, 7, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)]
    results = []
    for scan in (
        by_the_book(**inputs, delta_softplus=True),
        selective_scan_fn(**inputs, delta_softplus=True, return_last_state=True),
    ):
        loss = sum((x * w).sum() for x, w in zip(scan, weights, strict=True))
        results.append(torch.autograd.grad(loss, list(inputs.values())))
    torch.testing.assert_close(results[1], results[0], **TOLERANCE[torch.float64])


def test_equal_groups_are_one_group():
    inputs = arguments(2, 6, 5, 3, 1)
    several = {n: inputs[n].unsqueeze(1).expand(-1, 3, -1, -1) for n in ("B", "C")}
    torch.testing.assert_close(
        selective_scan_fn(**{**inputs, **several}, return_last_state=True),
        selective_scan_fn(**inputs, return_last_state=True),
        **TOLERANCE[torch.float64],
    )


def test_a_group_serves_consecutive_channels():
    inputs = arguments(1, 6, 5, 2, 3)
    silenced = inputs["C"].detach().clone()
    silenced[:, 1] = 0.0  # the second group's channels keep nothing but the skip
    out = selective_scan_fn(**{**inputs, "C": silenced, "z": None})
    skip = inputs["D"][:, None] * inputs["u"]
    silent = torch.isclose(out, skip).all(dim=2)[0]
    assert silent.tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(dtype, gated):
    # A, D and the bias stay float32, as in mamba_ssm under mixed precision
    inputs = {n: t.detach() for n, t in arguments(2, 4, 9, 3, 2, torch.float32).items()}
    half = {n: t.to(dtype) if n in ("u", "delta", "B", "C", "z") else t for n, t in inputs.items()}
    if not gated:
        half["z"] = None
    out, last = selective_scan_fn(**half, delta_softplus=True, return_last_state=True)
    single = {n: None if t is None else t.double() for n, t in half.items()}
    expected, expected_last = by_the_book(**single, delta_softplus=True)
    assert (out.dtype, last.dtype) == (dtype, torch.float32)
    # one rounding is at most half a unit in the last place; two could reach a whole one
    assert ((out.double() - expected).abs() <= 0.505 * _unit(expected, dtype) + 1e-5).all()
    torch.testing.assert_close(last.double(), expected_last, **TOLERANCE[torch.float32])


def _unit(x, dtype):
    """Distance between the numbers of `dtype` near x."""
    return torch.finfo(dtype).eps * 2.0 ** torch.floor(torch.log2(x.abs()))


def test_float32_gives_float32():
    inputs = arguments(2, 4, 9, 3, 1, torch.float32)
    out, last = selective_scan_fn(**inputs, delta_softplus=True, return_last_state=True)
    expected = by_the_book(**{n: t.double() for n, t in inputs.items()}, delta_softplus=True)
    assert (out.dtype, last.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close((out.double(), last.double()), expected, **TOLERANCE[torch.float32])


def test_strides_do_not_matter():
    inputs = {n: t.detach() for n, t in arguments(2, 6, 7, 3, 2).items()}
    strided = {
        # time first in memory; every second element of something wider
        n: t.movedim(-1, 0).contiguous().movedim(0, -1)
        if t.ndim > 2
        else torch.stack([t, torch.full_like(t, torch.nan)], dim=-1)[..., 0]
        for n, t in inputs.items()
    }
    assert not any(t.is_contiguous() for t in strided.values())
    out, last = selective_scan_fn(**strided, return_last_state=True)
    expected, expected_last = selective_scan_fn(**inputs, return_last_state=True)
    torch.testing.assert_close(out, expected, **TOLERANCE[torch.float64])
    torch.testing.assert_close(last, expected_last, **TOLERANCE[torch.float64])
    assert out.is_contiguous()  # models call view() on it


def test_a_vmamba_cross_scan_is_four_groups():
    # VMamba and VM-UNet stack four directions of an image as groups and merge them afterwards
    batch, channels, length, state = 2, 3, 6, 2
    x = torch.randn(batch, channels, length, dtype=torch.float64)
    inputs = arguments(batch, 4 * channels, length, state, 4)
    directions = [x, x.flip(-1), x.roll(1, -1), x.flip(-1).roll(1, -1)]
    out = selective_scan_fn(**{**inputs, "u": torch.cat(directions, dim=1), "z": None})
    for k, u in enumerate(directions):
        run = slice(k * channels, (k + 1) * channels)
        alone = selective_scan_fn(
            u,
            inputs["delta"][:, run],
            inputs["A"][run],
            inputs["B"][:, k],
            inputs["C"][:, k],
            inputs["D"][run],
            delta_bias=inputs["delta_bias"][run],
        )
        torch.testing.assert_close(out.view(batch, 4, channels, length)[:, k], alone)


@pytest.mark.parametrize("name", ["B", "C"])
def test_maps_constant_over_time_are_refused(name):
    inputs = arguments(1, 4, 5, 2, 1)
    with pytest.raises(ValueError, match=rf"{name} of shape \(4, 2\) is .* constant over time"):
        selective_scan_fn(**{**inputs, name: torch.zeros(4, 2)})


def test_complex_states_are_refused():
    inputs = arguments(1, 4, 5, 2, 1, torch.float32)
    with pytest.raises(ValueError, match="complex; only real state spaces"):
        selective_scan_fn(**{**inputs, "A": inputs["A"].to(torch.complex64)})


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("u", (4, 5), r"u must be \(batch, dim, length\)"),
        ("A", (3, 2), r"A must be \(dim, state\) with dim = 4"),
        ("delta", (1, 5, 4), r"delta must be \(1, 4, 5\)"),
        ("B", (1, 2, 2, 6), r"B must be \(1, 2, 2, 5\)"),
        ("B", (1, 3, 2, 5), "the 3 groups of B do not divide the 4 channels"),
        ("B", (1, 1, 2, 2, 5), r"B must be \(batch, state, length\) or \(batch, groups"),
        ("C", (1, 2, 5), r"C must be \(1, 2, 2, 5\)"),
        ("D", (1, 4), r"D must be \(4,\)"),
        ("z", (1, 4, 4), r"z must be \(1, 4, 5\)"),
        ("delta_bias", (5,), r"delta_bias must be \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, shape, words):
    inputs = arguments(1, 4, 5, 2, 2)
    with pytest.raises(ValueError, match=words):
        selective_scan_fn(**{**inputs, name: torch.zeros(shape, dtype=torch.float64)})


def test_both_names_of_mamba_ssm_can_be_imported():
    # VM-UNet and others import the two on one line
    from hymunet.scan.compat import selective_scan_fn, selective_scan_ref

    u = torch.randn(1, 4, 6)
    given = (u, u.abs(), -torch.rand(4, 2), torch.randn(1, 2, 6), torch.randn(1, 2, 6))
    assert torch.equal(selective_scan_ref(*given), selective_scan_fn(*given))
