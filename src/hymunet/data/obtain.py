"""One archive to one folder: fetched, compared with its digest, unpacked, renamed, noted.

The folder appears under its name when all of it is there; before that there is the `.part` file,
which a later call goes on with.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.filesize import decimal

from hymunet.data.catalogue import Archive
from hymunet.data.partial import Partial, Remote
from hymunet.data.receipts import (
    Receipt,
    digests,
    is_complete,
    measure,
    read_receipt,
    receipt_path,
    write_receipt,
)
from hymunet.data.transfer import Transfer
from hymunet.data.unpack import DamagedError, unpack
from hymunet.errors import HyMUNetError

Show = Callable[[str, int, int | None], object]  # what is done, how far, of how much


def check_room(
    archives: Sequence[Archive], output: Path, transfer: Transfer, keep: bool
) -> tuple[int, int, int] | None:
    """Asks how large the archives are and whether they fit, before a byte of them is fetched.

    What they unpack to is not known yet; images hardly shrink in an archive, so it is taken to be
    as much again. `unpack` looks once more, with the true figure.

    Args:
        keep: The archives stay; else each goes when it is unpacked.

    Returns:
        Bytes of the archives, of those that are still to come, and of the disk that is needed
        besides what lies there; None when the server does not say.

    Raises:
        HyMUNetError: If they do not fit, or are not there.
    """
    placed_bytes, part_bytes = 0, 0
    sizes: list[int] = []
    for archive in archives:
        placed, part = output / archive.name, part_of(output, archive)
        if placed.exists():
            placed_bytes += placed.stat().st_size
        elif (size := transfer.size(archive.url)) is not None:
            sizes.append(size)
            part_bytes += min(part.size, size)
    if not sizes and not placed_bytes:
        return None
    whole = placed_bytes + sum(sizes)
    needed = whole + (sum(sizes) if keep else max(sizes, default=0)) - part_bytes
    free = shutil.disk_usage(output).free
    if needed > free:
        raise HyMUNetError(
            f"the disk of {output} has {decimal(free)} free; about {decimal(needed)} are "
            "needed for the archives and what they unpack to: make room, or choose another --output"
        )
    return whole, sum(sizes) - part_bytes, needed


def part_of(output: Path, archive: Archive) -> Partial:
    """Where an archive is kept while it comes."""
    return Partial(output / f"{archive.name}.part")


def obtain(
    archive: Archive,
    licence: str,
    output: Path,
    transfer: Transfer,
    *,
    keep: bool = False,
    notice: Callable[[str], object] = lambda text: None,
    show: Show = lambda what, done, total: None,
) -> None:
    """Brings `output/archive.folder` about, unless it is there.

    Args:
        licence: For the receipt.
        keep: Keep the archive.
        notice: Told what came and how it was checked.
        show: Told how far each step is.

    Raises:
        HyMUNetError: If the archive cannot be fetched, is not what it should be, or does not fit;
            if it differs from the one that was downloaded before; if another process is at it.
    """
    with _alone(output, archive):
        if is_complete(output, archive):
            return
        placed, part = output / archive.name, part_of(output, archive)
        remote: Remote | None = None
        if placed.exists():
            notice(f"{placed} is there, and is used")
        else:
            remote = transfer.fetch(
                archive.url, part, lambda done, total: show("downloading", done, total)
            )
        path = part.path if remote else placed
        sums = digests(path, lambda done, total: show("checking", done, total))
        try:
            _compare(archive, sums, path, read_receipt(receipt_path(output, archive)))
            temporary = _unpacked(archive, path, output, show, notice)
        except DamagedError as error:
            if remote is None:
                remedy = f"move {placed} away, and the same command downloads it"
            else:
                part.discard()
                remedy = "it was removed: the same command downloads it again"
            raise HyMUNetError(f"{error}; {remedy}") from error
        files, size = measure(temporary)
        receipt = Receipt(
            archive=archive.name,
            url=remote.url if remote else None,
            bytes=path.stat().st_size,
            sha256=sums["sha256"],
            md5=sums["md5"],
            checked_against=f"md5:{archive.md5}" if archive.md5 else None,
            etag=remote.etag if remote else None,
            modified=remote.modified if remote else None,
            received=datetime.now(UTC).isoformat(timespec="seconds"),
            licence=licence,
            folder=archive.folder,
            files=files,
            unpacked_bytes=size,
        )
        # first the receipt: a folder without one would have to be judged by less
        write_receipt(receipt_path(output, archive), receipt)
        _rename(temporary, output / archive.folder)
        shutil.rmtree(_temporary(output, archive), ignore_errors=True)
        if remote is not None:
            if keep:
                _rename(part.path, placed)
            part.discard()
        published = "MD5 as published" if archive.md5 else "no digest is published for it"
        notice(
            f"{archive.folder}: {files} files, {decimal(size)}; {published}, "
            f"SHA-256 {sums['sha256']} noted"
        )


def _compare(archive: Archive, sums: dict[str, str], path: Path, before: Receipt | None) -> None:
    """Compares an archive with the digest that is published, and with what came before."""
    if archive.md5 is not None and sums["md5"] != archive.md5:
        raise DamagedError(
            f"{path.name} came whole but is not the published file: expected MD5 {archive.md5}, "
            f"it has {sums['md5']}"
        )
    if before is not None and sums["sha256"] != before.sha256:
        raise HyMUNetError(
            f"{path} is not the {archive.name} of {before.received}: expected SHA-256 "
            f"{before.sha256}, it has {sums['sha256']}. The data were changed, and results on them "
            f"would not compare; to take the new ones delete {receipt_path(path.parent, archive)} "
            "and give the same command"
        )


def _temporary(output: Path, archive: Archive) -> Path:
    return output / f".{archive.folder}.partial"


def _unpacked(
    archive: Archive, path: Path, output: Path, show: Show, notice: Callable[[str], object]
) -> Path:
    """Unpacks beside the final place; returns the folder that is to be renamed to it."""
    temporary = _temporary(output, archive)
    shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
    unpack(path, temporary, lambda done, total: show("unpacking", done, total))
    inner = temporary / archive.folder
    if not inner.is_dir():  # packed without its folder
        return temporary
    others = sorted(entry.name for entry in temporary.iterdir() if entry != inner)
    if others:
        notice(f"{archive.name} also holds {', '.join(others)}: left out")
    return inner


def _rename(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
    except OSError as error:
        raise HyMUNetError(
            f"cannot rename {path} to {target}: {error.strerror or error}; free the place, then "
            "give the same command"
        ) from error


@contextmanager
def _alone(output: Path, archive: Archive) -> Iterator[None]:
    """Two processes that write the same `.part` would spoil it."""
    from filelock import FileLock, Timeout

    path = output / f".{archive.name}.lock"
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes it by itself
                    path.unlink(missing_ok=True)
    except Timeout:
        raise HyMUNetError(
            f"another process is downloading {archive.name} into {output}; wait for it, or choose "
            "another --output"
        ) from None
