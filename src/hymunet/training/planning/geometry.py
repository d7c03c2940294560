"""Rules on the grid that the network works on: whole pictures or windows, sizes, spacing."""

import math

import numpy as np
import torch

from hymunet.data.survey import CaseSurvey
from hymunet.errors import HyMUNetError
from hymunet.network.hymunet import PRESETS
from hymunet.training.planning.look import Look, by

LARGEST_SIDE = 256  # of a picture that is squeezed; more costs time and gave nothing on ISIC 2018
PATCH_PIXELS = {2: 256**2, 3: 64**3}
SMALL_STRUCTURE = 16  # pixels across, below which squeezing would lose it
MANY = 5  # structures in a typical picture
ANISOTROPIC = 3.0
HALVED_FROM = 64  # voxels a side


def check_given(look: Look) -> None:
    """Refuses what is given for the other kind of image.

    Raises:
        HyMUNetError: Saying what these images are, and which option is theirs.
    """
    given = look.given
    for_pictures = [
        f"--{name.replace('_', '-')} {given[name]}"
        for name in ("image_size", "resize")
        if given.get(name) not in (None, "native", "window")
    ]
    if look.dims == 3 and for_pictures:
        raise HyMUNetError(
            f"{' and '.join(for_pictures)} would bring pictures to a square, but these are "
            "volumes, which are read in windows: give --patch-size DEPTH HEIGHT WIDTH, or nothing"
        )
    policy = given.get("resize")
    belongs = {"image_size": ("squeeze", "letterbox"), "patch_size": ("window",)}
    for name, policies in belongs.items():
        if given.get(name) is not None and policy not in (None, *policies):
            raise HyMUNetError(
                f"--{name.replace('_', '-')} belongs to --resize {' and '.join(policies)}, but "
                f"--resize is {policy}: leave one of them out"
            )
    if given.get("image_size") is not None and given.get("patch_size") is not None:
        raise HyMUNetError(
            "--image-size squeezes a whole picture and --patch-size reads it in windows: give one "
            "of them"
        )
    for name in ("patch_size", "spacing_mm"):
        if given.get(name) is not None and len(given[name]) != look.dims:
            raise HyMUNetError(
                f"--{name.replace('_', '-')} has {len(given[name])} numbers, and these images have "
                f"{look.dims} axes: give one for each"
            )


def resize(look: Look) -> tuple[str, str]:
    """Policy of `PreprocessConfig`."""
    for option, policy in (("patch_size", "window"), ("image_size", "squeeze")):
        if look.given.get(option) is not None:
            return policy, f"--{option.replace('_', '-')} is given"
    if look.origin is not None and look.origin.preprocess is not None:
        return look.origin.preprocess.resize, f"as {look.origin.name} was trained"
    if look.dims == 3:
        return "window", "volumes are read in windows, at one spacing"
    longest = np.array([max(row.size) for row in look.rows])
    scale = min(1.0, LARGEST_SIDE / float(np.median(longest)))
    across = [_across(row) for row in look.rows if row.pieces]
    if across:
        typical = float(np.median(across))
        if typical * scale < SMALL_STRUCTURE and scale < 1:
            return "window", (
                f"structures are {typical:.0f} px across: squeezed to {LARGEST_SIDE} px they would "
                "be lost, so pictures are read in windows at their own resolution"
            )
        many = float(np.median([row.pieces for row in look.rows])) >= MANY
        if many and longest.max() > 1.5 * longest.min():
            return "window", (
                "many structures in pictures of different sizes: at their own resolution a "
                "structure is as large in each"
            )
    return "squeeze", "structures fill much of the frame, so the whole of it is seen at once"


def spacing_mm(look: Look) -> tuple[tuple[float, ...] | None, str]:
    """Of the windows.

    Raises:
        HyMUNetError: If one is given for images that are not read in windows.
    """
    if look["resize"] != "window":
        if (given := look.given.get("spacing_mm")) is not None:
            shown = " ".join(f"{side:g}" for side in given)
            raise HyMUNetError(
                f"--spacing-mm {shown} resamples what is read in windows, but these pictures are "
                f"seen whole, whatever their spacing (--resize {look['resize']}): leave it out, or "
                "read them in windows (--resize window)"
            )
        return None, "pictures are resized, whatever their spacing"
    if look.origin is not None and look.origin.preprocess is not None:
        return look.origin.preprocess.spacing_mm, f"as {look.origin.name} was trained"
    if look.dims == 2:
        return None, "pictures are left on their own pixels"
    known = [row.spacing_mm for row in look.rows if row.spacing_mm is not None]
    if len(known) < len(look.rows):
        return None, "not all volumes say how large their voxels are, so none is resampled"
    table = np.array(known)
    middle = np.median(table, axis=0)
    if np.allclose(table, middle, rtol=0.01):
        return None, f"all volumes have voxels of {by(middle)} mm already"
    why, coarse = "the median", int(middle.argmax())
    finer = float(np.delete(middle, coarse).max())
    if middle[coarse] > ANISOTROPIC * finer:
        # Isensee et al. 2021: the median would throw away what the finer half resolves
        middle[coarse] = max(float(np.percentile(table[:, coarse], 10)), finer)
        why = "the median, and the finest tenth along the coarse axis"
    rounded = tuple(float(f"{side:.4g}") for side in middle)
    return rounded, f"{why} of spacings from {by(table.min(axis=0))} to {by(table.max(axis=0))}"


def stem_stride(look: Look) -> tuple[int, str]:
    """At what fraction of the resolution the first stage works."""
    if look.origin is not None:
        return look.origin.architecture.stem_stride, f"{look.origin.name}'s"
    if look["resize"] == "window" and look.dims == 3 and min(look.median_size()) < HALVED_FROM:
        return 1, (
            f"volumes of {by(look.median_size())} voxels are too small to be halved before the "
            "first stage"
        )
    return 2, "the first stage works at half the resolution"


def image_size(look: Look) -> tuple[int | None, str]:
    """Side of the square that pictures are brought to."""
    if look["resize"] in ("window", "native"):
        return None, "read in windows" if look["resize"] == "window" else "left as they are"
    if look.origin is not None and look.origin.preprocess is not None:
        size = look.origin.preprocess.image_size
        if size is not None and len(set(size)) == 1:
            return size[0], f"as {look.origin.name} was trained"
    side = float(np.median([max(row.size) for row in look.rows]))
    size_ = min(LARGEST_SIDE, max(32, 32 * math.ceil(side / 32)))
    if size_ < side:
        return size_, f"pictures are {side:.0f} px wide or high (median); more costs time"
    return size_, f"as large as the pictures ({side:.0f} px, median)"


def patch_size(look: Look) -> tuple[tuple[int, ...] | None, str]:
    """Sides of a window."""
    if look["resize"] != "window":
        return None, "the whole picture is seen at once"
    if look.origin is not None and look.origin.preprocess is not None:
        patch = look.origin.preprocess.patch_size
        if patch is not None:
            return patch, f"as {look.origin.name} was trained"
    multiple, most = stride(look), PATCH_PIXELS[look.dims] * (4 if look.on_gpu else 1)
    size = np.array(look.median_size(), dtype=float)
    if np.prod(size) <= most:
        whole = tuple(math.ceil(side / multiple) * multiple for side in size.tolist())
        return whole, f"a window holds a whole image ({by(size)}, median)"
    sides = size.copy()
    while np.prod(sides) > most:  # the longest side gives way first: windows near to cubes
        sides[sides.argmax()] *= 0.97
    patch = tuple(max(1, round(side / multiple)) * multiple for side in sides.tolist())
    unit = "pixels" if look.dims == 2 else "voxels"
    return patch, f"the largest of the images' shape in about {most:,} {unit}"


def stride(look: Look) -> int:
    """Of the network that has been chosen."""
    if look.origin is not None:
        return look.origin.architecture.stride
    with torch.device("meta"):  # sizes only
        network = PRESETS[look["preset"]](
            spatial_dims=look.dims,
            stem_stride=look["stem_stride"],
            stages=look.given.get("stages") or "CCMM",
        )
    return network.config.stride


def _across(row: CaseSurvey) -> float:
    """Diameter of the median structure, taken as round."""
    return 2 * math.sqrt(row.piece_area / math.pi)
