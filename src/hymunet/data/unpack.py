"""Archives of others into a folder: nothing outside it, no links, every check sum looked at."""

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath

from rich.filesize import decimal

from hymunet.errors import HyMUNetError

Progress = Callable[[int, int], object]


class DamagedError(HyMUNetError):
    """The archive is cut, damaged, unsafe or none at all: another copy of it is needed."""


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    extract: Callable[[Path], object]
    fault: str = ""  # why it is not unpacked


def unpack(archive: Path, folder: Path, progress: Progress = lambda done, total: None) -> None:
    """Unpacks a .zip or .tar into a new folder.

    Every name is looked at before the first file is written: no absolute path, no drive, no `..`,
    no link, no device, no second file of the same name. A zip's CRC of each file is checked; a tar
    has sums over its headers only. Owners and permissions are not taken over.

    Args:
        archive: Recognised by its contents, not by its name.
        folder: Must not exist; removed again when this raises.
        progress: Called with the unpacked bytes and their final number.

    Raises:
        DamagedError: If it is no such archive, or is cut, damaged or unsafe.
        HyMUNetError: If the disk has too little room or cannot be written.
    """
    try:
        with _members(archive) as members:
            _check(archive, members)
            total, done = sum(member.size for member in members), 0
            free = shutil.disk_usage(folder.parent).free
            if total > free:
                raise HyMUNetError(
                    f"{archive.name} unpacks to {decimal(total)} and the disk of "
                    f"{folder.parent} has room for {decimal(free)}; make room, then give the "
                    "same command: nothing is downloaded twice"
                )
            folder.mkdir()
            for member in members:
                member.extract(folder)
                done += member.size
                progress(done, total)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, _DAMAGED):
            raise DamagedError(f"{archive.name} is damaged or not whole: {error}") from error
        if isinstance(error, OSError):
            raise HyMUNetError(
                f"cannot unpack {archive.name} into {folder.parent}: {error.strerror or error}; "
                "free the place, then give the same command: nothing is downloaded twice"
            ) from error
        raise


# what zipfile and tarfile raise on bad bytes; NotImplementedError: a compression they do not know
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


def leaves_folder(name: str) -> bool:
    """Whether a path that came from elsewhere is absolute, names a drive or holds a `..`, as any
    system would read it."""
    path = PureWindowsPath(name)  # knows both kinds of slashes
    return bool(path.anchor) or ".." in path.parts


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield [_of_zip(opened, info) for info in opened.infolist()]
    elif tarfile.is_tarfile(archive):
        if not hasattr(tarfile, "data_filter"):
            raise HyMUNetError("unpacking a .tar safely needs Python 3.11.4 or newer; update it")
        with tarfile.open(archive) as opened_tar:
            yield [_of_tar(opened_tar, info) for info in opened_tar.getmembers()]
    else:
        with open(archive, "rb") as file:
            start = file.read(40)
        raise DamagedError(
            f"{archive.name} is no whole .zip or .tar archive; it begins with {start!r}"
        )


def _of_zip(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    # reading to the end of a member checks its CRC
    extract = partial(opened.extract, info)
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was not packed on Unix
    fault = ""
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "is a link" if kind == stat.S_IFLNK else "is no plain file"
    elif info.flag_bits & 1:
        fault = "is encrypted"
    return _Member(info.filename, info.file_size, info.is_dir(), extract, fault)


def _of_tar(opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    extract = partial(opened.extract, info, filter="data")
    fault = ""
    if not (info.isreg() or info.isdir()):
        fault = "is a link" if info.issym() or info.islnk() else "is no plain file"
    return _Member(info.name, info.size, info.isdir(), extract, fault)


def _check(archive: Path, members: Sequence[_Member]) -> None:
    """Refuses the whole archive for one member that is not a plain file inside."""
    seen: set[str] = set()
    for member in members:
        parts = [part for part in re.split(r"[\\/]", member.name) if part not in ("", ".")]
        key = "/".join(parts).casefold()  # as Windows and macOS tell names apart
        fault = member.fault
        if leaves_folder(member.name):
            fault = "leaves the folder that it is unpacked into"
        elif key in seen and not member.is_folder:
            fault = "stands in it twice"
        if fault:
            raise DamagedError(f"{archive.name} is not unpacked: {member.name!r} {fault}")
        seen.add(key)
