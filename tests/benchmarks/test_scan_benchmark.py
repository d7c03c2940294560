"""The scan benchmark times only what is right, and its children measure what they say."""

import json
import sys

import pytest
import torch

from benchmarks import common, scan, scan_child
from benchmarks.scan_rivals import (
    CHANNELS,
    DIRECTIONS,
    LOOP,
    OURS,
    SCANS,
    STATE,
    Case,
    agreement,
    loop_scan,
)
from hymunet.errors import HyMUNetError
from hymunet.experiments import timing


@pytest.mark.parametrize("case", [Case(1, 1), Case(2, 3), Case(1, 8)], ids=str)
def test_all_implementations_agree_with_the_reference(case):
    errors = agreement(case)
    assert set(errors) == set(SCANS)
    for by_quantity in errors.values():
        assert list(by_quantity) == ["y", "u", "delta", "A", "B", "C", "D", "delta_bias"]
        assert max(by_quantity.values()) < 1e-4


def _raster_only(inputs, order):
    return loop_scan(inputs, order[:1].expand_as(order))


def _no_gradient_of_b(inputs, order):
    return loop_scan({**inputs, "B": inputs["B"].detach() + 0 * inputs["B"]}, order)


def _not_a_number(inputs, order):
    return loop_scan(inputs, order) * torch.nan


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (_raster_only, "y should"),
        (_no_gradient_of_b, "the gradient of B should"),
        (_not_a_number, "y should be within 0.001 of the float64 reference, but is nan"),
    ],
)
def test_a_wrong_implementation_is_not_timed(wrong, what):
    with pytest.raises(HyMUNetError, match=rf"wrong at 1x9: {what}.*nothing was timed"):
        agreement(Case(1, 3), {"wrong": wrong})


def test_a_case_is_a_batch_and_a_square():
    assert Case.parse("4x1024") == Case(4, 32)
    assert str(Case(1, 128)) == "1x16384"


@pytest.mark.parametrize("text", ["4x1000", "0x16", "4x0", "x16", "4", "4x-4", "ax16", ""])
def test_another_case_is_refused(text):
    with pytest.raises(HyMUNetError, match="a case is BATCHxLENGTH"):
        Case.parse(text)


def test_the_factor_is_over_the_faster_rival():
    # medians: 1, 6 and 9
    times = {"hymunet": [1.0, 1.0, 50.0], "torch loop": [6.0, 2.0, 7.0], "pscan": [9.0, 9.0, 9.0]}
    assert scan.times_faster(times) == 6


def test_other_lengths_shall_keep_two_thirds_of_the_first_factor():
    times = {
        what: {"hymunet": [1.0], "torch loop": [12.0], "pscan": [30.0]} for what in scan.TARGETS
    }
    measured = {Case(4, 32): times, Case(4, 16): times}
    assert scan.target_of(Case(4, 32), "forward", measured) == 6
    assert scan.target_of(Case(4, 16), "forward", measured) == pytest.approx(8)
    assert scan.target_of(Case(4, 16), "forward", {Case(4, 16): times}) is None
    assert scan.target_of(Case(3, 16), "forward", measured) is None


def test_calls_take_turns_and_the_first_round_is_not_kept(monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    seen = []
    calls = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}
    times = common.in_turns(calls, repeats=2)
    assert seen == ["a", "b"] * 3
    assert {name: len(of_one) for name, of_one in times.items()} == {"a": 2, "b": 2}
    common.in_turns(calls, repeats=1, warm_up=False)
    assert seen == ["a", "b"] * 4


def test_a_short_call_fills_its_turn(monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.01)
    seen = []
    timing.turn(lambda: seen.append(0))
    assert len(seen) > 2


def test_the_command_writes_every_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    scan.main(case=["2x16"], repeats=2, memory=False, first_call=False, json_path=tmp_path)
    written = json.loads((tmp_path / "scan.json").read_text())
    (case,) = written["cases"]
    assert (case["batch"], case["length"]) == (2, 16)
    assert set(case["times_s"]) == set(scan.TARGETS)
    for by_name in case["times_s"].values():
        assert {name: len(times) for name, times in by_name.items()} == dict.fromkeys(SCANS, 2)
    assert written["machine"]["torch"] == torch.__version__
    assert "2x16" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can only be reset on Linux")
def test_a_child_counts_what_the_loop_keeps_and_ours_does_not():
    # the loop keeps decay and state of every step for its backward
    states = 576 * DIRECTIONS * CHANNELS * STATE * 4
    extra = {
        name: scan_child.ask("memory", name, "1x576", 2)["extra_bytes"] for name in (LOOP, OURS)
    }
    assert extra[LOOP] > 2 * states
    assert 0 < extra[OURS] < states


def test_a_child_that_fails_is_quoted():
    with pytest.raises(HyMUNetError, match=r"memory of nobody at 1x16 .* KeyError: 'nobody'"):
        scan_child.ask("memory", "nobody", "1x16", 1)
