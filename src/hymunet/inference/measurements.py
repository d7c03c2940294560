"""What a mask says in numbers: area, perimeter, bounding box, parts; in mm where the spacing is known."""

import math
from typing import Any

import numpy as np
from scipy import ndimage


def measure(
    mask: np.ndarray, classes: list[str], spacing_mm: tuple[float, ...] | None = None
) -> list[dict[str, Any]]:
    """One row a class.

    Args:
        mask: Class indices, (height, width) or (depth, height, width); 0 is the background.
        classes: Names of the classes 1, 2, ...
        spacing_mm: Size of a pixel along each axis; None: lengths are in pixels only.

    Returns:
        Dictionaries with `class`, `area_px` (or `volume_voxels`), `fraction` of the frame, `parts`
        (connected, corners touching), `bounding_box` (first index and one past the last, along each
        axis; None when empty), `centroid`, in 2-D `perimeter_px` and `diameter_px` (of the circle of
        equal area), and the same in mm, mm2 or mm3 when the spacing is known.
    """
    return [
        {"class": name} | _measure_one(mask == index, spacing_mm)
        for index, name in enumerate(classes, start=1)
    ]


def _measure_one(mask: np.ndarray, spacing_mm: tuple[float, ...] | None) -> dict[str, Any]:
    count = int(mask.sum())
    parts = int(ndimage.label(mask, structure=np.ones([3] * mask.ndim))[1]) if count else 0
    row: dict[str, Any] = {
        "area_px" if mask.ndim == 2 else "volume_voxels": count,
        "fraction": count / mask.size,
        "parts": parts,
        "bounding_box": None,
        "centroid": None,
    }
    if count:
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        row["bounding_box"] = [[axis.start, axis.stop] for axis in box]
        row["centroid"] = [round(float(c), 2) for c in ndimage.center_of_mass(mask)]
    if mask.ndim == 2:
        row["perimeter_px"] = round(perimeter(mask), 2)
        row["diameter_px"] = round(2 * math.sqrt(count / math.pi), 2)
    if spacing_mm is not None:
        size = count * math.prod(spacing_mm)
        row["area_mm2" if mask.ndim == 2 else "volume_mm3"] = round(size, 4)
        if mask.ndim == 2:
            row["perimeter_mm"] = round(perimeter(mask, spacing_mm), 4)
            row["diameter_mm"] = round(2 * math.sqrt(size / math.pi), 4)
    return row


def perimeter(mask: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0)) -> float:
    """Length of the border of a 2-D mask by Cauchy and Crofton's formula with four directions:

        L = 1/2 sum over directions of (angle it stands for) * (distance of its lines) * (crossings)

    The border at the frame counts. Unbiased over orientations, unlike counting border pixels, which
    is up to 41 % off on diagonals; a disc is within 2 %. The error of a straight border is largest
    (4 to 8 %) along the four directions themselves.
    """
    padded = np.pad(mask.astype(bool), 1)
    height, width = (float(s) for s in spacing)
    slope = math.atan2(height, width)  # angle of a pixel's diagonal
    diagonal = height * width / math.hypot(height, width)  # distance of neighbouring diagonals
    directions = [
        (padded[:, 1:] != padded[:, :-1], slope, height),
        (padded[1:] != padded[:-1], math.pi / 2 - slope, width),
        (padded[1:, 1:] != padded[:-1, :-1], math.pi / 4, diagonal),
        (padded[1:, :-1] != padded[:-1, 1:], math.pi / 4, diagonal),
    ]
    return 0.5 * sum(angle * gap * float(np.sum(hits)) for hits, angle, gap in directions)
