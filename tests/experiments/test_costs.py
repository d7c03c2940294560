"""Costs: counted alike for every network, and memory as a process of its own sees it."""

import re
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from hymunet import hymunet_tiny
from hymunet.experiments import costs
from hymunet.experiments.costs import count, in_turns, measure
from hymunet.experiments.entrants import Entrant, find_entrant
from hymunet.experiments.memory import peak_bytes, question
from hymunet.network.summary import summarise
from hymunet.training.planning.plan import Settings


@pytest.mark.parametrize("stages", ["CCMM", "CCAA"])
def test_counts_are_those_of_our_own_summary(stages):
    network = hymunet_tiny(stages=stages)
    summary = summarise(network, (64, 64))
    found = count(network, torch.zeros(1, 3, 64, 64))
    assert found == (summary.multiply_adds, summary.scan_updates)
    assert (summary.scan_updates > 0) == ("M" in stages)


def test_counts_of_what_our_networks_do_not_have_by_hand():
    network = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ConvTranspose2d(5, 7, 2, stride=2))
    # 8 x 8 positions, 5 outputs of 2 x 3 x 3; each position gives 7 outputs of 2 x 2 from 5
    assert count(network, torch.zeros(1, 2, 8, 8)) == (64 * 5 * 18 + 64 * 5 * 7 * 4, 0)


def test_all_take_turns_and_the_first_round_warms_up(monkeypatch):
    order = []

    def call(name, seconds):
        def run():
            order.append(name)
            time.sleep(seconds if order.count(name) > 1 else 0.2)

        return run

    monkeypatch.setattr(costs, "TURN_S", 0.0)
    monkeypatch.setattr(costs, "ROUNDS", 2)
    times = in_turns({"a": call("a", 0.02), "b": call("b", 0.001)})
    assert order == ["a", "b"] * 3
    assert 0.02 <= times["a"] < 0.15  # without the first call
    assert times["b"] < times["a"]


def test_a_measurement_has_every_column(monkeypatch):
    monkeypatch.setattr(costs, "TURN_S", 0.0)
    network = hymunet_tiny()
    networks = {"a": network, "b": network}
    found = measure(networks, (32, 32), {"a": 7, "b": "nobody knows"})
    assert found["b"].notes == ["memory on the CPU not measured: nobody knows"]
    assert found["b"].cpu_bytes is None
    found = found["a"]
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.cpu_s > 0
    assert found.cpu_bytes == 7
    assert (found.gpu_s is not None) == torch.cuda.is_available()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc: not measured")
def test_peak_memory_is_what_a_forward_pass_holds_and_a_dying_process_loses_only_itself(workplace):
    settings = Settings(preset="tiny", image_size=32)
    held = find_entrant("small_networks:held")
    entrants = {
        "fatal": Entrant("fatal", "", builder="small_networks:fatal"),
        "held": held,
        "gone": Entrant("gone", "", builder="small_networks:gone"),
        "again": held,
    }
    found = peak_bytes({n: question(e, settings, 3, (32, 32)) for n, e in entrants.items()})
    # the kernel counts pages in batches: a few hundred kB are not told
    assert 63 * 2**20 <= found["held"] < 80 * 2**20
    assert found["again"] == pytest.approx(found["held"], abs=2**21)  # and again
    assert re.search(r"ended with 3 .*negative: killed", found["fatal"])
    assert re.search(r"HyMUNetError: small_networks:gone: .*no function 'gone'", found["gone"])
