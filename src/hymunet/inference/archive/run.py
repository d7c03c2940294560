"""`hymunet predict --engine ray`: an archive through Ray Data, each image once, resumable."""

import json as json_library
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hymunet.console import say
from hymunet.data.remote import is_url
from hymunet.errors import HyMUNetError, NoRoomError
from hymunet.extras import require
from hymunet.inference.archive.manifest import FOLDER, TABLES, Manifest, alone
from hymunet.inference.archive.pace import Pace, left_text
from hymunet.inference.archive.report import ArchiveReport
from hymunet.inference.archive.storage import Storage
from hymunet.inference.archive.work_list import WorkList
from hymunet.inference.job import Job, check_job, summary_of
from hymunet.inference.predict_terminal import say_inputs, say_job
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.inference.archive.ray_pool import RayPool
    from hymunet.inference.predictor import Predictor

WINDOW = 20_000  # images that Ray knows of at a time: what it keeps of each stays bounded
# in a block: what a kill loses, against the cost of handing it out
PICTURES, PICTURES_TTA, VOLUMES = 16, 2, 1
TRIES = 3  # of an image whose worker dies, the first one among others, then alone
_SAY_SECONDS = 30.0  # between two lines of progress where no bar can be drawn


def predict_archive(
    inputs: Sequence[str],
    output: str | Path,
    job: Job,
    workers: int | None,
    address: str | None,
    console: Console,
    json: bool,
) -> ArchiveReport:
    """Segments what is not done yet; see `hymunet.inference.predict.predict`.

    Raises:
        HyMUNetError: If the model, an input's name, the output or Ray cannot be used, or the
            output holds results of other settings or images.
        NoRoomError: If the disk runs full or becomes read-only: what is done stays.
    """
    require("cluster", "--engine ray", "ray", "pyarrow", "pandas", "fsspec")
    from hymunet.inference.archive.entries import find_entries
    from hymunet.inference.archive.ray_pool import RayPool

    # relative paths mean nothing to workers on other machines
    job = replace(job, models=tuple(_absolute(model) for model in job.models))
    # here the model is only looked at; a GPU may be the workers'
    predictor = replace(job, device="cpu").predictor()
    values = check_job(job, predictor)
    storage = Storage(output)
    if storage.local is not None:
        storage = Storage(storage.local)
    storage.make()
    with alone(storage), WorkList() as work:
        notes: list[str] = []
        work.add(find_entries(inputs, predictor.config, job, storage, notes))
        settings = _settings(job, predictor, values)
        manifest = Manifest(storage, settings, predictor.config.spatial_dims)
        changed, lost = work.take_over(manifest.lines(), storage.there)
        kept = say_job(job, predictor, values, console)
        say_inputs([one for one in inputs if not is_url(one)], notes, console)
        report = ArchiveReport(work.count(False) + work.count(True))
        report.done = report.before = work.count(True)
        if changed:
            say(
                console,
                f"warning: {', '.join(changed[:3])} changed after being segmented and "
                f"{'is' if len(changed) == 1 else 'are'} not done again; give another --output "
                "for new masks",
                "yellow",
            )
        if lost or manifest.lost:
            say(
                console,
                f"warning: results of {plural(lost + manifest.lost, 'image')} that the manifest "
                "calls done are gone; those of this call are segmented again",
                "yellow",
            )
        if report.before:
            say(console, f"{report.before:,} of {plural(report.total, 'image')} were done before")
        if report.before < report.total:
            with RayPool(job, storage.root, workers, address) as pool:
                flat = predictor.config.spatial_dims == 2
                block = (PICTURES_TTA if job.tta else PICTURES) if flat else VOLUMES
                _segment(work, pool, manifest, report, block, console)
        report.summary = {
            "images": report.total,
            "done": report.done,
            "failed": report.total - report.done,
            **summary_of(job, predictor, kept),
        }
        text = json_library.dumps(report.summary, indent=2)
        storage.write("summary.json", f"{text}\n".encode())
    if json:
        print(text)
    else:
        _print(report, storage, console)
    return report


def _absolute(model: Path) -> Path:
    return model.absolute() if model.exists() else model  # the name of a packaged one


def _settings(
    job: Job, predictor: "Predictor", values: tuple[int, ...] | None
) -> dict[str, Any]:  # fmt: skip
    """What decides the bytes of the results."""
    return {
        "models": job.model_digests(),
        "threshold": predictor.threshold,
        "tta": job.tta,
        "postprocess": predictor.postprocess.to_dict(),
        "runtime": job.runtime or "as the file",
        "probability": job.probability,
        "overlay": job.overlay,
        "values": None if values is None else list(values),
    }


def _segment(
    work: WorkList,
    pool: "RayPool",
    manifest: Manifest,
    report: ArchiveReport,
    block: int,
    console: Console,
) -> None:
    """Brings what waits through the pool; `report` counts.

    Raises:
        HyMUNetError: If something is wrong that holds for every image; what is done is kept.
    """
    through = 0
    with _progress(report, console) as advance:
        try:
            for tries in range(TRIES):
                for rows in work.waiting(tries, WINDOW):
                    lost = len(rows)
                    with closing(pool.outcomes(rows, block if tries == 0 else 1)) as outcomes:
                        for number, outcome in outcomes:
                            if outcome["status"] == "stopped":
                                raise HyMUNetError(_stopped(outcome["reason"], report))
                            if _finish(work, manifest, report, number, outcome):
                                through += 1
                                lost -= 1
                                advance(through)
                    if lost == len(rows) > 10 * block:
                        raise HyMUNetError(
                            f"no worker lived to segment one of {plural(lost, 'image')}; look for "
                            "the reason in Ray's logs (/tmp/ray/session_latest/logs), or take "
                            "fewer --workers if the memory was too small"
                        )
            reason = (
                f"its worker was killed {TRIES} times: the image may need more memory than there "
                "is, or its file kills the decoder"
            )
            for rows in work.waiting(TRIES, WINDOW):
                for number, _ in rows:
                    outcome = {"status": "failed", "reason": reason}
                    _finish(work, manifest, report, number, outcome)
                    through += 1
                    advance(through)
            manifest.flush()
        except BaseException as error:
            _flush_all_the_same(manifest)
            if isinstance(error, NoRoomError):
                raise NoRoomError(_stopped(str(error), report)) from error
            raise


def _finish(
    work: WorkList, manifest: Manifest, report: ArchiveReport, number: int, outcome: dict[str, Any]
) -> bool:
    """Takes note of an outcome, once."""
    entry = work.finish(number)
    if entry is None:
        return False
    report.add(entry.label, outcome)
    manifest.add(entry.label, entry.mask, entry.stamp, outcome)
    return True


def _flush_all_the_same(manifest: Manifest) -> None:
    """After an error: what came before it is noted where the disk still allows it; else the next
    call segments these images again."""
    try:
        manifest.flush()
    except HyMUNetError:
        return


def _stopped(reason: str, report: ArchiveReport) -> str:
    return (
        f"{reason}. {report.done:,} of {plural(report.total, 'image')} are segmented and whole; "
        "when the cause is mended the same command goes on"
    )


@contextmanager
def _progress(report: ArchiveReport, console: Console) -> "Iterator[Callable[[int], None]]":
    """A bar, or a line now and then where nobody looks: what is to be called with how many images
    this call has brought through."""
    from rich.progress import BarColumn, Progress, TextColumn

    pace = Pace(time.monotonic())
    said = time.monotonic()
    todo = report.total - report.before
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}, {task.fields[left]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task(
            "segmenting", total=report.total, completed=report.before, left=left_text(None)
        )

        def advance(through: int) -> None:
            nonlocal said
            now = time.monotonic()
            pace.add(now, through)
            left = left_text(pace.left(todo - through))
            progress.update(bar, completed=report.before + through, left=left)
            if not console.is_terminal and now - said >= _SAY_SECONDS:
                said = now
                rate = "" if pace.rate is None else f"{pace.rate:.3g} images/s, "
                share = report.before + through
                say(console, f"{share:,} of {plural(report.total, 'image')}, {rate}{left}")

        yield advance


def _print(report: ArchiveReport, storage: Storage, console: Console) -> None:
    if report.suspects:
        say(
            console,
            f"note: {plural(report.suspects, 'mask')} of this call to look at, empty or nearly "
            "all of the image: `suspect` in the manifest",
        )
    say(
        console,
        f"{report.done:,} of {plural(report.total, 'image')} segmented into {storage.root} "
        f"(masks, {TABLES}/, {FOLDER}/, summary.json)",
    )
    if report.failed:
        say(console, f"{report.failed:,} failed; the same command tries them again:", "red")
        for name, reason in report.first_failed.items():
            say(console, f"  {name}: {reason}")
        if (more := report.failed - len(report.first_failed)) > 0:
            say(console, f"  ... and {more:,} more: `failed` in {storage.where(FOLDER)}{os.sep}")
