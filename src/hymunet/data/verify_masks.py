"""Checks on masks: which values they hold, and how much of the frame."""

from collections.abc import Iterable, Sequence

from hymunet.data.case import Dataset
from hymunet.data.findings import Finding
from hymunet.data.label_scheme import unnamed
from hymunet.data.masks_io import listed
from hymunet.data.survey import CaseSurvey
from hymunet.wording import plural, some_of

NEARLY_FULL = 0.95  # of the frame
TINY = 0.01
FEW_CASES = 10  # of a class: below it a held-out part may show none


def label_values(dataset: Dataset, rows: Sequence[CaseSurvey]) -> tuple[list[int], int]:
    """Values that occur in the masks, ascending, and the number of structures they stand for: what
    the data set declares, else 1 for 0 and one other value, else the highest value."""
    found = sorted({value for row in rows for value, _ in row.counts} | {0})
    if dataset.num_labels is not None:
        return found, dataset.num_labels - 1
    return found, 1 if len(found) <= 2 else found[-1]


def names_by_value(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None = None
) -> dict[int, str]:
    """Value in the masks (background apart) -> name of the structure that it stands for: what the
    data set calls it, else as `unnamed` has it; `value 7` where it stands for none.

    Args:
        dataset: Its names.
        rows: Of the cases that can be read.
        structures: As in `hymunet.data.verify.verify`.
    """
    found, implied = label_values(dataset, rows)
    expected = structures if structures is not None else implied
    names = dict(enumerate(unnamed(expected), start=1)) | (dataset.label_names or {})
    if expected == 1 and len(found) == 2:  # 0 and 255 say what 0 and 1 do
        return {found[1]: names.get(found[1], names[1])}
    return {value: names.get(value, f"value {value}") for value in found if value > 0}


def labels(
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
                f"{len(showing)} of {plural(len(rows), 'mask')}, "
                f"{files.get(showing[0], showing[0])} first, hold values that are no label of the "
                f"data: {listed(beyond, 12)}; expected {_declared(dataset)}: rewrite the masks "
                "with these values, or correct the data's description of its labels",
                showing,
            )
        elif beyond and not (binary and found == [0, 255]):
            mapping = ", ".join(f"{value} -> {index}" for index, value in enumerate(found))
            yield Finding(
                "error",
                "labels",
                f"the masks hold {listed(found, 12)}, beyond the "
                f"{plural(expected, 'structure that is', 'structures that are')} to be segmented; "
                f"proposed mapping: {mapping} (--structures {len(found) - 1})",
                _showing(rows, beyond),
            )
    names = dict(enumerate(unnamed(expected), start=1)) | (dataset.label_names or {})
    for value in range(1, expected + 1):
        stored = found[1] if binary and len(found) == 2 else value
        shown = sum(dict(row.counts).get(stored, 0) > 0 for row in rows)
        name = names[value]
        if shown == 0:
            yield Finding(
                "error",
                "classes",
                f"{name} (value {stored}) occurs in no mask; nothing of it can be learnt: lower "
                "--structures, or rewrite the masks with consecutive values",
            )
        elif shown < FEW_CASES:
            yield Finding(
                "warning",
                "classes",
                f"{name} (value {stored}) occurs in {shown} of {plural(len(rows), 'case')}; with "
                f"fewer than {FEW_CASES} its scores say little, and a held-out part may show none",
                _showing(rows, [stored]),
            )


def areas(
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
            f"{some_of(len(empty), len(rows), 'mask', ('is', 'are'))} empty; right where nothing "
            "is to be seen, else a lost mask",
            tuple(empty),
        )
    if full:
        yield Finding(
            "warning",
            "nearly full masks",
            f"{plural(len(full), 'mask covers', 'masks cover')} {NEARLY_FULL:.0%} of the frame or "
            f"more (up to {shares[full[0]]:.1%}); look whether image and mask belong together, or "
            "the mask is inverted",
            tuple(full),
        )
    if tiny and flat:
        yield Finding(
            "note",
            "tiny masks",
            f"{plural(len(tiny), 'mask covers', 'masks cover')} less than {TINY:.0%} of the frame "
            f"(down to {shares[tiny[0]]:.2%}): one wrong pixel counts for much in their scores",
            tuple(tiny),
        )


def _declared(dataset: Dataset) -> str:
    names = {0: "background", **(dataset.label_names or {})}
    return listed((f"{index} {name}" for index, name in sorted(names.items())), 12)


def _showing(rows: Sequence[CaseSurvey], values: Sequence[int]) -> tuple[str, ...]:
    return tuple(row.id for row in rows if {value for value, _ in row.counts} & set(values))
