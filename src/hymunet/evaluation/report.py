"""An evaluation for people: tables in the terminal, and one HTML file that needs no network."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.case import Case
from hymunet.data.image_io import read_image, read_mask
from hymunet.evaluation.strata import STRATA, mean_over_classes
from hymunet.files import write_text
from hymunet.metrics.case import METRICS

if TYPE_CHECKING:
    from hymunet.evaluation.evaluate import Evaluation, Predicted
    from hymunet.evaluation.figures import Chart

HEADLINE = ("dice", "iou", "precision", "hd95")
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
    predict: "Callable[[Case], Predicted] | None" = None,
) -> None:
    """Writes the self-contained HTML report of an evaluation.

    Args:
        path: The file to write, normally report.html.
        evaluation: What `hymunet.evaluation.evaluate.evaluate` returned.
        run: The run folder, for learning curves and how the model was made; None: left out.
        predict: Gives the mask of a case again, for the pictures; None: no pictures.

    Raises:
        HyMUNetError: If the file cannot be written, or a case can no longer be read.
    """
    from jinja2 import Environment, StrictUndefined

    template = files("hymunet.evaluation").joinpath("report.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"value": format_value, "interval": format_interval}
    summary = evaluation.summary
    page = environment.from_string(template).render(
        summary=summary,
        title=_title(summary),
        notes=evaluation.notes,
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
        made=_how_made(summary, run),
    )
    write_text(path, page)


def print_tables(evaluation: "Evaluation") -> None:
    """Prints the averages by class, the strata's Dice and the notes to the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, summary = Console(), evaluation.summary
    for name, entry in summary["classes"].items():
        title = f"{summary['data']}: {name}, {entry['n']} cases"
        if summary["trained_on"]:
            title += f" - {summary['trained_on']} of them TRAINED ON"
        if summary["chose_the_epoch"]:
            title += f" - {summary['chose_the_epoch']} of them chose the epoch: optimistic"
        table = Table(title=escape(title), title_justify="left")
        table.add_column("metric")
        for heading in ("per-image mean", "95 % interval", "without empties", "pooled"):
            table.add_column(heading, justify="right")
        for metric, mean in entry["per_image"].items():
            unit = unit_of(metric, summary)
            table.add_row(
                METRICS[metric].label + (f" ({unit})" if unit else ""),
                format_value(mean["mean"], metric),
                format_interval(mean, metric),
                format_value(entry["without_empty"][metric], metric),
                format_value(entry["pooled"].get(metric), metric),
            )
        console.print(table)
        found = [f"{len(ids)} {kind.replace('_', ' ')}" for kind, ids in entry["failures"].items()]
        console.print(
            f"  {', '.join(found)}; 'without empties' is the mean over the "
            f"{entry['n_without_empty']} cases where both masks hold something\n",
            highlight=False,
        )
    for note in evaluation.notes:
        console.print(f"  note: {escape(note)}", highlight=False)
    if evaluation.report is not None:
        console.print(f"  report: {escape(str(evaluation.report))}", highlight=False)


def unit_of(metric: str, summary: Mapping[str, Any]) -> str:
    """The unit of a metric's mean: "", px, mm, voxels, mm², mm³."""
    kind = METRICS[metric].unit
    return "" if kind == "" else (summary[f"{kind}_unit"] or "")


def format_value(value: float | None, metric: str) -> str:
    """Three decimals for ratios, two to none for lengths and areas by their size, – for nothing."""
    if value is None:
        return "–"
    if METRICS[metric].unit == "":
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_interval(mean: Mapping[str, float | None], metric: str) -> str:
    """`low to high`; – when all cases are of one group."""
    if mean["low"] is None:
        return "–"
    return f"{format_value(mean['low'], metric)} to {format_value(mean['high'], metric)}"


def headline_means(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Per-image means of the one class, or of the mean over classes when there are several."""
    if "mean_of_classes" in summary:
        return summary["mean_of_classes"]
    return next(iter(summary["classes"].values()))["per_image"]


def _title(summary: Mapping[str, Any]) -> str:
    """The data set's name where it has one, else that of its folder or table."""
    layouts = ("folder pairs", "CSV", "folder of masks")
    return Path(summary["truth"]).name if summary["data"] in layouts else summary["data"]


def _is_warning(note: str) -> bool:
    return note.startswith("FORCED") or "chose the epoch" in note


def _charts(evaluation: "Evaluation", run: Path | None) -> "dict[str, list[Chart]]":
    from hymunet.evaluation.figures import learning_curves, score_by_size, sorted_scores

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
    evaluation: "Evaluation", predict: "Callable[[Case], Predicted] | None"
) -> list[dict[str, Any]]:
    """The best, median and worst cases as pictures, no case twice."""
    from hymunet.evaluation.figures import thumbnail

    if predict is None:
        return []
    ranked = sorted(mean_over_classes(evaluation.cases, "dice"), key=lambda row: -row["dice"])
    dices: dict[str, dict[str, float]] = {}
    for row in evaluation.cases:
        dices.setdefault(row["case"], {})[row["class"]] = row["dice"]
    labels = len(evaluation.summary["classes"]) + 1
    groups = []
    for title, chosen in _ranks(ranked):
        shown = []
        for row in chosen:
            case = evaluation.sources[row["case"]]
            assert case.label is not None
            pixels = read_image(case.channels, None).pixels if case.channels else None
            truth = read_mask(case.label, labels).labels
            picture = thumbnail(pixels, truth, predict(case).mask)
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


def _how_made(summary: Mapping[str, Any], run: Path | None) -> list[dict[str, Any]]:
    """Tables of (name, text): this evaluation, then what the run folder tells of the training."""
    made = summary["made"]
    tables = [
        {
            "title": "This evaluation",
            "rows": [
                ("command", made["command"]),
                ("model or masks", summary["prediction"]),
                ("data", f"{summary['data']}, {summary['truth']}"),
                ("part", summary["split"] or "all cases"),
                ("date", made["date"]),
                ("duration", _duration(made["seconds"])),
                ("machine", made["machine"]),
                ("versions", _text(made["versions"])),
                ("intervals", f"{summary['interval']}, {summary['groups']} groups"),
            ],
            "open": True,
        }
    ]
    if run is None:
        return tables
    provenance = _read(run / "provenance.json")
    settings = _read(run / "config.yaml")
    if "seed" in settings:
        provenance = {"seed": settings["seed"]} | provenance
    training = [
        (name.removesuffix("seconds").replace("_", " ") + "duration", _duration(value))
        if name.endswith("seconds") and isinstance(value, int | float)
        else (name.replace("_", " "), _text(value))
        for name, value in provenance.items()
    ]
    if (run / "split.json").is_file() and "split_sha256" not in provenance:
        digest = hashlib.sha256((run / "split.json").read_bytes()).hexdigest()
        training.append(("split.json (SHA-256)", digest[:16]))
    if training:
        tables.append({"title": "Training", "rows": training, "open": True})
    if settings:
        tables.append({"title": "Training settings", "rows": _flat(settings), "open": False})
    return tables


def _read(path: Path) -> dict[str, Any]:
    """A JSON or YAML file's mapping; empty when there is no such file or nothing legible in it."""
    import yaml

    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        return {path.name: f"not legible: {error}"}
    return content if isinstance(content, dict) else {path.name: content}


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    rows: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _text(value)))
    return rows


def _text(value: Any, longest: int = 400) -> str:
    """A value in words, cut at `longest` characters."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(_text(inner) for inner in value)
    else:
        text = "–" if value is None else str(value)
    return text if len(text) <= longest else text[:longest] + "…"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
