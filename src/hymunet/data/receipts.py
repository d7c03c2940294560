"""What lies unpacked, whether all of it is there, and which archive it came from."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hymunet.data.catalogue import Archive
from hymunet.data.unpack import leaves_folder
from hymunet.errors import HyMUNetError
from hymunet.files import write_text


@dataclass(frozen=True)
class Receipt:
    """What was downloaded, checked and unpacked; `ARCHIVE.receipt.json` beside the data.

    Args:
        archive: Its name.
        url: Where it came from; None when somebody had put it there.
        bytes: Its size.
        sha256: Its digest as it came, hexadecimal.
        md5: The same.
        checked_against: The published digest that it agreed with; None where none is published.
        etag: The server's name of the version.
        modified: The server's time of it.
        received: When, UTC.
        licence: Of the data.
        folder: What it was unpacked to.
        files: How many files lie in `folder`.
        unpacked_bytes: How large they are together.
    """

    archive: str
    url: str | None
    bytes: int
    sha256: str
    md5: str
    checked_against: str | None
    etag: str | None
    modified: str | None
    received: str
    licence: str
    folder: str
    files: int
    unpacked_bytes: int


def receipt_path(output: Path, archive: Archive) -> Path:
    """Where the receipt of an archive lies."""
    return output / f"{archive.name}.receipt.json"


def write_receipt(path: Path, receipt: Receipt) -> None:
    """Writes a receipt as JSON."""
    write_text(path, json.dumps(asdict(receipt), indent=2, ensure_ascii=False) + "\n")


def read_receipt(path: Path) -> Receipt | None:
    """The receipt at `path`; None when there is none.

    Raises:
        HyMUNetError: If it is no receipt.
    """
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        receipt = Receipt(**{field.name: values[field.name] for field in fields(Receipt)})
        if not isinstance(receipt.files, int) or not isinstance(receipt.unpacked_bytes, int):
            raise TypeError("files and unpacked_bytes must be numbers")
        return receipt
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HyMUNetError(
            f"{path} is no receipt of a download ({type(error).__name__}: {error}); delete it, and "
            "what is there is judged without it"
        ) from error


def digests(path: Path, progress: Callable[[int, int], object]) -> dict[str, str]:
    """The SHA-256 and MD5 of a file, by name, hexadecimal; read once."""
    sums = {
        "sha256": hashlib.sha256(usedforsecurity=False),
        "md5": hashlib.md5(usedforsecurity=False),
    }
    done, total = 0, path.stat().st_size
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            for each in sums.values():
                each.update(chunk)
            done += len(chunk)
            progress(done, total)
    return {name: each.hexdigest() for name, each in sums.items()}


def measure(folder: Path) -> tuple[int, int]:
    """How many files lie in `folder` and below, and their bytes together."""
    sizes = [
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    ]
    return len(sizes), sum(sizes)


def is_complete(output: Path, archive: Archive) -> bool:
    """Whether what `archive` unpacks to is there as a whole; False when nothing of it is.

    Judged by the receipt; without one (somebody else unpacked it) by the number of files that the
    data set is known to have, or by its own dataset.json. No contents are read.

    Raises:
        HyMUNetError: If a part of it is there: nothing is overwritten.
    """
    folder = output / archive.folder
    if not folder.exists():
        return False
    receipt = read_receipt(receipt_path(output, archive))
    if receipt is not None:
        files, size = measure(folder)
        if files >= receipt.files and size >= receipt.unpacked_bytes:
            return True
        lack = f"{files} files of {size} bytes, of {receipt.files} of {receipt.unpacked_bytes}"
    elif archive.whole is not None:
        pattern, number = archive.whole
        found = len(list(folder.glob(pattern)))
        if found >= number:
            return True
        lack = f"{found} files {pattern} of {number}"
    else:
        missing = _missing(folder)
        if not missing:
            return True
        lack = f"not {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
    raise HyMUNetError(
        f"{folder} is there but not whole, it holds {lack}; it is not overwritten: move it away, "
        "or choose another --output"
    )


def _missing(folder: Path) -> list[str]:
    """What the folder's dataset.json (Medical Segmentation Decathlon) lists and it has not."""
    listing = folder / "dataset.json"
    if not listing.exists():
        return ["dataset.json"]
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        names = [pair[key] for pair in content["training"] for key in ("image", "label")]
        # some tasks' lists of test cases hold records
        tests = [test["image"] if isinstance(test, dict) else test for test in content["test"]]
        names = [str(name) for name in names + tests]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HyMUNetError(
            f"{listing} is no list of a Decathlon task ({type(error).__name__}: {error}); move "
            f"{folder} away, or choose another --output"
        ) from error
    for name in names:
        if leaves_folder(name):
            raise HyMUNetError(f"{listing} names {name}, which lies outside of its folder: refused")
    return [name for name in names if not (folder / name).is_file()]
