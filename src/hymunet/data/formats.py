"""Where a data set keeps its images and masks: folders, a challenge's layout or a CSV -> cases."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hymunet.data.case import Case
from hymunet.data.dicom_find import check_segments, find_series, with_patients
from hymunet.data.dicom_header import is_dicom, is_dicom_file
from hymunet.data.image_io import SUFFIXES, Image, Mask, read_image, read_mask
from hymunet.data.masks_io import listed
from hymunet.data.pairs import find_pairs, folders_in, folders_left, is_image, pair_files
from hymunet.data.tables import (
    check_table,
    check_unique,
    names_images,
    part_name,
    read_cases,
    read_split_table,
)
from hymunet.errors import HyMUNetError

_HELP = (
    "expected images/ and masks/ with files of the same names, the folders of ISIC 2018 Task 1, or "
    "a CSV file with the columns image and mask; or name two folders with --images and --masks"
)


@dataclass(frozen=True)
class Dataset:
    """The cases of a data set, found but not yet read.

    Args:
        name: "ISIC 2018 Task 1", "folder pairs" or "CSV".
        root: The folder it was found in.
        cases: Sorted by id; each has an image and a mask.
        split: Case id -> "train", "val" or "test" where the data say so; else None.
        notes: What was left aside, and where the split comes from.
    """

    name: str
    root: Path
    cases: tuple[Case, ...]
    split: dict[str, str] | None = None
    notes: tuple[str, ...] = ()


def find_dataset(data: Path, images: Path | None = None, masks: Path | None = None) -> Dataset:
    """Recognises how images and masks are kept, and pairs them; no case is dropped.

    - two folders named by `images` and `masks` (as given, or inside `data`);
    - a CSV file: columns image and mask, optionally case, split, group and valid (paths relative
      to the CSV file);
    - ISIC 2018 Task 1 as the challenge unpacks: `ISIC2018_Task1*_Input` beside
      `ISIC2018_Task1_*_GroundTruth`, of one phase or of several;
    - images/ and masks/ under their usual names, files paired by stem (the mask's may end in
      _mask, _seg, _segmentation, _gt, _label);
    - DICOM in any of these: an image is a folder with the files of one series, or a file; a mask is
      a segmentation (a file, or a folder with one) or a NIfTI file. The patient is the group;
    - such a layout one folder down, or one in each of train/, val/ and test/.

    A `split.csv` with the columns case and split beside the data goes into `Dataset.split`.

    Args:
        data: Folder or CSV file.
        images: Folder of the images; needs `masks`.
        masks: Folder of the masks; needs `images`.

    Raises:
        HyMUNetError: If nothing is recognised, several things are, or images and masks do not pair.
    """
    data = Path(data)
    if (images is None) != (masks is None):
        raise HyMUNetError("only one of --images and --masks is given; give both, or neither")
    if not data.exists():
        raise HyMUNetError(f"there is no file or folder {data}; check the path (from {Path.cwd()})")
    if images is not None and masks is not None:
        root = data if data.is_dir() else data.parent
        pair = (None, _inside(root, images), _inside(root, masks))
        return _from_folders("folder pairs", root, [pair])
    if data.is_file():
        if data.suffix.lower() != ".csv":
            raise HyMUNetError(f"{data} is a file, not a folder of data: {_HELP}")
        return _from_csv(data)
    here = _layout(data)
    if here is not None:
        return here
    folders: list[Path] = []
    errors: list[HyMUNetError] = []
    for folder in folders_in(data):
        try:
            if find_pairs(folder)[1]:
                folders.append(folder)
        except HyMUNetError as error:
            if part_name(folder.name) is not None:
                raise
            errors.append(error)
    if not folders and errors:
        raise errors[0]
    if not folders:
        empty = "is empty" if not any(data.iterdir()) else "holds no data set that is recognised"
        raise HyMUNetError(f"the folder {data} {empty}: {_HELP}")
    parts = [part_name(folder.name) for folder in folders]
    if len(folders) > 1 and None not in parts and len(set(parts)) == len(parts):
        pairs = [
            (part, images, masks)
            for part, folder in zip(parts, folders, strict=True)
            for _, images, masks in find_pairs(folder)[1]
        ]
        return _from_folders(find_pairs(folders[0])[0], data, pairs)
    if len(folders) > 1:
        raise HyMUNetError(
            f"the folder {data} holds {len(folders)} data sets "
            f"({listed(folder.name for folder in folders)}); name the one you mean"
        )
    found = _layout(folders[0])
    assert found is not None  # its pairs were just seen
    return found


def _layout(folder: Path) -> Dataset | None:
    """The data set that lies directly in `folder`."""
    name, pairs = find_pairs(folder)
    if pairs:
        return _from_folders(name, folder, pairs)
    tables = [path for path in sorted(folder.glob("*.csv")) if path.name.lower() != "split.csv"]
    tables = [path for path in tables if names_images(path)]
    if len(tables) > 1:
        raise HyMUNetError(
            f"{folder} holds {len(tables)} CSV files of images and masks "
            f"({listed(path.name for path in tables)}); name the one you mean"
        )
    return _from_csv(tables[0]) if tables else None


def _inside(root: Path, folder: Path) -> Path:
    for candidate in (Path(folder), root / folder):
        if candidate.is_dir():
            return candidate
    raise HyMUNetError(f"the folder {folder} is neither here ({Path.cwd()}) nor in {root}")


def _from_folders(name: str, root: Path, pairs: Sequence[tuple[str | None, Path, Path]]) -> Dataset:
    cases: list[Case] = []
    parts: dict[str, str] = {}
    notes: list[str] = []
    for part, images, masks in pairs:
        paired = pair_files(images, masks, notes)
        cases.extend(paired)
        parts.update({case.id: part for case in paired if part is not None})
    check_unique(((case.id, case.channels[0]) for case in cases), "cases")
    check_segments(cases)
    cases = with_patients(cases, notes)
    used = {path for _, *both in pairs for path in both}
    unused = folders_left(root, used)
    if unused:
        notes.append(f"folders without masks, not used: {listed(unused)}")
    if not parts or (root / "split.csv").exists():
        return _with_split_table(Dataset(name, root, _sorted(cases), None, tuple(notes)))
    notes.append("split taken from the folders' names")
    split = check_table([case.id for case in cases], parts, f"the folders of {root}")
    return Dataset(name, root, _sorted(cases), split, tuple(notes))


def _from_csv(path: Path) -> Dataset:
    cases, split, notes = read_cases(path)
    check_segments(cases)
    cases = with_patients(cases, notes)
    dataset = Dataset("CSV", path.parent, _sorted(cases), split, tuple(notes))
    if split is not None or path.name.lower() == "split.csv":
        return dataset
    return _with_split_table(dataset)


def _with_split_table(dataset: Dataset) -> Dataset:
    path = dataset.root / "split.csv"
    if not path.exists():
        return dataset
    split = read_split_table(path, [case.id for case in dataset.cases])
    return replace(dataset, split=split, notes=(*dataset.notes, "split taken from split.csv"))


def _sorted(cases: Iterable[Case]) -> tuple[Case, ...]:
    cases = list(cases)
    _check_names(path for case in cases for path in (*case.channels, case.label) if path)
    return tuple(sorted(cases, key=lambda case: case.id))


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Image files for prediction from files, folders (with all below them) and glob patterns.

    A DICOM series in a folder is one image, not one a slice: see `dicom_find.find_series`.

    Returns:
        Sorted, each file or series once even if it was named twice.

    Raises:
        HyMUNetError: If an input does not exist, is no image, or holds none.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            chosen = [file for file in path.rglob("*") if _visible(file, path) and is_image(file)]
            chosen += find_series(path)
        elif path.exists() or is_dicom(path):
            if not is_image(path) and not is_dicom(path):
                raise HyMUNetError(
                    f"{path} is no image by its name; expected {listed(SUFFIXES, 9)}: export it as "
                    "one of them"
                )
            chosen = [path]
        else:
            chosen = [Path(name) for name in glob.glob(str(given), recursive=True)]
            if not chosen:
                raise HyMUNetError(f"{given} does not exist and matches nothing; check the path")
            folders = [found for file in chosen if file.is_dir() for found in find_series(file)]
            files = [file for file in chosen if not file.is_dir()]
            chosen = [*folders, *(file for file in files if is_image(file) or is_dicom(file))]
        if not chosen:
            raise HyMUNetError(f"{given} holds no images; expected {listed(SUFFIXES, 9)}")
        for file in chosen:
            found.setdefault(os.path.realpath(file), file)
    if not found:
        raise HyMUNetError("no input is given; expected image files, folders or patterns")
    _check_names(found.values())
    return sorted(found.values())


def find_others(inputs: Sequence[str | Path]) -> list[Path]:
    """What lies visibly in the input folders and is no image by its name: other files, and links to
    folders, which are not followed."""
    others = []
    for folder in {Path(given) for given in inputs}:
        for path in folder.rglob("*") if folder.is_dir() else ():
            known = is_image(path) or is_dicom_file(path)
            passed_over = not known and (not path.is_dir() or path.is_symlink())
            if passed_over and _visible(path, folder):
                others.append(path)
    return sorted(others)


def _check_names(paths: Iterable[Path]) -> None:
    """Tables and JSON are UTF-8, so file names must be text.

    Raises:
        HyMUNetError: If one holds bytes that are no UTF-8.
    """
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            shown = str(path).encode("utf-8", "backslashreplace").decode()
            raise HyMUNetError(
                f"the file name {shown} is not valid UTF-8 and could not be written into tables; "
                "rename it"
            ) from error


def _visible(file: Path, below: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(below).parts)


def read_case(
    case: Case, in_channels: int | None, num_labels: int
) -> tuple[Image, Mask, np.ndarray | None]:
    """Image, mask and the area that counts (bool, or None: everywhere), all of one size.

    Args:
        case: Must have a label. Its spacing, where set, goes before the file's.
        in_channels: As in `read_image`.
        num_labels: Classes, background included.

    Raises:
        HyMUNetError: If a file cannot be read, the sizes differ, or no pixel counts.
    """
    if case.label is None:
        raise HyMUNetError(f"case {case.id} has no mask; training and evaluation need one")
    image = read_image(case.channels, in_channels)
    mask = read_mask(case.label, num_labels, image=case.channels[0])
    _check_sizes(case, image, mask.labels, case.label, "mask")
    if case.spacing_mm is not None:
        image = replace(image, spacing_mm=case.spacing_mm)
    if case.valid is None:
        return image, mask, None
    valid = read_mask(case.valid, 2, image=case.channels[0]).labels.astype(bool)
    _check_sizes(case, image, valid, case.valid, "valid area")
    if not valid.any():
        raise HyMUNetError(f"case {case.id}: the valid area {case.valid} is empty; nothing counts")
    return image, mask, valid


def _check_sizes(case: Case, image: Image, other: np.ndarray, path: Path, what: str) -> None:
    if image.pixels.shape[1:] != other.shape:
        raise HyMUNetError(
            f"case {case.id}: the image {case.channels[0]} has size {image.pixels.shape[1:]}, the "
            f"{what} {path} has {other.shape}; expected the same: they may belong to different "
            "cases, or one was resized or turned without the other"
        )
