"""The table of results: what was measured, beside what the literature prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.evaluation.summary import headline_means
from hymunet.evaluation.tables import as_json
from hymunet.files import write_text
from hymunet.metrics.case import METRICS

RATIOS = ("dice", "iou", "precision", "recall", "thresholded_iou")
LENGTHS = ("hd", "hd95")
POOLED = ("dice", "iou")

# (source, its figures, what one has to know to compare them)
PRINTED: tuple[tuple[str, dict[str, float], str], ...] = (
    (
        "HyM-UNet, arXiv 2511.17988",
        {"dice": 0.8897, "iou": 0.8182, "precision": 0.9091},
        "averaging and split not stated; HD printed as 4.03, unit not known",
    ),
    (
        "VM-UNet, arXiv 2402.02491",
        {"pooled_dice": 0.8971, "pooled_iou": 0.8135},
        "pooled values, 7:3 split, encoder pretrained on ImageNet",
    ),
)


def result_row(name: str, tta: bool, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one evaluation.

    Args:
        name: Of the model.
        tta: Whether with test-time augmentation.
        summary: Of `evaluate`.

    Returns:
        `model`, `tta`, `n`, `length_unit`; `per_image`: metric -> mean, low, high; `pooled`.
    """
    entry = next(iter(summary["classes"].values()))
    means = headline_means(summary)
    return {
        "model": name,
        "tta": tta,
        "n": summary["n"],
        "length_unit": summary["length_unit"],
        "per_image": {metric: means[metric] for metric in (*RATIOS, *LENGTHS)},
        "pooled": {metric: entry["pooled"][metric] for metric in POOLED},
    }


def markdown(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """The table as Markdown, a row an evaluation, then what the literature prints."""
    unit = rows[0]["length_unit"] or "own units"
    headings = [
        "model",
        *(METRICS[metric].label for metric in RATIOS),
        *(f"{METRICS[metric].label} ({unit})" for metric in LENGTHS),
        *(f"pooled {METRICS[metric].label}" for metric in POOLED),
    ]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for row in rows:
        cells = [row["model"] + (" + TTA" if row["tta"] else "")]
        cells += [_with_interval(row["per_image"][metric], metric) for metric in RATIOS]
        cells += [_with_interval(row["per_image"][metric], metric) for metric in LENGTHS]
        cells += [f"{row['pooled'][metric]:.4f}" for metric in POOLED]
        lines.append(f"| {' | '.join(cells)} |")
    for source, values, _ in PRINTED:
        keys = (*RATIOS, *LENGTHS, *(f"pooled_{metric}" for metric in POOLED))
        cells = [_printed(values, key) for key in keys]
        lines.append(f"| {source}, as printed | {' | '.join(cells)} |")
    notes = "".join(f"{source}: {note}. " for source, _, note in PRINTED)
    return (
        "\n".join(lines) + "\n\nPer-image means with 95 % bootstrap intervals over cases (over "
        f"groups, where the data name them), {rows[0]['n']} cases; pooled: over all pixels. "
        f"Protocol: {about}. {notes}\n"
    )


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]], about: str) -> None:
    """Writes table.md and table.json."""
    write_text(folder / "table.md", markdown(rows, about))
    write_text(folder / "table.json", _as_json(rows, about))


def print_table(rows: Sequence[Mapping[str, Any]], about: str, json: bool = False) -> None:
    """Prints the table to the terminal, or as JSON."""
    from rich.console import Console
    from rich.table import Table

    if json:
        print(_as_json(rows, about), end="")
        return
    table = Table(title=f"{rows[0]['n']} cases: {about}", title_justify="left", show_lines=True)
    table.add_column("metric")
    for row in rows:
        table.add_column(row["model"] + (" + TTA" if row["tta"] else ""), justify="right")
    for source, _, _ in PRINTED:
        table.add_column(source.replace(", ", "\n") + "\nas printed", justify="right")
    unit = rows[0]["length_unit"] or "own units"
    for metric in (*RATIOS, *LENGTHS):
        label = METRICS[metric].label + (f" ({unit})" if metric in LENGTHS else "")
        cells = [_stacked(row["per_image"][metric], metric) for row in rows]
        table.add_row(label, *cells, *(_printed(values, metric) for _, values, _ in PRINTED))
    for metric in POOLED:
        cells = [f"{row['pooled'][metric]:.4f}" for row in rows]
        printed = [_printed(values, f"pooled_{metric}") for _, values, _ in PRINTED]
        table.add_row(f"pooled {METRICS[metric].label}", *cells, *printed)
    console = Console()
    console.print(table)
    for source, _, note in PRINTED:
        console.print(f"  {source}: {note}", highlight=False)


def _as_json(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    return as_json({"protocol": about, "rows": rows})


def _printed(values: Mapping[str, float], key: str) -> str:
    return f"{values[key]:.4f}" if key in values else "–"


def _with_interval(mean: Mapping[str, float | None], metric: str) -> str:
    """Mean and interval in one line, four decimals for ratios."""
    if mean["low"] is None:
        return _text(mean["mean"], metric)
    return "{} ({}–{})".format(*(_text(mean[key], metric) for key in ("mean", "low", "high")))


def _stacked(mean: Mapping[str, float | None], metric: str) -> str:
    """The interval below the mean and shorter: beside it, a narrow terminal would cut it off."""
    bounds = "" if mean["low"] is None else f"\n{format_interval(mean, metric)}"
    return _text(mean["mean"], metric) + bounds.replace(" to ", "–")


def _text(value: float | None, metric: str) -> str:
    ratio = METRICS[metric].unit == "" and value is not None
    return f"{value:.4f}" if ratio else format_value(value, metric)
