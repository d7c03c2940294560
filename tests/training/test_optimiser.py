"""How each kind of parameter is updated, which decay, and the shape of the schedule."""

import copy
import math
from itertools import pairwise

import pytest
import torch

from hymunet import HyMUNet
from hymunet.training.optimiser import (
    hidden_matrices,
    make_optimiser,
    parameter_groups,
    warmup_cosine,
)

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


def test_hidden_matrices_are_orthogonalised_and_nothing_else():
    network = HyMUNet(3, 1, **TOY | {"dims": (8, 8, 16, 16)})
    muon, _, _ = parameter_groups(network, 0.1)
    assert muon["use_muon"]
    names = {id(p): n.removesuffix(".weight") for n, p in network.named_parameters()}
    found = {names[id(p)] for p in muon["params"]}
    block = "encoder.stages.2.blocks.0"
    assert {f"{block}.in_proj", f"{block}.out_proj", f"{block}.ss2d.x_proj"} < found
    assert {"encoder.downs.0.0", "decoder.fusions.0.gate", "decoder.blocks.0.0.first.0"} < found
    assert not [n for n in found if ".conv" in n or "dt_" in n or "A_log" in n or "head" in n]
    wide = HyMUNet(3, 16, **TOY)  # a head of 16 classes is wide enough, but maps to logits
    assert not {id(p) for p in wide.head.parameters()} & hidden_matrices(wide)


def test_state_space_parameters_norms_and_biases_do_not_decay():
    network = HyMUNet(3, 1, **TOY)
    muon, decayed, free = parameter_groups(network, 0.1)
    assert [group["weight_decay"] for group in (muon, decayed, free)] == [0.1, 0.1, 0.0]
    assert [group["use_muon"] for group in (muon, decayed, free)] == [True, False, False]
    names = {id(p): n for n, p in network.named_parameters()}
    assert len(muon["params"]) + len(decayed["params"]) + len(free["params"]) == len(names)
    free_names = {names[id(p)] for p in free["params"]}
    for part in ("A_log", "ss2d.D", "dt_bias"):
        assert any(name.endswith(part) for name in free_names)
    for name in names.values():
        special = name.endswith((".bias", "A_log", "ss2d.D", "dt_bias")) or ".norm" in name
        assert (name in free_names) >= special, name
    assert all(p.ndim > 1 for p in [*muon["params"], *decayed["params"]])


@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_the_first_update_of_a_matrix_is_its_gradient_with_equal_singular_values(shape):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(shape[1], shape[0], 3, bias=False).double()
    before = conv.weight.detach().clone()
    optimiser, _ = make_optimiser(conv, 1.0, 0.0, total_steps=1, warmup=0.0)
    conv.weight.grad = torch.randn_like(conv.weight)
    left, _, right = torch.linalg.svd(conv.weight.grad.flatten(1), full_matrices=False)
    optimiser.step()
    scale = 0.2 * math.sqrt(max(shape[0], shape[1] * 9))
    update = (before - conv.weight.detach()).flatten(1) / scale
    # in the gradient's own singular vectors the update is diagonal, with entries around 1
    inner = left.T @ update @ right.T
    assert inner.diagonal().min() > 0.6
    assert inner.diagonal().max() < 1.3
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 0.05


def test_whatever_is_no_hidden_matrix_is_updated_as_by_adamw():
    torch.manual_seed(0)
    ours = HyMUNet(3, 1, **TOY)
    theirs = copy.deepcopy(ours)
    hidden = hidden_matrices(ours)
    rest = [n for n, p in ours.named_parameters() if id(p) not in hidden]
    assert len(rest) > 10
    optimisers = [
        make_optimiser(network, 0.01, 0.1, total_steps=9, warmup=0.3, name=name)
        for network, name in ((ours, "muon"), (theirs, "adamw"))
    ]
    assert isinstance(optimisers[1][0], torch.optim.AdamW)
    for _ in range(5):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimiser, schedule in optimisers:
            optimiser.step()
            schedule.step()
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if name in rest:
            torch.testing.assert_close(parameter, others[name], rtol=1e-5, atol=1e-7)
        else:
            assert not torch.allclose(parameter, others[name], atol=1e-4), name


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


def test_a_part_with_a_rate_of_its_own_is_groups_behind_the_others():
    network = HyMUNet(3, 1, **TOY)
    whole = parameter_groups(network, 0.1)
    groups = parameter_groups(network, 0.1, old=network.encoder, old_rate=0.25)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0] * 2
    assert [group["use_muon"] for group in groups] == [True, False, False] * 2
    assert [group.get("lr") for group in groups] == [None] * 3 + [0.25] * 3
    encoder = {id(p) for p in network.encoder.parameters()}
    members = [{id(p) for p in group["params"]} for group in groups]
    assert set.union(*members[3:]) == encoder
    # what decays and what does not is decided as ever, and nothing is lost or there twice
    assert [new | old for new, old in zip(members[:3], members[3:], strict=True)] == [
        {id(p) for p in group["params"]} for group in whole
    ]
    assert sum(map(len, members)) == len(list(network.parameters()))
    # without a rate of its own it is no part
    assert len(parameter_groups(network, 0.1, old=network.encoder)) == 3


def test_every_group_follows_the_schedule_from_its_own_peak():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    optimiser, schedule = make_optimiser(layers, 0.5, 0.1, 10, 0.2, layers[0], 0.5 * 0.1)
    for step in range(10):
        factor = warmup_cosine(step, 10, 0.2)
        rates = [group["lr"] for group in optimiser.param_groups]
        assert rates == [0.5 * factor] * 3 + [0.5 * 0.1 * factor] * 3
        optimiser.step()
        schedule.step()
