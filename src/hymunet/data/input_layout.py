"""What folders say of the images and masks in them, for segmenting the images alone.

Training wants every image to have its mask; here images without are welcome, and masks are only
recognised to be left out.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hymunet.data.brats import part_of_case
from hymunet.data.case import Case
from hymunet.data.dataset_json import NAME, read_dataset_json
from hymunet.data.decathlon import find_decathlon
from hymunet.data.masks_io import listed
from hymunet.data.pairs import folders_in, is_images_folder, is_masks_folder
from hymunet.data.tables import names_images, read_cases
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

_SUPERPIXELS = re.compile(r".*_superpixels", re.IGNORECASE)  # ISIC's, among its images


@dataclass
class Layout:
    """What a folder and those below it say of the files in them.

    Args:
        masks: Files that are masks, and folders of nothing else.
        cases: Each file of the cases that a dataset.json or a table names, and its case.
        only_images: Folders of images that have no other one beside them, but masks.
        numbered: Folders in which nnU-Net's dataset.json says that numbers are channels.
    """

    masks: set[Path] = field(default_factory=set)
    cases: dict[Path, Case] = field(default_factory=dict)
    only_images: set[Path] = field(default_factory=set)
    numbered: set[Path] = field(default_factory=set)

    def is_mask(self, path: Path) -> bool:
        """Whether a file, or a folder that it lies in, is left out."""
        return not self.masks.isdisjoint((path, *path.parents))


def layout_of(root: Path) -> Layout:
    """Which files below `root` are masks, and which belong together."""
    found = Layout()
    for folder in (root, *_below(root)):
        if not found.is_mask(folder):
            with suppress(PermissionError):  # a folder of the system's beside the data, lost+found
                _look_into(folder, root, found)
    return found


def _look_into(folder: Path, root: Path, found: Layout) -> None:
    children = folders_in(folder)
    images = [path for path in children if is_images_folder(path)]
    masks = [path for path in children if is_masks_folder(path)]
    described = (folder / NAME).is_file() and _describe(folder, found)
    if images:
        found.masks |= set(masks)
    if len(images) == 1 and (masks or described):
        found.only_images.add(images[0])
    if folder == root or folder.parent == root:
        for table in sorted(folder.glob("*.csv")):
            _take(_cases_of_table(table), found)
    if is_images_folder(folder):
        found.masks |= {p for p in folder.iterdir() if _SUPERPIXELS.fullmatch(p.stem)}
    found.masks |= segmentations_among(folder.iterdir())


def _below(root: Path) -> list[Path]:
    """The visible folders below, outer ones first; links are not followed."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_dir()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def _describe(folder: Path, found: Layout) -> bool:
    """Takes over what a dataset.json says; whether it describes images. Cases without labels, which
    training refuses, are images all the same."""
    try:
        content = read_dataset_json(folder)
        if content is None:
            return False
        if {"file_ending", "channel_names"} & content.keys():
            found.numbered |= {folder, *folders_in(folder)}
        dataset = find_decathlon(folder)
    except HyMUNetError:
        return True
    _take(dataset.cases if dataset is not None else (), found)
    return True


def _cases_of_table(path: Path) -> Sequence[Case]:
    try:
        return read_cases(path)[0] if names_images(path) else ()
    except HyMUNetError:  # a table of something else, such as one of measurements
        return ()


def _take(cases: Iterable[Case], found: Layout) -> None:
    for case in cases:
        found.masks |= {path for path in (case.label, case.valid) if path is not None}
        found.cases |= dict.fromkeys(case.channels, case)


def segmentations_among(files: Iterable[Path]) -> set[Path]:
    """BraTS's CASE_seg beside two or more sequences of its case, by their names."""
    named = {path: part for path in files if (part := part_of_case(path))}
    sequences = [part[:2] for part in named.values() if part[2] != "seg"]
    return {
        path for path, part in named.items() if part[2] == "seg" and sequences.count(part[:2]) > 1
    }


def summary(masks: Sequence[Path], layout: Layout) -> str:
    """`masks/ (12 files), a_seg.nii.gz`."""
    counts: dict[Path, int] = {}
    for path in masks:
        left = [place for place in (path, *path.parents) if place in layout.masks][-1]
        counts[left] = counts.get(left, 0) + 1
    return listed(
        (
            f"{left.name}/ ({plural(n, 'file')})" if left.is_dir() else left.name
            for left, n in counts.items()
        ),
        4,
    )
