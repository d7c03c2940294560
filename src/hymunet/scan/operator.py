"""The registered operator: `torch.ops.hymunet.selective_scan`, with gradients, on any device.

One operator that torch treats as a whole: eager mode, `torch.compile`, `torch.export`, autocast,
`torch.func.vmap` and distributed training meet the same node, and only here is decided what
computes it: Numba kernels on a CPU (`cpu.py`), Triton kernels on a GPU (`gpu.py`), else, and where
those packages are missing, the recurrence in plain torch (`reference.py`).
"""

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hymunet.scan.checks import (
    check_arguments,
    check_gradients,
    check_order,
    check_range,
    refuse_forward_mode,
)
from hymunet.scan.reference import compute_dtype, selective_scan_reference

_KERNELS = {"cpu": ("hymunet.scan.cpu", "numba"), "cuda": ("hymunet.scan.gpu", "triton")}
_TOKENS = (0, 1, 3, 4)  # u, delta, B and C: the arguments with a batch axis


def selective_scan_with_states(
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
    """`hymunet.scan.selective_scan` that also returns the state after the last step.

    Returns:
        y (batch, length, channels) in u's dtype, and the last states (batch, directions, channels,
        state) in float64 when u is, else in float32. Gradients flow through both.

    Raises:
        ValueError: If shapes do not fit each other or a row of `order` is not a permutation.
    """
    check_arguments(u, delta, A, B, C, D, order, delta_bias)
    arguments = (u, delta, A, B, C, D, order, delta_bias, delta_softplus)
    if torch.compiler.is_compiling():
        return torch.ops.hymunet.selective_scan(*arguments)
    refuse_forward_mode(u, delta, A, B, C, D, delta_bias)
    try:
        return torch.ops.hymunet.selective_scan(*arguments)
    except RuntimeError as error:
        if "setup_context" not in str(error):
            raise
        raise NotImplementedError(
            "the selective scan cannot be differentiated by torch.func (grad, vjp, jacrev); use "
            "torch.autograd.grad, or hymunet.scan.selective_scan_reference, which is plain torch"
        ) from error


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    # here too and not in the caller alone: a traced graph has no checks, and a wrong size or index
    # would read and write memory that is not ours
    check_arguments(u, delta, A, B, C, D, order, delta_bias)
    if order is not None:
        check_order(order)
    arguments = (u, delta, A, B, C, D, order, delta_bias, delta_softplus)
    kernels = backend(u.device.type)
    return kernels.scan_forward(*arguments) if kernels else selective_scan_reference(*arguments)


def _scan_backward(
    grad_y: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_arguments(u, delta, A, B, C, D, order, delta_bias)
    check_gradients(grad_y, grad_last, u, A)
    if order is not None:  # it was a permutation in the forward, but may have been written into
        check_range(order)
    kernels = backend(u.device.type)
    arguments = (u, delta, A, B, C, D, order, delta_bias, delta_softplus)
    if kernels:
        *gradients, grad_bias = kernels.scan_backward(grad_y, grad_last, *arguments)
    else:
        *gradients, grad_bias = _reference_backward(grad_y, grad_last, *arguments)
    return (*gradients, u.new_empty(0) if grad_bias is None else grad_bias)


def _reference_backward(
    grad_y: Tensor, grad_last: Tensor | None, *arguments: Any
) -> tuple[Tensor | None, ...]:
    *tensors, order, delta_bias, delta_softplus = arguments
    if delta_bias is not None:
        tensors.append(delta_bias)

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *bias: Tensor):  # type: ignore[no-untyped-def]
        return selective_scan_reference(
            u, delta, A, B, C, D, order, bias[0] if bias else None, delta_softplus
        )

    # torch.func, because autograd itself is switched off inside an operator
    result: Any = torch.func.vjp(scan, *(tensor.detach() for tensor in tensors))
    (_, last), vjp = result
    gradients = vjp((grad_y, torch.zeros_like(last) if grad_last is None else grad_last))
    gradients = tuple(gradient.contiguous() for gradient in gradients)
    return gradients if delta_bias is not None else (*gradients, None)


def _fake_scan(u, delta, A, B, C, D, order, delta_bias, delta_softplus):  # type: ignore[no-untyped-def]
    batch, length, channels = u.shape
    directions, _, state = A.shape
    last = u.new_empty(batch, directions, state, channels, dtype=compute_dtype(u.dtype))
    return u.new_empty(batch, length, channels), last.transpose(-1, -2)


def _fake_backward(grad_y, grad_last, u, delta, A, B, C, D, order, delta_bias, delta_softplus):  # type: ignore[no-untyped-def]
    inputs = (u, delta, A, B, C, D)
    bias = u.new_empty(0) if delta_bias is None else delta_bias.new_empty(delta_bias.shape)
    return (*(tensor.new_empty(tensor.shape) for tensor in inputs), bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.delta_softplus = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None) -> tuple[Any, ...]:
    u, *others, order, delta_bias = ctx.saved_tensors
    *gradients, grad_bias = torch.ops.hymunet.selective_scan_backward(
        torch.zeros_like(u) if grad_y is None else grad_y,
        grad_last,
        u,
        *others,
        order,
        delta_bias,
        ctx.delta_softplus,
    )
    return (*gradients, None, None if delta_bias is None else grad_bias, None)


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise NotImplementedError(
        "the selective scan has first derivatives only; for a second one (a gradient penalty, a "
        "Hessian) use hymunet.scan.selective_scan_reference, which is plain torch and returns y "
        "and the last states"
    )


def _vmap_scan(info, in_dims, *arguments):  # type: ignore[no-untyped-def]
    mapped = [i for i, dim in enumerate(in_dims) if dim is not None]
    if not set(mapped) <= set(_TOKENS):
        return _one_by_one(torch.ops.hymunet.selective_scan, info, in_dims, arguments)
    # more tokens of the same layer are a larger batch
    folded = list(arguments)
    for i in _TOKENS:
        tensor, dim = arguments[i], in_dims[i]
        tensor = (
            tensor.movedim(dim, 0)
            if dim is not None
            else tensor.expand(info.batch_size, *tensor.shape)
        )
        folded[i] = tensor.flatten(0, 1)
    outputs = torch.ops.hymunet.selective_scan(*folded)
    return tuple(output.unflatten(0, (info.batch_size, -1)) for output in outputs), (0, 0)


def _vmap_backward(info, in_dims, *arguments):  # type: ignore[no-untyped-def]
    return _one_by_one(torch.ops.hymunet.selective_scan_backward, info, in_dims, arguments)


def _one_by_one(
    operator: Callable[..., tuple[Tensor, ...]], info: Any, in_dims: Any, arguments: Any
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    rows = []
    for i in range(info.batch_size):
        rows.append(
            operator(
                *(
                    argument if dim is None else argument.select(dim, i)
                    for argument, dim in zip(arguments, in_dims, strict=True)
                )
            )
        )
    outputs = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return outputs, (0,) * len(outputs)


# not through `torch.library.custom_op`, which imports torch's compiler at the first call: a second
_ARGUMENTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, Tensor? order, "
    "Tensor? delta_bias, bool delta_softplus"
)
for _name, _schema, _implementation, _fake, _vmap in (
    ("selective_scan", f"({_ARGUMENTS}) -> (Tensor, Tensor)", _scan, _fake_scan, _vmap_scan),
    (
        "selective_scan_backward",
        f"(Tensor grad_y, Tensor? grad_last, {_ARGUMENTS}) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        _scan_backward,
        _fake_backward,
        _vmap_backward,
    ),
):
    _qualified = f"hymunet::{_name}"
    torch.library.define(_qualified, _schema)
    torch.library.impl(_qualified, "default", _implementation)
    torch.library.register_fake(_qualified, _fake)
    torch.library.register_vmap(_qualified, _vmap)
torch.library.register_autograd("hymunet::selective_scan", _differentiate, setup_context=_save)
torch.library.register_autograd("hymunet::selective_scan_backward", _refuse)


@cache
def backend(device_type: str) -> ModuleType | None:
    """The module whose kernels serve tensors of this device; None: plain torch does.

    Warns once where the device has kernels that cannot be used.
    """
    if device_type not in _KERNELS:
        return None
    module, package = _KERNELS[device_type]
    try:
        return importlib.import_module(module)
    except Exception as error:  # missing, or too old or new for another package: torch serves
        warnings.warn(
            f"the selective scan runs in plain torch, many times slower than by {package}, which "
            f"cannot be imported ({error}); pip install {package}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def backend_name(device_type: str = "cpu") -> str:
    """What computes scans of tensors on `cpu`, `cuda`, ...: "numba", "triton" or "torch"."""
    return _KERNELS[device_type][1] if backend(device_type) else "torch"
