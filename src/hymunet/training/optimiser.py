"""AdamW with the parameter groups of a state space model, and its learning-rate schedule."""

import math

import torch
from torch import nn

from hymunet.network.mamba import SS2D


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    old: nn.Module | None = None,
    old_rate: float | None = None,
) -> list[dict[str, object]]:
    """Two groups: matrices and kernels decay; A_log, D, dt's bias, norms and biases do not.

    Decay would pull A_log towards 0, that is every decay rate towards -1, and norms towards nothing
    (Gu & Dao 2023, https://arxiv.org/abs/2312.00752, leave A and D out of it as well).

    Args:
        model: Parameters that need no gradient are left out.
        weight_decay: Of the first group.
        old: A part of `model` that has been trained before.
        old_rate: Learning rate of `old`, whose parameters then are two groups of their own, behind
            the others; None: the optimiser's.
    """
    exempt = {
        id(p) for m in model.modules() if isinstance(m, SS2D) for p in (m.A_log, m.D, m.dt_bias)
    }
    apart = set() if old is None or old_rate is None else {id(p) for p in old.parameters()}
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_free = id(parameter) in exempt or parameter.ndim <= 1
            members.setdefault((id(parameter) in apart, is_free), []).append(parameter)
    groups: list[dict[str, object]] = []
    for is_old in (False, True) if apart else (False,):
        for is_free in (False, True):
            group: dict[str, object] = {"params": members.get((is_old, is_free), [])}
            group["weight_decay"] = 0.0 if is_free else weight_decay
            groups.append(group | ({"lr": old_rate} if is_old else {}))
    return groups


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate at `step` of `total`: linear from 0 over the first `warmup` of
    all steps, then half a cosine down to 0."""
    rise = max(1, round(total * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))


def make_optimiser(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    total_steps: int,
    warmup: float,
    old: nn.Module | None = None,
    old_rate: float | None = None,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over `parameter_groups` and a scheduler that is stepped after every batch: each group's
    rate is its own peak times `warmup_cosine`."""
    groups = parameter_groups(model, weight_decay, old, old_rate)
    optimiser = torch.optim.AdamW(groups, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: warmup_cosine(step, total_steps, warmup)
    )
    return optimiser, schedule
