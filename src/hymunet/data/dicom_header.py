"""DICOM files: which ones they are, and the few header fields that are read, odd values included.

Only the fields named here are ever decoded. The patient's name, birth date and address are not
among them, so no note, log or error can repeat them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hymunet.data.decode import PICTURE_SUFFIXES, broken, check_file
from hymunet.data.masks_io import VOLUME_SUFFIXES, listed
from hymunet.data.source import InMemory, Source, open_source
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"  # Segmentation Storage: binary or fractional
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage
_DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR: a table of contents
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")  # PS3.5, 9.1; at most 64 characters

# of a file: what series it belongs to, where its planes lie, how its numbers are meant
_IMAGE_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "SeriesDescription", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
SEGMENTATION_TAGS = [
    *_IMAGE_TAGS, "SegmentationType", "MaximumFractionalValue", "SegmentSequence",
    "ReferencedSeriesSequence", "SourceImageSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Series:
    """The image files of one series in one folder.

    Args:
        uid: Its SeriesInstanceUID.
        files: Sorted by name.
        headers: The fields of each file, without pixels.
    """

    uid: str
    files: tuple[Path, ...]
    headers: "tuple[Dataset, ...]"

    def describe(self) -> str:
        """Modality, description, number of files and UID, for a list to choose from."""
        header = self.headers[0]
        name = text(header, "SeriesDescription") or "no description"
        count = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}"
        return f"{text(header, 'Modality') or 'no modality'} '{name}', {count}, {self.uid}"


def import_pydicom(path: Source) -> ModuleType:
    """pydicom, imported on the first DICOM file so that other images do not need it.

    Raises:
        HyMUNetError: If it is not installed.
    """
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise HyMUNetError(
            f'{path} is DICOM, which needs pydicom: install it with pip install "hymunet[volumes]"'
        ) from error
    return pydicom


def has_marker(path: Source) -> bool:
    """Whether the file says that it is DICOM: "DICM" after 128 bytes. False where there is none."""
    try:
        with open_source(path) as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_dicom_file(path: Path) -> bool:
    """Whether `path` is a visible DICOM file: by its suffix, or, without one or with a number for
    one (as scanners and archives write them), by its content. A link to nothing counts, as for
    `pairs.is_image`."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    if suffix in DICOM_SUFFIXES:
        return path.is_file() or (path.is_symlink() and not path.exists())
    return (not suffix or suffix[1:].isdigit()) and path.is_file() and has_marker(path)


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files directly in `folder`, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_dicom_file(path))


def names_series(path: Path) -> bool:
    """Whether `path` is FOLDER/UID, which names one of several series in a folder."""
    uid = len(path.name) <= 64 and _UID.fullmatch(path.name) is not None
    return uid and path.parent.is_dir() and not path.exists()


def is_dicom(path: Source) -> bool:
    """Whether `path` is read as DICOM: a file, a folder with DICOM files in it, or FOLDER/UID.
    What is called a picture or NIfTI is not opened."""
    if isinstance(path, InMemory):
        return has_marker(path)
    if path.is_dir():
        return any(is_dicom_file(file) for file in path.iterdir())
    if path.name.lower().endswith((*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)):
        return False
    return is_dicom_file(path) or has_marker(path) or names_series(path)


def files_behind(path: Path) -> list[Path]:
    """The files from which `path` is read: itself, or the DICOM files of the folder it names."""
    if path.is_dir():
        return dicom_files(path)
    return dicom_files(path.parent) if names_series(path) else [path]


def read_header(path: Source, tags: Sequence[str] = tuple(_IMAGE_TAGS)) -> "Dataset":
    """The fields `tags` of a DICOM file, without its pixels.

    Args:
        path: With or without the marker "DICM", which some old files lack.
        tags: Keywords of the fields; no others are decoded.

    Raises:
        HyMUNetError: If it cannot be read or is no DICOM file.
    """
    pydicom = import_pydicom(path)
    check_file(path)
    wanted = [*dict.fromkeys(["SOPClassUID", *tags])]
    try:
        with open_source(path) as file:
            header = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=wanted
            )
    except Exception as error:  # whatever the broken bytes led the parser into
        raise HyMUNetError(broken(path, error)) from error
    if text(header.file_meta, "MediaStorageSOPClassUID") == _DIRECTORY:
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID  # it has no field of its own
    if not text(header, "SOPClassUID"):
        marked = has_marker(path)
        raise HyMUNetError(
            f"{path} is broken or cut short: its header ends before it says what it is; copy or "
            "export it again"
            if marked
            else f"{path} is no DICOM file: it has neither the marker DICM nor a SOP class"
        )
    return header


def image_series(folder: Path, broken_files: list[Path] | None = None) -> list[Series]:
    """The image series of a folder, sorted by UID; segmentations, reports, plans and tables of
    contents are left out.

    Args:
        folder: Only the files directly in it.
        broken_files: Gets the files that cannot be read, instead of an error: to look what is there
            is not to read it.

    Raises:
        HyMUNetError: If a file is broken or does not say to which series it belongs.
    """
    found: dict[str, list[tuple[Path, Dataset]]] = {}
    for path in dicom_files(folder):
        try:
            header = read_header(path)
            uid = _series_of(path, header)
        except HyMUNetError:
            if broken_files is None:
                raise
            broken_files.append(path)
            continue
        if uid is not None:
            found.setdefault(uid, []).append((path, header))
    return [
        Series(uid, tuple(path for path, _ in files), tuple(header for _, header in files))
        for uid, files in sorted(found.items())
    ]


def _series_of(path: Path, header: "Dataset") -> str | None:
    """SeriesInstanceUID of an image file, None for what is no image."""
    if text(header, "SOPClassUID") in (SEGMENTATION, LABEL_MAP, _DIRECTORY):
        return None
    uid = text(header, "SeriesInstanceUID")
    if not uid:
        raise HyMUNetError(
            f"{path} is broken or cut short: it does not say to which series it belongs; copy or "
            "export it again, or name the file itself"
        )
    if header.get("Rows") is not None:
        return uid
    if "Image" in str(getattr(header.get("SOPClassUID"), "name", "")):
        raise HyMUNetError(
            f"{path} is broken or cut short: an image without a size; copy or export it again"
        )
    return None  # a report, a plan, contours


def choose_series(path: Path) -> Series:
    """The series that a folder holds, or that FOLDER/UID names.

    Raises:
        HyMUNetError: If there is none or there are several; the message lists them.
    """
    folder = path if path.is_dir() else path.parent
    series = image_series(folder)
    if not series:
        raise HyMUNetError(
            f"the folder {folder} holds {len(dicom_files(folder))} DICOM files but no image (no "
            "pixel data); expected the slices of one series"
        )
    lines = "".join(f"\n  {one.describe()}" for one in series)
    if path != folder:
        chosen = [one for one in series if one.uid == path.name]
        if not chosen:
            raise HyMUNetError(f"the folder {folder} has no series {path.name}; it holds:{lines}")
        return chosen[0]
    if len(series) > 1:
        raise HyMUNetError(
            f"the folder {folder} holds {len(series)} series:{lines}\n"
            f"name one by its UID, as in {folder / series[0].uid}, or give each a folder of its own"
        )
    return series[0]


def text(header: "Dataset", keyword: str) -> str:
    """A field as one line of text: the first of several values, "" when it is missing or empty."""
    try:
        value = header.get(keyword)
    except Exception:  # a value that pydicom cannot convert
        return ""
    if not isinstance(value, str) and isinstance(value, Sequence):
        value = value[0] if len(value) else None
    return "" if value is None else " ".join(str(value).split())


def numbers(header: "Dataset", keyword: str, count: int) -> tuple[float, ...] | None:
    """A field as exactly `count` finite numbers; None when it is missing or anything else."""
    try:
        value = header.get(keyword)
        values = [value] if not isinstance(value, Sequence) or isinstance(value, str) else value
        found = tuple(float(one) for one in values)
    except Exception:  # no number, or a value that pydicom cannot convert
        return None
    finite = all(abs(one) < float("inf") for one in found)
    return found if len(found) == count and finite else None


def whole_number(header: "Dataset", keyword: str, default: int) -> int:
    """A field as a whole number; `default` when it is missing, empty or anything else."""
    found = numbers(header, keyword, 1)
    return default if found is None else int(found[0])


def first_item(header: "Dataset | None", keyword: str) -> "Dataset | None":
    """The first item of a sequence; None when it is missing or empty."""
    items = None if header is None else header.get(keyword)
    return items[0] if items else None


def listed_files(paths: Sequence[Path]) -> str:
    """File names for a message, without their folder."""
    return listed((path.name for path in paths), 4)
