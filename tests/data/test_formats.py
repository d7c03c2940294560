"""Finding data: every layout with its cases, every flaw with its message, no case ever dropped."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from hymunet.data.case import Case
from hymunet.data.formats import find_dataset, find_others
from hymunet.data.image_cases import find_image_cases
from hymunet.errors import HyMUNetError


def image_files(inputs):
    """Files of the images that are found."""
    return [file for case in find_image_cases(inputs, 3)[0] for file in case.files]


def picture(path: Path, shape=(6, 8), value=1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


def pairs(root: Path, stems="abc", images="images", masks="masks", ending="") -> Path:
    for stem in stems:
        picture(root / images / f"{stem}.png")
        picture(root / masks / f"{stem}{ending}.png")
    return root


def isic(root: Path, phase="Training", numbers=(3, 1, 2)) -> Path:
    for n in numbers:
        picture(root / f"ISIC2018_Task1-2_{phase}_Input" / f"ISIC_{n:07d}.jpg")
        truth = root / f"ISIC2018_Task1_{phase}_GroundTruth"
        picture(truth / f"ISIC_{n:07d}_segmentation.png")
    return root


def ids(dataset):
    return [case.id for case in dataset.cases]


# --- ISIC 2018 --------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", [False, True])
def test_isic_as_it_is_unpacked(tmp_path, parent):
    root = isic(tmp_path / "isic" if parent else tmp_path)
    inputs = root / "ISIC2018_Task1-2_Training_Input"
    (inputs / "ATTRIBUTION.txt").touch()
    picture(inputs / "ISIC_0000001_superpixels.png")
    dataset = find_dataset(tmp_path)
    assert dataset.name == "ISIC 2018 Task 1"
    assert dataset.root == root
    assert ids(dataset) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
    assert dataset.cases[0].channels == (inputs / "ISIC_0000001.jpg",)
    assert dataset.cases[0].label == (
        root / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_0000001_segmentation.png"
    )
    assert dataset.split is None
    assert "2 entries of ISIC2018_Task1-2_Training_Input" in dataset.notes[0]
    assert "ATTRIBUTION.txt, ISIC_0000001_superpixels.png" in dataset.notes[0]


def test_the_phases_of_isic_are_its_split(tmp_path):
    isic(tmp_path)
    isic(tmp_path, "Validation", [11])
    isic(tmp_path, "Test", [21, 22])
    dataset = find_dataset(tmp_path)
    assert len(dataset.cases) == 6
    assert dataset.split == {
        **{f"ISIC_{n:07d}": "train" for n in (1, 2, 3)},
        "ISIC_0000011": "val",
        "ISIC_0000021": "test",
        "ISIC_0000022": "test",
    }
    # a split.csv goes before the folders' names
    rows = "".join(f"{id},train\n" for id in ids(dataset))
    (tmp_path / "split.csv").write_text("case,split\n" + rows)
    assert set(find_dataset(tmp_path).split.values()) == {"train"}


def test_isic_inputs_without_truth_are_said_or_refused(tmp_path):
    picture(tmp_path / "ISIC2018_Task1-2_Test_Input" / "ISIC_0000009.jpg")
    with pytest.raises(HyMUNetError, match=r"Test_Input; expected an _Input folder and the"):
        find_dataset(tmp_path)
    isic(tmp_path)
    dataset = find_dataset(tmp_path)
    assert len(dataset.cases) == 3
    assert dataset.notes == ("folders without masks, not used: ISIC2018_Task1-2_Test_Input",)


# --- folder pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("Image", "Mask"),
        ("imgs", "labels"),
        ("imagesTr", "labelsTr"),
        ("img", "annotations"),
        ("images", "ground_truth"),
        ("images", "GT"),
        ("images", "segmentations"),
    ],
)
@pytest.mark.parametrize("ending", ["", "_mask", "_seg", "_segmentation", "_gt", "_label", "-Mask"])
def test_usual_names_of_folders_and_masks(tmp_path, images, masks, ending):
    dataset = find_dataset(pairs(tmp_path, images=images, masks=masks, ending=ending))
    assert dataset.name == "folder pairs"
    assert ids(dataset) == ["a", "b", "c"]
    for case in dataset.cases:
        assert case.channels == (tmp_path / images / f"{case.id}.png",)
        assert case.label == tmp_path / masks / f"{case.id}{ending}.png"


def test_two_folders_by_name(tmp_path):
    pairs(tmp_path, images="left", masks="right")
    for images, masks in (
        (tmp_path / "left", tmp_path / "right"),
        (Path("left"), Path("right")),
    ):
        assert ids(find_dataset(tmp_path, images, masks)) == ["a", "b", "c"]
    with pytest.raises(HyMUNetError, match=r"only one of --images and --masks"):
        find_dataset(tmp_path, images=Path("left"))
    with pytest.raises(HyMUNetError, match=r"folder middle is neither here .* nor in"):
        find_dataset(tmp_path, Path("left"), Path("middle"))


def test_an_image_that_ends_like_a_mask_pairs_as_it_stands(tmp_path):
    pairs(tmp_path, ["x_seg", "x"])
    dataset = find_dataset(tmp_path)
    assert {case.id: case.label.name for case in dataset.cases} == {
        "x": "x.png",
        "x_seg": "x_seg.png",
    }


def test_volumes_pair_by_their_double_suffix(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "h_001.nii.gz").touch()
    (tmp_path / "imagesTs").mkdir()
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["h_001"]
    assert dataset.notes == ("folders without masks, not used: imagesTs",)


def test_train_val_and_test_folders_are_the_split(tmp_path):
    pairs(tmp_path / "train", "ab")
    pairs(tmp_path / "validation", "c")
    pairs(tmp_path / "test", "d")
    dataset = find_dataset(tmp_path)
    assert dataset.split == {"a": "train", "b": "train", "c": "val", "d": "test"}
    pairs(tmp_path / "test", "a")
    with pytest.raises(HyMUNetError, match=r"1 case has a name that another one has: a.png"):
        find_dataset(tmp_path)
    (tmp_path / "validation" / "masks").rename(tmp_path / "validation" / "elsewhere")
    with pytest.raises(HyMUNetError, match=r"has images in images/ but no folder of masks"):
        find_dataset(tmp_path)  # not: the cases of train and test alone


def test_files_that_are_no_images_are_said(tmp_path):
    pairs(tmp_path)
    (tmp_path / "images" / "readme.txt").touch()
    (tmp_path / "images" / ".DS_Store").touch()
    picture(tmp_path / "images" / "more" / "z.png")
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["a", "b", "c"]
    assert dataset.notes == (
        "3 entries of images are no images, ignored: .DS_Store, more, readme.txt",
    )


def test_flaws_of_pairs_are_named(tmp_path):
    def refuse(words):
        with pytest.raises(HyMUNetError, match=words):
            find_dataset(tmp_path)

    pairs(tmp_path)
    extra = picture(tmp_path / "images" / "d.png")
    refuse(r"1 of 4 images has no mask \(d\).*add what is missing or move the rest away")
    orphan = picture(tmp_path / "masks" / "e_mask.png")
    refuse(r"images has no mask \(d\) and 1 of 4 masks has no image \(e_mask.png\)")
    extra.unlink()
    orphan.unlink()
    twin = picture(tmp_path / "images" / "a.jpg")
    refuse(r"file in .*images has a name that another one has: a.jpg and a.png")
    twin.unlink()
    twin = picture(tmp_path / "masks" / "a_mask.png")
    refuse(r"image a has 2 masks \(a.png, a_mask.png\)")
    twin.unlink()
    picture(tmp_path / "labels" / "a.png")
    refuse(r"several folders of images or masks \(images, labels, masks\)")


def test_flaws_of_places_are_named(tmp_path):
    with pytest.raises(HyMUNetError, match=r"no file or folder .*gone"):
        find_dataset(tmp_path / "gone")
    with pytest.raises(HyMUNetError, match=r"is empty: expected images/ and masks/"):
        find_dataset(tmp_path)
    with pytest.raises(HyMUNetError, match=r"a.png is a file, not a folder of data"):
        find_dataset(picture(tmp_path / "a.png"))
    with pytest.raises(HyMUNetError, match=r"holds no data set that is recognised"):
        find_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(HyMUNetError, match=r"has images in images/ but no folder of masks"):
        find_dataset(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(HyMUNetError, match=r"images is empty; expected images directly in it"):
        find_dataset(tmp_path)
    (tmp_path / "images" / "a.txt").touch()
    with pytest.raises(HyMUNetError, match=r"images holds none of 1 file or folder"):
        find_dataset(tmp_path)


def test_several_data_sets_are_not_guessed_between(tmp_path):
    pairs(tmp_path / "one")
    assert find_dataset(tmp_path).root == tmp_path / "one"
    isic(tmp_path / "two")
    (tmp_path / "three" / "masks").mkdir(parents=True)  # broken, but not the only one
    with pytest.raises(HyMUNetError, match=r"2 data sets \(one, two\); name the one you mean"):
        find_dataset(tmp_path)


# --- CSV --------------------------------------------------------------------------------------


def test_a_csv_file_with_all_columns(tmp_path):
    pairs(tmp_path, images="x", masks="y")
    picture(tmp_path / "fov.png")
    (tmp_path / "cases.csv").write_text(
        "Image,mask,case,split,group,valid,age\n"
        "x/b.png,y\\b.png,two,validation,p1,fov.png,50\n"
        "x/a.png,y/a.png,one,train,,,\n"
        "x/c.png,y/c.png,,test,p1,,\n",
        encoding="utf-8-sig",
    )
    for data in (tmp_path / "cases.csv", tmp_path):
        dataset = find_dataset(data)
        assert dataset.name == "CSV"
        assert dataset.cases == (
            Case("c", (tmp_path / "x/c.png",), tmp_path / "y/c.png", None, "p1"),
            Case("one", (tmp_path / "x/a.png",), tmp_path / "y/a.png"),
            Case("two", (tmp_path / "x/b.png",), tmp_path / "y/b.png", tmp_path / "fov.png", "p1"),
        )
        assert dataset.split == {"one": "train", "two": "val", "c": "test"}
        assert dataset.notes == ("columns not used: age", "split taken from cases.csv")


def test_flaws_of_csv_files_are_named(tmp_path):
    pairs(tmp_path, images="x", masks="y")
    path = tmp_path / "cases.csv"
    for text, words in (
        ("image,label\nx/a.png,y/a.png\n", r"columns image, label; expected image and mask"),
        (
            "image,mask\nx/a.png,y/a.png\nx/d.png,y/d.png\n",
            r"names 2 files that do not exist: x/d.png, y/d.png; paths are relative to",
        ),
        ("image,mask\nx/a.png,\n", r"case 1 has no mask"),
        ("image,mask\nx/a.png,y/a.png\nx/a.png,y/b.png\n", r"1 case in .*another one has"),
        ("image,mask,split\nx/a.png,y/a.png,dev\n", r"names the parts 'dev'"),
        ("image,mask,split\nx/a.png,y/a.png,train\nx/b.png,y/b.png,\n", r"names the parts ''"),
        ("image,mask,case\nx/a.png,y/a.png,p/1\n", r"the case 'p/1' cannot name a file"),
    ):
        path.write_text(text)
        with pytest.raises(HyMUNetError, match=words):
            find_dataset(path)


def test_other_tables_do_not_disturb(tmp_path):
    pairs(tmp_path, images="x", masks="y")
    (tmp_path / "cases.csv").write_text("image,mask\nx/a.png,y/a.png\n")
    (tmp_path / "patients.csv").write_bytes("name\nMüller\n".encode("latin-1"))
    assert ids(find_dataset(tmp_path)) == ["a"]
    (tmp_path / "more.csv").write_text("image,mask\nx/b.png,y/b.png\n")
    with pytest.raises(HyMUNetError, match=r"2 CSV files .*\(cases.csv, more.csv\)"):
        find_dataset(tmp_path)


# --- split.csv --------------------------------------------------------------------------------


def test_a_split_table_beside_the_data_is_read_and_checked(tmp_path):
    pairs(tmp_path)
    path = tmp_path / "split.csv"
    path.write_text("case,split\nb,Validation\na,train\nc,testing\n")
    dataset = find_dataset(tmp_path)
    assert dataset.split == {"a": "train", "b": "val", "c": "test"}
    assert dataset.notes == ("split taken from split.csv",)
    for text, words in (
        ("case,split\na,train\nb,val\n", r"split.csv leaves out 1 case of the data: c"),
        ("case,split\na,train\nb,val\nc,test\nd,test\n", r"names 1 case that the data .*: d"),
        ("case,split\na,train\nb,val\nc,later\n", r"names the parts 'later'"),
    ):
        path.write_text(text)
        with pytest.raises(HyMUNetError, match=words):
            find_dataset(tmp_path)


# --- prediction -------------------------------------------------------------------------------


def test_inputs_of_a_prediction(tmp_path, monkeypatch):
    names = ["b.png", "a.JPG", "deep/er/c.tif", "deep/d.nii.gz", "deep/.hidden/e.png", "._a.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    below = [tmp_path / name for name in ("a.JPG", "b.png", "deep/d.nii.gz", "deep/er/c.tif")]
    assert image_files([tmp_path]) == below
    assert image_files([tmp_path / "b.png", tmp_path, str(tmp_path / "*.png")]) == below
    assert image_files([str(tmp_path / "**" / "*.tif")]) == [tmp_path / "deep/er/c.tif"]
    monkeypatch.chdir(tmp_path)
    assert image_files(["b.png", tmp_path / "b.png", "./deep/../b.png"]) == [Path("b.png")]
    odd = tmp_path / "scan [1].png"
    odd.touch()
    assert image_files([odd]) == [odd]  # a name first, a pattern second
    for inputs, words in (
        ([], r"no input is given"),
        (["gone.png"], r"gone.png does not exist and matches nothing"),
        (["gone.png", "b.png", "*.bmp", "lost/"], r"3 of 4 inputs do .*: gone.png, \*.bmp, lost/"),
        (["notes.txt"], r"notes.txt is no image by its name; expected .png.* or DICOM \(.dcm"),
        (["*.txt"], r"holds no images"),
        ([tmp_path / "deep" / ".hidden", "n*"], r"n\* holds no images"),
    ):
        with pytest.raises(HyMUNetError, match=words):
            image_files(inputs)


def test_names_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    name = os.fsdecode(b"caf\xe9.png")  # Latin-1, as old disks have it
    try:
        for folder in ("images", "masks"):
            Pillow.new("L", (4, 4)).save(tmp_path / folder / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for call in (lambda: find_dataset(tmp_path), lambda: image_files([tmp_path])):
        with pytest.raises(HyMUNetError, match=r"caf.*not valid UTF-8"):
            call()


def test_a_link_to_nothing_is_not_passed_over(tmp_path):
    Pillow.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    assert image_files([tmp_path]) == [tmp_path / "a.png", tmp_path / "b.png"]


def test_what_is_no_image_is_listed(tmp_path):
    Pillow.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "scan.czi").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "more").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "more")
    assert [path.name for path in find_others([tmp_path])] == ["linked", "scan.czi"]
