"""Folders that an export may write: new ones, empty ones, and those of the same export before."""

from pathlib import Path

from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, strangers

# format -> a file of its folder, and what stands near the beginning of that file in ours only
_MARKS = {
    "hub": ("README.md", "\nlibrary_name: hymunet\n"),
    "bundle": ("configs/inference.json", "hymunet.deploy.bundle_parts"),
    "web": ("page/model.js", "(globalThis.hymunet ??= {}).model"),
}
_BEGINNING = 2**16  # characters


def make_own_folder(folder: Path, format: str) -> Path:
    """`make_folder`, of a folder in which nothing but an export's own files can be replaced.

    Args:
        folder: To be written to.
        format: hub, bundle or web.

    Raises:
        HyMUNetError: If it holds anything, hidden files apart, and no export of this format; or as
            `make_folder`.
    """
    others = strangers(folder)
    if others and not _is_own(folder, format):
        raise HyMUNetError(
            f"the folder {folder} is not empty and holds no {format} export "
            f"({', '.join(others[:4])}), so nothing was written; choose a new folder"
        )
    return make_folder(folder)


def _is_own(folder: Path, format: str) -> bool:
    name, mark = _MARKS[format]
    try:
        with open(folder / name, encoding="utf-8", errors="replace") as file:
            return mark in file.read(_BEGINNING)
    except OSError:
        return False
