"""`hymunet verify`: a look at a data set before it is trained on."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hymunet.wording import memory_text, plural, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from hymunet.data.case import Dataset
    from hymunet.data.findings import Finding
    from hymunet.data.survey import CaseSurvey
    from hymunet.workflows.estimate import Planned


@dataclass(frozen=True)
class Verification:
    """What `verify` saw and says.

    Args:
        dataset: The cases.
        rows: What was seen of each.
        findings: Errors, warnings and notes, in this order.
        report: The HTML page.
        training: What a training would take here; None where errors stand in its way.
        structures: How many structures were asked for; None: what the data say.
        obstacle: Why no split can be drawn, where `train` would need one.
    """

    dataset: "Dataset"
    rows: "Sequence[CaseSurvey]"
    findings: "Sequence[Finding]"
    report: Path
    training: "Planned | None" = None
    structures: int | None = None
    obstacle: str | None = None

    @property
    def exit_code(self) -> int:
        """1 when something must be mended before training."""
        return int(any(finding.level == "error" for finding in self.findings))


def verify(
    data: Path,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    structures: int | None = None,
    groups: str | None = None,
    output: Path | None = None,
    json: bool = False,
) -> Verification:
    """Looks at every image and mask of a data set, and says what is wrong with it.

    Checks that files can be read, that image and mask lie on one grid, sizes, channels, spacing
    and orientation, label values (with a proposed mapping), empty, tiny and nearly full masks,
    copies and near-duplicates, the same patient or picture on both sides of the data's own split,
    and intensities. Errors stop `train`; warnings are repeated in its report. A page shows the
    suspects with their outlines. A second look at files that did not change is instant.

    Args:
        data: A data set in any layout that `train` reads.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        structures: Structures to segment, the background not counted; default: what the data say.
        groups: Regular expression that finds the patient in a case's name, such as '^[^_]+'; the
            same patient on both sides of a split is then found.
        output: Folder of the page; default: `runs/verify-NAME`.
        json: Print what was found as JSON.

    Raises:
        HyMUNetError: If no data set is recognised in `data`, or the page cannot be written.
    """
    from rich.console import Console

    from hymunet.console import counted
    from hymunet.data.cache import default_cache_folder
    from hymunet.data.formats import find_dataset
    from hymunet.data.groups import grouped_by_name
    from hymunet.data.survey import survey
    from hymunet.data.verify import verify as check
    from hymunet.errors import HyMUNetError
    from hymunet.extras import require
    from hymunet.files import make_folder
    from hymunet.training.decide import decided
    from hymunet.training.loading import draw_split, given_split, test_part
    from hymunet.training.options import TrainOptions
    from hymunet.workflows.estimate import measured
    from hymunet.workflows.verify_page import write_page

    require("train", "the page of verify", "jinja2", "matplotlib")
    console = Console(stderr=True)
    dataset = grouped_by_name(find_dataset(Path(data), images, masks), groups)
    with counted(console, "looking at cases", len(dataset.cases)) as advance:
        rows = survey(dataset, make_folder(default_cache_folder() / "survey"), advance)
    findings = check(dataset, rows, structures)
    folder = make_folder(Path(output or f"runs/verify-{dataset.root.name or 'data'}"))
    training, obstacle = None, None
    if not any(finding.level == "error" for finding in findings):
        options = TrainOptions(structures=structures, groups=groups)
        try:
            split = given_split(dataset, None, None)[1]
            split = split or draw_split(
                dataset.cases, rows, options, frozenset(), test_part(dataset)
            )
        except HyMUNetError as error:  # a split file or folds may do what no drawing can
            obstacle = str(error)
        else:
            decision = decided(dataset, rows, findings, options, split=split)
            training = measured(decision, dataset, options)
    page = folder / "verify.html"
    result = Verification(dataset, rows, findings, page, training, structures, obstacle)
    write_page(result.report, result)
    if json:
        print_json(result)
    else:
        print_findings(Console(), result)
    return result


def print_json(result: Verification) -> None:
    """Everything, for machines, on standard output."""
    from json import dumps

    content = {
        "dataset": result.dataset.name,
        "root": str(result.dataset.root),
        "cases": len(result.rows),
        "read_as": list(result.dataset.notes),
        "facts": dict(facts(result)),
        "findings": [asdict(finding) for finding in result.findings],
        "report": str(result.report),
    }
    sys.stdout.write(dumps(content, indent=1, ensure_ascii=False) + "\n")


def facts(result: Verification) -> list[tuple[str, str]]:
    """What kind of data this is and what a training would take, in (what, how much) pairs; cases
    that cannot be read left out."""
    from hymunet.training.decide import network_sees

    table = _facts(result.dataset, result.rows, result.structures)
    if result.obstacle is not None:
        table.append(("training here", f"not without a split file: {result.obstacle}"))
    if (training := result.training) is not None:
        plan = training.plan
        free = "" if training.free is None else f" of {memory_text(training.free)} free"
        table.append(
            (
                "training here",
                f"{plan['preset']}, {network_sees(plan)}, batches of {plan['batch_size']}: "
                f"{memory_text(training.memory)}{free}, {plural(training.steps, 'step')} in about "
                f"{training.duration} (`hymunet plan` says why)",
            )
        )
    return table


def _facts(
    dataset: "Dataset", rows: "Sequence[CaseSurvey]", structures: int | None
) -> list[tuple[str, str]]:
    import numpy as np

    from hymunet.data.masks_io import listed
    from hymunet.data.verify_masks import names_by_value

    usable = [row for row in rows if row.problem is None]
    table = [("layout", dataset.name), ("cases", f"{len(rows)}")]
    if len(usable) < len(rows):
        table.append(("readable", f"{len(usable)}"))
    if dataset.split is not None:
        counts = {
            part: list(dataset.split.values()).count(part) for part in ("train", "val", "test")
        }
        table.append(("split", ", ".join(f"{n} {part}" for part, n in counts.items() if n)))
    if not usable:
        return table
    groups = {row.group for row in usable if row.group is not None}
    if groups:
        table.append(("patients or groups", f"{len(groups)}"))
    channels = sorted({row.channels for row in usable})
    many = "channel" if channels == [1] else "channels"
    kinds = listed(sorted({row.kind for row in usable}))
    named = f": {', '.join(dataset.channel_names)}" if dataset.channel_names else ""
    table += [
        ("images", f"{kinds}, {listed(channels)} {many}{named}"),
        (
            "size",
            _range([row.size for row in usable], "px" if len(usable[0].size) == 2 else "voxels"),
        ),
    ]
    spacings = [row.spacing_mm for row in usable if row.spacing_mm is not None]
    table.append(("spacing", _range(spacings, "mm") if spacings else "unknown"))
    names = names_by_value(dataset, usable, structures)
    present = sorted(names)
    for value in present[:12]:
        shares = [
            dict(row.counts)[value] / sum(n for _, n in row.counts)
            for row in usable
            if value in dict(row.counts)
        ]
        low, middle, high = np.percentile(shares, (5, 50, 95))
        own = dataset.label_names is None and not names[value].endswith(f" {value}")
        table.append(
            (
                names[value],
                f"{f'value {value} ' if own else ''}in {plural(len(shares), 'case')}; "
                f"{middle:.2%} of the frame (5 to 95 % of cases: {low:.2%} to {high:.2%})",
            )
        )
    if len(present) > 12:
        table.append(("more values", f"{len(present) - 12}"))
    return table


def print_findings(console: "Console", result: Verification) -> None:
    """The facts, then a line a finding."""
    from rich.table import Table
    from rich.text import Text

    from hymunet.console import say
    from hymunet.data.masks_io import listed

    about = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for what, how in facts(result):
        about.add_row(Text(what, style="dim"), Text(how))
    for number, note in enumerate(result.dataset.notes):  # no findings, so not called notes
        about.add_row(Text("" if number else "read as", style="dim"), Text(note))
    console.print(about)
    colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in result.findings:
        line = Text(f"\n{finding.level}: {finding.check}: ", style=colours[finding.level])
        line.append(finding.message, style="none")
        if finding.cases and finding.check != "readable":
            line.append(f" [{listed(map(shortened, finding.cases), 3)}]", style="dim")
        console.print(line)
    tally = (
        plural(sum(f.level == level for f in result.findings), level)
        for level in ("error", "warning", "note")
    )
    say(console, f"\n{', '.join(tally)}. The suspects as pictures:\n{result.report}")


def _range(sizes: "Sequence[tuple[float, ...]]", unit: str) -> str:
    """`256 x 256 px`, or from the smallest to the largest along each axis with the median."""
    import numpy as np

    table = np.array(sizes, dtype=float)

    def by(values: Any) -> str:
        return " x ".join(f"{value:.4g}" for value in values)

    low, high = table.min(axis=0), table.max(axis=0)
    if np.allclose(low, high, rtol=1e-3):
        return f"{by(np.median(table, axis=0))} {unit}"
    return f"{by(low)} to {by(high)}, median {by(np.median(table, axis=0))} {unit}"
