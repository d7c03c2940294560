"""An inspection in the terminal: a table of fields, one of gates, and a line for the rest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hymunet.evaluation.summary import FEW_GROUPS


def format_px(value: float | None) -> str:
    """Pixels without decimals above 10, with one below; – for nothing."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def format_ratio(mean: Mapping[str, float | None], key: str = "mean") -> str:
    """A ratio with three digits; – for nothing."""
    value = mean[key]
    return "–" if value is None else f"{value:#.3g}".rstrip(".")


def format_ratio_interval(mean: Mapping[str, float | None] | None) -> str:
    """`low to high`; – when all cases are of one group, or there is nothing."""
    if mean is None or mean["low"] is None:
        return "–"
    return f"{format_ratio(mean, 'low')} to {format_ratio(mean, 'high')}"


def level_name(level: int | None) -> str:
    """What a row of gates is called."""
    return "all skips" if level is None else f"skip {level + 1}"


def verdict(gates: Sequence[Mapping[str, Any]]) -> str:
    """What the gates do to the background, in words: all skips together, then each."""
    if not gates:
        return "No gate was compared."
    change = gates[-1]["change"]
    number = "the background's energy relative to the structure's changes by a factor of "
    number += f"{format_ratio(change)} at the gates"
    if change["low"] is None:
        return f"Of too few cases to say more: {number}."
    number += f" (95 % interval {format_ratio_interval(change)}, n = {gates[-1]['n']})"
    if gates[-1]["n"] < FEW_GROUPS:
        return f"Of so few cases, fewer than {FEW_GROUPS}, the interval is too narrow: {number}."
    sentence = {
        "less": f"Taken together, the gates suppress the background: {number}.",
        "more": f"Taken together, the gates favour the background: {number}.",
        "undecided": f"Whether the gates suppress the background is undecided: {number}.",
    }[_effect(change)]
    if len(gates) == 1:
        return sentence
    of_each = {
        "less": "lets less of it through",
        "more": "lets more of it through",
        "undecided": "makes no difference that these cases can show",
    }
    parts = [f"{level_name(row['level'])} {of_each[_effect(row['change'])]}" for row in gates[:-1]]
    return f"{sentence} By itself, {', '.join(parts)}."


def _effect(change: Mapping[str, float]) -> str:
    if change["high"] < 1:
        return "less"
    return "more" if change["low"] > 1 else "undecided"


def memory_of(stage: Mapping[str, Any]) -> tuple[float, float]:
    """The smallest and the largest median memory over directions, in tokens."""
    medians = [row["tokens"]["p50"] for row in stage["directions"]]
    return min(medians), max(medians)


def print_table(summary: Mapping[str, Any], notes: Sequence[str], report: Path | None) -> None:
    """Prints fields and gates as tables, memory and checkerboards as lines, then the notes."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    size = " x ".join(map(str, summary["grid"]))
    title = f"{summary['data']}: {summary['n']} case{'' if summary['n'] == 1 else 's'} at {size}"
    table = Table(title=escape(title), title_justify="left", box=SIMPLE)
    table.add_column("part", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for heading in ("could see", "50 % in", "95 % in", "95 %, noise"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary["fields"]:
        seen, noise = row["images"] or {}, row["noise"] or {}
        side = row["theoretical_px"]
        table.add_row(
            row["part"], row["kind"], "all" if side is None else f"{side}",
            format_px(seen.get("d50")), format_px(seen.get("d95")), format_px(noise.get("d95")),
        )  # fmt: skip
    console.print(table)
    if summary["gates"]:
        gates = Table(
            title="Background energy / structure energy", title_justify="left", box=SIMPLE
        )
        gates.add_column("gate", no_wrap=True)
        for heading in ("before", "after", "change", "95 % interval", "lower in"):
            gates.add_column(heading, justify="right", no_wrap=True)
        for row in summary["gates"]:
            gates.add_row(
                level_name(row["level"]), format_ratio(row["before"]), format_ratio(row["after"]),
                format_ratio(row["change"]), format_ratio_interval(row["change"]),
                f"{row['suppressed']} of {row['n']}",
            )  # fmt: skip
        console.print(gates)
    lines = [verdict(summary["gates"])] if summary["gates"] else []
    for stage in summary["memory"]:
        low, high = memory_of(stage)
        lines.append(
            f"{stage['part']} remembers {low:.3g} to {high:.3g} tokens (medians of its directions) "
            f"of {stage['tokens']}"
        )
    for row in summary["checkerboard"]:
        lines.append(
            f"pattern of {row['period_px']} px: {format_ratio(row['score'])} times its neighbours "
            f"in the spectrum; enlarged noise has {format_ratio_interval(row['noise'])}"
        )
    sizes = summary["structures"].get("diameter_px")
    if sizes and summary["structures"]["n"] > 1:
        lines.append(
            f"structures are {format_px(sizes['p5'])} to {format_px(sizes['p95'])} px across "
            f"(5 to 95 %), {format_px(sizes['p50'])} in the middle"
        )
    elif sizes:
        lines.append(f"the structure is {format_px(sizes['p50'])} px across")
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(
        "  could see: side of the theoretical field; 50 and 95 % in: diameter around the middle "
        "that holds so much of the squared gradient; px of the network's input",
        highlight=False,
    )
    for note in notes:
        console.print(f"  note: {escape(note)}", highlight=False)
    if report is not None:
        console.print(f"  page: {escape(str(report))}", highlight=False)
