"""Images and masks from picture and volume files, every conversion named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hymunet.data.decode import PICTURE_SUFFIXES, decode_picture, picture_channels
from hymunet.data.dicom_geometry import Grid
from hymunet.data.dicom_header import is_dicom
from hymunet.data.dicom_series import read_dicom, read_dicom_slices
from hymunet.data.masks_io import VOLUME_SUFFIXES, is_volume, listed
from hymunet.data.nifti_bytes import nifti_version
from hymunet.data.source import InMemory, Source
from hymunet.data.volume_io import read_volume, same_grid
from hymunet.errors import HyMUNetError, NonFiniteError
from hymunet.wording import plural

SUFFIXES = (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)
MAX_PIXELS = 250_000_000
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Image:
    """An image as decoded: EXIF orientation and DICOM's rescale applied, nothing else changed.

    Args:
        pixels: (channels, *spatial), uint8, uint16 or float32.
        spacing_mm: Size of a pixel or voxel along each spatial axis; None when the file does not
            say (a picture's dots per inch are a printer's, not a microscope's).
        affine: A volume's 4x4 voxel-to-world matrix as nibabel gives it: for voxel indices in the
            file's (x, y, z) order, the reverse of the axes here, and in the file's unit. Voxels
            stay in the order in which they are stored; DICOM slices in that of their positions.
            A DICOM series has the affine of a NIfTI file with the same voxels (RAS+, mm).
        notes: What was understood or changed, for instance "palette converted to RGB".
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, ...] | None = None
    affine: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def stem_of(path: Path) -> str:
    """File name without its suffix, `.nii.gz` being one suffix. A folder (of a DICOM series) and a
    name that ends in a number, as in 1.2.840, have none."""
    if path.suffix[1:].isdigit() or path.is_dir():
        return path.name
    return path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem


def read_image(
    paths: Source | Sequence[Source], in_channels: int | None = 3, max_pixels: int = MAX_PIXELS
) -> Image:
    """Reads a picture or a volume, from one file or from a file per modality.

    Alpha is composited on black, palettes become RGB, CMYK becomes RGB, 1-bit becomes 0 and 255;
    16-bit grey stays uint16, other numbers become float32.

    Args:
        paths: PNG, JPEG, TIFF, BMP, WebP, GIF (recognised by content) or NIfTI (by name); DICOM as
            a file, as a folder that holds one series, or as FOLDER/UID, one of several series in a
            folder. Several are stacked along the channel axis in the order given. Content in memory
            is recognised by itself, NIfTI too.
        in_channels: Channels wanted. A grey image becomes RGB by repetition for 3, an RGB one its
            luma for 1; with as many files as channels, each RGB file becomes its luma. None: as
            stored.
        max_pixels: Larger ones are refused from the header, before memory is spent on them.

    Raises:
        HyMUNetError: If a file is missing, broken, cut short, too large, of an unknown kind, has
            several pages or other channels than wanted, if files of one image differ in size or
            grid, or if DICOM slices are missing, doubled or of several kinds.
        NonFiniteError: If values are NaN or infinite.
    """
    if isinstance(paths, (str, Path, InMemory)):
        paths = [paths]
    paths = [path if isinstance(path, InMemory) else Path(path) for path in paths]
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
        if not same_grid(image.affine, first.affine):
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


def read_slices(
    path: Path, in_channels: int | None = 3, max_pixels: int = MAX_PIXELS
) -> tuple[Grid, Iterator[tuple[int, Image]]]:
    """A DICOM series, or a file of several frames, as one picture a slice.

    Args:
        path: A folder of one series, FOLDER/UID, or a file.
        in_channels: As in `read_image`.
        max_pixels: Larger slices are refused.

    Returns:
        Where the slices lie; and depth and picture of each, in the order of the files, read when
        it is taken. Each is what `read_image` makes of a file of this slice alone.

    Raises:
        HyMUNetError: As `read_image`.
    """
    image, slices = read_dicom_slices(path, max_pixels)
    spacing_mm = None if image.grid.spacing_mm is None else image.grid.spacing_mm[-2:]

    def pictures() -> Iterator[tuple[int, Image]]:
        for depth, pixels, notes in slices:
            one = _finished(path, pixels, spacing_mm, None, notes)
            yield depth, _with_channels(one, in_channels, str(path))

    return image.grid, pictures()


def _read_one(path: Source, max_pixels: int) -> Image:
    affine: np.ndarray | None
    spacing_mm: tuple[float, ...] | None
    if nifti_version(path.content) if isinstance(path, InMemory) else is_volume(path):
        pixels, spacing_mm, affine, notes = read_volume(path, max_pixels)
    elif is_dicom(path):
        pixels, spacing_mm, affine, notes = read_dicom(path, max_pixels)
    else:
        picture, notes, _ = decode_picture(path, max_pixels)
        pixels, notes = picture_channels(picture, path, notes)
        spacing_mm = affine = None
    return _finished(path, pixels, spacing_mm, affine, notes)


def _finished(
    path: Source,
    pixels: np.ndarray,
    spacing_mm: tuple[float, ...] | None,
    affine: np.ndarray | None,
    notes: list[str],
) -> Image:
    """What was decoded, as one of the three types of numbers and finite."""
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
        f"{where} has {plural(count, 'channel')}, but {in_channels} were expected: give one file "
        f"per channel, or choose in_channels={count}"
    )
