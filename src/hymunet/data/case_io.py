"""The files of a case to arrays of one size: image, mask and the area that counts."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hymunet.data.case import Case
from hymunet.data.image_io import Image, read_image
from hymunet.data.label_map import map_labels
from hymunet.data.mask_reading import read_mask, read_stored_mask
from hymunet.data.masks_io import Mask, histogram, is_greyed_binary
from hymunet.data.volume_io import same_grid
from hymunet.errors import HyMUNetError


def read_case(
    case: Case, in_channels: int | None, num_labels: int
) -> tuple[Image, Mask, np.ndarray | None]:
    """Image, mask and the area that counts (bool, or None: everywhere), all of one size.

    Pixels of the case's `ignore_label` do not count, nor do those outside its valid area.

    Args:
        case: Must have a label. Its spacing, where set, goes before the file's.
        in_channels: As in `read_image`.
        num_labels: Classes, background included.

    Raises:
        HyMUNetError: If a file cannot be read, the sizes differ, the mask holds a value that is no
            class of the case, or no pixel counts.
    """
    if case.label is None:
        raise HyMUNetError(f"case {case.id} has no mask; training and evaluation need one")
    image = read_image(case.channels, in_channels)
    mask = read_label(case, num_labels)
    _check_same_grid(case, image, mask.labels, mask.affine, case.label, "mask")
    if case.spacing_mm is not None:
        image = replace(image, spacing_mm=case.spacing_mm)
    return image, mask, _valid_area(case, image, mask.ignored)


def read_stored_case(
    case: Case,
) -> tuple[Image, np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Image with all its channels, values of the mask, the area that counts, notes; for looking at
    a data set whose classes are not known yet.

    The values are class indices where the case has a label map, else the whole numbers that stand
    in the file; a binary mask greyed by JPEG is cut at 128.

    Raises:
        HyMUNetError: As `read_case`, but for the number of classes.
    """
    if case.label is None:
        raise HyMUNetError(f"case {case.id} has no mask; training and evaluation need one")
    image = read_image(case.channels, None)
    stored = read_stored_mask(case.label, image=case.channels[0])
    values, ignored, said = map_labels(
        stored.values, case.label, case.label_map, case.ignore_label, num_labels=256
    )
    if case.label_map is None:
        found, counts = histogram(values)
        if len(found) > 2 and is_greyed_binary(values, found, counts, stored.lossy):
            values = (values >= 128).astype(np.uint8)
            said = [*said, f"binary mask with {len(found)} grey values, cut at 128"]
    _check_same_grid(case, image, values, stored.affine, case.label, "mask")
    if case.spacing_mm is not None:
        image = replace(image, spacing_mm=case.spacing_mm)
    valid = _valid_area(case, image, ignored)
    return image, values, valid, (*image.notes, *stored.notes, *said)


def _valid_area(case: Case, image: Image, ignored: np.ndarray | None) -> np.ndarray | None:
    valid = None
    if case.valid is not None:
        area = read_mask(case.valid, 2, image=case.channels[0])
        valid = area.labels.astype(bool)
        _check_same_grid(case, image, valid, area.affine, case.valid, "valid area")
        if not valid.any():
            raise HyMUNetError(
                f"case {case.id}: the valid area {case.valid} is empty; nothing counts"
            )
    if ignored is not None:
        valid = ~ignored if valid is None else valid & ~ignored
        if not valid.any():
            raise HyMUNetError(
                f"case {case.id}: all of {case.label} that would count is {case.ignore_label}, the "
                "label to be ignored; leave the case out"
            )
    return valid


def read_label(case: Case, num_labels: int) -> Mask:
    """The mask of a case as class indices, by its label map; see `read_mask`."""
    assert case.label is not None
    return read_mask(
        case.label,
        num_labels,
        label_map=case.label_map,
        ignore_label=case.ignore_label,
        image=next(iter(case.channels), None),
    )


def _check_same_grid(
    case: Case, image: Image, other: np.ndarray, affine: np.ndarray | None, path: Path, what: str
) -> None:
    if image.pixels.shape[1:] != other.shape:
        raise HyMUNetError(
            f"case {case.id}: the image {case.channels[0]} has size {image.pixels.shape[1:]}, the "
            f"{what} {path} has {other.shape}; expected the same: they may belong to different "
            "cases, or one was resized or turned without the other: bring the two that belong "
            "together, or resample the one onto the other"
        )
    if image.affine is not None and affine is not None and not same_grid(image.affine, affine):
        apart = np.abs(image.affine - affine).max()
        raise HyMUNetError(
            f"case {case.id}: the {what} {path} lies on another grid than the image "
            f"{case.channels[0]}: their affines differ by up to {apart:.4g}; expected the same "
            "place, voxel size and orientation: resample the one onto the other"
        )
