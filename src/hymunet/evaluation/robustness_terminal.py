"""A measurement of robustness in the terminal: by kind, largest loss first, the worst marked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.evaluation.robustness import Robustness

WORST = 3  # corruptions that are marked


def by_kind(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The corruptions of a summary by kind; kinds and, in each, corruptions with the largest mean
    loss of Dice first."""
    ranked = sorted(entries, key=lambda entry: entry["dice_change"]["mean"])
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for entry in ranked:
        kinds.setdefault(entry["kind"], []).append(entry)
    return kinds


def format_change(value: float | None) -> str:
    """Three decimals with a sign, which a rounded 0 has not; – for nothing."""
    if value is None:
        return "–"
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", "−")


def format_change_interval(change: Mapping[str, float | None]) -> str:
    """`low to high` with signs; – when all cases are of one group."""
    if change["low"] is None:
        return "–"
    return f"{format_change(change['low'])} to {format_change(change['high'])}"


def print_table(result: "Robustness") -> None:
    """Prints the corruptions by kind with Dice, IoU and their changes, then the notes."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, summary = Console(), result.summary
    title = f"{summary['data']}: {plural(summary['n'], 'case')}"
    title += ", mean of structures" if len(summary["classes"]) > 1 else ""
    title += ", with test-time augmentation" if summary["tta"] else ""
    title += "; TRAINED ON some of them" if summary["forced"] else ""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE)  # 80 columns hold it
    table.add_column("corruption", no_wrap=True)
    for heading in ("Dice", "change", "95 % interval", "IoU", "fell"):
        table.add_column(heading, justify="right", no_wrap=True)
    clean = summary["clean"]
    dice, iou = (format_value(clean[name]["mean"], name) for name in ("dice", "iou"))
    table.add_row("clean", dice, "", "", iou, "", end_section=True)
    worst = summary["worst"][:WORST]
    for kind, entries in by_kind(summary["corruptions"]).items():
        table.add_row(f"[bold]{escape(kind)}[/bold]")
        for entry in entries:
            marked = entry["corruption"] in worst and entry["dice_change"]["mean"] < 0
            table.add_row(
                f"  {escape(entry['corruption'])}" + (" ◀" if marked else ""),
                format_value(entry["dice"]["mean"], "dice"),
                format_change(entry["dice_change"]["mean"]),
                format_change_interval(entry["dice_change"]),
                format_value(entry["iou"]["mean"], "iou"),
                f"{entry['fell']}",
                style="red" if marked else "",
                end_section=entry is entries[-1],
            )
    console.print(table)
    console.print(
        f"  per-image means; clean Dice {dice}, 95 % interval "
        f"{format_interval(clean['dice'], 'dice')}; change: Dice against the same case clean; "
        f"fell: cases that lost more than {summary['fell_by']} of it; "
        f"◀: the {WORST} largest losses",
        highlight=False,
    )
    for note in result.notes:
        console.print(f"  note: {escape(note)}", highlight=False)
    if result.report is not None:
        console.print(f"  report: {escape(str(result.report))}", highlight=False)
