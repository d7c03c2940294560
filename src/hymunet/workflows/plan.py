"""`hymunet plan`: what a training of a data set would do, why, and what it would take."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hymunet.training.options import TrainOptions
from hymunet.wording import memory_text, plural
from hymunet.workflows.estimate import Planned, measured

if TYPE_CHECKING:
    from rich.console import Console

    from hymunet.data.case import Dataset


def plan(
    data: Path,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    options: TrainOptions | None = None,
    json: bool = False,
) -> Planned:
    """Says how `train` would train on a data set, why, and what it would take on this machine.

    Looks at every case (a second look is instant) and chooses what is left open: structures, whole
    pictures or windows, their size and spacing, normalisation, batch, passes. `train` uses the same
    plan and keeps it in the run folder; what you give as an option goes before it, here as there.
    Memory and time are measured by a few steps with made-up images.

    Args:
        data: A data set in any layout that `train` reads.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        split_file: Which case is in which part, as for `train`: what judges has no say in the plan.
        options: As those of `train`.
        json: Print the plan as JSON.

    Raises:
        HyMUNetError: If the data cannot be trained on; `hymunet verify` says why.
    """
    from rich.console import Console

    from hymunet.data.formats import find_dataset
    from hymunet.data.groups import grouped_by_name
    from hymunet.extras import require
    from hymunet.training.decide import decide
    from hymunet.training.loading import given_split

    require("train", "planning a training", "monai", "lightning")
    options = options or TrainOptions()
    dataset = grouped_by_name(find_dataset(Path(data), images, masks), options.groups)
    dataset, given = given_split(dataset, split_file)
    console = Console(stderr=True, quiet=json)
    planned = measured(decide(dataset, options, console, given=given), dataset, options)
    if json:
        _print_json(planned)
    else:
        _print(Console(), dataset, planned)
    return planned


def _print(console: "Console", dataset: "Dataset", planned: Planned) -> None:
    from rich.table import Table
    from rich.text import Text

    from hymunet.training.decide import shown_value

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("setting", "value", "why"):
        table.add_column(column)
    for choice in planned.plan.choices:
        value = "-" if choice.value is None else shown_value(choice.value)
        table.add_row(choice.name, Text(value, style="bold"), Text(choice.reason))
    console.print(Text(f"{dataset.name}: {plural(len(dataset.cases), 'case')} in {dataset.root}"))
    console.print(table)
    free = "" if planned.free is None else f" of {memory_text(planned.free)} that are free"
    console.print(
        Text(
            f"\n{planned.parameters:,} parameters; a batch needs about "
            f"{memory_text(planned.memory)}{free}; a step takes {planned.seconds:.2f} s here, "
            f"so {plural(planned.steps, 'step takes', 'steps take')} about {planned.duration}. "
            "Give any setting as an option of train to have it otherwise."
        )
    )


def _print_json(planned: Planned) -> None:
    from json import dumps

    content: dict[str, Any] = {
        "plan": planned.plan.to_json(),
        "parameters": planned.parameters,
        "batch_bytes": planned.memory,
        "free_bytes": planned.free,
        "step_seconds": round(planned.seconds, 4),
        "steps": planned.steps,
        "training_seconds": round(planned.training_seconds, 1),
    }
    sys.stdout.write(dumps(content, indent=1) + "\n")
