"""The selective scan: one operator for any grid, any number of directions, channels last."""

import torch
from torch import Tensor

from hymunet.scan.orders import scan_orders
from hymunet.scan.reference import selective_scan_reference

__all__ = ["scan_orders", "selective_scan", "selective_scan_reference"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    order: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Input-dependent linear recurrence along each direction's visiting order, summed.

    For each direction k, from h = 0, with i = order[k, t]:

        h[t] = exp(delta[i, k] A[k]) h[t-1] + delta[i, k] u[i] B[i, k]
        y[i] += C[i, k] . h[t]

    and at the end y += D u. Only the visiting order differs between directions: u, delta, B and C
    are in raster order, and nothing is permuted by the caller.

    Args:
        u: Input tokens (batch, length, channels), raster order.
        delta: Step sizes (batch, length, directions, channels), before bias and softplus when
            these are asked for.
        A: Decay rates (directions, channels, state), negative for a stable recurrence.
        B: Input maps (batch, length, directions, state).
        C: Output maps (batch, length, directions, state).
        D: Skip (channels,).
        order: (directions, length) int64, each row a permutation of the tokens, as made by
            `scan_orders`; None: every direction walks the raster.
        delta_bias: Added to delta, (directions, channels).
        delta_softplus: Whether softplus is applied to delta (after the bias).

    Returns:
        y (batch, length, channels) in u's dtype. float64 input is computed in float64, anything
        else in float32.

    Raises:
        ValueError: If shapes do not fit each other or a row of `order` is not a permutation.

    Source: Gu & Dao 2023 (Mamba), https://arxiv.org/abs/2312.00752; the visual cross-scan is from
    Liu et al. 2024 (VMamba), https://arxiv.org/abs/2401.10166.
    """
    _check_shapes(u, delta, A, B, C, D, delta_bias)
    if order is not None:
        _check_order(order, directions=delta.shape[2], length=u.shape[1])
    return selective_scan_reference(u, delta, A, B, C, D, order, delta_bias, delta_softplus)[0]


def _check_shapes(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor | None
) -> None:
    if u.ndim != 3:
        raise ValueError(f"u must be (batch, length, channels), but its shape is {tuple(u.shape)}")
    if A.ndim != 3:
        raise ValueError(f"A must be (directions, channels, state), but it is {tuple(A.shape)}")
    batch, length, channels = u.shape
    directions, _, state = A.shape
    if length == 0:
        raise ValueError("u has no tokens; the scan needs a length of 1 or more")
    expected = {
        "delta": (delta, (batch, length, directions, channels)),
        "A": (A, (directions, channels, state)),
        "B": (B, (batch, length, directions, state)),
        "C": (C, (batch, length, directions, state)),
        "D": (D, (channels,)),
    }
    if delta_bias is not None:
        expected["delta_bias"] = (delta_bias, (directions, channels))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {shape} to go with u {tuple(u.shape)} and A {tuple(A.shape)}, "
                f"but its shape is {tuple(tensor.shape)}"
            )
        if tensor.is_complex():
            raise ValueError(f"{name} is complex; only real state spaces are supported")


def _check_order(order: Tensor, directions: int, length: int) -> None:
    if tuple(order.shape) != (directions, length) or order.dtype != torch.int64:
        raise ValueError(
            f"order must be int64 of shape (directions, length) = {(directions, length)}, "
            f"but it is {order.dtype} of shape {tuple(order.shape)}"
        )
    if getattr(order, "is_permutation", False):
        return
    raster = torch.arange(length, device=order.device).expand_as(order)
    if not torch.equal(order.sort(dim=1).values, raster):
        raise ValueError(
            "each row of order must visit every token once, but one leaves tokens out or repeats "
            "them; build the table with scan_orders() or torch.randperm()"
        )
