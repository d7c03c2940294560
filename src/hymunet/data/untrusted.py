"""Content from strangers: what it is, and what would cost far more than its pixels, seen before
anything is decoded.

The limit on pixels holds what a header promises. These checks are for files in which something
else is large: counts, repeated scans, packed data, a picture in the picture.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from hymunet.data.decode import PICTURE_SIGNATURES, broken, check_size
from hymunet.data.dicom_header import import_pydicom, text, whole_number
from hymunet.data.nifti_bytes import GZIP, nifti_version
from hymunet.data.source import InMemory, open_source
from hymunet.errors import HyMUNetError, TooLargeError

if TYPE_CHECKING:
    from pydicom import Dataset

Kind = Literal["picture", "nifti", "dicom"]

MOST_SCANS = 100  # of a progressive JPEG; encoders write about ten
MOST_TIFF_VALUES = 1_000_000  # of one field, such as the places of strips: a row each at most
MOST_DICOM_ITEMS = 100_000  # of sequences, and of frames; an enhanced CT has some thousands
MOST_RLE_BYTES = 8_000_000  # of one frame, which may unpack to 64 times that
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # the tag of an item, in both byte orders
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
# markers of JPEG and JPEG-LS frame headers: length, precision, height, width follow
_FRAME_HEADER = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]..(.)(..)(..)", re.S)
_J2K_SIZE = re.compile(rb"\xff\x4f\xff\x51....(....)(....)(....)(....)", re.S)


def kind_of(content: bytes) -> Kind | None:
    """What the content is by its first bytes, whatever it is said to be; None: nothing we read."""
    if content.startswith(PICTURE_SIGNATURES):
        return "picture"
    if content[128:132] == b"DICM":
        return "dicom"
    if content.startswith(GZIP) or nifti_version(content) is not None:
        return "nifti"
    return None


def check_untrusted(source: InMemory, kind: Kind, max_pixels: int) -> None:
    """Refuses content whose decoding would take far more than its pixels do.

    Raises:
        HyMUNetError: Saying what is too much.
        TooLargeError: If a picture in the file is larger than `max_pixels`.
    """
    content = source.content
    if kind == "dicom":
        _check_dicom(source, max_pixels)
    elif content.startswith(b"\xff\xd8"):
        scans = content.count(b"\xff\xda")
        if scans > MOST_SCANS:
            raise HyMUNetError(
                f"{source} is a JPEG of {scans} scans, each of which is decoded over the whole "
                f"picture; expected at most {MOST_SCANS}: save it again"
            )
    elif content[:2] in (b"II", b"MM"):
        most = max(_tiff_counts(content), default=0)
        if most > MOST_TIFF_VALUES:
            raise HyMUNetError(
                f"{source} is a TIFF with a field of {most} values; expected at most "
                f"{MOST_TIFF_VALUES}, which is a strip a row: save it again"
            )


def _tiff_counts(content: bytes) -> Iterator[int]:
    """How many numbers each field of a TIFF's first page holds; those of bytes and text, such as
    colour profiles, are left out. Ends where the file does."""
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"

    def number(place: int, size: int) -> int:
        return int.from_bytes(content[place : place + size], order)

    big = number(2, 2) == 43
    # bytes of: an offset, the number of entries, an entry
    offset, header, entry = (8, 8, 20) if big else (4, 2, 12)
    start = number(8 if big else 4, offset)
    entries = min(number(start, header), len(content) // entry)
    for index in range(entries):
        place = start + header + index * entry
        if place >= len(content):
            return
        if number(place + 2, 2) not in (1, 2, 6, 7):
            yield number(place + 4, offset)


def _check_dicom(source: InMemory, max_pixels: int) -> None:
    content = source.content
    if _DEFLATED in content:
        raise HyMUNetError(
            f"{source} is a deflated DICOM file, which may unpack to any size; expected another "
            "transfer syntax: export it uncompressed"
        )
    items = max(content.count(tag) for tag in _ITEM)
    if items > MOST_DICOM_ITEMS:
        raise HyMUNetError(
            f"{source} is a DICOM file with {items} items; expected at most {MOST_DICOM_ITEMS}: "
            "export the series without what does not belong to its pixels"
        )
    pydicom = import_pydicom(source)
    wanted = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelData"]
    try:
        with open_source(source) as file:
            header = pydicom.dcmread(file, force=True, specific_tags=wanted)
    except Exception as error:  # whatever the broken bytes led the parser into
        raise HyMUNetError(broken(source, error)) from error
    sides = [whole_number(header, keyword, 1) for keyword in ("NumberOfFrames", "Rows", "Columns")]
    check_size(source, (whole_number(header, "SamplesPerPixel", 1), *sides), max_pixels)
    if "PixelData" in header:
        _check_frames(source, header, sides[1] * sides[2])


def _check_frames(source: InMemory, header: "Dataset", promised: int) -> None:
    """Compressed frames carry a size of their own, and decoders go by it."""
    from pydicom.encaps import generate_fragments

    syntax = text(header.file_meta, "TransferSyntaxUID")
    if not header["PixelData"].is_undefined_length:
        return  # not compressed: as long as it is
    try:
        for fragment in generate_fragments(header.PixelData):
            if syntax == _RLE and len(fragment) > MOST_RLE_BYTES:
                raise TooLargeError(
                    f"{source} has a run-length coded frame of {len(fragment)} bytes; expected at "
                    f"most {MOST_RLE_BYTES}: export it uncompressed"
                )
            size = _codestream_pixels(fragment)
            if size > 2 * max(promised, 2**16):
                raise TooLargeError(
                    f"{source} has a compressed frame of {size} pixels where its header promises "
                    f"{promised}; export it again"
                )
    except HyMUNetError:
        raise
    except Exception as error:  # broken item lengths
        raise HyMUNetError(broken(source, error)) from error


def _codestream_pixels(fragment: bytes) -> int:
    """Pixels that a JPEG, JPEG-LS or JPEG 2000 code stream says it has, the most where several
    places look like a frame header; 0: it does not start one."""
    if match := _J2K_SIZE.search(fragment[: 2**12]):
        right, bottom, left, top = (int.from_bytes(number, "big") for number in match.groups())
        return max(0, right - left) * max(0, bottom - top)
    if not fragment.startswith(b"\xff\xd8"):
        return 0
    place = 2
    # from marker to marker, as decoders do
    while place + 9 < len(fragment) and fragment[place] == 0xFF:
        if match := _FRAME_HEADER.match(fragment, place):
            height, width = (int.from_bytes(number, "big") for number in match.groups()[1:])
            return height * width
        if fragment[place + 1] in (0xD8, 0x01, 0xFF) or 0xD0 <= fragment[place + 1] <= 0xD7:
            place += 1 if fragment[place + 1] == 0xFF else 2
            continue
        place += 2 + int.from_bytes(fragment[place + 2 : place + 4], "big")
    return 0
