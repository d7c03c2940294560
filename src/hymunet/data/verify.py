"""What is wrong with a data set, before an hour of training says so.

Each check looks at the rows of `hymunet.data.survey` and answers with findings: an error stops
`train`, a warning is repeated in its report, a note is worth knowing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal

import numpy as np

from hymunet.data.case import Dataset
from hymunet.data.duplicates import near_duplicate_groups
from hymunet.data.masks_io import listed
from hymunet.data.survey import CaseSurvey

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

NEARLY_FULL = 0.95  # of the frame
TINY = 0.01
FEW_CASES = 10  # of a class: below it a held-out part may show none
LARGEST_FRACTION_OF_SPACING = 2.0  # against the median
# a type says how a file was written; where the axes point changes what a network sees
_DIFFERENCES: tuple[tuple[str, Level], ...] = (("dtype", "note"), ("orientation", "warning"))


@dataclass(frozen=True)
class Finding:
    """Something to know about a data set.

    Args:
        level: error, warning or note.
        check: Which check says so, in a word or two.
        message: What was expected, what is there, what to do.
        cases: The cases concerned, the worst first; empty: the whole data set.
    """

    level: Level
    check: str
    message: str
    cases: tuple[str, ...] = ()


Check = Callable[[Dataset, Sequence[CaseSurvey], int | None], Iterable[Finding]]


def verify(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None = None
) -> list[Finding]:
    """All findings, errors first.

    Args:
        dataset: The data set.
        rows: What `survey` saw of its cases.
        structures: Structures that are to be segmented, the background not counted; None: what the
            data set says, else what its masks hold.
    """
    findings = [f for check in _BROKEN for f in check(dataset, rows, structures)]
    usable = [row for row in rows if row.problem is None]
    if usable:
        findings += [f for check in _CHECKS for f in check(dataset, usable, structures)]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def label_values(dataset: Dataset, rows: Sequence[CaseSurvey]) -> tuple[list[int], int]:
    """Values that occur in the masks, ascending, and the number of structures they stand for: what
    the data set declares, else 1 for 0 and one other value, else the highest value."""
    found = sorted({value for row in rows for value, _ in row.counts} | {0})
    if dataset.num_labels is not None:
        return found, dataset.num_labels - 1
    return found, 1 if len(found) <= 2 else found[-1]


def _unreadable(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    broken = [row for row in rows if row.problem is not None]
    for row in broken[:20]:
        yield Finding("error", "readable", str(row.problem), (row.id,))
    if len(broken) > 20:
        rest = tuple(row.id for row in broken[20:])
        yield Finding("error", "readable", f"{len(rest)} more cases cannot be used", rest)


def _kinds(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    # volumes of integers and of floats go together: neither has a scale of its own
    groups = _grouped(rows, lambda row: row.kind if row.kind.startswith("2") else "3-D")
    if len(groups) > 1:
        yield Finding(
            "error",
            "kind of image",
            f"the images are of different kinds: {_shares(groups)}. 8- and 16-bit pictures have a "
            "scale, floating-point ones and volumes have none, so one model cannot read both: "
            "convert them to one kind",
            _minority(groups),
        )
    channels = _grouped(rows, lambda row: f"{row.channels} channels")
    pictures = {row.channels for row in rows} <= {1, 3} and rows[0].kind.startswith("2")
    if len(channels) > 1:
        yield Finding(
            "note" if pictures else "error",
            "channels",
            f"the images have different numbers of channels: {_shares(channels)}"
            + (
                "; grey pictures are read as RGB"
                if pictures
                else "; a network reads one number of them: bring or remove channels"
            ),
            _minority(channels),
        )
    for what, level in _DIFFERENCES:
        kinds = _grouped(rows, partial(_named, what))
        if len(kinds) > 1:
            yield Finding(
                level,
                what,
                f"the images differ in {what}: {_shares(kinds)}"
                + (
                    "; voxels are taken in the order in which they are stored, so the network sees "
                    "some of them mirrored or turned: reorient them alike"
                    if what == "orientation"
                    else ""
                ),
                _minority(kinds),
            )


def _spacing(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    volumes = [row for row in rows if len(row.size) == 3]
    unknown = [row.id for row in volumes if row.spacing_mm is None]
    if unknown:
        yield Finding(
            "warning",
            "spacing",
            f"{len(unknown)} of {len(volumes)} volumes do not say how large their voxels are: "
            "distances will be in voxels, and nothing is resampled",
            tuple(unknown),
        )
    known = [row for row in rows if row.spacing_mm is not None]
    if not known:
        return
    spacings = np.array([row.spacing_mm for row in known])
    ratio = spacings / np.median(spacings, axis=0)
    apart = np.maximum(ratio, 1 / ratio).max(axis=1)
    far = apart > LARGEST_FRACTION_OF_SPACING
    if far.any():
        order = [i for i in np.argsort(-apart) if far[i]]
        worst = known[order[0]]
        yield Finding(
            "warning",
            "spacing",
            f"{far.sum()} of {len(known)} images have pixels more than twice as large or small as "
            f"the median {_by(np.median(spacings, axis=0))} mm, {worst.id} "
            f"{_by(np.array(worst.spacing_mm))} mm: check their headers",
            tuple(known[i].id for i in order),
        )


def _labels(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    found, implied = label_values(dataset, rows)
    expected = structures if structures is not None else implied
    declared = structures is not None or dataset.num_labels is not None
    if not declared and len(found) > 2 and len(found) - 1 < implied:
        mapping = ", ".join(f"{value} -> {index}" for index, value in enumerate(found))
        yield Finding(
            "error",
            "labels",
            f"the masks hold {listed(found, 12)}; expected consecutive class indices, since the "
            f"data do not say what other values mean: rewrite them, proposed mapping: {mapping}",
            _showing(rows, [found[-1]]),
        )
        return
    binary = expected == 1 and (dataset.num_labels is None or found == [0, 255])
    if binary and len(found) == 2 and found[1] not in (1, 255, 65535):
        yield Finding(
            "error",
            "labels",
            f"the masks hold 0 and {found[1]}; expected 0 and 1, or 0 and 255: rewrite them by the "
            f"mapping 0 -> 0, {found[1]} -> 1",
        )
    elif not binary or len(found) > 2:
        beyond = [value for value in found if value > expected]
        if beyond and not binary and dataset.num_labels == expected + 1:
            showing = _showing(rows, beyond)
            files = {case.id: case.label for case in dataset.cases}
            yield Finding(
                "error",
                "labels",
                f"{len(showing)} of {len(rows)} masks, {files.get(showing[0], showing[0])} first, "
                f"hold values that are no label of the data: {listed(beyond, 12)}; expected "
                f"{_declared(dataset)}: rewrite the masks with these values, or correct the data's "
                "description of its labels",
                showing,
            )
        elif beyond and not (binary and found == [0, 255]):
            mapping = ", ".join(f"{value} -> {index}" for index, value in enumerate(found))
            yield Finding(
                "error",
                "labels",
                f"the masks hold {listed(found, 12)}, beyond the {expected} structures that are to "
                f"be segmented; proposed mapping: {mapping} (--structures {len(found) - 1})",
                _showing(rows, beyond),
            )
    for value in range(1, expected + 1):
        stored = found[1] if binary and len(found) == 2 else value
        shown = sum(dict(row.counts).get(stored, 0) > 0 for row in rows)
        name = (dataset.label_names or {}).get(value, f"structure {value}")
        if shown == 0:
            yield Finding(
                "error",
                "classes",
                f"{name} (value {value}) occurs in no mask; nothing of it can be learnt: lower "
                "--structures, or rewrite the masks with consecutive values",
            )
        elif shown < FEW_CASES:
            yield Finding(
                "warning",
                "classes",
                f"{name} (value {value}) occurs in {shown} of {len(rows)} cases; with fewer than "
                f"{FEW_CASES} its scores say little, and a held-out part may show none",
                _showing(rows, [stored]),
            )


def _areas(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    shares = {row.id: row.foreground for row in rows}
    empty = [id_ for id_, share in shares.items() if share == 0]
    full = sorted((i for i, s in shares.items() if s >= NEARLY_FULL), key=lambda i: -shares[i])
    tiny = sorted((i for i, s in shares.items() if 0 < s < TINY), key=lambda i: shares[i])
    flat = rows[0].kind.startswith("2")
    if empty:
        yield Finding(
            "warning" if flat else "note",
            "empty masks",
            f"{len(empty)} of {len(rows)} masks are empty; right where nothing is to be seen, else "
            "a lost mask",
            tuple(empty),
        )
    if full:
        yield Finding(
            "warning",
            "nearly full masks",
            f"{len(full)} masks cover {NEARLY_FULL:.0%} of the frame or more (up to "
            f"{shares[full[0]]:.1%}); look whether image and mask belong together, or the mask is "
            "inverted",
            tuple(full),
        )
    if tiny and flat:
        yield Finding(
            "note",
            "tiny masks",
            f"{len(tiny)} masks cover less than {TINY:.0%} of the frame (down to "
            f"{shares[tiny[0]]:.2%}): one wrong pixel counts for much in their scores",
            tuple(tiny),
        )


def _intensities(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    constant = [row.id for row in rows if all(one.std == 0 for one in row.image)]
    if constant:
        yield Finding(
            "error",
            "intensities",
            f"{len(constant)} images are of one value throughout; export them again",
            tuple(constant),
        )
    if not rows[0].kind.endswith("integer") or not rows[0].kind.startswith("2"):
        return  # arbitrary units differ from scanner to scanner
    means = np.array([np.mean([one.mean for one in row.image]) for row in rows])
    middle = np.median(means)
    spread = 1.4826 * np.median(np.abs(means - middle))
    far = np.abs(means - middle) > 6 * max(spread, 1e-9)
    if far.any() and len(rows) >= 20:
        order = [i for i in np.argsort(-np.abs(means - middle)) if far[i]]
        yield Finding(
            "warning",
            "intensities",
            f"{len(order)} images are far brighter or darker than the others (mean "
            f"{listed((f'{means[i]:.0f}' for i in order), 4)} against {middle:.0f}): another kind "
            "of picture, or exported otherwise; see that each part of the split has some",
            tuple(rows[i].id for i in order),
        )


def _copies(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    same = [c for c in _grouped(rows, lambda row: row.sha256).values() if len(c) > 1]
    if same:
        yield Finding(
            "warning",
            "copies",
            f"{sum(map(len, same))} images are copies of another, pixel for pixel, in {len(same)} "
            f"groups ({_groups(same)}): keep one of each, with the better mask",
            tuple(id_ for group in same for id_ in group),
        )
    if not rows[0].kind.startswith("2"):
        return
    clusters: dict[int, list[str]] = defaultdict(list)
    for row, cluster in zip(
        rows, near_duplicate_groups([row.picture_hash for row in rows]), strict=True
    ):
        clusters[cluster].append(row.id)
    near = [cluster for cluster in clusters.values() if len(cluster) > 1 and cluster not in same]
    if near:
        yield Finding(
            "note",
            "near-duplicates",
            f"{sum(map(len, near))} images nearly agree with another, in {len(near)} groups "
            f"({_groups(near)}); a drawn split keeps each group on one side",
            tuple(id_ for group in near for id_ in group),
        )
    yield from _leaks(dataset, [*near, *same], "near-duplicate images")


def _patients(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    groups = _grouped([row for row in rows if row.group is not None], lambda row: str(row.group))
    yield from _leaks(dataset, [g for g in groups.values() if len(g) > 1], "images of one patient")


def _leaks(dataset: Dataset, groups: Sequence[Sequence[str]], what: str) -> Iterable[Finding]:
    """Groups that lie on both sides of the data's own split."""
    if dataset.split is None:
        return
    split = dataset.split
    across = [
        (one, other)
        for group in groups
        for one, other in combinations(group, 2)
        if {split.get(one), split.get(other)} >= {"train"} and split.get(one) != split.get(other)
    ]
    if across:
        yield Finding(
            "warning",
            "leaks",
            f"{len(across)} pairs of {what} lie on both sides of the data's own split "
            f"({listed((f'{a} and {b}' for a, b in across), 3)}): scores are flattered by what was "
            "trained on; move one of each to the other side",
            tuple(dict.fromkeys(id_ for pair in across for id_ in pair)),
        )


_BROKEN: tuple[Check, ...] = (_unreadable,)
_CHECKS: tuple[Check, ...] = (
    _kinds,
    _spacing,
    _labels,
    _areas,
    _intensities,
    _copies,
    _patients,
)


def _grouped(rows: Sequence[CaseSurvey], key: Callable[[CaseSurvey], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row.id)
    return groups


def _declared(dataset: Dataset) -> str:
    names = {0: "background", **(dataset.label_names or {})}
    return listed((f"{index} {name}" for index, name in sorted(names.items())), 12)


def _named(what: str, row: CaseSurvey) -> str:
    return str(getattr(row, what))


def _shares(groups: dict[str, list[str]]) -> str:
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{len(ids)} {name} ({listed(ids, 3)})" for name, ids in ordered)


def _minority(groups: dict[str, list[str]]) -> tuple[str, ...]:
    """All but the largest group."""
    largest = Counter({name: len(ids) for name, ids in groups.items()}).most_common(1)[0][0]
    return tuple(id_ for name, ids in groups.items() if name != largest for id_ in ids)


def _showing(rows: Sequence[CaseSurvey], values: Sequence[int]) -> tuple[str, ...]:
    return tuple(row.id for row in rows if {value for value, _ in row.counts} & set(values))


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return listed((" = ".join(group[:4]) for group in groups), 3)


def _by(sides: np.ndarray) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)
