"""`hymunet download`: public data sets from their official addresses, whole or not at all."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hymunet.data.catalogue import Source, Task, decathlon, isic2018
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from hymunet.data.obtain import Show


@dataclass(frozen=True)
class Download:
    """Where the data are.

    Args:
        folder: What `hymunet train` takes.
        downloaded: Names of the archives that this call fetched or unpacked; empty when all was
            there already.
        exit_code: 0 when the data are there; 1 when a person has to fetch them (DRIVE).
    """

    folder: Path
    downloaded: tuple[str, ...] = ()
    exit_code: int = 0


def download(
    dataset: Literal["isic2018", "decathlon", "drive"],
    task: Task | None = None,
    *,
    output: Path | None = None,
    accept_licence: bool = False,
    mirror: str | None = None,
    keep_archives: bool = False,
) -> Download:
    """Downloads a public data set from its official address, checks it and unpacks it.

    `isic2018`: the six archives of ISIC 2018 Task 1 (skin lesions; training, validation and test).
    `decathlon TASK`: one task of the Medical Segmentation Decathlon, such as Task04_Hippocampus.
    `drive` (retinal vessels) has to be fetched by a person who registers: says how, and checks the
    folder when it is there.

    The licence and what to cite are shown, and have to be accepted. The same command goes on where
    it stopped, and downloads nothing that is there already. An archive that lies in the output
    folder under its own name is taken from there.

    Args:
        dataset: Which data set.
        task: Which task of the Decathlon.
        output: Folder that the archives are unpacked into; default: `data/DATASET`.
        accept_licence: Accept the licence without being asked.
        mirror: Take the files, under their own names, from below this address instead.
        keep_archives: Keep the archives after unpacking.

    Raises:
        HyMUNetError: If the licence is not accepted, or the data cannot be downloaded, are not
            what they should be, or do not fit on the disk.
    """
    from rich.console import Console

    console = Console(stderr=True)
    output = Path(output or Path("data", dataset))
    if dataset != "decathlon" and task is not None:
        raise HyMUNetError(f"only the Decathlon has tasks; leave {task} out for {dataset}")
    if dataset == "drive":
        return _drive(output, console)
    source = isic2018() if dataset == "isic2018" else decathlon(task)
    if mirror is not None:
        source = source.at(mirror)
    return download_source(source, output, console, accepted=accept_licence, keep=keep_archives)


def download_source(
    source: Source,
    output: Path,
    console: "Console",
    *,
    accepted: bool = False,
    keep: bool = False,
    backoff_s: float = 1.0,
) -> Download:
    """Brings the archives of `source` that are not there into `output`; see `download`.

    Args:
        backoff_s: The shortest wait before another attempt.
    """
    from rich.filesize import decimal

    from hymunet.console import say
    from hymunet.data.receipts import is_complete
    from hymunet.extras import require
    from hymunet.files import make_folder

    wanted = [archive for archive in source.archives if not is_complete(output, archive)]
    if not wanted:
        say(console, f"{output} holds all of it already; nothing is downloaded")
        return Download(_usable(source, output, console))
    require("download", "downloading", "requests", "urllib3", "filelock")
    from hymunet.data.obtain import check_room, obtain
    from hymunet.data.transfer import Transfer

    _accept(source, accepted, console)
    make_folder(output)

    def notice(text: str) -> None:
        say(console, text)

    transfer = Transfer(notice, backoff_s=backoff_s)
    room = check_room(wanted, output, transfer, keep)
    if room is not None:
        whole, coming, needed = (decimal(size) for size in room)
        say(console, f"{whole} in all, {coming} to come; about {needed} of disk while unpacking")
    for archive in wanted:
        with _bar(archive.name, console) as show:
            obtain(archive, source.licence, output, transfer, keep=keep, notice=notice, show=show)
    return Download(_usable(source, output, console), tuple(archive.name for archive in wanted))


@contextmanager
def _bar(name: str, console: "Console") -> Iterator["Show"]:
    """A bar that starts anew with each step."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                # what was there before this call is not counted into the speed
                tasks[what] = bars.add_task(f"{what} {name}", completed=done)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _accept(source: Source, accepted: bool, console: "Console") -> None:
    """Shows what the use of the data is bound to, and asks."""
    from rich.prompt import Confirm

    from hymunet.console import say

    say(console, source.title, "bold")
    say(console, f"licence: {source.licence}, {source.licence_url}")
    for citation in source.citations:
        say(console, f"cite: {citation}")
    say(console, f"about: {source.page}")
    if not accepted:
        if sys.stdin is None or not sys.stdin.isatty():
            raise HyMUNetError(
                f"the licence {source.licence} has to be accepted, and there is no terminal to "
                "ask at; read it, then add --accept-licence"
            )
        try:
            accepted = Confirm.ask("Do you accept the licence?", console=console, default=False)
        except EOFError:
            accepted = False
    if not accepted:
        raise HyMUNetError("the licence is not accepted; nothing was downloaded")


def _drive(output: Path, console: "Console") -> Download:
    from hymunet.console import say
    from hymunet.data.drive_folder import TERMS, check_drive, how_to_get

    say(console, TERMS)
    if not output.exists():
        say(console, how_to_get(output))
        return Download(output, exit_code=1)
    found = check_drive(output)
    say(
        console,
        f"{found.root}: {found.training} training cases, {found.test} test images "
        f"({found.test_with_truth} with vessels), all readable",
    )
    return Download(found.root)


def _usable(source: Source, output: Path, console: "Console") -> Path:
    """The folder that `train` takes, recognised as any other data set is."""
    from hymunet.console import say
    from hymunet.data.formats import find_dataset

    folder = output if len(source.archives) > 1 else output / source.archives[0].folder
    found = find_dataset(folder)
    say(console, f"{folder}: {found.name}, {plural(len(found.cases), 'case')} with masks")
    say(console, f"hymunet train {folder}")
    return folder
