"""The registered operator inside torch: opcheck, compiled graphs, vmap, autocast, inference mode,
and the two errors that only it can raise."""

import subprocess
import sys
import textwrap
import warnings
from importlib.util import find_spec

import pytest
import torch

from hymunet.scan import (
    backend_name,
    scan_orders,
    selective_scan,
    selective_scan_reference,
    selective_scan_with_states,
)
from hymunet.scan.operator import _reference_backward, _scan_backward, backend
from tests.cases import TOLERANCE, scan_inputs

NAMES = ("u", "delta", "A", "B", "C", "D", "order", "delta_bias", "delta_softplus")


def arguments(dtype=torch.float64, channels=5, grid=(3, 4), bias=True):
    order = scan_orders(grid)
    inputs = scan_inputs(2, order.shape[1], len(order), channels, 3, dtype)
    inputs |= {"order": order, "delta_softplus": True}
    if not bias:
        inputs["delta_bias"] = None
    return tuple(inputs[name] for name in NAMES)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype, bias):
    torch.library.opcheck(
        torch.ops.hymunet.selective_scan.default,
        arguments(dtype, bias=bias),
        atol=1e-2 if dtype == torch.bfloat16 else 1e-5,
        rtol=1e-2 if dtype == torch.bfloat16 else 1e-4,
    )


@pytest.mark.skipif(find_spec("numba") is None, reason="opcheck cannot look into torch.func")
@pytest.mark.parametrize("bias", [True, False])
def test_opcheck_of_the_backward(bias):
    given = tuple(t.detach() if torch.is_tensor(t) else t for t in arguments(bias=bias))
    torch.library.opcheck(
        torch.ops.hymunet.selective_scan_backward.default,
        (torch.randn_like(given[0]), None, *given),
    )


def test_gradients_by_finite_differences():
    given = arguments(channels=2, grid=(2, 3))
    assert torch.autograd.gradcheck(lambda *a: selective_scan_with_states(*a), given)


def test_gradients_of_the_last_states_alone():
    given = arguments()
    _, last = selective_scan_with_states(*given)
    (by_sum,) = torch.autograd.grad(last.sum(), given[0])
    assert by_sum.abs().max() > 0
    y, last = selective_scan_with_states(*given)
    (with_y,) = torch.autograd.grad(last.sum() + 0 * y.sum(), given[0])
    torch.testing.assert_close(by_sum, with_y)


@pytest.mark.parametrize("bias", [True, False])
def test_kernels_and_plain_torch_agree_on_every_gradient(bias):
    given = tuple(t.detach() if torch.is_tensor(t) else t for t in arguments(bias=bias))
    _, last = selective_scan_with_states(*given)
    seeds = (torch.randn_like(given[0]), torch.randn_like(last))
    fast, plain = _scan_backward(*seeds, *given), _reference_backward(*seeds, *given)
    for ours, theirs in zip(fast, plain, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic):
    @torch.compile(fullgraph=True, dynamic=dynamic, backend="aot_eager")
    def compiled(u, *rest):
        return selective_scan(torch.tanh(u), *rest) * 2

    def eager(u, *rest):
        return selective_scan(torch.tanh(u), *rest) * 2

    for grid in ((3, 4), (5, 2)):
        given = arguments(grid=grid)
        torch.testing.assert_close(compiled(*given), eager(*given))
        got, expected = (
            torch.autograd.grad(f(*given).square().sum(), given[:6]) for f in (compiled, eager)
        )
        for ours, reference in zip(got, expected, strict=True):
            torch.testing.assert_close(ours, reference)


def test_a_network_compiles_into_one_graph():
    from hymunet.network.hymunet import hymunet_tiny

    torch.manual_seed(0)
    network = hymunet_tiny().eval()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-5)


def test_vmap_over_tokens_is_a_larger_batch():
    u, delta, A, B, C, D, order, bias, softplus = arguments()
    us = torch.stack([u, 2 * u, -u])
    Bs = torch.stack([B, B + 1, B], dim=1)

    def scan(u, B):
        return selective_scan(u, delta, A, B, C, D, order, bias, softplus)

    mapped = torch.func.vmap(scan, in_dims=(0, 1))(us, Bs)
    looped = torch.stack([scan(us[i], Bs[:, i]) for i in range(3)])
    torch.testing.assert_close(mapped, looped)


def test_vmap_over_parameters():
    u, delta, A, B, C, D, order, bias, softplus = arguments()
    As = torch.stack([A, 2 * A])

    def scan(A):
        return selective_scan(u, delta, A, B, C, D, order, bias, softplus)

    torch.testing.assert_close(torch.func.vmap(scan)(As), torch.stack([scan(A) for A in As]))


def test_autocast_gives_what_the_types_say():
    u, delta, A, B, C, D, order, bias, softplus = arguments(torch.float32)
    weight = torch.randn(5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = u @ weight  # bfloat16
        y = selective_scan(tokens, delta, A, B, C, D, order, bias, softplus)
    assert tokens.dtype == y.dtype == torch.bfloat16
    expected = selective_scan(tokens.float(), delta, A, B, C, D, order, bias, softplus)
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1e-2)
    y.float().square().sum().backward()
    assert weight.grad.dtype == torch.float32
    assert weight.grad.isfinite().all()


def test_inference_mode():
    given = arguments()
    with torch.inference_mode():
        inside = selective_scan(*given)
    assert torch.equal(inside, selective_scan(*given))


def test_a_second_derivative_is_refused():
    given = arguments()
    (gradient,) = torch.autograd.grad(selective_scan(*given).sum(), given[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"use hymunet\.scan\.selective_scan_reference"):
        gradient.sum().backward()


def test_derivatives_of_other_kinds_are_refused_and_never_zero():
    u, *rest = arguments()
    rest = [t.detach() if torch.is_tensor(t) else t for t in rest]
    u = u.detach()

    def loss(u):
        return selective_scan(u, *rest).square().sum()

    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(loss, (u,), (torch.ones_like(u),))
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jacfwd(loss)(u)
    with pytest.raises(NotImplementedError, match=r"use torch\.autograd\.grad"):
        torch.func.grad(loss)(u)


def test_a_traced_graph_refuses_other_sizes():
    given = [t.detach() if torch.is_tensor(t) else t for t in arguments()]
    order, bias = given[6:8]

    class Scan(torch.nn.Module):
        def forward(self, u, delta, A, B, C, D):
            return selective_scan(u, delta, A, B, C, D, order, bias, True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of the checks that it drops
        traced = torch.jit.trace(Scan(), tuple(given[:6]))
    torch.testing.assert_close(traced(*given[:6]), Scan()(*given[:6]))
    longer = [
        torch.cat([t, t], dim=1) if t.ndim > 2 and i != 2 else t for i, t in enumerate(given[:6])
    ]
    with pytest.raises(RuntimeError, match="order must be int64 of shape"):
        traced(*longer)


def test_the_operator_itself_refuses_what_does_not_fit():
    given = [t.detach() if torch.is_tensor(t) else t for t in arguments()]
    y, last = torch.ops.hymunet.selective_scan(*given)
    with pytest.raises(ValueError, match="the gradient of y must be"):
        torch.ops.hymunet.selective_scan_backward(y[:, :3], None, *given)
    with pytest.raises(ValueError, match="the gradient of the last states must be"):
        torch.ops.hymunet.selective_scan_backward(y, last[:1], *given)
    given[3] = given[3][:, :5]
    with pytest.raises(ValueError, match="B must be"):
        torch.ops.hymunet.selective_scan(*given)


def test_an_order_that_numpy_changed_after_the_forward_is_refused_in_the_backward():
    # torch does not see what NumPy writes
    given = list(arguments())
    given[6] = given[6].clone()
    y = selective_scan(*given)
    given[6].numpy()[1, 2] = 10**12
    with pytest.raises(ValueError, match="visit every token once"):
        y.sum().backward()


def test_an_empty_batch_gives_an_empty_result():
    given = [t.detach() if torch.is_tensor(t) else t for t in arguments()]
    empty = [t[:0] if i in (0, 1, 3, 4) else t for i, t in enumerate(given)]
    for scan in (selective_scan_with_states, selective_scan_reference):
        y, last = scan(*empty)
        assert y.shape == (0, 12, 5)
        assert last.shape == (0, 4, 5, 3)


def test_a_scan_without_directions_is_refused():
    u, delta, A, B, C, D, *_ = arguments()
    with pytest.raises(ValueError, match="A has no directions"):
        selective_scan(u, delta[:, :, :0], A[:0], B[:, :, :0], C[:, :, :0], D)


def test_a_wrong_order_is_refused_inside_a_compiled_graph():
    compiled = torch.compile(selective_scan, fullgraph=True, backend="aot_eager")
    given = list(arguments())
    given[6] = given[6].clone()
    compiled(*given)
    given[6][2, 3] = 10**6
    with pytest.raises(ValueError, match="visit every token once"):
        compiled(*given)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("B", lambda t: t.detach().to("meta"), "B is on meta, but u is on cpu"),
        ("order", lambda t: t.to("meta"), r"make it there: scan_orders\(grid, device=u.device\)"),
        ("D", lambda t: None, "D must be a tensor, not NoneType"),
        ("u", lambda t: t.detach().numpy(), "u must be a tensor, not ndarray"),
        ("u", lambda t: t.long(), "u must hold floating-point numbers, not torch.int64"),
        ("order", lambda t: t.int(), r"order must be int64 .* but it is torch.int32"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(name, value, words):
    given = list(arguments())
    given[NAMES.index(name)] = value(given[NAMES.index(name)])
    with pytest.raises(ValueError, match=words):
        selective_scan(*given)


@pytest.mark.parametrize("plain", [False, True], ids=["operator", "reference"])
def test_autocast_does_not_touch_the_recurrence(plain):
    given = arguments(torch.float32)
    scan = selective_scan_reference if plain else selective_scan_with_states
    expected = scan(*given)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = scan(*given)[0]
    assert torch.equal(got, expected)


def test_what_computes_has_a_name():
    assert backend_name("cpu") == ("torch" if backend("cpu") is None else "numba")
    assert backend_name("mps") == "torch"


@pytest.mark.slow
def test_distributed_training_averages_the_gradients():
    # two processes that see half a batch each, against one that sees it whole
    program = """
        import sys
        import torch
        import torch.distributed as dist
        import torch.multiprocessing as mp
        from torch.nn.parallel import DistributedDataParallel
        from hymunet.network.mamba import VSSBlock

        def block():
            torch.manual_seed(0)
            return VSSBlock(16, 2, 4, 2)

        def work(rank, port, tokens):
            torch.set_num_threads(1)
            address = f"tcp://127.0.0.1:{port}"
            dist.init_process_group("gloo", address, rank=rank, world_size=2)
            module = DistributedDataParallel(block())
            module(tokens[rank : rank + 1]).square().mean().backward()
            if rank == 0:
                whole = block()
                whole(tokens).square().mean().backward()
                for ours, theirs in zip(module.parameters(), whole.parameters(), strict=True):
                    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
                print("agreed", flush=True)
            dist.destroy_process_group()

        if __name__ == "__main__":
            import socket
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            torch.manual_seed(1)
            mp.spawn(work, (port, torch.randn(2, 6, 5, 16)), nprocs=2)
    """
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(textwrap.dedent(program))
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "agreed\n", done.stderr
