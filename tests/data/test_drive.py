"""DRIVE's folders: vessels are the mask, the field of view is what counts, never the other way."""

import numpy as np
import pytest
from PIL import Image as Pillow

from hymunet.data.case_io import read_case
from hymunet.data.formats import find_dataset
from hymunet.errors import HyMUNetError
from tests.data.drawn_files import picture

VESSELS = np.zeros((6, 8), np.uint8)
VESSELS[2, :] = 255
FIELD = np.zeros((6, 8), np.uint8)
FIELD[1:5, 1:7] = 255


def part(root, name, numbers, manual=True):
    for n in numbers:
        stem = f"{n:02d}_{name}"
        picture(root / name / "images" / f"{stem}.tif", np.full((6, 8, 3), n, np.uint8))
        picture(root / name / "mask" / f"{stem}_mask.gif", FIELD)
        if manual:
            picture(root / name / "1st_manual" / f"{n:02d}_manual1.gif", VESSELS)
    return root


@pytest.mark.parametrize("below", ["", "DRIVE"])
def test_training_and_test(tmp_path, below):
    root = part(part(tmp_path / below, "training", (22, 21)), "test", (1, 2))
    picture(root / "test" / "2nd_manual" / "01_manual2.gif", VESSELS)
    (root / "training" / "images" / "._21_training.tif").touch()
    dataset = find_dataset(tmp_path)
    assert dataset.name == "DRIVE"
    assert dataset.root == root
    assert dataset.channel_names == ("red", "green", "blue")
    assert dataset.label_names == {1: "vessel"}
    assert dataset.split == {
        "01_test": "test", "02_test": "test", "21_training": "train", "22_training": "train",
    }  # fmt: skip
    assert dataset.notes == (
        "mask is the field of view: pixels outside it do not count",
        "test/2nd_manual, by a second observer, is not used",
        "split taken from the folders' names",
    )
    for case in dataset.cases:
        image, mask, valid = read_case(case, 3, dataset.num_labels)
        assert (image.pixels == int(case.id[:2])).all()
        np.testing.assert_array_equal(mask.labels, VESSELS > 0)
        np.testing.assert_array_equal(valid, FIELD > 0)


def test_a_test_set_without_vessels_is_left_out_and_said(tmp_path):
    dataset = find_dataset(part(part(tmp_path, "training", (21,)), "test", (1, 2), manual=False))
    assert [case.id for case in dataset.cases] == ["21_training"]
    assert dataset.split is None
    assert "the pictures of test have no 1st_manual, not used" in dataset.notes
    # alone it is refused: its folder mask would pair, and is no segmentation
    for folder in (tmp_path / "test", part(tmp_path / "only", "test", (1,), manual=False)):
        with pytest.raises(HyMUNetError, match=r"has no 1st_manual, the vessels drawn by"):
            find_dataset(folder)


def test_one_part_by_itself(tmp_path):
    part(tmp_path, "training", (21,))
    dataset = find_dataset(tmp_path / "training")
    assert [case.id for case in dataset.cases] == ["21_training"]
    assert dataset.split is None


def test_a_split_table_goes_before_the_folders(tmp_path):
    part(part(tmp_path, "training", (21, 22)), "test", (1,))
    (tmp_path / "split.csv").write_text(
        "case,split\n21_training,train\n22_training,val\n01_test,test\n"
    )
    split = find_dataset(tmp_path).split
    assert split == {"21_training": "train", "22_training": "val", "01_test": "test"}


def test_flaws_are_named(tmp_path):
    part(tmp_path, "training", (21, 22))
    folder = tmp_path / "training"

    def refuse(words):
        with pytest.raises(HyMUNetError, match=words):
            find_dataset(tmp_path)

    stray = picture(folder / "1st_manual" / "vessels.gif", VESSELS)
    assert "1 entries of training/1st_manual are not DRIVE's" in find_dataset(tmp_path).notes[1]
    stray.unlink()
    twin = picture(folder / "images" / "21_training.png", np.zeros((6, 8, 3), np.uint8))
    refuse(r"holds both 21_training.png and 21_training.tif; keep one")
    twin.unlink()
    for name in (
        "images/22_training.tif",
        "1st_manual/22_manual1.gif",
        "mask/22_training_mask.gif",
    ):
        path = folder / name
        path.rename(folder / "away")
        refuse(r"the numbers 22 are not in all of images, 1st_manual and mask; expected for each")
        (folder / "away").rename(path)
    (folder / "mask").rename(folder / "masks")  # which would pair with the images
    refuse(r"the numbers 21, 22 are not in all")
    (folder / "masks").rename(folder / "mask")
    for path in (folder / "images").iterdir():
        path.rename(path.with_name(f"eye{path.name}"))
    refuse(r"the numbers 21, 22 are not in all")


def test_the_palette_of_a_gif_may_be_in_any_order(tmp_path):
    part(tmp_path, "training", (21,))
    turned = Pillow.fromarray((VESSELS == 0).astype(np.uint8), "P")
    turned.putpalette([255, 255, 255, 0, 0, 0])
    turned.save(tmp_path / "training" / "1st_manual" / "21_manual1.gif")
    _, mask, _ = read_case(find_dataset(tmp_path).cases[0], 3, 2)
    np.testing.assert_array_equal(mask.labels, VESSELS > 0)
