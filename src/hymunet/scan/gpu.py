"""The selective scan on CUDA: Triton kernels, forwards and backwards, all directions in one launch.

Gu & Dao 2023 (Mamba), https://arxiv.org/abs/2312.00752; that a linear recurrence can be cut into
pieces which are scanned at once and joined by their decays is from Blelloch 1990.

Tested in Triton's interpreter (TRITON_INTERPRET=1, where the kernels take CPU tensors), by
compiling for sm_80 and sm_90, and on an H200.

How the work is cut and why is in `gpu_kernels.py`.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from hymunet.scan.gpu_kernels import backward_segments, join_segments, walk_segments
from hymunet.scan.reference import compute_dtype

# Steps between check-points, whose memory is state / SEGMENT times that of delta.
SEGMENT = 32
# Steps, a multiple of four, from whose start the backward recomputes each four that it needs. With
# runs of 16 the backward computes each state 4.75 times on average; without runs, 6.25 times.
RUN = 16
# segments that one trip of `join_segments` loads together, so that it waits for memory once
SPAN = 8
JOIN_BLOCK = 128  # four numbers a thread of its one warp: a sum over SPAN leaves no thread


@dataclass(frozen=True)
class _Scan:
    """What the launches of one scan share."""

    A: Tensor  # (directions, state, channels) in the compute dtype, times log2(e)
    segments: int
    blocks: int  # of channels
    inputs: tuple[Tensor | int, ...]  # what every kernel that walks the tokens begins with
    options: dict[str, int | bool]
    grid: tuple[int]

    def buffer(self, *shape: int) -> Tensor:
        """Uninitialised, in the compute dtype."""
        return self.A.new_empty(shape)


def _prepare(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> _Scan:
    batch, length, channels = u.shape
    directions, _, state = A.shape
    compute = compute_dtype(u.dtype)
    A = (A.to(compute) * math.log2(math.e)).transpose(1, 2).contiguous()
    bias = A.new_zeros(directions, channels) if delta_bias is None else delta_bias.to(compute)

    # A warp has room for 512 float32 in each of the eight state blocks that the backward holds in
    # registers (255 a thread; more would spill). Rows of 16 channels keep loads wide.
    room = 512 if compute == torch.float32 else 256
    block_n = triton.next_power_of_2(max(1, state))
    widest = min(64, max(16, room // block_n))
    block_c = min(widest, triton.next_power_of_2(max(1, channels)))
    segments, blocks = triton.cdiv(length, SEGMENT), triton.cdiv(channels, block_c)

    u, delta, B, C = _rows(u), _rows(delta), _rows(B), _rows(C)
    visits = bias if order is None else order.contiguous()  # never read without an order
    return _Scan(
        A=A,
        segments=segments,
        blocks=blocks,
        inputs=(
            u, delta, B, C, A, bias.contiguous(), visits,
            *u.stride()[:2], *delta.stride()[:3], *B.stride()[:3], *C.stride()[:3],
            length, directions, channels, state, segments, blocks,
        ),
        options={
            "HAS_ORDER": order is not None,
            "SOFTPLUS": delta_softplus,
            "SEGMENT": SEGMENT,
            "BLOCK_N": block_n,
            "BLOCK_C": block_c,
            "num_warps": min(8, max(1, block_n * block_c // room)),
            "enable_fp_fusion": True,  # Triton 3.10 turns it off unless asked
        },
        grid=(batch * directions * segments * blocks,),
    )  # fmt: skip


def _rows(tensor: Tensor) -> Tensor:
    """The tensor itself where its last axis is contiguous, which is all that the kernels need."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _walk(
    scan: _Scan,
    grad_y: Tensor | None = None,
    states: Tensor | None = None,
    total: Tensor | None = None,
    adjoints: Tensor | None = None,
    y: Tensor | None = None,
) -> None:
    """Fills y from `states`, or else `states`, `total` and, given `grad_y`, `adjoints`."""
    unused = scan.A
    dy = unused if grad_y is None else grad_y
    walk_segments[scan.grid](
        *scan.inputs, dy, *dy.stride()[:2],
        *(unused if buffer is None else buffer for buffer in (states, adjoints, total, y)),
        OUTPUT=y is not None, ADJOINT=grad_y is not None, **scan.options,
    )  # fmt: skip


def _join(
    scan: _Scan, per_segment: Tensor, total: Tensor, end: Tensor | None, reverse: bool
) -> Tensor:
    """Turns `per_segment` in place into what each segment starts from. `end` (batch, directions,
    channels, state), zero if None, is where the walk begins; returns where it arrives, channels in
    memory side by side."""
    batch, directions, segments, state, channels = per_segment.shape
    carry = scan.buffer(batch, directions, state, channels)
    if end is None:
        carry.zero_()
    else:
        carry.copy_(end.transpose(2, 3))
    blocks = triton.cdiv(state * channels, JOIN_BLOCK)
    join_segments[(batch * directions * blocks,)](
        per_segment, total, scan.A, carry, directions, channels, state, segments, blocks,
        REVERSE=reverse, SPAN=SPAN, BLOCK=JOIN_BLOCK, num_warps=1, enable_fp_fusion=True,
    )  # fmt: skip
    return carry.transpose(2, 3)


def scan_forward(
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
    """The scan of `hymunet.scan.selective_scan` on a GPU, whose arguments these are.

    Args: on one device, with the shapes of `selective_scan`, which checks them. Views whose last
        axis is contiguous are read in place; `order` is trusted to hold permutations.

    Returns:
        y (batch, length, channels) in u's dtype, and the last states
        (batch, directions, channels, state) in the compute dtype: float64 for float64 u, else
        float32.
    """
    with _on(u):
        scan = _prepare(u, delta, A, B, C, order, delta_bias, delta_softplus)
        batch, length, directions, channels = delta.shape
        states = scan.buffer(batch, directions, scan.segments, A.shape[2], channels)
        total = scan.buffer(batch, directions, scan.segments, channels)
        y = scan.buffer(batch, length, directions, channels)
        _walk(scan, states=states, total=total)
        last = _join(scan, states, total, end=None, reverse=False)
        _walk(scan, states=states, y=y)
        compute = scan.A.dtype
        return torch.addcmul(y.sum(dim=2), D.to(compute), u.to(compute)).to(u.dtype), last


def scan_backward(
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
) -> tuple[Tensor | None, ...]:
    """Gradients of `scan_forward`, states recomputed from check-points.

    With mu the gradient that reaches a state from the steps after it, each step gives

        dh[t] = mu + C[i] dy[i];  mu = exp(delta[i] A) dh[t]
        dB[i] = dh[t] . delta[i] u[i];  dC[i] = h[t] . dy[i]  (sums over channels)

    and those of u, delta and A by the chain rule.

    Args:
        grad_y: Gradient of y, (batch, length, channels).
        grad_last: Gradient of the last states, (batch, directions, channels, state); None is zero.
        u, delta, A, B, C, D, order, delta_bias, delta_softplus: What `scan_forward` was given.

    Returns:
        Gradients of u, delta, A, B, C, D and delta_bias (None without one), each in the dtype of
        what it belongs to.
    """
    with _on(u):
        scan = _prepare(u, delta, A, B, C, order, delta_bias, delta_softplus)
        dy = _rows(grad_y)
        batch, length, directions, channels = delta.shape
        state = A.shape[2]
        states = scan.buffer(batch, directions, scan.segments, state, channels)
        adjoints = torch.empty_like(states)
        total = scan.buffer(batch, directions, scan.segments, channels)
        _walk(scan, grad_y=dy, states=states, total=total, adjoints=adjoints)
        _join(scan, states, total, end=None, reverse=False)
        _join(scan, adjoints, total, end=grad_last, reverse=True)

        du = scan.buffer(batch, length, directions, channels)
        ddelta = torch.empty(delta.shape, dtype=delta.dtype, device=delta.device)
        dB = scan.buffer(scan.blocks, batch, length, directions, state)
        dC = torch.empty_like(dB)
        backward_segments[scan.grid](
            *scan.inputs, dy, *dy.stride()[:2], states, adjoints, total, du, ddelta, dB, dC,
            batch * length * directions * state, RUN=RUN, **scan.options,
        )  # fmt: skip

        compute = scan.A.dtype
        dy = dy.to(compute)
        return (
            torch.addcmul(du.sum(dim=2), D.to(compute), dy).to(u.dtype),
            ddelta,
            # what `adjoints` holds by now
            adjoints.sum(dim=(0, 2)).transpose(1, 2).to(A.dtype).contiguous(),
            dB.sum(dim=0).to(B.dtype),
            dC.sum(dim=0).to(C.dtype),
            (dy * u.to(compute)).sum(dim=(0, 1)).to(D.dtype),
            None if delta_bias is None else total.sum(dim=(0, 2)).to(delta_bias.dtype),
        )
