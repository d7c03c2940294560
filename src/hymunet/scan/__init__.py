"""The selective scan: one operator for any grid, any number of directions, channels last."""

from torch import Tensor

from hymunet.scan.operator import backend_name, selective_scan_with_states
from hymunet.scan.orders import scan_orders
from hymunet.scan.reference import selective_scan_reference

__all__ = [
    "backend_name",
    "scan_orders",
    "selective_scan",
    "selective_scan_reference",
    "selective_scan_with_states",
]


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
    return selective_scan_with_states(u, delta, A, B, C, D, order, delta_bias, delta_softplus)[0]
