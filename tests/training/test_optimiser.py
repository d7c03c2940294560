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


def test_a_part_with_a_rate_of_its_own_is_two_groups_behind_the_others():
    network = HyMUNet(3, 1, **TOY)
    both = parameter_groups(network, 0.1)
    groups = parameter_groups(network, 0.1, old=network.encoder, old_rate=0.25)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.0]
    assert [group.get("lr") for group in groups] == [None, None, 0.25, 0.25]
    encoder = {id(p) for p in network.encoder.parameters()}
    members = [{id(p) for p in group["params"]} for group in groups]
    assert members[2] | members[3] == encoder
    # what decays and what does not is decided as ever, and nothing is lost or there twice
    assert [members[0] | members[2], members[1] | members[3]] == [
        {id(p) for p in group["params"]} for group in both
    ]
    assert sum(map(len, members)) == len(list(network.parameters()))
    # without a rate of its own it is no part
    assert len(parameter_groups(network, 0.1, old=network.encoder)) == 2


def test_every_group_follows_the_schedule_from_its_own_peak():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    optimiser, schedule = make_optimiser(layers, 0.5, 0.1, 10, 0.2, layers[0], 0.5 * 0.1)
    for step in range(10):
        factor = warmup_cosine(step, 10, 0.2)
        rates = [group["lr"] for group in optimiser.param_groups]
        assert rates == [0.5 * factor] * 2 + [0.5 * 0.1 * factor] * 2
        optimiser.step()
        schedule.step()
