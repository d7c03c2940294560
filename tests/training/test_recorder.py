"""What is said after an epoch."""

import io

import pytest
from rich.console import Console

from hymunet.training.recorder import Recorder
from hymunet.training.run_folder import RunFolder


@pytest.mark.parametrize(
    ("budget", "seconds", "left", "warned"),
    [
        ("2m", 60.0, 60.0, False),
        ("2m", 60.0, 71.0, False),
        ("2m", 60.0, 73.0, True),
        ("2m", 300.0, 0.0, False),  # it is over: nothing to be warned of
        (None, 300.0, 300.0, False),
    ],
)
def test_a_budget_that_will_not_do_is_said_once(tmp_path, budget, seconds, left, warned):
    said = io.StringIO()
    recorder = Recorder(RunFolder(tmp_path), dict, Console(file=said, width=200), budget)
    recorder.rows = [{"seconds": seconds}]
    recorder._say_of_budget(left)
    assert ("at this pace the training takes 2.2 minutes, not 2m" in said.getvalue()) is warned
    recorder._say_of_budget(left)
    assert said.getvalue().count("warning") == warned
