"""What comes from memory is read as from a file; what would cost more than its pixels is refused
before it does."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from hymunet.data.image_io import read_image
from hymunet.data.source import InMemory
from hymunet.data.untrusted import check_untrusted, kind_of
from hymunet.errors import HyMUNetError, TooLargeError
from tests.deploy.serve.hostile import (
    dicom,
    element,
    encapsulated,
    jpeg_scans,
    nifti,
    pictures,
    tiff_counts,
)

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def checked(content, max_pixels=10**6):
    check_untrusted(InMemory("it", content), kind_of(content), max_pixels)


@pytest.mark.parametrize("kind", sorted(pictures()))
def test_memory_is_read_as_a_file_is(kind, tmp_path):
    content = pictures()[kind]
    if kind_of(content) != "picture":
        pytest.importorskip("nibabel")
        pytest.importorskip("pydicom")
    suffix = {"application/gzip": "nii.gz", "application/dicom": "dcm"}.get(kind, "png")
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(content)
    checked(content)
    one, other = read_image(InMemory("it", content), None), read_image(path, None)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert (one.spacing_mm, one.notes) == (other.spacing_mm, other.notes)
    np.testing.assert_array_equal(one.affine, other.affine)


@pytest.mark.parametrize("packed", [False, True])
def test_a_volume_needs_no_name(packed):
    pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(0, 99, (5, 4, 3)).astype(np.int16)
    content = nifti(values.shape, np.int16, values, pixdim=3.0)
    image = read_image(InMemory("it", gzip.compress(content) if packed else content), None)
    np.testing.assert_array_equal(image.pixels[0], values.T)
    assert image.spacing_mm == (3.0, 3.0, 3.0)


def test_kinds_are_told_by_content():
    kinds = {kind: kind_of(content) for kind, content in pictures().items()}
    assert kinds.pop("application/gzip") == "nifti"
    assert kinds.pop("application/dicom") == "dicom"
    assert set(kinds.values()) == {"picture"}
    assert kind_of(nifti((2, 2), np.uint8)) == "nifti"
    assert kind_of(b"") is None
    assert kind_of(b"<html>") is None


def test_gzip_is_unpacked_as_far_as_its_header_promises():
    pytest.importorskip("nibabel")
    content = gzip.compress(nifti((4, 4), np.uint8) + bytes(10**6))
    with pytest.raises(TooLargeError, match="more than the 368 bytes that its header promises"):
        read_image(InMemory("it", content))


def test_a_spoilt_check_sum_is_seen():
    pytest.importorskip("nibabel")
    content = bytearray(gzip.compress(nifti((64, 64), np.uint8, np.tile(GREY, (4, 4)))))
    content[-8] ^= 1
    with pytest.raises(HyMUNetError, match="broken or cut short"):
        read_image(InMemory("it", bytes(content)))


def test_voxels_are_counted_before_they_are_unpacked():
    pytest.importorskip("nibabel")
    with pytest.raises(TooLargeError, match="more than the limit of 1000000"):
        read_image(InMemory("it", gzip.compress(nifti((200, 200, 200), np.uint8))), 1, 10**6)


def test_scans_of_a_jpeg_are_counted():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    checked(buffer.getvalue())
    with pytest.raises(HyMUNetError, match=r"a JPEG of 3\d\d scans"):
        checked(jpeg_scans(300, 64))


def test_values_of_a_tiff_field_are_counted():
    checked(tiff_counts(1000))
    with pytest.raises(HyMUNetError, match="a field of 1000001 values; expected at most 1000000"):
        checked(tiff_counts(1_000_001))


def test_dicom_items_and_deflation_are_refused():
    pytest.importorskip("pydicom")
    checked(dicom(GREY))
    items = element((0x5200, 0x9230), b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 200_000)
    with pytest.raises(HyMUNetError, match="with 200000 items; expected at most 100000"):
        checked(dicom(GREY, more=items))
    with pytest.raises(HyMUNetError, match="deflated"):
        checked(dicom(GREY, b"1.2.840.10008.1.2.1.99"))


def test_a_frame_may_not_be_larger_than_its_header_says():
    pytest.importorskip("pydicom")
    frames = {}
    for side in (16, 2000):
        buffer = io.BytesIO()
        Image.new("L", (side, side), 77).save(buffer, "JPEG")
        pixels = encapsulated(buffer.getvalue())
        frames[side] = dicom(GREY, b"1.2.840.10008.1.2.4.50", pixel_data=pixels)
    checked(frames[16])
    assert read_image(InMemory("it", frames[16]), 1).pixels.mean() == pytest.approx(77, abs=1)
    with pytest.raises(TooLargeError, match="a compressed frame of 4000000 pixels where"):
        checked(frames[2000])
