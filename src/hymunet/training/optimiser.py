"""AdamW with the parameter groups of a state space model, and its learning-rate schedule."""

import math

import torch
from torch import nn

from hymunet.network.mamba import SS2D


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and kernels decay; A_log, D, dt's bias, norms and biases do not.

    Decay would pull A_log towards 0, that is every decay rate towards -1, and norms towards nothing
    (Gu & Dao 2023, https://arxiv.org/abs/2312.00752, leave A and D out of it as well).
    """
    exempt = {
        id(p) for m in model.modules() if isinstance(m, SS2D) for p in (m.A_log, m.D, m.dt_bias)
    }
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_free = id(parameter) in exempt or parameter.ndim <= 1
            (free if is_free else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate at `step` of `total`: linear from 0 over the first `warmup` of
    all steps, then half a cosine down to 0."""
    rise = max(1, round(total * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))


def make_optimiser(
    model: nn.Module, learning_rate: float, weight_decay: float, total_steps: int, warmup: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over `parameter_groups` and a scheduler that is stepped after every batch."""
    optimiser = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: warmup_cosine(step, total_steps, warmup)
    )
    return optimiser, schedule
