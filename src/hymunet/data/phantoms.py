"""Drawn dermoscopy pictures whose truth is exact: tests and the demo need no download.

A phantom has what makes real skin lesions hard to outline (soft and ragged borders, low contrast,
uneven light, hair, rulers, gel bubbles, stickers) and what they never have: a mask that is right to
the pixel, because picture and mask come from one function (`hymunet.data.phantom_lesion`).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from hymunet.data.phantom_distractors import add_distractors, add_lens_corners
from hymunet.data.phantom_fields import frame_grid, random_stream, smooth_noise
from hymunet.data.phantom_lesion import draw_lesion_on, draw_skin, lesion_contrast, lesion_shape
from hymunet.data.phantom_volumes import draw_volume
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_text, write_with

__all__ = ["Phantom", "draw_lesion", "draw_volume", "write_phantoms"]

# seeds of a folder are seed * _SEEDS_PER_FOLDER + index: folders with other seeds share no picture
_SEEDS_PER_FOLDER = 1_000_000


@dataclass(frozen=True)
class Phantom:
    """A drawn picture and its exact truth.

    Args:
        image: (3, height, width) uint8, red, green, blue.
        mask: (height, width) uint8, 1 inside the lesion, 0 outside.
    """

    image: np.ndarray
    mask: np.ndarray


def draw_lesion(seed: int, size: tuple[int, int] = (192, 256)) -> Phantom:
    """Draws the dermoscopy phantom number `seed`.

    The lesion is defined relative to the frame: the same seed at twice the size is the same
    lesion, finer. Its area runs from under 1 % to over 50 % of the frame. The mask is
    `level >= 0.5` of the opacity with which the lesion was drawn; hair, rulers and bubbles over
    the lesion do not change it. In frames below about 16 pixels a small lesion may fall between
    the pixel centres and leave the mask empty.

    The image is (3, height, width) uint8, as networks take it; for Pillow
    `np.moveaxis(phantom.image, 0, -1)`.

    Args:
        seed: Any whole number from 0; the same seed and size give the same bytes.
        size: (height, width) in pixels, each at least 1.

    Raises:
        HyMUNetError: If seed or size are not such numbers.
    """
    image, level = _draw(seed, size)
    return Phantom(image, (level >= 0.5).astype(np.uint8))


def _draw(
    seed: int, size: tuple[int, int], distractors: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The picture (3, height, width) uint8 and the lesion's opacity (height, width) float32."""
    seed = _check_seed(seed)
    size = _check_size(size)
    y, x = frame_grid(size)
    shape = lesion_shape(seed, y, x)
    contrast = lesion_contrast(seed, shape.radius)
    picture = draw_skin(seed, y, x, contrast)
    picture = draw_lesion_on(picture, seed, y, x, shape, contrast)
    _shine(picture, seed, y, x)
    if distractors:
        add_distractors(picture, seed, y, x, shape)
        add_lens_corners(picture, seed, y, x, shape)
    rng = random_stream(seed, 7)
    grain = rng.uniform(1.0, 3.2)
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    # mostly brightness, a little colour, as a camera's grain
    noise = np.float32(0.5 * grain) * noise + np.float32(0.9 * grain) * noise[:1]
    picture += noise
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), shape.level


def _shine(picture: np.ndarray, seed: int, y: np.ndarray, x: np.ndarray) -> None:
    """Uneven light, vignette, white balance and exposure, in place."""
    rng = random_stream(seed, 8)
    slope = rng.normal(0, 0.11, 2).astype(np.float32)
    vignette = np.float32(rng.choice([0.1, 0.35, 0.75], p=[0.4, 0.4, 0.2]) * rng.uniform(0.6, 1.2))
    light = 1 + slope[0] * y + slope[1] * x - vignette * (y * y + x * x)
    light += np.float32(0.025) * smooth_noise(rng, y, x, 2.0)
    balance = 1 + rng.normal(0, [0.03, 0.02, 0.05])
    exposure = np.exp(rng.uniform(-0.16, 0.12))
    for channel in range(3):
        picture[channel] *= light * np.float32(balance[channel] * exposure)


def _check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise HyMUNetError(f"seed must be a whole number from 0, got {seed!r}; choose such a one")
    return int(seed)


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise HyMUNetError(
            f"size must be (height, width) in pixels, two whole numbers from 1, got {size!r}; "
            "write for example (192, 256)"
        )
    return int(sides[0]), int(sides[1])


def write_phantoms(
    folder: Path,
    count: int,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
) -> Path:
    """Writes a data set of phantoms: images/*.png, masks/*.png (0 or 255) and split.csv.

    Picture number i is `draw_lesion(seed * 1_000_000 + i, its size)`, so folders written with
    different seeds have no picture in common. Repeating a call, after an interruption too, gives
    the same files; split.csv comes last.

    Args:
        folder: Created if need be; may hold nothing but what this same call writes.
        count: Number of phantoms, 1 to 1 000 000.
        size: (height, width) of all of them; None: sides vary from 160 to 256 between cases.
        seed: Any whole number from 0.
        val_fraction: Share of the cases whose split is "val"; at least one case if above 0.
        test_fraction: The same for "test"; the rest is "train", at least one case.

    Returns:
        The folder.

    Raises:
        HyMUNetError: If an argument is out of range, the folder holds other files or cannot be
            written.
    """
    seed = _check_seed(seed)
    size = None if size is None else _check_size(size)
    whole = isinstance(count, (int, np.integer)) and not isinstance(count, bool)
    if not whole or not 1 <= count <= _SEEDS_PER_FOLDER:
        raise HyMUNetError(
            f"count must be a whole number from 1 to {_SEEDS_PER_FOLDER}, got {count!r}; "
            "60 are enough to try everything"
        )
    names = [f"phantom_{i:04d}" for i in range(count)]
    split = _split(count, val_fraction, test_fraction, seed)
    folder = Path(folder)
    _refuse_other_files(folder, names)
    images, masks = make_folder(folder / "images"), make_folder(folder / "masks")
    rng = random_stream(seed, 11)
    # multiples of 8, so that a quarter-size feature map has no odd sides to hide a mistake in
    sides = 8 * rng.integers(20, 33, (count, 2))
    for i, name in enumerate(names):
        phantom = draw_lesion(
            seed * _SEEDS_PER_FOLDER + i, size or (int(sides[i, 0]), int(sides[i, 1]))
        )
        picture = PILImage.fromarray(np.ascontiguousarray(phantom.image.transpose(1, 2, 0)))
        write_with(images / f"{name}.png", picture.save)
        write_with(masks / f"{name}.png", PILImage.fromarray(phantom.mask * 255).save)
    rows = [f"{name},{part}\n" for name, part in zip(names, split, strict=True)]
    write_text(folder / "split.csv", "case,split\n" + "".join(rows))
    return folder


def _split(count: int, val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """ "train", "val" or "test" for each case, drawn by `seed`."""
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise HyMUNetError(
                f"{name} must be from 0 to below 1, got {fraction!r}; 0.15 is a good choice"
            )
    val = max(1, round(count * val_fraction)) if val_fraction else 0
    test = max(1, round(count * test_fraction)) if test_fraction else 0
    if val + test >= count:
        raise HyMUNetError(
            f"{count} phantoms leave none to train on after {val} for validation and {test} for "
            "the test; ask for more phantoms or smaller fractions"
        )
    parts = np.array(["train"] * (count - val - test) + ["val"] * val + ["test"] * test)
    return [str(part) for part in random_stream(seed, 12).permutation(parts)]


def _refuse_other_files(folder: Path, names: list[str]) -> None:
    """Raises if `folder` holds anything that the call for `names` would not write itself."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise HyMUNetError(f"{folder} is a file, expected a folder; choose another name")
    expected = {f"{part}/{name}.png" for part in ("images", "masks") for name in names}
    expected.add("split.csv")
    found = (
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, files in os.walk(folder)
        for name in files
    )
    others = sorted(name for name in found if name not in expected)
    if others:
        shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        raise HyMUNetError(
            f"{folder} must be empty or new to write phantoms into, but holds {len(others)} other "
            f"files ({shown}); choose another folder"
        )
