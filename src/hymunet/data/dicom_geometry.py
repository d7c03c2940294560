"""Where DICOM planes lie: sorted along their normal, evenly spaced or refused, as one affine.

DICOM's world is LPS (x to the patient's left, y to the back); nibabel's is RAS+, which is ours.
The orientation's first three numbers point along a row (to the next column), the other three down
a column, and PixelSpacing is (between rows, between columns): PS3.3, C.7.6.2.1.1 and 10.7.1.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Scanners write positions and cosines with few digits: 1.25 mm may stand as 1.2 and 1.3.
UNEVEN = 0.1  # of the slice distance, by which a slice may be off its place
NOTED = 0.01  # ... and from which on it is said
ANGLE = 1e-3  # of a direction cosine
SIZE = 1e-3  # relative, of a pixel
TILT = 0.5  # of a pixel, by which a stack may be shifted sideways
OFF_GRID = 0.3  # of a voxel, by which a corner of a mask may miss the voxel it belongs to


@dataclass(frozen=True)
class Plane:
    """One slice, as its header describes it.

    Args:
        name: The file (and frame) that holds it, for messages.
        rows: Its height in pixels.
        columns: Its width in pixels.
        position: Centre of its first pixel in mm, LPS; None: unknown.
        orientation: Unit vectors along a row and down a column, LPS; None: unknown.
        spacing_mm: Distance between rows, and between columns; None: unknown.
    """

    name: str
    rows: int
    columns: int
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None

    def affine(self) -> np.ndarray | None:
        """4x4, (column, row, 0, 1) to RAS mm; the third column is the unit normal. None when the
        plane's place is not known."""
        if self.position is None or self.orientation is None or self.spacing_mm is None:
            return None
        along, down = np.reshape(self.orientation, (2, 3))
        matrix = np.eye(4)
        matrix[:3, 0] = along * self.spacing_mm[1]
        matrix[:3, 1] = down * self.spacing_mm[0]
        matrix[:3, 2] = np.cross(along, down)
        matrix[:3, 3] = self.position
        return LPS_TO_RAS @ matrix


@dataclass(frozen=True)
class Grid:
    """Planes stacked to a volume.

    Args:
        shape: (depth, height, width).
        order: Index of the plane at each depth.
        spacing_mm: (depth, height, width); of one plane (height, width). None: unknown.
        affine: 4x4, (x, y, z) indices to RAS mm; None: unknown.
        notes: What was noticed.
    """

    shape: tuple[int, int, int]
    order: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()


def checked_orientation(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Direction cosines made exactly unit and perpendicular; None when they are nothing like it."""
    if values is None:
        return None
    along, down = np.reshape(values, (2, 3))
    lengths = np.linalg.norm([along, down], axis=1)
    if (np.abs(lengths - 1) > 0.01).any() or abs(along @ down) > 0.01:
        return None
    along = along / lengths[0]
    down = down - (down @ along) * along
    return tuple(float(value) for value in [*along, *(down / np.linalg.norm(down))])


def stack(planes: Sequence[Plane], where: str) -> Grid:
    """Sorts planes along their normal and checks that they are one even volume.

    A single plane needs no place; several need position, orientation and spacing.

    Args:
        planes: At least one, in any order.
        where: Folder or file, for messages.

    Raises:
        HyMUNetError: If planes differ in size, orientation or pixel size, have no position, share
            one, leave a gap, or are shifted against each other (a tilted gantry).
    """
    first = planes[0]
    _same(planes, where, "sizes", lambda p: (p.rows, p.columns), lambda a, b: a == b)
    shape = (len(planes), first.rows, first.columns)
    if len(planes) == 1:
        return Grid(shape, (0,), first.spacing_mm, first.affine())
    placed = [plane.affine() is not None for plane in planes]
    if not all(placed):
        lost = [plane.name for plane, there in zip(planes, placed, strict=True) if not there]
        raise HyMUNetError(
            f"{where}: {len(lost)} of {len(planes)} slices have no usable position, orientation or "
            f"pixel spacing ({listed(lost, 4)}), so they cannot be stacked; read such pictures one "
            "by one, by the names of their files"
        )
    _same(planes, where, "orientations", lambda p: p.orientation, _close(0.0, ANGLE))
    _same(planes, where, "pixel sizes", lambda p: p.spacing_mm, _close(SIZE, 0.0))

    along, down = np.reshape(np.asarray(first.orientation), (2, 3))
    positions = np.asarray([plane.position for plane in planes], float)
    heights = positions @ np.cross(along, down)
    order = np.argsort(heights, kind="stable")
    names = [planes[i].name for i in order]
    positions, heights = positions[order], heights[order]
    worst = _check_even(heights, names, where)

    assert first.spacing_mm is not None
    offsets = (positions - positions[0]) @ np.stack([along, down], axis=1)
    pixels = np.abs(offsets / np.asarray(first.spacing_mm)[::-1])
    if pixels.max() > TILT:
        step = positions[-1] - positions[0]
        angle = np.degrees(np.arctan2(np.linalg.norm(offsets[-1]), heights[-1] - heights[0]))
        raise HyMUNetError(
            f"{where}: the slices are shifted sideways against each other, by up to "
            f"{pixels.max():.1f} pixels (step {np.round(step / (len(planes) - 1), 3).tolist()} mm; "
            f"a tilted gantry of {angle:.1f} degrees?); resample the series to an upright grid "
            "first, as dcm2niix does"
        )
    affine = planes[order[0]].affine()
    assert affine is not None
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    affine[:3, 2] = LPS_TO_RAS[:3, :3] @ step
    spacing_mm = (float(np.linalg.norm(step)), *first.spacing_mm)
    notes = (
        [f"slices up to {worst:.0%} of their distance off an even grid"] if worst > NOTED else []
    )
    return Grid(shape, tuple(int(i) for i in order), spacing_mm, affine, tuple(notes))


def voxels_under(plane: Plane, shape: tuple[int, ...], affine: np.ndarray) -> tuple | str:
    """Indices (depth, row, column) of the voxels of a volume that a plane's pixels lie on.

    Args:
        plane: Placed; may be flipped or turned against the volume, or cover a part of it.
        shape: The volume's (depth, height, width).
        affine: The volume's, (x, y, z) indices to RAS mm.

    Returns:
        Three index arrays that broadcast to (rows, columns), or what does not fit, in words.
    """
    own = plane.affine()
    if own is None:
        return "it has no usable position, orientation or pixel spacing"
    mapping = np.linalg.inv(affine) @ own  # (column, row, 0, 1) to (x, y, z, 1)
    whole = np.rint(mapping)
    steps = np.abs(whole[:3, :2])
    if sorted(steps.sum(axis=0).tolist()) != [1, 1] or steps.sum(axis=1).max() > 1:
        sizes = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
        return (
            f"its pixels of {np.round(np.asarray(plane.spacing_mm), 4).tolist()} mm do not run "
            f"along the image's voxels of {np.round(sizes, 4).tolist()} mm"
        )
    last = (plane.columns - 1, plane.rows - 1)
    corners = np.array([(x, y, 0, 1) for x in (0, last[0]) for y in (0, last[1])]).T
    exact = (mapping @ corners)[:3]
    off = np.abs(exact - np.rint(whole @ corners)[:3]).max()
    if off > OFF_GRID:
        return f"it lies {off:.2f} voxels beside the image's voxels"
    indices = np.rint(exact).astype(int)
    inside = (indices >= 0).all() and (indices.max(axis=1) < np.array(shape)[::-1]).all()
    if not inside:
        low, high = indices.min(axis=1)[::-1].tolist(), (indices.max(axis=1)[::-1] + 1).tolist()
        return f"it covers voxels {low} to {high} of an image of {list(shape)}"
    x, y = np.arange(plane.columns)[None], np.arange(plane.rows)[:, None]
    start, along, down = (whole[:3, i].astype(int) for i in (3, 0, 1))
    return tuple(start[axis] + along[axis] * x + down[axis] * y for axis in (2, 1, 0))


def _check_even(heights: np.ndarray, names: Sequence[str], where: str) -> float:
    """The largest distance of a slice from its even place, as a fraction of the slice distance.

    Raises:
        HyMUNetError: If two slices share a place, or one is missing.
    """
    steps = np.diff(heights)
    usual = float(np.median(steps))
    doubled = np.flatnonzero(steps <= max(1e-3, 0.01 * usual)).tolist()
    if doubled:
        i = doubled[0]
        raise HyMUNetError(
            f"{where}: {len(doubled)} of {len(heights)} slices have the position of another one "
            f"(such as {names[i]} and {names[i + 1]}, at {heights[i]:.2f} mm): a copy, or several "
            "times, echoes or b-values in one series: move the copy elsewhere, or give each volume "
            "a folder of its own"
        )
    wide = np.flatnonzero(np.abs(steps - usual) > UNEVEN * usual).tolist()
    if wide:
        gaps = [
            f"{steps[i]:.2f} mm between {names[i]} and {names[i + 1]}, at {heights[i]:.2f} mm"
            for i in wide
        ]
        missing = sum(round(float(steps[i]) / usual) - 1 for i in wide if steps[i] > usual)
        raise HyMUNetError(
            f"{where}: the distances between slices are uneven: mostly {usual:.2f} mm, but "
            f"{listed(gaps, 3)}"
            + (f"; slices that are missing: about {missing}" if missing > 0 else "")
            + ": copy the series again and whole, or resample it to even distances first"
        )
    even = np.linspace(heights[0], heights[-1], len(heights))
    worst = float(np.abs(heights - even).max() / steps.mean())
    if worst > UNEVEN:
        raise HyMUNetError(
            f"{where}: the distance between slices changes along the series, from "
            f"{steps.min():.3f} to {steps.max():.3f} mm; resample it to even distances first"
        )
    return worst


def _close(relative: float, absolute: float) -> Callable[[object, object], bool]:
    def same(one: object, other: object) -> bool:
        return np.allclose(one, other, rtol=relative, atol=absolute)  # type: ignore[arg-type]

    return same


def _same(
    planes: Sequence[Plane],
    where: str,
    what: str,
    value: Callable[[Plane], object],
    same: Callable[[object, object], bool],
) -> None:
    """Refuses planes that do not all share a value; the error names the ones in the minority."""
    kinds: list[list[Plane]] = []
    for plane in planes:
        for kind in kinds:
            if same(value(kind[0]), value(plane)):
                kind.append(plane)
                break
        else:
            kinds.append([plane])
    if len(kinds) == 1:
        return
    kinds.sort(key=len, reverse=True)
    shown = [
        f"{len(kind)} of {np.round(np.asarray(value(kind[0])), 3).tolist()}, such as {kind[0].name}"
        for kind in kinds
    ]
    raise HyMUNetError(
        f"{where}: the slices of the series are of {len(kinds)} {what} ({listed(shown, 3)}); "
        "expected one: is a localiser among them? Move the files that do not belong elsewhere"
    )
