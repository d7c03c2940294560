"""A controlled miss rate in the terminal: the threshold, what it costs, what it promises."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.evaluation.robustness_terminal import format_change, format_change_interval
from hymunet.network.promise import threshold_text
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.evaluation.calibrate import Calibration

_LABELS = {"miss_rate": "miss rate", "precision": "precision", "dice": "Dice"}


def print_risk(result: "Calibration") -> None:
    """Prints the threshold beside 0.5, the bound, its limits and the notes."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, summary, risk = Console(), result.summary, result.summary["risk_control"]
    title = f"{summary['data']}: {risk['structure']}, {plural(risk['n'], 'case')}, one a group"
    title += ", with test-time augmentation" if summary["tta"] else ""
    chosen = threshold_text(risk["threshold"])
    table = Table(title=escape(title), title_justify="left", box=SIMPLE)
    table.add_column("per-image mean", no_wrap=True)
    for heading in (f"at {chosen}", "at 0.5", "change", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, label in _LABELS.items():
        change = risk["change"][name]
        table.add_row(
            label,
            format_value(risk["at_chosen"][name]["mean"], "dice"),
            format_value(risk["at_half"][name]["mean"], "dice"),
            format_change(change["mean"]),
            format_change_interval(change),
        )
    console.print(table)
    for line in _lines(risk, chosen):
        console.print(f"  {escape(line)}", highlight=False)
    console.print()
    for note in result.notes:
        console.print(f"  note: {escape(note)}", highlight=False)


def _lines(risk: Mapping[str, Any], chosen: str) -> list[str]:
    rate, n, achieved = risk["miss_rate"], risk["n"], risk["achieved"]
    own = risk["at_chosen"]["miss_rate"]
    return [
        f"cut at p >= {chosen} (the model's: {threshold_text(risk['current'])}): in a new case "
        f"at most {100 * rate:g} % of the {risk['structure']} is missed on average",
        f"missed here {achieved:.4f} ({format_interval(own, 'dice')}); bound "
        f"({n} x {achieved:.4f} + 1) / {n + 1} = {risk['bound']:.4f}, at most {rate:g}; "
        f"{plural(risk['needed'], 'case is', 'cases are')} the fewest",
        f"more than {100 * rate:g} % is missed in {risk['above']} of these {plural(n, 'case')}, in "
        f"the worst one {100 * risk['worst']:.3g} %",
        f"it is {risk['marginal']}",
        f"it assumes: {risk['assumes']}",
    ]
