"""The table of results: what was measured, beside what the literature prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.evaluation.summary import headline_means
from hymunet.evaluation.tables import as_json
from hymunet.files import write_text
from hymunet.metrics.case import METRICS
from hymunet.wording import plural

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
        f"groups, where the data name them), {plural(rows[0]['n'], 'case')}; pooled: over all "
        f"pixels. Protocol: {about}. {notes}\n"
    )


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]], about: str) -> None:
    """Writes table.md and table.json."""
    write_text(folder / "table.md", markdown(rows, about))
    write_text(folder / "table.json", _as_json(rows, about))


def print_table(rows: Sequence[Mapping[str, Any]], about: str, json: bool = False) -> None:
    """Prints the table to the terminal, or as JSON."""
    from rich.box import HORIZONTALS
    from rich.console import Console
    from rich.table import Table

    if json:
        print(_as_json(rows, about), end="")
        return
    console = Console()
    console.print(f"{plural(rows[0]['n'], 'case')}: {about}", highlight=False)
    unit = rows[0]["length_unit"] or "own units"
    units = dict.fromkeys(LENGTHS, f"\n({unit})")
    # two tables of six and five columns: 80 columns of a terminal hold no more
    for metrics, pooled in ((RATIOS[:3], POOLED), (RATIOS[3:] + LENGTHS, ())):
        table = Table(box=HORIZONTALS, pad_edge=False, show_lines=True)
        table.add_column("per-image means", no_wrap=True)
        for metric in metrics:
            heading = METRICS[metric].label.replace(" ", "\n") + units.get(metric, "")
            table.add_column(heading, justify="right", no_wrap=True)
        for metric in pooled:
            table.add_column(f"pooled\n{METRICS[metric].label}", justify="right", no_wrap=True)
        for row in rows:
            table.add_row(
                row["model"] + ("\n+ TTA" if row["tta"] else ""),
                *(_stacked(row["per_image"][metric], metric) for metric in metrics),
                *(f"{row['pooled'][metric]:.4f}" for metric in pooled),
            )
        for source, values, _ in PRINTED:
            keys = (*metrics, *(f"pooled_{metric}" for metric in pooled))
            if any(key in values for key in keys):
                cells = (_printed(values, key) for key in keys)
                table.add_row(source.replace(", ", "\n") + "\nas printed", *cells)
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
