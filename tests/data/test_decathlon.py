"""The Decathlon's layout: what dataset.json names is found, what it must not name is refused."""

import json

import numpy as np
import pytest

from hymunet.data.case_io import read_case
from hymunet.data.formats import find_dataset
from hymunet.errors import HyMUNetError
from tests.data.drawn_files import blocks, described, picture, volume

CASES = ("b_02", "a_10", "a_01")


def entries(*names):
    return [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in names
    ]


def task(root, **changes):
    """Three cases of two channels, value 10 and 20 in slice 0, and two structures."""
    for name in CASES:
        channels = [blocks(10, 11), blocks(20, 21)]
        volume(root / "imagesTr" / f"{name}.nii.gz", np.stack(channels, axis=-1))
        volume(root / "labelsTr" / f"{name}.nii.gz", blocks(1, 2))
    content = {
        "name": "Drawn",
        "modality": {"1": "T2", "0": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": 3,
        "training": entries(*CASES),
        "test": ["./imagesTs/c_01.nii.gz"],
    }
    return described(root, content | changes)


def test_a_task_as_it_is_published(tmp_path):
    task(tmp_path)
    for name in (*CASES, "c_01"):  # a Mac leaves these beside every file
        (tmp_path / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"x")
        (tmp_path / "labelsTr" / f"._{name}.nii.gz").write_bytes(b"x")
    (tmp_path / "._dataset.json").write_bytes(b"x")
    dataset = find_dataset(tmp_path)
    assert dataset.name == "Medical Segmentation Decathlon"
    assert [case.id for case in dataset.cases] == ["a_01", "a_10", "b_02"]
    assert dataset.channel_names == ("ADC", "T2")
    assert dataset.label_names == {1: "PZ", 2: "TZ"}
    assert dataset.num_labels == 3
    assert dataset.regions is None
    assert not dataset.nested
    assert dataset.split is None
    assert dataset.licence is None
    assert dataset.notes == (
        "channels: ADC, T2",
        "structures: PZ, TZ",
        "1 case of dataset.json has no label, as hidden test cases, not used",
    )
    image, mask, valid = read_case(dataset.cases[0], 2, dataset.num_labels)
    np.testing.assert_array_equal(image.pixels[0].T, blocks(10, 11))
    np.testing.assert_array_equal(image.pixels[1].T, blocks(20, 21))
    np.testing.assert_array_equal(mask.labels.T, blocks(1, 2))
    assert valid is None


@pytest.mark.parametrize(
    ("said", "read"), [("CC-BY-SA 4.0", "CC-BY-SA 4.0"), (" a\nb ", "a b"), ("", None), (3, None)]
)
def test_the_licence_is_taken_as_the_data_state_it(tmp_path, said, read):
    assert find_dataset(task(tmp_path / "one", licence=said)).licence == read
    assert find_dataset(task(tmp_path / "two", license=said)).licence == read


def test_one_folder_down_and_two_of_them(tmp_path):
    task(tmp_path / "Task05_Drawn")
    assert find_dataset(tmp_path).root == tmp_path / "Task05_Drawn"
    task(tmp_path / "Task06_Drawn")
    with pytest.raises(HyMUNetError, match=r"2 data sets \(Task05_Drawn, Task06_Drawn\)"):
        find_dataset(tmp_path)


def test_described_data_in_train_and_test_are_not_taken_for_plain_pairs(tmp_path):
    task(tmp_path / "train")
    task(tmp_path / "test")  # of the same names: plain pairs would be refused for that
    with pytest.raises(HyMUNetError, match=r"2 data sets \(test, train\); name the one you mean"):
        find_dataset(tmp_path)


def test_a_split_table_beside_it_is_used(tmp_path):
    task(tmp_path)
    (tmp_path / "split.csv").write_text("case,split\na_01,train\na_10,val\nb_02,test\n")
    assert find_dataset(tmp_path).split == {"a_01": "train", "a_10": "val", "b_02": "test"}


def test_files_without_an_entry_are_told(tmp_path):
    task(tmp_path, training=entries(*CASES[:2]))
    assert [case.id for case in find_dataset(tmp_path).cases] == ["a_10", "b_02"]
    assert find_dataset(tmp_path).notes[2:] == (
        "1 entries of imagesTr belong to no case, not used: a_01.nii.gz",
        "1 entries of labelsTr belong to no case, not used: a_01.nii.gz",
        "1 case of dataset.json has no label, as hidden test cases, not used",
        "dataset.json speaks of 3 training cases and names 2",
    )


def test_files_that_are_not_there_are_counted_and_named(tmp_path):
    task(tmp_path, training=entries(*CASES, *(f"gone_{i}" for i in range(4))))
    words = (
        r"names 8 of 14 files that do not exist: imagesTr/gone_0.nii.gz, labelsTr/gone_0.nii.gz, "
        r"imagesTr/gone_1.nii.gz, .*and 3 more; bring them"
    )
    with pytest.raises(HyMUNetError, match=words):
        find_dataset(tmp_path)


@pytest.mark.parametrize("place", ["image", "label"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{root}/outside.nii.gz", "is not in its folder"),
        ("../outside.nii.gz", "is not in its folder"),
        ("imagesTr/../../outside.nii.gz", "is not in its folder"),
        ("..\\outside.nii.gz", "is not in its folder"),
        ("C:\\outside.nii.gz", "is not in its folder"),
        ("\\\\server\\outside.nii.gz", "is not in its folder"),
        ("a\0b.nii.gz", "stands where the name of a file is expected"),
        (3, "stands where the name of a file is expected"),
    ],
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, place, path, words):
    volume(tmp_path / "outside.nii.gz", blocks(1, 2))  # it exists, and still
    entry = entries("a_01")[0]
    entry[place] = path.format(root=tmp_path) if isinstance(path, str) else path
    root = task(tmp_path / "inner", training=[*entries("b_02"), entry])
    with pytest.raises(HyMUNetError, match=words):
        find_dataset(root)


def test_a_way_round_within_the_folder_is_none_out_of_it(tmp_path):
    entry = {"image": "imagesTr/../imagesTr/a_01.nii.gz", "label": "labelsTr\\a_01.nii.gz"}
    dataset = find_dataset(task(tmp_path, training=[entry]))
    assert dataset.cases[0].channels == (tmp_path / "imagesTr" / "a_01.nii.gz",)
    assert dataset.cases[0].label == tmp_path / "labelsTr" / "a_01.nii.gz"


def test_labels_that_are_no_class_indices_are_mapped(tmp_path):
    task(tmp_path, labels={"0": "background", "1": "PZ", "2": "ignore"})
    dataset = find_dataset(tmp_path)
    assert dataset.num_labels == 2
    _, mask, valid = read_case(dataset.cases[0], 2, 2)
    np.testing.assert_array_equal(mask.labels.T, blocks(1, 0))
    np.testing.assert_array_equal(valid.T, blocks(1, 0) > 0)
    task(tmp_path, labels={"0": "background", "2": "TZ", "7": "none"})
    with pytest.raises(HyMUNetError, match=r"1 values that are no label .*\(1\); expected 0, 2, 7"):
        read_case(find_dataset(tmp_path).cases[0], 2, 3)


def test_nnunets_first_version_keeps_a_file_for_each_channel(tmp_path):
    for n, value in enumerate((10, 20)):
        volume(tmp_path / "imagesTr" / f"p_1_{n:04d}.nii.gz", blocks(value, value))
    volume(tmp_path / "labelsTr" / "p_1.nii.gz", blocks(1, 2))
    content = {
        "modality": {"0": "ADC", "1": "T2"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "training": entries("p_1"),
    }
    (case,) = find_dataset(described(tmp_path, content)).cases
    assert case.id == "p_1"
    assert [path.name for path in case.channels] == ["p_1_0000.nii.gz", "p_1_0001.nii.gz"]
    (tmp_path / "imagesTr" / "p_1_0001.nii.gz").unlink()
    with pytest.raises(HyMUNetError, match=r"names 1 of 3 files .*imagesTr/p_1_0001.nii.gz"):
        find_dataset(tmp_path)


def test_lists_of_validation_cases_are_the_split(tmp_path):
    task(tmp_path, training=entries("a_01", "a_10"), validation=entries("b_02"), numTraining=2)
    dataset = find_dataset(tmp_path)
    assert dataset.split == {"a_01": "train", "a_10": "train", "b_02": "val"}
    assert dataset.notes[-1] == "split taken from dataset.json"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": []}, r'names no training cases; expected "training": \[{'),
        ({"training": "imagesTr"}, r"training is 'imagesTr'; expected a list of cases"),
        ({"training": ["a.nii.gz"]}, r"a training case is 'a.nii.gz'; expected {\"image"),
        ({"training": [{"image": "a.nii.gz"}]}, r"a training case is {'image': 'a.nii.gz'}"),
        ({"training": entries("a_01", "a_01")}, r"1 case of .*dataset.json has a name that"),
        ({"modality": {"0": "T1", "2": "T2"}}, r"channels are numbered 0, 2; expected 0, 1, 2"),
        ({"modality": "MRI"}, r"the channels are 'MRI'; expected their names by number"),
        ({"labels": {"a": "b"}}, r"the label 'a' has the value 'b'; expected {"),
    ],
)
def test_flaws_of_dataset_json_are_named(tmp_path, changes, words):
    with pytest.raises(HyMUNetError, match=words):
        find_dataset(task(tmp_path, **changes))


def test_a_dataset_json_that_is_broken_or_about_something_else(tmp_path):
    for folder in ("images", "masks"):
        picture(tmp_path / folder / "a.png", np.ones((4, 4), np.uint8))
    for content in ([1, 2], {"labels": ["cat"]}, {"training": []}):
        described(tmp_path, content)
        assert find_dataset(tmp_path).name == "folder pairs"
    for content in (b"{", b"\xff\xfe{}", b"[" * 100_000):
        (tmp_path / "dataset.json").write_bytes(content)
        with pytest.raises(HyMUNetError, match=r"dataset.json is no JSON .*move it away"):
            find_dataset(tmp_path)
    text = json.dumps({"labels": {"0": "background", "1": "a"}, "modality": {"0": "x"}})
    (tmp_path / "dataset.json").write_bytes(b"\xef\xbb\xbf" + text.encode())  # as Windows saves it
    with pytest.raises(HyMUNetError, match=r"names no training cases"):
        find_dataset(tmp_path)
