"""Series and files against SimpleITK's GDCM reader and highdicom; every refusal in words."""

import logging
import sys

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from hymunet.data import dicom_header
from hymunet.data.image_io import read_image, stem_of
from hymunet.data.mask_writing import write_mask
from hymunet.errors import HyMUNetError
from tests.data.dicom_files import (
    NAME,
    OBLIQUE,
    ORIENTATIONS,
    dataset,
    enhanced,
    photo,
    save,
    slices,
    volume,
    write_series,
)


def itk_series(folder):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def ras_affine(image):
    """SimpleITK's origin, spacing and direction (LPS) as nibabel writes it."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_a_series_agrees_with_simpleitk_and_highdicom(tmp_path, orientation):
    array = volume()
    made = slices(array, orientation, RescaleSlope="2", RescaleIntercept="-1000.5")
    image = read_image(write_series(tmp_path / "ct", made), in_channels=None)
    other = itk_series(tmp_path / "ct")
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels[0], SimpleITK.GetArrayFromImage(other))
    np.testing.assert_array_equal(image.pixels[0], array * 2.0 - 1000.5)
    np.testing.assert_allclose(image.spacing_mm, other.GetSpacing()[::-1], rtol=1e-6)
    np.testing.assert_allclose(image.spacing_mm, (2.5, 0.7, 0.9), rtol=1e-6)
    np.testing.assert_allclose(image.affine, ras_affine(other), atol=1e-5)

    # highdicom's axes are (slice, row, column), slices against the normal: right-handed like this
    third = highdicom.image.get_volume_from_series(made)[::-1]
    turned = third.get_affine("RAS")[:, [2, 1, 0, 3]]
    np.testing.assert_allclose(image.affine, turned, atol=1e-5)
    np.testing.assert_allclose(image.pixels[0], third.array)


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_dicom_and_its_nifti_are_one_image(tmp_path, orientation):
    write_series(tmp_path / "mr", slices(volume(), orientation))
    SimpleITK.WriteImage(itk_series(tmp_path / "mr"), str(tmp_path / "mr.nii.gz"))
    one, other = (read_image(tmp_path / name, None) for name in ("mr", "mr.nii.gz"))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-4)
    np.testing.assert_allclose(one.spacing_mm, other.spacing_mm, rtol=1e-5)


def test_a_mask_written_for_a_series_lies_where_it_lies(tmp_path):
    image = read_image(write_series(tmp_path / "ct", slices(volume(), OBLIQUE)), None)
    write_mask(tmp_path / "mask.nii.gz", (image.pixels[0] > 2000), image)
    np.testing.assert_allclose(nibabel.load(tmp_path / "mask.nii.gz").affine, image.affine, 1e-5)


@pytest.mark.parametrize("name", ["{}", "1.2.840.{}", "IM{}.dcm", "slice.{}", "I{}.IMA"])
def test_files_of_any_usual_name(tmp_path, name):
    array = volume()
    folder = write_series(tmp_path / "ct", slices(array), name=name)
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "readme").write_text("no DICOM either")
    np.testing.assert_array_equal(read_image(folder, None).pixels[0], array)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "expected"),
    [(np.uint16, 0, 65536, np.uint16), (np.int16, -900, 900, np.float32)],
)
def test_numbers_that_nothing_rescales_stay(tmp_path, dtype, low, high, expected):
    array = volume(low=low, high=high, dtype=dtype)
    image = read_image(write_series(tmp_path / "mr", slices(array)), None)
    assert image.pixels.dtype == expected
    np.testing.assert_array_equal(image.pixels[0], array)


def test_a_slope_of_each_slice(tmp_path):
    array = volume()
    made = slices(array, RescaleIntercept="0")
    for index, ds in enumerate(made):
        ds.RescaleSlope = str(index + 1)  # the first is the identity, the others are not
    image = read_image(write_series(tmp_path / "pet", made), None)
    np.testing.assert_array_equal(image.pixels[0], array * np.arange(1.0, 6.0)[:, None, None])
    np.testing.assert_array_equal(
        image.pixels[0], SimpleITK.GetArrayFromImage(itk_series(tmp_path / "pet"))
    )


@pytest.mark.parametrize("slopes", [None, [2, 3, 4, 5, 6]], ids=["plain", "a slope a frame"])
def test_an_enhanced_file_is_the_same_volume(tmp_path, slopes):
    array = volume()
    path = save(enhanced(array, OBLIQUE, slopes=slopes), tmp_path / "mr" / "one.dcm")
    single = read_image(write_series(tmp_path / "single", slices(array, OBLIQUE)), None)
    for given in (path, path.parent):
        image = read_image(given, None)
        wanted = array if slopes is None else array * np.reshape(slopes, (-1, 1, 1)) + 1.0
        np.testing.assert_array_equal(image.pixels[0], wanted)
        np.testing.assert_allclose(image.affine, single.affine, atol=1e-6)
        np.testing.assert_allclose(image.spacing_mm, single.spacing_mm)


def test_a_volume_in_colour(tmp_path):
    array = volume((3, 5, 6, 3), high=256, dtype=np.uint8)
    image = read_image(write_series(tmp_path / "us", slices(array)), 3)
    np.testing.assert_array_equal(image.pixels, np.moveaxis(array, -1, 0))


def test_two_series_of_one_grid_are_two_channels(tmp_path):
    folders = [
        write_series(tmp_path / name, slices(volume(seed=seed)))
        for seed, name in enumerate(("t1", "t2"))
    ]
    assert read_image(folders, 2).pixels.shape == (2, 5, 7, 9)
    write_series(tmp_path / "far", slices(volume(), origin=(0.0, 0.0, 0.0)))
    with pytest.raises(HyMUNetError, match=r"lie on different grids"):
        read_image([folders[0], tmp_path / "far"], 2)


# --- pictures ---------------------------------------------------------------------------------


def test_a_single_slice_is_a_picture(tmp_path):
    array = volume((1, 6, 8), high=65536)
    path = write_series(tmp_path / "cr", slices(array, Modality="CR"))
    for given in (path, next(path.iterdir())):
        image = read_image(given, None)
        np.testing.assert_array_equal(image.pixels, array)
        assert image.spacing_mm == (0.7, 0.9)
        assert image.affine is None


def test_a_photo_is_as_it_was_taken(tmp_path):
    array = volume((6, 8, 3), high=256, dtype=np.uint8)
    path = save(photo(array), tmp_path / "photo.dcm")
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, np.moveaxis(array, -1, 0))
    assert image.spacing_mm is None
    assert stem_of(path) == "photo"
    with pytest.raises(HyMUNetError, match=r"has size \(3, 1, 6, 8\).*limit of 100"):
        read_image(path, max_pixels=100)


def test_planes_and_ybr_become_rgb(tmp_path):
    array = volume((6, 8, 3), high=256, dtype=np.uint8)
    planar = photo(array, PlanarConfiguration=1)
    planar.PixelData = np.moveaxis(array, -1, 0).tobytes()
    expected = np.moveaxis(array, -1, 0)
    np.testing.assert_array_equal(
        read_image(save(planar, tmp_path / "planar.dcm")).pixels, expected
    )
    ybr = np.asarray(pydicom.pixels.convert_color_space(array, "RGB", "YBR_FULL"))
    path = save(photo(ybr, PhotometricInterpretation="YBR_FULL"), tmp_path / "ybr.dcm")
    image = read_image(path)
    assert np.abs(image.pixels.astype(int) - expected).max() <= 2  # rounded on the way
    assert image.notes == ("YBR_FULL converted to RGB",)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_becomes_rgb(tmp_path, bits):
    array = volume((6, 8), high=4, dtype=np.uint8)
    table = volume((3, 4), seed=3, high=256, dtype=np.uint8)
    ds = photo(array, PhotometricInterpretation="PALETTE COLOR")
    for name, row in zip(("Red", "Green", "Blue"), table, strict=True):
        stored = row if bits == 8 else row.astype("<u2") << 8
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [4, 0, bits])
        setattr(ds, f"{name}PaletteColorLookupTableData", stored.tobytes())
    image = read_image(save(ds, tmp_path / "a.dcm"))
    np.testing.assert_array_equal(image.pixels, table[:, array])


@pytest.mark.parametrize(("dtype", "low"), [(np.uint16, 0), (np.int16, -2048), (np.uint8, 0)])
def test_monochrome1_is_inverted_within_what_can_be_stored(tmp_path, dtype, low):
    bits = 8 if dtype == np.uint8 else 12
    array = volume((6, 8), low=low, high=low + 2**bits, dtype=dtype)
    fields = {"BitsStored": bits, "HighBit": bits - 1}
    paths = [
        save(photo(array, PhotometricInterpretation=kind, **fields), tmp_path / f"{kind}.dcm")
        for kind in ("MONOCHROME1", "MONOCHROME2")
    ]
    one, two = (read_image(path, 1).pixels.astype(float) for path in paths)
    assert len(np.unique(one + two)) == 1
    assert np.corrcoef(two.ravel(), array.ravel())[0, 1] > 0.999


def test_monochrome1_is_inverted_and_rescaled_as_itk_does(tmp_path):
    fields = {"PhotometricInterpretation": "MONOCHROME1", "Modality": "CR", "RescaleType": "OD"}
    fields |= {"RescaleSlope": "0.5", "RescaleIntercept": "200", "BitsStored": 12, "HighBit": 11}
    path = save(photo(volume((6, 8)), **fields), tmp_path / "cr.dcm")
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    np.testing.assert_allclose(read_image(path, 1).pixels, other)


def test_hounsfield_units_are_not_inverted(tmp_path):
    fields = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "1"}
    array = volume()
    made = slices(array, RescaleIntercept="-1024", **fields)
    image = read_image(write_series(tmp_path / "ct", made), None)
    np.testing.assert_array_equal(image.pixels[0], array - 1024.0)
    assert any("not inverted" in note for note in image.notes)


def test_big_endian_numbers_are_the_same(tmp_path):
    array = volume((6, 8), high=65536)
    ds = photo(array.astype(">u2"))
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "a.dcm"
    ds.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    pixels = read_image(path, 1).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels[0], array)


@pytest.mark.parametrize("bits", [1, 6, 10, 12, 16])
def test_grey_pictures_reach_the_full_scale_of_their_type(tmp_path, bits):
    dtype = np.uint8 if bits <= 8 else np.uint16
    array = np.arange(64 if bits > 5 else 2, dtype=dtype).repeat(2).reshape(-1, 2)
    array[-1] = 2**bits - 1
    ds = photo(array, BitsStored=bits, HighBit=bits - 1)
    pixels = read_image(save(ds, tmp_path / "a.dcm"), 1).pixels[0]
    assert pixels.max() == np.iinfo(dtype).max
    assert len(np.unique(pixels)) == len(np.unique(array))
    np.testing.assert_allclose(pixels / np.iinfo(dtype).max, array / (2**bits - 1), atol=1e-2)


def test_a_volume_keeps_its_twelve_bits(tmp_path):
    array = volume(high=4096)
    made = slices(array, BitsStored=12, HighBit=11)
    assert read_image(write_series(tmp_path / "mr", made), None).pixels.max() == array.max()


def test_a_detectors_pixel_size_is_not_the_patients(tmp_path):
    ds = photo(volume((6, 8)), ImagerPixelSpacing=["0.1", "0.1"])
    image = read_image(save(ds, tmp_path / "dx.dcm"), 1)
    assert image.spacing_mm is None
    assert any("detector only" in note for note in image.notes)


def test_without_pydicom_the_remedy_is_named(tmp_path, monkeypatch):
    path = save(photo(volume((6, 8))), tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    refuse(path, r'is DICOM, which needs pydicom: install it with pip install "hymunet\[volumes\]"')


# --- compression ------------------------------------------------------------------------------


def test_compressed_slices_decode(tmp_path):
    array = volume()
    made = slices(array)
    for ds in made:
        ds.compress(RLELossless)
    image = read_image(write_series(tmp_path / "ct", made), None)
    np.testing.assert_array_equal(image.pixels[0], array)


def test_a_missing_decoder_is_named(tmp_path):
    ds = photo(volume((6, 8)))
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    path = save(ds, tmp_path / "a.dcm")
    if pydicom.pixels.get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a decoder of lossless JPEG is installed here")
    with pytest.raises(HyMUNetError, match=r"JPEG Lossless.*pip install python-gdcm"):
        read_image(path, 1)
    ds.file_meta.TransferSyntaxUID = MPEG2MPML
    with pytest.raises(HyMUNetError, match=r"MPEG2.*export it uncompressed"):
        read_image(save(ds, path), 1)


def test_broken_compressed_pixels_are_broken(tmp_path):
    ds = photo(volume((6, 8)))
    ds.PixelData = pydicom.encaps.encapsulate([b"no codestream at all"])
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    with pytest.raises(HyMUNetError, match=r"a.dcm is broken or cut short.*JPEG 2000.*pip inst"):
        read_image(save(ds, tmp_path / "a.dcm"), 1)


# --- what is wrong with a series --------------------------------------------------------------


def refuse(path, words):
    with pytest.raises(HyMUNetError, match=words) as caught:
        read_image(path, None)
    assert "CANARY" not in str(caught.value)


def test_a_missing_slice_is_located(tmp_path):
    made = slices(volume())
    folder = write_series(tmp_path / "ct", [*made[:2], *made[3:]], name="S{}.dcm")
    refuse(folder, r"mostly 2\.50 mm, but 5\.00 mm between S\d.dcm and S\d.dcm, at 42\.50 mm;"
           r" slices that are missing: about 1")  # fmt: skip


def test_uneven_distances_are_refused(tmp_path):
    made = slices(volume((9, 4, 4)))
    for index, ds in enumerate(made):
        ds.ImagePositionPatient[2] = 40 + 2 * index + 0.03 * index**2
    refuse(write_series(tmp_path / "ct", made), r"distance.* slices .*(uneven|changes)")


def test_rounded_positions_are_accepted_and_said(tmp_path):
    made = slices(volume(), step=1.25)
    for index, ds in enumerate(made):
        ds.ImagePositionPatient = ["0", "0", f"{1.25 * index - 0.001:.1f}"]
    image = read_image(write_series(tmp_path / "ct", made), None)
    np.testing.assert_allclose(image.spacing_mm[0], 1.25)
    assert "slices up to 4% of their distance off an even grid" in image.notes


def test_a_position_that_occurs_twice(tmp_path):
    made = slices(volume())
    twice = slices(volume(seed=1), SeriesInstanceUID=made[0].SeriesInstanceUID)
    write_series(tmp_path / "b", [*made, twice[0]], name="S{}.dcm")
    refuse(tmp_path / "b", r"1 of 6 slices have the position of another one \(such as S\d.dcm and ")


def test_slices_of_several_kinds(tmp_path):
    uid = generate_uid()
    made = slices(volume(), SeriesInstanceUID=uid)
    for number, (odd, words) in enumerate(
        (
            (slices(volume((1, 8, 9)), SeriesInstanceUID=uid), r"2 sizes \(5 of \[7, 9\]"),
            (slices(volume((1, 7, 9)), OBLIQUE, SeriesInstanceUID=uid), r"2 orientations"),
            (
                slices(volume((1, 7, 9)), spacing=(0.7, 0.8), SeriesInstanceUID=uid),
                r"2 pixel sizes.*localiser",
            ),
        )
    ):
        refuse(write_series(tmp_path / str(number), [*made, *odd]), words)
    colour = slices(volume((1, 7, 9, 3), high=256, dtype=np.uint8), SeriesInstanceUID=uid,
                    origin=(-20, 11, 37.5))  # fmt: skip
    refuse(write_series(tmp_path / "colour", [*made, *colour]), r"some slices .* are in colour")


def test_a_tilted_gantry_is_refused(tmp_path):
    made = slices(volume())
    for index, ds in enumerate(made):
        ds.ImagePositionPatient[1] = 11 + index * 0.5
    refuse(write_series(tmp_path / "ct", made), r"shifted sideways.* gantry of 11\.3 degrees")


def test_pictures_without_places_are_not_stacked(tmp_path):
    uid = generate_uid()
    made = [photo(volume((6, 8), seed=i), SeriesInstanceUID=uid) for i in range(3)]
    refuse(write_series(tmp_path / "cr", made), r"3 of 3 slices have no usable position")


def test_several_series_are_listed_and_chosen_by_uid(tmp_path):
    arrays = [volume(seed=seed) for seed in (1, 2)]
    made = [slices(array, SeriesDescription=f"phase {i}") for i, array in enumerate(arrays)]
    folder = write_series(tmp_path / "ct", made[0] + made[1])
    refuse(folder, r"holds 2 series:\n  CT 'phase [01]', 5 files, [\d.]+\n  CT 'phase [01]'.*\nname"
           r" one by its UID, as in .*/[\d.]+, or")  # fmt: skip
    for series, array in zip(made, arrays, strict=True):
        path = folder / series[0].SeriesInstanceUID
        np.testing.assert_array_equal(read_image(path, None).pixels[0], array)
        assert stem_of(path) == path.name
    refuse(folder / "1.2.3", r"has no series 1\.2\.3; it holds:\n  CT 'phase")


def test_a_folder_without_images(tmp_path):
    folder = tmp_path / "sr"
    report = dataset(volume((2, 2)), "1.2.840.10008.5.1.4.1.1.88.11", Rows=None, PixelData=None)
    save(report, folder / "a.dcm")
    refuse(folder, r"holds 1 DICOM files but no image")
    refuse(folder / "a.dcm", r"a.dcm is no image .*a report, a plan")
    (folder / "a.dcm").unlink()
    refuse(folder, r"is a folder; expected an image file, or a folder with DICOM")


def test_a_header_without_pixels(tmp_path):
    path = save(dataset(volume((4, 4)), PixelData=None), tmp_path / "a.dcm")
    refuse(path, r"a.dcm has no pixel data")


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole = save(slices(volume((1, 32, 32)))[0], tmp_path / "a.dcm").read_bytes()
    for length in [*range(1, len(whole) - 2050, 97), len(whole) - 2000, len(whole) - 1]:
        (tmp_path / "b.dcm").write_bytes(whole[:length])
        refuse(tmp_path / "b.dcm", r"b.dcm (is broken|is no|has no pixel data)")


def test_a_slice_cut_short_does_not_make_a_shorter_volume(tmp_path):
    folder = write_series(tmp_path / "ct", slices(volume()), seed=0, name="S{}.dcm")
    for path in sorted(folder.iterdir()):  # the first and the last too, where no gap would tell
        whole = path.read_bytes()
        for length in (200, 420, len(whole) // 2, len(whole) - 10):
            path.write_bytes(whole[:length])
            refuse(folder, rf"{path.name} (is broken|has no pixel data|is no)")
        path.write_bytes(whole)
    read_image(folder, None)


@pytest.mark.filterwarnings("ignore:Expected implicit VR")
def test_files_without_the_marker_are_read_by_their_name(tmp_path):
    array = volume((1, 6, 8), high=65536)
    path = save(slices(array)[0], tmp_path / "a.dcm")
    raw = path.read_bytes()
    path.write_bytes(raw[raw.index(b"\x08\x00\x16\x00UI") :])  # SOPClassUID, the first field
    np.testing.assert_array_equal(read_image(path, None).pixels, array)
    path.write_bytes(b"no DICOM at all, but called so " * 9)
    refuse(path, r"a.dcm is (no DICOM file|broken)")


@pytest.mark.parametrize(
    "fields",
    [
        {"WindowCenter": ["40", "400"], "WindowWidth": ["80", "2000"]},
        {"ImageType": ["DERIVED", "SECONDARY", "", "AXIAL"]},
        {"SeriesDescription": ""},
        {"RescaleIntercept": "0", "RescaleSlope": ""},
        {"PatientID": ""},
        {"OtherPatientNames": "B^C\\D^E"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_odd_fields_do_no_harm(tmp_path, fields):
    array = volume()
    image = read_image(write_series(tmp_path / "ct", slices(array, **fields)), None)
    np.testing.assert_array_equal(image.pixels[0], array)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"RescaleSlope": ["1", "2"], "RescaleIntercept": "0"}, r"unusable RescaleSlope"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, r"unusable RescaleSlope.*other than 0"),
        ({"PixelSpacing": "0.7"}, r"no usable position, orientation or pixel spacing"),
        ({"PixelSpacing": ["0", "0"]}, r"no usable position"),
        ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, r"no usable position"),
    ],
)
def test_odd_fields_that_matter_are_named(tmp_path, fields, words):
    refuse(write_series(tmp_path / "ct", slices(volume(), **fields)), words)


def test_values_that_are_no_numbers(tmp_path):
    folder = write_series(tmp_path / "ct", slices(volume()), name="S{}.dcm")
    for path in folder.iterdir():
        raw = path.read_bytes()
        at = raw.index(b"\x20\x00\x32\x00DS") + 8
        path.write_bytes(raw[:at] + b"x" * 4 + raw[at + 4 :])
    refuse(folder, r"5 of 5 slices have no usable position")


def test_a_dicom_file_called_a_picture_is_told_its_name(tmp_path):
    path = save(photo(volume((6, 8))), tmp_path / "a.png")
    refuse(path, r"a.png is a DICOM file by its content; call it a.dcm")


def test_a_film_is_refused(tmp_path):
    cine = photo(volume((4, 6, 8), high=256, dtype=np.uint8))
    refuse(save(cine, tmp_path / "us.dcm"), r"holds 4 frames without positions, a film")


def test_nothing_of_the_patient_is_told(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    folder = write_series(tmp_path / "ct", slices(volume(), PatientComments=NAME))
    image = read_image(folder, None)
    header = dicom_header.read_header(next(folder.iterdir()))
    told = [*image.notes, caplog.text, *capfd.readouterr(), str(header)]
    # the birth date whole: random UIDs hold any four digits now and then
    assert not any("CANARY" in one or "19010203" in one for one in told)
