"""The selective scan in plain torch: the definition of correct, and the backend that always works.

Gu & Dao 2023, Algorithm 2, https://arxiv.org/abs/2312.00752, with the visiting order as an argument
and all directions of a visual scan advanced together.
"""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 input is computed in float64, anything else in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def selective_scan_reference(
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
    """For each direction k, with i = order[k, t]:

        h[t] = exp(delta[i, k] A[k]) h[t-1] + delta[i, k] u[i] B[i, k]
        y[i] += C[i, k] . h[t]

    and at the end y += D u. Time and memory are linear in the length, forwards and backwards.

    Args: shapes as in `hymunet.scan.selective_scan`, which checks them.

    Returns:
        y (batch, length, channels) in u's dtype, and the last states
        (batch, directions, channels, state).
    """
    # autocast would compute the products with C in half precision
    device = u.device.type
    has_autocast = torch.amp.is_autocast_available(device)
    with torch.autocast(device, enabled=False) if has_autocast else nullcontext():
        return _scan(u, delta, A, B, C, D, order, delta_bias, delta_softplus)


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
    batch, length, channels = u.shape
    directions, _, state = A.shape
    compute = compute_dtype(u.dtype)
    # (directions, state, channels): the long axis last keeps every operation of a step contiguous
    A, D = A.to(compute).transpose(-1, -2).contiguous(), D.to(compute)
    if order is None:
        order = torch.arange(length, device=u.device).expand(directions, length)

    step_size = delta.to(compute)
    if delta_bias is not None:
        step_size = step_size + delta_bias.to(compute)
    if delta_softplus:
        step_size = F.softplus(step_size)

    # one row of the flattened (length * directions) axis for each step and direction
    visited = order.t()  # (length, directions)
    rows = (visited * directions + torch.arange(directions, device=u.device)).reshape(-1)
    per_step = (batch, length, directions)
    step_size = step_size.flatten(1, 2).index_select(1, rows).view(*per_step, channels)
    # index_select, not u[:, visited]: its backward adds rows instead of sorting indices
    inputs = u.to(compute).index_select(1, visited.reshape(-1)).view(*per_step, channels)
    B = B.to(compute).flatten(1, 2).index_select(1, rows).view(*per_step, state)
    C = C.to(compute).flatten(1, 2).index_select(1, rows).view(*per_step, state)

    h = inputs.new_zeros(batch, directions, state, channels)
    ys = []
    # unbind, not x[:, t]: the backward of indexing is a full-size tensor a step, hence quadratic
    for dt, dt_u, B_t, C_t in zip(
        step_size.unbind(1), (step_size * inputs).unbind(1), B.unbind(1), C.unbind(1), strict=True
    ):
        decay = torch.exp(dt.unsqueeze(-2) * A)
        h = decay * h + dt_u.unsqueeze(-2) * B_t.unsqueeze(-1)
        ys.append((C_t.unsqueeze(-2) @ h).squeeze(-2))  # (batch, directions, channels)

    y = torch.stack(ys, dim=1).flatten(1, 2)  # step by step; back to the raster and summed
    place = torch.empty_like(rows).scatter_(0, rows, torch.arange(len(rows), device=u.device))
    y = y.index_select(1, place).view(*per_step, channels).sum(dim=2)
    return (y + D * u.to(compute)).to(u.dtype), h.transpose(-1, -2)
