"""The selective scan three ways on equal inputs: hymunet's, a plain torch loop, mambapy's pscan.

Each gets u, delta, B and C in raster order and returns y in raster order, so that a rival's gathers
to the visiting order and its merge of the directions are part of its time and memory. Bias and
softplus of delta are asked for, as the network does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.scan import scan_orders, selective_scan, selective_scan_reference

DIRECTIONS, CHANNELS, STATE = 4, 128, 16
# an implementation that is further than this from the float64 reference is wrong, not fast
DISAGREEMENT = 1e-3

OURS, LOOP, PSCAN = "hymunet", "torch loop", "pscan"
Inputs = dict[str, Tensor]
Scan = Callable[[Inputs, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A batch of square grids of side x side tokens."""

    batch: int
    side: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        """`4x1024`: batch 4, length 1024.

        Raises:
            HyMUNetError: If that is not what `text` looks like, or the length is no square.
        """
        batch, _, length = text.partition("x")
        if batch.isdecimal() and length.isdecimal() and int(batch) and int(length):
            side = math.isqrt(int(length))
            if side**2 == int(length):
                return cls(int(batch), side)
        raise HyMUNetError(
            "a case is BATCHxLENGTH, both at least 1 and the length the square of a grid's side "
            f"(4x1024, 1x16384), but {text!r} came"
        )

    @property
    def length(self) -> int:
        return self.side**2

    def __str__(self) -> str:
        return f"{self.batch}x{self.length}"


def order_of(case: Case, device: str = "cpu") -> Tensor:
    """The four directions of the grid, (4, length)."""
    return scan_orders((case.side, case.side), device)


def make_inputs(case: Case, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Inputs:
    """Random tokens and projections, A and delta's bias as Mamba initialises them; all require
    gradients. Another dtype or device holds the same numbers, those of float32."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rates = torch.arange(1.0, STATE + 1)
    steps = torch.empty(DIRECTIONS, CHANNELS).uniform_(
        math.log(0.001), math.log(0.1), generator=generator
    )
    inputs = {
        "u": draw(case.batch, case.length, CHANNELS),
        "delta": draw(case.batch, case.length, DIRECTIONS, CHANNELS).mul_(0.5),
        "A": -rates.expand(DIRECTIONS, CHANNELS, STATE).contiguous(),
        "B": draw(case.batch, case.length, DIRECTIONS, STATE),
        "C": draw(case.batch, case.length, DIRECTIONS, STATE),
        "D": draw(CHANNELS),
        "delta_bias": steps.exp().expm1().log(),  # the inverse of softplus
    }
    return {name: t.to(device, dtype).requires_grad_() for name, t in inputs.items()}


def hymunet_scan(inputs: Inputs, order: Tensor) -> Tensor:
    """The operator as the network calls it."""
    return selective_scan(**inputs, order=order, delta_softplus=True)


def loop_scan(inputs: Inputs, order: Tensor) -> Tensor:
    """The plain loop over `unbind`, differentiated by autograd."""
    return selective_scan_reference(**inputs, order=order, delta_softplus=True)[0]


def parallel_scan(inputs: Inputs, order: Tensor) -> Tensor:
    """mambapy's `pscan`, each direction a sequence of its own in a larger batch. It pads the length
    to a power of two and keeps (batch, length, channels, state) several times."""
    from mambapy.pscan import pscan

    u, delta, A, B, C, D, bias = inputs.values()
    batch, length, channels = u.shape
    directions = order.shape[0]
    first = torch.arange(directions, device=order.device).unsqueeze(1)
    rows = (order * directions + first).flatten()
    place = torch.empty_like(rows).scatter_(0, rows, torch.arange(len(rows), device=order.device))

    def visit(tensor: Tensor) -> Tensor:  # (batch, length, directions, n) to (batch * d, length, n)
        visited = tensor.flatten(1, 2).index_select(1, rows)
        return visited.unflatten(1, (directions, length)).flatten(0, 1)

    step_size = visit(F.softplus(delta + bias))
    visited_u = u.index_select(1, order.flatten()).view(batch * directions, length, channels)
    rates = A.repeat(batch, 1, 1).unsqueeze(1)  # (batch * directions, 1, channels, state)
    decay = torch.exp(step_size.unsqueeze(-1) * rates)
    states = pscan(decay, (step_size * visited_u).unsqueeze(-1) * visit(B).unsqueeze(2))
    ys = (states @ visit(C).unsqueeze(-1)).squeeze(-1)
    ys = ys.view(batch, directions * length, channels).index_select(1, place)
    return ys.view(batch, length, directions, channels).sum(2) + D * u


SCANS: dict[str, Scan] = {OURS: hymunet_scan, LOOP: loop_scan, PSCAN: parallel_scan}


def check_mambapy() -> None:
    """Says how to install the one rival that is a package, before any work is done.

    Raises:
        HyMUNetError: If mambapy cannot be imported.
    """
    require("dev", "the comparison with mambapy's parallel scan", "mambapy")


def forward(scan: Scan, inputs: Inputs, order: Tensor) -> Tensor:
    """y without a graph, as in prediction."""
    with torch.inference_mode():
        return scan(inputs, order)


def forward_backward(
    scan: Scan, inputs: Inputs, order: Tensor, grad_y: Tensor
) -> dict[str, Tensor]:
    """y and the gradient of (grad_y y).sum() for every input, by name."""
    y = scan(inputs, order)
    gradients = torch.autograd.grad(y, list(inputs.values()), grad_y)
    return {"y": y.detach(), **dict(zip(inputs, gradients, strict=True))}


def gradient_of_y(inputs: Inputs) -> Tensor:
    """The random gradient that a backward pass starts from."""
    generator = torch.Generator().manual_seed(1)
    u = inputs["u"]
    return torch.randn(u.shape, generator=generator).to(u)


def agreement(
    case: Case, scans: dict[str, Scan] | None = None, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Errors of y and of every gradient against the float64 reference, max|y - y64| / max|y64|.

    Args:
        case: Batch and grid.
        scans: Implementations by name; all three when not given.
        device: Where they run.

    Returns:
        By implementation, then by quantity: y, then inputs, standing for their gradients.

    Raises:
        HyMUNetError: If an error is above 1e-3 or no number; such an implementation is not timed.
    """
    order = order_of(case, device)
    exact_inputs = make_inputs(case, torch.float64, device)
    exact = forward_backward(loop_scan, exact_inputs, order, gradient_of_y(exact_inputs))
    inputs = make_inputs(case, device=device)
    grad_y = gradient_of_y(inputs)
    errors = {}
    for name, scan in (scans or SCANS).items():
        results = forward_backward(scan, inputs, order, grad_y)
        results["y without a graph"] = forward(scan, inputs, order)
        errors[name] = {
            quantity: _error(result, exact[quantity.split()[0]])
            for quantity, result in results.items()
        }
        for quantity, error in errors[name].items():
            if not error <= DISAGREEMENT:  # NaN is not
                what = quantity if quantity.startswith("y") else f"the gradient of {quantity}"
                raise HyMUNetError(
                    f"{name} at {case}: {what} should be within {DISAGREEMENT:g} of the float64 "
                    f"reference, but is {error:.1e} away; nothing was timed: run the scan's tests"
                )
        del errors[name]["y without a graph"]
    return errors


def _error(result: Tensor, exact: Tensor) -> float:
    scale = exact.abs().max()  # 0 for the gradient of A at length 1, where nothing has decayed
    return ((result.double() - exact).abs().max() / (scale if scale else 1.0)).item()
