"""Stored DICOM pixels to numbers: decoded, in colour, right side up in brightness, rescaled."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.decode import broken
from hymunet.data.dicom_header import first_item, import_pydicom, numbers, text, whole_number
from hymunet.data.source import Source, open_source
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PALETTE = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
# all that decoding takes; nothing else of the file is looked at
_TAGS = [
    *_PIXELS, "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows",
    "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "Modality", "RescaleType", *_PALETTE,
]  # fmt: skip
# who decodes what pydicom, numpy and Pillow do not: permissive licences only
_PACKAGES = {
    "1.2.840.10008.1.2.4.57": "python-gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}


@dataclass(frozen=True)
class Frames:
    """The decoded frames of one file.

    Args:
        values: (frames, rows, columns, samples), samples 1 or 3 (RGB): the stored integers, or
            float32 where the header rescales them.
        bits: Bits of a stored integer that are used; 0 for floating-point numbers.
        notes: What was done.
    """

    values: np.ndarray
    bits: int
    notes: tuple[str, ...]


def decode_frames(path: Source) -> Frames:
    """All frames of a file, in stored order.

    YBR and palettes become RGB. MONOCHROME1, where the lowest number is white, is inverted within
    what can be stored (as ITK and highdicom do), but not for CT and PET: a Hounsfield unit does not
    depend on how it is shown. Then slope and intercept (or the modality table) are applied, to
    float32. Windows are not applied.

    Raises:
        HyMUNetError: If there are no pixels, they are cut short, or nothing here decodes them.
    """
    stored, header = stored_frames(path)
    notes: list[str] = []
    kind = text(header, "PhotometricInterpretation").upper()
    signed = whole_number(header, "PixelRepresentation", 0) == 1
    bits = 0 if stored.dtype.kind == "f" else whole_number(header, "BitsStored", 0)
    if kind == "PALETTE COLOR":
        return Frames(_through_palette(path, stored, header), 8, ("palette converted to RGB",))
    if stored.shape[-1] == 3:
        converted = (f"{kind} converted to RGB",) if kind.startswith("YBR") else ()
        return Frames(stored, bits, converted)
    if stored.shape[-1] != 1 or not kind.startswith("MONOCHROME"):
        raise HyMUNetError(
            f"{path} has {stored.shape[-1]} samples of the kind '{kind}'; expected grey "
            "(MONOCHROME1 or 2), RGB, YBR or a palette: export it as one of them"
        )
    if kind == "MONOCHROME1" and _quantitative(header):
        notes.append("MONOCHROME1 not inverted: the numbers have a unit")
    elif kind == "MONOCHROME1":
        if stored.dtype.kind == "f":
            stored = -stored
        else:
            # the lowest and highest that can be stored add up to -1 (signed) or 2^bits - 1
            ends = -1 if signed else 2**bits - 1
            stored = (ends - stored.astype(np.int64)).astype(stored.dtype)
        notes.append("MONOCHROME1 inverted, so that high is bright")
    values = _rescaled(path, stored, header)
    if values is not stored:
        notes.append("values rescaled as the header says")
        bits = 0
    return Frames(values, bits, tuple(notes))


def stored_frames(path: Source) -> "tuple[np.ndarray, Dataset]":
    """(frames, rows, columns, samples) as stored (colours as RGB), and the fields about them.

    Raises:
        HyMUNetError: As `decode_frames`.
    """
    pydicom = import_pydicom(path)
    try:
        with open_source(path) as file:
            dataset = pydicom.dcmread(file, force=True, specific_tags=_TAGS)
        has_pixels = any(tag in dataset for tag in _PIXELS)
    except Exception as error:  # whatever the broken bytes led the parser into
        raise HyMUNetError(broken(path, error)) from error
    if not has_pixels:
        raise HyMUNetError(
            f"{path} has no pixel data: it is a header alone, or was cut short; copy or export it "
            "again"
        )
    _check_decoder(path, dataset)
    try:
        values = pydicom.pixels.pixel_array(dataset)
        frames = max(1, whole_number(dataset, "NumberOfFrames", 1))
        shape = (frames, int(dataset.Rows), int(dataset.Columns), -1)
        values = values.reshape(shape)
    except MemoryError as error:
        raise HyMUNetError(f"{path} does not fit into memory; crop or shrink it first") from error
    except Exception as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        # Pillow, for one, decodes JPEG of 8 bits but not of 12
        package = _PACKAGES.get(str(syntax), "python-gdcm")
        hint = (
            f"; it is compressed as '{syntax.name}': if other programs open it, "
            f"pip install {package} brings another decoder"
            if syntax.is_compressed
            else ""
        )
        raise HyMUNetError(broken(path, error) + hint) from error
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return values, dataset


def _check_decoder(path: Source, dataset: "Dataset") -> None:
    """Refuses a compression that nothing installed here undoes, naming the package that does."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(text(dataset.file_meta, "TransferSyntaxUID"))
    if not syntax:
        # files without the marker are uncompressed: pydicom has found their byte order already
        implicit, little = dataset.original_encoding
        explicit = "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2" if implicit else explicit)
        return
    try:
        there = get_decoder(syntax).is_available
    except NotImplementedError:
        raise HyMUNetError(
            f"{path} is compressed as '{syntax.name}', which cannot be read; expected pictures, "
            "not films: export it uncompressed"
        ) from None
    if not there:
        package = _PACKAGES.get(str(syntax), "python-gdcm")
        raise HyMUNetError(
            f"{path} is compressed as '{syntax.name}', which needs another package: "
            f"pip install {package}; or export it uncompressed"
        )


def _quantitative(header: "Dataset") -> bool:
    """Whether numbers are measurements whatever way they are shown."""
    hounsfield = text(header, "RescaleType").upper().startswith("HU")
    return hounsfield or text(header, "Modality").upper() in ("CT", "PT")


def _through_palette(path: Source, stored: np.ndarray, header: "Dataset") -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    try:
        colours = apply_color_lut(stored[..., 0], header)[..., :3]
    except Exception as error:  # tables that are missing, short or of odd depth
        raise HyMUNetError(broken(path, error)) from error
    # 16-bit tables hold 8-bit colours, spread over the whole range or not
    wide = colours.dtype != np.uint8 and colours.max(initial=0) > 255
    return (colours >> 8 if wide else colours).astype(np.uint8)


def _rescaled(path: Source, stored: np.ndarray, header: "Dataset") -> np.ndarray:
    """`stored` itself where nothing rescales it, else float32."""
    if header.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        try:
            return apply_modality_lut(stored, header).astype(np.float32)
        except Exception as error:
            raise HyMUNetError(broken(path, error)) from error
    lines = [_line(path, header, frame) for frame in range(len(stored))]
    if all(line == (1.0, 0.0) for line in lines):
        return stored
    values = np.empty(stored.shape, np.float32)
    for index, (slope, intercept) in enumerate(lines):  # frame by frame: float64 in between
        values[index] = stored[index] * slope + intercept
    return values


def _line(path: Source, header: "Dataset", frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame: its own, else all frames', else the file's."""
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    own = header.get("PerFrameFunctionalGroupsSequence")
    groups = [own[frame] if own and frame < len(own) else None, shared]
    places = [first_item(group, "PixelValueTransformationSequence") for group in groups]
    for place in [*places, header]:
        if place is None or ("RescaleSlope" not in place and "RescaleIntercept" not in place):
            continue
        values = []
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
            found = numbers(place, keyword, 1)
            flat = keyword == "RescaleSlope" and found == (0.0,)
            if flat or (found is None and text(place, keyword)):
                raise HyMUNetError(
                    f"{path} has an unusable {keyword} ({place.get(keyword)}); expected one "
                    "number, a slope other than 0: correct it, or export the file again"
                )
            values.append(default if found is None else found[0])
        return values[0], values[1]
    return 1.0, 0.0
