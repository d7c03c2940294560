"""Values that stand in mask files to class indices."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image as Pillow

from hymunet.data.source import Source
from hymunet.errors import HyMUNetError

VOLUME_SUFFIXES = (".nii", ".nii.gz")

# A binary mask that went through JPEG or an interpolation is grey along its edges, so hardly
# anywhere; a photograph or a probability map is grey all over.
GREY_RANGE = (64, 191)
GREY_SHARE = 0.05
# ... and its white is several values: {0, 1, 2, 255} in a PNG is a class map with an ignore label.
WHITE_VALUES = 3


@dataclass(frozen=True)
class Mask:
    """A reference or predicted segmentation.

    Args:
        labels: Class index of each pixel, uint8, (height, width) or (depth, height, width);
            0 is background.
        notes: What was understood on reading, for instance "values 0 and 255 read as 0 and 1".
        ignored: Pixels of the label to be ignored, bool, the shape of `labels`; None: none is.
        affine: Of a volume, see `hymunet.data.image_io.Image`.
    """

    labels: np.ndarray
    notes: tuple[str, ...] = ()
    ignored: np.ndarray | None = None
    affine: np.ndarray | None = None


def import_nibabel(path: Source) -> ModuleType:
    """nibabel, imported on the first volume so that pictures do not need it.

    Raises:
        HyMUNetError: If it is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise HyMUNetError(
            f"{path} is a NIfTI volume, which needs nibabel: "
            'install it with pip install "hymunet[volumes]"'
        ) from error
    return nibabel


def is_volume(path: Path) -> bool:
    """Whether the name says NIfTI: `.nii` or `.nii.gz`, in any case."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def listed(values: Iterable[object], limit: int = 8) -> str:
    """The first `limit` values, comma-separated, and how many more there are."""
    words = [str(value) for value in values]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


def stored_values(
    picture: Pillow.Image, path: Path, notes: list[str]
) -> tuple[np.ndarray, list[str]]:
    """(height, width) values as they stand in a mask picture: no colours, but class indices.

    Raises:
        HyMUNetError: If colours or transparency would have to be interpreted.
    """
    mode = picture.mode
    if mode == "P":
        return np.asarray(picture), [*notes, "palette indices taken as class indices"]
    if mode in ("1", "L", "I", "F") or mode.startswith("I;16"):
        values = np.asarray(picture)
        return values.astype(values.dtype.newbyteorder("=")), notes
    if mode not in ("LA", "RGB", "RGBA"):
        raise HyMUNetError(f"mask {path} has the colour mode {mode}; expected grey or palette")
    values = np.asarray(picture)
    if mode in ("LA", "RGBA"):
        if (values[..., -1] != 255).any():
            raise HyMUNetError(
                f"mask {path} has transparent pixels, which may mean background or structure: "
                "save it as grey, without an alpha channel"
            )
        values, notes = values[..., :-1], [*notes, "opaque alpha channel dropped"]
    if values.shape[-1] == 3:
        if (values != values[..., :1]).any():
            raise HyMUNetError(
                f"mask {path} is a colour picture; expected class indices: rewrite its colours as "
                "indices (0 background, 1, 2, ...), and check that it is not the image itself"
            )
        notes = [*notes, "three equal channels read as one"]
    return values[..., 0], notes


def class_indices(
    values: np.ndarray, path: Path, num_labels: int, lossy: bool, notes: Iterable[str] = ()
) -> Mask:
    """Class indices from the values that stand in a mask file.

    Values 0..num_labels-1 are taken as they are. With num_labels 2 these are understood too:
    0 with 255 (or 65535), alone or together; and an edge-greyed binary mask, cut at 128.

    Args:
        values: (*spatial), bool, integer or float.
        path: Named in errors.
        num_labels: Number of classes, the background included, 2 to 256.
        lossy: The file was compressed with loss, so that a few stray values are greyed edges.
        notes: What the decoder had to say; comes first in the result's notes.

    Raises:
        HyMUNetError: If a value is no class index; the message lists the values found.
    """
    if not 2 <= num_labels <= 256:
        raise HyMUNetError(
            f"num_labels is {num_labels}; expected 2 (background and one structure) to 256"
        )
    values = whole_numbers(values, path)
    found, counts = histogram(values)
    if found[0] >= 0 and found[-1] < num_labels:
        return Mask(values.astype(np.uint8), tuple(notes))
    if num_labels == 2:
        for top in (255, 65535):
            if set(found.tolist()) <= {0, top}:
                note = f"values 0 and {top} read as 0 and 1"
                return Mask((values == top).astype(np.uint8), (*notes, note))
        if is_greyed_binary(values, found, counts, lossy):
            note = f"binary mask with {len(found)} grey values, cut at 128"
            return Mask((values >= 128).astype(np.uint8), (*notes, note))
    expected = f"0 to {num_labels - 1}" if num_labels > 2 else "0 and 1, or 0 and 255,"
    hint = (
        "; 255 is a value like any other here: write an ignored area as a `valid` mask instead"
        if num_labels > 2 and found[-1] == 255
        else ""
    )
    raise HyMUNetError(
        f"mask {path} holds {len(found)} values ({listed(found)}); expected {expected} for "
        f"{num_labels} classes, background included: say how many structures there are (train "
        "--structures, the background not counted; evaluate --num-labels, the background counted), "
        f"or rewrite the mask with these values{hint}"
    )


def is_greyed_binary(
    values: np.ndarray, found: np.ndarray, counts: np.ndarray, lossy: bool
) -> bool:
    """Whether values are a black and white mask whose edges a lossy file or a resize has greyed.

    Args:
        values: (*spatial).
        found: Values that occur, ascending, as `histogram` gives them.
        counts: How often each does.
        lossy: The file was compressed with loss.
    """
    grey = counts[(found >= GREY_RANGE[0]) & (found <= GREY_RANGE[1])].sum()
    return bool(
        values.dtype == np.uint8
        and found[-1] > GREY_RANGE[1]
        and (lossy or (found > GREY_RANGE[1]).sum() >= WHITE_VALUES)
        and grey <= GREY_SHARE * values.size
    )


def whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """Integer values; floats are accepted when they are whole up to a scaling's rounding.

    Raises:
        HyMUNetError: If values are no whole numbers, infinite, or beyond any label.
    """
    if values.dtype == bool:
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.integer):
        return values
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise HyMUNetError(
            f"mask {path} holds {count} NaN or infinite of {values.size} values; "
            "expected class indices: write those pixels as a class"
        )
    rounded = np.rint(values)
    broken = np.abs(values - rounded) > 1e-3
    if broken.any():
        raise HyMUNetError(
            f"mask {path} holds fractions such as {values[broken][0]:.4g}, expected whole class "
            "indices: cut a probability map at a threshold first"
        )
    if np.abs(rounded).max() > 2**31:
        raise HyMUNetError(
            f"mask {path} holds values up to {np.abs(rounded).max():.4g}, expected class indices: "
            "this looks like an image, not a mask"
        )
    return rounded.astype(np.int64)


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that occur, ascending, and how often; counting beats sorting for small integers."""
    if values.dtype in (np.uint8, np.uint16):
        counts = np.bincount(values.ravel())
        found = np.flatnonzero(counts)
        return found, counts[found]
    return np.unique(values, return_counts=True)
