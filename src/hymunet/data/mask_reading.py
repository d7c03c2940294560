"""Masks from picture and volume files, DICOM segmentations among them, as class indices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hymunet.data.decode import decode_picture
from hymunet.data.dicom_header import is_dicom
from hymunet.data.dicom_seg import read_segmentation
from hymunet.data.dicom_series import describe
from hymunet.data.image_io import MAX_PIXELS, read_image
from hymunet.data.label_map import map_labels
from hymunet.data.mask_grid import MaskGrid, turned_onto
from hymunet.data.masks_io import (
    Mask,
    class_indices,
    histogram,
    is_volume,
    stored_values,
    whole_numbers,
)
from hymunet.data.volume_io import read_volume
from hymunet.errors import HyMUNetError
from hymunet.wording import plural


@dataclass(frozen=True)
class StoredMask:
    """What stands in the file of a mask.

    Args:
        values: (*spatial), bool, integer or float.
        lossy: Whether the file was compressed with loss, so that values are blurred.
        affine: As in `Image`.
        notes: What the decoder had to say.
    """

    values: np.ndarray
    lossy: bool
    affine: np.ndarray | None
    notes: tuple[str, ...]


def read_mask(
    path: Path,
    num_labels: int = 2,
    max_pixels: int = MAX_PIXELS,
    label_map: Sequence[tuple[int, int]] | None = None,
    ignore_label: int | None = None,
    image: Path | None = None,
) -> Mask:
    """Reads a mask as class indices; EXIF orientation applies as it does to images.

    Understood: 0/1, 0/255, class indices, bool, 1-bit, palette (its indices; of a GIF its greys),
    RGB with three equal channels, an opaque alpha channel, whole numbers in 16-bit, float and NIfTI
    files, and for num_labels 2 also a binary mask greyed by JPEG (cut at 128). The segments of a
    DICOM segmentation become 1, 2, ... in the order of their numbers, on the grid of `image`; a
    NIfTI mask of a DICOM image is turned to that image's order of axes.

    Args:
        path: The mask; for a DICOM segmentation its file or the folder that holds it.
        num_labels: Number of classes, background included: 2 for one structure.
        max_pixels: As in `read_image`.
        label_map: (stored value, class index) pairs, see `Case`; None: class indices are stored.
        ignore_label: Stored value of pixels that do not count; they come back in `Mask.ignored`,
            as background.
        image: The image that it belongs to (its first channel). A DICOM segmentation cannot be
            placed without; other masks of other images do without.

    Raises:
        HyMUNetError: If the file cannot be read, holds other values than the classes or those of
            the map (the message lists those found), has overlapping segments, or lies on another
            grid than a DICOM image or segmentation.
    """
    path = Path(path)
    stored = read_stored_mask(path, max_pixels, image)
    values, lossy, affine = stored.values, stored.lossy, stored.affine
    if label_map is None and ignore_label is None:
        mask = class_indices(values, path, num_labels, lossy, stored.notes)
        return replace(mask, affine=affine)
    values, ignored, said = map_labels(values, path, label_map, ignore_label, num_labels)
    mask = class_indices(values, path, num_labels, lossy, [*stored.notes, *said])
    return replace(mask, ignored=ignored, affine=affine)


def values_in_mask(path: Path, max_pixels: int = MAX_PIXELS) -> list[int]:
    """The values that occur in a mask as they are stored, ascending.

    Raises:
        HyMUNetError: If it cannot be read, or holds other than whole numbers.
    """
    stored = read_stored_mask(Path(path), max_pixels)
    return [int(value) for value in histogram(whole_numbers(stored.values, path))[0]]


def read_stored_mask(
    path: Path, max_pixels: int = MAX_PIXELS, image: Path | None = None
) -> StoredMask:
    """A mask with the values that stand in its file, not yet understood as classes.

    Args:
        path: As in `read_mask`.
        max_pixels: As in `read_image`.
        image: As in `read_mask`.

    Raises:
        HyMUNetError: If it cannot be read, is no single channel, or cannot be brought onto the grid
            of a DICOM image.
    """
    if is_dicom(path):
        if image is None:
            raise HyMUNetError(
                f"mask {path} is a DICOM segmentation, which holds only the slices that show "
                "something: name the image that it belongs to (`image`, or a data set with images)"
            )
        grid, flat = _mask_grid(Path(image))
        labels, notes = read_segmentation(path, grid, max_pixels)
        return StoredMask(labels[0] if flat else labels, False, grid.affine, tuple(notes))
    if not is_volume(path):
        picture, notes, lossy = decode_picture(path, max_pixels)
        values, notes = stored_values(picture, path, notes)
        return StoredMask(values, lossy, None, tuple(notes))
    stored, _, affine, notes = read_volume(path, max_pixels)
    if len(stored) != 1:
        raise HyMUNetError(
            f"mask {path} has {plural(len(stored), 'channel')}; expected one volume of class "
            "indices"
        )
    if image is not None and stored.ndim == 4 and is_dicom(Path(image)):
        grid, flat = _mask_grid(Path(image))
        if grid.affine is not None:
            turned, said = turned_onto(stored[0], affine, path, grid)
            values = turned[0] if flat else turned
            return StoredMask(values, False, grid.affine, (*notes, *said))
    return StoredMask(stored[0], False, affine, tuple(notes))


def _mask_grid(image: Path) -> tuple[MaskGrid, bool]:
    """The grid of an image, from its headers when it is DICOM, and whether it is a picture."""
    if is_dicom(image):
        source = describe(image)
        return MaskGrid(source.grid.shape, source.grid.affine, source), source.grid.shape[0] == 1
    read = read_image(image, None)
    picture = read.pixels.ndim == 3
    shape = read.pixels.shape[1:]
    return MaskGrid((1, *shape) if picture else shape, read.affine), picture
