"""How far a scan remembers: the decay exp(dt A) of each state as a number of tokens.

A state that decays by exp(dt A) a step has fallen to 1/e after 1 / (dt |A|) steps of that size. dt
depends on the token, so the length is a distribution over tokens, channels and states (Gu & Dao
2023, https://arxiv.org/abs/2312.00752, where dt is how much a token is taken in). It says for how
long a state could remember; what does reach a token from afar is its influence map.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hymunet.network.mamba import SS2D

LOWEST, HIGHEST, STEP = -4.0, 10.0, 0.005  # of log10(tokens): bins of 1.2 %
BINS = round((HIGHEST - LOWEST) / STEP)
QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


def memory_length(dt: Tensor, A: Tensor) -> Tensor:
    """Steps after which a state has fallen to 1/e: -1 / log(exp(dt A)) = 1 / (dt |A|); infinite
    where nothing decays."""
    return 1.0 / (dt * A.abs())


@torch.no_grad()
def memory_histogram(scan: SS2D, tokens: Tensor) -> np.ndarray:
    """Counts of memory lengths over tokens, channels and states.

    Args:
        scan: Reads `tokens`.
        tokens: (B, *spatial, channels).

    Returns:
        (directions, BINS) int64, evenly spaced in log10(tokens) from LOWEST to HIGHEST; what lies
        beyond is in the first or last bin.
    """
    dt = F.softplus(scan.project(tokens)[0].float() + scan.dt_bias)  # (B, L, K, C)
    rates = scan.A_log.float().exp()  # (K, C, S)
    counts = torch.zeros(scan.directions * BINS, dtype=torch.int64)
    first = (torch.arange(scan.directions, device=dt.device) * BINS)[:, None]
    for state in range(scan.d_state):  # one at a time: all of them at once fill the memory
        length = memory_length(dt, rates[..., state])
        bins = ((length.log10() - LOWEST) / STEP).nan_to_num(posinf=BINS).clamp(0, BINS - 1)
        counts += torch.bincount((bins.long() + first).flatten(), minlength=len(counts)).cpu()
    return counts.view(scan.directions, BINS).numpy()


def quantile(counts: np.ndarray, q: float) -> float:
    """Length in tokens below which the share q of the counts lies, to 0.6 %: a bin's middle."""
    cumulative = np.cumsum(counts)
    place = int(np.searchsorted(cumulative, q * cumulative[-1]))
    return float(10 ** (LOWEST + (place + 0.5) * STEP))


def share_above(counts: np.ndarray, tokens: float) -> float:
    """Share of the counts whose length is at least `tokens`, to a bin."""
    place = round((math.log10(tokens) - LOWEST) / STEP)
    return float(counts[max(0, place) :].sum() / counts.sum())


def direction_names(dimensions: int) -> list[str]:
    """Names of the scan's directions, as `scan_orders` has them: the last axis first."""
    axes = ["depth", "height", "width"][-dimensions:]
    return [f"along {axis}, {way}" for axis in reversed(axes) for way in ("forwards", "backwards")]


def memory_numbers(counts: np.ndarray, grid: Sequence[int], stride: int) -> list[dict[str, Any]]:
    """A row a direction: quantiles of the memory in `tokens`, of the `decay` a step, and in pixels.

    A path runs along one axis and goes on in the next line, as raster order does. So a memory of n
    tokens reaches min(n, side) tokens `along_px` that axis, and n / side lines, `across_px`.

    Args:
        counts: As `memory_histogram`, summed over blocks and images.
        grid: Size of the stage in tokens.
        stride: Pixels of the input a token stands for.
    """
    rows = []
    for direction, own in enumerate(counts):
        side = grid[len(grid) - 1 - direction // 2]
        lengths = {name: quantile(own, q) for name, q in QUANTILES.items()}
        rows.append(
            {
                "direction": direction_names(len(grid))[direction],
                "tokens": lengths,
                "decay": {name: math.exp(-1 / length) for name, length in lengths.items()},
                "along_px": {n: min(length, side) * stride for n, length in lengths.items()},
                "across_px": {n: length / side * stride for n, length in lengths.items()},
                "beyond_line": share_above(own, side),
                "beyond_all": share_above(own, math.prod(grid)),
            }
        )
    return rows
