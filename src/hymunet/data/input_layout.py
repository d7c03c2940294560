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
from hymunet.data.pairs import folders_in, is_images_folder, is_masks_folder
from hymunet.data.tables import names_images, read_cases
from hymunet.errors import HyMUNetError

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

    def take(self, more: "Layout") -> None:
        """Adds what another one says."""
        self.masks |= more.masks
        self.cases |= more.cases
        self.only_images |= more.only_images
        self.numbered |= more.numbered

    def forget(self, said: "Layout") -> None:
        """Takes away what another one said."""
        self.masks -= said.masks
        self.only_images -= said.only_images
        self.numbered -= said.numbered
        for path in said.cases:
            self.cases.pop(path, None)


def look_into(folder: Path, root: Path, found: Layout) -> None:
    """Adds what a folder says: its children's names, a dataset.json, a table, its files' names.

    Args:
        folder: `root` or one below it.
        root: The folder that was named.
        found: Gets what is found.

    Raises:
        PermissionError: If it may not be read.
    """
    children = folders_in(folder)
    images = [path for path in children if is_images_folder(path)]
    masks = [path for path in children if is_masks_folder(path)]
    described = (folder / NAME).is_file() and _describe(folder, found)
    if images:
        found.masks |= set(masks)
    if len(images) == 1 and (masks or described):
        found.only_images.add(images[0])
    if is_images_folder(folder):
        found.masks |= {p for p in folder.iterdir() if _SUPERPIXELS.fullmatch(p.stem)}
    found.masks |= segmentations_among(folder.iterdir())


def take_tables(root: Path, found: Layout) -> None:
    """Adds what tables say that lie in `root` or directly below it, masks left out, which `found`
    knows; they may name files in any other folder, so they are read before these are searched."""
    for folder in (root, *folders_in(root)):
        with suppress(PermissionError):
            if found.is_mask(folder):
                continue
            for table in sorted(folder.glob("*.csv")):
                _take(_cases_of_table(table), found)


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
