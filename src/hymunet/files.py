"""Whole files or none: everything is written beside its final name and then renamed."""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hymunet.errors import HyMUNetError


def make_folder(path: Path) -> Path:
    """Creates `path` with its parents and checks that files can be written into it.

    Raises:
        HyMUNetError: If it cannot be created or written to, or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, FileExistsError) as error:
        raise HyMUNetError(
            f"cannot write into the folder {path}: {error.strerror or error}; "
            "choose another --output or free the place"
        ) from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it over `path` when the block succeeds.

    A reader sees the old file or the new one, never half of one; when the block raises, the
    temporary file is removed and `path` stays as it was.

    Raises:
        HyMUNetError: If the place is full or not writable.
    """
    # the suffix stays last: image writers choose their format by it
    temporary = path.with_name(f".{secrets.token_hex(6)}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise HyMUNetError(
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
