"""One subject of a data set: which files hold its channels, its label and the area that counts."""

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
    """

    id: str
    channels: tuple[Path, ...]
    label: Path | None = None
    valid: Path | None = None
    group: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
