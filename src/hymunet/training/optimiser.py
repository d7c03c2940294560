"""Muon for the hidden matrices, AdamW for the rest: parameter groups, and their schedule."""

import math

import torch
from torch import nn

from hymunet.network.mamba import SS2D

_LEAST = 8  # a matrix with a shorter side has no spectrum worth flattening
# a transposed convolution maps each position's features to those of a patch: the matrix is
# (in, out * kernel), transposed
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def hidden_matrices(model: nn.Module) -> set[int]:
    """`id` of each weight that maps features to features: of linear layers and of convolutions that
    are not grouped, (out, in * kernel), transposed ones among them, neither side below 8;
    `model.head` is left out."""
    head = getattr(model, "head", None)
    outputs = {id(m) for m in head.modules()} if isinstance(head, nn.Module) else set()
    return {
        id(m.weight)
        for m in model.modules()
        if isinstance(m, _DENSE)
        and getattr(m, "groups", 1) == 1
        and id(m) not in outputs
        and min(m.weight.shape[0], math.prod(m.weight.shape[1:])) >= _LEAST
    }


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    old: nn.Module | None = None,
    old_rate: float | None = None,
) -> list[dict[str, object]]:
    """Three groups: hidden matrices are `use_muon` and decay; of the rest, kernels and stacks of
    matrices decay; A_log, D, dt's bias, norms and biases do not.

    Decay would pull A_log towards 0, that is every decay rate towards -1, and norms towards nothing
    (Gu & Dao 2023, https://arxiv.org/abs/2312.00752, leave A and D out of it as well).

    Args:
        model: Parameters that need no gradient are left out.
        weight_decay: Of the first two groups.
        old: A part of `model` that has been trained before.
        old_rate: Learning rate of `old`, whose parameters then are groups of their own, behind the
            others; None: the optimiser's.
    """
    exempt = {
        id(p) for m in model.modules() if isinstance(m, SS2D) for p in (m.A_log, m.D, m.dt_bias)
    }
    hidden = hidden_matrices(model)
    apart = set() if old is None or old_rate is None else {id(p) for p in old.parameters()}
    kinds = ("muon", "decayed", "free")
    members: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_free = id(parameter) in exempt or parameter.ndim <= 1
            kind = "muon" if id(parameter) in hidden else "free" if is_free else "decayed"
            members.setdefault((id(parameter) in apart, kind), []).append(parameter)
    groups: list[dict[str, object]] = []
    for is_old in (False, True) if apart else (False,):
        for kind in kinds:
            group: dict[str, object] = {
                "params": members.get((is_old, kind), []),
                "use_muon": kind == "muon",
                "weight_decay": 0.0 if kind == "free" else weight_decay,
            }
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
    name: str = "muon",
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Muon or AdamW over `parameter_groups` and a scheduler that is stepped after every batch: each
    group's rate is its own peak times `warmup_cosine`.

    Muon's update of a hidden matrix is its averaged gradient with all singular values brought near
    1 (five Newton-Schulz steps), times 0.2 sqrt(the longer side): as large as AdamW's, so that one
    learning rate and one decay serve both (Jordan 2024, https://kellerjordan.github.io/posts/muon/;
    Liu et al. 2025, https://arxiv.org/abs/2502.16982). Everything else is updated by AdamW.

    Args:
        name: muon; or adamw for every parameter.
    """
    groups = parameter_groups(model, weight_decay, old, old_rate)
    optimiser: torch.optim.Optimizer
    if name == "adamw":
        plain = [{k: v for k, v in group.items() if k != "use_muon"} for group in groups]
        optimiser = torch.optim.AdamW(plain, lr=learning_rate)
    else:
        from pytorch_optimizer import Muon  # it loads a hundred other optimisers

        groups = [{"lr": learning_rate} | group for group in groups]
        optimiser = Muon(
            groups, adamw_betas=(0.9, 0.999), adamw_eps=1e-8, momentum=0.95, use_adjusted_lr=True
        )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: warmup_cosine(step, total_steps, warmup)
    )
    return optimiser, schedule
