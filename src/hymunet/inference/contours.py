"""Outlines of a mask as polygons along its pixels' edges, which hold the mask exactly."""

from typing import Any

import numpy as np

from hymunet.metrics.shape import of_structure

Ring = list[list[int]]


def class_contours(mask: np.ndarray, classes: list[str], nested: bool) -> list[dict[str, Any]]:
    """A row a class: `class` and `rings`.

    Args:
        mask: Class indices (height, width).
        classes: Names of the classes 1, 2, ...
        nested: Whether a structure holds those of higher index.
    """
    return [
        {"class": name, "rings": rings(of_structure(mask, index, nested))}
        for index, name in enumerate(classes, start=1)
    ]


def rings(mask: np.ndarray, most_corners: int | None = None) -> list[Ring] | None:
    """The outlines of what is set: outer rings and holes.

    A pixel (row r, column c) is the square from (x, y) = (c, r) to (c + 1, r + 1). A pixel is set
    exactly if its centre lies inside an odd number of rings. Pixels that touch at a corner are
    one part, as `hymunet.inference.measurements` counts them, so there is an outer ring a part.

    Every grid line is crossed by the outline at its corners, and the outline runs along it between
    the first and the second, the third and the fourth, and so on. So each corner has one
    neighbour along its row and one along its column, and following them in turn gives the rings.
    Where two set pixels touch diagonally there are two corners at one place.

    Args:
        mask: (height, width) bool.
        most_corners: None is returned where there are more.

    Returns:
        Rings of [x, y], whose last point is joined to the first.
    """
    padded = np.pad(mask.astype(bool), 1)
    top_left, top_right = padded[:-1, :-1], padded[:-1, 1:]
    low_left, low_right = padded[1:, :-1], padded[1:, 1:]
    once = top_left ^ top_right ^ low_left ^ low_right  # 1 or 3 of the four around a grid point
    falling = top_left & low_right & ~top_right & ~low_left
    rising = top_right & low_left & ~top_left & ~low_right
    count = int(once.sum()) + 2 * int((falling | rising).sum())
    if most_corners is not None and count > most_corners:
        return None
    y, x = np.nonzero(once | falling | rising)
    copies = 1 + (~once[y, x]).astype(np.intp)
    y, x = np.repeat(y, copies), np.repeat(x, copies)
    # corners lie row by row, and the two at one place side by side: the first ends the edge from
    # the left, the second begins the edge to the right
    along_row = np.arange(len(y)) ^ 1
    second = np.zeros(len(y), bool)
    second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    # which of the two ends the edge from above: joined so that the set pixels stay one part, the
    # outline turns around the unset ones, which lie left above and right below where it is rising
    upper = np.where(falling[y, x], ~second, second)
    by_column = np.lexsort((upper, y, x))
    along_column = np.empty(len(y), np.intp)
    along_column[by_column[0::2]], along_column[by_column[1::2]] = by_column[1::2], by_column[0::2]
    return _followed(x.tolist(), y.tolist(), along_row.tolist(), along_column.tolist())


def _followed(
    x: list[int], y: list[int], along_row: list[int], along_column: list[int]
) -> list[Ring]:
    found: list[Ring] = []
    seen = bytearray(len(x))
    for start in range(len(x)):
        if seen[start]:
            continue
        ring: Ring = []
        corner = start
        while not seen[corner]:
            across = along_row[corner]
            seen[corner] = seen[across] = 1
            ring += [[x[corner], y[corner]], [x[across], y[across]]]
            corner = along_column[across]
        found.append(ring)
    return found
