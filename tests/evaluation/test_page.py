"""The frame of pages: one style, text escaped, what is not given is an error and no gap."""

import pytest

from hymunet.evaluation.page import render, style_sheet

pytest.importorskip("jinja2")
FRAME = "hymunet.evaluation/frame.html.jinja"


def test_the_frame_has_the_reports_style_and_fetches_nothing():
    page = render(FRAME, {}, style=style_sheet())
    assert page.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in page
    assert "For research only" in page
    assert "http" not in page
    assert "<script" not in page


def test_names_of_files_are_text_not_markup():
    from jinja2 import UndefinedError

    page = render(
        "hymunet.experiments.compare/page.html.jinja", {}, style="", title="<b>x</b>",
        summary={"failed": [], "open": [], "made": {"date": "now"},
                 "size": [8, 8], "costs": {"processor": "p", "threads": 1, "gpu": None},
                 "models": []},
        about="", charts=[], effects=[], score_headings=["<i>"], score_rows=[], cost_headings=[],
        cost_rows=[], made=[("command", "<u>")], notes=["<s>"],
    )  # fmt: skip
    assert "&lt;b&gt;x" in page
    assert not any(mark in page for mark in ("<b>", "<i>", "<u>", "<s>"))
    with pytest.raises(UndefinedError):
        render(FRAME, {})
