"""What a survey sees: numbers of the pixels themselves, problems as rows, memory of files seen."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom import dcmread
from scipy import stats

from hymunet.data.case import Case, Dataset
from hymunet.data.case_hash import case_hash
from hymunet.data.survey import look_at, survey
from tests.data import dicom_files
from tests.data.drawn_files import picture

nibabel = pytest.importorskip("nibabel")


def pair(folder, name="a", pixels=None, mask=None):
    rng = np.random.default_rng(len(name))
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) if pixels is None else pixels
    if mask is None:
        mask = np.zeros(pixels.shape[:2], np.uint8)
        mask[5:9, 10:20] = 255
    picture(folder / f"{name}.png", pixels)
    picture(folder / f"{name}_mask.png", mask)
    return Case(name, (folder / f"{name}.png",), folder / f"{name}_mask.png")


def volume_pair(folder, affine=None, mask_affine=None):
    affine = np.diag([-1.0, 2.0, 3.0, 1.0]) if affine is None else affine
    values = np.random.default_rng(0).normal(100, 20, (6, 7, 8)).astype(np.float32)
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[2:4, 2:4, 2:4], labels[5, 5, 5] = 1, 2
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "v.nii.gz")
    mask = nibabel.Nifti1Image(labels, affine if mask_affine is None else mask_affine)
    nibabel.save(mask, folder / "v_seg.nii.gz")
    return Case("v", (folder / "v.nii.gz",), folder / "v_seg.nii.gz"), values, labels


def dataset(*cases):
    return Dataset("folder pairs", cases[0].channels[0].parent, tuple(cases))


def test_a_picture_is_described_by_its_own_pixels(tmp_path):
    case = pair(tmp_path)
    row = look_at(case)
    pixels = np.asarray(Pillow.open(case.channels[0]), np.float64)
    assert (row.size, row.channels, row.dtype, row.kind) == ((20, 30), 3, "uint8", "2-D integer")
    assert row.counts == ((0, 560), (255, 40))
    assert row.foreground == pytest.approx(40 / 600)
    assert row.sha256 == case_hash(np.asarray(Pillow.open(case.channels[0])).transpose(2, 0, 1))
    for channel, seen in enumerate(row.image):
        values = pixels[..., channel].ravel()
        assert seen.mean == pytest.approx(values.mean())
        assert seen.std == pytest.approx(stats.tstd(values, ddof=0))
        assert (seen.low, seen.high) == pytest.approx(tuple(np.percentile(values, (0.5, 99.5))))
        inside = pixels[5:9, 10:20, channel]
        assert row.inside[channel].mean == pytest.approx(inside.mean())
    assert row.zeros == (pixels == 0).all(axis=2).mean()


def test_a_volume_has_spacing_and_orientation_as_stored(tmp_path):
    case, values, _ = volume_pair(tmp_path)
    row = look_at(case)
    assert row.size == (8, 7, 6)
    assert row.spacing_mm == (3.0, 2.0, 1.0)
    assert row.orientation == "LAS"
    assert row.counts == ((0, 336 - 9), (1, 8), (2, 1))
    assert row.image[0].mean == pytest.approx(values.mean(), rel=1e-6)


def test_values_are_classes_where_the_data_map_them(tmp_path):
    case, _, _ = volume_pair(tmp_path)
    mapped = Case("v", case.channels, case.label, label_map=((0, 0), (1, 2), (2, 1)))
    assert look_at(mapped).counts == ((0, 336 - 9), (1, 1), (2, 8))


def test_what_does_not_count_is_left_out_of_the_inside(tmp_path):
    case = pair(tmp_path)
    valid = np.full((20, 30), 255, np.uint8)
    valid[:, 15:] = 0
    picture(tmp_path / "valid.png", valid)
    row = look_at(Case("a", case.channels, case.label, tmp_path / "valid.png"))
    assert row.not_valid == 0.5
    pixels = np.asarray(Pillow.open(case.channels[0]), np.float64)
    assert row.inside[0].mean == pytest.approx(pixels[5:9, 10:15, 0].mean())


def test_an_empty_mask_has_no_inside(tmp_path):
    row = look_at(pair(tmp_path, mask=np.zeros((20, 30), np.uint8)))
    assert row.inside == ()
    assert row.foreground == 0


def test_a_broken_case_is_a_row_and_stops_nobody(tmp_path):
    good, bad = pair(tmp_path), pair(tmp_path, "bad")
    bad.channels[0].write_bytes(b"no picture")
    off = np.diag([-1.0, 2.0, 3.0, 1.0])
    off[0, 3] = 5
    elsewhere, _, _ = volume_pair(tmp_path, mask_affine=off)
    told = []
    rows = survey(dataset(good, bad, elsewhere), progress=lambda: told.append(1))
    assert [row.id for row in rows] == ["a", "bad", "v"]
    assert rows[0].problem is None
    assert "bad.png" in rows[1].problem
    assert "lies on another grid" in rows[2].problem
    assert "differ by up to 5" in rows[2].problem
    assert len(told) == 3


def test_a_second_look_reads_nothing_until_a_file_changes(tmp_path):
    case, kept = pair(tmp_path), tmp_path / "kept"
    kept.mkdir()
    first = survey(dataset(case), kept)
    (path,) = kept.iterdir()
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(content | {"dtype": "remembered"}), "utf-8")
    assert survey(dataset(case), kept)[0].dtype == "remembered"
    path.write_text("cut sho", "utf-8")
    assert survey(dataset(case), kept) == first
    assert survey(dataset(case), kept) == first  # as read back
    pair(tmp_path, pixels=np.zeros((20, 30, 3), np.uint8))
    assert survey(dataset(case), kept)[0].image[0].mean == 0


def test_a_series_among_others_is_looked_at_and_a_changed_slice_is_another_image(tmp_path):
    """A series is named by FOLDER/UID, which is no file; its folder's time tells nothing."""
    made = dicom_files.slices(dicom_files.volume((4, 6, 7)))
    other = dicom_files.slices(dicom_files.volume((4, 6, 7), seed=1))
    folder = dicom_files.write_series(tmp_path / "both", made)
    dicom_files.write_series(folder, other, name="other{:04d}.dcm")
    labels = np.zeros((4, 6, 7, 1), np.uint8)
    labels[1, 2:4, 2:5] = 1
    dicom_files.save(dicom_files.segmentation(made, labels), tmp_path / "seg.dcm")
    series = folder / made[0].SeriesInstanceUID
    case, kept = Case("s", (series,), tmp_path / "seg.dcm"), tmp_path / "kept"
    kept.mkdir()
    (first,) = survey(dataset(case), kept)
    assert first.problem is None
    assert first.counts == ((0, 162), (1, 6))
    changed = made[0]
    changed.PixelData = bytes(len(changed.PixelData))
    (at,) = [f for f in folder.iterdir() if dcmread(f).SOPInstanceUID == changed.SOPInstanceUID]
    dicom_files.save(changed, at)
    (second,) = survey(dataset(case), kept)
    assert second.sha256 != first.sha256
