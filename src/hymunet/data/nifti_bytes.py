"""NIfTI from memory: unpacked no further than its own header promises, and that within a limit."""

import zlib
from typing import TYPE_CHECKING, Any

from hymunet.data.decode import broken, check_size
from hymunet.data.masks_io import import_nibabel
from hymunet.data.source import InMemory
from hymunet.errors import HyMUNetError, TooLargeError

if TYPE_CHECKING:
    from nibabel import Nifti1Image

GZIP = b"\x1f\x8b"
_HEADER = 540  # bytes of a NIfTI-2 header, the longer of the two
_MARKS = (  # where each version says what it is: header size, place, mark of "header and voxels"
    (348, 344, b"n+1\0", "Nifti1Image"),
    (540, 4, b"n+2\0\r\n\x1a\n", "Nifti2Image"),
)
_MOST_EXTENSIONS = 2**24  # bytes between the header and the voxels
_SLACK = 2**16  # bytes behind the voxels that are read on, for the check sum at the end


def unpacked_head(content: bytes) -> bytes:
    """The first bytes of NIfTI content, unpacked where it is gzip; b"" where that is broken."""
    if not content.startswith(GZIP):
        return content[:_HEADER]
    try:
        return zlib.decompressobj(wbits=31).decompress(content[: 2**16], _HEADER)
    except zlib.error:
        return b""


def nifti_version(content: bytes) -> str | None:
    """nibabel's class for the content, gzip or not; None: it is no NIfTI file."""
    head = unpacked_head(content)
    for size, place, mark, name in _MARKS:
        size_bytes = (size.to_bytes(4, "little"), size.to_bytes(4, "big"))
        if head[:4] in size_bytes and head[place : place + len(mark)] == mark:
            return name
    return None


def volume_of(source: InMemory, max_pixels: int) -> "Nifti1Image":
    """The volume, its voxels not yet decoded.

    Args:
        source: NIfTI-1 or 2 in one file, gzip or not.
        max_pixels: More voxels than this are refused before they are unpacked.

    Raises:
        HyMUNetError: If it is broken, cut short, longer than its header says, or too large.
    """
    nibabel = import_nibabel(source)
    version = nifti_version(source.content)
    if version is None:
        raise HyMUNetError(
            f"{source} is no NIfTI volume: its header does not say so; expected a .nii or .nii.gz "
            "file that holds header and voxels"
        )
    kind: Any = getattr(nibabel, version)
    head = unpacked_head(source.content)
    # nibabel logs what it finds odd; a header that it cannot mend raises
    header = kind.header_class(head[: kind.header_class.sizeof_hdr])
    shape, start = tuple(map(int, header.get_data_shape())), int(header.get_data_offset())
    check_size(source, shape, max_pixels)
    if not kind.header_class.sizeof_hdr <= start <= _MOST_EXTENSIONS:
        raise HyMUNetError(
            f"{source} says that its voxels begin at byte {start}; expected up to "
            f"{_MOST_EXTENSIONS}: export it again"
        )
    count = 1
    for side in shape:
        count *= side
    needed = start + count * header.get_data_dtype().itemsize
    content = source.content
    if content.startswith(GZIP):
        content = _unpack(source, needed)
    if len(content) < needed:
        raise HyMUNetError(
            f"{source} is cut short: its header promises {needed} bytes, {len(content)} came; copy "
            "or export it again"
        )
    return kind.from_bytes(content[:needed] if len(content) > needed else content)


def _unpack(source: InMemory, needed: int) -> bytes:
    """Up to a little more than `needed` bytes of gzip, its check sum compared where it ends there.

    Raises:
        HyMUNetError: If it is broken.
        TooLargeError: If it goes on and on.
    """
    stream = zlib.decompressobj(wbits=31)
    try:
        content = stream.decompress(source.content, needed + _SLACK)
    except zlib.error as error:
        raise HyMUNetError(broken(source, error)) from error
    if len(content) > needed + _SLACK // 2 or (stream.unconsumed_tail and not stream.eof):
        raise TooLargeError(
            f"{source} unpacks to more than the {needed} bytes that its header promises; export it "
            "again"
        )
    if len(content) < needed and stream.unused_data.startswith(GZIP):
        raise HyMUNetError(
            f"{source} is gzip in several parts, as bgzip writes it; expected one: pack it by gzip"
        )
    return content
