"""DRIVE as its owners pack it is recognised; every missing or wrong file is named."""

import shutil

import numpy as np
import pytest
from PIL import Image as Pillow

from hymunet.cli import main
from hymunet.data.drive_folder import check_drive
from hymunet.errors import HyMUNetError


def picture(path, size=(565, 584)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.zeros(size[::-1], np.uint8)).save(path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    root = tmp_path_factory.mktemp("drive") / "DRIVE"
    for n in range(21, 41):
        picture(root / f"training/images/{n}_training.tif")
        picture(root / f"training/1st_manual/{n}_manual1.gif")
        picture(root / f"training/mask/{n}_training_mask.gif")
    for n in range(1, 21):
        picture(root / f"test/images/{n:02d}_test.tif")
        picture(root / f"test/mask/{n:02d}_test_mask.gif")
    return root


@pytest.fixture
def drive(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "DRIVE")
    return tmp_path / "DRIVE"


def test_the_whole_set_is_counted(drive):
    for folder in (drive, drive.parent):
        found = check_drive(folder)
        assert (found.root, found.training, found.test) == (drive, 20, 20)
        assert found.test_with_truth == 0
    picture(drive / "test/1st_manual/01_manual1.gif")
    assert check_drive(drive).test_with_truth == 1
    shutil.rmtree(drive / "test")
    assert check_drive(drive).test == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "name",
    [
        "training/images/33_training.tif",
        "training/1st_manual/21_manual1.gif",
        "training/mask/40_training_mask.gif",
        "test/images/01_test.tif",
        "test/mask/20_test_mask.gif",
    ],
)
def test_each_file_is_asked_for_and_read(drive, name):
    path = drive / name
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(HyMUNetError, match=f"not the whole of DRIVE: {name} cannot be read"):
        check_drive(drive)
    picture(path, (584, 565))
    with pytest.raises(HyMUNetError, match=f"{name} has 584 x 565 pixels, not 565 x 584"):
        check_drive(drive)
    path.unlink()
    with pytest.raises(HyMUNetError, match=f"{name} is missing"):
        check_drive(drive)


def test_the_command_says_how_to_get_it_and_checks_it(drive, capsys, monkeypatch):
    monkeypatch.chdir(drive.parent)
    # not there: nothing after `&&` runs
    assert main(["download", "drive"]) == 1
    printed = capsys.readouterr().err
    assert "https://drive.grand-challenge.org" in printed
    assert "Staal" in printed
    assert "21_training.tif" in printed
    assert main(["download", "drive", "--output", "DRIVE"]) == 0
    assert "20 training cases, 20 test images (0 with vessels)" in capsys.readouterr().err
    (drive / "training").rename(drive / "train")
    assert main(["download", "drive", "--output", "DRIVE"]) == 1
    assert "holds no folder training/" in capsys.readouterr().err
