"""mamba_ssm's interface over our scan: Mamba models without CUDA by changing one import.

    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn   # before
    from hymunet.scan.compat import selective_scan_fn                      # after

    from mamba_ssm import Mamba                                            # before
    from hymunet.scan.compat import Mamba                                  # after

Gu & Dao 2023 (Mamba), https://arxiv.org/abs/2312.00752; layouts and types as in
https://github.com/state-spaces/mamba, `mamba_ssm/ops/selective_scan_interface.py`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hymunet.scan.mamba_layer import Mamba
from hymunet.scan.operator import selective_scan_with_states

__all__ = ["Mamba", "selective_scan_fn", "selective_scan_ref"]


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan with mamba_ssm's arguments, time last; runs wherever `selective_scan` runs.

    For each channel d of group g, from h = 0, with step = delta + delta_bias, through softplus
    when `delta_softplus`:

        h[t] = exp(step[d, t] A[d]) h[t-1] + step[d, t] u[d, t] B[g, :, t]
        out[d, t] = (C[g, :, t] . h[t] + D[d] u[d, t]) * silu(z[d, t])

    float64 input is computed in float64, anything else in float32 (mamba_ssm has no float64).
    Unlike in mamba_ssm, gradients also flow through the last state.

    Args:
        u: Input (batch, dim, length).
        delta: Step sizes (batch, dim, length).
        A: Decay rates (dim, state), real.
        B: Input maps (batch, state, length), or (batch, groups, state, length) where each group
            serves dim / groups consecutive channels.
        C: Output maps, of B's shape.
        D: Skip (dim,); None: no skip.
        z: Gate (batch, dim, length); None: no gate.
        delta_bias: Added to delta, (dim,).
        delta_softplus: Whether softplus is applied to delta, after the bias.
        return_last_state: Whether to return the state after the last step as well.

    Returns:
        out (batch, dim, length), contiguous, in u's dtype; with `return_last_state` also the last
        state (batch, dim, state), float32 (float64 for float64 input).

    Raises:
        ValueError: If shapes do not fit each other, A is complex, or B or C are constant over time.
    """
    # (batch, groups, state, length) each
    B, C = _with_groups("B", B), _with_groups("C", C)
    _check(u, delta, A, B, C, D, z, delta_bias)
    dim, groups = u.shape[1], B.shape[1]
    if D is None:
        D = A.new_zeros(dim)
    # a gate follows before anything is rounded to half precision
    inputs = u if z is None or u.dtype == torch.float64 else u.float()
    # time first and channels last, once for all groups: their slices below stay views
    inputs = inputs.transpose(1, 2).contiguous()  # (batch, length, dim)
    delta = delta.transpose(1, 2).contiguous()
    B, C = (x.permute(0, 3, 1, 2).contiguous() for x in (B, C))  # (batch, length, groups, state)

    # a call a group: groups differ in their inputs, so they cannot be directions of one scan
    outs, states = [], []
    width = dim // groups
    for group in range(groups):
        run = slice(group * width, (group + 1) * width)
        y, last = selective_scan_with_states(
            inputs[..., run],
            delta[..., run].unsqueeze(2),
            A[run].unsqueeze(0),
            B[:, :, group : group + 1],
            C[:, :, group : group + 1],
            D[run],
            delta_bias=None if delta_bias is None else delta_bias[run].unsqueeze(0),
            delta_softplus=delta_softplus,
        )
        outs.append(y.transpose(1, 2))
        states.append(last.squeeze(1))  # (batch, width, state)

    out = torch.cat(outs, dim=1)
    if z is not None:
        out = out * F.silu(z.to(out.dtype))
    # contiguous as mamba_ssm's: its users call view() on it
    out = out.to(u.dtype).contiguous()
    return (out, torch.cat(states, dim=1)) if return_last_state else out


# mamba_ssm's second name for the same function in plain torch; its users import both
selective_scan_ref = selective_scan_fn


def _with_groups(name: str, x: Tensor) -> Tensor:
    if x.ndim == 2:
        raise ValueError(
            f"{name} of shape {tuple(x.shape)} is (dim, state), constant over time; only a {name} "
            f"that varies is supported: pass (batch, state, length) or "
            f"(batch, groups, state, length)"
        )
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{name} must be (batch, state, length) or (batch, groups, state, length), but its "
            f"shape is {tuple(x.shape)}"
        )
    return x.unsqueeze(1) if x.ndim == 3 else x


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.ndim != 3:
        raise ValueError(f"u must be (batch, dim, length), but its shape is {tuple(u.shape)}")
    for name, tensor in (("u", u), ("delta", delta), ("z", z)):
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} must hold real floating-point numbers, not {tensor.dtype}")
    if A.is_complex() or B.is_complex() or C.is_complex():
        raise ValueError(
            "A, B or C is complex; only real state spaces are supported: use the real "
            "parametrisation of the model (A of shape (dim, state), B and C of length `length`)"
        )
    batch, dim, length = u.shape
    if A.ndim != 2 or A.shape[0] != dim:
        raise ValueError(
            f"A must be (dim, state) with dim = {dim} to go with u {tuple(u.shape)}, but its shape "
            f"is {tuple(A.shape)}"
        )
    groups = B.shape[1]
    if groups == 0 or dim % groups:
        raise ValueError(
            f"the {groups} groups of B do not divide the {dim} channels of u; each group must "
            f"serve equally many channels"
        )
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "delta": (delta, (batch, dim, length)),
        "B": (B, (batch, groups, A.shape[1], length)),
        "C": (C, (batch, groups, A.shape[1], length)),
        "D": (D, (dim,)),
        "z": (z, (batch, dim, length)),
        "delta_bias": (delta_bias, (dim,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {shape} to go with u {tuple(u.shape)}, A {tuple(A.shape)} and "
                f"{groups} groups, but its shape is {tuple(tensor.shape)}"
            )
