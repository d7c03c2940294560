"""Images and masks from picture and volume files, every conversion named."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hymunet.data.decode import (
    broken,
    check_file,
    check_size,
    decode_picture,
    picture_channels,
)
from hymunet.data.label_map import map_labels
from hymunet.data.masks_io import (
    VOLUME_SUFFIXES,
    Mask,
    class_indices,
    histogram,
    import_nibabel,
    is_volume,
    listed,
    stored_values,
    whole_numbers,
    write_mask,
)
from hymunet.errors import HyMUNetError, NonFiniteError

__all__ = [
    "SUFFIXES",
    "Image",
    "Mask",
    "read_image",
    "read_mask",
    "stem_of",
    "values_in_mask",
    "write_mask",
]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", *VOLUME_SUFFIXES)
MAX_PIXELS = 250_000_000
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Image:
    """An image as decoded: EXIF orientation applied, nothing rescaled.

    Args:
        pixels: (channels, *spatial), uint8, uint16 or float32.
        spacing_mm: Size of a pixel or voxel along each spatial axis; None when the file does not
            say (a picture's dots per inch are a printer's, not a microscope's).
        affine: A volume's 4x4 voxel-to-world matrix as nibabel gives it: for voxel indices in the
            file's (x, y, z) order, the reverse of the axes here, and in the file's unit. Voxels
            stay in the order in which they are stored.
        notes: What was understood or changed, for instance "palette converted to RGB".
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, ...] | None = None
    affine: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def stem_of(path: Path) -> str:
    """File name without its suffix, `.nii.gz` being one suffix."""
    return path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem


def read_image(
    paths: Path | Sequence[Path], in_channels: int | None = 3, max_pixels: int = MAX_PIXELS
) -> Image:
    """Reads a picture or a volume, from one file or from a file per modality.

    Alpha is composited on black, palettes become RGB, CMYK becomes RGB, 1-bit becomes 0 and 255;
    16-bit grey stays uint16, other numbers become float32.

    Args:
        paths: PNG, JPEG, TIFF, BMP, WebP, GIF (recognised by content) or NIfTI (by name);
            several are stacked along the channel axis in the order given.
        in_channels: Channels wanted. A grey image becomes RGB by repetition for 3, an RGB one its
            luma for 1; with as many files as channels, each RGB file becomes its luma. None: as
            stored.
        max_pixels: Larger ones are refused from the header, before memory is spent on them.

    Raises:
        HyMUNetError: If a file is missing, broken, cut short, too large, of an unknown kind, has
            several pages or other channels than wanted, or if files of one image differ in size
            or grid.
        NonFiniteError: If values are NaN or infinite.
    """
    paths = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not paths:
        raise HyMUNetError("read_image got no file; expected one path, or one per channel")
    images = [_read_one(path, max_pixels) for path in paths]
    first = images[0]
    for path, image in zip(paths, images, strict=True):
        if image.pixels.shape[1:] != first.pixels.shape[1:]:
            raise HyMUNetError(
                f"channels of one image differ in size: {paths[0]} is {first.pixels.shape[1:]}, "
                f"{path} is {image.pixels.shape[1:]}; resample them to one grid first"
            )
        if not _same_grid(image.affine, first.affine):
            raise HyMUNetError(
                f"channels of one image lie on different grids: the affine of {path} is not that "
                f"of {paths[0]}; register and resample them to one grid first"
            )
    reduce = in_channels == len(paths) > 1
    parts = [_to_luma(image) if reduce and len(image.pixels) == 3 else image for image in images]
    notes = dict.fromkeys(note for part in parts for note in part.notes)  # each once, in order
    # of the three types that occur, the common one holds every value of the others
    pixels = np.concatenate([p.pixels for p in parts]) if len(parts) > 1 else parts[0].pixels
    whole = Image(pixels, first.spacing_mm, first.affine, tuple(notes))
    return _with_channels(whole, in_channels, listed(paths, 4))


def read_mask(
    path: Path,
    num_labels: int = 2,
    max_pixels: int = MAX_PIXELS,
    label_map: Sequence[tuple[int, int]] | None = None,
    ignore_label: int | None = None,
) -> Mask:
    """Reads a mask as class indices; EXIF orientation applies as it does to images.

    Understood: 0/1, 0/255, class indices, bool, 1-bit, palette (its indices; of a GIF its greys),
    RGB with three equal channels, an opaque alpha channel, whole numbers in 16-bit, float and NIfTI
    files, and for num_labels 2 also a binary mask greyed by JPEG (cut at 128).

    Args:
        path: The mask.
        num_labels: Number of classes, background included: 2 for one structure.
        max_pixels: As in `read_image`.
        label_map: (stored value, class index) pairs, see `Case`; None: class indices are stored.
        ignore_label: Stored value of pixels that do not count; they come back in `Mask.ignored`,
            as background.

    Raises:
        HyMUNetError: If the file cannot be read, or holds other values than the classes or those
            of the map; the message lists the values found.
    """
    path = Path(path)
    values, lossy, notes = _read_stored(path, max_pixels)
    if label_map is None and ignore_label is None:
        return class_indices(values, path, num_labels, lossy, notes)
    values, ignored, said = map_labels(values, path, label_map, ignore_label, num_labels)
    mask = class_indices(values, path, num_labels, lossy, [*notes, *said])
    return replace(mask, ignored=ignored)


def values_in_mask(path: Path, max_pixels: int = MAX_PIXELS) -> list[int]:
    """The values that occur in a mask as they are stored, ascending.

    Raises:
        HyMUNetError: If it cannot be read, or holds other than whole numbers.
    """
    path = Path(path)
    values, _, _ = _read_stored(path, max_pixels)
    return [int(value) for value in histogram(whole_numbers(values, path))[0]]


def _read_stored(path: Path, max_pixels: int) -> tuple[np.ndarray, bool, list[str]]:
    """(*spatial) values of a mask, whether they went through lossy compression, notes."""
    if not is_volume(path):
        picture, notes, lossy = decode_picture(path, max_pixels)
        values, notes = stored_values(picture, path, notes)
        return values, lossy, notes
    stored, _, _, notes = _read_volume(path, max_pixels)
    if len(stored) != 1:
        raise HyMUNetError(
            f"mask {path} has {len(stored)} channels; expected one volume of class indices"
        )
    return stored[0], False, notes


def _read_one(path: Path, max_pixels: int) -> Image:
    if is_volume(path):
        pixels, spacing_mm, affine, notes = _read_volume(path, max_pixels)
    else:
        picture, notes, _ = decode_picture(path, max_pixels)
        pixels, notes = picture_channels(picture, path, notes)
        spacing_mm = affine = None
    if pixels.dtype not in (np.uint8, np.uint16):
        if pixels.dtype != np.float32:
            notes = [*notes, f"{pixels.dtype} converted to float32"]
            with np.errstate(over="ignore"):  # what does not fit becomes infinite: reported next
                pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            nans, infinite = int(np.isnan(pixels).sum()), int(np.isinf(pixels).sum())
            raise NonFiniteError(
                f"{path} holds {nans} NaN and {infinite} infinite of {pixels.size} values; "
                "expected finite numbers: replace them (by the background, say) and save it again"
            )
    return Image(np.ascontiguousarray(pixels), spacing_mm, affine, tuple(notes))


def _read_volume(
    path: Path, max_pixels: int
) -> tuple[np.ndarray, tuple[float, ...] | None, np.ndarray, list[str]]:
    """(channels, *spatial) with axes the reverse of the file's, spacing, affine, notes."""
    nibabel = import_nibabel(path)
    check_file(path)
    notes: list[str] = []
    try:
        volume = nibabel.load(path, mmap=False)
        shape = tuple(int(length) for length in volume.shape)
        while len(shape) > 4 and shape[-1] == 1:
            shape = shape[:-1]
        stored_type = volume.get_data_dtype()
        if len(shape) not in (2, 3, 4) or stored_type.fields or stored_type.kind not in "iuf":
            raise HyMUNetError(
                f"{path} has shape {volume.shape} of {stored_type}; expected real numbers, "
                "(x, y, z) or (x, y, z, channels): save each volume as a file of its own"
            )
        check_size(path, shape, max_pixels)
        values = np.asanyarray(volume.dataobj).reshape(shape).T
        affine, unit = volume.affine, volume.header.get_xyzt_units()[0]
    except HyMUNetError:
        raise
    except Exception as error:  # zlib, gzip, struct, header and memory errors of a broken file
        raise HyMUNetError(broken(path, error)) from error
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if len(shape) < 4:
        values = values[None]
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))[: min(len(shape), 3)][::-1]
    if unit not in ("mm", "micron", "meter"):
        notes.append("unit of length not stated, taken as mm")
    sizes = sizes * {"micron": 1e-3, "meter": 1e3}.get(unit, 1.0)
    if np.isfinite(sizes).all() and (sizes > 0).all():
        return values, tuple(float(size) for size in sizes), affine, notes
    return values, None, affine, [*notes, "voxel size in the header is unusable, spacing unknown"]


def _same_grid(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.allclose(one, other, rtol=1e-4, atol=1e-2)


def _to_luma(image: Image) -> Image:
    """RGB to one channel of the same type: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""
    luma = np.tensordot(LUMA, image.pixels.astype(np.float32), 1)[None]
    if image.pixels.dtype != np.float32:
        luma = np.rint(luma)
    pixels = luma.astype(image.pixels.dtype)
    return replace(image, pixels=pixels, notes=(*image.notes, "RGB converted to luma"))


def _with_channels(image: Image, in_channels: int | None, where: str) -> Image:
    count = len(image.pixels)
    if in_channels is None or in_channels == count:
        return image
    if in_channels == 1 and count == 3 and image.affine is None:
        return _to_luma(image)
    if in_channels == 3 and count == 1:
        notes = (*image.notes, "grey repeated to three channels")
        return replace(image, pixels=np.repeat(image.pixels, 3, axis=0), notes=notes)
    raise HyMUNetError(
        f"{where} has {count} channels, but {in_channels} were expected: give one file per "
        f"channel, or choose in_channels={count}"
    )
