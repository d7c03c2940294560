"""Turns: the order of calls, the round that warms up, the report of progress."""

import time

from hymunet.experiments import timing


def test_all_take_turns_and_the_first_round_warms_up(monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    order, done = [], []

    def call(name, seconds):
        def run():
            order.append(name)
            time.sleep(seconds if order.count(name) > 1 else 0.2)

        return run

    times = timing.in_turns(
        {"a": call("a", 0.02), "b": call("b", 0.001)}, 2, done=lambda: done.append(len(order))
    )
    assert order == ["a", "b"] * 3
    assert done == [1, 2, 3, 4, 5, 6]
    assert [len(times[name]) for name in "ab"] == [2, 2]
    assert min(times["a"]) >= 0.02  # and without the first call's 0.2 s
    assert min(times["a"]) < 0.2


def test_without_a_warm_up_every_round_counts(monkeypatch):
    monkeypatch.setattr(timing, "TURN_S", 0.0)
    seen = []
    times = timing.in_turns({"a": lambda: seen.append(0)}, 3, warm_up=False)
    assert len(times["a"]) == len(seen) == 3
