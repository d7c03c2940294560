"""The selective scan in torch's own operators, for ONNX and for programs that outlive this package.

`torch.export.export` keeps `torch.ops.hymunet.selective_scan` as one node: right for torch's own
runtimes, where that node is the fast kernel. Runtimes that know nothing of this package need the
recurrence itself, and `portable_program` writes it into an exported program as one
`torch.ops.higher_order.scan`, which `to_onnx` turns into one ONNX `Scan` node.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan_op
from torch.export import ExportedProgram
from torch.nn import functional as F

from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.scan.reference import compute_dtype


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

    def in_visiting_order(per_direction: tuple[Tensor, ...]) -> Tensor:
        """Directions of (batch, length, width) each -> (length, batch, directions, width)."""
        tokens = [x.to(compute).transpose(0, 1) for x in per_direction]
        if paths is not None:
            tokens = [x.index_select(0, path) for x, path in zip(tokens, paths, strict=True)]
        return torch.stack(tokens, dim=2)

    # pointwise work stays outside of the loop: a step of it costs a node's overhead in a runtime
    step_size = delta.to(compute)
    if delta_bias is not None:
        step_size = step_size + delta_bias.to(compute)
    if delta_softplus:
        step_size = F.softplus(step_size)
    step_size = in_visiting_order(step_size.unbind(2))
    inputs = step_size * in_visiting_order((u,) * directions)
    # (directions, state, channels): the long axis last, as the scan's state
    A = A.to(compute).transpose(-1, -2).contiguous()
    start = torch.zeros(batch, directions, state, channels, dtype=compute, device=u.device)
    per_step = [step_size, inputs, *(in_visiting_order(x.unbind(2)) for x in (B, C))]
    # scan_op, not the `scan` function around it: that one compiles its body first, which fails
    # under symbolic sizes
    last, outputs = scan_op(_advance, [start], per_step, (A,))

    y = D.to(compute) * u.to(compute)
    steps = torch.arange(length, device=u.device)
    for k, output in enumerate(outputs.unbind(2)):  # (length, batch, channels), step by step
        if paths is not None:
            step_of_token = torch.zeros_like(paths[k]).scatter(0, paths[k], steps)
            output = output.index_select(0, step_of_token)
        y = y + output.transpose(0, 1)
    return y.to(u.dtype), last.transpose(-1, -2).contiguous()


def _advance(
    h: Tensor, step_size: Tensor, inputs: Tensor, B: Tensor, C: Tensor, A: Tensor
) -> list[Tensor]:
    """One step of all directions: h and A (..., directions, state, channels), step_size and inputs
    (batch, directions, channels), B and C (batch, directions, state) -> the next h, and y."""
    h = torch.exp(step_size.unsqueeze(-2) * A) * h + inputs.unsqueeze(-2) * B.unsqueeze(-1)
    return [h, (C.unsqueeze(-1) * h).sum(-2)]


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
    onnx = torch.onnx.export(
        portable_program(model),
        dynamo=True,
        dynamic_shapes=dynamic_shapes,
        verbose=False,
        **options,
    )
    assert onnx is not None  # None is what the exporter that `dynamo=False` asks for returns
    return onnx


def _check_torch(version: str) -> None:
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < (2, 9):
        raise HyMUNetError(
            f"ONNX export of the selective scan needs torch 2.9 or newer, but this is torch "
            f"{version}; upgrade torch on the machine that exports"
        )
