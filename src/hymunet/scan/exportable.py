"""The selective scan in torch's own operators, for ONNX and for programs that outlive this package.

`torch.export.export` keeps `torch.ops.hymunet.selective_scan` as one node: right for torch's own
runtimes, where that node is the fast kernel. Runtimes that know nothing of this package need the
recurrence itself, and `portable_program` writes it into an exported program as one
`torch.ops.higher_order.scan`, which `to_onnx` turns into one ONNX `Scan` node.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan_op
from torch.export import ExportedProgram
from torch.nn import functional as F

from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.scan.reference import compute_dtype

# steps of the recurrence in one round of the loop
BLOCK = 16
# 2 atanh(z) / z as a polynomial in z^2, z^2 in [0, 1/9], lowest power first
_ATANH = (2.0, 0.666663216, 0.400245952, 0.279651578, 0.281577783)


def selective_scan_portable(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """`selective_scan` as gathers, one `scan` that advances all directions together, and gathers.

    The recurrence and the shapes are those of `hymunet.scan.selective_scan`, which checks them;
    with i = order[k, t], for each step t and all directions k at once:

        h[t, k] = exp(delta[i, k] A[k]) h[t-1, k] + delta[i, k] u[i] B[i, k]
        y[t, k] = C[i, k] . h[t, k]

    Every size may be symbolic. In eager mode this is the slowest form of the scan: it is here to be
    traced.

    Returns:
        y (batch, length, channels) in u's dtype, and the last states
        (batch, directions, channels, state) in the dtype of the computation.
    """
    batch, length, channels = u.shape
    directions, _, state = A.shape
    compute = compute_dtype(u.dtype)
    # index_select a direction rather than one gather of length * directions rows: a product of
    # symbolic sizes can leave a `sym_numel` in the graph, which ONNX export does not know
    paths = None if order is None else order.unbind(0)
    blocks = (length + BLOCK - 1) // BLOCK

    def in_blocks(per_direction: tuple[Tensor, ...]) -> Tensor:
        """Directions of (batch, length, width) each -> (blocks, BLOCK, batch, directions, width),
        in visiting order, the end of the last block zero: there delta is 0, and h stays."""
        tokens = [x.to(compute).transpose(0, 1) for x in per_direction]
        if paths is not None:
            tokens = [x.index_select(0, path) for x, path in zip(tokens, paths, strict=True)]
        ordered = torch.stack(tokens, dim=2)
        ordered = torch.cat([ordered, ordered.new_zeros(BLOCK - 1, *ordered.shape[1:])])
        return ordered.narrow(0, 0, blocks * BLOCK).view(blocks, BLOCK, *ordered.shape[1:])

    # pointwise work stays outside of the loop: a step of it costs a node's overhead in a runtime
    step_size = delta.to(compute)
    if delta_bias is not None:
        step_size = step_size + delta_bias.to(compute)
    if delta_softplus:
        step_size = _softplus(step_size)
    inputs = step_size * u.to(compute).unsqueeze(2)
    # (directions, state, channels): the long axis last, as the scan's state
    A = A.to(compute).transpose(-1, -2).contiguous()
    start = torch.zeros(1, batch, directions, state, channels, dtype=compute, device=u.device)
    per_block = [
        in_blocks(step_size.unbind(2)).unsqueeze(-2),
        in_blocks(inputs.unbind(2)).unsqueeze(-2),
        in_blocks(B.unbind(2)).unsqueeze(-1),
        in_blocks(C.unbind(2)).unsqueeze(-2),
    ]
    # scan_op, not the `scan` function around it: that one compiles its body first, which fails
    # under symbolic sizes
    last, outputs = scan_op(_advance, [start], per_block, (A,))

    y = D.to(compute) * u.to(compute)
    steps = torch.arange(length, device=u.device)
    outputs = outputs.flatten(0, 1).narrow(0, 0, length)
    for k, output in enumerate(outputs.unbind(2)):  # (length, batch, channels), step by step
        if paths is not None:
            step_of_token = torch.zeros_like(paths[k]).scatter(0, paths[k], steps)
            output = output.index_select(0, step_of_token)
        y = y + output.transpose(0, 1)
    return y.to(u.dtype), last.squeeze(0).transpose(-1, -2).contiguous()


def _advance(
    h: Tensor, step_size: Tensor, inputs: Tensor, B: Tensor, C: Tensor, A: Tensor
) -> list[Tensor]:
    """BLOCK steps of all directions, written out one after the other.

    h (1, batch, directions, state, channels) and A (directions, state, channels); with BLOCK, batch
    and directions in front, step_size and inputs (..., 1, channels), B (..., state, 1) and
    C (..., 1, state) -> the next h, and y (BLOCK, batch, directions, channels).
    """
    decays = torch.exp(step_size * A).split(1)
    gains = (inputs * B).split(1)
    states = []
    for decay, gain in zip(decays, gains, strict=True):
        h = decay * h + gain
        states.append(h)
    # a product of matrices: the sum over the state is its inner dimension
    return [h, (C @ torch.cat(states)).squeeze(-2)]


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) = max(x, 0) + log1p(e), e = exp(-|x|), by arithmetic that runtimes vectorise.

    log1p(e) = 2 atanh(z) with z = e / (2 + e), at most 1/3, so that a short polynomial in z^2 has
    a relative error of 1e-7: that of float32. onnxruntime's Softplus takes seven times as long,
    13 ns a number, as much as ten state updates.
    """
    if x.dtype == torch.float64:
        return F.softplus(x)
    e = torch.exp(-x.abs())
    z = e / (e + 2.0)
    w = z * z
    series = w * _ATANH[-1] + _ATANH[-2]
    for coefficient in reversed(_ATANH[:-2]):
        series = series * w + coefficient
    return F.relu(x) + z * series


def portable_program(program: ExportedProgram) -> ExportedProgram:
    """Replaces each `torch.ops.hymunet.selective_scan` of an exported program by `scan`.

    The result computes the same in torch alone: a file that `torch.export.save` writes of it loads
    where this package is not installed. It is far slower than the operator that it replaces, so
    keep `program` for runs that can import `hymunet`.

    Args:
        program: What `torch.export.export` returned, or `torch.export.load`.

    Returns:
        A new program with the same inputs, outputs, weights and dynamic sizes.
    """
    replacements: dict[Any, Callable[..., Any]] = {
        torch.ops.hymunet.selective_scan.default: selective_scan_portable
    }
    return program.run_decompositions(replacements)


def to_onnx(
    model: nn.Module | ExportedProgram,
    args: tuple[Any, ...] = (),
    dynamic_shapes: Any = None,
    **options: Any,
) -> "torch.onnx.ONNXProgram":
    """ONNX of a module that contains selective scans; onnxruntime needs nothing else to run it.

        batch = torch.export.Dim("batch")
        program = to_onnx(model.eval(), (torch.zeros(2, 3, 256, 256),), ({0: batch},))
        program.save("model.onnx")

    What may be dynamic: the batch, and the image size (`torch.export.Dim.DYNAMIC`, or a multiple
    such as `16 * torch.export.Dim("height")` for a network of stride 16), since `scan_orders` is
    then computed in the graph from height and width. What may not: channels, states, directions,
    and the number of axes. Two limits of torch:

    - an example size of 1 is taken for a constant, so show a dynamic batch with an example of 2 or
      more (the ONNX file then takes 1 as well);
    - checks of sizes are dropped from the ONNX file: where torch refuses an image that is no
      multiple of the network's stride, onnxruntime computes something or fails in words of its
      own. Whoever feeds it has to pad.

    Args:
        model: Module in evaluation mode, or an exported program of one.
        args: Example inputs of a module; a program brings its own.
        dynamic_shapes: As in `torch.export.export`; a program brings its own.
        **options: Further arguments of `torch.onnx.export` (input_names, output_names, ...).

    Raises:
        HyMUNetError: If onnx or onnxscript is missing, torch is too old, or the module is in
            training mode.
    """
    if isinstance(model, nn.Module) and any(m.training for m in model.modules()):
        raise HyMUNetError(
            "ONNX export needs a module in evaluation mode, but this one, or a part of it, is in "
            "training mode; call model.eval() first"
        )
    require("export", "ONNX export", "onnx", "onnxscript")
    _check_torch(torch.__version__)
    if not isinstance(model, ExportedProgram):
        model = torch.export.export(model, args, dynamic_shapes=dynamic_shapes, strict=False)
    # without gradients: torch would trace the loop's backward, and stumble over symbolic sizes
    with torch.no_grad(), _quiet():
        onnx = torch.onnx.export(
            portable_program(model),
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            verbose=False,
            **options,
        )
    assert onnx is not None  # None is what the exporter that `dynamo=False` asks for returns
    return onnx


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what the exporter says to its own makers: deprecations inside torch, and that
    torchvision, which nothing here uses, is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _check_torch(version: str) -> None:
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < (2, 9):
        raise HyMUNetError(
            f"ONNX export of the selective scan needs torch 2.9 or newer, but this is torch "
            f"{version}; upgrade torch on the machine that exports"
        )
