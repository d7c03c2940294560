"""The dataset.json that lies beside images of the Decathlon and of nnU-Net, read and checked."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from posixpath import normpath
from typing import Any

from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError

NAME = "dataset.json"


def read_dataset_json(folder: Path) -> dict[str, Any] | None:
    """The content of `folder`/dataset.json; None where there is none that describes images and
    labels.

    Raises:
        HyMUNetError: If it cannot be read or is no JSON.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise HyMUNetError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise HyMUNetError(
            f"{path} is no JSON ({error}); correct it, or move it away if it does not describe "
            "these images"
        ) from error
    keys = {"training", "dataset", "modality", "channel_names", "file_ending"}
    known = isinstance(content, dict) and "labels" in content and keys & content.keys()
    return content if known else None


def licence_of(content: dict[str, Any]) -> str | None:
    """What stands under `licence`, the Decathlon's key, or `license`, in a line; None: nothing."""
    said = content.get("licence", content.get("license"))
    words = " ".join(said.split())[:200] if isinstance(said, str) else ""
    return words or None


def channels_of(content: dict[str, Any], where: Path) -> tuple[str, ...] | None:
    """Names of the channels in their order, from `channel_names` or `modality`; None: not said.

    Raises:
        HyMUNetError: If they are not numbered 0, 1, 2, ...
    """
    named = content.get("channel_names", content.get("modality"))
    if named is None:
        return None
    if isinstance(named, list):
        named = {str(index): name for index, name in enumerate(named)}
    if not isinstance(named, dict) or not named or not all(map(_is_number, named)):
        raise HyMUNetError(
            f'{where}: the channels are {named!r:.100}; expected their names by number, as {{"0": '
            '"T1", "1": "T2"}'
        )
    by_number = {int(key): str(name) for key, name in named.items()}
    if sorted(by_number) != list(range(len(named))):
        raise HyMUNetError(
            f"{where}: the channels are numbered {listed(named)}; expected 0, 1, 2, ..."
        )
    return tuple(by_number[index] for index in range(len(by_number)))


def _is_number(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdigit()


def inside(root: Path, text: object, where: Path) -> Path:
    """The file that `text`, from a file that anyone may have written, names in the folder `root`.

    Raises:
        HyMUNetError: If it is no text, absolute, or leads out of the folder.
    """
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise HyMUNetError(f"{where}: {text!r:.100} stands where the name of a file is expected")
    path = PurePosixPath(normpath(text.strip().replace("\\", "/")))
    if PureWindowsPath(text.strip()).anchor or path.parts[:1] == ("..",):
        raise HyMUNetError(
            f"{where} names the file {text}, which is not in its folder; expected paths relative "
            f"to {root}, such as ./imagesTr/case.nii.gz: correct them"
        )
    return root / path


def check_there(files: Iterable[Path], root: Path, where: Path) -> None:
    """Refuses a list of files of which some do not exist.

    Raises:
        HyMUNetError: Naming the first few, and how many there are.
    """
    files = list(files)
    missing = [path.relative_to(root).as_posix() for path in files if not path.is_file()]
    if missing:
        raise HyMUNetError(
            f"{where} names {len(missing)} of {len(files)} files that do not exist: "
            f"{listed(missing, 5)}; bring them, or take their cases out of it"
        )


def not_named(root: Path, named: set[Path]) -> list[str]:
    """A note for each folder of `root` that holds some of the files in `named` and others beside
    them."""
    notes = []
    for folder in sorted({path.parent for path in named}):
        others = [
            path.name
            for path in sorted(folder.iterdir())
            if path not in named and not path.name.startswith(".")
        ]
        if others and folder != root:
            notes.append(
                f"{len(others)} entries of {folder.relative_to(root).as_posix()} belong to no "
                f"case, not used: {listed(others, 4)}"
            )
    return notes
