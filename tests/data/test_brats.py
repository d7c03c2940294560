"""BraTS's folders: both namings, one order of channels, the challenge's regions from any labels."""

import shutil

import numpy as np
import pytest

from hymunet.data.brats import CHANNELS
from hymunet.data.case_io import read_case
from hymunet.data.formats import find_dataset
from hymunet.errors import HyMUNetError
from tests.data.drawn_files import blocks, volume

# the challenge's own words: regions as sets of stored labels
OF_2021 = {"WT": {1, 2, 4}, "TC": {1, 4}, "ET": {4}}
OF_2023 = {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}
ENDINGS_2021 = ("_flair", "_t1", "_t1ce", "_t2", "_seg")
ENDINGS_2023 = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")


def case(root, name, labels, endings=ENDINGS_2021, suffix=".nii.gz"):
    """A case whose channels hold 1, 2, 3 and 4, in the order flair, t1, t1ce, t2."""
    for value, ending in enumerate(endings[:4], 1):
        volume(root / name / f"{name}{ending}{suffix}", blocks(*[value] * len(labels)))
    volume(root / name / f"{name}{endings[4]}{suffix}", blocks(*labels))
    return root


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize(
    ("name", "endings", "labels", "challenge"),
    [
        ("BraTS20_Training_001", ENDINGS_2021, (0, 1, 2, 4), OF_2021),
        ("BraTS2021_00000", ENDINGS_2021, (4, 2, 0, 1), OF_2021),
        ("BraTS-GLI-00000-000", ENDINGS_2023, (0, 1, 2, 3), OF_2023),
        ("BraTS2021_00000", ENDINGS_2021, (0, 1, 2, 3), OF_2023),  # 4 rewritten as 3, as many do
    ],
)
def test_regions_are_those_of_the_challenge(tmp_path, name, endings, labels, challenge, suffix):
    dataset = find_dataset(case(tmp_path, name, labels, endings, suffix))
    assert dataset.name == "BraTS"
    assert dataset.channel_names == CHANNELS == ("flair", "t1", "t1ce", "t2")
    assert dataset.num_labels == 4
    assert dataset.nested
    (found,) = dataset.cases
    assert found.id == name
    image, mask, valid = read_case(found, 4, dataset.num_labels)
    assert [np.unique(channel).tolist() for channel in image.pixels] == [[1], [2], [3], [4]]
    assert valid is None
    stored = blocks(*labels)
    assert dataset.regions.keys() == challenge.keys()
    for region, values in challenge.items():
        np.testing.assert_array_equal(
            np.isin(mask.labels.T, dataset.regions[region]), np.isin(stored, list(values))
        )


def test_time_points_of_a_patient_are_one_group(tmp_path):
    for name in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"):
        case(tmp_path, name, (0, 1, 2, 3), ENDINGS_2023)
    groups = [case.group for case in find_dataset(tmp_path).cases]
    assert groups == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"]
    case(tmp_path / "old", "BraTS20_Training_001", (0, 1, 2, 4))
    assert find_dataset(tmp_path / "old").cases[0].group is None


@pytest.mark.parametrize("one", [1, 255])
def test_a_single_label_is_one_structure_without_regions(tmp_path, one):
    case(tmp_path, "MS_01", (0, one))
    case(tmp_path, "MS_02", (0, 0))
    dataset = find_dataset(tmp_path)
    assert dataset.label_names == {1: "lesion"}
    assert dataset.regions is None
    mask = read_case(dataset.cases[0], 4, 2)[1]
    np.testing.assert_array_equal(mask.labels.T, blocks(0, 1))


@pytest.mark.parametrize(("endings", "last"), [(ENDINGS_2021, 4), (ENDINGS_2023, 3)])
def test_where_no_enhancing_part_was_seen_the_naming_tells_its_label(tmp_path, endings, last):
    dataset = find_dataset(case(tmp_path, "x", (0, 1, 2), endings))
    assert dict(dataset.cases[0].label_map) == {0: 0, 1: 2, 2: 1, last: 3}


def test_empty_masks_first_do_not_mislead(tmp_path):
    for n in range(20):
        case(tmp_path, f"x_{n:02d}", (0, 4) if n == 1 else (0, 0))
    assert find_dataset(tmp_path).num_labels == 4


def test_a_value_that_was_not_looked_at_is_refused_when_it_is_read(tmp_path):
    for n in range(20):
        case(tmp_path, f"x_{n:02d}", (3, 1) if n == 1 else (2, 4))
    dataset = find_dataset(tmp_path)
    with pytest.raises(HyMUNetError, match=r"1 values that are no label .*\(3\); expected 0, 1, 2"):
        read_case(dataset.cases[1], 4, 4)


def test_other_labels_stay_as_they_are(tmp_path):
    dataset = find_dataset(case(tmp_path, "BraTS-GLI-02000-100", (0, 1, 2, 3, 4), ENDINGS_2023))
    assert dataset.num_labels == 5
    assert dataset.regions is None
    assert any("not the labels of BraTS 2020 to 2023" in note for note in dataset.notes)
    mask = read_case(dataset.cases[0], 4, 5)[1]
    np.testing.assert_array_equal(mask.labels.T, blocks(0, 1, 2, 3, 4))
    volume(
        tmp_path / "BraTS-GLI-02000-100" / "BraTS-GLI-02000-100-seg.nii.gz",
        blocks(0, 900, 1, 1, 1, dtype=np.int16),
    )
    with pytest.raises(HyMUNetError, match=r"hold the values 0, 1, 900; expected labels such as"):
        find_dataset(tmp_path)


def test_what_lies_beside_is_told(tmp_path):
    root = case(tmp_path / "BraTS2020_TrainingData", "a", (0, 1, 2, 4))
    (root / "docs").mkdir()
    (root / "name_mapping.csv").write_text("Grade,ID\nHGG,a\n")
    (root / "a" / "preview.png").touch()
    (root / "a" / "._a_flair.nii.gz").touch()
    dataset = find_dataset(tmp_path)  # one folder down
    assert dataset.root == root
    assert "1 folder holds no case, not used: docs" in dataset.notes
    assert "1 other file of the cases, not used: preview.png" in dataset.notes


def test_folders_that_only_resemble_cases_are_left_alone(tmp_path):
    for name in ("a", "b"):  # all cases in one folder: pairs, and files that are no case's
        volume(tmp_path / "images" / f"{name}_t1.nii.gz", blocks(1, 2))
        volume(tmp_path / "masks" / f"{name}_t1_seg.nii.gz", blocks(0, 1))
    for name in ("c_seg.nii", "c_seg.nii.gz"):
        volume(tmp_path / "old" / name, blocks(0, 1))
    assert find_dataset(tmp_path).name == "folder pairs"


def test_flaws_are_named(tmp_path):
    def refuse(words):
        with pytest.raises(HyMUNetError, match=words):
            find_dataset(tmp_path)

    case(tmp_path, "a", (0, 1, 2, 4))
    # as the 355th case of 2020 has it
    (case(tmp_path, "b", (0, 1)) / "b" / "b_seg.nii.gz").rename(tmp_path / "b" / "W39_Segm.nii.gz")
    (case(tmp_path, "c", (0, 1)) / "c" / "c_t1ce.nii.gz").unlink()
    refuse(r"2 of 3 cases .* b has no seg; it holds W39_Segm.nii.gz. c has no t1ce. Expected")
    shutil.rmtree(tmp_path / "b")
    shutil.rmtree(tmp_path / "c")
    twin = volume(tmp_path / "a" / "a_t1.nii", blocks(0, 1))
    refuse(r"1 of 1 case .* a holds both a_t1.nii and a_t1.nii.gz. Expected")
    twin.unlink()
    stranger = volume(tmp_path / "a" / "z_t1.nii.gz", blocks(0, 1))
    case(tmp_path, "d", (0, 1))
    refuse(r"1 of 2 cases .* a holds files of several cases \(a, z\)")
    stranger.unlink()
    shutil.rmtree(tmp_path / "d")
    case(tmp_path, "e", (0, 1), ENDINGS_2023)
    refuse(r"cases named as in BraTS 2021 \(_flair\) and as in 2023 \(-t2f\)")
    shutil.rmtree(tmp_path / "e")
    (tmp_path / "a" / "a_seg.nii.gz").unlink()
    refuse(r"none of the 1 case .* has a segmentation; expected CASE_seg.nii.gz")


def test_cases_of_one_name_in_two_folders_are_refused(tmp_path):
    case(tmp_path, "a", (0, 1, 2, 4))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    with pytest.raises(HyMUNetError, match=r"1 case of .* has a name that another one has: a and"):
        find_dataset(tmp_path)
