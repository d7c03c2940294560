"""A folder searched one folder at a time: the same images as all at once, and little in memory."""

import os
import shutil

import numpy as np
import pytest

from hymunet.data.image_cases import find_image_cases, walk_image_cases
from hymunet.data.input_layout import Layout
from hymunet.data.walk import Walk
from hymunet.errors import HyMUNetError
from tests.data.dicom_files import photo, save, slices, volume, write_series
from tests.data.drawn_files import picture
from tests.data.test_brats import case as brats_case
from tests.data.test_image_cases import GREY, nnunet


def dicom(folder):
    """One series in a folder, two in another, pictures in a third, a broken file."""
    write_series(folder / "ct", slices(volume((3, 6, 8))), name="IM{}")
    write_series(folder / "two", slices(volume((3, 6, 8))) + slices(volume((3, 6, 8))))
    save(photo(volume((6, 8))), folder / "photos" / "photo.dcm")
    (folder / "photos" / "cut.dcm").write_bytes(b"no DICOM")


def drawn_tree(root, seed):
    """Folders within folders, as archives and data sets have them, by chance."""
    rng = np.random.default_rng(seed)
    kinds = (
        lambda place: brats_case(place, "b", (0, 1)),
        lambda place: nnunet(place, channels=2),
        dicom,
        lambda place: [picture(place / f"{i}_000{i}.png", GREY) for i in range(3)],
        lambda place: [picture(place / name / "a.png", GREY) for name in ("images", "masks")],
        lambda place: picture(place / ".hidden" / "a.png", GREY),
        lambda place: picture(place / "deep" / "er" / "a b.png", GREY),
    )
    for number in range(6):
        place = root / "".join(
            f"{rng.choice(list('xyz'))}{number}/" for _ in range(rng.integers(3))
        )
        place.mkdir(parents=True, exist_ok=True)
        kinds[rng.integers(len(kinds))](place / f"k{number}")
    (root / "notes.txt").touch()
    return root


@pytest.mark.parametrize("seed", range(8))
def test_folder_by_folder_finds_what_is_found_at_once(tmp_path, seed):
    root = drawn_tree(tmp_path / "in", seed)
    for channels in (1, 4):
        expected, notes = find_image_cases([root], channels)
        said = []
        found = list(walk_image_cases(root, channels, said))
        assert sorted(found, key=lambda case: case.files[0]) == expected
        assert said == notes
    assert len(expected) >= 6


def test_folders_without_an_image_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    for words in ("holds no images", "holds 1 mask and no image"):
        with pytest.raises(HyMUNetError, match=words):
            list(walk_image_cases(tmp_path, 3, []))
        picture(tmp_path / "masks" / "a.png", GREY)


def test_what_a_folder_says_is_forgotten_behind_it(tmp_path):
    for patient in range(5):
        for name in ("images", "masks"):
            picture(tmp_path / f"p{patient}" / name / "a.png", GREY)
        brats_case(tmp_path / "brats", f"b{patient}", (0, 1))
    walk = Walk(tmp_path, forget=True)
    most = 0
    for _ in walk:
        said = walk.layout
        most = max(most, len(said.masks) + len(said.only_images) + len(said.cases))
    assert most == 2  # a folder of masks, and the folder beside it
    assert walk.layout == Layout()
    assert (walk.images, walk.masks) == (25, 10)


def test_a_link_to_an_image_in_the_folder_is_that_image(tmp_path):
    real = picture(tmp_path / "in" / "z" / "real.png", GREY)
    outside = picture(tmp_path / "outside.png", GREY)
    hidden = picture(tmp_path / "in" / ".cache" / "h.png", GREY)
    for name, target in (("a", real), ("b", outside), ("c", outside), ("d", hidden)):
        (tmp_path / "in" / f"{name}.png").symlink_to(target)
    cases, _ = find_image_cases([tmp_path / "in"], 3)
    assert [case.name for case in cases] == ["b", "d", "real"]
    # the list of an archive leaves out what has come by another name
    names = [case.name for case in walk_image_cases(tmp_path / "in", 3, [])]
    assert names == ["b", "c", "d", "real"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything may be read here")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    picture(tmp_path / "a.png", GREY)
    (tmp_path / "lost").mkdir(mode=0)
    try:
        _, notes = find_image_cases([tmp_path], 3)
        assert any("1 folder that may not be read passed over" in note for note in notes)
    finally:
        (tmp_path / "lost").chmod(0o700)
        shutil.rmtree(tmp_path / "lost")
