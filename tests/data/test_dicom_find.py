"""Which paths stand for the DICOM images of a folder, whose they are, and what their masks mean."""

import json
import os

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.uid import generate_uid

from hymunet.data.cache import CaseCache
from hymunet.data.case_io import read_case
from hymunet.data.formats import find_dataset, find_others
from hymunet.data.image_cases import find_image_cases
from hymunet.data.image_io import read_image
from hymunet.data.mask_writing import write_mask
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.errors import HyMUNetError
from tests.data.dicom_files import photo, save, segmentation, slices, volume, write_series

SHAPE = (3, 6, 8)


def image_files(inputs):
    """Files of the images that are found."""
    return [file for case in find_image_cases(inputs, 3)[0] for file in case.files]


def blob(shape=SHAPE):
    mask = np.zeros((*shape, 1), np.uint8)
    mask[1, 2:4, 3:6] = 1
    return mask


def cases(root, masks, patients=None):
    """images/<case>/*.dcm of each patient, with masks of one kind."""
    patients = patients or ["A1", "A1", "B2", "C3"]
    for number, patient in enumerate(patients):
        name = f"case{number}"
        made = slices(volume(SHAPE, number), PatientID=patient)
        folder = write_series(root / "images" / name, made)
        if masks == "nifti":
            (root / "masks").mkdir(exist_ok=True)
            target = root / "masks" / f"{name}.nii.gz"
            write_mask(target, blob()[..., 0], read_image(folder, None))
            continue
        target = root / "masks" / (f"{name}.dcm" if masks == "file" else f"{name}/seg")
        save(segmentation(made, blob()), target)
    return root


# --- images to predict ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IM{}.dcm", "IM{}", "1.2.840.{}"])
def test_a_series_in_a_folder_is_one_image(tmp_path, name):
    for folder in ("p1/st/se0", "p2/st/se0"):
        write_series(tmp_path / folder, slices(volume(SHAPE)), name=name)
    Pillow.new("L", (4, 4)).save(tmp_path / "p1" / "screenshot.png")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    contents = photo(volume((2, 2)), SOPClassUID=None)  # a table of contents under another name
    contents.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    contents.save_as(tmp_path / "p1" / "table.dcm", enforce_file_format=False)
    (tmp_path / "p1" / "readme").write_text("nothing")
    assert image_files([tmp_path]) == [
        tmp_path / "p1" / "screenshot.png",
        tmp_path / "p1" / "st" / "se0",
        tmp_path / "p2" / "st" / "se0",
    ]
    assert [path.name for path in find_others([tmp_path])] == ["DICOMDIR", "readme"]


def test_several_series_in_a_folder_are_an_image_each(tmp_path):
    made = [slices(volume(SHAPE)), slices(volume(SHAPE))]
    folder = write_series(tmp_path / "ct", made[0] + made[1])
    named = sorted(folder / series[0].SeriesInstanceUID for series in made)
    assert image_files([folder]) == named
    assert image_files([named[0], folder]) == named
    assert [read_image(path, None).pixels.shape for path in named] == [(1, *SHAPE)] * 2


def test_pictures_keep_the_names_of_their_files(tmp_path):
    uid = generate_uid()
    for number, series in enumerate((uid, uid, generate_uid())):
        save(photo(volume((6, 8), number), SeriesInstanceUID=series), tmp_path / f"{number}.dcm")
    assert image_files([tmp_path]) == [tmp_path / f"{i}.dcm" for i in range(3)]


def test_files_folders_and_patterns(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "in" / "ct", slices(volume(SHAPE)), name="IM{}")
    assert image_files([folder]) == [folder]
    assert image_files([folder / "IM0"]) == [folder / "IM0"]
    assert image_files([str(tmp_path / "in" / "*")]) == [folder]
    assert image_files([str(tmp_path / "in" / "ct" / "IM*")]) == sorted(folder.iterdir())
    monkeypatch.chdir(folder)
    assert image_files(["."]) == [folder]


def test_a_broken_file_is_found_and_fails_where_it_is_read(tmp_path):
    folder = write_series(tmp_path / "ct", slices(volume(SHAPE)), name="IM{}")
    (folder / "IM1").write_bytes((folder / "IM1").read_bytes()[:150])
    save(photo(volume((6, 8))), tmp_path / "photo.dcm")
    found = image_files([tmp_path])
    assert found == [folder, folder / "IM1", tmp_path / "photo.dcm"]
    for path in found[:2]:  # a volume must not become one without its broken slice
        with pytest.raises(HyMUNetError, match=r"IM1 is broken or cut short"):
            read_image(path, None)
    assert read_image(found[2], None).pixels.shape == (1, 6, 8)


# --- data sets --------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["file", "folder", "nifti"])
def test_series_pair_with_their_masks(tmp_path, masks):
    dataset = find_dataset(cases(tmp_path, masks))
    assert [case.id for case in dataset.cases] == [f"case{i}" for i in range(4)]
    for case in dataset.cases:
        image, mask, _ = read_case(case, 1, 2)
        assert image.pixels.shape == (1, *SHAPE)
        np.testing.assert_array_equal(mask.labels, blob()[..., 0])


def test_a_patient_is_a_group_under_a_pseudonym(tmp_path):
    dataset = find_dataset(cases(tmp_path / "one", "file"))
    groups = [case.group for case in dataset.cases]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert "3 patients in 4 DICOM cases, by PatientID" in dataset.notes
    told = json.dumps([*groups, *dataset.notes])
    assert not any(patient in told for patient in ("A1", "B2", "C3"))
    again = find_dataset(cases(tmp_path / "two", "file", ["A1", "D4"]))
    assert again.cases[0].group == groups[0]  # in another data set too


def test_a_placeholder_is_no_patient(tmp_path):
    dataset = find_dataset(cases(tmp_path / "same", "file", ["ANON"] * 4))
    assert {case.group for case in dataset.cases} == {None}
    assert any("taken for a placeholder" in note for note in dataset.notes)
    dataset = find_dataset(cases(tmp_path / "none", "file", [""] * 4))
    assert {case.group for case in dataset.cases} == {None}
    assert dataset.notes == ()


def test_a_link_to_a_folder_is_that_folder(tmp_path):
    array = volume(SHAPE)
    folder = write_series(tmp_path / "ct", slices(array))
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    np.testing.assert_array_equal(read_image(tmp_path / "link", None).pixels[0], array)


def test_a_table_may_name_series(tmp_path):
    made = [slices(volume(SHAPE, i), PatientID=f"P{i}") for i in range(3)]
    folder = write_series(tmp_path / "all", [ds for series in made for ds in series])
    rows = ["case,image,mask,group"]
    for number, series in enumerate(made):
        save(segmentation(series, blob()), tmp_path / f"{number}.dcm")
        group = "known" if number == 0 else ""
        rows.append(f"c{number},all/{series[0].SeriesInstanceUID},{number}.dcm,{group}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    dataset = find_dataset(tmp_path / "table.csv")
    groups = [case.group for case in dataset.cases]
    assert groups[0] == "known"
    assert len(set(groups)) == 3  # each series' own patient, though they share a folder
    for case in dataset.cases:
        assert case.channels[0].parent == folder
        np.testing.assert_array_equal(read_case(case, 1, 2)[1].labels, blob()[..., 0])


def test_segments_must_mean_the_same_in_all_cases(tmp_path):
    two = np.concatenate([blob(), np.roll(blob(), 2, axis=1)], axis=-1)
    for number, labels in enumerate((["liver", "spleen"], ["spleen", "liver"])):
        made = slices(volume(SHAPE))
        write_series(tmp_path / "images" / f"{number}", made)
        save(segmentation(made, two, labels=labels), tmp_path / "masks" / f"{number}.dcm")
    with pytest.raises(HyMUNetError, match=r"2 different lists of segments.*1 'liver', 2 'spleen'"):
        find_dataset(tmp_path)


def test_one_segment_a_case_may_have_any_name(tmp_path):
    for number, label in enumerate(("Tumor", "tumour")):
        made = slices(volume(SHAPE))
        write_series(tmp_path / "images" / f"{number}", made)
        save(segmentation(made, blob(), labels=[label]), tmp_path / "masks" / f"{number}.dcm")
    assert len(find_dataset(tmp_path).cases) == 2


def test_a_case_without_a_mask_is_not_dropped(tmp_path):
    cases(tmp_path, "file")
    write_series(tmp_path / "images" / "case9", slices(volume(SHAPE)))
    with pytest.raises(HyMUNetError, match=r"1 of 5 images has no mask \(case9\)"):
        find_dataset(tmp_path)


def test_a_changed_slice_makes_a_new_entry_in_the_cache(tmp_path):
    dataset = find_dataset(cases(tmp_path / "data", "nifti"))
    cache = CaseCache(Preprocess(PreprocessConfig(image_size=None)), 1, 2, tmp_path / "cache")
    case = dataset.cases[0]
    before = cache.facts(case).sha256
    assert cache.facts(case).sha256 == before
    path = sorted(case.channels[0].iterdir())[0]
    status, folder = path.stat(), case.channels[0].stat()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    assert case.channels[0].stat().st_mtime_ns == folder.st_mtime_ns  # the folder tells nothing
    assert cache.facts(case).sha256 != before
