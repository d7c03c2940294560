"""The images of an archive as entries of a work list: on this machine's disks, or in a store."""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING

from hymunet.data.dicom_header import names_series
from hymunet.data.image_cases import ImageCase, find_image_cases, walk_image_cases
from hymunet.data.remote import find_remote_cases, is_url, place_of
from hymunet.errors import HyMUNetError
from hymunet.inference.archive.storage import Storage
from hymunet.inference.archive.work_list import Entry
from hymunet.inference.job import Job
from hymunet.inference.outputs import check_targets, targets_of

if TYPE_CHECKING:
    from hymunet.network.segmenter import NetworkFacts


def find_entries(
    inputs: Sequence[str], config: "NetworkFacts", job: Job, storage: Storage, notes: list[str]
) -> Iterator[Entry]:
    """The images that inputs mean, as the plain engine finds and names them.

    Args:
        inputs: Files, folders, globs and addresses.
        config: Of the model.
        job: The options.
        storage: The output.
        notes: What was left aside is added to it.

    Raises:
        HyMUNetError: If an input does not exist or holds no images, or a result would overwrite an
            input.
    """
    here = [one for one in inputs if not is_url(one)]
    if here or not inputs:  # of no inputs, the error that says so
        for case in _cases_here(here, config, job, storage.local, notes):
            # workers run elsewhere: nothing is relative for them
            files = tuple(str(path.absolute()) for path in case.files)
            label = str(Path(case.label).absolute())
            stamp = " ".join(map(_stamp, case.files))
            yield _entry(case, label, files, os.path.realpath(files[0]), stamp, config, job)
    for url in (one for one in inputs if is_url(one)):
        for remote in find_remote_cases(url, config.in_channels, notes):
            case, files = remote.case, remote.urls
            entry = _entry(case, remote.label, files, files[0], remote.stamp, config, job)
            _check_kept(entry, storage)
            yield entry


def _cases_here(
    inputs: list[str], config: "NetworkFacts", job: Job, output: Path | None, notes: list[str]
) -> Iterator[ImageCase]:
    """Images of this machine's disks: of folders one after the other where they lie apart, with no
    more in memory than the folder in turn; else all at once, as they may name one image twice."""
    if inputs and _apart(inputs, output):
        for one in inputs:
            for case in walk_image_cases(Path(one), config.in_channels, notes):
                if output is not None:
                    _check_outside(case, output)
                yield case
        return
    cases, said = find_image_cases(inputs, config.in_channels)
    notes += said
    if output is not None:
        targets = [targets_of(case, output, config, job.probability, job.overlay) for case in cases]
        check_targets(inputs, cases, targets, output)
    yield from cases


def _check_outside(case: ImageCase, output: Path) -> None:
    """Folders lie apart from the output, but a link may lead into it.

    Raises:
        HyMUNetError: If it does.
    """
    for file in case.files:
        if file.is_symlink() and file.resolve().is_relative_to(output.resolve()):
            raise HyMUNetError(
                f"{file} is a link to {file.resolve()}, which lies in the output and may be "
                "overwritten; choose another --output folder"
            )


def _check_kept(entry: Entry, storage: Storage) -> None:
    """Refuses what would overwrite a file in a store, or one of this machine's that file:// names.

    Raises:
        HyMUNetError: Naming it.
    """
    written = {storage.place(name) for name in (entry.mask, *entry.others)}
    for url in entry.files:
        if place_of(url) in written:
            raise HyMUNetError(
                f"the output would overwrite its own input {url}; choose another --output"
            )


def _apart(inputs: list[str], output: Path | None) -> bool:
    """Whether inputs are folders of which none lies in another, nor the output among them."""
    if not all(Path(one).is_dir() for one in inputs):
        return False
    places = [Path(one).resolve() for one in inputs]
    if output is not None:
        places.append(output.resolve())
    # sorted as paths: what lies in a folder follows it at once
    return not any(lower.is_relative_to(upper) for upper, lower in pairwise(sorted(places)))


def _entry(
    case: ImageCase,
    label: str,
    files: tuple[str, ...],
    real: str,
    stamp: str,
    config: "NetworkFacts",
    job: Job,
) -> Entry:
    first, *others = (
        target.as_posix()
        for target in targets_of(case, Path(), config, job.probability, job.overlay).all()
    )
    below = case.below.as_posix()
    return Entry(label, first, stamp, case.name, below, files, real, case.problem, tuple(others))


def _stamp(path: Path) -> str:
    """Size and time of a file; of a series, FOLDER or FOLDER/UID, those of all files in the folder;
    nothing for what is not there, which reading it will say."""
    try:
        place = path.parent if names_series(path) else path
        status = place.stat()
        if not S_ISDIR(status.st_mode):
            return f"{status.st_size}-{status.st_mtime_ns}"
        slices = [entry.stat() for entry in os.scandir(place) if entry.is_file()]
    except OSError:
        return ""
    if not slices:
        return ""
    size, time = sum(one.st_size for one in slices), max(one.st_mtime_ns for one in slices)
    return f"{len(slices)}-{size}-{time}"
