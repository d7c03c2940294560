"""An evaluation as one HTML file for people, with its pictures in it; needs no network."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.case import Case
from hymunet.data.case_io import read_label
from hymunet.data.image_io import read_image
from hymunet.evaluation.formatting import HEADLINE, format_interval, format_value, unit_of
from hymunet.evaluation.page import REPORT, render
from hymunet.evaluation.provenance import how_made
from hymunet.evaluation.seen import CLEANED, CUT, FORCED, OPTIMISTIC
from hymunet.evaluation.strata import STRATA
from hymunet.evaluation.summary import few_groups_notes, headline_means, mean_over_classes
from hymunet.files import write_text
from hymunet.metrics.case import METRICS

if TYPE_CHECKING:
    from hymunet.evaluation.charts import Chart
    from hymunet.evaluation.evaluate import Evaluation

TILES = 4  # cases shown as best, median and worst
MOST_NAMED = 40  # failures named in the report; cases.csv has them all
FAILURES = {
    "missed": "Missed: the structure is there, the prediction is empty",
    "no_overlap": "No overlap: both hold something, without a pixel in common",
    "false_alarm": "False alarm: something predicted where there is nothing",
    "both_empty": "Both empty: rightly nothing",
}


def write_report(
    path: Path,
    evaluation: "Evaluation",
    run: Path | None = None,
    predict: "Callable[[Case], np.ndarray] | None" = None,
) -> None:
    """Writes the self-contained HTML report of an evaluation.

    Args:
        path: The file to write, normally report.html.
        evaluation: What `hymunet.evaluation.evaluate.evaluate` returned.
        run: The run folder, for learning curves and how the model was made; None: left out.
        predict: Gives the class indices of a case again, for the pictures; None: no pictures.

    Raises:
        HyMUNetError: If the file cannot be written, or a case can no longer be read.
    """
    summary = evaluation.summary
    few = few_groups_notes(summary["groups"])
    page = render(
        REPORT,
        {"value": format_value, "interval": format_interval},
        summary=summary,
        title=_title(summary),
        few=few,
        notes=[note for note in evaluation.notes if note not in few],
        warnings=[note for note in evaluation.notes if _is_warning(note)],
        metrics=METRICS,
        units={name: unit_of(name, summary) for name in METRICS},
        headline=[name for name in HEADLINE if name in headline_means(summary)],
        means=headline_means(summary),
        charts=_charts(evaluation, run),
        strata=STRATA,
        axis=_strata_axis(summary),
        tiles=_tiles(evaluation, predict),
        failures=FAILURES,
        most_named=MOST_NAMED,
        any_failure=any(
            ids for entry in summary["classes"].values() for ids in entry["failures"].values()
        ),
        made=how_made(summary, run),
    )
    write_text(path, page)


def _title(summary: Mapping[str, Any]) -> str:
    """The data set's name where its layout is that of one data set, else that of its folder or
    table."""
    named = ("ISIC 2018 Task 1", "DRIVE")
    folder = Path(summary["truth"]).resolve().name
    return summary["data"] if summary["data"] in named or not folder else folder


def _is_warning(note: str) -> bool:
    return note.startswith(FORCED) or any(one in note for one in (OPTIMISTIC, CUT, CLEANED))


def _charts(evaluation: "Evaluation", run: Path | None) -> "dict[str, list[Chart]]":
    from hymunet.evaluation.charts import learning_curves, score_by_size, sorted_scores

    curves = []
    if run is not None and (run / "metrics.csv").is_file():
        curves = learning_curves(run / "metrics.csv")
    scores = [row["dice"] for row in mean_over_classes(evaluation.cases, "dice")]
    name = "Mean Dice over classes" if len(evaluation.summary["classes"]) > 1 else "Dice"
    spread = [sorted_scores(scores, name)]
    sized = [row for row in evaluation.cases if row["target_fraction"] > 0]
    if len({row["target_fraction"] for row in sized}) > 1:
        fractions = [row["target_fraction"] for row in sized]
        spread.append(score_by_size(fractions, [row["dice"] for row in sized]))
    return {"curves": curves, "spread": spread}


def _strata_axis(summary: Mapping[str, Any]) -> tuple[float, float]:
    """From the lowest bound of any band, rounded down to a tenth, to 1."""
    lows = [
        band["dice"]["mean"] if band["dice"]["low"] is None else band["dice"]["low"]
        for entry in summary["classes"].values()
        for bands in entry["strata"].values()
        for band in bands.values()
    ]
    return (min(0.9, float(np.floor(min(lows) * 10) / 10)) if lows else 0.0), 1.0


def _tiles(
    evaluation: "Evaluation", predict: "Callable[[Case], np.ndarray] | None"
) -> list[dict[str, Any]]:
    """The best, median and worst cases as pictures, no case twice."""
    from hymunet.evaluation.thumbnails import thumbnail

    if predict is None:
        return []
    ranked = sorted(mean_over_classes(evaluation.cases, "dice"), key=lambda row: -row["dice"])
    dices: dict[str, dict[str, float]] = {}
    for row in evaluation.cases:
        dices.setdefault(row["case"], {})[row["class"]] = row["dice"]
    structures = list((evaluation.summary.get("structures") or {}).values())
    highest = max(map(max, structures), default=len(evaluation.summary["classes"]))
    groups = []
    for title, chosen in _ranks(ranked):
        shown = []
        for row in chosen:
            case = evaluation.sources[row["case"]]
            pixels = read_image(case.channels, None).pixels if case.channels else None
            truth = read_label(case, highest + 1).labels
            picture = thumbnail(pixels, truth, predict(case), structures)
            shown.append({"case": case.id, "dice": dices[case.id], "picture": picture})
        groups.append({"title": title, "cases": shown})
    return groups


def _ranks(ranked: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    """Splits cases that are sorted best first into those to show, worst ones first."""
    if len(ranked) < 3:
        return [("All cases", ranked)]
    count = min(TILES, len(ranked) // 3)
    middle = (len(ranked) - count) // 2
    return [
        ("Worst", ranked[: -count - 1 : -1]),
        ("Around the median", ranked[middle : middle + count]),
        ("Best", ranked[:count]),
    ]
