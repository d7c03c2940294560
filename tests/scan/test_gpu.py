"""The Triton kernels in Triton's interpreter, through its compiler, and on a GPU if there is one.

Triton decides when it is imported whether kernels are interpreted, so they run in a process of
their own, and nothing that other tests import or set can reach it.
"""

import io
import os
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

import pytest
import torch

from hymunet.scan import scan_orders, selective_scan_reference
from tests.cases import SCAN_CASES, TOLERANCE, scan_inputs

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        find_spec("triton") is None,
        reason="THE TRITON KERNELS ARE NOT TESTED: triton is not installed; pip install triton",
    ),
]
DEVICES = ["interpreter", "cuda"] if torch.cuda.is_available() else ["interpreter"]
ARGUMENTS = ("u", "delta", "A", "B", "C", "D", "order", "delta_bias", "delta_softplus")
DIFFERENTIABLE = ("u", "delta", "A", "B", "C", "D", "delta_bias")
BATCH, CHANNELS, STATE = 1, 2, 3  # the interpreter takes milliseconds a step: tiny, and few steps


def to_bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def from_bytes(data, device="cpu"):
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)


def run_kernels(data, device):
    """In the other process: values and, where asked for, gradients of one scan."""
    from hymunet.scan.gpu import scan_backward, scan_forward

    given = from_bytes(data, device)
    arguments = [given[name] for name in ARGUMENTS]
    results = dict(zip(("y", "last"), scan_forward(*arguments), strict=True))
    if "grad_y" in given:
        gradients = scan_backward(given["grad_y"], given["grad_last"], *arguments)
        results |= dict(zip(DIFFERENTIABLE, gradients, strict=True))
    return to_bytes({n: t if t is None else t.cpu() for n, t in results.items()})


def compile_kernel(name, architecture, constants, pointers):
    """In the other process: the PTX and the size of the machine code that a kernel compiles to."""
    import triton
    from triton.backends.compiler import GPUTarget

    from hymunet.scan import gpu_kernels

    kernel = getattr(gpu_kernels, name)
    signature = {
        argument: "constexpr"
        if argument in constants
        else f"*{pointers.get(argument, pointers['else'])}"
        if argument.startswith("p_")
        else "i32"
        for argument in kernel.arg_names
    }
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": 1, "enable_fp_fusion": True},
    )
    return compiled.asm["ptx"], len(compiled.asm["cubin"])


def worker(interpret, cache):
    """One process that has, or has not, Triton's interpreter switched on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1" if interpret else "0")
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
        assert pool.submit(os.getenv, "TRITON_INTERPRET").result() == ("1" if interpret else "0")
    return pool


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    with worker(interpret=False, cache=tmp_path_factory.mktemp("triton")) as pool:
        yield pool


@pytest.fixture(scope="module", params=DEVICES)
def kernels(request, tmp_path_factory):
    """A function that runs the kernels on a scan's arguments (dict) and returns its results."""
    on_gpu = request.param == "cuda"
    with worker(interpret=not on_gpu, cache=tmp_path_factory.mktemp("triton")) as pool:
        device = "cuda" if on_gpu else "cpu"
        yield lambda inputs: from_bytes(pool.submit(run_kernels, to_bytes(inputs), device).result())


def arguments_for(length, directions, channels, state, dtype, batch=BATCH, fused=True, **changes):
    """Random arguments that decay, and gradients of both outputs."""
    inputs = {
        name: tensor.detach()
        for name, tensor in scan_inputs(batch, length, directions, channels, state, dtype).items()
    }
    if not fused:
        inputs |= {"delta": inputs["delta"].abs(), "delta_bias": None}
    return {
        **inputs,
        "order": torch.stack([torch.randperm(length) for _ in range(directions)]),
        "delta_softplus": fused,
        "grad_y": torch.randn(batch, length, channels, dtype=dtype),
        "grad_last": torch.randn(batch, directions, channels, state, dtype=dtype),
        **changes,
    }


def expected(inputs):
    """Values and gradients of the reference in float64."""
    exact = {
        n: t.double() if torch.is_tensor(t) and t.is_floating_point() else t
        for n, t in inputs.items()
    }
    grad_y, grad_last = exact.pop("grad_y"), exact.pop("grad_last")
    leaves = {n: exact[n].requires_grad_() for n in DIFFERENTIABLE if exact[n] is not None}
    y, last = selective_scan_reference(**exact)
    if grad_last is None:
        grad_last = torch.zeros_like(last)
    gradients = torch.autograd.grad((y, last), list(leaves.values()), (grad_y, grad_last))
    return {"y": y.detach(), "last": last.detach(), **dict(zip(leaves, gradients, strict=True))}


def assert_agree(results, inputs, **tolerance):
    wanted = expected(inputs)
    assert {n for n, t in results.items() if t is not None} == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(
            results[name].double(), value, **tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_matches_the_reference_in_float64(kernels, case):
    batch, grid, channels, state = case
    order = scan_orders(grid)
    order = order if order.shape[1] < 20 else order[-2:]  # two directions of a long one: it is slow
    inputs = arguments_for(
        order.shape[1], len(order), channels, state, torch.float64, batch=batch, order=order
    )
    assert_agree(kernels(inputs), inputs, **TOLERANCE[torch.float64])


# below a segment, its last step missing, and several of them with an unfinished one at the end
@pytest.mark.parametrize("length", [1, 7, 63, 100])
def test_matches_the_reference_at_any_length(kernels, length):
    inputs = arguments_for(length, 1, CHANNELS, STATE, torch.float32)
    assert_agree(kernels(inputs), inputs, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("length", [1, 37])
def test_without_order_bias_and_softplus(kernels, length):
    inputs = arguments_for(length, 2, CHANNELS, STATE, torch.float32, fused=False, order=None)
    assert_agree(kernels(inputs), inputs, **TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    ("channels", "state"), [(1, 1), (70, 1), (35, 16), (3, 20), (17, 64)], ids=str
)
def test_blocks_that_are_not_full(kernels, channels, state):
    inputs = arguments_for(5, 1, channels, state, torch.float32)
    assert_agree(kernels(inputs), inputs, **TOLERANCE[torch.float32])


def test_views_are_read_in_place_and_give_the_same_bits(kernels):
    length, directions, channels, state = 5, 2, 3, 4
    inputs = arguments_for(length, directions, channels, state, torch.float32, batch=2)
    projected = torch.randn(2, length, directions, channels + 2 * state + 1)
    delta, B, C, _ = projected.split([channels, state, state, 1], dim=-1)
    image = torch.randn(2, channels, length).transpose(1, 2)  # channels are not the last axis
    views = {
        **inputs,
        "u": image,
        "delta": delta,
        "B": B,
        "C": C,
        "D": torch.randn(2 * channels)[::2],
        "A": -torch.rand(directions, state, channels).transpose(1, 2),
        "grad_y": torch.ones(()).expand(2, length, channels),
        "order": inputs["order"][:1].expand(2, -1),
    }
    assert not any(views[n].is_contiguous() for n in ("u", "delta", "A", "B", "C", "D", "grad_y"))
    copies = {n: t.contiguous() if torch.is_tensor(t) else t for n, t in views.items()}
    results, of_copies = kernels(views), kernels(copies)
    assert all(torch.equal(results[name], of_copies[name]) for name in of_copies)
    assert_agree(results, views, **TOLERANCE[torch.float32])


def test_no_gradient_of_the_last_states_is_a_zero_one(kernels):
    inputs = arguments_for(4, 1, CHANNELS, STATE, torch.float32)
    without = kernels({**inputs, "grad_last": None})
    zero = kernels({**inputs, "grad_last": torch.zeros_like(inputs["grad_last"])})
    assert all(torch.equal(without[name], zero[name]) for name in zero)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_computes_in_float32_and_returns_each_dtype(kernels, dtype):
    inputs = arguments_for(9, 1, CHANNELS, STATE, torch.float32)
    half = {n: inputs[n].to(dtype) for n in ("u", "delta", "B", "C", "grad_y")}
    results = kernels(inputs | half)
    types = {name: tensor.dtype for name, tensor in results.items()}
    assert all(types[n] == dtype for n in ("y", "u", "delta", "B", "C"))
    assert all(types[n] == torch.float32 for n in ("last", "A", "D", "delta_bias"))
    rounding = torch.finfo(dtype).eps
    assert_agree(results, inputs | half, rtol=rounding, atol=1e-3 * rounding)


def test_small_steps_keep_their_digits(kernels):
    # softplus(-15) is 3e-7: log(1 + e^x) in float32 would have one digit of it
    inputs = arguments_for(3, 1, CHANNELS, STATE, torch.float32)
    inputs |= {"delta": torch.full((1, 3, 1, CHANNELS), -15.0), "D": torch.zeros(CHANNELS)}
    inputs["delta_bias"] = torch.zeros(1, CHANNELS)
    torch.testing.assert_close(
        kernels(inputs)["last"].double(), expected(inputs)["last"], rtol=1e-5, atol=0.0
    )


def test_nan_stays_in_its_channel_and_is_not_hidden(kernels):
    inputs = arguments_for(40, 1, CHANNELS, STATE, torch.float32)
    seventh = int(inputs["order"][0, 7])
    inputs["u"][0, seventh, 1] = float("nan")
    results, wanted = kernels(inputs), expected(inputs)
    for name in ("y", "last", "u", "delta", "A", "B", "C", "D", "delta_bias"):
        assert torch.equal(results[name].isnan(), wanted[name].isnan()), name
    assert results["y"][0, inputs["order"][0, 7:], 1].isnan().all()
    assert not results["y"][..., 0].isnan().any()


def test_what_overflows_over_a_segment_leaves_a_zero_state_alone(kernels):
    # decay e^5 a step, nothing put in before the last step: infinity times zero must not appear
    length = 70
    inputs = arguments_for(length, 1, 1, 1, torch.float32, fused=False, order=None)
    for name in ("grad_y", "grad_last"):
        del inputs[name]
    inputs |= {"A": torch.full((1, 1, 1), 5.0), "delta": torch.ones(1, length, 1, 1)}
    inputs["u"][:, :-1] = 0.0
    y, last = selective_scan_reference(**inputs)
    results = kernels(inputs)
    torch.testing.assert_close(results["y"], y)
    torch.testing.assert_close(results["last"], last)


@pytest.mark.skipif(
    "cuda" not in DEVICES, reason="THE TRITON KERNELS ARE NOT TESTED ON A GPU: torch sees none"
)
@pytest.mark.parametrize("kernels", ["cuda"], indirect=True)
@pytest.mark.parametrize("length", [1024, 16384])
def test_a_real_size_on_a_gpu(kernels, length):
    inputs = arguments_for(length, 4, 96, 16, torch.float32)
    results = kernels(inputs)
    wanted = expected({n: t.cuda() if torch.is_tensor(t) else t for n, t in inputs.items()})
    for name, value in wanted.items():
        error = (results[name].double() - value.cpu()).abs().max() / value.abs().max()
        assert error <= (2e-5 if name in ("y", "last") else 1e-4), f"{name}: {error}"
    assert all(torch.equal(again, results[name]) for name, again in kernels(inputs).items())


FLOAT32 = {"else": "fp32", "p_order": "i64"}
HALF = FLOAT32 | dict.fromkeys(("p_u", "p_delta", "p_B", "p_C", "p_dy", "p_ddelta"), "bf16")
FLOAT64 = {"else": "fp64", "p_order": "i64"}
WALK = {"HAS_ORDER": True, "SOFTPLUS": True, "SEGMENT": 32, "BLOCK_N": 16, "BLOCK_C": 32}
KERNELS = [
    ("walk_segments", WALK | {"OUTPUT": True, "ADJOINT": False}),
    ("walk_segments", WALK | {"OUTPUT": False, "ADJOINT": True}),
    ("join_segments", {"REVERSE": True, "SPAN": 8, "BLOCK": 128}),
    ("backward_segments", WALK | {"RUN": 16}),
]


@pytest.mark.parametrize(("name", "constants"), KERNELS, ids=["output", "ends", "join", "backward"])
@pytest.mark.parametrize(
    ("architecture", "pointers"),
    [
        pytest.param(90, HALF, id="sm_90 bfloat16"),
        pytest.param(80, FLOAT32, id="sm_80 float32", marks=pytest.mark.slow),
        pytest.param(90, FLOAT64, id="sm_90 float64", marks=pytest.mark.slow),
    ],
)
def test_compiles_without_atomics(compiler, name, constants, architecture, pointers):
    ptx, size = compiler.submit(compile_kernel, name, architecture, constants, pointers).result()
    assert f".target sm_{architecture}" in ptx
    assert size > 0
    # a sum whose order changes from run to run would come from these
    assert "atom." not in ptx
    assert "red.global" not in ptx
