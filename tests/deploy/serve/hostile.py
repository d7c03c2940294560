"""Bodies that a server must refuse in words: broken, cut short, lying, or built to be costly.

Everything is drawn from a seed; no file is read.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from hymunet.data.phantoms import draw_lesion


@dataclass(frozen=True)
class Body:
    """What is sent."""

    name: str
    content: bytes = field(repr=False)
    content_type: str = "application/octet-stream"
    may_pass: bool = False  # a flipped bit may leave an image that can be read


def pictures() -> dict[str, bytes]:
    """One small good file of each kind."""
    pixels = np.moveaxis(draw_lesion(0, (48, 64)).image, 0, -1)
    kinds = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
    found = {}
    for kind in kinds:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        found[f"image/{kind.lower()}"] = buffer.getvalue()
    found["application/gzip"] = gzip.compress(nifti((24, 20), np.uint8, pixels[:20, :24, 0].T))
    found["application/dicom"] = dicom(pixels[..., 0])
    return found


def nifti(shape, dtype, values=None, pixdim=1.0) -> bytes:
    """A NIfTI-1 file; without values a header that promises them."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    dims = [len(shape), *shape, *[1] * (7 - len(shape))]
    struct.pack_into("<8h", header, 40, *[min(side, 32767) for side in dims])
    code = {"uint8": 2, "int16": 4, "float64": 64}[np.dtype(dtype).name]
    struct.pack_into("<hh", header, 70, code, np.dtype(dtype).itemsize * 8)
    struct.pack_into("<8f", header, 76, 1.0, *[pixdim] * 7)
    struct.pack_into("<f", header, 108, 352.0)
    header[123] = 2  # mm
    header[344:348] = b"n+1\0"
    data = b"" if values is None else np.asarray(values, dtype).tobytes(order="F")
    return bytes(header) + data


def element(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """One DICOM element, explicit little endian."""
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sHI", *tag, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", *tag, vr, len(value)) + value


def dicom(grey, syntax=b"1.2.840.10008.1.2.1", more=b"", pixel_data=None, sides=None) -> bytes:
    """A small picture as DICOM; `more` stands before its pixels."""
    rows, columns = sides or grey.shape
    meta = element((2, 0x10), b"UI", syntax)
    meta = element((2, 0), b"UL", struct.pack("<I", len(meta))) + meta
    parts = [
        element((8, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.7"),
        element((8, 0x18), b"UI", b"1.2.3.4"),
        element((0x10, 0x10), b"PN", b"SECRET^PATIENT"),
        element((0x28, 2), b"US", struct.pack("<H", 1)),
        element((0x28, 4), b"CS", b"MONOCHROME2"),
        element((0x28, 0x10), b"US", struct.pack("<H", rows)),
        element((0x28, 0x11), b"US", struct.pack("<H", columns)),
        element((0x28, 0x100), b"US", struct.pack("<H", 8)),
        element((0x28, 0x101), b"US", struct.pack("<H", 8)),
        element((0x28, 0x102), b"US", struct.pack("<H", 7)),
        element((0x28, 0x103), b"US", struct.pack("<H", 0)),
        more,
        element((0x7FE0, 0x10), b"OW", grey.tobytes()) if pixel_data is None else pixel_data,
    ]
    return b"\0" * 128 + b"DICM" + meta + b"".join(parts)


def encapsulated(frame: bytes) -> bytes:
    """Pixel data with an empty offset table and one fragment."""
    frame += b"\0" * (len(frame) % 2)
    head = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame))
    return head + items + frame + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def png_bomb(side: int, whole: bool = True) -> bytes:
    """A grey PNG of side x side zeros, or only its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(b"\0" * (side + 1)) for _ in range(side if whole else 1))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows + packer.flush())
        + chunk(b"IEND", b"")
    )  # fmt: skip


def tiff_counts(count: int) -> bytes:
    """A TIFF whose strips are many, at one place."""
    fields = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
              (273, 4, count, 8), (278, 3, 1, 1), (279, 4, count, 8)]  # fmt: skip
    data = b"\x08\0\0\0" * count
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    entries = b"".join(struct.pack("<HHII", *one) for one in fields)
    return head + struct.pack("<H", len(fields)) + entries + b"\0\0\0\0"


def jpeg_scans(count: int, side: int = 4000) -> bytes:
    """A progressive JPEG that repeats an empty scan."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + b"\xff\xd9"


def gif_frames(count: int) -> bytes:
    """A GIF of many small frames."""
    head = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\0"
    return head + frame * count + b";"


def bombs() -> Iterator[Body]:
    """Small or middling files that would be large, or slow, if anybody believed them."""
    yield Body("a PNG of 100 megapixels", png_bomb(10_000))
    yield Body("a PNG header of 3600 megapixels", png_bomb(60_000, whole=False))
    yield Body("a gzip bomb", gzip.compress(b"\0" * 200_000_000, 9))
    small = nifti((16, 16), np.uint8)
    yield Body("a NIfTI bomb behind a small header", gzip.compress(small + b"\0" * 200_000_000, 9))
    yield Body(
        "a NIfTI header of 10^13 voxels", gzip.compress(nifti((32000, 32000, 9999), np.int16))
    )
    yield Body("a NIfTI without its voxels", nifti((300, 300, 300), np.float64))
    yield Body("a TIFF of 2 million strips", tiff_counts(2_000_000))
    yield Body("a JPEG of 2000 scans", jpeg_scans(2000))
    yield Body("a GIF of 100000 frames", gif_frames(100_000))
    grey = np.zeros((16, 16), np.uint8)
    packer = zlib.compressobj(9, wbits=-15)
    deflated = packer.compress(b"\0" * 200_000_000) + packer.flush()
    yield Body("a deflated DICOM bomb", dicom(grey, b"1.2.840.10008.1.2.1.99", deflated, b""))
    empty = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
    items = element((0x5200, 0x9230), b"SQ", empty)
    yield Body("a DICOM file of a million items", dicom(grey, more=items))
    yield Body("a DICOM header of 4 gigapixels", dicom(grey, sides=(65535, 65535)))
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000)).save(buffer, "JPEG")
    jpeg = encapsulated(buffer.getvalue())
    yield Body("a large JPEG in a small DICOM", dicom(grey, b"1.2.840.10008.1.2.4.50", b"", jpeg))
    runs = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 4_500_000
    yield Body(
        "DICOM runs without end", dicom(grey, b"1.2.840.10008.1.2.5", b"", encapsulated(runs))
    )


def form(content: bytes, name: str = "image", filename: str = "a.png") -> tuple[bytes, str]:
    """A form of one field, and its type."""
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + content + b"\r\n--B--\r\n", "multipart/form-data; boundary=B"


def small_bodies(count: int, seed: int = 0) -> Iterator[Body]:
    """Random, cut, spoilt and mislabelled bodies, `count` in all."""
    rng = np.random.default_rng(seed)
    good = list(pictures().items())
    for index in range(count):
        kind, content = good[int(rng.integers(len(good)))]
        match index % 8:
            case 0:
                yield Body("random bytes", rng.bytes(int(rng.integers(0, 5000))), kind)
            case 1:
                cut = int(rng.integers(0, len(content) - 1))
                yield Body(f"{kind} cut at {cut}", content[:cut], kind, kind == "image/gif")
            case 2:
                start = content[: int(rng.integers(2, 64))]
                noisy = start + rng.bytes(2000)
                yield Body(f"{kind}, then noise", noisy, kind, kind == "image/webp")
            case 3:
                spoilt = bytearray(content)
                for place in rng.integers(0, len(content), 20):
                    spoilt[place] ^= int(rng.integers(1, 256))
                yield Body(f"{kind} spoilt", bytes(spoilt), kind, may_pass=True)
            case 4:
                name = ("text/html", "application/json", "image/svg+xml", "a/b/c", "", "\xff")[
                    int(rng.integers(6))
                ]
                yield Body(f"{kind} as {name!r}", content, name, may_pass=not name)
            case 5:
                path = ("../../etc/passwd", "C:\\a.png", "/dev/null", "a\0b", "x" * 5000)[
                    int(rng.integers(5))
                ]
                body, type_ = form(rng.bytes(300), filename=path)
                yield Body(f"a form with the name {path[:20]!r}", body, type_)
            case 6:
                body, type_ = form(content, name=("file", "Image", "")[int(rng.integers(3))])
                cut = len(body) - int(rng.integers(0, 2)) * 20
                yield Body("a form without the field", body[:cut], type_)
            case _:
                body, type_ = form(content)
                parts = int(rng.integers(2, 12))
                yield Body(f"a form of {parts} images", body[:-7] * parts + body[-7:], type_)
