"""The images of an archive as entries of a work list: on this machine's disks, or in a store."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from hymunet.data.image_cases import ImageCase, find_image_cases
from hymunet.data.remote import find_remote_cases, is_url
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
    groups = _apart(here, storage.local) if here else []
    for group in groups if inputs else [[]]:  # of no inputs, the error that says so
        cases, said = find_image_cases(group, config.in_channels)
        notes += said
        if storage.local is not None:
            targets = [
                targets_of(case, storage.local, config, job.probability, job.overlay)
                for case in cases
            ]
            check_targets(here, cases, targets, storage.local)
            del targets
        for case in cases:
            # workers run elsewhere: nothing is relative for them
            files = tuple(str(path.absolute()) for path in case.files)
            label = str(Path(case.label).absolute())
            yield _entry(case, label, files, " ".join(map(_stamp, case.files)), config)
    for url in (one for one in inputs if is_url(one)):
        for remote in find_remote_cases(url, config.in_channels, notes):
            yield _entry(remote.case, remote.label, remote.urls, remote.stamp, config)


def _apart(inputs: list[str], output: Path | None) -> list[list[str]]:
    """Inputs that can be searched one after the other, each listing forgotten before the next:
    folders of which none lies in another, nor the output among them. Else all together."""
    if not all(Path(one).is_dir() for one in inputs):
        return [inputs]
    places = [Path(one).resolve() for one in inputs]
    if output is not None:
        places.append(output.resolve())
    # sorted as paths: what lies in a folder follows it at once
    nested = any(lower.is_relative_to(upper) for upper, lower in pairwise(sorted(places)))
    return [inputs] if nested else [[one] for one in inputs]


def _entry(
    case: ImageCase, label: str, files: tuple[str, ...], stamp: str, config: "NetworkFacts"
) -> Entry:
    mask = targets_of(case, Path(), config, probability=False, overlay=False).mask.as_posix()
    return Entry(label, mask, stamp, case.name, case.below.as_posix(), files, case.problem)


def _stamp(path: Path) -> str:
    """Size and time of a file or of the folder of a series; nothing for FOLDER/UID and for what is
    not there, which reading it will say."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"
