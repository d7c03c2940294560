"""Every example says what it asks, is found in the index, and is run by `make examples`."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPOSITORY / "examples").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_begins_with_its_question_and_is_listed_and_run(script):
    prose = script.read_text(encoding="utf-8").split('"""')[1]
    for part in (
        "The question.",
        "The expectation.",
        "What to look at.",
        f"examples/{script.name}",
    ):
        assert part in prose
    assert f"({script.name})" in (REPOSITORY / "examples" / "README.md").read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f"examples/{script.name}" in makefile
