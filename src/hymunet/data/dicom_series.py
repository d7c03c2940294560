"""A DICOM series, or one DICOM file, as an image: planes by their headers, then their pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.decode import check_size
from hymunet.data.dicom_geometry import Grid, Plane, checked_orientation, stack
from hymunet.data.dicom_header import (
    LABEL_MAP,
    SEGMENTATION,
    choose_series,
    first_item,
    names_series,
    numbers,
    read_header,
    text,
    whole_number,
)
from hymunet.data.dicom_pixels import decode_frames
from hymunet.data.source import InMemory, Source
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from pydicom import Dataset


_PLACE: tuple[tuple[str, tuple[str, int]], ...] = (
    ("PlanePositionSequence", ("ImagePositionPatient", 3)),
    ("PlaneOrientationSequence", ("ImageOrientationPatient", 6)),
    ("PixelMeasuresSequence", ("PixelSpacing", 2)),
)


@dataclass(frozen=True)
class DicomImage:
    """What the headers of an image say; no pixel is decoded yet.

    Args:
        files: The files that hold it.
        frames: Frame count of each file.
        grid: Its planes as a volume; `grid.order` counts frames through all files.
        samples: 1 (grey or palette) or 3 (RGB).
        instances: SOPInstanceUID of each file.
        series: SeriesInstanceUID, "" when unknown.
        frame_of_reference: FrameOfReferenceUID, "" when unknown.
        notes: What was noticed.
    """

    files: tuple[Source, ...]
    frames: tuple[int, ...]
    grid: Grid
    samples: int
    instances: tuple[str, ...]
    series: str
    frame_of_reference: str
    notes: tuple[str, ...]


def describe(path: Source) -> DicomImage:
    """Reads the headers of a series (a folder, or FOLDER/UID) or of one file.

    Raises:
        HyMUNetError: If it is no single image, see `choose_series` and `stack`.
    """
    files: tuple[Source, ...]
    headers: tuple[Dataset, ...]
    if isinstance(path, InMemory) or not (path.is_dir() or names_series(path)):
        files, headers = (path,), (read_header(path),)
    else:
        series = choose_series(path)
        files, headers = series.files, series.headers
    planes: list[Plane] = []
    for file, header in zip(files, headers, strict=True):
        if text(header, "SOPClassUID") in (SEGMENTATION, LABEL_MAP):
            raise HyMUNetError(
                f"{file} is a DICOM segmentation, a mask; expected an image: give it as the mask "
                "of the series that it was drawn on"
            )
        planes.extend(planes_of(file, header))
    grid = stack(planes, str(path))
    header = headers[0]
    samples = {whole_number(one, "SamplesPerPixel", 1) for one in headers}
    if len(samples) > 1:
        raise HyMUNetError(
            f"{path}: some slices of the series are grey and some are in colour; expected one "
            "kind: move the files that do not belong elsewhere"
        )
    notes = list(grid.notes)
    if grid.spacing_mm is None and numbers(header, "ImagerPixelSpacing", 2):
        notes.append("pixel size known at the detector only, not in the patient: taken as unknown")
    return DicomImage(
        files,
        tuple(frame_count(one) for one in headers),
        grid,
        samples.pop(),
        tuple(text(one, "SOPInstanceUID") for one in headers),
        text(header, "SeriesInstanceUID"),
        text(header, "FrameOfReferenceUID"),
        tuple(notes),
    )


def is_dicom_volume(path: Path) -> bool:
    """Whether a DICOM path holds several slices, going by the headers alone.

    Raises:
        HyMUNetError: If they cannot be read.
    """
    if path.is_file():
        return frame_count(read_header(path)) > 1
    return sum(map(frame_count, choose_series(path).headers)) > 1


def read_dicom(
    path: Source, max_pixels: int
) -> tuple[np.ndarray, tuple[float, ...] | None, np.ndarray | None, list[str]]:
    """Pixels, spacing in mm, affine and notes of a series or a file.

    A stack of slices is (channels, depth, height, width) with depth along the slices' normal; a
    single slice is a picture, (channels, height, width), without an affine. Grey pictures whose
    integers use fewer bits than their type are spread over its whole range, since pictures are
    taken as shares of full scale; volumes keep their numbers.

    Args:
        path: A folder of one series, FOLDER/UID, or a file.
        max_pixels: Larger ones are refused from the headers.

    Raises:
        HyMUNetError: If headers or pixels cannot be read, or are no single image.
    """
    image = describe(path)
    grid = image.grid
    size = (image.samples, *grid.shape)
    check_size(path, size, max_pixels)
    notes = dict.fromkeys(image.notes)
    place = np.argsort(grid.order)  # depth of each frame
    pixels: np.ndarray | None = None
    bits = done = 0
    for file, count in zip(image.files, image.frames, strict=True):
        frames = decode_frames(file)
        expected = (count, *grid.shape[1:])
        if frames.values.shape[:3] != expected:
            raise HyMUNetError(
                f"{file} holds frames of {frames.values.shape[:3]}, its header promised {expected}"
            )
        notes.update(dict.fromkeys(frames.notes))
        bits = max(bits, frames.bits)
        values = np.moveaxis(frames.values, -1, 0)  # (samples, frames, rows, columns)
        if pixels is None:
            pixels = np.empty((len(values), *grid.shape), values.dtype)
        elif pixels.dtype != values.dtype:  # a slice of slope 1, or of other bits, among others
            pixels = pixels.astype(np.result_type(pixels, values, np.float32))
        pixels[:, place[done : done + count]] = values
        done += count
    assert pixels is not None
    if grid.shape[0] > 1:
        return pixels, grid.spacing_mm, grid.affine, list(notes)
    picture, said = _as_picture(pixels[:, 0], bits)
    return picture, grid.spacing_mm, None, [*notes, *said]


def read_dicom_slices(
    path: Path, max_pixels: int
) -> tuple[DicomImage, Iterator[tuple[int, np.ndarray, list[str]]]]:
    """The headers of a series or a file, and each of its slices as a picture, a file at a time.

    Args:
        path: As in `read_dicom`.
        max_pixels: Larger slices are refused from the headers.

    Returns:
        What the headers say; and depth, pixels (channels, height, width) and notes of each slice
        in the order of the files, as `read_dicom` reads the file of one slice.

    Raises:
        HyMUNetError: As `read_dicom`; for pixels, when they are taken from the iterator.
    """
    image = describe(path)
    check_size(path, (image.samples, *image.grid.shape[1:]), max_pixels)
    return image, _slices(image)


def _slices(image: DicomImage) -> Iterator[tuple[int, np.ndarray, list[str]]]:
    depths = iter(np.argsort(image.grid.order))
    for file in image.files:
        frames = decode_frames(file)
        for values in np.moveaxis(frames.values, -1, 1):  # (samples, rows, columns)
            picture, said = _as_picture(values, frames.bits)
            notes = dict.fromkeys([*image.notes, *frames.notes, *said])
            yield int(next(depths)), picture, list(notes)


def _as_picture(picture: np.ndarray, bits: int) -> tuple[np.ndarray, list[str]]:
    """A slice as pictures are: integers that use fewer bits than their type spread over its range,
    and a note of that."""
    full = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}.get(picture.dtype, 0)
    if not 0 < bits < full:
        return picture, []
    # in whole numbers, to the nearest: no two grey levels become one
    top, white = 2**bits - 1, 2**full - 1
    picture = ((picture.astype(np.uint32) * white + top // 2) // top).astype(picture.dtype)
    return picture, [f"{bits}-bit grey spread over {full} bits"]


def frame_count(header: "Dataset") -> int:
    """NumberOfFrames, 1 where it is missing."""
    return max(1, whole_number(header, "NumberOfFrames", 1))


def planes_of(file: Source, header: "Dataset") -> list[Plane]:
    """A plane for each frame; the fields of enhanced files stand in their functional groups.

    Raises:
        HyMUNetError: If the file is no image, or its frames have no places.
    """
    rows, columns = (whole_number(header, keyword, 0) for keyword in ("Rows", "Columns"))
    if not rows or not columns:
        raise HyMUNetError(
            f"{file} is no image (it says no rows and columns, so it has no pixel data): a report, "
            "a plan, contours, or a file cut short"
        )
    count = frame_count(header)
    own = header.get("PerFrameFunctionalGroupsSequence")
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    if count > 1 and not own:
        raise HyMUNetError(
            f"{file} holds {count} frames without positions, a film or a sheet of views; expected "
            "one picture or a stack of slices: export the frame you mean as a file of its own"
        )
    if own and len(own) != count:
        raise HyMUNetError(
            f"{file} has {count} frames but describes {len(own)}: copy or export it again"
        )
    planes = []
    for index in range(count):
        group = own[index] if own else None
        # the plane's own group, then all planes', then the file
        position, orientation, spacing = (
            _nearest([first_item(group, sequence), first_item(shared, sequence), header], *field)
            for sequence, field in _PLACE
        )
        if spacing is not None and min(spacing) <= 0:
            spacing = None
        name = f"{file.name}, frame {index + 1}" if count > 1 else file.name
        planes.append(
            Plane(name, rows, columns, position, checked_orientation(orientation), spacing)
        )
    return planes


def _nearest(places: "list[Dataset | None]", keyword: str, count: int) -> tuple[float, ...] | None:
    found = (None if place is None else numbers(place, keyword, count) for place in places)
    return next((value for value in found if value is not None), None)
