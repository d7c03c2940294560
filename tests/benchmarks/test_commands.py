"""Every benchmark is a command that says how it is used."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
# a child of `benchmarks.scan` is asked by words, not by options
COMMANDS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8") and path.stem != "scan_child"
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_says_how_it_is_used(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    # another test may have imported it: run as a command, it is the only one of its name
    monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert f"Usage: python -m benchmarks.{name} [OPTIONS]" in capsys.readouterr().out
