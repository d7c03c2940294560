"""What a mask says in numbers: area, perimeter, box, parts; in mm where the spacing is known."""

import math
from typing import Any

import numpy as np
from scipy import ndimage

from hymunet.metrics.shape import of_structure, perimeter


def measure(
    mask: np.ndarray,
    classes: list[str],
    spacing_mm: tuple[float, ...] | None = None,
    nested: bool = False,
) -> list[dict[str, Any]]:
    """One row a class.

    Args:
        mask: Class indices, (height, width) or (depth, height, width); 0 is the background.
        classes: Names of the classes 1, 2, ...
        spacing_mm: Size of a pixel along each axis; None: lengths are in pixels only.
        nested: Whether a structure holds those of higher index, as a tumour holds its core.

    Returns:
        Dictionaries with `class`, `area_px` (or `volume_voxels`), `fraction` of the frame, `parts`
        (connected, corners touching), `bounding_box` (first index and one past the last, along
        each axis; None when empty), `centroid` (None when empty), in 2-D `perimeter_px` (accuracy:
        `hymunet.metrics.shape.perimeter`) and `diameter_px` (of the circle of equal area), and the
        same in mm, mm2 or mm3 when the spacing is known.
    """
    return [
        {"class": name} | _measure_one(of_structure(mask, index, nested), spacing_mm)
        for index, name in enumerate(classes, start=1)
    ]


def _measure_one(mask: np.ndarray, spacing_mm: tuple[float, ...] | None) -> dict[str, Any]:
    count = int(mask.sum())
    row: dict[str, Any] = {
        "area_px" if mask.ndim == 2 else "volume_voxels": count,
        "fraction": count / mask.size,
        "parts": 0,
        "bounding_box": None,
        "centroid": None,
    }
    if count:
        # how much lies at each index of an axis; a slide of 10^8 pixels must not become a table of
        # coordinates, and only the box around the structure is looked at from here on
        axes = set(range(mask.ndim))
        profiles = [mask.sum(axis=tuple(axes - {axis})) for axis in range(mask.ndim)]
        box = [(int(found[0]), int(found[-1]) + 1) for found in map(np.flatnonzero, profiles)]
        row["bounding_box"] = [list(ends) for ends in box]
        row["centroid"] = [round(float(p @ np.arange(len(p))) / count, 2) for p in profiles]
        mask = mask[tuple(slice(*ends) for ends in box)]
        row["parts"] = int(ndimage.label(mask, structure=np.ones([3] * mask.ndim))[1])
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
