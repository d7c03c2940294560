"""DRIVE: colour fundus pictures, vessels drawn by hand, and the field of view, as GIFs and TIFFs.

training/ and test/ each hold images/21_training.tif, 1st_manual/21_manual1.gif and
mask/21_training_mask.gif; newer copies have no 1st_manual in test/. Source: Staal et al. 2004,
https://doi.org/10.1109/TMI.2004.825627.
"""

import re
from pathlib import Path

from hymunet.data.case import Case, Dataset
from hymunet.data.image_io import stem_of
from hymunet.data.masks_io import listed
from hymunet.data.pairs import is_image
from hymunet.errors import HyMUNetError

_IMAGE = re.compile(r"(\d+)_(?:training|test)", re.IGNORECASE)
_MANUAL = re.compile(r"(\d+)_manual1", re.IGNORECASE)
_FIELD = re.compile(r"(\d+)_(?:training|test)_mask", re.IGNORECASE)
_PARTS = {"training": "train", "test": "test"}


def find_drive(folder: Path) -> Dataset | None:
    """The pictures of `folder`, or of training/ and test/ in it, of which there are vessels; None
    where nothing is named as in DRIVE.

    The field of view is each case's valid area: nothing outside it is trained on or scored. What
    the second observer drew is not used.

    Raises:
        HyMUNetError: If a picture lacks its vessels or its field of view, or no part has vessels.
    """
    parts = [path for name in _PARTS if _is_part(path := folder / name)]
    if not parts and _is_part(folder):
        parts = [folder]
    if not parts:
        return None
    labelled = [part for part in parts if (part / "1st_manual").is_dir()]
    if not labelled:
        raise HyMUNetError(
            f"{listed(parts)} of DRIVE has no 1st_manual, the vessels drawn by the first observer "
            "(its folder mask is the field of view); expected it beside images: name the folder "
            "that holds training"
        )
    cases: list[Case] = []
    split: dict[str, str] = {}
    notes: list[str] = ["mask is the field of view: pixels outside it do not count"]
    for part in labelled:
        found = _cases(part, notes)
        cases += found
        split |= {case.id: _PARTS.get(part.name, "train") for case in found}
        if (part / "2nd_manual").is_dir():
            notes.append(f"{part.name}/2nd_manual, by a second observer, is not used")
    for part in parts:
        if part not in labelled:
            notes.append(f"the pictures of {part.name} have no 1st_manual, not used")
    if len(labelled) > 1:
        notes.append("split taken from the folders' names")
    return Dataset(
        "DRIVE",
        folder,
        tuple(cases),
        split if len(labelled) > 1 else None,
        tuple(notes),
        ("red", "green", "blue"),
        {1: "vessel"},
    )


def _is_part(folder: Path) -> bool:
    """Whether `folder` has pictures with vessels, or with a field of view named as in DRIVE."""
    if not (folder / "images").is_dir():
        return False
    if (folder / "1st_manual").is_dir():
        return True
    fields = folder / "mask"
    return fields.is_dir() and any(_FIELD.fullmatch(stem_of(path)) for path in fields.iterdir())


def _cases(part: Path, notes: list[str]) -> list[Case]:
    images, vessels, fields = (
        _numbered(part / name, pattern, notes) if (part / name).is_dir() else {}
        for name, pattern in (("images", _IMAGE), ("1st_manual", _MANUAL), ("mask", _FIELD))
    )
    everywhere = images.keys() & vessels.keys() & fields.keys()
    lonely = sorted((images.keys() | vessels.keys() | fields.keys()) - everywhere)
    if lonely or not everywhere:
        what = f"the numbers {listed(lonely)} are not" if lonely else "no number is"
        raise HyMUNetError(
            f"{part}: {what} in all of images, 1st_manual and mask; "
            "expected for each picture 21_training.tif also 21_manual1.gif and "
            "21_training_mask.gif: bring what is missing or move the rest away"
        )
    return [
        Case(stem_of(images[number]), (images[number],), vessels[number], fields[number])
        for number in sorted(images)
    ]


def _numbered(folder: Path, pattern: re.Pattern[str], notes: list[str]) -> dict[str, Path]:
    """The files of `folder` by the number that their names begin with."""
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(stem_of(path)) if is_image(path) else None
        if match is None:
            if not path.name.startswith("."):
                others.append(path.name)
        elif match[1] in found:
            raise HyMUNetError(
                f"{folder} holds both {found[match[1]].name} and {path.name}; keep one of them"
            )
        else:
            found[match[1]] = path
    if others:
        name = f"{folder.parent.name}/{folder.name}"
        notes.append(
            f"{len(others)} entries of {name} are not DRIVE's, not used: {listed(others, 4)}"
        )
    return found
