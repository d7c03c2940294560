"""The images to be segmented among files and folders: one file a case or one a channel, no masks.

What a data set says of itself (dataset.json, a table, folders called images and masks, BraTS's and
nnU-Net's file names) decides which files are its masks and which belong together; everything else
is an image of its own.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hymunet.data.brats import CHANNELS, part_of_case
from hymunet.data.dataset_json import read_dataset_json
from hymunet.data.formats import READABLE, check_inputs, check_names, named_images
from hymunet.data.image_io import stem_of
from hymunet.data.input_layout import Layout
from hymunet.data.masks_io import is_volume, listed
from hymunet.data.walk import Walk
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

_NUMBERED = re.compile(r"(.+)_(\d{4})")
_FEW = 10  # numbers from here on count pictures, not channels


@dataclass(frozen=True)
class ImageCase:
    """An image to be segmented.

    Args:
        name: Of its results; without a suffix.
        files: One that holds all channels (a folder of a DICOM series too), or one a channel.
        below: Folder, relative to the input that it was found in, in which its results belong.
        problem: Why it cannot be segmented, in a sentence; None: nothing is wrong so far.
    """

    name: str
    files: tuple[Path, ...]
    below: Path = Path()
    problem: str | None = None

    @property
    def label(self) -> str:
        """What it is called in tables: its file, or the folder and the name its files share."""
        return str(self.files[0] if len(self.files) == 1 else self.files[0].parent / self.name)


def find_image_cases(
    inputs: Sequence[str | Path], in_channels: int
) -> tuple[list[ImageCase], list[str]]:
    """The images that files, folders (with all below them) and glob patterns mean.

    Several files are one image where BraTS's names (CASE_flair, _t1, _t1ce, _t2), nnU-Net's numbers
    (CASE_0000, CASE_0001) or a dataset.json say so. Numbers alone are taken for channels only where
    they cannot count pictures: as nnU-Net's dataset.json says, or where they run from 0000 in each
    of several cases, or make as many files as the model reads channels.

    Args:
        inputs: Files, folders and patterns; a DICOM series in a folder is one image, not one a
            slice: see `dicom_find.find_series`.
        in_channels: Channels that the model reads.

    Returns:
        The images, sorted by their first file, each once; and notes on what was left aside.

    Raises:
        HyMUNetError: If an input does not exist, is no image, or holds nothing but masks.
    """
    if not inputs:
        raise HyMUNetError("no input is given; expected image files, folders or patterns")
    check_inputs(inputs)
    seen: set[str] = set()
    notes: list[str] = []
    cases: list[ImageCase] = []
    walks: dict[Path, Walk] = {}
    named = list(dict.fromkeys(Path(given) for given in inputs))
    # folders first: a file in one of them is named once more by a pattern or its own name
    for place in (one for one in named if one.is_dir()):
        walk = walks[place] = Walk(place)
        for folder, images in walk:
            root, layout = _said_of(folder, walks)
            cases += group_files(folder, root, _new(images, seen), layout, in_channels)
        notes += _notes_of(walk)
    folders: dict[Path, list[Path]] = {}
    for one in (given for given in dict.fromkeys(inputs) if not Path(given).is_dir()):
        for path in _new(named_images(one), seen):
            folders.setdefault(path.parent, []).append(path)
    for folder, images in folders.items():
        root, layout = _said_of(folder, walks)
        cases += group_files(folder, root, sorted(images), layout, in_channels)
    several = [case for case in cases if len(case.files) > 1]
    if several:
        notes.append(_joined(len(several), several[0]))
    return sorted(cases, key=lambda case: case.files[0]), notes


def walk_image_cases(root: Path, in_channels: int, notes: list[str]) -> Iterator[ImageCase]:
    """The images that `find_image_cases` finds below one folder, but for links to what has come
    before; one folder after the other, with nothing more in memory than the one in turn.

    Args:
        root: The folder.
        in_channels: Channels that the model reads.
        notes: Gets what was left aside, in the end.

    Raises:
        HyMUNetError: As `find_image_cases`.
    """
    check_inputs([root])
    walk = Walk(root, forget=True)
    several, first = 0, None
    for folder, images in walk:
        check_names(images)
        inside, layout = _said_of(folder, {root: walk})
        for case in group_files(folder, inside, images, layout, in_channels):
            if len(case.files) > 1:
                several, first = several + 1, first or case
            yield case
    notes += _notes_of(walk)
    if first is not None:
        notes.append(_joined(several, first))


def _said_of(folder: Path, walks: Mapping[Path, Walk]) -> tuple[Path | None, Layout]:
    """The first input folder that `folder` lies in, and what it says of the files in it; None and
    nothing for what lies in none."""
    root = next((one for one in walks if folder.is_relative_to(one)), None)
    return root, Layout() if root is None else walks[root].layout


def _new(images: Iterable[Path], seen: set[str]) -> list[Path]:
    """Those that were not named before, by whatever path."""
    new = []
    for path in images:
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            new.append(path)
    check_names(new)
    return new


def _notes_of(walk: Walk) -> list[str]:
    """What was left aside in a folder.

    Raises:
        HyMUNetError: If it holds no image.
    """
    masks = f"{walk.places_of_masks}"
    if not walk.images and walk.masks:
        raise HyMUNetError(
            f"{walk.root} holds {plural(walk.masks, 'mask')} and no image ({masks}); name the "
            "folder that holds images, or the one with these files in it to segment them"
        )
    if not walk.images:
        raise HyMUNetError(f"{walk.root} holds no images; expected {READABLE}")
    notes = []
    if walk.masks:
        notes.append(f"masks of the data set in {walk.root}, not segmented: {masks}")
    if walk.unread.count:
        folders = plural(walk.unread.count, "folder")
        notes.append(f"{folders} that may not be read passed over: {walk.unread}")
    return notes


def _joined(count: int, one: ImageCase) -> str:
    files = listed((path.name for path in one.files), 4)
    return f"{plural(count, 'image')} of several files, as {one.name} of {files}"


def group_files(
    folder: Path, root: Path | None, paths: list[Path], layout: Layout, in_channels: int
) -> Iterator[ImageCase]:
    """The cases that images directly in a folder make.

    Args:
        folder: Where they lie.
        root: The input folder that it was found in; None: files were named one by one.
        paths: The images, sorted.
        layout: What `root` says of the files in it.
        in_channels: Channels that the model reads.
    """
    below = _level(folder, root, layout)
    rest: list[Path] = []
    given = set(paths)
    for path in paths:
        case = layout.cases.get(path)
        if case is None or not given.issuperset(case.channels):
            rest.append(path)
        elif path == case.channels[0]:
            yield _checked(ImageCase(case.id, case.channels, below), in_channels)
    brats: dict[tuple[str, str], list[Path]] = {}
    for path in rest:
        part = part_of_case(path)
        if part is not None and part[2] != "seg":
            brats.setdefault(part[:2], []).append(path)
    brats = {key: files for key, files in brats.items() if len(files) > 1}
    # the only case in its folder: the folder stands for it
    alone = len(brats) == 1 and root is not None and len(next(iter(brats.values()))) == len(paths)
    for (name, _), files in brats.items():
        place = _level(folder.parent, root, layout) if alone and folder != root else below
        yield _sequences(name, files, place, in_channels)
    taken = {path for files in brats.values() for path in files}
    rest = [path for path in rest if path not in taken]
    numbers = _numbers(folder, rest, in_channels, folder in layout.numbered or _is_nnunet(folder))
    for (name, _), by_number in numbers.items():
        yield _channels(name, by_number, below, in_channels)
    taken = {path for by_number in numbers.values() for path in by_number.values()}
    for path in rest:
        if path not in taken:
            yield ImageCase(stem_of(path), (path,), below)


def _level(folder: Path, root: Path | None, layout: Layout) -> Path:
    """Where results of `folder` belong: at the same level below the output, but for the only folder
    of images beside masks, whose results are then a folder as its masks are."""
    if root is None or not folder.is_relative_to(root):
        return Path()
    level, place = Path(), root
    for name in folder.relative_to(root).parts:
        place = place / name
        level = level if place in layout.only_images else level / name
    return level


def _checked(case: ImageCase, in_channels: int) -> ImageCase:
    if case.problem is not None or len(case.files) in (1, in_channels):
        return case
    files = listed((path.name for path in case.files), 6)
    problem = (
        f"{case.label} has {len(case.files)} channel files ({files}), but the model reads "
        f"{in_channels} channels; expected a file for each of them"
    )
    return ImageCase(case.name, case.files, case.below, problem)


def _sequences(name: str, files: list[Path], below: Path, in_channels: int) -> ImageCase:
    """A case of BraTS, its sequences in the order in which training reads them."""
    kinds = [part[2] for path in files if (part := part_of_case(path)) is not None]
    twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    lacking = [kind for kind in CHANNELS if kind not in kinds]
    ordered = tuple(path for _, path in sorted(zip(map(CHANNELS.index, kinds), files, strict=True)))
    problem = None
    if twice or lacking:
        what = f"no {listed(lacking)}" if lacking else f"{listed(twice)} twice"
        problem = (
            f"{files[0].parent / name} has {what}, only {listed(path.name for path in ordered)}; "
            f"expected the sequences {listed(CHANNELS)}, a file each"
        )
    return _checked(ImageCase(name, ordered, below, problem), in_channels)


def _channels(name: str, by_number: dict[int, Path], below: Path, in_channels: int) -> ImageCase:
    """A case of nnU-Net's, its channels by their numbers."""
    files = tuple(by_number[number] for number in sorted(by_number))
    count = max(in_channels, len(files)) if len(files) > 1 or 0 not in by_number else 1
    lacking = [number for number in range(count) if number not in by_number]
    problem = None
    if lacking:
        problem = (
            f"{files[0].parent / name} has no channel {listed(f'_{n:04d}' for n in lacking)}, only "
            f"{listed((path.name for path in files), 6)}; expected a file for each of the "
            f"{in_channels} channels that the model reads, from _0000 on"
        )
    return _checked(ImageCase(name, files, below, problem), in_channels)


def _is_nnunet(folder: Path) -> bool:
    """Whether a dataset.json in the folder or beside it numbers its channels."""
    for place in (folder, folder.parent):
        try:
            content = read_dataset_json(place) or {}
        except HyMUNetError:
            continue
        if {"file_ending", "channel_names"} & content.keys():
            return True
    return False


def _numbers(
    folder: Path, paths: list[Path], in_channels: int, described: bool
) -> dict[tuple[str, str], dict[int, Path]]:
    """(Case, suffix) -> files by number, where the numbers are those of channels; else nothing."""
    groups: dict[tuple[str, str], dict[int, Path]] = {}
    for path in paths:
        stem = stem_of(path)
        if match := _NUMBERED.fullmatch(stem):
            key = match[1], path.name[len(stem) :].lower()
            groups.setdefault(key, {})[int(match[2])] = path
    if described or not groups:
        return groups
    if sum(map(len, groups.values())) < len(paths):
        return {}
    # cameras number their pictures just so: IMG_0000.jpg, IMG_0001.jpg
    highest = max(max(by_number) for by_number in groups.values())
    from_0 = highest < _FEW and all(0 in by_number for by_number in groups.values())
    if from_0 and folder.name.lower() in ("imagestr", "imagests"):
        return groups
    if in_channels == 3 and not is_volume(paths[0]):
        return {}
    fits = any(set(by_number) == set(range(in_channels)) for by_number in groups.values())
    return groups if (from_0 and len(groups) > 1) or (fits and highest < _FEW) else {}
