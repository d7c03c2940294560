"""Averages of a measurement of robustness: what each corruption costs, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from hymunet.data.corruptions import Corruption
from hymunet.evaluation import tables
from hymunet.evaluation.summary import mean_over_classes

CLEAN = "clean"
FELL_BY = 0.1  # a loss of Dice that changes what one would do with a mask
_MEASURES = ("dice", "iou", "dice_change", "iou_change")


def summarise(
    rows: Sequence[Mapping[str, Any]], corruptions: Sequence[Corruption]
) -> dict[str, Any]:
    """Averages of the case table; of several structures the mean of each case over them.

    Returns:
        `n`, `groups`, `classes`, `interval`; `clean`: {dice, iou}; `corruptions`: a list in the
        order of the arguments with `corruption` (its name in tables), `kind`, `name`, `level`, `n`,
        `dice`, `iou`, `dice_change`, `iou_change` (corrupted minus clean, so a loss is negative),
        `fell` (cases that lost more than `FELL_BY` of Dice) and `emptied` (cases whose truth the
        corruption moved out of the frame); `worst`: names, largest mean loss of Dice first. Means
        are {mean, low, high}; the bounds are None when all cases are of one group.
    """
    by_corruption: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_corruption.setdefault(row["corruption"], []).append(row)
    clean = by_corruption[CLEAN]
    full = {(row["case"], row["class"]) for row in clean if row["tp"] + row["fn"]}
    entries = []
    for corruption in corruptions:
        own = by_corruption[corruption.key]
        empty = {
            row["case"]
            for row in own
            if not row["tp"] + row["fn"] and (row["case"], row["class"]) in full
        }
        changes = mean_over_classes(own, "dice_change")
        entries.append(
            {
                "corruption": corruption.key,
                "kind": corruption.kind,
                "name": corruption.name,
                "level": corruption.level,
                "n": len(changes),
                **{name: _mean(own, name) for name in _MEASURES},
                "fell": sum(row["dice_change"] < -FELL_BY for row in changes),
                "emptied": len(empty),
            }
        )
    return {
        "n": len({row["case"] for row in clean}),
        "groups": len({row["group"] for row in clean}),
        "classes": list(dict.fromkeys(row["class"] for row in clean)),
        "interval": "95 % bootstrap over groups",
        "fell_by": FELL_BY,
        CLEAN: {name: _mean(clean, name) for name in ("dice", "iou")},
        "corruptions": entries,
        "worst": [
            entry["corruption"]
            for entry in sorted(entries, key=lambda entry: entry["dice_change"]["mean"])
        ],
    }


def _mean(rows: Sequence[Mapping[str, Any]], measure: str) -> dict[str, float | None]:
    means = mean_over_classes(rows, measure)
    return tables.mean_of([row[measure] for row in means], [row["group"] for row in means])
