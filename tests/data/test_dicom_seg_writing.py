"""Our segmentations as highdicom, SimpleITK, dciodvfy and our own reader see them."""

import logging
import warnings

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="NOT TESTED: DICOM output needs the extra `dicom`")

import highdicom
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
    VLPhotographicImageStorage,
    XRayAngiographicImageStorage,
)

from hymunet import __version__
from hymunet.data.dicom_capture import make_captures, patient_orientation
from hymunet.data.dicom_codes import UNKNOWN, Code, Term, term_of
from hymunet.data.dicom_seg_writing import Algorithm, Segment, make_segmentation, write_dicom
from hymunet.data.dicom_source import read_source
from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask
from hymunet.errors import HyMUNetError
from tests.data.dicom_checks import complaints, geometry_by_itk, needs_dciodvfy
from tests.data.dicom_files import (
    AXIAL,
    NAME,
    ORIENTATIONS,
    enhanced,
    photo,
    save,
    slices,
    volume,
    write_series,
)

pytestmark = pytest.mark.dicom

SHAPE = (6, 8, 9)  # GDCM reads rubbish in the last bits where a frame is no whole number of bytes
TILTED = (1.0, 0.0, 0.0, 0.0, np.cos(0.35), np.sin(0.35))  # planes tilted as a gantry tilts them
LAYOUTS = {
    **{name: {"orientation": cosines} for name, cosines in ORIENTATIONS.items()},
    "tilted": {"orientation": TILTED},
    "flipped": {"orientation": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},  # slices run against z
    "unequal": {"spacing": (0.31, 1.7), "step": 7.25},
    "far": {"origin": (-412.75, 388.125, -1043.6)},
}
ALGORITHM = Algorithm("liver/best.safetensors", "sha256:0123", {"threshold": "0.5"})


def segments(count=1):
    names = ["liver", "spleen", "thing"][:count]
    return [Segment(name, term_of(name, {}) or UNKNOWN, (86, 180, 233)) for name in names]


def blobs(shape=SHAPE, count=1):
    """Class indices; the first and the last slices show nothing."""
    mask = np.zeros(shape, np.uint8)
    for index in range(count):
        mask[1 + index : 3 + index, 1 + index : 3 + index, 3 * index : 3 * index + 2] = index + 1
    return mask


def written(source_path, mask, folder, count=1):
    """The file of the segmentation of `source_path`."""
    made = make_segmentation(mask, read_source(source_path), segments(count), ALGORITHM)
    path = folder / "seg.dcm"
    write_dicom(path, made)
    return path


@pytest.fixture
def ct(tmp_path):
    """A series as data sets, in the order of their positions, and its folder."""
    made = slices(volume(SHAPE), ORIENTATIONS["oblique"])
    return made, write_series(tmp_path / "ct", made)


def refuse(path, words):
    with pytest.raises(HyMUNetError, match=words) as caught:
        make_segmentation(blobs(), read_source(path), segments(), ALGORITHM)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_segmentation_lies_where_its_series_does(tmp_path, layout):
    made = slices(volume(SHAPE), **layout)
    for ds in made:
        ds.SpacingBetweenSlices = "9.9"  # a trap, as vendors set: positions say something else
    folder = write_series(tmp_path / "ct", made)
    mask = blobs()
    path = written(folder, mask, tmp_path)

    image = read_image(folder, None)
    read = read_mask(path, 2, image=folder)
    np.testing.assert_array_equal(read.labels, mask)

    files = [save(ds, tmp_path / "in order" / f"{i}.dcm") for i, ds in enumerate(made)]
    expected, _ = geometry_by_itk(files)
    found, array = geometry_by_itk(path)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_array_equal(array > 0, mask > 0)

    ours = highdicom.seg.segread(path).get_volume(combine_segments=True)
    theirs = highdicom.get_volume_from_series(made)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
    assert ours.frame_of_reference_uid == theirs.frame_of_reference_uid
    # highdicom's slices run against the normal, ours along it
    np.testing.assert_array_equal(ours.array[::-1], mask)
    assert image.pixels.shape[1:] == mask.shape


def test_every_corner_of_every_frame_is_its_slices(ct, tmp_path):
    made, folder = ct
    seg = highdicom.seg.segread(written(folder, blobs(), tmp_path))
    by_uid = {ds.SOPInstanceUID: ds for ds in made}
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert len(seg.PerFrameFunctionalGroupsSequence) == SHAPE[0]
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        ds = by_uid.pop(source.ReferencedSOPInstanceUID)
        assert group.PlanePositionSequence[0].ImagePositionPatient == ds.ImagePositionPatient
        assert source.ReferencedSOPClassUID == ds.SOPClassUID
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        np.testing.assert_allclose(orientation, np.array(ds.ImageOrientationPatient, float), 1e-9)
        measures = shared.PixelMeasuresSequence[0]
        assert measures.PixelSpacing == ds.PixelSpacing
        assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5, abs=1e-6)
    assert by_uid == {}
    assert {item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence} == {
        ds.SOPInstanceUID for ds in made
    }


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_several_structures_lie_where_their_series_does(tmp_path, layout):
    made = slices(volume(SHAPE), **layout)
    folder = write_series(tmp_path / "ct", made)
    mask = blobs(count=3)
    mask[3:5][mask[3:5] == 1] = 0  # a gap between slices that show a structure
    mask[5, 0, 0] = 1
    path = written(folder, mask, tmp_path, 3)
    seg = highdicom.seg.segread(path)
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["liver", "spleen", "thing"]
    assert seg.SegmentsOverlap == "NO"
    np.testing.assert_array_equal(read_mask(path, 4, image=folder).labels, mask)
    back = seg.get_volume(combine_segments=True)
    np.testing.assert_array_equal(back.array[::-1], mask)
    theirs = highdicom.get_volume_from_series(made)
    np.testing.assert_allclose(back.affine, theirs.affine, atol=1e-4)
    # ITK stacks frames as they come: one structure behind the other, on the series' grid
    expected, _ = geometry_by_itk([save(ds, tmp_path / f"{i}.dcm") for i, ds in enumerate(made)])
    found, array = geometry_by_itk(path)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    stacked = array.reshape(3, *SHAPE) > 0
    np.testing.assert_array_equal(stacked, [mask == number for number in (1, 2, 3)])


def test_digits_of_the_direction_may_differ_between_slices(ct, tmp_path):
    made, _ = ct
    made[2].ImageOrientationPatient = [f"{float(v):.6f}" for v in made[2].ImageOrientationPatient]
    folder = write_series(tmp_path / "rounded", made)
    path = written(folder, blobs(), tmp_path)
    np.testing.assert_array_equal(read_mask(path, 2, image=folder).labels, blobs())


@pytest.mark.parametrize("per_frame", [False, True], ids=["shared", "per frame"])
def test_a_multi_frame_source(tmp_path, per_frame):
    """Scanners differ in whether the direction stands once or with every frame."""
    source = enhanced(volume(SHAPE), ORIENTATIONS["oblique"])
    if per_frame:
        shared = source.SharedFunctionalGroupsSequence.pop(0)
        source.SharedFunctionalGroupsSequence.append(pydicom.Dataset())
        for group in source.PerFrameFunctionalGroupsSequence:
            group.PlaneOrientationSequence = shared.PlaneOrientationSequence
            group.PixelMeasuresSequence = shared.PixelMeasuresSequence
    image = save(source, tmp_path / "mr.dcm")
    mask = blobs()
    path = written(image, mask, tmp_path)
    np.testing.assert_array_equal(read_mask(path, 2, image=image).labels, mask)
    seg = highdicom.seg.segread(path)
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    numbers = []
    for group in seg.PerFrameFunctionalGroupsSequence:
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
        frame = source.PerFrameFunctionalGroupsSequence[item.ReferencedFrameNumber - 1]
        one, other = (g.PlanePositionSequence[0].ImagePositionPatient for g in (group, frame))
        assert one == other
        numbers.append(int(item.ReferencedFrameNumber))
    assert sorted(numbers) == list(range(1, SHAPE[0] + 1))
    found, _ = geometry_by_itk(path)
    same = slices(volume(SHAPE), ORIENTATIONS["oblique"])
    files = [save(ds, tmp_path / "as slices" / f"{i}.dcm") for i, ds in enumerate(same)]
    for one, other in zip(found, geometry_by_itk(files)[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


PICTURES = {
    "secondary capture": photo(volume((8, 9), 0, 0, 256, np.uint8)),
    "photograph": photo(
        volume((8, 9, 3), 0, 0, 256, np.uint8), SOPClassUID=VLPhotographicImageStorage
    ),
    "radiograph": photo(
        volume((8, 9)), SOPClassUID=ComputedRadiographyImageStorage, PixelSpacing=["0.1", "0.1"]
    ),
    # a multi-frame kind with a single frame
    "angiogram": photo(volume((8, 9)), SOPClassUID=XRayAngiographicImageStorage),
    # a frame of reference alone places nothing
    "unplaced": photo(
        volume((8, 9), 0, 0, 256, np.uint8), FrameOfReferenceUID="1.2.3", PixelSpacing=["1", "1"]
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_without_a_frame_of_reference(tmp_path, kind):
    """PS3.3, A.51.5.1: then each pixel is one of the picture that is named, and nothing else is
    said of where it lies."""
    image = save(PICTURES[kind], tmp_path / "picture.dcm")
    mask = blobs()[1]
    path = written(image, mask, tmp_path)
    seg = highdicom.seg.segread(path)
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
        assert keyword not in seg
    groups = [*seg.SharedFunctionalGroupsSequence, *seg.PerFrameFunctionalGroupsSequence]
    named = {item.keyword for group in groups for item in group}
    assert not named & {
        "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence"
    }  # fmt: skip
    source = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    named = source.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert named == PICTURES[kind].SOPInstanceUID
    np.testing.assert_array_equal(read_mask(path, 2, image=image).labels, mask)
    np.testing.assert_array_equal(geometry_by_itk(path)[1].squeeze() > 0, mask > 0)


def test_a_single_placed_slice_keeps_its_place(tmp_path):
    made = slices(volume((1, 8, 9)), TILTED)
    image = save(made[0], tmp_path / "slice.dcm")
    path = written(image, blobs()[1], tmp_path)
    np.testing.assert_array_equal(read_mask(path, 2, image=image).labels, blobs()[1])
    found, _ = geometry_by_itk(path)
    expected, _ = geometry_by_itk(image)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(found[1][:2], expected[1][:2], atol=1e-4)
    np.testing.assert_allclose(found[2], expected[2], atol=1e-4)


def test_an_empty_mask_is_a_segmentation_too(ct, tmp_path):
    _, folder = ct
    for count in (1, 2):
        path = written(folder, blobs() * 0, tmp_path, count)
        assert not read_mask(path, count + 1, image=folder).labels.any()


def test_who_made_it_of_what_and_in_which_terms(ct, tmp_path):
    made, folder = ct
    terms = {"Thing": Term(Code("260787004", "SCT", "Physical object"), Code("1", "99L", "Ding"))}
    described = [*segments(2), Segment("thing", term_of("thing", terms), (1, 2, 3))]
    seg = make_segmentation(blobs(count=3), read_source(folder), described, ALGORITHM)
    assert seg.Modality == "SEG"
    assert seg.SegmentationType == "BINARY"
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (
        made[0].StudyInstanceUID,
        made[0].FrameOfReferenceUID,
    )
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == made[0].SeriesInstanceUID
    assert seg.SeriesNumber == made[0].SeriesNumber + 1000
    assert seg.ContentQualification == "RESEARCH"
    first, _, third = seg.SegmentSequence
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("10200004", "SCT")
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    by = first.SegmentationAlgorithmIdentificationSequence[0]
    assert by.AlgorithmName == "HyM-UNet liver/best.safetensors"
    assert by.AlgorithmVersion == __version__
    assert by.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert "sha256:0123" in by.AlgorithmParameters
    assert "threshold=0.5" in by.AlgorithmParameters
    assert third.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Ding"
    assert third.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "260787004"


def test_uids_are_new_each_time(ct):
    made, folder = ct

    def own(seg):
        organisation = seg.DimensionOrganizationSequence[0].DimensionOrganizationUID
        return {seg.SOPInstanceUID, seg.SeriesInstanceUID, organisation}

    source = read_source(folder)
    one, other = (make_segmentation(blobs(), source, segments(), ALGORITHM) for _ in range(2))
    theirs = {ds.SOPInstanceUID for ds in made} | {made[0].SeriesInstanceUID}
    assert len(own(one) | own(other) | theirs) == 6 + len(theirs)
    assert all(uid.startswith("2.25.") for uid in (one.SOPInstanceUID, one.SeriesInstanceUID))


@pytest.mark.parametrize("characters", ["ISO_IR 100", "ISO_IR 192", None])
def test_the_patient_is_copied_and_not_invented(ct, tmp_path, characters):
    made, _ = ct
    name = "Möller^Zoë" if characters else NAME
    for ds in made:
        ds.SpecificCharacterSet = characters or ""
        ds.PatientName, ds.StudyDescription, ds.PatientAge = name, "Abdomen", "042Y"
        for keyword in ("PatientSex", "AccessionNumber", "StudyTime"):
            delattr(ds, keyword)
    folder = write_series(tmp_path / "named", made)
    described = [Segment("Läsion", UNKNOWN, (1, 2, 3))]
    seg = make_segmentation(blobs(), read_source(folder), described, ALGORITHM)
    write_dicom(tmp_path / "seg.dcm", seg)
    back = pydicom.dcmread(tmp_path / "seg.dcm")
    assert back.PatientName == name
    assert (back.PatientID, back.PatientBirthDate) == (made[0].PatientID, "19010203")
    assert (back.StudyDescription, back.PatientAge) == ("Abdomen", "042Y")
    for keyword in ("PatientSex", "AccessionNumber", "StudyTime", "ReferringPhysicianName"):
        assert not back[keyword].value  # type 2: there, and empty
    assert back.SegmentSequence[0].SegmentLabel == "Läsion"
    plain = make_segmentation(blobs(), read_source(folder), segments(), ALGORITHM)
    assert (plain.get("SpecificCharacterSet") or None) == characters


NAMES = {
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Chinese": ("GB18030", "Wang^XiaoDong=王^小东="),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг"),
}


@pytest.mark.parametrize("label", ["liver", "Läsion"])
@pytest.mark.parametrize(("characters", "name"), NAMES.values(), ids=NAMES.keys())
def test_names_in_any_letters_come_back(ct, tmp_path, characters, name, label):
    made, _ = ct
    nested = pydicom.Dataset()
    nested.IssuerOfPatientID, nested.PatientID = name.split("^")[-1], "7"
    for ds in made:
        ds.SpecificCharacterSet, ds.PatientName = characters, name
        ds.StudyDescription = name.split("^")[-1]
        ds.OtherPatientIDsSequence = [nested]
    source = read_source(write_series(tmp_path / "named", made))
    described = [Segment(label, UNKNOWN, (1, 2, 3))]
    write_dicom(tmp_path / "seg.dcm", make_segmentation(blobs(), source, described, ALGORITHM))
    pictures = volume((*SHAPE, 3), 0, 0, 256, np.uint8)
    write_dicom(tmp_path / "capture.dcm", next(make_captures(pictures, source, ALGORITHM)))
    for file in ("seg.dcm", "capture.dcm"):
        back = pydicom.dcmread(tmp_path / file)
        assert back.PatientName == made[0].PatientName
        assert str(back.PatientName).rstrip("=") == name.rstrip("=")
        assert back.StudyDescription == made[0].StudyDescription
        for item in back.get("OtherPatientIDsSequence", ()):
            assert item.IssuerOfPatientID == nested.IssuerOfPatientID
        if file == "capture.dcm" or label.isascii():  # spelt with the same bytes
            assert back.SpecificCharacterSet == made[0].SpecificCharacterSet


def test_letters_that_nobody_can_read_are_refused(ct, tmp_path):
    made, _ = ct
    for ds in made:
        ds.SpecificCharacterSet = ["", "NONSENSE"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write_series(tmp_path / "odd", made)
    refuse(folder, r"SpecificCharacterSet \(0008,0005\) holds 'NONSENSE'")


def test_what_dicom_forbids_is_left_empty_and_nobody_is_quoted(ct, tmp_path, caplog, capfd):
    made, _ = ct
    for ds in made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds.PatientName, ds.PatientSex = "CANARY", "CANARY"
            ds.PatientBirthDate, ds.StudyTime = "CANARY", "CANARY"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write_series(tmp_path / "odd", made)
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        caplog.clear()
        source = read_source(folder)
        path = written(folder, blobs(), tmp_path)
    back = pydicom.dcmread(path)
    assert back.PatientName == "CANARY"  # odd, but allowed: no caret
    assert not back.PatientSex
    assert not back.PatientBirthDate
    assert not back.StudyTime
    assert [note.split()[0] for note in source.notes] == [
        "PatientBirthDate", "PatientSex", "StudyTime"
    ]  # fmt: skip
    said = [*source.notes, *(str(one.message) for one in warned), caplog.text, *capfd.readouterr()]
    assert "CANARY" not in " ".join(said)


def test_dates_with_points_are_dates(ct):
    """As before 1993."""
    _, folder = ct
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content.replace(b"DA\x08\x0019010203", b"DA\x0a\x001901.02.03"))
    source = read_source(folder)
    assert {header.PatientBirthDate for header in source.headers} == {"19010203"}
    assert source.notes == ()


def test_what_no_segmentation_can_be_made_of_is_said(ct, tmp_path):
    made, _ = ct
    for ds in made:
        del ds.FrameOfReferenceUID
    folder = write_series(tmp_path / "lost", made)
    refuse(folder, r"6 slices but no FrameOfReferenceUID .*export the series again")
    refuse(save(made[0], tmp_path / "one.dcm"), r"allow no segmentation .*Frame Of Reference")
    stacks = [enhanced(volume((2, 8, 9))) for _ in range(2)]
    for index, ds in enumerate(stacks):
        ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3.4", "1.2.3"
        for frame, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 5 * index + 2.5 * frame]
    refuse(write_series(tmp_path / "stacks", stacks), r"2 files of several frames each")
    assert stacks[0].SOPClassUID == EnhancedMRImageStorage


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        (
            "StudyInstanceUID",
            "",
            r"IM0000.dcm, .* and 2 more without StudyInstanceUID \(0020,000D\)",
        ),
        ("StudyInstanceUID", None, r"without StudyInstanceUID \(0020,000D\)"),
        ("SOPInstanceUID", "", r"without SOPInstanceUID \(0008,0018\)"),
        ("SOPInstanceUID", "1.2.3", r"6 slices share 1 value of SOPInstanceUID \(0008,0018\)"),
    ],
)
def test_what_a_result_refers_to_must_be_there(ct, tmp_path, keyword, value, words):
    made, _ = ct
    for number, ds in enumerate(made):
        ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        setattr(ds, keyword, value or "")
        if value is None:
            delattr(ds, keyword)
        path = tmp_path / "ct2" / f"IM{number:04d}.dcm"
        path.parent.mkdir(exist_ok=True)
        pydicom.dcmwrite(path, ds)
    refuse(tmp_path / "ct2", words)


def test_a_file_of_no_series_is_refused(ct, tmp_path):
    made, _ = ct
    made[0].SeriesInstanceUID = ""
    refuse(save(made[0], tmp_path / "x.dcm"), r"x.dcm without SeriesInstanceUID \(0020,000E\)")


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_slices_that_do_not_belong_together_are_refused(ct, tmp_path, keyword):
    made, _ = ct
    setattr(made[3], keyword, "1.2.7777")
    folder = write_series(tmp_path / "mixed", made)
    with pytest.raises(HyMUNetError, match=rf"differ in {keyword} .*5 like IM") as caught:
        read_source(folder)
    said = str(caught.value)
    assert "1 like IM" in said
    assert "1.2.7777" not in said
    assert "CANARY" not in said


# --- secondary captures -----------------------------------------------------------------------


def test_captures_say_what_they_are(ct, tmp_path):
    made, _ = ct
    for ds in made:
        ds.BurnedInAnnotation, ds.LossyImageCompression = "YES", "01"
        ds.LossyImageCompressionRatio = "12.5"
    folder = write_series(tmp_path / "burnt", made)
    source = read_source(folder)
    pictures = volume((*SHAPE, 3), 0, 0, 256, np.uint8)
    captures = list(make_captures(pictures, source, ALGORITHM))
    assert len({one.SOPInstanceUID for one in captures}) == SHAPE[0]
    assert len({one.SeriesInstanceUID for one in captures}) == 1
    for depth, (one, ds) in enumerate(zip(captures, made, strict=True)):
        np.testing.assert_array_equal(one.pixel_array, pictures[depth])
        assert one.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert one.SourceImageSequence[0].ReferencedSOPInstanceUID == ds.SOPInstanceUID
        assert (one.PatientName, one.StudyInstanceUID) == (NAME, ds.StudyInstanceUID)
        # that it is the source's is all we know: outlines identify nobody
        assert one.BurnedInAnnotation == "YES"
        assert (one.LossyImageCompression, one.LossyImageCompressionRatio) == ("01", 12.5)
        assert "not for diagnosis" in one.DerivationDescription
        assert "not for diagnosis" in one.SeriesDescription
        assert one.ContentQualification == "RESEARCH"
        assert one.PixelSpacing == [0.7, 0.9]
    write_dicom(tmp_path / "capture.dcm", captures[0])
    _, array = geometry_by_itk(tmp_path / "capture.dcm")
    np.testing.assert_array_equal(array.squeeze(), pictures[0])


def test_what_the_source_does_not_say_no_capture_says(tmp_path):
    image = save(PICTURES["secondary capture"], tmp_path / "photo.dcm")
    picture = volume((8, 9, 3), 0, 0, 256, np.uint8)
    (one,) = make_captures([picture], read_source(image), ALGORITHM)
    for keyword in ("BurnedInAnnotation", "LossyImageCompression", "PixelSpacing"):
        assert keyword not in one
    assert not one.PatientOrientation


def test_letters_of_the_directions():
    assert patient_orientation(np.array(AXIAL)) == ["L", "P"]
    assert patient_orientation(np.array(ORIENTATIONS["coronal"])) == ["L", "F"]
    assert patient_orientation(np.array(ORIENTATIONS["sagittal"])) == ["P", "F"]
    assert patient_orientation(-np.array(TILTED)) == ["R", "A"]


# --- the standard -----------------------------------------------------------------------------


def _series(**fields):
    made = slices(volume(SHAPE), ORIENTATIONS["oblique"])
    for ds in made:
        for name, value in fields.items():
            setattr(ds, name, value)
    return made


SOURCES = {
    "ct": _series(),
    "mr": _series(SOPClassUID=MRImageStorage, Modality="MR", PatientSex="F"),
    "enhanced mr": [enhanced(volume(SHAPE))],
    **{name: [ds] for name, ds in PICTURES.items()},
    # from scanners
    **{
        name: [pydicom.dcmread(get_testdata_file(name))]
        for name in ("CT_small.dcm", "MR_small.dcm")
    },
}


@needs_dciodvfy
@pytest.mark.parametrize("kind", SOURCES)
def test_dciodvfy_finds_no_error(tmp_path, kind):
    folder = write_series(tmp_path / "source", SOURCES[kind])
    source = read_source(folder)
    for count in (1, 3):
        mask = np.zeros(source.grid.shape, np.uint8)
        mask[: SHAPE[0], : SHAPE[1], : SHAPE[2]] = (
            blobs(count=count)[: len(mask)] if len(mask) > 1 else blobs(count=count)[2]
        )
        path = written(folder, mask if len(mask) > 1 else mask[0], tmp_path, count)
        assert complaints(path) == []
    shape = source.grid.shape
    for capture in make_captures(volume((*shape, 3), 0, 0, 256, np.uint8), source, ALGORITHM):
        write_dicom(tmp_path / "capture.dcm", capture)
        assert complaints(tmp_path / "capture.dcm") == []
        break


@needs_dciodvfy
def test_dciodvfy_would_find_one(ct, tmp_path):
    seg = make_segmentation(blobs(), read_source(ct[1]), segments(), ALGORITHM)
    del seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    write_dicom(tmp_path / "broken.dcm", seg)
    assert complaints(tmp_path / "broken.dcm") != []
