"""Whole files or none: everything is written beside its final name and then renamed."""

import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hymunet.errors import HyMUNetError, NoRoomError

# what will be said of every other file too; EDQUOT is unknown to Windows
_NO_ROOM = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}
_PIECE = 2**20  # bytes


def make_folder(path: Path) -> Path:
    """Creates `path` with its parents and checks that files can be written into it.

    Raises:
        NoRoomError: If the disk is full or read-only.
        HyMUNetError: If it cannot be created or written to for another reason, or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, FileExistsError) as error:
        kind = NoRoomError if error.errno in _NO_ROOM else HyMUNetError
        raise kind(
            f"cannot write into the folder {path}: {error.strerror or error}; "
            "choose another --output or free the place"
        ) from error
    return path


def strangers(folder: Path) -> list[str]:
    """What lies in a folder, hidden files apart, sorted; nothing where there is no folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(item.name for item in found if not item.name.startswith("."))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it over `path` when the block succeeds.

    A reader sees the old file or the new one, never half of one; when the block raises, the
    temporary file is removed and `path` stays as it was.

    Raises:
        NoRoomError: If the disk is full or read-only.
        HyMUNetError: If the place is not writable for another reason.
    """
    # the suffix stays last: image writers choose their format by it
    temporary = path.with_name(f".{secrets.token_hex(6)}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        kind = NoRoomError if error.errno in _NO_ROOM else HyMUNetError
        raise kind(
            f"cannot write {path}: {error.strerror or error}; nothing was left half-written"
        ) from error
    finally:
        # where nothing could be created nothing can be removed; the error above says why
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` through `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes `content` as UTF-8 to `path` through `replacing`."""
    write_bytes(path, content.encode())


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Calls `writer(temporary)` and renames what it wrote to `path`, as `replacing` does."""
    with replacing(path) as temporary:
        writer(temporary)


@contextmanager
def room_kept(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Keeps `size` bytes of the disk for what is written last, so that a disk that fills up has
    room for it; gives what frees them. Nothing is left behind, not even by a killed process.

    Raises:
        NoRoomError: If the disk has not so much left.
    """
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        try:
            # a piece at a time: the memory need not hold all of it, nor does a disk take all of it
            left = size
            while left > 0:
                left -= file.write(bytes(min(_PIECE, left)))
        except OSError as error:
            raise NoRoomError(
                f"the disk of {folder} has not {size / 2**20:.3g} MiB left, which the tables "
                f"of the results may need: {error.strerror or error}; free the place or choose "
                "another --output"
            ) from error
        yield file.close
