"""DICOM images and segmentations in folders: which paths stand for them, and whose they are."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hymunet.data.case import Case
from hymunet.data.dicom_header import (
    choose_series,
    dicom_files,
    files_behind,
    image_series,
    is_dicom,
    is_dicom_file,
    names_series,
    numbers,
    read_header,
    text,
)
from hymunet.data.dicom_seg import segments_of
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.wording import plural


def find_series(folder: Path) -> list[Path]:
    """The DICOM images below `folder`, hidden folders left out: one for each series.

    Returns:
        Paths that `read_image` reads: a folder that holds one series; FOLDER/UID for each of
        several; and the file itself where a series is one file or, as X-ray views are, several
        that have no place in space. A broken file stands for itself too, so that reading it says
        what is wrong.
    """
    return [path for place in (folder, *_folders_below(folder)) for path in series_in(place)]


def series_in(place: Path) -> list[Path]:
    """As `find_series`, of the files directly in a folder."""
    if not dicom_files(place):
        return []
    # a folder called "." or ".." has no name for its results to carry
    place = place if place.name not in ("", "..") else place.resolve()
    found: list[Path] = []
    series = image_series(place, found)
    for one in series:
        stacks = len(one.files) > 1 and all(
            numbers(header, "ImagePositionPatient", 3)
            or "PerFrameFunctionalGroupsSequence" in header
            for header in one.headers
        )
        if not stacks:
            found.extend(one.files)
        else:
            found.append(place if len(series) == 1 else place / one.uid)
    return found


def is_dicom_entry(path: Path) -> bool:
    """Whether an entry of a folder of images or masks is DICOM: a file, or a folder with some."""
    return is_dicom_file(path) or (path.is_dir() and bool(dicom_files(path)))


def with_patients(cases: Sequence[Case], notes: list[str]) -> list[Case]:
    """`cases`, those of DICOM images grouped by their patient unless they are grouped already.

    The group is a pseudonym, a part of the hash of PatientID and its issuer, so that no table or
    report repeats the number; the same patient has the same one in every data set. When more than
    two cases all carry one PatientID it is taken for what de-identification left behind.

    Args:
        cases: Of any kind; only DICOM headers are read.
        notes: What was found is added to it.

    Raises:
        HyMUNetError: If a header cannot be read.
    """
    groups = {
        case.id: _pseudonym(case.channels[0])
        for case in cases
        if case.group is None and case.channels and is_dicom(case.channels[0])
    }
    known = {id: group for id, group in groups.items() if group is not None}
    if not known:
        return list(cases)
    if len(known) > 2 and len(set(known.values())) == 1:
        notes.append(
            f"all {len(known)} DICOM cases carry one PatientID: taken for a placeholder, so cases "
            "are not grouped by patient; if they are one patient, no split of them is fair"
        )
        return list(cases)
    notes.append(
        f"{plural(len(set(known.values())), 'patient')} in {plural(len(known), 'DICOM case')}, by "
        "PatientID"
    )
    return [replace(case, group=case.group or known.get(case.id)) for case in cases]


def check_segments(cases: Iterable[Case]) -> None:
    """Refuses segmentations whose numbers mean different structures: numbers become classes.

    One segment a case is one structure, whatever it is called.

    Raises:
        HyMUNetError: If cases with several segments do not all describe the same ones.
    """
    kinds: dict[tuple[tuple[int, str], ...], list[str]] = {}
    for case in cases:
        if case.label is not None and is_dicom(case.label):
            segments = segments_of(case.label)
            kinds.setdefault(tuple(segments.items()), []).append(case.id)
    if len(kinds) > 1 and max(map(len, kinds)) > 1:
        shown = [
            f"{ids[0]} (and {len(ids) - 1} more) has "
            + ", ".join(f"{number} '{label}'" for number, label in segments)
            for segments, ids in sorted(kinds.items(), key=lambda item: -len(item[1]))
        ]
        raise HyMUNetError(
            f"the segmentations describe {len(kinds)} different lists of segments, so one class "
            f"would mean several structures: {listed(shown, 4)}; write all with the same segments "
            "in the same order (a segment may be empty)"
        )


def _folders_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_dir()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _pseudonym(path: Path) -> str | None:
    # of several series in a folder, each may be another patient's
    file = choose_series(path).files[0] if names_series(path) else files_behind(path)[0]
    header = read_header(file, ["PatientID", "IssuerOfPatientID"])
    patient = text(header, "PatientID")
    if not patient:
        return None
    digest = hashlib.sha256(f"{text(header, 'IssuerOfPatientID')}\n{patient}".encode())
    return f"patient {digest.hexdigest()[:10]}"
