"""Costs: counted alike for every network, and memory as a process of its own sees it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from hymunet import hymunet_tiny
from hymunet.experiments import timing
from hymunet.experiments.compare import comparison, costs
from hymunet.experiments.compare.cells import Cell
from hymunet.experiments.compare.costs import Cost, count, measure
from hymunet.experiments.compare.entrants import Entrant, find_entrant
from hymunet.network.summary import summarise
from hymunet.training.planning.plan import Settings

SETTINGS = Settings(preset="tiny", image_size=32)


@pytest.mark.parametrize("stages", ["CCMM", "CCAA"])
def test_a_network_of_anybody_is_counted_as_ours_is(stages):
    """Ours are counted by their parts; in a module that is not ours, torch counts the same."""
    network = hymunet_tiny(stages=stages)
    image = torch.zeros(1, 3, 64, 64)
    summary = summarise(network, (64, 64))
    assert count(network, image) == (summary.multiply_adds, summary.scan_updates)
    assert count(nn.Sequential(network), image) == count(network, image)
    assert (summary.scan_updates > 0) == ("M" in stages)


def test_counts_of_what_our_networks_do_not_have_by_hand():
    network = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ConvTranspose2d(5, 7, 2, stride=2))
    # 8 x 8 positions, 5 outputs of 2 x 3 x 3; each position gives 7 outputs of 2 x 2 from 5
    assert count(network, torch.zeros(1, 2, 8, 8)) == (64 * 5 * 18 + 64 * 5 * 7 * 4, 0)


def test_a_measurement_has_every_column(monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    entrant = find_entrant("CCMM")
    found = measure([entrant], {"CCMM": SETTINGS}, 3, (32, 48))["CCMM"]
    assert found.parameters == sum(p.numel() for p in hymunet_tiny().parameters())
    assert (found.multiply_adds, found.scan_updates) == count(
        hymunet_tiny(), torch.zeros(1, 3, 32, 48)
    )
    assert found.cpu_s > 0
    assert (found.gpu_s is not None) == torch.cuda.is_available()
    assert found.notes == [] or found.cpu_bytes is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc: not measured")
def test_peak_memory_is_what_a_forward_pass_holds_and_a_dying_process_loses_only_itself(
    workplace, monkeypatch
):
    held = find_entrant("small_networks:held")
    entrants = [
        Entrant("fatal", "", builder="small_networks:fatal"),
        held,
        Entrant("again", "", builder=held.builder),
    ]
    monkeypatch.setenv("FATAL_SPARES", str(os.getpid()))
    found = measure(entrants, dict.fromkeys(("fatal", held.name, "again"), SETTINGS), 3, (32, 32))
    # the kernel counts pages in batches: a few hundred kB are not told
    for name in (held.name, "again"):
        assert 63 * 2**20 <= found[name].cpu_bytes < 80 * 2**20
    assert found["fatal"].cpu_bytes is None
    assert "ended with 3" in found["fatal"].notes[0]
    assert found["fatal"].cpu_s > 0


def test_a_network_that_is_gone_costs_nobody_else_the_figures(workplace, monkeypatch):
    monkeypatch.setattr(costs, "measure_peaks", lambda jobs: {})
    one = find_entrant("small_networks:one")
    gone = Entrant("gone", "", builder="small_networks:gone")
    found = measure([gone, one], dict.fromkeys(("gone", one.name), SETTINGS), 3, (32, 32))
    assert list(found) == ["gone", one.name]
    assert found["gone"].parameters is None
    assert found["gone"].notes[0].startswith("cannot be built any more: HyMUNetError: small_netw")
    assert found[one.name].cpu_s > 0


def test_costs_of_an_edited_file_are_measured_anew_and_its_seeds_are_named(
    workplace, tmp_path, monkeypatch
):
    asked = []

    def measured(entrants, *rest):
        asked.append([one.name for one in entrants])
        return {one.name: Cost(7) for one in entrants}

    monkeypatch.setattr(comparison, "measure", measured)
    shared = SimpleNamespace(
        folder=tmp_path, size=(32, 32), in_channels=3, settings_of=lambda entrant, seed: SETTINGS
    )
    both = [find_entrant("small_networks:one"), find_entrant("CCCC")]

    def ask():
        return comparison._costs(shared, both, Console(quiet=True))[0]

    assert ask() == ask() == dict.fromkeys((one.name for one in both), Cost(7))
    assert len(asked) == 1
    cell = Cell(both[0], 3, tmp_path)
    cell.folder.mkdir()
    (cell.folder / "provenance.json").write_text('{"finished": true}')
    (cell.folder / "metrics.csv").write_text("step,seconds\n2,1.0\n")
    entrants, sources = {both[0].name: both[0]}, {cell.folder.name: both[0].source()}
    assert comparison._edited(entrants, [cell], sources) == []
    path = workplace / "small_networks.py"
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(before + "# edited\n", encoding="utf-8")
        ask()
        (note,) = comparison._edited(entrants, [cell], sources)
        monkeypatch.setattr(Entrant, "source", lambda self: None)  # the file is gone
        ask()
        assert comparison._edited(entrants, [cell], sources) == []
    finally:
        path.write_text(before, encoding="utf-8")
    assert len(asked) == 2
    assert "edited after seed 3 had been trained" in note
