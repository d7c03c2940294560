"""The selective scan on a CPU: lays tensors out for the Numba kernels and runs these on threads."""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hymunet.scan import cpu_compile
from hymunet.scan.cpu_kernels import SEGMENT, record_type
from hymunet.scan.reference import compute_dtype
from hymunet.scan.threads import run_on_threads, thread_count

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set, and these kernels cannot be interpreted")

_NUMPY: dict[torch.dtype, np.dtype] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
# state updates below which waking a thread costs more than it computes (about 20 microseconds)
SMALL = 50_000
# The backward sums dB and dC over the channels of a group, then over groups. Groups are as large
# as these tasks allow; they follow from the shape alone, so results do not depend on the threads.
TASKS = 16
LARGEST_GROUP = 128


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
    """y and the last states; arguments and results as in `hymunet.scan.operator`."""
    batch, length, channels = u.shape
    inputs = _Inputs(u, delta, A, B, C, D, order, delta_bias)
    y = inputs.new(batch, length, inputs.channels)
    last = inputs.new(batch, inputs.directions, inputs.state, inputs.channels)
    inputs.run(
        "forward",
        tasks=batch * (inputs.channels // inputs.width),
        scratch_size=inputs.state * inputs.width,
        softplus=delta_softplus,
        y=y,
        last=last,
    )
    return (
        y[..., :channels].contiguous().to(u.dtype),
        last[..., :channels].contiguous().transpose(-1, -2),
    )


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of u, delta, A, B, C, D and delta_bias, each in its input's type."""
    batch, length, channels = u.shape
    inputs = _Inputs(u, delta, A, B, C, D, order, delta_bias)
    directions, state = inputs.directions, inputs.state
    group = LARGEST_GROUP
    while group > inputs.width and batch * -(-inputs.channels // group) < TASKS:
        group //= 2
    groups = -(-inputs.channels // group)

    dy = inputs.channels_last(grad_y)
    if grad_last is None:
        dlast = inputs.new(batch, directions, state, inputs.channels).zero_()
    else:
        dlast = inputs.padded(grad_last.transpose(-1, -2)).contiguous()
    gradients = {
        "du": inputs.new(batch, length, inputs.channels),
        "ddelta": inputs.new(batch, length, directions, inputs.channels),
        "dA": inputs.new(batch, directions, state, inputs.channels),
        "dB": inputs.new(groups, batch, length, directions, state),
        "dC": inputs.new(groups, batch, length, directions, state),
        "dD": inputs.new(batch, inputs.channels),
        "dbias": inputs.new(batch, directions, inputs.channels),
    }
    segments = -(-length // SEGMENT)
    inputs.run(
        "backward",
        tasks=batch * groups,
        # h, dh, dA; two values a step of a segment; the kept states; dt of a segment
        scratch_size=((3 + 2 * SEGMENT + segments) * state + SEGMENT) * inputs.width,
        softplus=delta_softplus,
        group=group,
        dy=dy,
        dlast=dlast,
        **gradients,
    )
    du, ddelta = (gradients[name][..., :channels].contiguous() for name in ("du", "ddelta"))
    dA, dD, dbias = (gradients[name].sum(0)[..., :channels] for name in ("dA", "dD", "dbias"))
    dB, dC = (gradients[name].sum(0) for name in ("dB", "dC"))
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        dA.transpose(-1, -2).to(A.dtype).contiguous(),
        dB.to(B.dtype),
        dC.to(C.dtype),
        dD.to(D.dtype).contiguous(),
        None if delta_bias is None else dbias.to(delta_bias.dtype).contiguous(),
    )


class _Inputs:
    """The arguments of a scan as the kernels want them: in one type, the last axis contiguous,
    channels filled up with zeros to whole vectors."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        order: Tensor | None,
        delta_bias: Tensor | None,
    ) -> None:
        self.batch, self.length, channels = u.shape
        self.directions, _, self.state = A.shape
        self.dtype = compute_dtype(u.dtype)
        self.width = 64 // self.dtype.itemsize
        self.padding = -channels % self.width
        self.channels = channels + self.padding
        self.tensors = {"u": self.channels_last(u), "delta": self.channels_last(delta)}
        for name, tensor in (("B", B), ("C", C)):
            self.tensors[name] = _contiguous_rows(tensor.detach().to(self.dtype))
        rates = self.padded(A.transpose(-1, -2)).contiguous()
        self.tensors["A"] = rates
        # exp(dt A) = 2 ** (dt A log2(e)); the product is rounded once
        self.tensors["exponents"] = (rates.double() * math.log2(math.e)).to(self.dtype)
        self.tensors["D"] = self.padded(D).contiguous()
        if delta_bias is None:
            bias = self.new(self.directions, self.channels).zero_()
        else:
            bias = self.padded(delta_bias).contiguous()
        self.tensors["bias"] = bias
        raster = torch.arange(self.length) if order is None else order
        self.tensors["order"] = raster.contiguous()
        self.order_k = 0 if order is None else self.length

    def new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype)

    def padded(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().to(self.dtype)
        return F.pad(tensor, (0, self.padding)) if self.padding else tensor

    def channels_last(self, tensor: Tensor) -> Tensor:
        return _contiguous_rows(self.padded(tensor))

    def run(
        self,
        kernel: str,
        tasks: int,
        scratch_size: int,
        softplus: bool,
        group: int = 0,
        **more: Tensor,
    ) -> None:
        """Runs `kernel` with these inputs and `more` tensors by the names of its record."""
        updates = self.batch * self.length * self.directions * self.channels * self.state
        threads = min(thread_count(), tasks) if updates > SMALL else 1
        counters = torch.zeros(2, dtype=torch.int64)
        scratch = self.new(threads * scratch_size)
        record = np.zeros(1, record_type(_NUMPY[self.dtype]))
        tensors: dict[str, Tensor] = {
            **self.tensors,
            **more,
            "counters": counters,
            "scratch": scratch,
        }
        values: dict[str, Any] = {
            "tasks": tasks,
            "batch": self.batch,
            "length": self.length,
            "directions": self.directions,
            "channels": self.channels,
            "state": self.state,
            "softplus": softplus,
            "group": group,
            "order_k": self.order_k,
            "scratch_size": scratch_size * self.dtype.itemsize,
            **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        }
        for name in ("u", "dy", "delta", "B", "C"):
            if name in tensors:
                values[f"{name}_at"] = tensors[name].stride()[:-1]
        for name, value in values.items():
            record[name] = value
        native = cpu_compile.native(kernel, _NUMPY[self.dtype])
        run_on_threads(native.function, native.address, record.ctypes.data, threads)


def _contiguous_rows(tensor: Tensor) -> Tensor:
    """The tensor itself if numbers of its last axis are neighbours, else a copy."""
    return tensor if tensor.shape[-1] == 1 or tensor.stride(-1) == 1 else tensor.contiguous()
