"""What fits into a time is arithmetic on what was measured: it fits, and little of it is left."""

import itertools

import pytest

from hymunet.training.cost import Pace

STEPS, LOOKS = (0.01, 0.3, 2.0, 9.0), (0.01, 1.0, 15.0)


@pytest.mark.parametrize(("step", "look"), list(itertools.product(STEPS, LOOKS)))
@pytest.mark.parametrize("whole", [3, 17, 84])
@pytest.mark.parametrize("seconds", [30, 720, 7200])
def test_epochs_fill_a_time_and_no_more(step, look, whole, seconds):
    pace = Pace(step, look)
    epochs, steps = pace.epochs_in(seconds, whole)
    assert epochs >= 1
    assert 1 <= steps <= whole
    if step + look <= 0.95 * seconds:
        assert epochs * pace.seconds(steps) <= 0.95 * seconds
    # what is left over would hold no step more in each epoch, or else no epoch more
    left = 0.95 * seconds - epochs * pace.seconds(steps)
    assert left < epochs * step or left < pace.seconds(whole)


def test_a_fast_network_makes_whole_passes():
    assert Pace(0.3, 2.0).epochs_in(3600, 84) == (125, 84)


def test_a_slow_network_is_looked_at_several_times():
    epochs, steps = Pace(9.0, 30.0).epochs_in(720, 84)
    assert epochs == 6
    assert 0.85 * 720 < epochs * (9.0 * steps + 30.0) <= 0.95 * 720


def test_looks_take_no_more_than_a_third_of_the_time():
    epochs, _ = Pace(9.0, 100.0).epochs_in(720, 84)
    assert epochs * 100 <= 0.95 * 720 / 3
    assert Pace(9.0, 1000.0).epochs_in(720, 84) == (1, 1)


def test_steps_that_somebody_chose_stay():
    assert Pace(2.0, 10.0).epochs_in(720, 30, shorter=False) == (9, 30)
