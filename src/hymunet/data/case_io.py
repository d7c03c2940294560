"""The files of a case to arrays of one size: image, mask and the area that counts."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hymunet.data.case import Case
from hymunet.data.image_io import Image, Mask, read_image, read_mask
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
    _check_sizes(case, image, mask.labels, case.label, "mask")
    if case.spacing_mm is not None:
        image = replace(image, spacing_mm=case.spacing_mm)
    valid = None
    if case.valid is not None:
        valid = read_mask(case.valid, 2).labels.astype(bool)
        _check_sizes(case, image, valid, case.valid, "valid area")
        if not valid.any():
            raise HyMUNetError(
                f"case {case.id}: the valid area {case.valid} is empty; nothing counts"
            )
    if mask.ignored is not None:
        valid = ~mask.ignored if valid is None else valid & ~mask.ignored
        if not valid.any():
            raise HyMUNetError(
                f"case {case.id}: all of {case.label} that would count is {case.ignore_label}, the "
                "label to be ignored; leave the case out"
            )
    return image, mask, valid


def read_label(case: Case, num_labels: int) -> Mask:
    """The mask of a case as class indices, by its label map; see `read_mask`."""
    assert case.label is not None
    return read_mask(
        case.label, num_labels, label_map=case.label_map, ignore_label=case.ignore_label
    )


def _check_sizes(case: Case, image: Image, other: np.ndarray, path: Path, what: str) -> None:
    if image.pixels.shape[1:] != other.shape:
        raise HyMUNetError(
            f"case {case.id}: the image {case.channels[0]} has size {image.pixels.shape[1:]}, the "
            f"{what} {path} has {other.shape}; expected the same: they may belong to different "
            "cases, or one was resized or turned without the other"
        )
