"""The figures of a comparison as text: Markdown for papers, tables for the terminal."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from hymunet.evaluation.formatting import format_value
from hymunet.evaluation.strata import STRATA
from hymunet.experiments.compare.kinds import METRICS_WITHIN
from hymunet.experiments.quantities import amount, binary, duration
from hymunet.metrics.case import METRICS
from hymunet.wording import plural

SHOWN = ("dice", "iou", "precision", "boundary_iou", "hd95")
LENGTHS = ("hd95", "hd")
WIDEST = len("−0.012 (−0.020 to −0.004)")
Model = Mapping[str, Any]


def score_headings(summary: Mapping[str, Any]) -> list[str]:
    """Of the columns of `score_cells`."""
    shown = _metric_names(summary)
    return ["model", "seeds", *shown, "pooled Dice", "pooled IoU", "Dice, sd over seeds"]


def score_cells(model: Model) -> list[str]:
    """A row of the table of scores, means with intervals."""
    row = [model["name"], " ".join(map(str, model["seeds"]))]
    row += [with_interval(model["per_image"].get(metric), metric) for metric in SHOWN]
    row += [with_interval(model["pooled"][metric], metric) for metric in ("dice", "iou")]
    spread = model["per_image"]["dice"]["sd_over_seeds"]
    return [*row, "–" if spread is None else f"{spread:.4f}"]


def cost_headings(summary: Mapping[str, Any]) -> list[str]:
    """Of the columns of `cost_cells`."""
    columns = ["model", "parameters", "multiply-adds", "scan updates", "CPU time", "CPU peak"]
    if summary["costs"]["gpu"]:
        columns += ["GPU time", "GPU peak"]
    return [*columns, "train images/s", "passes", "best after"]


def cost_cells(model: Model, summary: Mapping[str, Any]) -> list[str]:
    """A row of the table of costs."""
    cost = model["cost"]
    row = [
        model["name"],
        amount(cost["parameters"]),
        amount(cost["multiply_adds"]),
        amount(cost["scan_updates"]),
        duration(cost["cpu_s"]),
        binary(cost["cpu_bytes"]),
    ]
    if summary["costs"]["gpu"]:
        row += [duration(cost["gpu_s"]), binary(cost["gpu_bytes"])]
    speed = model["images_a_second"]
    row.append("–" if speed is None else f"{speed:.3g}")
    return [*row, *(_passes(model[name]) for name in ("passes", "best_passes"))]


def _passes(values: Sequence[float]) -> str:
    return " ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in values)


def difference_headings(summary: Mapping[str, Any]) -> list[str]:
    """Of the columns of `difference_cells`."""
    return ["model", "seeds", *_metric_names(summary)]


def difference_cells(model: Model) -> list[str]:
    """A row of the table of differences: mean, interval, corrected p."""
    found = model["difference"]
    seeds = " ".join(map(str, model["difference_seeds"])) or "none shared"
    return [model["name"], seeds, *(difference_text(found.get(metric), metric) for metric in SHOWN)]


def kind_rows(models: Sequence[Model], metric: str) -> list[list[str]]:
    """Difference of each model (a column) on each kind of case (a row): kind, cases, changes."""
    return [
        [
            f"{stratum.label}: {band}",
            str(found["n"]),
            *(change_text(m["difference_within"][stratum.name][band][metric], metric)
              for m in models),
        ]
        for stratum in STRATA
        for band, found in models[0]["difference_within"][stratum.name].items()
    ]  # fmt: skip


def kind_headings(models: Sequence[Model]) -> list[str]:
    """Of the columns of `kind_rows`."""
    return ["cases", "n", *(model["name"] for model in models)]


def kind_caption(summary: Mapping[str, Any], metric: str) -> str:
    """What `kind_rows` shows."""
    label = METRICS[metric].label
    return f"{label} within kinds of cases: model minus {summary['reference']}, uncorrected"


def markdown(summary: Mapping[str, Any], title: str) -> str:
    """Both tables with what has to be known to read them."""
    models = summary["models"]
    lines = [f"# {title}", "", about(summary), ""]
    lines += _table(score_headings(summary), [score_cells(model) for model in models])
    costs = [cost_cells(model, summary) for model in models]
    lines += ["", COSTS_OF.format(**summary["costs"], at=_size(summary)), ""]
    lines += _table(cost_headings(summary), costs)
    compared = [model for model in summary["models"] if model["difference"]]
    if compared:
        lines += [
            "",
            f"Difference to {summary['reference']}: mean (95 % interval), p after Holm",
            "",
        ]
        lines += _table(
            difference_headings(summary), [difference_cells(model) for model in compared]
        )
        for metric in METRICS_WITHIN:
            lines += ["", kind_caption(summary, metric), ""]
            lines += _table(kind_headings(compared), kind_rows(compared, metric))
    lines += ["", *(f"- {model['name']}: {model['what']}" for model in summary["models"])]
    for one in summary["failed"]:
        lines.append(
            f"- {one['model']}, seed {one['seed']}: failed: {one['reason']} ({one['file']})"
        )
    for one in summary["open"]:
        lines.append(f"- {one['model']}, seed {one['seed']}: not finished")
    lines += ["", *(f"- {note}" for note in [*COST_NOTES, *summary["notes"]])]
    return "\n".join([*lines, "", f"`{summary['made']['command']}`", ""])


COSTS_OF = "Costs, for one image of {at} on {processor}, threads: {threads}"
COST_NOTES = (
    "per-image means, and pooled over all pixels, with 95 % intervals; no post-processing, "
    "probabilities cut at 0.5 (sigmoid) or by the largest (softmax), for all alike",
    "latency and peak memory: one image, forward; times in turns, the median of the rounds; memory "
    "in a process of its own: the peak while network, image and activations are made, above what "
    "it held after making them once before (`profile` warms up by a smaller network, so it has a "
    "little more)",
    "a scan update is 5 multiply-adds and 1 exponential, not counted among the multiply-adds",
    "train images/s: by the run's own clock, loading, augmentation and validation included; "
    "passes: how often each training case was seen, and, best after, until the weights that were "
    "kept; a number a seed",
)


def about(summary: Mapping[str, Any]) -> str:
    """What was compared, in a sentence."""
    split, size = summary["split"], _size(summary)
    budget = f", {summary['budget']} of training each" if summary["budget"] else ""
    return (
        f"{summary['data']}: {plural(summary['n'], summary['part'] + ' case')} in "
        f"{plural(summary['groups'], 'group')}; "
        f"trained on {split['train']}, epoch chosen on {split['val']}; images of {size}, batches "
        f"of {summary['batch_size']}{budget}. Same split, preprocessing and augmentation for all"
        + (", and the same seeds." if _same_seeds(summary) else ", but not the same seeds.")
    )


def _same_seeds(summary: Mapping[str, Any]) -> bool:
    return len({tuple(sorted(model["seeds"])) for model in summary["models"]}) == 1


def print_tables(summary: Mapping[str, Any], title: str) -> None:
    """The figures that most readers want first; the files have the rest."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(emoji=False)  # mynet:boom is a name
    table = Table(
        title=escape(title), title_justify="left", box=SIMPLE, show_edge=False, pad_edge=False
    )
    table.add_column("model", overflow="fold")  # 80 columns hold it where long names are folded
    apart = not _same_seeds(summary)
    if apart:
        table.add_column("seeds", no_wrap=True)
    for heading in ("Dice", "param.", "CPU"):
        table.add_column(heading, justify="right", no_wrap=True)
    difference = wrap(f"Dice − {summary['reference']}", WIDEST, break_on_hyphens=False)
    table.add_column(escape("\n".join(difference)), justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    for model in summary["models"]:
        means, found = model["per_image"], (model["difference"] or {}).get("dice")
        table.add_row(
            escape(model["name"]),
            *([" ".join(map(str, model["seeds"]))] if apart else []),
            format_value(means["dice"]["mean"], "dice"),
            amount(model["cost"]["parameters"]),
            duration(model["cost"]["cpu_s"]),
            change_text(found, "dice") if found else "",
            p_text(found["p_holm"]) if found else "",
        )
    console.print(table)
    console.print()
    console.print("  " + escape(about(summary)), highlight=False)
    if apart:
        said = "differences are over the seeds that a model shares with"
        console.print(escape(f"  note: {said} {summary['reference']}"), highlight=False)
    for one in summary["failed"]:
        when = "" if one["asked"] else "in an earlier call "
        text = f"{one['model']}, seed {one['seed']}: {when}failed: {one['reason']}"
        style = "red" if one["asked"] else ""
        console.print("  " + escape(text), style=style, highlight=False)
    for note in summary["notes"]:
        console.print(f"  note: {escape(note)}", highlight=False)


def with_interval(mean: Mapping[str, float | None] | None, metric: str) -> str:
    """0.902 (0.888 to 0.915)."""
    if mean is None:
        return "–"
    value = format_value(mean["mean"], metric)
    if mean["low"] is None:
        return value
    low, high = (format_value(mean[key], metric) for key in ("low", "high"))
    return f"{value} ({low} to {high})"


def change_text(mean: Mapping[str, float | None], metric: str) -> str:
    """−0.012 (−0.020 to −0.004)."""
    values = [signed(mean[key], metric) for key in ("mean", "low", "high")]
    return values[0] if mean["low"] is None else f"{values[0]} ({values[1]} to {values[2]})"


def difference_text(mean: Mapping[str, float | None] | None, metric: str) -> str:
    """−0.012 (−0.020 to −0.004), p 0.003."""
    return "–" if mean is None else f"{change_text(mean, metric)}, p {p_text(mean['p_holm'])}"


def signed(value: float | None, metric: str) -> str:
    """With its sign, which a rounded 0 has not."""
    if value is None:
        return "–"
    text = format_value(abs(value), metric)
    is_zero = not any(c in "123456789" for c in text)
    return text if is_zero else ("−" if value < 0 else "+") + text


def p_text(p: float | None) -> str:
    """Three decimals, or that it is less."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _size(summary: Mapping[str, Any]) -> str:
    return " x ".join(map(str, summary["size"]))


def _metric_names(summary: Mapping[str, Any]) -> list[str]:
    unit = summary["length_unit"] or "own units"
    return [METRICS[m].label + (f" ({unit})" if m in LENGTHS else "") for m in SHOWN]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(names)} |",
        "|" + "---|" * len(names),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
