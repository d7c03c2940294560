"""The Numba kernels: equal to the reference in value and gradient, whatever the shape, the layout,
the type, the size of the numbers and the number of threads."""

import subprocess
import sys
import textwrap

import pytest
import torch

from hymunet.scan import scan_orders, selective_scan_reference, selective_scan_with_states
from tests.cases import SCAN_CASES, TOLERANCE, scan_inputs

pytest.importorskip("numba", reason="NOT TESTED: the CPU kernels need Numba")

from hymunet.scan import cpu
from hymunet.scan.cpu_kernels import SEGMENT

# a vector holds 16 channels (8 in float64) and the backward keeps a state every SEGMENT steps:
# shapes on both sides of each limit
CASES = [
    *SCAN_CASES,
    (1, (1, SEGMENT), 16, 4),
    (2, (1, SEGMENT + 1), 17, 5),
    (1, (7, 9), 33, 16),
    (3, (6, 8), 130, 1),
]
PARTS = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def error(got, expected):
    """max |got - expected| / max |expected|."""
    scale = expected.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    return float((got.double() - expected.double()).abs().max() / scale)


def values_and_gradients(scan, inputs):
    """y, the last states and each gradient, from seeds that both implementations share."""
    inputs = {
        name: value.detach().clone().requires_grad_()
        if torch.is_tensor(value) and value.is_floating_point()
        else value
        for name, value in inputs.items()
    }
    y, last = scan(**inputs)
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (y, last)]
    ((y * seeds[0]).sum() + (last * seeds[1]).sum()).backward()
    gradients = {name: inputs[name].grad for name in PARTS if inputs.get(name) is not None}
    return {"y": y.detach(), "last states": last.detach(), **gradients}


def assert_equal_to_reference(inputs, **tolerance):
    got = values_and_gradients(selective_scan_with_states, inputs)
    expected = values_and_gradients(selective_scan_reference, inputs)
    for name, value in expected.items():
        torch.testing.assert_close(
            got[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


def inputs_for(case, dtype):
    batch, grid, channels, state = case
    order = scan_orders(grid)
    return {
        **scan_inputs(batch, order.shape[1], len(order), channels, state, dtype),
        "order": order,
    }


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "bias and softplus"])
def test_equals_the_reference(case, fused):
    inputs = inputs_for(case, torch.float64)
    if fused:
        inputs["delta_softplus"] = True
    else:
        del inputs["delta_bias"]
        inputs["delta"] = inputs["delta"].detach().abs()
    assert_equal_to_reference(inputs, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference_in_float32(case):
    inputs = {**inputs_for(case, torch.float32), "delta_softplus": True}
    assert_equal_to_reference(inputs, rtol=1e-4, atol=1e-4)


def test_without_an_order():
    inputs = {**inputs_for((2, (5, 7), 20, 4), torch.float64), "order": None}
    assert_equal_to_reference({**inputs, "delta_softplus": True}, **TOLERANCE[torch.float64])


def test_any_permutation_is_an_order():
    inputs = inputs_for((2, (1, 50), 20, 4), torch.float64)
    inputs["order"] = torch.stack([torch.randperm(50) for _ in range(4)])
    assert_equal_to_reference({**inputs, "delta_softplus": True}, **TOLERANCE[torch.float64])


def strided(tensor):
    """The same numbers, neighbours of the last axis three apart."""
    wide = torch.full((*tensor.shape, 3), float("nan"), dtype=tensor.dtype)
    wide[..., 1] = tensor
    return wide[..., 1]


def sliced(tensor):
    """The same numbers as a slice of a wider last axis, like B in a fused projection."""
    wide = torch.full((*tensor.shape[:-1], tensor.shape[-1] + 5), float("nan"), dtype=tensor.dtype)
    wide[..., 2:-3] = tensor
    return wide[..., 2:-3]


def transposed(tensor):
    """The same numbers, the first and the last axis exchanged in memory."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.parametrize("layout", [strided, sliced, transposed])
def test_any_layout_in_memory(layout):
    inputs = {**inputs_for((2, (5, 7), 20, 4), torch.float64), "delta_softplus": True}
    expected = values_and_gradients(selective_scan_with_states, inputs)
    moved = {n: layout(t.detach()) if n in PARTS else t for n, t in inputs.items()}
    moved["order"] = strided(inputs["order"].double()).to(torch.int64)
    for name in PARTS:
        moved[name].requires_grad_()
    y, last = selective_scan_with_states(**moved)
    assert torch.equal(y, expected["y"])
    assert torch.equal(last, expected["last states"])


def test_gradients_that_were_expanded():
    # y.sum() sends back one number, expanded: every stride of it is 0
    inputs = {**inputs_for((2, (5, 7), 20, 4), torch.float64), "delta_softplus": True}
    got, expected = (
        torch.autograd.grad(scan(**inputs)[0].sum(), [inputs[n] for n in PARTS])
        for scan in (selective_scan_with_states, selective_scan_reference)
    )
    for ours, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, reference, **TOLERANCE[torch.float64])


def accuracy_case(length, dt):
    directions, channels, state = 2, 8, 16
    inputs = scan_inputs(1, length, directions, channels, state, torch.float32)
    del inputs["delta_bias"]
    shape = inputs["delta"].shape
    if dt is None:  # log-uniform
        inputs["delta"] = torch.exp(torch.empty(shape).uniform_(-9.21, 3.0))
    else:
        inputs["delta"] = torch.full(shape, dt)
    inputs["A"] = -torch.arange(1.0, 17.0).expand(directions, channels, state).clone()
    inputs["D"] = torch.zeros(channels)  # a skip of size 1 would hide what happens to small states
    inputs["order"] = torch.stack([torch.arange(length), torch.randperm(length)])
    return inputs


@pytest.mark.parametrize("dt", [1e-4, 1e-2, 1.0, 20.0, None])
@pytest.mark.parametrize("length", [1, 7, 63, 1024, pytest.param(16384, marks=pytest.mark.slow)])
def test_float32_is_accurate_for_slow_and_fast_decay(length, dt):
    inputs = accuracy_case(length, dt)
    got = values_and_gradients(selective_scan_with_states, inputs)
    in_double = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    expected = values_and_gradients(selective_scan_reference, in_double)
    for name, value in expected.items():
        bound = 2e-5 if name in ("y", "last states") else 1e-4
        assert error(got[name], value) <= bound, name


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    inputs = {**inputs_for((3, (20, 20), 80, 16), torch.float32), "delta_softplus": True}
    runs = []
    for threads in (1, 2, 7, 64, 2):  # more than there are cores take turns
        monkeypatch.setattr(cpu, "thread_count", lambda threads=threads: threads)
        runs.append(values_and_gradients(selective_scan_with_states, inputs))
    for run in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(run[name], value), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_in_half_precision_out(dtype):
    inputs = {**inputs_for((2, (5, 7), 20, 4), torch.float32), "delta_softplus": True}
    half = {
        n: t.detach().to(dtype).requires_grad_() if n in ("u", "delta", "B", "C") else t
        for n, t in inputs.items()
    }
    got = values_and_gradients(selective_scan_with_states, half)
    rounded = {n: t.float() if n in PARTS else t for n, t in half.items()}
    expected = values_and_gradients(selective_scan_with_states, rounded)
    for name in ("y", "u", "delta", "B", "C"):
        assert got[name].dtype == dtype, name
        assert error(got[name], expected[name]) < 1e-2, name
    for name in ("last states", "A", "D", "delta_bias"):
        assert got[name].dtype == torch.float32, name


def one_channel(u, dt, A):
    """A scan of one channel and direction with B = C = 1 and D = 0; (length,) each."""
    length = len(u)
    ones = torch.ones(1, length, 1, 1)
    return selective_scan_with_states(
        torch.tensor(u).view(1, length, 1),
        torch.tensor(dt).view(1, length, 1, 1),
        torch.tensor([[[A]]]),
        ones,
        ones,
        torch.zeros(1),
    )[0].flatten()


def test_nan_and_infinity_are_not_hidden():
    nan, inf = float("nan"), float("inf")
    assert one_channel([1.0, 1.0, 1.0], [1.0, nan, 1.0], -1.0).isnan().tolist() == [
        False,
        True,
        True,
    ]
    assert one_channel([1.0, nan, 1.0], [1.0, 1.0, 1.0], -1.0).isnan().tolist() == [
        False,
        True,
        True,
    ]
    assert not one_channel([1.0, inf, 1.0], [1.0, 1.0, 1.0], -1.0)[1:].isfinite().any()
    # a growth that leaves float32 does not come back as a number
    assert not one_channel([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 200.0)[1:].isfinite().any()


def test_a_decay_that_underflows_forgets_everything():
    y = one_channel([5.0, 3.0, 2.0], [1.0, 1000.0, 1e30], -1.0)
    torch.testing.assert_close(y, torch.tensor([5.0, 3000.0, 2e30]), rtol=1e-6, atol=0)


def test_softplus_of_large_and_small_steps():
    raw = torch.tensor([-200.0, -88.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 88.0, 200.0, 3e38])
    length = len(raw)
    u = torch.ones(1, length, 1)
    ones = torch.ones(1, length, 1, 1)
    # with A = -inf nothing is remembered, so y = softplus(delta)
    y = selective_scan_with_states(
        u,
        raw.view(1, length, 1, 1),
        torch.tensor([[[-1e30]]]),
        ones,
        ones,
        torch.zeros(1),
        delta_softplus=True,
    )[0].flatten()
    expected = torch.nn.functional.softplus(raw.double())
    kept = expected > 1e-38  # below lie numbers that float32 rounds to 0 or nearly
    torch.testing.assert_close(y[kept].double(), expected[kept], rtol=3e-6, atol=0)
    assert y[~kept].abs().max() < 1e-37


def test_memory_of_a_training_step_does_not_hold_the_states():
    # states of every step would be 2048 x 4 x 32 x 16 numbers; saved are the inputs alone
    inputs = scan_inputs(1, 2048, 4, 32, 16, torch.float32)
    saved = []

    def pack(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        selective_scan_with_states(**inputs)
    assert sum(saved) == sum(tensor.numel() for tensor in inputs.values())


@pytest.mark.slow
def test_without_numba_the_plain_scan_serves():
    program = """
        import sys
        import warnings
        sys.modules["numba"] = None  # what an import finds where the package is missing
        import torch
        from hymunet.network.hymunet import hymunet_tiny
        from hymunet.scan import backend_name
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert backend_name("cpu") == "torch"
        assert "pip install numba" in str(caught[0].message)
        network = hymunet_tiny()
        network(torch.randn(2, 3, 64, 64)).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        print("trained")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "trained\n", done.stderr
