"""What `hymunet predict` says: about its models, while it works, and at the end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hymunet.console import say
from hymunet.inference.job import model_names, suspicion
from hymunet.wording import plural, shortened

if TYPE_CHECKING:
    from collections.abc import Callable

    from hymunet.inference.job import Job
    from hymunet.inference.predict import PredictReport
    from hymunet.inference.predictor import Predictor

MOST_SUSPECTS = 5  # named in the terminal


def say_job(
    job: "Job", predictor: "Predictor", values: tuple[int, ...] | None, console: Console
) -> float | None:
    """What the models are for, how masks are made of their probabilities and what values these
    hold; the miss rate that the threshold keeps, None where none is kept."""
    from hymunet.data.masks_io import listed

    _say_models(predictor, model_names(job.models), job.threshold is not None, console)
    if predictor.postprocess.operations:
        say(console, f"post-processing: {predictor.postprocess.describe()}")
    kept = _say_promise(predictor, console)
    if values is not None:
        say(console, f"masks hold the values of the model's data: {listed(values, 20)}")
    return kept


def say_inputs(inputs: Sequence[str], notes: Sequence[str], console: Console) -> None:
    """What was left aside among the inputs."""
    from hymunet.data.formats import find_others
    from hymunet.data.walk import Aside

    notes, others = list(notes), Aside()
    others.add(path.name for path in find_others(inputs))
    if others.count:
        notes.append(
            f"{plural(others.count, 'file or linked folder', 'files or linked folders')} passed "
            f"over, no images by their names: {others}"
        )
    for note in notes:
        say(console, f"note: {note}")


def _say_models(
    predictor: "Predictor", names: Sequence[str], given: bool, console: Console
) -> None:
    """What each model is for and under which terms; of several also where their mean is cut."""
    from hymunet.inference.describe import describe_model
    from hymunet.network.promise import threshold_text

    described = [describe_model(member.info) for member in predictor.members]
    for name, (about, terms) in zip(names, described, strict=True):
        say(console, f"model {name}: {about}")
        if len({terms for _, terms in described}) > 1:
            say(console, terms)
    if len({terms for _, terms in described}) == 1:
        say(console, described[0][1])
    if len(names) == 1:
        return
    text = f"the mean of {len(names)} models' probabilities"
    if predictor.config.activation == "sigmoid":
        own = [float(member.info.get("threshold", 0.5)) for member in predictor.members]
        of = ", the one given" if given else "" if len(set(own)) == 1 else ", the mean of "
        of += "" if given or len(set(own)) == 1 else ", ".join(map(threshold_text, own))
        text += f", cut at {threshold_text(predictor.threshold)}{of}"
    say(console, text)
    for note in predictor.notes:
        say(console, f"note: {note}", "yellow")


@contextmanager
def image_progress(
    console: Console, total: int
) -> "Iterator[tuple[Callable[[float], None], Callable[[], None]]]":
    """A progress bar of images, on which the windows of a large one count by their share: what is
    to be called with the share of the present image, and what after each image."""
    from rich.progress import Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task(f"segmenting {plural(total, 'image')}", total=total)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress.update(bar, completed=done)

        yield lambda share: progress.update(bar, completed=done + share), advance


def _say_promise(predictor: "Predictor", console: Console) -> float | None:
    """Says which miss rate the model's threshold keeps, or why it does not here; the rate, None
    where none is kept."""
    from hymunet.network.promise import (
        not_for_several,
        promise_text,
        record_of,
        threshold_text,
        why_not,
    )

    if (count := len(predictor.members)) > 1:
        for member in predictor.members:
            if record := record_of(member.info):
                text = f"{member.name}, cut at {threshold_text(record['threshold'])}: "
                text += f"{promise_text(record)}: this does not hold here, since "
                say(console, f"warning: {text}{not_for_several(count)}", "yellow")
        return None
    record = record_of(predictor.info)
    if record is None:
        return None
    applied = predictor.postprocess.to_dict()
    broken = why_not(record, predictor.threshold, predictor.tta, applied)
    text = f"cut at {threshold_text(predictor.threshold)}: {promise_text(record)}"
    if broken is None:
        say(console, text)
        return float(record["miss_rate"])
    say(console, f"warning: {text}: this does not hold here, since {broken}", "yellow")
    return None


def print_report(report: "PredictReport", total: int, output: Path, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=None, box=None, header_style="bold")
    for column, justify in (("image", "left"), ("class", "left"), ("area", "right"),
                            ("of frame", "right"), ("parts", "right")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in report.measurements[:12]:
        millimetres = row.get("area_mm2", row.get("volume_mm3"))
        unit = "mm²" if "area_mm2" in row else "mm³"
        flat = "area_px" in row
        count = f"{row['area_px']:,} px" if flat else f"{row['volume_voxels']:,} voxels"
        area = count if millimetres is None else f"{millimetres:,.1f} {unit}"
        # names may hold brackets, which rich would take for its markup
        name, structure = escape(shortened(Path(row["image"]).name, 30)), escape(row["class"])
        table.add_row(name, structure, area, f"{row['fraction']:.1%}", str(row["parts"]))
    console.print(table)
    if len(report.measurements) > 12:
        rows = plural(len(report.measurements) - 12, "more row", "more rows")
        console.print(f"... {rows} in measurements.csv", highlight=False)
    _print_suspects(report, console)
    say(
        console,
        f"{len(report.written)} of {plural(total, 'image')} segmented into {output} "
        "(masks, measurements.csv, measurements.json)",
    )
    if report.failed:
        say(console, f"{len(report.failed)} failed:", "red")
        for name, reason in report.failed.items():
            say(console, f"  {name}: {reason}")


def _print_suspects(report: "PredictReport", console: Console) -> None:
    """Masks to look at: the first few by name, then how many there are."""
    from hymunet.data.verify_masks import NEARLY_FULL

    for name, why in list(report.suspects.items())[:MOST_SUSPECTS]:
        say(console, f"note: {name}: {why}")
    if report.suspects:
        empty = sum(why == suspicion(0) for why in report.suspects.values())
        full = len(report.suspects) - empty
        said = (f"{empty} empty", f"{full} over {NEARLY_FULL:.0%} or more of the image")
        found = " and ".join(text for text, n in zip(said, (empty, full), strict=True) if n)
        say(
            console,
            f"note: {plural(len(report.suspects), 'mask')} of {len(report.written)} to look at: "
            f"{found}; right where nothing or nothing else is to be seen, else images unlike those "
            "that the model learnt from (all by name: suspects in measurements.json)",
        )
