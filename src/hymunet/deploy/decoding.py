"""A request's body to an image: in memory only, every limit held before pixels are decoded."""

import math
from typing import TYPE_CHECKING

from hymunet.deploy.problems import RefusedError
from hymunet.errors import HyMUNetError, TooLargeError

if TYPE_CHECKING:
    from hymunet.data.image_io import Image
    from hymunet.inference.predictor import Predictor

NAME = "the image"  # what messages call it, whatever the client calls it

TYPES = (
    "image/png",
    "image/jpeg",
    "image/tiff",
    "image/bmp",
    "image/webp",
    "image/gif",
    "application/dicom",
    "application/gzip",
    "application/octet-stream",
)
_ALSO = ("image/jpg", "image/pjpeg", "image/x-png", "image/x-ms-bmp", "application/x-gzip",
         "application/x-nifti", "application/vnd.unknown.nifti-1", "image/dicom",
         "image/nifti", "image/x-nifti")  # fmt: skip
MULTIPART = "multipart/form-data"


def check_type(content_type: str | None) -> bool:
    """Whether a body of this type is a form; the image itself is recognised by its content.

    Raises:
        RefusedError: `wrong-type`, if it is neither an image's type nor a form.
    """
    name = (content_type or "application/octet-stream").partition(";")[0].strip().lower()
    if name == MULTIPART:
        return True
    if name in TYPES or name in _ALSO:
        return False
    hint = ""
    if name == "application/x-www-form-urlencoded":
        hint = "; with curl: --data-binary @FILE -H 'Content-Type: image/png', or -F image=@FILE"
    # the client's own words are not repeated: they may be anything
    raise RefusedError(
        "wrong-type",
        f"the Content-Type is not one of an image; expected {', '.join(TYPES)} or {MULTIPART} with "
        f"one field `image`{hint}",
    )


def check_content(content: bytes) -> None:
    """Refuses, by its first bytes, what no decoder is there for.

    Raises:
        RefusedError: `unreadable-image`.
    """
    from hymunet.data.untrusted import kind_of

    if not content:
        raise RefusedError("unreadable-image", "the body is empty; expected the bytes of an image")
    if kind_of(content) is None:
        raise RefusedError(
            "unreadable-image",
            f"{len(content)} bytes came that are no image by their content; expected PNG, JPEG, "
            "TIFF, BMP, WebP, GIF, DICOM (with its marker DICM) or NIfTI (.nii or .nii.gz)",
        )


def decode(content: bytes, predictor: "Predictor", max_pixels: int) -> "Image":
    """The image as the model takes it.

    Args:
        content: The file's bytes; `check_content` has passed them.
        predictor: Whose channels, dimensions and grid decide.
        max_pixels: As decoded, and as resampled to the model's spacing.

    Raises:
        RefusedError: `unreadable-image` or `too-many-pixels`, in words.
    """
    from hymunet.data.image_io import read_image
    from hymunet.data.source import InMemory
    from hymunet.data.untrusted import check_untrusted, kind_of

    source = InMemory(NAME, content)
    kind = kind_of(content)
    try:
        if kind is not None:
            check_untrusted(source, kind, max_pixels)
        image = predictor.decode(read_image(source, predictor.config.in_channels, max_pixels))
        _check_resampled(predictor, image, max_pixels)
    except TooLargeError as error:
        limit = f"{max_pixels / 1e6:g} megapixels"
        raise RefusedError(
            "too-many-pixels", f"{error} (this server takes up to {limit})"
        ) from None
    except HyMUNetError as error:
        raise RefusedError("unreadable-image", str(error)) from None
    except MemoryError:
        message = f"{NAME} does not fit into this server's memory; crop or shrink it"
        raise RefusedError("too-many-pixels", message) from None
    return image


def _check_resampled(predictor: "Predictor", image: "Image", max_pixels: int) -> None:
    """A header may claim voxels of a metre, which a model that works at 1 mm would split up.

    Raises:
        TooLargeError: If the image is larger than the limit on any model's grid.
        HyMUNetError: If it cannot be brought to that grid.
    """
    size = tuple(image.pixels.shape[1:])
    for member in predictor.members:
        resized = member.preprocess.resized_size(size, image.spacing_mm)
        if math.prod(resized) > max_pixels:
            raise TooLargeError(
                f"{NAME} of size {size} becomes {resized} at the model's spacing, "
                f"{math.prod(resized)} pixels; check the spacing in its header, or crop it"
            )
