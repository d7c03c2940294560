"""DICOM segmentations as class indices on the grid of the image they were drawn on.

A segmentation stores a frame a slice and segment, in any order, and usually leaves out slices that
show nothing (PS3.3, A.51). Frames are therefore placed by their position, never by their order, and
what has no frame is background.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.decode import check_size
from hymunet.data.dicom_geometry import Plane, voxels_under
from hymunet.data.dicom_header import (
    LABEL_MAP,
    SEGMENTATION,
    SEGMENTATION_TAGS,
    dicom_files,
    first_item,
    listed_files,
    read_header,
    text,
    whole_number,
)
from hymunet.data.dicom_pixels import stored_frames
from hymunet.data.dicom_series import DicomImage, planes_of
from hymunet.data.mask_grid import MaskGrid
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from pydicom import Dataset

THRESHOLD = 0.5  # of a fractional segmentation


def segments_of(path: Path) -> dict[int, str]:
    """Segment number -> label of a segmentation, by number; the background of a label map left out.

    Raises:
        HyMUNetError: If `path` is no segmentation or describes no segment.
    """
    return _segments(*_header(path))


def read_segmentation(
    path: Path, target: MaskGrid, max_pixels: int
) -> tuple[np.ndarray, list[str]]:
    """Class indices on the target's grid: the segments in the order of their numbers are 1, 2, ...

    Fractional segmentations are cut at 0.5. Segments that overlap are refused: a voxel has one
    class, and to choose would lose the other structure's voxels without anyone noticing.

    Args:
        path: A segmentation, or a folder that holds one.
        target: The grid of the image it belongs to.
        max_pixels: Frames of more pixels together are refused from the header.

    Returns:
        (depth, height, width) uint8, and notes.

    Raises:
        HyMUNetError: If it cannot be read, lies on another grid, or segments overlap.
    """
    file, header = _header(path)
    names = _segments(file, header)
    planes = planes_of(file, header)
    check_size(file, (len(planes), planes[0].rows, planes[0].columns), max_pixels)
    _check_reference(file, header, target)
    values = stored_frames(file)[0][..., 0]
    if len(values) != len(planes):
        raise HyMUNetError(f"{file} holds {len(values)} frames, its header promised {len(planes)}")
    class_of = {number: index for index, number in enumerate(names, start=1)}
    notes = []
    if list(class_of) != list(class_of.values()):
        notes.append(f"segments {listed(class_of)} read as classes {listed(class_of.values())}")
    cut = 1.0
    if text(header, "SegmentationType").upper() == "FRACTIONAL":
        cut = THRESHOLD * whole_number(header, "MaximumFractionalValue", 255)
        notes.append(f"fractional segmentation cut at {THRESHOLD}")
    label_map = text(header, "SOPClassUID") == LABEL_MAP
    labels = np.zeros(target.shape, np.uint8)
    overlaps: Counter[tuple[int, int]] = Counter()
    for index, (plane, frame) in enumerate(zip(planes, values, strict=True)):
        where = _voxels(file, header, index, plane, target)
        if label_map:
            fresh = _classes(file, frame, class_of)
        else:
            number = _segment_number(header, index)
            if number not in class_of:
                raise HyMUNetError(
                    f"{plane.name} is of segment {number}, but {file} describes {listed(names)} "
                    "only: export it again"
                )
            fresh = (frame >= cut) * np.uint8(class_of[number])
        before = labels[where]
        both = (before > 0) & (fresh > 0) & (before != fresh)
        lower, upper = np.minimum(before, fresh)[both], np.maximum(before, fresh)[both]
        overlaps.update(zip(lower.tolist(), upper.tolist(), strict=True))
        labels[where] = np.where(fresh > 0, fresh, before)
    if overlaps:
        called = [f"{number} '{name}'" for number, name in names.items()]
        shown = [
            f"{called[one - 1]} and {called[other - 1]} in {count} voxels"
            for (one, other), count in sorted(overlaps.items())
        ]
        raise HyMUNetError(
            f"segments of {file} overlap ({listed(shown, 3)}), but a voxel has one class: write "
            "segments that do not overlap (an organ without its tumour, say), or only the one "
            "you mean"
        )
    return labels, notes


def _header(path: Path) -> "tuple[Path, Dataset]":
    """The segmentation that `path` is or holds, and its header."""
    files = dicom_files(path) if path.is_dir() else [path]
    if len(files) != 1:
        raise HyMUNetError(
            f"the folder {path} holds {len(files)} DICOM files ({listed_files(files)}); expected "
            "one segmentation that holds all segments"
        )
    header = read_header(files[0], SEGMENTATION_TAGS)
    if text(header, "SOPClassUID") not in (SEGMENTATION, LABEL_MAP):
        kind = getattr(header.get("SOPClassUID"), "name", "of another kind")
        raise HyMUNetError(
            f"mask {files[0]} is DICOM, but no segmentation ({kind}); expected a DICOM SEG, "
            "NIfTI or a picture of class indices: convert contours or images to one of them"
        )
    return files[0], header


def _segments(file: Path, header: "Dataset") -> dict[int, str]:
    found = {
        whole_number(item, "SegmentNumber", 0): text(item, "SegmentLabel")
        for item in header.get("SegmentSequence") or ()
    }
    found.pop(0, None)
    if not 1 <= len(found) <= 255:
        raise HyMUNetError(
            f"{file} describes {len(found)} segments; expected 1 to 255: export it again"
        )
    return dict(sorted(found.items()))


def _segment_number(header: "Dataset", index: int) -> int:
    own = header.get("PerFrameFunctionalGroupsSequence")
    for group in (
        own[index] if own else None,
        first_item(header, "SharedFunctionalGroupsSequence"),
    ):
        item = first_item(group, "SegmentIdentificationSequence")
        if item is not None:
            return whole_number(item, "ReferencedSegmentNumber", 0)
    return 0


def _classes(file: Path, frame: np.ndarray, class_of: dict[int, int]) -> np.ndarray:
    """A frame of segment numbers as class indices; 0 is background."""
    found = np.unique(frame)
    unknown = [int(value) for value in found if value and value not in class_of]
    if unknown:
        raise HyMUNetError(
            f"{file} holds the segments {listed(unknown)}, which it does not describe: export it "
            "again"
        )
    table = np.zeros(int(found[-1]) + 1, np.uint8)
    for number, index in class_of.items():
        if number < len(table):
            table[number] = index
    return table[frame]


def _check_reference(file: Path, header: "Dataset", target: MaskGrid) -> None:
    """Positions mean the same in one frame of reference only; where one of the two has none, what
    the segmentation says it was drawn on must be the image."""
    source = target.source
    if source is None:
        return
    own = text(header, "FrameOfReferenceUID")
    if not own or not source.frame_of_reference:
        _check_named(file, header, source)
        return
    drawn_on = text(first_item(header, "ReferencedSeriesSequence") or header, "SeriesInstanceUID")
    if own != source.frame_of_reference and drawn_on != source.series:
        raise HyMUNetError(
            f"{file} belongs to another image: it was drawn on the series {drawn_on} in the frame "
            f"of reference {own}, and the image is the series {source.series} in "
            f"{source.frame_of_reference}; check which mask goes with which image"
        )


def _check_named(file: Path, header: "Dataset", source: DicomImage) -> None:
    """Refuses a segmentation that names series or files, and not those of the image."""
    items = header.get("ReferencedSeriesSequence") or ()
    series = {text(item, "SeriesInstanceUID") for item in items} - {""}
    instances = set(_named_everywhere(header)) | set(_uids(header.get("SourceImageSequence")))
    for group in header.get("PerFrameFunctionalGroupsSequence") or ():
        instances.update(_instances(first_item(group, "DerivationImageSequence")))
    instances.discard("")
    if source.series in series or not instances.isdisjoint(source.instances):
        return
    if series or instances:
        named = f"series {listed(sorted(series), 2)}" if series else f"file {min(instances)}"
        raise HyMUNetError(
            f"{file} belongs to another image: it was drawn on the {named}, and the image is the "
            f"series {source.series or 'without a UID'}; check which mask goes with which image"
        )


def _voxels(
    file: Path, header: "Dataset", index: int, plane: Plane, target: MaskGrid
) -> tuple[np.ndarray, ...]:
    """The voxels that a frame's pixels stand for: by its position, else by the slice it names."""
    if plane.affine() is not None and target.affine is not None:
        found = voxels_under(plane, target.shape, target.affine)
        if isinstance(found, str):
            raise HyMUNetError(
                f"{file}, frame {index + 1}, is on another grid than its image: {found}; expected "
                "a segmentation drawn on this image: resample it to the image first"
            )
        return found
    size = (plane.rows, plane.columns)
    if size != target.shape[1:]:
        raise HyMUNetError(
            f"{file} has frames of {size}, its image {target.shape[1:]}: expected a segmentation "
            "drawn on this image"
        )
    depth = _named_slice(header, index, target)
    if depth is None:
        raise HyMUNetError(
            f"{file}, frame {index + 1}, has no usable position and does not name a slice of its "
            "image: it cannot be placed; export it with positions, or check which mask goes with "
            "which image"
        )
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.full_like(rows, depth), rows, columns


def _named_slice(header: "Dataset", index: int, target: MaskGrid) -> int | None:
    """Depth of the slice whose file a frame names as its source."""
    own = header.get("PerFrameFunctionalGroupsSequence")
    named = _instances(first_item(own[index] if own else None, "DerivationImageSequence"))
    named = named or _named_everywhere(header)
    source = target.source
    if source is None or not named:
        # nothing says what it was drawn on: one picture and one size leave no choice
        return 0 if target.shape[0] == 1 else None
    files = [i for i, uid in enumerate(source.instances) if uid in named]
    if len(files) != 1 or max(source.frames) > 1:
        return None
    return source.grid.order.index(files[0])


def _named_everywhere(header: "Dataset") -> list[str]:
    """The files that a segmentation names for all of its frames."""
    return [
        uid
        for series in header.get("ReferencedSeriesSequence") or ()
        for uid in _uids(series.get("ReferencedInstanceSequence"))
    ]


def _instances(derivation: "Dataset | None") -> list[str]:
    return [] if derivation is None else _uids(derivation.get("SourceImageSequence"))


def _uids(items: "Sequence[Dataset] | None") -> list[str]:
    return [text(item, "ReferencedSOPInstanceUID") for item in items or ()]
