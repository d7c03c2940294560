"""Masks as files: class indices or the data's own values, as PNG or NIfTI, whole or not at all."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow

from hymunet.data.masks_io import import_nibabel, is_volume, listed
from hymunet.errors import HyMUNetError
from hymunet.files import write_bytes

if TYPE_CHECKING:
    from hymunet.data.image_io import Image


def write_mask(
    path: Path,
    labels: np.ndarray,
    like: "Image | None" = None,
    num_labels: int | None = None,
    values: Sequence[int] | None = None,
) -> None:
    """Writes class indices as PNG or NIfTI, whole or not at all.

    A PNG of a binary mask holds 0 and 255, so that people see it; otherwise the class indices.
    A NIfTI file holds the class indices on the grid of `like`: what was read with an affine is
    written with it, so voxels lie where they lay. With `values` both hold these instead.

    Args:
        path: Ends in .png, .nii or .nii.gz.
        labels: Class indices 0..255 (bool or integer), (height, width) for a PNG, also
            (depth, height, width) for NIfTI.
        like: The image that was segmented: its affine or spacing goes into the file.
        num_labels: Number of classes, background included. None: 2 when no label exceeds 1.
            Say it where there are more classes: a case that happens to show only the first
            is otherwise written as 0 and 255.
        values: Class index -> value to be stored (`label_map.inverse_label_map`), 0 to 65535; None:
            as above.

    Raises:
        HyMUNetError: If the suffix, shape or values do not fit, or the place is not writable.
    """
    write_bytes(Path(path), mask_bytes(Path(path), labels, like, num_labels, values))


def mask_bytes(
    path: Path,
    labels: np.ndarray,
    like: "Image | None" = None,
    num_labels: int | None = None,
    values: Sequence[int] | None = None,
) -> bytes:
    """What `write_mask` writes; `path` says the format, and is named in errors.

    Raises:
        HyMUNetError: If the suffix, shape or values do not fit.
    """
    labels = np.asarray(labels)
    if labels.dtype != bool and not np.issubdtype(labels.dtype, np.integer):
        raise HyMUNetError(f"labels for {path} are {labels.dtype}; expected bool or integers")
    if labels.size == 0:
        raise HyMUNetError(f"labels for {path} have shape {labels.shape}: nothing to write")
    highest = int(labels.max())
    if int(labels.min()) < 0 or highest > 255:
        raise HyMUNetError(
            f"labels for {path} run from {labels.min()} to {labels.max()}; expected 0 to 255"
        )
    if num_labels is not None and highest >= num_labels:
        raise HyMUNetError(f"labels for {path} reach {highest}, but num_labels is {num_labels}")
    if like is not None and like.pixels.shape[1:] != labels.shape:
        raise HyMUNetError(
            f"labels for {path} have shape {labels.shape}, the image they belong to "
            f"{like.pixels.shape[1:]}: resize them to the image first"
        )
    if values is not None and (
        highest >= len(values) or not 0 <= min(values) <= max(values) <= 65535
    ):
        raise HyMUNetError(
            f"labels for {path} reach {highest}, to be stored as {listed(values)}; expected "
            "a value from 0 to 65535 for each class"
        )
    labels = labels.astype(np.uint8, copy=False)
    if values is not None:
        labels = np.array(values, np.uint8 if max(values) < 256 else np.uint16)[labels]
    if is_volume(path):
        return _nifti_bytes(path, labels, like)
    if path.suffix.lower() != ".png":
        raise HyMUNetError(
            f"cannot write a mask as {path.name}: the name must end in .png (pictures) or "
            ".nii / .nii.gz (volumes)"
        )
    if labels.ndim != 2:
        raise HyMUNetError(
            f"labels for {path} have shape {labels.shape}; a PNG holds (height, width), "
            "write volumes as .nii.gz"
        )
    binary = values is None and (num_labels == 2 if num_labels is not None else highest <= 1)
    buffer = io.BytesIO()
    Pillow.fromarray(labels * np.uint8(255) if binary else labels).save(buffer, "PNG")
    return buffer.getvalue()


def _nifti_bytes(path: Path, labels: np.ndarray, like: "Image | None") -> bytes:
    """A NIfTI-1 file; `labels` in our axis order, the reverse of the file's (x, y, z)."""
    nibabel = import_nibabel(path)
    if labels.ndim not in (2, 3):
        raise HyMUNetError(
            f"labels for {path} have shape {labels.shape}; expected (height, width) or "
            "(depth, height, width)"
        )
    affine, unit = _grid(like)
    volume = nibabel.Nifti1Image(np.ascontiguousarray(labels.T), affine)
    if affine is not None:
        volume.set_sform(affine, code=1)
        if (nibabel.affines.voxel_sizes(affine) > 0).all():
            # both forms, since some viewers read only one; the qform cannot hold a shear
            volume.set_qform(affine, code=1)
        volume.header.set_xyzt_units(unit)
    content: bytes = volume.to_bytes()
    # no time stamp: equal masks are equal files
    return gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content


def _grid(like: "Image | None") -> tuple[np.ndarray | None, str]:
    """Affine for the file, and the unit in which it is written (None and mm: nothing is known)."""
    if like is None or (like.affine is None and like.spacing_mm is None):
        return None, "mm"
    if like.affine is None:
        sizes = [*reversed(like.spacing_mm or ()), 1.0, 1.0, 1.0]
        return np.diag([*sizes[:3], 1.0]), "mm"
    unit = "mm"
    if like.spacing_mm is not None:
        # the affine is as it stood in its file, so its unit follows from the spacing in mm
        column = float(np.linalg.norm(like.affine[:3, 0]))
        ratio = like.spacing_mm[-1] / column if column > 0 else 1.0
        unit = {-3: "micron", 3: "meter"}.get(round(float(np.log10(ratio))), "mm")
    return like.affine, unit
