"""Decoding: every picture type against its known pixels, every broken file against its message."""

import gzip
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from hymunet.data.image_io import Image, read_image, stem_of
from hymunet.data.mask_reading import read_mask
from hymunet.data.mask_writing import write_mask
from hymunet.errors import HyMUNetError, NonFiniteError


def texture(shape=(24, 31), channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, channels), dtype=np.uint8)


def blob(shape=(48, 64)):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (((y - 20) ** 2 + (x - 30) ** 2) < 200).astype(np.uint8)


def save(path, array, mode=None, **options):
    picture = Pillow.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


# --- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".PNG"])
def test_lossless_rgb_is_exact(tmp_path, suffix):
    array = texture()
    image = read_image(save(tmp_path / f"a{suffix}", array))
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, array.transpose(2, 0, 1))
    assert image.spacing_mm is None
    assert image.affine is None
    assert image.notes == ()


def test_webp_and_jpeg_agree_with_pillow(tmp_path):
    array = texture()
    for path in (
        save(tmp_path / "a.webp", array, lossless=True),
        save(tmp_path / "a.jpg", array, quality=90),
    ):
        expected = np.asarray(Pillow.open(path).convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(read_image(path).pixels, expected)


def test_the_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "a.jpg"
    save(tmp_path / "a.png", texture()).rename(path)
    np.testing.assert_array_equal(read_image(path).pixels, texture().transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation_is_applied_once(tmp_path, suffix, orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    upright = Pillow.new("L", (31, 24))
    upright.paste(255, (0, 0, 10, 6))  # one corner: eight orientations, eight pictures
    upright.paste(128, (10, 0, 31, 3))
    path = tmp_path / f"a{suffix}"
    upright.convert("RGB").save(path, exif=exif)
    # Pillow turns a TIFF while it loads it: there the drawing is the reference
    source = upright.copy() if suffix == ".tif" else Pillow.open(path)
    source.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(source).convert("L")).astype(int)
    image = read_image(path, in_channels=1)
    assert image.pixels.shape[1:] == expected.shape
    assert np.abs(image.pixels[0].astype(int) - expected).max() <= 1
    assert any("EXIF" in note for note in image.notes) == (orientation > 1)


def test_a_mask_turns_with_its_image(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    array = blob()
    save(tmp_path / "image.png", array * 200, exif=exif)
    save(tmp_path / "mask.png", array * 255, exif=exif)
    image = read_image(tmp_path / "image.png", in_channels=1)
    mask = read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(mask.labels, np.rot90(array, -1))
    np.testing.assert_array_equal(mask.labels, image.pixels[0] // 200)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_values(tmp_path, suffix):
    array = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    image = read_image(save(tmp_path / f"a{suffix}", array), in_channels=None)
    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels[0], array)


def test_big_endian_16_bit_tiff_has_native_values(tmp_path):
    array = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    Pillow.frombytes("I;16B", (4, 3), array.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif", in_channels=None)
    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels[0], array)


def test_16_bit_colour_is_reduced_and_said(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (5, 6, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    image = read_image(tmp_path / "a.png")
    assert image.notes == ("16-bit colour reduced to 8 bits a channel",)
    np.testing.assert_allclose(image.pixels, values.transpose(2, 0, 1) / 257, atol=1)


def test_float_tiff_keeps_its_values(tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    image = read_image(save(tmp_path / "a.tif", array), in_channels=None)
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels[0], array)


def test_palette_becomes_its_colours(tmp_path):
    colours = np.array([[10, 20, 30], [200, 0, 7], [1, 255, 90]], np.uint8)
    index = np.random.default_rng(0).integers(0, 3, (8, 9), dtype=np.uint8)
    picture = Pillow.fromarray(index, "L").convert("P")
    picture.putdata(index.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, colours[index].transpose(2, 0, 1))
    assert image.notes == ("palette converted to RGB",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_black(tmp_path, mode):
    array = texture(channels=len(mode))
    image = read_image(save(tmp_path / "a.png", array), in_channels=None)
    alpha = array[..., -1:].astype(float) / 255
    expected = np.floor(array[..., :-1] * alpha + 0.5).transpose(2, 0, 1)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.notes == ("alpha composited on black",)


def test_opaque_alpha_changes_nothing(tmp_path):
    array = texture(channels=4)
    array[..., 3] = 255
    image = read_image(save(tmp_path / "a.png", array))
    np.testing.assert_array_equal(image.pixels, array[..., :3].transpose(2, 0, 1))
    assert image.notes == ("opaque alpha channel dropped",)


def test_a_transparent_colour_of_an_rgb_png_is_black(tmp_path):
    array = texture()
    array[0, 0] = (1, 2, 3)
    image = read_image(save(tmp_path / "a.png", array, transparency=(1, 2, 3)))
    assert image.pixels[:, 0, 0].tolist() == [0, 0, 0]
    assert image.notes == ("alpha composited on black",)


def test_cmyk_and_1_bit_are_understood_and_said(tmp_path):
    path = save(tmp_path / "a.jpg", texture(), "CMYK", quality=95)
    image = read_image(path)
    expected = np.asarray(Pillow.open(path).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.notes == ("CMYK converted to RGB without a colour profile",)
    bits = read_image(save(tmp_path / "b.png", blob() * 255, "1"), in_channels=None)
    np.testing.assert_array_equal(bits.pixels[0], blob() * 255)
    assert bits.notes == ("1-bit read as 0 and 255",)


def test_channels_wanted(tmp_path):
    grey = save(tmp_path / "grey.png", texture()[..., 0])
    colour = save(tmp_path / "colour.png", texture())
    three = read_image(grey, in_channels=3)
    assert three.pixels.shape == (3, 24, 31)
    assert (three.pixels == texture()[..., 0]).all()
    assert three.notes == ("grey repeated to three channels",)
    one = read_image(colour, in_channels=1)
    expected = np.asarray(Pillow.open(colour).convert("L")).astype(int)
    assert np.abs(one.pixels[0].astype(int) - expected).max() <= 1
    assert one.pixels.dtype == np.uint8
    with pytest.raises(HyMUNetError, match=r"has 3 channels, but 4 were expected.*in_channels=3"):
        read_image(colour, in_channels=4)


def test_several_files_are_stacked_in_the_order_given(tmp_path):
    paths = [save(tmp_path / f"{n}.png", texture(seed=n)[..., 0]) for n in (2, 0, 1)]
    image = read_image(paths, in_channels=None)
    np.testing.assert_array_equal(image.pixels, [texture(seed=n)[..., 0] for n in (2, 0, 1)])
    paths.append(save(tmp_path / "rgb.png", texture(seed=5)))
    assert read_image(paths, in_channels=4).pixels.shape == (4, 24, 31)
    assert read_image(paths, in_channels=None).pixels.shape == (6, 24, 31)
    paths.append(save(tmp_path / "other.png", texture((24, 30))[..., 0]))
    with pytest.raises(HyMUNetError, match=r"differ in size.*\(24, 31\).*\(24, 30\)"):
        read_image(paths, in_channels=None)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp", ".gif"])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_file_cut_short_is_never_half_a_picture(tmp_path, monkeypatch, suffix, fraction):
    whole = save(tmp_path / f"whole{suffix}", texture((64, 64))).read_bytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    for tolerant in (False, True):  # even if other code has told Pillow to fill up the rest
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
        with pytest.raises(HyMUNetError, match=rf"a\{suffix} is broken or cut short.*again"):
            read_image(path)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9])
def test_a_volume_cut_short_is_refused(tmp_path, suffix, fraction):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(HyMUNetError, match="is broken or cut short"):
        read_image(path)


def test_files_that_are_no_pictures_are_named(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    with pytest.raises(HyMUNetError, match=r"empty.png is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(
        HyMUNetError, match=r"page.jpg is no image by its content; expected PNG, JPEG"
    ):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(HyMUNetError, match=r"scan.dcm is broken or cut short"):
        read_image(tmp_path / "scan.dcm")
    with pytest.raises(HyMUNetError, match=r"gone.png does not exist"):
        read_mask(tmp_path / "gone.png")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HyMUNetError, match=r"is a folder; expected an image file"):
        read_image(tmp_path / "folder")
    with pytest.raises(HyMUNetError, match=r"got no file"):
        read_image([])


def gif(path, indices, palette, **options):
    picture = Pillow.fromarray(indices, "P")
    picture.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_gif_is_what_it_shows(tmp_path, interlace):
    colours = texture((6, 1))[:, 0]
    indices = np.random.default_rng(0).integers(0, 6, (9, 7), dtype=np.uint8)
    image = read_image(gif(tmp_path / "a.gif", indices, colours, interlace=interlace))
    np.testing.assert_array_equal(image.pixels, colours[indices].transpose(2, 0, 1))
    greys = np.array([7, 255, 0, 3, 90, 16], np.uint8)
    path = gif(tmp_path / "b.gif", indices, np.repeat(greys[:, None], 3, 1), interlace=interlace)
    grey = read_image(path, in_channels=None)
    np.testing.assert_array_equal(grey.pixels, greys[indices][None])
    assert grey.notes == ()
    assert read_image(path).pixels.shape == (3, 9, 7)


@pytest.mark.parametrize("values", [(0, 255), (255, 0), (0, 1), (1, 0)])
def test_a_gif_mask_is_read_by_its_greys_in_whatever_order_they_stand(tmp_path, values):
    indices = np.eye(5, dtype=np.uint8)
    palette = [[value] * 3 for value in values]
    mask = read_mask(gif(tmp_path / "a.gif", indices, palette))
    np.testing.assert_array_equal(mask.labels, np.array(values)[indices] > 0)


def test_gif_masks_of_several_classes_and_of_colours(tmp_path):
    indices = np.arange(6, dtype=np.uint8).reshape(2, 3)
    values = np.array([2, 0, 1, 3, 0, 1])
    path = gif(tmp_path / "a.gif", indices, np.repeat(values[:, None], 3, 1))
    np.testing.assert_array_equal(read_mask(path, 4).labels, values[indices])
    path = gif(tmp_path / "b.gif", indices, texture((6, 1)))
    with pytest.raises(HyMUNetError, match=r"b.gif is a colour picture; expected class indices"):
        read_mask(path, 6)
    clear = gif(tmp_path / "c.gif", indices, texture((6, 1)), transparency=2)
    with pytest.raises(HyMUNetError, match=r"c.gif has transparent pixels"):
        read_mask(clear, 6)


def test_pages_and_frames_are_refused(tmp_path):
    pages = [Pillow.fromarray(texture(seed=n)) for n in range(3)]
    for name in ("a.tif", "a.webp", "a.png", "a.gif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(HyMUNetError, match=rf"{name} holds several pages or frames"):
            read_image(tmp_path / name)


def test_large_pictures_pass_small_limits_do_not(tmp_path):
    path = tmp_path / "large.png"
    Pillow.new("1", (12_000, 9_000), 1).save(path)
    before = Pillow.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(path, in_channels=None)
    assert image.pixels.shape == (1, 9_000, 12_000)
    assert image.pixels.min() == 255
    assert before == Pillow.MAX_IMAGE_PIXELS
    whole = path.read_bytes()
    path.write_bytes(whole[:200])  # cut short, yet refused for its size: nothing was decoded
    with pytest.raises(HyMUNetError, match=r"\(9000, 12000\), 108000000 pixels, more than.*1000"):
        read_image(path, max_pixels=1000)


def test_values_that_are_not_finite_are_counted(tmp_path):
    array = np.ones((5, 6), np.float32)
    array[0, :3] = np.nan
    array[1, 0] = np.inf
    with pytest.raises(NonFiniteError, match=r"3 NaN and 1 infinite of 30 values"):
        read_image(save(tmp_path / "a.tif", array))
    nibabel.save(nibabel.Nifti1Image(array[..., None], np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(NonFiniteError, match=r"3 NaN and 1 infinite of 30 values"):
        read_image(tmp_path / "a.nii")
    with pytest.raises(HyMUNetError, match=r"4 NaN or infinite of 30 values"):
        read_mask(tmp_path / "a.nii")


# --- volumes ----------------------------------------------------------------------------------

AFFINE = np.array([[0, 0, 2.5, -10], [-0.8, 0, 0, 20], [0, 1.25, 0, 3], [0, 0, 0, 1.0]])


def volume(path, array, affine=AFFINE, unit="mm"):
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def test_volume_axes_are_the_reverse_of_the_files(tmp_path):
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    image = read_image(volume(tmp_path / "a.nii.gz", array), in_channels=1)
    assert image.pixels.shape == (1, 6, 5, 4)
    assert image.pixels[0, 3, 2, 1] == array[1, 2, 3]
    assert image.spacing_mm == pytest.approx((2.5, 1.25, 0.8))
    np.testing.assert_allclose(image.affine, nibabel.load(tmp_path / "a.nii.gz").affine)
    many = read_image(
        volume(tmp_path / "b.nii", np.stack([array, 2 * array], axis=-1)), in_channels=None
    )
    np.testing.assert_array_equal(many.pixels, np.stack([array.T, 2 * array.T]))


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1e-3), ("meter", 1e3)])
def test_spacing_is_in_mm_whatever_the_unit(tmp_path, unit, factor):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 2, 3] = 2
    image = read_image(volume(tmp_path / "a.nii", labels, unit=unit), in_channels=1)
    assert image.spacing_mm == pytest.approx((2.5 * factor, 1.25 * factor, 0.8 * factor))
    assert image.pixels.dtype == np.uint8
    write_mask(tmp_path / "out.nii", labels.T, like=image)
    again = nibabel.load(tmp_path / "out.nii")
    assert again.header.get_xyzt_units()[0] == unit


def test_an_unstated_unit_is_said(tmp_path):
    image = read_image(
        volume(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), unit="unknown"), in_channels=1
    )
    assert "unit of length not stated, taken as mm" in image.notes
    assert image.pixels.dtype == np.float32


def changed(**entries):
    affine = AFFINE.copy()
    for place, value in entries.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (changed(a00=0.0, a10=0.0, a20=0.0), r"axes of length .*0.0.*expected three finite"),
        (changed(a13=np.nan), r"expected three finite lengths above 0"),
        (changed(a01=0.3), r"is sheared: two axes stand at 7\d\.\d degrees"),
    ],
    ids=["zero", "nan", "sheared"],
)
def test_an_affine_without_lengths_or_right_angles_is_refused(tmp_path, affine, words):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), AFFINE)
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    for row in range(3):
        image.header[f"srow_{'xyz'[row]}"] = affine[row]
    path = tmp_path / "a.nii"
    path.write_bytes(image.header.binaryblock + bytes(4) + np.zeros(120, np.float32).tobytes())
    with pytest.raises(HyMUNetError, match=words):
        read_image(path, in_channels=1)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_is_written_on_the_grid_it_came_from(tmp_path, suffix, turned):
    affine = AFFINE.copy()
    if turned:
        cos, sin = np.cos(0.3), np.sin(0.3)
        affine[:3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ affine[:3]
    image = read_image(
        volume(tmp_path / f"a{suffix}", np.zeros((4, 5, 6), np.float32), affine), in_channels=1
    )
    labels = np.random.default_rng(0).integers(0, 3, (6, 5, 4), dtype=np.uint8)
    out = tmp_path / f"out{suffix}"
    write_mask(out, labels, like=image)
    np.testing.assert_array_equal(read_mask(out, num_labels=3).labels, labels)
    np.testing.assert_allclose(nibabel.load(out).affine, affine, atol=1e-6)
    again = read_image(out, in_channels=1)
    assert again.spacing_mm == pytest.approx(image.spacing_mm)
    first = out.read_bytes()
    write_mask(out, labels, like=image)
    assert out.read_bytes() == first
    assert (first[:2] == b"\x1f\x8b") == (suffix == ".nii.gz")
    if suffix == ".nii.gz":
        assert first[4:8] == bytes(4)  # no time stamp


def test_simpleitk_sees_the_same_grid(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image = read_image(volume(tmp_path / "a.nii", np.zeros((4, 5, 6), np.float32)), in_channels=1)
    write_mask(tmp_path / "out.nii.gz", np.ones((6, 5, 4), np.uint8), like=image)
    one = sitk.ReadImage(str(tmp_path / "a.nii"))
    other = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert sitk.GetArrayFromImage(other).shape == image.pixels.shape[1:]
    assert other.GetSpacing() == pytest.approx(one.GetSpacing())
    assert other.GetOrigin() == pytest.approx(one.GetOrigin())
    assert other.GetDirection() == pytest.approx(one.GetDirection())
    assert one.GetSpacing()[::-1] == pytest.approx(image.spacing_mm)


def test_channels_on_different_grids_are_refused(tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    paths = [volume(tmp_path / "a.nii", array), volume(tmp_path / "b.nii", array, moved)]
    with pytest.raises(HyMUNetError, match=r"different grids.*b\.nii"):
        read_image(paths, in_channels=2)


def test_without_nibabel_the_remedy_is_named(tmp_path, monkeypatch):
    path = volume(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(HyMUNetError, match=r'pip install "hymunet\[volumes\]"'):
        read_image(path)


# --- masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 255], ids=["0/1", "0/255"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_binary_masks(tmp_path, scale, suffix):
    mask = read_mask(save(tmp_path / f"a{suffix}", blob() * np.uint8(scale)))
    assert mask.labels.dtype == np.uint8
    np.testing.assert_array_equal(mask.labels, blob())
    assert mask.notes == (() if scale == 1 else ("values 0 and 255 read as 0 and 1",))


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (1, 1), (255, 1)], ids=["empty", "ones", "255s"]
)
def test_masks_of_one_value(tmp_path, value, expected):
    mask = read_mask(save(tmp_path / "a.png", np.full((5, 6), value, np.uint8)))
    assert (mask.labels == expected).all()


def test_other_number_types_of_masks(tmp_path):
    for name, array, mode in (
        ("bit.png", blob() * 255, "1"),
        ("rgb.png", np.repeat(blob()[..., None] * np.uint8(255), 3, axis=2), None),
        ("short.png", blob().astype(np.uint16) * 65535, None),
        ("float.tif", blob().astype(np.float32), None),
    ):
        mask = read_mask(save(tmp_path / name, array, mode))
        np.testing.assert_array_equal(mask.labels, blob(), err_msg=name)
    assert "three equal channels read as one" in read_mask(tmp_path / "rgb.png").notes


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_mask_greyed_by_jpeg_is_cut_at_128(tmp_path, quality):
    path = save(tmp_path / "a.jpg", blob() * np.uint8(255), quality=quality)
    stored = np.asarray(Pillow.open(path))
    assert len(np.unique(stored)) > 2
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.labels, stored >= 128)
    assert any("cut at 128" in note for note in mask.notes)
    # the same greys, later saved without loss
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", stored)).labels, mask.labels)


def test_a_mask_with_soft_edges_is_cut_at_128(tmp_path):
    soft = Pillow.fromarray(blob() * np.uint8(255)).resize((200, 150), Pillow.Resampling.BILINEAR)
    soft.save(tmp_path / "a.png")
    stored = np.asarray(soft)
    assert {127, 128} <= set(stored.ravel().tolist())
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").labels, stored >= 128)


def test_class_indices_and_palettes(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (8, 9), dtype=np.uint8)
    path = save(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_mask(path, num_labels=4).labels, labels)
    with pytest.raises(
        HyMUNetError, match=r"holds 4 values \(0, 1, 2, 3\); expected 0 to 2 for 3 classes"
    ):
        read_mask(path, num_labels=3)
    picture = Pillow.new("P", (9, 8))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    picture.putdata(labels.ravel().tolist())
    picture.save(tmp_path / "p.png")
    mask = read_mask(tmp_path / "p.png", num_labels=4)
    np.testing.assert_array_equal(mask.labels, labels)
    assert mask.notes == ("palette indices taken as class indices",)


def test_masks_that_are_not_understood_are_refused(tmp_path):
    def refuse(array, words, num_labels=2, suffix=".png"):
        path = save(tmp_path / f"a{suffix}", array)
        with pytest.raises(HyMUNetError, match=words):
            read_mask(path, num_labels)

    both = blob().copy()
    both[0, 0] = 255
    refuse(both, r"holds 3 values \(0, 1, 255\); expected 0 and 1, or 0 and 255")
    refuse(blob() * np.uint8(255), r"255 is a value like any other", num_labels=3)
    refuse(blob() * np.uint8(7), r"holds 2 values \(0, 7\)")
    refuse(texture()[..., 0], r"holds \d+ values \(0, 1, 2, .* more\)")
    refuse(texture(), r"is a colour picture")
    refuse(texture(channels=2), r"transparent pixels")
    refuse(blob().astype(np.float32) * 0.5, r"fractions such as 0.5.*threshold", suffix=".tif")
    refuse(texture()[..., 0], r"holds \d+ values", suffix=".jpg")
    refuse(blob(), r"num_labels is 1; expected 2", num_labels=1)
    many = np.arange(48 * 64).reshape(48, 64).astype(np.uint8) % 20
    many[0] = 255
    refuse(many, r"holds 21 values")


def test_volume_masks(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.float64)
    mask = read_mask(volume(tmp_path / "a.nii.gz", labels), num_labels=3)
    np.testing.assert_array_equal(mask.labels, labels.T)
    assert mask.labels.dtype == np.uint8
    with pytest.raises(HyMUNetError, match=r"holds 2 values \(-1, 0\)"):
        read_mask(volume(tmp_path / "b.nii", -(labels > 0).astype(np.int16)))
    with pytest.raises(HyMUNetError, match=r"has 2 channels"):
        read_mask(volume(tmp_path / "c.nii", np.stack([labels, labels], -1)), num_labels=3)


# --- writing ----------------------------------------------------------------------------------


def test_png_masks_come_back(tmp_path):
    path = tmp_path / "a.png"
    write_mask(path, blob().astype(bool))
    assert set(np.unique(np.asarray(Pillow.open(path)))) == {0, 255}
    np.testing.assert_array_equal(read_mask(path).labels, blob())
    labels = np.random.default_rng(0).integers(0, 5, (8, 9))
    write_mask(path, labels)
    np.testing.assert_array_equal(read_mask(path, num_labels=5).labels, labels)
    # of three classes this case shows but one: the file still holds indices
    write_mask(path, blob(), num_labels=3)
    np.testing.assert_array_equal(read_mask(path, num_labels=3).labels, blob())


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    labels = blob()
    like = Image(np.zeros((3, 4, 5), np.uint8))
    for arguments, words in (
        ((tmp_path / "a.jpg", labels), r"must end in \.png"),
        ((tmp_path / "a.png", labels[None]), r"write volumes as .nii.gz"),
        ((tmp_path / "a.png", labels.astype(np.float32)), r"float32; expected bool or integers"),
        ((tmp_path / "a.png", labels.astype(np.int64) - 1), r"run from -1 to 0"),
        ((tmp_path / "a.png", labels[:0]), r"nothing to write"),
        ((tmp_path / "a.png", labels, like), r"shape \(48, 64\), the image.*\(4, 5\)"),
        ((tmp_path / "a.png", labels + 2, None, 3), r"reach 3, but num_labels is 3"),
        ((tmp_path / "gone" / "a.png", labels), r"cannot write"),
    ):
        with pytest.raises(HyMUNetError, match=words):
            write_mask(*arguments)
    assert os.listdir(tmp_path) == []


def test_a_volume_without_a_known_grid_claims_none(tmp_path):
    write_mask(tmp_path / "a.nii.gz", np.ones((2, 3, 4), bool))
    header = nibabel.Nifti1Image.from_bytes(
        gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    ).header
    assert int(header["sform_code"]) == 0
    assert int(header["qform_code"]) == 0
    like = Image(np.zeros((1, 2, 3, 4), np.uint8), spacing_mm=(3.0, 2.0, 0.5))
    write_mask(tmp_path / "b.nii", np.ones((2, 3, 4), bool), like=like)
    assert read_image(tmp_path / "b.nii", 1).spacing_mm == (3.0, 2.0, 0.5)


def test_stems():
    assert [stem_of(Path(name)) for name in ("a.b.png", "x/c.nii.gz", "d.nii", "E.NII.GZ")] == [
        "a.b",
        "c",
        "d",
        "E",
    ]
