"""Turns: the order of calls, the round that warms up, the report of progress."""

import pytest

from hymunet.experiments import timing


@pytest.mark.parametrize("warm_up", [True, False])
def test_all_take_turns_and_a_round_that_warms_up_is_not_kept(monkeypatch, warm_up):
    order, done = [], []

    def turn(call):
        call()
        return len(order)  # instead of seconds: which call it was

    monkeypatch.setattr(timing, "turn", turn)
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = timing.in_turns(calls, 2, warm_up, lambda: done.append(len(order)))
    assert order == ["a", "b"] * (2 + warm_up)
    assert done == list(range(1, len(order) + 1))
    first = 3 if warm_up else 1
    assert times == {"a": [first, first + 2], "b": [first + 1, first + 3]}


def test_a_call_is_repeated_in_its_turn_and_its_first_time_left_out(monkeypatch):
    clock, seen = iter(range(1000)), []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(timing, "TURN_S", 10.0)
    assert timing.turn(lambda: seen.append(0)) == 1.0
    assert len(seen) > 2
    seen.clear()
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    assert timing.turn(lambda: seen.append(0)) == 1.0
    assert len(seen) == 1
