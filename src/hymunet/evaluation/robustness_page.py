"""A measurement of robustness as one HTML file: the table, and one case under every corruption."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.corruptions import CORRUPTIONS, Corruption
from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.evaluation.page import render, style_sheet
from hymunet.evaluation.provenance import how_made
from hymunet.evaluation.robustness import predict_corrupted
from hymunet.evaluation.robustness_summary import CLEAN
from hymunet.evaluation.robustness_terminal import (
    WORST,
    by_kind,
    format_change,
    format_change_interval,
)
from hymunet.evaluation.seen import FORCED
from hymunet.evaluation.summary import mean_over_classes
from hymunet.evaluation.truth import read_truth
from hymunet.files import write_text

if TYPE_CHECKING:
    from hymunet.evaluation.robustness import Robustness
    from hymunet.inference.predictor import Predictor


def write_page(path: Path, result: "Robustness", predictor: "Predictor") -> None:
    """Writes the self-contained page.

    Args:
        path: The file to write, normally robustness.html.
        result: What `hymunet.evaluation.robustness.robustness` returned.
        predictor: Predicts the example again, for its pictures.

    Raises:
        HyMUNetError: If the file cannot be written, or the example can no longer be read.
    """
    filters = {
        "value": format_value,
        "interval": format_interval,
        "change": format_change,
        "change_interval": format_change_interval,
    }
    summary = result.summary
    page = render(
        "hymunet.evaluation/robustness.html.jinja",
        filters,
        style=style_sheet(),
        summary=summary,
        notes=result.notes,
        warnings=[note for note in result.notes if note.startswith(FORCED)],
        kinds=by_kind(summary["corruptions"]),
        worst=summary["worst"][:WORST],
        axis=change_axis(summary["corruptions"]),
        example=_example(result, predictor),
        made=how_made(summary, None),
    )
    write_text(path, page)


def change_axis(entries: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The range of all changes of Dice and their intervals, 0 included, out to the next 0.05."""
    ends = [
        bound for entry in entries for bound in entry["dice_change"].values() if bound is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    return float(np.floor(low * 20 - 1e-9) / 20), float(np.ceil(high * 20 + 1e-9) / 20)


def _example(result: "Robustness", predictor: "Predictor") -> dict[str, Any]:
    """The case of median clean Dice, as it is and under each corruption that was measured."""
    from hymunet.evaluation.thumbnails import thumbnail

    clean = [row for row in result.cases if row["corruption"] == CLEAN]
    ranked = sorted(mean_over_classes(clean, "dice"), key=lambda row: row["dice"])
    case = result.sources[ranked[len(ranked) // 2]["case"]]
    own = [row for row in result.cases if row["case"] == case.id]
    truth = read_truth(case, predictor.config.in_channels, len(predictor.classes) + 1)
    measured = {row["corruption"] for row in own}
    shown: list[Corruption | None] = [None, *(c for c in CORRUPTIONS if c.key in measured)]
    pictures = []
    for corruption in shown:
        name = corruption.key if corruption else CLEAN
        sample, predicted = predict_corrupted(predictor, case, truth, corruption)
        scores = mean_over_classes([row for row in own if row["corruption"] == name], "dice")
        counted = True if sample.valid is None else sample.valid
        picture = thumbnail(sample.pixels, sample.labels * counted, predicted * counted)
        pictures.append({"name": name, "dice": scores[0]["dice"], "picture": picture})
    return {"case": case.id, "pictures": pictures}
