"""BraTS as it is unpacked: a folder a case, in it a volume per sequence and the segmentation.

Two namings: CASE_flair, _t1, _t1ce, _t2, _seg (2020 and 2021; other brain data use it as well) and
CASE-t2f, -t1n, -t1c, -t2w, -seg (2023). Sources: Baid et al. 2021, https://arxiv.org/abs/2107.02314;
Kazerooni et al. 2023, https://arxiv.org/abs/2305.17033.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hymunet.data.case import Case, Dataset
from hymunet.data.label_scheme import LabelScheme, unnamed
from hymunet.data.mask_reading import values_in_mask
from hymunet.data.masks_io import listed
from hymunet.data.pairs import folders_in
from hymunet.data.tables import check_unique
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

CHANNELS = ("flair", "t1", "t1ce", "t2")
# separator -> ending of each channel's file name, in the order of CHANNELS
_ENDINGS = {"_": ("flair", "t1", "t1ce", "t2"), "-": ("t2f", "t1n", "t1c", "t2w")}
_FILE = re.compile(
    r"([^.].*)(?:(_)(flair|t1|t1ce|t2|seg)|(-)(t2f|t1n|t1c|t2w|seg))\.nii(?:\.gz)?", re.IGNORECASE
)
_PATIENT = re.compile(r"(BraTS-.+-\d{4,})-\d{3}")  # BraTS-GLI-00000-001: patient and time point
_LOOKED_AT = 8  # masks that decide what the labels are; all are checked when they are read

# class k is what lies in exactly k of the nested regions
_TUMOUR = {1: "edema", 2: "necrotic and non-enhancing core", 3: "enhancing tumour"}
_REGIONS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}


@dataclass(frozen=True)
class _Folder:
    """A folder that may be a case: files by what they are ("flair", "seg", ...), those that there
    are twice, and what else it holds."""

    path: Path
    names: frozenset[tuple[str, str]]  # (case, separator)
    files: dict[str, Path]
    twice: tuple[str, ...]
    others: tuple[str, ...]

    def looks_like_a_case(self) -> bool:
        """One case's files, at least three of the four sequences."""
        return len(self.names) == 1 and len(self.files.keys() & set(CHANNELS)) >= 3


def find_brats(folder: Path) -> Dataset | None:
    """The cases in the folders of `folder`; None where none of them looks like BraTS.

    Which labels there are is read from up to eight masks spread over the cases: 1, 2 and 4, or 1, 2
    and 3, are a tumour's, with the regions WT, TC and ET; 1 alone is one structure, without
    regions; others stay as they are.

    Raises:
        HyMUNetError: If a case lacks a sequence or its segmentation, has one twice, or the two
            namings are mixed.
    """
    children = [_look_into(path) for path in folders_in(folder)]
    if not any(child.looks_like_a_case() for child in children):
        return None
    found = [child for child in children if child.files]
    notes = [f"channels: {', '.join(CHANNELS)}"]
    rest = [child.path.name for child in children if not child.files]
    if rest:
        notes.append(
            f"{plural(len(rest), 'folder holds', 'folders hold')} no case, not used: "
            f"{listed(rest, 4)}"
        )
    _check_whole(folder, found)
    namings = {separator for child in found for _, separator in child.names}
    if len(namings) > 1:
        raise HyMUNetError(
            f"{folder} holds cases named as in BraTS 2021 (_flair) and as in 2023 (-t2f); expected "
            "one of them, since the two share patients: keep the newer"
        )
    others = [name for child in found for name in child.others]
    if others:
        notes.append(
            f"{plural(len(others), 'other file')} of the cases, not used: {listed(others, 4)}"
        )
    masks = [child.files["seg"] for child in found]
    scheme = _scheme(folder, _sampled_values(masks), namings.pop(), notes)
    cases = []
    for child in found:
        ((id, _),) = child.names
        patient = _PATIENT.fullmatch(id)
        channels = tuple(child.files[name] for name in CHANNELS)
        group = patient[1] if patient else None
        cases.append(
            Case(id, channels, child.files["seg"], group=group, label_map=scheme.label_map)
        )
    check_unique(((case.id, case.channels[0].parent) for case in cases), f"cases of {folder}")
    notes += scheme.describe()
    return Dataset(
        "BraTS", folder, tuple(cases), None, tuple(notes), CHANNELS, scheme.names, scheme.regions
    )


def part_of_case(path: Path) -> tuple[str, str, str] | None:
    """Case, separator and what the file is ("flair", ..., "seg"), by its name alone; None where it
    is not named as in BraTS."""
    match = _FILE.fullmatch(path.name)
    if match is None:
        return None
    separator = match[2] or match[4]
    ending = (match[3] or match[5]).lower()
    kind = "seg" if ending == "seg" else CHANNELS[_ENDINGS[separator].index(ending)]
    return match[1], separator, kind


def _look_into(folder: Path) -> _Folder:
    names: set[tuple[str, str]] = set()
    files: dict[str, Path] = {}
    twice: list[str] = []
    others: list[str] = []
    try:
        paths = sorted(folder.iterdir())
    except PermissionError:  # a folder of the system's beside the data, lost+found
        paths = []
    for path in paths:
        found = part_of_case(path)
        if found is None:
            if not path.name.startswith("."):
                others.append(path.name)
            continue
        name, separator, kind = found
        names.add((name, separator))
        if kind in files:
            twice.append(f"{files[kind].name} and {path.name}")
        files[kind] = path
    return _Folder(folder, frozenset(names), files, tuple(twice), tuple(others))


def _check_whole(root: Path, found: Sequence[_Folder]) -> None:
    if not any("seg" in child.files for child in found):
        raise HyMUNetError(
            f"none of the {plural(len(found), 'case')} of {root} has a segmentation; expected "
            "CASE_seg.nii.gz or CASE-seg.nii.gz in each: the challenge keeps those of its "
            "validation set to itself, so name the training data"
        )
    problems = []
    for child in found:
        lacking = [name for name in (*CHANNELS, "seg") if name not in child.files]
        if len(child.names) > 1:
            cases = sorted({name for name, _ in child.names})
            problems.append(f"{child.path.name} holds files of several cases ({listed(cases, 3)})")
        elif child.twice:
            problems.append(f"{child.path.name} holds both {listed(child.twice, 3)}")
        elif lacking:
            there = f"; it holds {listed(child.others, 3)}" if child.others else ""
            problems.append(f"{child.path.name} has no {', '.join(lacking)}{there}")
    if problems:
        raise HyMUNetError(
            f"{len(problems)} of {plural(len(found), 'case')} of {root} not whole: "
            f"{'. '.join(problems[:5])}{'. ...' if len(problems) > 5 else ''}. Expected the four "
            "sequences and the segmentation, a folder a case: rename or bring the files, or move "
            "the folders away"
        )


def _sampled_values(masks: Sequence[Path]) -> set[int]:
    """The values of some masks, spread over all; of more of them while they are empty."""
    first = np.unique(np.linspace(0, len(masks) - 1, _LOOKED_AT).astype(int)).tolist()
    values = {0}
    for looked_at, index in enumerate([*first, *(set(range(len(masks))) - set(first))]):
        if looked_at >= _LOOKED_AT and len(values) > 1:
            break
        values |= set(values_in_mask(masks[index]))
    return values


def _scheme(root: Path, values: set[int], separator: str, notes: list[str]) -> LabelScheme:
    """What the labels mean, from values of masks and, where these do not tell, the naming."""
    if values <= {0, 1} or values <= {0, 255}:
        return LabelScheme({1: "lesion"})
    enhancing = 4 if 4 in values or (3 not in values and separator == "_") else 3
    if values <= {0, 1, 2, enhancing}:
        return LabelScheme(_TUMOUR, ((0, 0), (1, 2), (2, 1), (enhancing, 3)), _REGIONS)
    if min(values) < 0 or max(values) > 255:
        raise HyMUNetError(
            f"the masks of {root} hold the values {listed(sorted(values))}; expected labels "
            "such as 0, 1, 2 and 4: check that the files ending in seg are segmentations"
        )
    notes.append(
        f"the masks hold {listed(sorted(values))}, which are not the labels of BraTS 2020 to 2023; "
        "taken as they are, without regions"
    )
    return LabelScheme(dict(enumerate(unnamed(max(values)), start=1)))
