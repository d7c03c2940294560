"""Figures from the rows of all cells: each model's means, and its difference to the first.

Seeds are averaged a case first; whatever is random acts on groups of cases; p-values are corrected
over the models that are compared (Holm), within each metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hymunet.errors import HyMUNetError
from hymunet.evaluation.summary import few_groups_notes
from hymunet.evaluation.tables import as_bounds, mean_of
from hymunet.metrics.case import METRICS
from hymunet.metrics.statistics import bootstrap_mean, bootstrap_pooled, holm, paired_sign_flip
from hymunet.wording import plural

PER_IMAGE = ("dice", "iou", "precision", "recall", "boundary_iou", "hd95", "hd")
POOLED = ("dice", "iou")
COMPARED = ("dice", "iou", "precision", "boundary_iou", "hd95", "hd")

Rows = Sequence[Mapping[str, Any]]


def model_figures(by_seed: Mapping[int, Rows]) -> dict[str, Any]:
    """The means of one model.

    Args:
        by_seed: The rows of its cases, a row a case and class, for each seed.

    Returns:
        `per_image`: metric -> mean, low, high (bootstrap over groups, seeds averaged a case), and
        `sd_over_seeds`, of the seeds' means (None where there is one); `pooled`: metric -> mean,
        low, high; `n`, `groups`, `length_unit` (None where cases do not share it: lengths are then
        left out).
    """
    cases = _by_case(by_seed)
    groups = [case["group"] for case in cases.values()]
    rows = [row for several in by_seed.values() for row in several]
    units = {row["unit"] for row in rows}
    names = [m for m in PER_IMAGE if METRICS[m].unit == "" or len(units) == 1]
    figures: dict[str, Any] = {
        "n": len(cases),
        "groups": len(set(groups)),
        "length_unit": units.pop() if len(units) == 1 else None,
        "per_image": {},
        "pooled": {},
    }
    for metric in names:
        means = [
            float(np.mean([case[metric] for case in _by_case({0: several}).values()]))
            for several in by_seed.values()
        ]
        figures["per_image"][metric] = mean_of([c[metric] for c in cases.values()], groups) | {
            "sd_over_seeds": float(np.std(means, ddof=1)) if len(means) > 1 else None
        }
    for metric in POOLED:
        figures["pooled"][metric] = as_bounds(
            bootstrap_pooled(
                rows, [row["group"] for row in rows], [row["class"] for row in rows], metric
            )
        )
    return figures


def differences(
    models: Mapping[str, Mapping[int, Rows]], reference: str
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Each model minus the reference, case by case.

    Args:
        models: Name -> seed -> rows, the reference among them.
        reference: Whom the others are compared with.

    Returns:
        Model -> metric -> `mean`, `low`, `high` (bootstrap over groups of the paired differences),
        `p` (paired sign-flip over groups) and `p_holm` (corrected over the models).

    Raises:
        HyMUNetError: If models were scored on other cases.
    """
    units = {
        row["unit"] for by_seed in models.values() for rows in by_seed.values() for row in rows
    }
    names = [m for m in COMPARED if METRICS[m].unit == "" or len(units) == 1]
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for name in models:
        if name == reference:
            continue
        theirs, own = (_by_case(rows) for rows in of_shared_seeds(models[name], models[reference]))
        if theirs.keys() != own.keys():
            apart = sorted(theirs.keys() ^ own.keys())
            raise HyMUNetError(
                f"{name} and {reference} were scored on other cases ({len(apart)} differ, such as "
                f"{apart[0]}), so no difference can be paired; judge both on the same part"
            )
        groups = [case["group"] for case in own.values()]
        found[name] = {}
        for metric in names:
            a = np.array([theirs[id_][metric] for id_ in own])
            b = np.array([case[metric] for case in own.values()])
            found[name][metric] = as_bounds(bootstrap_mean(a - b, groups)) | {
                "p": paired_sign_flip(a, b, groups)
            }
    for metric in names:
        corrected = holm([found[name][metric]["p"] for name in found])  # type: ignore[misc]
        for name, p in zip(found, corrected, strict=True):
            found[name][metric]["p_holm"] = p
    return found


def of_shared_seeds(
    theirs: Mapping[int, Rows], own: Mapping[int, Rows]
) -> tuple[dict[int, Rows], dict[int, Rows]]:
    """Of two models' rows those of the seeds that both have; all, if they share none.

    A seed draws the order of the cases and how they are augmented, so it makes a training easier
    or harder for all alike: a model of one seed is not to be measured against the mean of two.
    """
    both = shared_seeds(theirs, own)
    if not both:
        return dict(theirs), dict(own)
    return {seed: theirs[seed] for seed in both}, {seed: own[seed] for seed in both}


def shared_seeds(theirs: Mapping[int, Rows], own: Mapping[int, Rows]) -> list[int]:
    """The seeds that a difference of two models is over; none where they share none."""
    return [seed for seed in own if seed in theirs]


def empty_notes(models: Mapping[str, Mapping[int, Rows]]) -> list[str]:
    """Says of which models masks are empty where the reference is not, or hold something where it
    is empty: their scores are fixed ones (see `hymunet.metrics.case`)."""
    found = []
    for name, by_seed in models.items():
        rows = [row for several in by_seed.values() for row in several]
        count = sum((row["pred_area"] == 0) != (row["target_area"] == 0) for row in rows)
        if count:
            found.append(f"{name} {count} of {len(rows)}")
    if not found:
        return []
    return [
        "masks that are empty where the reference is not, or the other way round, which count with "
        f"ratios of 0 and the image's diagonal for a distance: {', '.join(found)}"
    ]


def statistics_notes(groups: int, models: int, seeds: int) -> list[str]:
    """How the figures were made, and what limits them.

    Args:
        groups: Of cases.
        models: That are compared with the first.
        seeds: Of the model that has most.
    """
    notes = [
        "intervals: 95 % bootstrap over groups of cases; seeds are averaged a case first, so they "
        "do not tell how another training would have come out (the deviation over seeds does)",
    ]
    if seeds == 1:
        notes.append(
            "one seed each: how much one training differs from the next was not measured, and may "
            "be more than a difference; --seeds 0 1 2 measures it"
        )
    if models:
        notes.append(
            "differences: of the same case, over the seeds that both have, model minus reference; "
            f"p by paired sign flips of groups, corrected by Holm over {models} of them within "
            "each metric"
        )
        least = min(1.0, models * 2.0 ** (1 - groups))
        if least > 0.05:
            notes.append(
                f"with {plural(groups, 'independent case')} no corrected p can be below "
                f"{least:.2g}: however large a difference is, these cases cannot show it"
            )
    return [*notes, *few_groups_notes(groups)]


def _by_case(by_seed: Mapping[int, Rows]) -> dict[str, dict[str, Any]]:
    """Case -> group and each metric, averaged over classes and seeds.

    Raises:
        HyMUNetError: If seeds were scored on other cases.
    """
    gathered: dict[str, list[Mapping[str, Any]]] = {}
    for rows in by_seed.values():
        for row in rows:
            gathered.setdefault(row["case"], []).append(row)
    counts = {len(rows) for rows in gathered.values()}
    if len(counts) > 1:
        raise HyMUNetError(
            "the seeds of a model were scored on other cases; judge all on the same part"
        )
    return {
        case: {"group": rows[0]["group"]}
        | {metric: float(np.mean([row[metric] for row in rows])) for metric in PER_IMAGE}
        for case, rows in gathered.items()
    }
