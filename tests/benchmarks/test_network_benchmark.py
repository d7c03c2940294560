"""The network benchmark judges budgets by arithmetic, and leaves nothing out silently."""

import json

import pytest
import torch
from torch import nn

from benchmarks import linear_cost, network
from benchmarks.linear_cost import Growth
from benchmarks.network import Timing, verdicts
from hymunet.errors import HyMUNetError, NonFiniteError
from hymunet.experiments import timing
from hymunet.experiments.passes import check, picture


def _timings(tiny_forward, tiny_step, parameters=900_000):
    return [
        Timing("U-Net", 31_000_000, [0.3, 0.3], [2.0, 2.0]),
        Timing("tiny", parameters, [tiny_forward] * 2, [tiny_step] * 2),
    ]


def test_budgets_are_shares_of_the_u_net():
    kept = {text.split(",")[0]: one for text, one in verdicts(_timings(0.019, 0.21), 256, 8)}
    assert kept == {
        "tiny: at most 1 M parameters": True,
        "tiny: forward at most 1/15.0 of the U-Net's": True,
        "tiny: training step at most 1/10.0 of the U-Net's": False,
    }
    assert [one for _, one in verdicts(_timings(0.021, 0.19, 1_000_001), 256, 8)] == [
        False,
        False,
        True,
    ]


def test_other_shapes_are_not_judged():
    assert [text for text, _ in verdicts(_timings(1.0, 9.0), 512, 4)] == [
        "tiny: at most 1 M parameters"
    ]


@pytest.mark.parametrize(("factor", "word"), [(17.9, "kept"), (18.1, "missed")])
def test_growth_is_a_multiple_of_the_smallest_size(factor, word):
    growth = Growth("CCMM", {256: [1.0, 2.0, 3.0], 1024: [2 * factor] * 3})
    assert growth.multiple(1024) == pytest.approx(factor)
    assert linear_cost.verdict([growth], 1024) == f"18x: {word}"
    assert linear_cost.verdict([growth], 2048) == ""


def test_a_size_that_takes_too_long_is_left_out_with_a_reason(monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    for growth in linear_cost.measure(largest=1024, limit_s=1e-9, repeats=1):
        assert list(growth.forward_s) == [256]
        assert set(growth.left_out) == {512, 1024}
        assert "--linear-cost-limit" in growth.left_out[512]


@pytest.mark.parametrize("factor", [1.0, torch.nan])
def test_a_network_that_is_not_fit_to_be_timed_is_refused(factor):
    class Scaled(nn.Conv2d):
        def forward(self, x):
            return factor * super().forward(x)

    image, target = picture(1, (64, 64))
    if factor == 1:
        check("fine", Scaled(3, 1, 1), image, target)
        with pytest.raises(HyMUNetError, match=r"\(1, 1, 64, 64\) were expected, \(1, 2, 64, 64\)"):
            check("two logits", Scaled(3, 2, 1), image, target)
    else:
        with pytest.raises(NonFiniteError, match="nothing was timed"):
            check("not a number", Scaled(3, 1, 1), image, target)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 32}, "multiples of 32, 64 or more"),
        ({"step_size": 100}, "multiples of 32, 64 or more"),
        ({"repeats": 0}, "--repeats must be at least 1, 0 came"),
        ({"linear_cost_max": 128}, "--linear-cost-max must be at least 256, 128 came"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(HyMUNetError, match=words):
        network.main(**options)


@pytest.mark.slow
def test_the_command_writes_every_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    path = tmp_path / "deeper" / "times.json"
    network.main(size=64, step_size=64, batch=2, repeats=1, rivals=False, json_path=path)
    written = json.loads(path.read_text())
    assert [one["name"] for one in written["networks"]] == ["U-Net", "tiny", "small", "base"]
    assert all(len(one["forward_s"]) == len(one["step_s"]) == 1 for one in written["networks"])
    assert "tiny: at most 1 M parameters: kept" in capsys.readouterr().out
