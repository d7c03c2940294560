"""DRIVE, retinal vessels: cannot be downloaded by a program; says how, and checks what one has."""

from dataclasses import dataclass
from pathlib import Path

from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError

SIZE = (565, 584)  # width, height
PAGE = "https://drive.grand-challenge.org"
TERMS = (
    "DRIVE: Digital Retinal Images for Vessel Extraction\n"
    "terms: free for research and education; not to be copied or passed on; to be had from its own "
    f"site only ({PAGE})\n"
    "cite: J. Staal, M. D. Abramoff, M. Niemeijer, M. A. Viergever, B. van Ginneken: Ridge-Based "
    "Vessel Segmentation in Color Images of the Retina. IEEE Transactions on Medical Imaging "
    "23(4), 501-509 (2004). https://doi.org/10.1109/TMI.2004.825627"
)
_NUMBERS = {"training": range(21, 41), "test": range(1, 21)}


@dataclass(frozen=True)
class DriveFolder:
    """What a DRIVE folder holds.

    Args:
        root: The folder with training/ and test/.
        training: Cases to train on: image, vessels, field of view.
        test: Images of the test part.
        test_with_truth: How many of them have vessels; the grand-challenge site keeps them back.
    """

    root: Path
    training: int
    test: int
    test_with_truth: int


def how_to_get(folder: Path) -> str:
    """What a person does to get DRIVE into `folder`."""
    return (
        "A program cannot fetch it: its owners ask everybody to register.\n"
        f"1. Register at {PAGE} and join the challenge.\n"
        "2. Download the training and the test archive, and unpack them so that there are\n"
        f"   {folder / 'training' / 'images' / '21_training.tif'} ... 40_training.tif\n"
        f"   {folder / 'training' / '1st_manual' / '21_manual1.gif'} ...   the vessels\n"
        f"   {folder / 'training' / 'mask' / '21_training_mask.gif'} ...   the field of view\n"
        f"   {folder / 'test' / 'images' / '01_test.tif'} ... 20_test.tif, and test/mask/\n"
        f"3. hymunet download drive --output {folder}\n"
        "   checks that all is there and can be read."
    )


def check_drive(folder: Path) -> DriveFolder:
    """Reads every picture of a DRIVE folder once.

    Args:
        folder: With training/ and perhaps test/ inside, or with the folder DRIVE that has them.

    Returns:
        What is there. test/ may be missing, and the vessels of test cases.

    Raises:
        HyMUNetError: If something else is missing, cannot be read, or has not 565 x 584 pixels.
    """
    root = folder if (folder / "training").is_dir() else folder / "DRIVE"
    lacking: list[str] = []
    if not (root / "training").is_dir():
        raise HyMUNetError(f"{folder} holds no folder training/.\n{how_to_get(folder)}")
    for n in _NUMBERS["training"]:
        for name in (
            f"images/{n:02d}_training.tif",
            f"1st_manual/{n:02d}_manual1.gif",
            f"mask/{n:02d}_training_mask.gif",
        ):
            lacking += _fault(root / "training" / name)
    tests = truths = 0
    if (root / "test").is_dir():
        tests = len(_NUMBERS["test"])
        for n in _NUMBERS["test"]:
            lacking += _fault(root / "test" / f"images/{n:02d}_test.tif")
            lacking += _fault(root / "test" / f"mask/{n:02d}_test_mask.gif")
            truth = root / "test" / f"1st_manual/{n:02d}_manual1.gif"
            if truth.exists():
                truths += 1
                lacking += _fault(truth)
    if lacking:
        raise HyMUNetError(
            f"{root} is not the whole of DRIVE: {listed(lacking, 4)}; unpack its archives again "
            f"({PAGE})"
        )
    return DriveFolder(root, len(_NUMBERS["training"]), tests, truths)


def _fault(path: Path) -> list[str]:
    from PIL import Image

    place = "/".join(path.parts[-3:])
    try:
        with Image.open(path) as picture:
            if picture.size != SIZE:
                return [f"{place} has {picture.width} x {picture.height} pixels, not 565 x 584"]
            picture.load()
    except FileNotFoundError:
        return [f"{place} is missing"]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return [f"{place} cannot be read ({error})"]
    return []
