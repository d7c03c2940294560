"""A gate that treats all alike changes no ratio; one that closes on the background lowers it."""

import math

import numpy as np
import pytest
import torch

from hymunet.experiments.inspect.gates import (
    background_ratio,
    gate_numbers,
    region_shares,
    summarise_gates,
)
from hymunet.experiments.inspect.observe import Skip

INSIDE = torch.zeros(16, 16, dtype=torch.bool)
INSIDE[4:12, 4:12] = True
ALL = torch.ones_like(INSIDE)


def skip_with(gate: torch.Tensor, level: int = 0) -> Skip:
    generator = torch.Generator().manual_seed(level)
    shallow = torch.randn(1, 5, 8, 8, generator=generator)
    return Skip(level, shallow, gate, shallow)


@pytest.mark.parametrize("opened", [1.0, 0.25])
def test_a_constant_gate_changes_nothing(opened):
    (row,) = gate_numbers([skip_with(torch.full((1, 5, 8, 8), opened))], INSIDE, ALL)
    assert row["after"] == pytest.approx(row["before"], rel=1e-12)
    if opened == 1.0:
        assert row["after"] == row["before"]
    assert row["open_structure"] == row["open_background"] == pytest.approx(opened)


def test_a_gate_that_halves_the_background_quarters_its_energy():
    gate = torch.where(INSIDE[::2, ::2], 1.0, 0.5)[None, None]  # one value for all channels
    (row,) = gate_numbers([skip_with(gate)], INSIDE, ALL)
    assert row["after"] / row["before"] == pytest.approx(0.25)
    assert (row["open_structure"], row["open_background"]) == (1.0, 0.5)


def test_the_ratio_is_that_of_mean_energies_in_both_regions():
    feature = torch.zeros(1, 2, 2, 2)
    feature[0, :, 0, 0] = torch.tensor([3.0, 1.0])  # structure: mean square 5
    feature[0, 0, 1, 1] = 2.0  # background of 3 cells: mean square 2 / 3
    structure = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double()
    assert background_ratio(feature, structure, 1 - structure) == pytest.approx(2 / 3 / 5)


def test_padding_is_neither_structure_nor_background():
    counted = ALL.clone()
    counted[:, 12:] = False
    structure, background = region_shares(INSIDE, counted, (4, 4))
    assert float(background[:, 3].sum() + structure[:, 3].sum()) == 0
    assert structure[1, 1] == 1
    partly, _ = region_shares(INSIDE, ALL, (2, 2))
    assert partly[0, 0] == 0.25
    volume = INSIDE[:, :, None].expand(16, 16, 4)
    assert region_shares(volume, torch.ones_like(volume), (4, 4, 2))[0].shape == (4, 4, 2)


def test_images_without_structure_or_background_and_skips_without_a_gate_say_nothing():
    skip = skip_with(torch.full((1, 5, 8, 8), 0.5))
    assert gate_numbers([skip], torch.zeros_like(INSIDE), ALL) == []
    assert gate_numbers([skip], ALL, ALL) == []
    assert gate_numbers([Skip(0, skip.shallow, None, skip.shallow)], INSIDE, ALL) == []
    assert summarise_gates([]) == []


def test_the_summary_is_the_geometric_mean_with_an_interval_over_groups():
    rng = np.random.default_rng(0)
    rows = []
    for case in range(40):
        for level, change in ((0, 0.5), (1, 2.0)):
            before = float(np.exp(rng.normal()))
            row = {"case": str(case), "group": str(case // 2), "level": level, "before": before}
            row["after"] = before * change * float(np.exp(0.1 * rng.normal()))
            rows.append(row | {"open_structure": 0.8, "open_background": 0.4})
    fine, coarse, both = summarise_gates(rows)
    assert [fine["level"], coarse["level"], both["level"]] == [0, 1, None]
    logs = [math.log(row["after"] / row["before"]) for row in rows if row["level"] == 0]
    assert fine["change"]["mean"] == pytest.approx(math.exp(np.mean(logs)))
    assert fine["change"]["low"] < fine["change"]["mean"] < fine["change"]["high"] < 0.6
    assert both["change"]["mean"] == pytest.approx(
        math.sqrt(fine["change"]["mean"] * coarse["change"]["mean"])
    )
    assert (fine["suppressed"], coarse["suppressed"], fine["n"]) == (40, 0, 40)
    assert fine["open_background"]["mean"] == pytest.approx(0.4)
