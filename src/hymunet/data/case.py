"""What a data set is made of: cases with their files, and what their channels and labels mean."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """Files of one image with its reference segmentation; nothing is read before it is needed.

    Args:
        id: Name that is unique in the data set; stands in splits, tables and file names.
        channels: One path of an RGB or grey picture, or a path per modality.
        label: Reference mask; None when only a prediction is wanted.
        valid: Mask of the area that counts (DRIVE's field of view); None: everything.
        group: Cases that share it (a patient, near-duplicates) stay on one side of a split;
            None: the case is a group of its own.
        spacing_mm: Size of a pixel or voxel along (height, width) or (depth, height, width);
            None when the files do not say.
        affine: The 4x4 voxel-to-world matrix of a volume, row by row; None for pictures.
        label_map: (value in the mask, class index) pairs, 0 the background; a value that stands in
            none of them is refused on reading. None: the mask holds class indices.
        ignore_label: Value in the mask whose pixels do not count; None: there is none.
    """

    id: str
    channels: tuple[Path, ...]
    label: Path | None = None
    valid: Path | None = None
    group: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    label_map: tuple[tuple[int, int], ...] | None = None
    ignore_label: int | None = None


@dataclass(frozen=True)
class Dataset:
    """The cases of a data set, found but not yet read.

    Args:
        name: The layout: "ISIC 2018 Task 1", "folder pairs", "CSV", "Medical Segmentation
            Decathlon", "nnU-Net raw", "BraTS" or "DRIVE".
        root: The folder it was found in.
        cases: Sorted by id; each has an image and a mask.
        split: Case id -> "train", "val" or "test" where the data say so; else None.
        notes: What was understood, what was left aside, and where the split comes from.
        channel_names: In the order in which `read_image` stacks them; None: the data do not say.
        label_names: Class index -> name, 1 to the number of structures, the background left out;
            None: the data do not say which structures there are.
        regions: Name -> class indices, for structures that are unions of classes (BraTS's whole
            tumour), in the data's order, nested ones the outermost first; None: there are none.
        licence: Of the images, as the data state it; None: they do not.
    """

    name: str
    root: Path
    cases: tuple[Case, ...]
    split: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    channel_names: tuple[str, ...] | None = None
    label_names: dict[int, str] | None = None
    regions: dict[str, tuple[int, ...]] | None = None
    licence: str | None = None

    @property
    def num_labels(self) -> int | None:
        """Classes with the background; None where the data do not say."""
        return None if self.label_names is None else len(self.label_names) + 1

    @property
    def nested(self) -> bool:
        """Whether the regions are class 1 and above, class 2 and above, ... up to the last class:
        the form that a network with `activation="sigmoid"` segments."""
        if self.regions is None or self.num_labels is None:
            return False
        chain = [tuple(range(first, self.num_labels)) for first in range(1, self.num_labels)]
        return list(self.regions.values()) == chain
