"""Picture files to arrays: recognised by content, decoded whole or refused, turned upright."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as Pillow

from hymunet.data.source import InMemory, Source, open_source
from hymunet.errors import HyMUNetError, TooLargeError

# The classes themselves, not Pillow.open: that checks every picture against one process-wide
# size limit, warns, and cannot be told otherwise without changing it for everybody.
_DECODERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"II+\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
)
PICTURE_SIGNATURES = tuple(signature for signature, _ in _DECODERS)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
_strict_decoding = threading.Lock()


def decode_picture(path: Source, max_pixels: int) -> tuple[Pillow.Image, list[str], bool]:
    """The decoded and upright picture, notes, and whether its compression loses values.

    Args:
        path: PNG, JPEG, TIFF, BMP, WebP or GIF, whatever its name; or such content in memory.
        max_pixels: Larger ones are refused from the header.

    Raises:
        HyMUNetError: If it is missing, broken, cut short, too large, of another kind, or has
            several pages.
    """
    check_file(path)
    try:
        with open_source(path) as file, _whole_or_nothing():
            head = file.read(132)
            file.seek(0)
            picture = _decoder(path, head)(file, str(path))
            check_size(path, picture.size[::-1], max_pixels)
            # not their number: a small file may hold millions, which would all be visited
            if getattr(picture, "is_animated", False):
                raise HyMUNetError(
                    f"{path} holds several pages or frames; expected one picture: save the one you "
                    "mean as a file of its own, or a stack as NIfTI (.nii.gz)"
                )
            notes = []
            if picture.mode[:1] != "I" and any("16" in str(tile[3]) for tile in picture.tile):
                notes.append("16-bit colour reduced to 8 bits a channel")
            lossy = isinstance(
                picture, (JpegImagePlugin.JpegImageFile, WebPImagePlugin.WebPImageFile)
            ) or picture.info.get("compression") in ("jpeg", "webp")
            turned = picture.getexif().get(0x0112, 1) in range(2, 9)
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            if isinstance(picture, GifImagePlugin.GifImageFile):
                upright = _without_palette(upright)
    except HyMUNetError:
        raise
    except MemoryError as error:
        raise HyMUNetError(f"{path} does not fit into memory; reduce its size first") from error
    except Exception as error:  # a decoder raises whatever the broken bytes led it into
        raise HyMUNetError(broken(path, error)) from error
    if turned:
        notes.append("turned upright as its EXIF orientation says")
    return upright, notes, lossy


def picture_channels(
    picture: Pillow.Image, path: Source, notes: list[str]
) -> tuple[np.ndarray, list[str]]:
    """(channels, height, width) as numbers, and the notes with what was done for it.

    Alpha is composited on black, palettes, CMYK and YCbCr become RGB, 1-bit becomes 0 and 255.

    Args:
        picture: As `decode_picture` returned it.
        path: Named in errors.
        notes: Come first in those returned.

    Raises:
        HyMUNetError: If its colour mode is not understood.
    """
    mode = picture.mode
    if mode == "1":
        return np.asarray(picture)[None].astype(np.uint8) * 255, [*notes, "1-bit read as 0 and 255"]
    if mode in ("I", "F") or mode.startswith("I;16"):
        values = np.asarray(picture)[None]
        # older Pillows decode 16-bit PNG to 32 bits
        short = mode.startswith("I;16") or isinstance(picture, PngImagePlugin.PngImageFile)
        return values.astype(np.uint16 if short else values.dtype.newbyteorder("=")), notes
    see_through = "transparency" in picture.info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if mode in ("P", "PA"):
        notes = [*notes, "palette converted to RGB"]
    elif mode in ("CMYK", "YCbCr", "HSV"):
        notes = [*notes, f"{mode} converted to RGB without a colour profile"]
    elif mode not in ("L", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX"):
        raise HyMUNetError(
            f"{path} has the colour mode {mode}; expected grey, RGB, palette or CMYK: export as RGB"
        )
    if not see_through:
        values = np.asarray(picture if mode == "L" else picture.convert("RGB"))
        return np.moveaxis(np.atleast_3d(values), -1, 0), notes
    grey = mode in ("L", "LA", "La")
    values = np.moveaxis(np.asarray(picture.convert("LA" if grey else "RGBA")), -1, 0)
    colour, alpha = values[:-1], values[-1:]
    if (alpha == 255).all():
        return colour, [*notes, "opaque alpha channel dropped"]
    # exact rounding of colour * alpha / 255 in integers
    product = (2 * colour.astype(np.uint32) * alpha + 255) // 510
    return product.astype(np.uint8), [*notes, "alpha composited on black"]


def _without_palette(picture: Pillow.Image) -> Pillow.Image:
    """The colours of a GIF, in grey where all are: its writer numbers them in any order, so that
    the numbers say nothing."""
    if picture.mode != "P":
        return picture
    if "transparency" in picture.info:
        return picture.convert("RGBA")
    colour = picture.convert("RGB")
    values = np.asarray(colour)
    return colour.getchannel(0) if (values == values[..., :1]).all() else colour


@contextmanager
def _whole_or_nothing() -> Iterator[None]:
    """Keeps Pillow from filling up a picture cut short, should some other code have asked it to."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _strict_decoding:  # the switch is the whole process's
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _decoder(path: Source, head: bytes) -> type[ImageFile.ImageFile]:
    for signature, decoder in _DECODERS:
        if head.startswith(signature):
            return decoder
    if head[128:132] == b"DICM":
        raise HyMUNetError(
            f"{path} is a DICOM file by its content; call it {Path(path.name).stem}.dcm"
        )
    raise HyMUNetError(
        f"{path} is no image by its content; expected PNG, JPEG, TIFF, BMP, WebP, GIF, NIfTI "
        "(.nii, .nii.gz) or DICOM: copy it again, or export it as one of them"
    )


def check_file(path: Source) -> None:
    """Refuses what is no file, cannot be opened or is empty.

    Raises:
        HyMUNetError: Saying which of these it is.
    """
    if isinstance(path, InMemory):
        if not path.content:
            raise HyMUNetError(f"{path} is empty (0 bytes): copy or export it again")
        return
    if path.is_dir():
        raise HyMUNetError(
            f"{path} is a folder; expected an image file, or a folder with DICOM files in it"
        )
    if not path.exists():
        raise HyMUNetError(f"{path} does not exist; check the name, or where you started from")
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise HyMUNetError(f"{path} is empty (0 bytes): copy or export it again")
    except OSError as error:
        raise HyMUNetError(f"{path} cannot be opened: {error.strerror or error}") from error


def check_size(path: Source, shape: tuple[int, ...], max_pixels: int) -> None:
    """Refuses an image without pixels or with more than `max_pixels`.

    Raises:
        HyMUNetError: If there is nothing in it.
        TooLargeError: Naming the size and the limit.
    """
    if 0 in shape:
        raise HyMUNetError(f"{path} has size {shape}: there is nothing in it, export it again")
    if math.prod(shape) > max_pixels:
        raise TooLargeError(
            f"{path} has size {shape}, {math.prod(shape)} pixels, more than the limit of "
            f"{max_pixels}: crop or shrink it, or raise the limit if the memory is there"
        )


def broken(path: Source, error: Exception) -> str:
    """The message for a file that a decoder failed on with `error`."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{path} is broken or cut short ({reason}): copy, download or export it again"
