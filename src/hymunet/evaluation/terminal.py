"""An evaluation in the terminal: the averages by class, the failures and the notes."""

from typing import TYPE_CHECKING

from hymunet.evaluation.formatting import HEADLINE, format_interval, format_value, unit_of
from hymunet.evaluation.summary import few_groups_notes
from hymunet.metrics.case import METRICS
from hymunet.wording import plural

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rich.table import Table

    from hymunet.evaluation.evaluate import Evaluation


def print_tables(evaluation: "Evaluation") -> None:
    """Prints the averages by class, the strata's Dice and the notes to the terminal."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, summary = Console(), evaluation.summary
    few = few_groups_notes(summary["groups"])
    for name, entry in summary["classes"].items():
        title = f"{summary['data']}: {name}, {plural(entry['n'], 'case')}"
        if summary["trained_on"]:
            title += f" - {summary['trained_on']} of them TRAINED ON"
        if summary["chose_the_epoch"]:
            title += f" - {summary['chose_the_epoch']} of them chose the epoch: optimistic"
        if summary["watched"]:
            title += f" - {summary['watched']} of them watched during training, chose nothing"
        table = Table(title=escape(title), title_justify="left", box=SIMPLE)  # 80 columns hold it
        table.add_column("metric", no_wrap=True)
        for heading in ("per-image\nmean", "95 % interval", "without\nempties", "pooled"):
            table.add_column(heading, justify="right", no_wrap=True)
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
            f"{plural(entry['n_without_empty'], 'case')} where both masks hold something",
            highlight=False,
        )
        for note in few:  # beside the averages that it is about
            console.print(f"  {note}", style="yellow", highlight=False)
        console.print()
    if "folds" in summary:
        console.print(_folds_table(summary))
    for note in (note for note in evaluation.notes if note not in few):
        console.print(f"  note: {escape(note)}", highlight=False)
    if evaluation.report is not None:
        console.print(f"  report: {escape(str(evaluation.report))}", highlight=False)


def _folds_table(summary: "Mapping[str, Any]") -> "Table":
    """A line a fold of a cross-validation, then their mean and standard deviation."""
    from rich.box import SIMPLE
    from rich.table import Table

    names = [name for name in HEADLINE if name in summary["over_folds"]["mean"]]
    table = Table(title="by fold: means over images", title_justify="left", box=SIMPLE)
    for heading in ("fold", "cases", "best epoch", "val Dice"):
        table.add_column(heading, justify="right")
    for name in names:
        unit = unit_of(name, summary)
        table.add_column(METRICS[name].label + (f" ({unit})" if unit else ""), justify="right")
    for fold in summary["folds"]:
        table.add_row(
            str(fold["fold"]),
            str(fold["n"]),
            str(fold["best_epoch"]),
            format_value(fold["val_dice"], "dice"),
            *(format_value(fold["means"][name], name) for name in names),
            end_section=fold is summary["folds"][-1],
        )
    for label, key in (("mean", "mean"), ("sd", "sd")):
        values = summary["over_folds"][key]
        table.add_row(label, "", "", "", *(format_value(values[name], name) for name in names))
    return table
