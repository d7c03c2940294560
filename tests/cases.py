"""Shapes and tolerances that several test modules share, in one place."""

import torch
from torch import Tensor

# (batch, grid, channels, state): single tokens, primes, non-square, volumes
SCAN_CASES = [
    (1, (1, 1), 1, 1),
    (2, (1, 7), 3, 2),
    (1, (5, 3), 4, 16),
    (2, (9, 7), 2, 3),
    (1, (2, 3, 4), 3, 2),
]
TOLERANCE = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
}


def scan_inputs(
    batch: int, length: int, directions: int, channels: int, state: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Random arguments of `selective_scan` that require gradients."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype)

    inputs = {
        "u": draw(batch, length, channels),
        "delta": draw(batch, length, directions, channels),
        "A": -torch.rand(directions, channels, state, dtype=dtype) - 0.1,
        "B": draw(batch, length, directions, state),
        "C": draw(batch, length, directions, state),
        "D": draw(channels),
        "delta_bias": draw(directions, channels),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}
