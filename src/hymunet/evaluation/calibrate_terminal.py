"""A calibration in the terminal: the errors, a reliability diagram in letters, the thresholds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.evaluation.robustness_terminal import format_change, format_change_interval
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.evaluation.calibrate import Calibration

_WIDTH = 30  # letters of a bar from 0 to 1
_SHOWN = 0.05  # every so far a threshold of the curve is shown


def print_tables(result: "Calibration") -> None:
    """Prints calibration errors with a reliability diagram, the thresholds and the notes."""
    from rich.console import Console
    from rich.markup import escape

    console, summary = Console(), result.summary
    for name, entry in summary["probabilities"].items():
        title = f"{summary['data']}: {name}, {plural(summary['n'], 'case')}"
        title += ", with test-time augmentation" if summary["tta"] else ""
        title += "; TRAINED ON some of them" if summary["forced"] else ""
        console.print(_reliability(escape(title), entry["reliability"]))
        for label, key in (("calibration error (ECE, 15 bins)", "ece"), ("Brier score", "brier")):
            value = entry[key]
            console.print(
                f"  {label}: {_small(value['mean'])} ({_small(value['low'])} to "
                f"{_small(value['high'])})",
                highlight=False,
            )
        console.print("  all pixels of all cases together; | is where a bar should end\n")
    if summary["threshold"]:
        _print_thresholds(console, summary["threshold"])
    for note in result.notes:
        console.print(f"  note: {escape(note)}", highlight=False)


def _reliability(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("probability", no_wrap=True)
    for heading in ("pixels", "mean", "true"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("share that is true", no_wrap=True)
    total = sum(row["pixels"] for row in rows)
    for row in rows:
        table.add_row(
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['pixels'] / total:.1%}",
            format_value(row["probability"], "dice"),
            format_value(row["frequency"], "dice"),
            bar(row["frequency"], row["probability"]),
        )
    return table


def bar(share: float | None, expected: float | None) -> str:
    """`share` as a bar, with | where it should end; empty for an empty bin."""
    if share is None or expected is None:
        return ""
    letters = list(("█" * round(share * _WIDTH)).ljust(_WIDTH))
    letters[min(_WIDTH - 1, round(expected * _WIDTH))] = "|"
    return "".join(letters).rstrip()


def _print_thresholds(console: Any, found: Mapping[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title="Per-image means by threshold", title_justify="left", box=SIMPLE)
    table.add_column("threshold", no_wrap=True)
    for heading in ("Dice", "IoU"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    ends = {found["chosen"]: "◀ best", 0.5: "a half"}
    top = max(row[found["metric"]] for row in found["curve"])
    for row in found["curve"]:
        mark = ends.get(row["threshold"], "")
        if not mark and abs(row["threshold"] / _SHOWN - round(row["threshold"] / _SHOWN)) > 1e-9:
            continue
        mark = mark or ("·" if row[found["metric"]] >= top - found["flat_by"] else "")
        table.add_row(
            f"{row['threshold']:.2f}",
            format_value(row["dice"], "dice"),
            format_value(row["iou"], "iou"),
            mark,
            style="bold" if row["threshold"] == found["chosen"] else "",
        )
    console.print(table)
    label = {"dice": "Dice", "iou": "IoU"}[found["metric"]]
    chosen, half = found["at_chosen"][found["metric"]], found["at_half"][found["metric"]]
    lines = [
        f"best threshold for {label}: {found['chosen']:.2f} (the model's: {found['current']:g}); "
        f"within {found['flat_by']} of it (·): {found['flat'][0]:.2f} to {found['flat'][1]:.2f}",
        f"{label} {format_value(chosen['mean'], 'dice')} "
        f"({format_interval(chosen, 'dice')}) instead of {format_value(half['mean'], 'dice')} "
        f"({format_interval(half, 'dice')}) at 0.5",
        f"gain over 0.5, same cases: {_gain(found['gain'])}",
    ]
    if found["gain_cross_fitted"]:
        lines.append(f"gain on cases that did not choose it: {_gain(found['gain_cross_fitted'])}")
    for line in lines:
        console.print(f"  {line}", highlight=False)
    console.print()


def _gain(gain: Mapping[str, float | None]) -> str:
    return f"{format_change(gain['mean'])} ({format_change_interval(gain)})"


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
