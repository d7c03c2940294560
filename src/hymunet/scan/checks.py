"""What is wrong with the arguments of a scan, said before a kernel reads them."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from hymunet.scan.orders import is_scan_order


def check_arguments(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Types, devices and shapes of a scan's arguments; `check_order` looks into the order.

    Raises:
        ValueError: Saying which argument does not fit, and to what.
    """
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D}
    if delta_bias is not None:
        tensors["delta_bias"] = delta_bias
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor, not {type(tensor).__name__}")
        if tensor.is_complex():
            raise ValueError(f"{name} is complex; only real state spaces are supported")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must hold floating-point numbers, not {tensor.dtype}")
        if tensor.device != u.device:
            raise ValueError(f"{name} is on {tensor.device}, but u is on {u.device}")
    if u.ndim != 3:
        raise ValueError(f"u must be (batch, length, channels), but its shape is {tuple(u.shape)}")
    if A.ndim != 3:
        raise ValueError(f"A must be (directions, channels, state), but it is {tuple(A.shape)}")
    batch, length, channels = u.shape
    directions, _, state = A.shape
    if length == 0:
        raise ValueError("u has no tokens; the scan needs a length of 1 or more")
    if directions == 0:
        raise ValueError("A has no directions; the scan needs 1 or more")
    shapes = {
        "delta": (batch, length, directions, channels),
        "A": (directions, channels, state),
        "B": (batch, length, directions, state),
        "C": (batch, length, directions, state),
        "D": (channels,),
        "delta_bias": (directions, channels),
    }
    for name, shape in shapes.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"{name} must be {shape} to go with u (batch, length, channels) = {tuple(u.shape)} "
                f"and A (directions, channels, state) = {tuple(A.shape)}, but its shape is "
                f"{tuple(tensors[name].shape)}"
            )
    if order is None:
        return
    if tuple(order.shape) != (directions, length) or order.dtype != torch.int64:
        raise ValueError(
            f"order must be int64 of shape (directions, length) = {(directions, length)}, "
            f"but it is {order.dtype} of shape {tuple(order.shape)}"
        )
    if order.device != u.device:
        raise ValueError(
            f"order is on {order.device}, but u is on {u.device}; make it there: "
            "scan_orders(grid, device=u.device)"
        )


def check_gradients(grad_y: Tensor, grad_last: Tensor | None, u: Tensor, A: Tensor) -> None:
    """Gradients of y and of the last states have the shapes of what they belong to.

    Raises:
        ValueError: If one has not.
    """
    states = (u.shape[0], A.shape[0], u.shape[2], A.shape[2])
    for name, gradient, shape in (
        ("y", grad_y, tuple(u.shape)),
        ("the last states", grad_last, states),
    ):
        if gradient is not None and tuple(gradient.shape) != shape:
            raise ValueError(f"the gradient of {name} must be {shape}, not {tuple(gradient.shape)}")


def check_order(order: Tensor) -> None:
    """Refuses a table whose rows are no permutations; one of `scan_orders` is known to be right.

    Raises:
        ValueError: Saying how to make one.
    """
    check_range(order)
    if is_scan_order(order):
        return
    raster = torch.arange(order.shape[1], device=order.device).expand_as(order)
    if not torch.equal(order.sort(dim=1).values, raster):
        raise ValueError(_NO_PERMUTATION)


def check_range(order: Tensor) -> None:
    """Refuses indices that are no tokens. On a CPU such an index would be foreign memory, so there
    the numbers themselves are looked at, each time: NumPy may write into a tensor unnoticed."""
    if order.device.type == "cpu":
        lowest, highest = order.aminmax()
        if lowest < 0 or highest >= order.shape[1]:
            raise ValueError(_NO_PERMUTATION)


_NO_PERMUTATION = (
    "each row of order must visit every token once, but one leaves tokens out or repeats them; "
    "build the table with scan_orders() or torch.randperm()"
)


def refuse_forward_mode(*tensors: Tensor | None) -> None:
    """A tangent would be dropped without a word.

    Raises:
        NotImplementedError: If a tensor carries one.
    """
    if forward_ad._current_level < 0:  # no forward-mode differentiation is going on
        return
    for tensor in tensors:
        if tensor is not None and _may_have_tangent(tensor):
            raise NotImplementedError(
                "the selective scan has no forward-mode derivative (torch.func.jvp, jacfwd); use "
                "hymunet.scan.selective_scan_reference, which is plain torch"
            )


def _may_have_tangent(tensor: Tensor) -> bool:
    try:
        return forward_ad.unpack_dual(tensor, level=0).tangent is not None
    except RuntimeError:  # under vmap torch cannot tell, and jacfwd is forward mode under vmap
        return True
