"""Where a data set keeps its images and masks: folders, a challenge's layout or a CSV -> cases."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hymunet.data.brats import find_brats
from hymunet.data.case import Case, Dataset
from hymunet.data.decathlon import find_decathlon
from hymunet.data.dicom_find import check_segments, find_series, with_patients
from hymunet.data.dicom_header import is_dicom, is_dicom_file
from hymunet.data.drive import find_drive
from hymunet.data.image_io import SUFFIXES
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

__all__ = ["Dataset", "find_dataset", "find_others"]

# what can be segmented, by its name
READABLE = f"{listed(SUFFIXES, 20)}, or DICOM (.dcm, or a folder with the files of a series)"

_HELP = (
    "expected images/ and masks/ with files of the same names, the folders of ISIC 2018 Task 1, "
    "BraTS or DRIVE, a dataset.json of the Decathlon or nnU-Net, or a CSV file with the columns "
    "image and mask; or name two folders with --images and --masks"
)


def find_dataset(data: Path, images: Path | None = None, masks: Path | None = None) -> Dataset:
    """Recognises how images and masks are kept, and pairs them; no case is dropped.

    - two folders named by `images` and `masks` (as given, or inside `data`);
    - a CSV file: columns image and mask, optionally case, split, group and valid (paths relative
      to the CSV file);
    - ISIC 2018 Task 1 as the challenge unpacks: `ISIC2018_Task1*_Input` beside
      `ISIC2018_Task1_*_GroundTruth`, of one phase or of several;
    - the Medical Segmentation Decathlon and nnU-Net's raw data, by their `dataset.json`; BraTS, a
      folder a case; DRIVE;
    - images/ and masks/ under their usual names, files paired by stem (the mask's may end in
      _mask, _seg, _segmentation, _gt, _label);
    - DICOM in any of these: an image is a folder with the files of one series, or a file; a mask is
      a segmentation (a file, or a folder with one) or a NIfTI file. The patient is the group;
    - such a layout one folder down, or pairs of folders in each of train/, val/ and test/.

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
    challenges: dict[Path, Dataset] = {}
    errors: list[HyMUNetError] = []
    for folder in folders_in(data):
        try:
            if (challenge := _challenge(folder)) is not None:
                challenges[folder] = challenge
            if folder in challenges or find_pairs(folder)[1]:
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
    whole = None not in parts and len(set(parts)) == len(parts) and not challenges
    if len(folders) > 1 and whole:
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
    found = challenges.get(folders[0]) or _layout(folders[0])
    assert found is not None  # its pairs were just seen
    return found


def _layout(folder: Path) -> Dataset | None:
    """The data set that lies directly in `folder`."""
    challenge = _challenge(folder)
    if challenge is not None:
        return challenge
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


def _challenge(folder: Path) -> Dataset | None:
    """A layout that describes itself in `folder`, as challenges publish their data."""
    for find in (find_decathlon, find_drive, find_brats):
        if (found := find(folder)) is not None:
            return _with_split_table(replace(found, cases=_sorted(found.cases)))
    return None


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
    check_names(path for case in cases for path in (*case.channels, case.label) if path)
    return tuple(sorted(cases, key=lambda case: case.id))


def check_inputs(inputs: Sequence[str | Path]) -> None:
    """Refuses inputs that are not there, all of them at once.

    Raises:
        HyMUNetError: Naming each that neither exists, nor names a DICOM series, nor is a pattern
            that matches something.
    """
    missing = [
        str(given)
        for given in dict.fromkeys(inputs)
        if not (Path(given).exists() or is_dicom(Path(given)))
        and not glob.glob(str(given), recursive=True)
    ]
    if len(missing) == 1:
        raise HyMUNetError(f"{missing[0]} does not exist and matches nothing; check the path")
    if missing:
        raise HyMUNetError(
            f"{len(missing)} of {len(inputs)} inputs do not exist and match nothing; check the "
            f"paths: {listed(missing, 20)}"
        )


def named_images(given: str | Path) -> list[Path]:
    """Image files, and folders of a DICOM series, that a name of a file or a pattern means.

    Returns:
        Sorted.

    Raises:
        HyMUNetError: If it is no image, or matches none.
    """
    path = Path(given)
    if path.exists() or is_dicom(path):
        if not is_image(path) and not is_dicom(path):
            raise HyMUNetError(
                f"{path} is no image by its name; expected {READABLE}: export it as one of them"
            )
        return [path]
    matches = [Path(name) for name in glob.glob(str(given), recursive=True)]
    series = [one for match in matches if match.is_dir() for one in find_series(match)]
    files = [one for one in matches if is_image(one) or (not one.is_dir() and is_dicom(one))]
    if not series and not files:
        raise HyMUNetError(f"{given} holds no images; expected {READABLE}")
    return sorted([*series, *files])


def find_others(inputs: Sequence[str | Path]) -> Iterator[Path]:
    """What lies visibly in the input folders and is no image by its name: other files, and links to
    folders, which are not followed."""
    for folder in dict.fromkeys(Path(given) for given in inputs):
        for place, below, names in os.walk(folder):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(names + below):
                path = Path(place, name)
                passed_over = not path.is_dir() or path.is_symlink()
                if passed_over and name[0] != "." and not (is_image(path) or is_dicom_file(path)):
                    yield path


def check_names(paths: Iterable[Path]) -> None:
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
