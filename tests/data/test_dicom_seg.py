"""Segmentations that highdicom wrote, on their image's grid; NIfTI masks of DICOM images."""

import nibabel
import numpy as np
import pytest

from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask
from hymunet.data.mask_writing import write_mask
from hymunet.errors import HyMUNetError
from tests.data.dicom_files import (
    AXIAL,
    OBLIQUE,
    ORIENTATIONS,
    enhanced,
    photo,
    save,
    segmentation,
    slices,
    volume,
    write_series,
)

SHAPE = (6, 7, 9)


def blobs(shape=SHAPE, count=2):
    """`count` segments that do not touch; the first and last slices show none of them."""
    masks = np.zeros((*shape, count), np.uint8)
    for index in range(count):
        masks[1 + index : 3 + index, 1 + index : 3 + index, 3 * index : 3 * index + 3, index] = 1
    return masks


def classes(masks):
    return sum((index + 1) * masks[..., index] for index in range(masks.shape[-1]))


@pytest.fixture
def ct(tmp_path):
    """A series as data sets, in order, and its folder."""
    made = slices(volume(SHAPE), OBLIQUE)
    return made, write_series(tmp_path / "ct", made)


def refuse(path, image, words, num_labels=3):
    with pytest.raises(HyMUNetError, match=words) as caught:
        read_mask(path, num_labels, image=image)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segmentation_lies_on_its_series(tmp_path, orientation, kind):
    made = slices(volume(SHAPE), orientation)
    folder = write_series(tmp_path / "ct", made)
    masks = blobs()
    given = masks.astype(np.float32) if kind == "FRACTIONAL" else masks
    seg = segmentation(made[::-1], given[::-1], kind)
    path = save(seg, tmp_path / "seg" / "a.dcm")
    for place in (path, path.parent):
        read = read_mask(place, 3, image=folder)
        np.testing.assert_array_equal(read.labels, classes(masks))
        assert read.labels.dtype == np.uint8


def test_frames_go_by_position_not_by_order(ct, tmp_path):
    made, folder = ct
    seg = segmentation(made, blobs(count=1))
    frames = seg.pixel_array
    order = np.random.default_rng(0).permutation(len(frames))
    groups = seg.PerFrameFunctionalGroupsSequence
    seg.PerFrameFunctionalGroupsSequence = [groups[i] for i in order]
    seg.PixelData = np.packbits(frames[order].ravel(), bitorder="little").tobytes()
    read = read_mask(save(seg, tmp_path / "a.dcm"), image=folder)
    np.testing.assert_array_equal(read.labels, blobs(count=1)[..., 0])
    assert len(frames) < SHAPE[0]  # it was sparse


def test_a_fraction_counts_from_one_half(ct, tmp_path):
    made, folder = ct
    fraction = np.linspace(0, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(*SHAPE, 1)
    seg = segmentation(made, fraction, "FRACTIONAL", max_fractional_value=200)
    read = read_mask(save(seg, tmp_path / "a.dcm"), image=folder)
    np.testing.assert_array_equal(read.labels, (np.rint(fraction * 200) >= 100)[..., 0])
    assert "fractional segmentation cut at 0.5" in read.notes


def test_numbers_with_gaps_are_classes_in_their_order(ct, tmp_path):
    made, folder = ct
    seg = segmentation(made, blobs())
    for item in seg.SegmentSequence:
        item.SegmentNumber = 9 if item.SegmentNumber == 1 else 4
    for group in seg.PerFrameFunctionalGroupsSequence:
        item = group.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = 9 if item.ReferencedSegmentNumber == 1 else 4
    read = read_mask(save(seg, tmp_path / "a.dcm"), 3, image=folder)
    np.testing.assert_array_equal(read.labels, classes(blobs()[..., ::-1]))
    assert "segments 4, 9 read as classes 1, 2" in read.notes


def test_segments_that_overlap_are_refused(ct, tmp_path):
    made, folder = ct
    masks = blobs()
    masks[2, 2, 2:4] = 1
    path = save(segmentation(made, masks, labels=["liver", "tumour"]), tmp_path / "a.dcm")
    refuse(path, folder, r"overlap \(1 'liver' and 2 'tumour' in \d voxels\).*without its tumour")


def test_more_segments_than_classes_are_refused(ct, tmp_path):
    made, folder = ct
    refuse(save(segmentation(made, blobs()), tmp_path / "a.dcm"), folder, r"--structures", 2)


def test_a_mask_needs_its_image(ct, tmp_path):
    refuse(save(segmentation(ct[0], blobs()), tmp_path / "a.dcm"), None, r"name the image")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing": (0.7, 0.8)}, r"another grid than its image: .*do not run|voxels beside"),
        ({"origin": (-20.4, 11.0, 40.0)}, r"voxels beside the image's voxels"),
        ({"origin": (-20.0, 11.0, 60.0)}, r"it covers voxels \[\d+, 0, 0\] to"),
        ({"step": 2.0}, r"voxels beside"),
        ({"orientation": (0, 1, 0, 0, 0, -1)}, r"do not run along"),
    ],
    ids=["pixel size", "shifted", "elsewhere", "slice distance", "turned"],
)
def test_another_grid_is_refused(tmp_path, change, words):
    made = slices(volume(SHAPE), AXIAL)
    uids = {name: made[0][name].value for name in ("FrameOfReferenceUID", "StudyInstanceUID")}
    seg = segmentation(slices(volume(SHAPE), **({"orientation": AXIAL} | change), **uids), blobs())
    refuse(save(seg, tmp_path / "a.dcm"), write_series(tmp_path / "ct", made), words)


def test_another_patients_image_is_refused(tmp_path):
    one, other = slices(volume(SHAPE)), slices(volume(SHAPE))
    path = save(segmentation(one, blobs()), tmp_path / "a.dcm")
    folder = write_series(tmp_path / "ct", other)
    refuse(path, folder, r"belongs to another image: it was drawn on the series [\d.]+")


def test_a_segmentation_of_a_part_of_the_image(tmp_path):
    made = slices(volume(SHAPE))
    folder = write_series(tmp_path / "ct", made)
    part = slices(volume((2, 3, 4)), origin=(-20 + 0.9, 11 + 0.7, 40 + 2.5),
                  FrameOfReferenceUID=made[0].FrameOfReferenceUID)  # fmt: skip
    seg = segmentation(part, np.ones((2, 3, 4, 1), np.uint8))
    labels = read_mask(save(seg, tmp_path / "a.dcm"), image=folder).labels
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:3, 1:4, 1:5] = 1
    np.testing.assert_array_equal(labels, expected)


def test_a_segmentation_of_an_enhanced_file(tmp_path):
    source = enhanced(volume(SHAPE))
    image = save(source, tmp_path / "mr.dcm")
    masks = blobs(count=1)
    like = slices(volume(SHAPE), FrameOfReferenceUID=source.FrameOfReferenceUID)
    path = save(segmentation(like, masks), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_mask(path, image=image).labels, masks[..., 0])


def test_a_segmentation_of_one_slice_is_a_picture(tmp_path):
    made = slices(volume((1, 7, 9)))
    image = save(made[0], tmp_path / "a.dcm")
    masks = blobs((4, 7, 9), 1)[1:2]
    path = save(segmentation(made, masks), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_mask(path, image=image).labels, masks[0, ..., 0])


def test_a_segmentation_of_a_photo_goes_by_the_photo_it_names(tmp_path):
    uid = {"SeriesInstanceUID": "1.2.3.4"}
    photos = [photo(volume((7, 9), seed, 0, 256, np.uint8), **uid) for seed in range(2)]
    paths = [save(ds, tmp_path / f"{i}.dcm") for i, ds in enumerate(photos)]
    masks = blobs((4, 7, 9), 1)[1:2]
    path = save(segmentation(photos[:1], masks), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_mask(path, image=paths[0]).labels, masks[0, ..., 0])
    refuse(path, paths[1], r"no usable position and does not name a slice of its image")
    large = save(photo(volume((8, 9), 0, 0, 256, np.uint8), **uid), tmp_path / "large.dcm")
    refuse(path, large, r"frames of \(7, 9\), its image \(8, 9\)")
    other = save(photo(volume((7, 9), 0, 0, 256, np.uint8)), tmp_path / "other.dcm")
    refuse(path, other, r"belongs to another image: it was drawn on the series 1\.2\.3\.4, and")


@pytest.mark.parametrize("lost", ["image", "segmentation", "both"])
def test_without_a_frame_of_reference_what_is_named_counts(tmp_path, lost):
    """The same positions, and another series: of one patient, or of another."""
    own, other = slices(volume(SHAPE)), slices(volume(SHAPE))
    seg = segmentation(own, blobs())
    if lost != "image":
        del seg.FrameOfReferenceUID
    if lost != "segmentation":
        for ds in (*own, *other):
            del ds.FrameOfReferenceUID
    folders = [write_series(tmp_path / name, made) for name, made in (("a", own), ("b", other))]

    def check(what):
        path = save(seg, tmp_path / "seg.dcm")
        np.testing.assert_array_equal(read_mask(path, 3, image=folders[0]).labels, classes(blobs()))
        refuse(path, folders[1], rf"belongs to another image: it was drawn on the {what} [\d.]+")

    check("series")
    del seg.ReferencedSeriesSequence
    check("file")
    # where nothing is named, positions are all there is
    seg.pop("SourceImageSequence", None)
    for group in seg.PerFrameFunctionalGroupsSequence:
        group.pop("DerivationImageSequence", None)
    path = save(seg, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_mask(path, 3, image=folders[1]).labels, classes(blobs()))


def test_a_segmentation_of_a_nifti_image(ct, tmp_path):
    made, folder = ct
    image = read_image(folder, None)
    path = save(segmentation(made, blobs()), tmp_path / "seg.dcm")
    turned = nibabel.Nifti1Image(image.pixels[0].T[:, ::-1], image.affine @ flip(1, SHAPE[1]))
    nibabel.save(turned, tmp_path / "ct.nii.gz")
    labels = read_mask(path, 3, image=tmp_path / "ct.nii.gz").labels
    np.testing.assert_array_equal(labels, classes(blobs())[:, ::-1])


@pytest.mark.parametrize("what", ["image", "several", "no segment", "cut short"])
def test_what_is_no_segmentation_is_said(ct, tmp_path, what):
    made, folder = ct
    path = tmp_path / "seg" / "a.dcm"
    if what == "image":
        save(made[0], path)
        refuse(path, folder, r"is DICOM, but no segmentation \(CT Image Storage\)")
        return
    seg = segmentation(made, blobs())
    if what == "no segment":
        seg.SegmentSequence = []
        refuse(save(seg, path), folder, r"describes 0 segments")
    elif what == "several":
        for name in ("a.dcm", "b.dcm"):
            save(seg, tmp_path / "seg" / name)
        refuse(tmp_path / "seg", folder, r"holds 2 DICOM files \(a.dcm, b.dcm\); expected one")
    else:
        whole = save(seg, path).read_bytes()
        path.write_bytes(whole[:-8])
        refuse(path, folder, r"a.dcm is broken or cut short")


def test_a_segmentation_is_no_image(ct, tmp_path):
    path = save(segmentation(ct[0], blobs()), tmp_path / "seg.dcm")
    with pytest.raises(HyMUNetError, match=r"is a DICOM segmentation, a mask; expected an image"):
        read_image(path, None)
    save(segmentation(ct[0], blobs()), ct[1] / "seg.dcm")  # beside its slices it is passed over
    assert read_image(ct[1], None).pixels.shape == (1, *SHAPE)


# --- NIfTI masks of DICOM images --------------------------------------------------------------


def flip(axis, length):
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, length - 1
    return matrix


@pytest.mark.parametrize("axes", [(), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("exchanged", [False, True])
def test_a_nifti_mask_is_turned_to_its_dicom_image(ct, tmp_path, axes, exchanged):
    image = read_image(ct[1], None)
    labels = classes(blobs())
    stored, affine = labels.T, image.affine
    for axis in axes:
        affine = affine @ flip(axis, stored.shape[axis])
        stored = np.flip(stored, axis)
    if exchanged:
        stored, affine = np.swapaxes(stored, 0, 2), affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(stored.astype(np.uint8), affine), tmp_path / "m.nii.gz")
    read = read_mask(tmp_path / "m.nii.gz", 3, image=ct[1])
    np.testing.assert_array_equal(read.labels, labels)
    assert any("turned" in note for note in read.notes) == bool(axes or exchanged)


def test_our_own_masks_come_back(ct, tmp_path):
    write_mask(tmp_path / "m.nii.gz", classes(blobs()), read_image(ct[1], None))
    read = read_mask(tmp_path / "m.nii.gz", 3, image=ct[1])
    np.testing.assert_array_equal(read.labels, classes(blobs()))
    assert read.notes == ()


def test_a_nifti_mask_of_another_grid_is_refused(ct, tmp_path):
    image = read_image(ct[1], None)
    for number, (values, affine) in enumerate(
        (
            (classes(blobs())[1:], image.affine),
            (classes(blobs()), image.affine + np.outer([1, 1, 1, 0], [0, 0, 0, 5.0])),
            (classes(blobs()), np.diag([-0.9, -0.7, 2.5, 1.0])),
        )
    ):
        path = tmp_path / f"{number}.nii"
        nibabel.save(nibabel.Nifti1Image(values.T.astype(np.uint8), affine), path)
        refuse(path, ct[1], r"is on another grid than its image")
