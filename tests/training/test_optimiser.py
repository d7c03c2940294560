"""Which parameters decay, and the shape of the schedule."""

from itertools import pairwise

import pytest
import torch

from hymunet import HyMUNet
from hymunet.training.optimiser import make_optimiser, parameter_groups, warmup_cosine

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


def test_state_space_parameters_norms_and_biases_do_not_decay():
    network = HyMUNet(3, 1, **TOY)
    decayed, free = parameter_groups(network, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    names = {id(p): n for n, p in network.named_parameters()}
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    free_names = {names[id(p)] for p in free["params"]}
    for part in ("A_log", "ss2d.D", "dt_bias"):
        assert any(name.endswith(part) for name in free_names)
    for name in names.values():
        special = name.endswith((".bias", "A_log", "ss2d.D", "dt_bias")) or ".norm" in name
        assert (name in free_names) >= special, name
    assert all(p.ndim > 1 for p in decayed["params"])


def test_frozen_parameters_are_left_out():
    network = HyMUNet(3, 1, **TOY)
    network.encoder.requires_grad_(False)
    groups = parameter_groups(network, 0.1)
    count = sum(len(group["params"]) for group in groups)
    assert count == sum(1 for p in network.parameters() if p.requires_grad)


def test_the_schedule_rises_to_one_and_falls_to_zero():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[55] == pytest.approx(0.5, abs=0.01)
    assert factors[100] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in pairwise(factors[9:]))
    assert warmup_cosine(0, 1, 0.0) == 1.0


def test_the_optimiser_follows_the_schedule():
    layer = torch.nn.Linear(2, 2)
    optimiser, schedule = make_optimiser(layer, 0.5, 0.0, total_steps=10, warmup=0.2)
    rates = []
    for _ in range(10):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx([0.5 * warmup_cosine(step, 10, 0.2) for step in range(10)])
