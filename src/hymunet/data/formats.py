"""Where a data set keeps its images and masks: folders, a challenge's layout or a CSV -> cases."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hymunet.data.case import Case
from hymunet.data.image_io import SUFFIXES, Image, Mask, read_image, read_mask, stem_of
from hymunet.data.masks_io import listed
from hymunet.data.splits import check_table, part_name, read_split_table, read_table
from hymunet.errors import HyMUNetError

_ISIC_IMAGES = re.compile(r"ISIC2018_Task1.*?_(.+)_Input", re.IGNORECASE)
_ISIC_MASKS = re.compile(r"ISIC2018_Task1_(.+)_GroundTruth", re.IGNORECASE)
# an imagesTs folder without labels is a challenge's hidden test set: only Tr and plain names pair
_IMAGES = re.compile(r"(images?|imgs?)([-_]?(tr|train|training))?", re.IGNORECASE)
_MASKS = re.compile(
    r"(masks?|labels?|annotations?|ground[-_ ]?truths?|gts?|segmentations?|segs?)"
    r"([-_]?(tr|train|training))?",
    re.IGNORECASE,
)
_MASK_ENDING = re.compile(
    r"[-_. ](masks?|seg|segmentation|gt|ground[-_]?truth|labels?|annotation)$", re.IGNORECASE
)
_NOT_IMAGES = re.compile(r"_superpixels$", re.IGNORECASE)  # ISIC ships them among its inputs
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')  # of files, on one system or another

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
        raise HyMUNetError(f"the data {data} do not exist; check the path (from {Path.cwd()})")
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
    for folder in _folders(data):
        try:
            if _pairs(folder)[1]:
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
            for _, images, masks in _pairs(folder)[1]
        ]
        return _from_folders(_pairs(folders[0])[0], data, pairs)
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
    name, pairs = _pairs(folder)
    if pairs:
        return _from_folders(name, folder, pairs)
    tables = [path for path in sorted(folder.glob("*.csv")) if path.name.lower() != "split.csv"]
    tables = [path for path in tables if _names_images(path)]
    if len(tables) > 1:
        raise HyMUNetError(
            f"{folder} holds {len(tables)} CSV files of images and masks "
            f"({listed(path.name for path in tables)}); name the one you mean"
        )
    return _from_csv(tables[0]) if tables else None


def _names_images(path: Path) -> bool:
    """Whether a CSV file found beside others lists images and masks; the others may be anything."""
    try:
        return {"image", "mask"} <= set(read_table(path)[0])
    except HyMUNetError:
        return False


def _pairs(folder: Path) -> tuple[str, list[tuple[str | None, Path, Path]]]:
    """Name of the layout, and (part or None, images, masks) for each pair of folders."""
    folders = _folders(folder)
    inputs = {m[1].lower(): path for path in folders if (m := _ISIC_IMAGES.fullmatch(path.name))}
    truths = {m[1].lower(): path for path in folders if (m := _ISIC_MASKS.fullmatch(path.name))}
    if inputs or truths:
        phases = sorted(inputs.keys() & truths.keys())
        if not phases:
            raise HyMUNetError(
                f"{folder} has {listed(path.name for path in [*inputs.values(), *truths.values()])}"
                "; expected an _Input folder and the _GroundTruth folder of the same phase: unpack "
                "both archives side by side"
            )
        several = len(phases) > 1
        return "ISIC 2018 Task 1", [
            (part_name(phase) if several else None, inputs[phase], truths[phase])
            for phase in phases
        ]
    images = [path for path in folders if _IMAGES.fullmatch(path.name)]
    masks = [path for path in folders if _MASKS.fullmatch(path.name)]
    if len(images) > 1 or len(masks) > 1:
        names = listed(path.name for path in [*images, *masks])
        raise HyMUNetError(
            f"{folder} has several folders of images or masks ({names}); say which with --images "
            "and --masks"
        )
    if len(images) + len(masks) == 1:
        have, lack = ("images", "masks") if images else ("masks", "images")
        raise HyMUNetError(
            f"{folder} has {have} in {(images or masks)[0].name}/ but no folder of {lack}; "
            f"expected {lack}/ beside it, or name both with --images and --masks"
        )
    return "folder pairs", [(None, images[0], masks[0])] if images else []


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


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
        paired = _pair(images, masks, notes)
        cases.extend(paired)
        parts.update({case.id: part for case in paired if part is not None})
    _check_unique(((case.id, case.channels[0]) for case in cases), "cases")
    used = {path for _, *both in pairs for path in both}
    unused = [p.name for p in _folders(root) if p not in used and _IMAGES.match(p.name)]
    unused += [p.name for p in _folders(root) if p not in used and _ISIC_IMAGES.match(p.name)]
    if unused:
        notes.append(f"folders without masks, not used: {listed(unused)}")
    if not parts or (root / "split.csv").exists():
        return _with_split_table(Dataset(name, root, _sorted(cases), None, tuple(notes)))
    notes.append("split taken from the folders' names")
    split = check_table([case.id for case in cases], parts, f"the folders of {root}")
    return Dataset(name, root, _sorted(cases), split, tuple(notes))


def _pair(images: Path, masks: Path, notes: list[str]) -> list[Case]:
    """A case for each image, by stem."""
    pictures = _by_stem(images, notes, _NOT_IMAGES)
    labels = _by_stem(masks, notes)
    mask_of: dict[str, list[Path]] = {}
    for stem, path in labels.items():
        # an image whose own name ends in "_seg" is paired as it stands
        mask_of.setdefault(stem if stem in pictures else _MASK_ENDING.sub("", stem), []).append(
            path
        )
    lonely = sorted(pictures.keys() - mask_of.keys())
    orphans = sorted(mask_of.keys() - pictures.keys())
    if lonely or orphans:
        what = []
        if lonely:
            what.append(f"{len(lonely)} of {len(pictures)} images have no mask ({listed(lonely)})")
        if orphans:
            names = listed(path.name for stem in orphans for path in mask_of[stem])
            what.append(f"{len(orphans)} of {len(labels)} masks have no image ({names})")
        raise HyMUNetError(
            f"{' and '.join(what)} in {images} and {masks}; expected one mask of the same name for "
            "each image (or ending in _mask, _seg, _segmentation, _gt, _label): add what is "
            "missing or move the rest away; an image that shows nothing needs an all-black mask"
        )
    for stem, paths in mask_of.items():
        if len(paths) > 1:
            raise HyMUNetError(
                f"image {stem} has {len(paths)} masks ({listed(path.name for path in paths)}); "
                "keep one in the folder"
            )
    return [Case(stem, (pictures[stem],), mask_of[stem][0]) for stem in sorted(pictures)]


def _by_stem(
    folder: Path, notes: list[str], skip: re.Pattern[str] | None = None
) -> dict[str, Path]:
    entries = sorted(folder.iterdir())
    chosen = [
        path
        for path in entries
        if _is_image(path) and not (skip is not None and skip.search(stem_of(path)))
    ]
    rest = [path.name for path in entries if path not in set(chosen)]
    if not chosen:
        content = f"holds none of {len(rest)} files or folders" if rest else "is empty"
        raise HyMUNetError(
            f"the folder {folder} {content}; expected images directly in it ({listed(SUFFIXES, 9)})"
        )
    if rest:
        notes.append(f"{len(rest)} entries of {folder.name} are no images, ignored: {listed(rest)}")
    _check_unique(((stem_of(path), path) for path in chosen), f"files in {folder}")
    return {stem_of(path): path for path in chosen}


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(SUFFIXES) and not name.startswith(".") and path.is_file()


def _check_unique(named: Iterable[tuple[str, Path]], what: str) -> None:
    seen: dict[str, Path] = {}
    clashes = []
    for name, path in named:
        if name in seen:
            clashes.append(f"{seen[name].name} and {path.name}")
        seen[name] = path
    if clashes:
        raise HyMUNetError(
            f"{len(clashes)} {what} have a name that another one has: {listed(clashes)}; a case is "
            "known by its name without the suffix: rename or remove one of them"
        )


def _from_csv(path: Path) -> Dataset:
    columns, rows = read_table(path)
    if not {"image", "mask"} <= set(columns):
        raise HyMUNetError(f"{path} has the columns {listed(columns)}; expected image and mask")
    missing: list[str] = []

    def file(row: dict[str, str], column: str, number: int) -> Path:
        if not row[column]:
            raise HyMUNetError(
                f"{path}: case {number} has no {column}; give each row an image and a mask (an "
                "all-black one where there is nothing to segment)"
            )
        found = path.parent / row[column].replace("\\", "/")
        if not found.is_file():
            missing.append(row[column])
        return found

    cases: list[Case] = []
    for number, row in enumerate(rows, 1):
        image, mask = file(row, "image", number), file(row, "mask", number)
        valid = file(row, "valid", number) if row.get("valid") else None
        id = row.get("case") or stem_of(image)
        if _NOT_IN_NAMES.search(id):
            raise HyMUNetError(
                f"{path}: the case {id!r} cannot name a file; use letters, digits, - and _"
            )
        cases.append(Case(id, (image,), mask, valid, row.get("group") or None))
    if missing:
        raise HyMUNetError(
            f"{path} names {len(missing)} files that do not exist: {listed(missing)}; paths are "
            f"relative to {path.parent}"
        )
    _check_unique(((case.id, case.channels[0]) for case in cases), f"cases in {path}")
    extra = sorted(set(columns) - {"case", "image", "mask", "split", "group", "valid"})
    notes = (f"columns not used: {listed(extra)}",) if extra else ()
    dataset = Dataset("CSV", path.parent, _sorted(cases), None, notes)
    if "split" not in columns or not any(row["split"] for row in rows):
        return dataset if path.name.lower() == "split.csv" else _with_split_table(dataset)
    table = {case.id: row["split"] for case, row in zip(cases, rows, strict=True)}
    split = check_table(table, table, str(path))
    return replace(dataset, split=split, notes=(*notes, f"split taken from {path.name}"))


def _with_split_table(dataset: Dataset) -> Dataset:
    path = dataset.root / "split.csv"
    if not path.exists():
        return dataset
    split = read_split_table(path, [case.id for case in dataset.cases])
    return replace(dataset, split=split, notes=(*dataset.notes, "split taken from split.csv"))


def _sorted(cases: Iterable[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: case.id))


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Image files for prediction from files, folders (with all below them) and glob patterns.

    Returns:
        Sorted, each file once even if it was named twice.

    Raises:
        HyMUNetError: If an input does not exist, is no image, or holds none.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            chosen = [file for file in path.rglob("*") if _visible(file, path) and _is_image(file)]
        elif path.exists():
            if not _is_image(path):
                raise HyMUNetError(
                    f"{path} is no image by its name; expected {listed(SUFFIXES, 9)}: export it as "
                    "one of them"
                )
            chosen = [path]
        else:
            chosen = [Path(name) for name in glob.glob(str(given), recursive=True)]
            if not chosen:
                raise HyMUNetError(f"{given} does not exist and matches nothing; check the path")
            chosen = [file for file in chosen if _is_image(file)]
        if not chosen:
            raise HyMUNetError(f"{given} holds no images; expected {listed(SUFFIXES, 9)}")
        for file in chosen:
            found.setdefault(os.path.realpath(file), file)
    if not found:
        raise HyMUNetError("no input is given; expected image files, folders or patterns")
    return sorted(found.values())


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
    mask = read_mask(case.label, num_labels)
    _check_sizes(case, image, mask.labels, case.label, "mask")
    if case.spacing_mm is not None:
        image = replace(image, spacing_mm=case.spacing_mm)
    if case.valid is None:
        return image, mask, None
    valid = read_mask(case.valid, 2).labels.astype(bool)
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
