"""The commands of the long version, which CI does not run, are commands that the package takes."""

import sys

import pytest

from examples.every_claim import FULL, QUICK, main
from hymunet.cli import make_app
from hymunet.console import run_script


@pytest.mark.parametrize("command", [*QUICK, *FULL])
def test_each_is_understood(command):
    words = command.split()
    function, bound, _ = make_app(words[0]).parse_args(words, exit_on_error=False)
    assert function.__name__ == words[0]
    assert str(bound.arguments["output"]).startswith("OUT/")


def test_both_versions_ask_for_the_same_four(tmp_path):
    verbs = [[command.split()[0] for command in commands] for commands in (QUICK, FULL)]
    assert verbs[0] == verbs[1] == ["compare", "ablate", "profile", "inspect"]


def test_a_place_that_cannot_be_written_is_a_line_and_no_traceback(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["every_claim.py", "--output", str(tmp_path / "file")])
    with pytest.raises(SystemExit, match="1"):
        run_script(main)
    assert "error: cannot write into the folder" in capsys.readouterr().err.replace("\n", " ")
