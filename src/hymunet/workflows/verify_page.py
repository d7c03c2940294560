"""The findings of `verify` as one HTML file, with a contact sheet of the cases concerned."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.case_io import read_stored_case
from hymunet.data.verify_masks import names_by_value
from hymunet.errors import HyMUNetError
from hymunet.evaluation.charts import Chart, histogram
from hymunet.evaluation.page import render, style_sheet
from hymunet.evaluation.thumbnails import Thumbnail, thumbnail
from hymunet.files import write_text

if TYPE_CHECKING:
    from hymunet.data.case import Case
    from hymunet.workflows.verify import Verification

MOST_PICTURES = 16  # of one finding
MOST_CHARTS = 5  # of structures


def write_page(path: Path, result: "Verification") -> None:
    """Writes the self-contained page.

    Raises:
        HyMUNetError: If it cannot be written.
    """
    from hymunet.workflows.verify import facts

    cases = {case.id: case for case in result.dataset.cases}
    areas = {row.id: row.foreground for row in result.rows}
    drawn: dict[str, Thumbnail | None] = {}
    shown: list[dict[str, Any]] = []
    for finding in result.findings:
        for id_ in finding.cases[:MOST_PICTURES]:
            if id_ not in drawn:
                drawn[id_] = _picture(cases[id_])
        pictures = [
            {"id": id_, "picture": drawn[id_], "area": areas[id_]}
            for id_ in finding.cases[:MOST_PICTURES]
            if drawn[id_] is not None
        ]
        shown.append({"finding": finding, "pictures": pictures})
    page = render(
        "hymunet.workflows/verify.html.jinja",
        {},
        style=style_sheet(),
        dataset=result.dataset,
        facts=facts(result),
        shown=shown,
        charts=_charts(result),
        count={
            level: sum(f.level == level for f in result.findings)
            for level in ("error", "warning", "note")
        },
    )
    write_text(path, page)


def _charts(result: "Verification") -> list[Chart]:
    """How large the structures are, and how bright the images."""
    rows = [row for row in result.rows if row.problem is None]
    charts = []
    names = names_by_value(result.dataset, rows, result.structures) if rows else {}
    for value in sorted(names)[:MOST_CHARTS]:
        shares = [100 * dict(row.counts)[value] / sum(n for _, n in row.counts)
                  for row in rows if value in dict(row.counts)]  # fmt: skip
        title = f"{names[value]}: share of the frame"
        charts.append(histogram(shares, title, "%, logarithmic", log=True))
    if rows:
        means = [float(np.mean([one.mean for one in row.image])) for row in rows]
        charts.append(histogram(means, "Mean intensity of each image", "in the files' unit"))
    return charts


def _picture(case: "Case") -> Thumbnail | None:
    """The case with the outline of its mask; None where it cannot be read."""
    try:
        image, values, valid, _ = read_stored_case(case)
    except HyMUNetError:
        return None
    counted = values if valid is None else values * valid
    return thumbnail(image.pixels, counted, np.zeros_like(counted))
