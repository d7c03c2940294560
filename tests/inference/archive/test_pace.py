"""What is said of the time left follows from what was measured in this call."""

import pytest

from hymunet.inference.archive.pace import Pace, left_text


def steady(pace, begin, seconds, rate, done=0):
    for second in range(1, seconds + 1):
        done += rate
        pace.add(begin + second, done)
    return done


def test_nothing_is_said_of_a_handful():
    pace = Pace(0.0)
    pace.add(1.0, 19)
    assert pace.left(1000) is None
    assert left_text(None) == "time left unknown yet"
    pace.add(2.0, 20)
    assert pace.left(1000) == (100.0, 100.0)


def test_a_steady_pace_gives_one_figure():
    pace = Pace(1000.0)
    steady(pace, 1000.0, 600, rate=4)
    assert pace.rate == pytest.approx(4.0)
    assert pace.left(7200) == pytest.approx((1800.0, 1800.0))
    assert left_text(pace.left(7200)) == "about 30 min left"


def test_a_pace_that_falls_gives_a_range_that_holds_the_recent_one():
    pace = Pace(0.0)
    done = steady(pace, 0.0, 600, rate=8)
    steady(pace, 600.0, 600, rate=2, done=done)
    assert pace.rate == pytest.approx(2.0)
    low, high = pace.left(3600)
    assert (low, high) == pytest.approx(
        (720.0, 1800.0)
    )  # (600 * 8 + 600 * 2) / 1200 s = 5 a second
    assert left_text((low, high)) == "12 to 30 min left"


def test_what_is_remembered_does_not_grow():
    pace = Pace(0.0)
    for count in range(100_000):
        pace.add(count / 1000, count)
    assert len(pace._seen) < 300
    assert pace.rate == pytest.approx(1000.0, rel=0.01)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ((30.0, 31.0), "about 31 s left"),
        ((7200.0, 7300.0), "about 2 h left"),
        ((3.0 * 86400, 4.5 * 86400), "3 to 4.5 days left"),
    ],
)
def test_times_in_words(left, words):
    assert left_text(left) == words
