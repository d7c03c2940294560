"""A profile in the terminal: a row a cell, then how time and memory grow."""

from collections.abc import Mapping
from typing import Any

from hymunet.experiments.quantities import amount, binary, duration


def print_profile(summary: Mapping[str, Any], notes: list[str]) -> None:
    """Prints the cells, the exponents, the depth and the notes."""
    from rich.console import Console

    console = Console()
    console.print(_cells_table(summary))
    console.print(
        "  scan: state updates, 5 multiply-adds and 1 exp each, beside the mult-adds; both of one "
        "image; memory: peak above a warm process",
        highlight=False,
    )
    if any(network["time"] for network in summary["networks"]):
        console.print(_growth_table(summary))
        console.print(
            "  exponent k of cost ~ pixels^k, 1 is linear; intervals: over rounds; last: "
            "between the two largest sizes; counted: k of the arithmetic",
            highlight=False,
        )
    if any(network["depth"] and network["depth"]["time"] for network in summary["networks"]):
        console.print(_depth_table(summary))
        console.print(
            "  what one more block in every encoder stage costs; from shallow and to deep: between "
            "the first and between the last two of three or more depths, alike where it is linear",
            highlight=False,
        )
    for note in notes:
        console.print(f"  note: {note}", highlight=False, markup=False)


def exponent(found: Mapping[str, Any] | None) -> str:
    """`0.98 (0.95 to 1.01)`; without the interval where there was one round."""
    if found is None:
        return "–"
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _table(title: str, *columns: str) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column(columns[0], overflow="fold")  # names of models are as long as they like
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells_table(summary: Mapping[str, Any]) -> Any:
    from rich.markup import escape

    conditions = summary["conditions"]
    table = _table(
        f"a {conditions['pass']}, batch {conditions['batch']}, {conditions['device']}, "
        f"{conditions['threads']} threads",
        "network", "size", "parameters", "mult-adds", "scan", "time", "memory",
    )  # fmt: skip
    rows = summary["cells"]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        depth = "" if row["depth"] is None else f", depth {row['depth']}"
        shown = duration(row["median_s"]) if row["median_s"] is not None else row["status"]
        table.add_row(
            escape(row["network"]),
            f"{row['size']}{depth}",
            f"{row['parameters']:,}",
            amount(row["multiply_adds"]),
            amount(row["scan_updates"]),
            shown,
            binary(row["peak_bytes"]),
            end_section=following is None or following["network"] != row["network"],
        )
    return table


def _growth_table(summary: Mapping[str, Any]) -> Any:
    from rich.markup import escape

    table = _table("is it linear in the pixels?", "network", "time: k", "last", "counted", "memory")
    table.add_column("time is")
    for network in summary["networks"]:
        time, memory, arithmetic = (network[key] for key in ("time", "memory", "arithmetic"))
        if time is None:
            continue
        table.add_row(
            escape(network["name"]),
            exponent(time["exponent"]),
            f"{time['steps'][-1]['estimate']['value']:.2f}",
            f"{arithmetic['exponent']['value']:.2f}" if arithmetic else "–",
            f"{memory['exponent']['value']:.2f}" if memory else "–",
            time["verdict"],
        )
    return table


def _depth_table(summary: Mapping[str, Any]) -> Any:
    from rich.markup import escape

    table = _table(
        "one more block in every stage",
        "network", "size", "time", "from shallow", "to deep", "memory", "parameters",
    )  # fmt: skip
    for network in summary["networks"]:
        depth = network["depth"]
        if not depth or not depth["time"]:
            continue
        steps = depth["time"]["steps"]
        table.add_row(
            escape(network["name"]),
            str(depth["size"]),
            duration(depth["time"]["a_block"]["value"]),
            *(duration(steps[k]["estimate"]["value"]) if len(steps) > 1 else "–" for k in (0, -1)),
            binary(depth["memory"]["a_block"]["value"]) if depth["memory"] else "–",
            amount(depth["parameters"]["a_block"]["value"]),
        )
    return table
