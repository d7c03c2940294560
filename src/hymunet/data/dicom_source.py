"""The image that a DICOM object is derived from: its whole headers, one for each plane in order.

What is derived belongs to the same patient and study, so their fields are copied from here; what
the source does not say stays empty, and nothing is made up.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.decode import broken
from hymunet.data.dicom_geometry import Grid
from hymunet.data.dicom_header import first_item, import_pydicom, text
from hymunet.data.dicom_series import DicomImage, describe
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

if TYPE_CHECKING:
    from pydicom import Dataset

_EXPORT_AGAIN = (
    "export the series again with its UIDs (some de-identification drops them), or leave "
    "--output-format out for PNG and NIfTI"
)
# type 2: they must be there, and may be empty
_PATIENT_AND_STUDY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True)
class DicomSource:
    """What a derived object takes from its source.

    Args:
        name: The file, folder or FOLDER/UID, for messages.
        headers: Without pixels: one a slice in the order of depth, or that of a multi-frame file.
        depths: Depth of each plane, in the order of the headers or of the one file's frames.
        grid: Where the planes lie.
        placed: Whether they lie in a frame of reference; a photograph does not.
        notes: Fields that could not be copied; never what stands in them.
    """

    name: str
    headers: "tuple[Dataset, ...]"
    depths: tuple[int, ...]
    grid: Grid
    placed: bool
    notes: tuple[str, ...]

    @property
    def multi_frame(self) -> bool:
        """Whether the planes are frames of one file."""
        return len(self.headers) < len(self.depths)

    def header_at(self, plane: int) -> "Dataset":
        """The header of the file that holds a plane."""
        return self.headers[0 if self.multi_frame else plane]


def read_source(path: Path) -> DicomSource:
    """Reads the headers of a series (a folder, or FOLDER/UID) or of one file.

    Raises:
        HyMUNetError: If it is no single image, several slices have no frame of reference, the
            series is of several multi-frame files, a UID is missing, or slices differ in patient,
            study or frame of reference.
    """
    image = describe(path)
    count = len(image.grid.order)
    if len(image.files) > 1 and len(image.files) < count:
        raise HyMUNetError(
            f"{path} is a series of {len(image.files)} files of several frames each; expected one "
            "such file, or a file a slice: give the files one by one"
        )
    placed = bool(image.frame_of_reference) and image.grid.affine is not None
    if count > 1 and not placed:
        raise HyMUNetError(
            f"{path} has {count} slices but no FrameOfReferenceUID (0020,0052), without which "
            "their positions mean nothing to other programs: export the series again with its UIDs "
            "(some de-identification drops them), or leave --output-format out for NIfTI"
        )
    headers = [_whole_header(file) for file in image.files if isinstance(file, Path)]
    _check_uids(path, image, headers)
    notes: dict[str, None] = {}
    with quiet_about_values():
        for header in headers:
            notes.update(dict.fromkeys(_completed(header)))
    if len(headers) == count:
        headers = [headers[i] for i in image.grid.order]
        depths = tuple(range(count))
    else:
        depths = tuple(int(depth) for depth in np.argsort(image.grid.order))
    for header in headers:
        if "PerFrameFunctionalGroupsSequence" in header:
            _regroup(header, image, placed)
        else:
            _level(header, headers[0], image.grid, placed)
    return DicomSource(str(path), tuple(headers), depths, image.grid, placed, tuple(notes))


@contextlib.contextmanager
def quiet_about_values() -> Iterator[None]:
    """pydicom and highdicom warn of odd values and quote them, a patient's name too; what is wrong
    with a source is said by `DicomSource.notes`."""
    loggers = [logging.getLogger(name) for name in ("highdicom", "pydicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _whole_header(path: Path) -> "Dataset":
    pydicom = import_pydicom(path)
    try:
        with quiet_about_values():
            return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception as error:  # whatever the broken bytes led the parser into
        raise HyMUNetError(broken(path, error)) from error


def _check_uids(path: Path, image: DicomImage, headers: "list[Dataset]") -> None:
    """What the result refers to must be there, once for each file, and one patient's."""
    names = [getattr(file, "name", "") for file in image.files]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        lacking = [name for name, one in zip(names, headers, strict=True) if not text(one, keyword)]
        if lacking:
            raise HyMUNetError(
                f"{path}: {listed(lacking, 4)} without {_tagged(keyword)}, to which a result must "
                f"refer; {_EXPORT_AGAIN}"
            )
    own = len({text(one, "SOPInstanceUID") for one in headers})
    if own < len(headers):
        raise HyMUNetError(
            f"{path}: {len(headers)} slices share {plural(own, 'value')} of "
            f"{_tagged('SOPInstanceUID')}; expected one for each, without which a result cannot "
            f"name its slices; {_EXPORT_AGAIN}"
        )
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        # the values identify a patient: only how many slices have each is said
        by_value: dict[str, list[str]] = {}
        for name, one in zip(names, headers, strict=True):
            by_value.setdefault(text(one, keyword), []).append(name)
        if len(by_value) > 1:
            kinds = sorted(by_value.values(), key=len, reverse=True)
            shown = [f"{len(kind)} like {kind[0]}" for kind in kinds]
            raise HyMUNetError(
                f"{path}: the slices of the series differ in {_tagged(keyword)}: "
                f"{listed(shown, 3)}; expected one for all: move the files that do not belong "
                "elsewhere, or export the series again"
            )


def _tagged(keyword: str) -> str:
    """A field as messages name it: keyword and tag."""
    from pydicom.tag import Tag

    tag = Tag(keyword)
    return f"{keyword} ({tag.group:04X},{tag.element:04X})"


def _completed(header: "Dataset") -> Iterator[str]:
    """Gives the fields of patient and study that are missing, or hold what the standard forbids, an
    empty value; yields a note for each of the latter."""
    from pydicom.valuerep import DA, TM

    for keyword in _PATIENT_AND_STUDY:
        value = text(header, keyword)
        fits = keyword != "PatientSex" or value in ("", "M", "F", "O")
        try:
            if keyword.endswith("Time"):
                TM(value)
            elif keyword.endswith("Date") and value:
                # before 1993 dates had points between their parts, and some still have
                setattr(header, keyword, f"{DA(value):%Y%m%d}")
        except ValueError:
            fits = False
        if keyword not in header or not fits:
            setattr(header, keyword, "")
        if not fits:
            yield f"{keyword} of the source is no value that DICOM allows: left empty"


def _level(header: "Dataset", first: "Dataset", grid: Grid, placed: bool) -> None:
    """Gives a file of one plane the fields that all planes share. Scanners write the same direction
    with other digits, and a slice distance that their positions contradict."""
    if not placed:
        for keyword in (
            "FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient",
            "ImageOrientationPatient", "PixelSpacing",
        ):  # fmt: skip
            header.pop(keyword, None)
        # of kinds that may have several frames; others have no use for these
        header.SharedFunctionalGroupsSequence = [_nowhere()]
        header.NumberOfFrames = header.get("NumberOfFrames") or 1
        return
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        setattr(header, keyword, first[keyword].value)
    if "SliceThickness" not in header:
        header.SliceThickness = None
    _set_distance(header, grid)


def _regroup(header: "Dataset", image: DicomImage, placed: bool) -> None:
    """Gives a multi-frame file functional groups of where its frames lie and of nothing else, what
    all frames share in the shared one: where they stand differs from scanner to scanner."""
    from pydicom import Dataset

    own = header.PerFrameFunctionalGroupsSequence
    shared = first_item(header, "SharedFunctionalGroupsSequence")

    def nearest(sequence: str, group: "Dataset") -> "Dataset":
        found = first_item(group, sequence) or first_item(shared, sequence)
        return Dataset() if found is None else found

    common = Dataset()
    header.SharedFunctionalGroupsSequence, groups = [common], []
    if placed:
        common.PlaneOrientationSequence = [nearest("PlaneOrientationSequence", own[0])]
        measures = nearest("PixelMeasuresSequence", own[0])
        _set_distance(measures, image.grid)
        common.PixelMeasuresSequence = [measures]
        for group in own:
            groups.append(Dataset())
            groups[-1].PlanePositionSequence = [nearest("PlanePositionSequence", group)]
    else:
        header.pop("FrameOfReferenceUID", None)
        header.SharedFunctionalGroupsSequence = [_nowhere()]
    header.PerFrameFunctionalGroupsSequence = groups


def _nowhere() -> "Dataset":
    """The shared group of what has no place: highdicom asks for the pixel's size, which the
    standard lets nobody give without a frame of reference."""
    from pydicom import Dataset

    group = Dataset()
    group.PixelMeasuresSequence = [Dataset()]
    return group


def _set_distance(place: "Dataset", grid: Grid) -> None:
    """SpacingBetweenSlices as the positions have it; of a single plane there is none."""
    from pydicom.valuerep import DS

    place.pop("SpacingBetweenSlices", None)
    if grid.shape[0] > 1 and grid.spacing_mm is not None:
        place.SpacingBetweenSlices = DS(grid.spacing_mm[0], auto_format=True)
