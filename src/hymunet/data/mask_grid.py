"""The grid of an image that a mask is brought onto where the mask's file knows its own place.

A NIfTI file made from a DICOM series often holds its rows, and sometimes its slices, in the other
order than the series (dcm2niix turns the rows); the affines then differ, the anatomy does not.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hymunet.data.dicom_geometry import OFF_GRID
from hymunet.data.dicom_series import DicomImage
from hymunet.data.masks_io import import_nibabel
from hymunet.errors import HyMUNetError


@dataclass(frozen=True)
class MaskGrid:
    """The grid that a mask is placed on.

    Args:
        shape: (depth, height, width), depth 1 for a picture.
        affine: (x, y, z) indices to RAS mm; None: a picture without a place.
        source: The image's headers when it is DICOM.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    source: DicomImage | None = None


def turned_onto(
    values: np.ndarray, affine: np.ndarray, path: Path, grid: MaskGrid
) -> tuple[np.ndarray, list[str]]:
    """A NIfTI mask's voxels in the order of its image's: axes turned, nothing resampled.

    Args:
        values: (depth, height, width), the reverse of the file's axes.
        affine: The file's.
        path: Named in errors.
        grid: With an affine.

    Returns:
        The voxels in the image's order, and a note when that is another one than the file's.

    Raises:
        HyMUNetError: If it lies on another grid, whatever the order of its axes.
    """
    orientations = import_nibabel(path).orientations
    assert grid.affine is not None
    own, wanted = (orientations.io_orientation(matrix) for matrix in (affine, grid.affine))
    if np.isnan(own).any() or np.isnan(wanted).any():
        raise HyMUNetError(f"mask {path} has an unusable affine; expected that of its image")
    turn = orientations.ornt_transform(own, wanted)
    turned = orientations.apply_orientation(values.T, turn)
    mapping = np.linalg.inv(grid.affine) @ affine @ orientations.inv_ornt_aff(turn, values.T.shape)
    shape = turned.shape[::-1]
    far = [length - 1 for length in turned.shape]
    corners = np.array(
        [(x, y, z, 1) for x in (0, far[0]) for y in (0, far[1]) for z in (0, far[2])]
    )
    off = float(np.abs(corners @ mapping.T - corners).max())
    if shape != grid.shape or off > OFF_GRID:
        raise HyMUNetError(
            f"mask {path} is on another grid than its image: {list(shape)} voxels of "
            f"{list(grid.shape)} in the image's order of axes, corners up to {off:.2f} voxels from "
            "theirs; expected a mask drawn on this image: resample it to the image first"
        )
    moved = not np.array_equal(turn, [[0, 1], [1, 1], [2, 1]])
    notes = ["axes of the NIfTI mask turned to those of its DICOM image"] if moved else []
    return turned.T, notes
