"""What is segmented when folders, files and patterns are named: images alone, channels together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hymunet.data.formats import find_dataset
from hymunet.data.image_cases import ImageCase, find_image_cases
from hymunet.errors import HyMUNetError
from tests.data.drawn_files import blocks, described, picture, volume
from tests.data.test_brats import ENDINGS_2021, ENDINGS_2023
from tests.data.test_brats import case as brats_case

GREY = np.zeros((4, 5), np.uint8)
RGB = np.zeros((4, 5, 3), np.uint8)
FOUR = {str(number): name for number, name in enumerate(("a", "b", "c", "d"))}


def found(*inputs, channels=3):
    return find_image_cases([str(one) for one in inputs], channels)[0]


def shown(cases):
    """Name, folder of the results, names of the files."""
    return [(c.name, c.below.as_posix(), [path.name for path in c.files]) for c in cases]


def nnunet(root, cases=("a", "b"), channels=4, test=("c",), ending=".nii.gz"):
    """imagesTr, labelsTr, imagesTs and dataset.json."""
    for folder, ids in (("imagesTr", cases), ("imagesTs", test)):
        for id in ids:
            for number in range(channels):
                write(root / folder / f"{id}_{number:04d}{ending}")
    for id in cases:
        write(root / "labelsTr" / f"{id}{ending}")
    content = {
        "channel_names": dict(list(FOUR.items())[:channels]),
        "labels": {"background": 0, "x": 1},
        "numTraining": len(cases),
        "file_ending": ending,
    }
    return described(root, content)


def write(path):
    if path.name.endswith((".nii", ".nii.gz")):
        return volume(path, blocks(0, 1))
    return picture(path, GREY)


# --- BraTS ------------------------------------------------------------------------------------


@pytest.mark.parametrize("endings", [ENDINGS_2021, ENDINGS_2023])
@pytest.mark.parametrize("with_seg", [True, False])
def test_a_case_of_brats_is_one_image(tmp_path, endings, with_seg):
    for name in ("B-00001-000", "B-00002-000"):
        brats_case(tmp_path, name, (0, 1, 2, 3), endings)
        if not with_seg:
            (tmp_path / name / f"{name}{endings[4]}.nii.gz").unlink()
    files = {n: [f"{n}{e}.nii.gz" for e in endings[:4]] for n in ("B-00001-000", "B-00002-000")}
    expected = [(name, ".", files[name]) for name in files]
    cases, notes = find_image_cases([tmp_path], 4)
    assert shown(cases) == expected
    assert all(case.problem is None for case in cases)
    assert cases[0].label == str(tmp_path / "B-00001-000" / "B-00001-000")
    assert any("not segmented: B-00001-000" in note for note in notes) == with_seg
    one = tmp_path / "B-00001-000"
    assert shown(found(one, channels=4)) == expected[:1]
    assert shown(found(*sorted(one.glob("*[!g].nii.gz")), channels=4)) == expected[:1]
    assert shown(found(one / "*[tncwer12f].nii.gz", channels=4)) == expected[:1]
    # as training finds them
    if with_seg:
        assert [c.files for c in cases] == [c.channels for c in find_dataset(tmp_path).cases]


def test_brats_in_folders_of_folders_and_flat(tmp_path):
    brats_case(tmp_path / "site", "a", (0, 1))
    for name in ("b", "c"):
        brats_case(tmp_path, name, (0, 1))
        for path in (tmp_path / name).iterdir():
            (tmp_path / "flat").mkdir(exist_ok=True)
            shutil.move(path, tmp_path / "flat" / path.name)
    assert [c[:2] for c in shown(found(tmp_path, channels=4))] == [
        ("b", "flat"), ("c", "flat"), ("a", "site")
    ]  # fmt: skip


def test_a_segmentation_that_is_named_is_segmented(tmp_path):
    brats_case(tmp_path, "a", (0, 1))
    assert shown(found(tmp_path / "a" / "a_seg.nii.gz", channels=1)) == [
        ("a_seg", ".", ["a_seg.nii.gz"])
    ]
    alone = volume(tmp_path / "b" / "x_seg.nii.gz", blocks(1))
    assert [case.files for case in found(tmp_path / "b", channels=1)] == [(alone,)]


def test_a_case_of_brats_that_is_not_whole_has_a_problem_and_the_others_none(tmp_path):
    for name in ("a", "b", "c"):
        brats_case(tmp_path, name, (0, 1))
    (tmp_path / "a" / "a_t1ce.nii.gz").unlink()
    volume(tmp_path / "b" / "b_t2.nii", blocks(0, 1))
    a, b, c = found(tmp_path, channels=4)
    assert "has no t1ce, only a_flair.nii.gz, a_t1.nii.gz, a_t2.nii.gz; expected" in a.problem
    assert "has t2 twice, only" in b.problem
    assert c.problem is None
    (case,) = found(tmp_path / "c", channels=1)
    assert "has 4 channel files (c_flair.nii.gz, c_t1.nii.gz, " in case.problem
    assert "but the model reads 1 channels" in case.problem


# --- nnU-Net and the Decathlon ----------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii.gz", ".png", ".tif"])
def test_nnunets_channels_are_one_image(tmp_path, ending):
    nnunet(tmp_path, ending=ending)
    cases, notes = find_image_cases([tmp_path], 4)
    files = {id: [f"{id}_{n:04d}{ending}" for n in range(4)] for id in "abc"}
    assert shown(cases) == [
        ("a", "imagesTr", files["a"]), ("b", "imagesTr", files["b"]), ("c", "imagesTs", files["c"])
    ]  # fmt: skip
    assert [c.problem for c in cases] == [None] * 3
    assert f"masks of the data set in {tmp_path}, not segmented: labelsTr/ (2 files)" in notes
    assert [c.files for c in cases[:2]] == [c.channels for c in find_dataset(tmp_path).cases]
    for given in (tmp_path / "imagesTs", str(tmp_path / "imagesTs" / "c_*")):
        assert shown(found(given, channels=4)) == [("c", ".", files["c"])]
    assert shown(found(*(tmp_path / "imagesTs").iterdir(), channels=4)) == [("c", ".", files["c"])]


def test_the_only_folder_of_images_is_no_level_of_the_results(tmp_path):
    nnunet(tmp_path, test=())
    assert [c.below for c in found(tmp_path, channels=4)] == [Path()] * 2


@pytest.mark.parametrize("with_json", [True, False])
def test_gaps_and_other_counts_of_channels_are_problems(tmp_path, with_json):
    nnunet(tmp_path, test=("c", "d"))
    if not with_json:
        (tmp_path / "dataset.json").unlink()
    (tmp_path / "imagesTs" / "c_0002.nii.gz").unlink()
    c, d = found(tmp_path / "imagesTs", channels=4)
    assert "c has no channel _0002, only c_0000.nii.gz, c_0001.nii.gz, c_0003" in c.problem
    assert "each of the 4 channels that the model reads" in c.problem
    assert d.problem is None
    _, d = found(tmp_path / "imagesTs", channels=2)
    assert "d has 4 channel files (d_0000.nii.gz, " in d.problem
    assert "but the model reads 2 channels" in d.problem


def test_the_first_channel_may_be_the_one_that_is_missing(tmp_path):
    nnunet(tmp_path, channels=2)
    (tmp_path / "imagesTs" / "c_0000.nii.gz").unlink()
    (case,) = found(tmp_path / "imagesTs", channels=2)
    assert "c has no channel _0000, only c_0001.nii.gz" in case.problem


def test_one_channel_gives_its_case_its_name(tmp_path):
    nnunet(tmp_path, channels=1)
    for channels in (1, 3):
        cases = found(tmp_path / "imagesTs", channels=channels)
        assert shown(cases) == [("c", ".", ["c_0000.nii.gz"])]
        assert cases[0].problem is None  # a colour picture is one file of three channels


@pytest.mark.parametrize("channels", [1, 3])
def test_numbered_pictures_are_no_channels(tmp_path, channels):
    """As cameras write them, and as AMOS numbers its cases."""
    names = [f"IMG_{n:04d}.png" for n in range(4)] + [f"DSC_{n:04d}.png" for n in (0, 1, 12)]
    for name in names:
        picture(tmp_path / "photos" / name, RGB)
    cases = found(tmp_path / "photos", channels=channels)
    assert sorted(c.name for c in cases) == sorted(Path(name).stem for name in names)
    for n in (1, 4, 500):
        volume(tmp_path / "imagesTs" / f"amos_{n:04d}.nii.gz", blocks(0))
    assert [c.name for c in found(tmp_path / "imagesTs", channels=1)] == [
        "amos_0001", "amos_0004", "amos_0500"
    ]  # fmt: skip


def test_the_decathlon_whole_or_its_test_images(tmp_path):
    for folder, id in (("imagesTr", "x_001"), ("imagesTs", "x_002"), ("labelsTr", "x_001")):
        volume(tmp_path / folder / f"{id}.nii.gz", blocks(0, 1))
    content = {
        "modality": {"0": "T1"},
        "labels": {"0": "background", "1": "x"},
        "training": [{"image": "./imagesTr/x_001.nii.gz", "label": "./labelsTr/x_001.nii.gz"}],
        "test": ["./imagesTs/x_002.nii.gz"],
    }
    described(tmp_path, content)
    assert shown(found(tmp_path, channels=1)) == [
        ("x_001", "imagesTr", ["x_001.nii.gz"]), ("x_002", "imagesTs", ["x_002.nii.gz"])
    ]  # fmt: skip
    assert shown(found(tmp_path / "imagesTs", channels=1)) == [("x_002", ".", ["x_002.nii.gz"])]


def test_a_dataset_json_names_files_wherever_they_lie(tmp_path):
    for name in ("scans/p.nii.gz", "scans/q.nii.gz", "drawn/p.nii.gz"):
        volume(tmp_path / name, blocks(0, 1))
    entry = {"images": ["scans/q.nii.gz", "scans/p.nii.gz"], "label": "drawn/p.nii.gz"}
    content = {
        "channel_names": {"0": "q", "1": "p"}, "labels": {"background": 0, "x": 1},
        "file_ending": ".nii.gz", "dataset": {"case1": entry},
    }  # fmt: skip
    described(tmp_path, content)
    assert shown(found(tmp_path, channels=2)) == [("case1", "scans", ["q.nii.gz", "p.nii.gz"])]
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"labels": {"liver": "?"}}))
    assert len(found(tmp_path, channels=1)) == 3  # what cannot be understood says nothing


# --- pairs, ISIC, DRIVE, tables ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "others", "level"),
    [
        ("images", ["masks"], "."),
        ("imgs", ["gts", "labels"], "."),
        ("ISIC2018_Task1-2_Training_Input", ["ISIC2018_Task1_Training_GroundTruth"], "."),
        ("test/images", ["test/mask", "test/1st_manual", "test/2nd_manual"], "test"),
        ("part/imagesVal", ["part/labelsVal"], "part"),
    ],
)
def test_masks_beside_images_are_left_out_and_named(tmp_path, images, others, level):
    for folder in (images, *others):
        picture(tmp_path / folder / "a.png", GREY)
    picture(tmp_path / "more" / "masks" / "b.png", GREY)  # beside no images: may be anything
    cases, notes = find_image_cases([tmp_path], 1)
    assert {case[:2] for case in shown(cases)} == {("a", level), ("b", "more/masks")}
    assert len(notes) == 1
    for folder in others:
        assert f"{Path(folder).name}/ (1 file)" in notes[0]
        # who names the folder means it
        assert [c.name for c in found(tmp_path / folder, channels=1)] == ["a"]
    assert len(found(tmp_path, tmp_path / others[0], channels=1)) == 3


def test_superpixels_of_isic_are_no_images(tmp_path):
    folder = tmp_path / "ISIC2018_Task1-2_Test_Input"
    for name in ("ISIC_1.png", "ISIC_1_superpixels.png"):
        picture(folder / name, GREY)
    assert [c.name for c in found(folder)] == ["ISIC_1"]


def test_a_table_says_what_is_a_mask_and_names_its_cases(tmp_path):
    for name in ("p1.png", "p1_drawn.png", "area.png", "p2.png"):
        picture(tmp_path / name, GREY)
    row = "image,mask,valid,case\np1.png,p1_drawn.png,area.png,one\n"
    (tmp_path / "cases.csv").write_text(row, encoding="utf-8")
    assert [c.name for c in found(tmp_path)] == ["one", "p2"]
    (tmp_path / "cases.csv").write_text(row.replace("p1_drawn", "gone"), encoding="utf-8")
    assert len(found(tmp_path)) == 4


def test_nothing_but_masks_is_an_error(tmp_path):
    (tmp_path / "images").mkdir()
    picture(tmp_path / "masks" / "a.png", GREY)
    with pytest.raises(HyMUNetError, match=r"holds 1 mask and no image \(masks/ \(1 file\)\)"):
        found(tmp_path)
    with pytest.raises(HyMUNetError, match="no input is given"):
        found()


def test_single_images_are_what_they_were(tmp_path):
    for name in ("b.png", "deep/er/c.tif", "deep/d.nii.gz"):
        write(tmp_path / name)
    assert shown(found(tmp_path)) == [
        ("b", ".", ["b.png"]), ("d", "deep", ["d.nii.gz"]), ("c", "deep/er", ["c.tif"])
    ]  # fmt: skip
    twice = found(tmp_path / "b.png", tmp_path / "deep", tmp_path, str(tmp_path / "*.png"))
    assert len(twice) == 3
    assert found(tmp_path / "b.png") == [ImageCase("b", (tmp_path / "b.png",))]
    assert found(tmp_path / "b.png")[0].label == str(tmp_path / "b.png")


def test_all_inputs_that_are_not_there_are_named_at_once(tmp_path):
    inputs = [tmp_path / name for name in ("one.png", "two.png")]
    with pytest.raises(HyMUNetError, match=r"2 of 2 inputs do not exist.*one\.png, .*two\.png"):
        find_image_cases(inputs, 3)
