"""nnU-Net's raw data: channels by their numbers, regions by their labels, no case passed over."""

import numpy as np
import pytest

from hymunet.data.case_io import read_case
from hymunet.data.formats import find_dataset
from hymunet.errors import HyMUNetError
from tests.data.drawn_files import blocks, described, picture, volume

LABELS = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def raw(root, **changes):
    """Two cases of two channels, 10 and 20."""
    for name in ("BRATS_002", "BRATS_001"):
        for n, value in enumerate((10, 20)):
            volume(root / "imagesTr" / f"{name}_{n:04d}.nii.gz", blocks(*[value] * 4))
        volume(root / "labelsTr" / f"{name}.nii.gz", blocks(0, 1, 2, 3))
    content = {
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": LABELS,
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    return described(root, content | changes)


def test_a_raw_data_set(tmp_path):
    raw(tmp_path, licence="CC0-1.0")
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "imagesTr" / "._BRATS_001_0000.nii.gz").write_bytes(b"x")
    (tmp_path / "labelsTr" / "._BRATS_001.nii.gz").write_bytes(b"x")
    (tmp_path / "imagesTr" / "notes.txt").touch()
    dataset = find_dataset(tmp_path)
    assert dataset.name == "nnU-Net raw"
    assert [case.id for case in dataset.cases] == ["BRATS_001", "BRATS_002"]
    assert dataset.channel_names == ("FLAIR", "T1")
    assert dataset.label_names == {1: "edema", 2: "core", 3: "enhancing"}
    assert dataset.num_labels == 4
    assert dataset.licence == "CC0-1.0"
    assert dataset.notes == (
        "channels: FLAIR, T1",
        "structures: edema, core, enhancing",
        "1 entries of imagesTr belong to no case, not used: notes.txt",
        "imagesTs, the test images, are not used",
    )
    image, mask, valid = read_case(dataset.cases[0], 2, dataset.num_labels)
    assert [np.unique(channel).tolist() for channel in image.pixels] == [[10], [20]]
    np.testing.assert_array_equal(mask.labels.T, blocks(0, 1, 2, 3))
    assert valid is None


def test_regions_and_a_label_to_be_ignored(tmp_path):
    labels = {"background": 0, "tumour": 2, "kidney": [1, 2], "ignore": 3}
    dataset = find_dataset(raw(tmp_path, labels=labels, regions_class_order=[2, 1]))
    assert dataset.regions == {"kidney": (1, 2), "tumour": (2,)}
    assert dataset.label_names == {1: "kidney without tumour", 2: "tumour"}
    assert dataset.nested
    assert "pixels of the value 3 do not count" in dataset.notes
    _, mask, valid = read_case(dataset.cases[0], 2, dataset.num_labels)
    np.testing.assert_array_equal(mask.labels.T, blocks(0, 1, 2, 0))
    np.testing.assert_array_equal(valid.T, blocks(1, 1, 1, 0) > 0)
    order = find_dataset(raw(tmp_path, labels=REGIONS, regions_class_order=[1, 2, 3]))
    assert order.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_colour_pictures_are_one_file_of_three_channels(tmp_path, ending):
    colour = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    mask = (colour[..., 0] > 99).astype(np.uint8)
    picture(tmp_path / "imagesTr" / f"road_7_0000{ending}", colour)
    picture(tmp_path / "labelsTr" / f"road_7{ending}", mask)
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "road": 1},
        "numTraining": 1,
        "file_ending": ending,
    }
    dataset = find_dataset(described(tmp_path, content))
    image, read, _ = read_case(dataset.cases[0], 3, 2)
    np.testing.assert_array_equal(image.pixels, colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(read.labels, mask)


def test_files_may_be_named_one_by_one(tmp_path):
    raw(tmp_path)
    entry = {
        "images": ["imagesTr/BRATS_001_0001.nii.gz", "imagesTr/BRATS_001_0000.nii.gz"],
        "label": "labelsTr/BRATS_002.nii.gz",
    }
    dataset = find_dataset(raw(tmp_path, dataset={"one": entry}))
    (case,) = dataset.cases
    assert case.id == "one"
    assert [path.name[-8] for path in case.channels] == ["1", "0"]
    assert case.label == tmp_path / "labelsTr" / "BRATS_002.nii.gz"
    assert "2 entries of imagesTr belong to no case" in dataset.notes[2]
    assert "dataset.json speaks of 2 training cases, there are 1" in dataset.notes
    for flawed, words in (
        ({"one": entry | {"label": "../a.nii.gz"}}, r"names the file ../a.nii.gz, which is not in"),
        ({"one": entry | {"label": "labelsTr/x.nii.gz"}}, r"1 of 3 files that do not exist"),
        ({"../one": entry}, r"the case '../one' cannot name a file"),
        ({"..": entry}, r"the case '..' cannot name a file"),
        ({"one": entry["images"]}, r"the case one is \['imagesTr.*; expected {\"images"),
        ([entry], r"dataset is \[{.*; expected cases by their names"),
        ({"one": entry | {"images": entry["images"][:1]}}, r"1 of 1 case does not have a file"),
    ):
        with pytest.raises(HyMUNetError, match=words):
            find_dataset(raw(tmp_path, dataset=flawed))


def test_flaws_of_files_are_named(tmp_path):
    raw(tmp_path)

    def refuse(words):
        with pytest.raises(HyMUNetError, match=words):
            find_dataset(tmp_path)

    images, labels = tmp_path / "imagesTr", tmp_path / "labelsTr"
    extra = volume(images / "new_0000.nii.gz", blocks(1, 1))
    refuse(r"1 of 3 cases has no label \(new\); expected imagesTr/CASE_0000.nii.gz")
    orphan = volume(labels / "old.nii.gz", blocks(1, 1))
    refuse(r"has no label \(new\) and 1 of 3 labels has no image \(old\)")
    orphan.rename(labels / "new.nii.gz")
    refuse(r"1 of 3 cases does not have a file for each of the 2 channels FLAIR, T1: new")
    extra.rename(images / "new_0001.nii.gz")
    refuse(r"1 case of .*imagesTr lacks a channel \(new\)")
    for path in images.iterdir():
        path.rename(images / path.name.replace("_000", "-"))
    refuse(r"imagesTr holds no image and 3 of 3 labels have no image")
    labels.rename(tmp_path / "elsewhere")
    refuse(r"has a dataset.json but no folder labelsTr")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file_ending": None}, r"file_ending is None; expected both"),
        ({"file_ending": ".mha"}, r"the files end in .mha; expected .png, .*: convert them"),
        ({"channel_names": {"0": "a", "1": "b", "2": "c"}}, r"2 of 2 cases do not have a file"),
        ({"labels": REGIONS, "regions_class_order": [1]}, r"regions_class_order is \[1\]"),
    ],
)
def test_flaws_of_dataset_json_are_named(tmp_path, changes, words):
    with pytest.raises(HyMUNetError, match=words):
        find_dataset(raw(tmp_path, **changes))
