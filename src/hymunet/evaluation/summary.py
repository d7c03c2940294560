"""Averages of the case table: per image and pooled, with intervals, by class and by stratum."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hymunet.evaluation.strata import STRATA, STRATA_METRICS, add_bands, members
from hymunet.evaluation.tables import mean_of
from hymunet.metrics.case import METRICS
from hymunet.metrics.statistics import pooled
from hymunet.wording import plural

FEW_GROUPS = 30  # below it a percentile bootstrap covers the mean less often than it says


def summarise(
    rows: Sequence[dict[str, Any]],
    contrast_median: float | None = None,
    val_chose: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """Averages of the case table; writes the bands of the strata into its rows.

    Args:
        rows: As `hymunet.evaluation.evaluate.score_case` makes them, all cases and classes.
        contrast_median: See `add_bands`.
        val_chose: Whether the validation part chose the model's epoch: its cases are then counted
            as `chose_the_epoch`, else as `watched`.

    Returns:
        The summary and notes. By class: `per_image` (mean, low, high by metric; low and high are
        None when all cases are of one group), `without_empty` (means over the cases where both
        masks hold something), `pooled`, `failures` (case ids), `strata`.
    """
    names = list(METRICS)
    notes = []
    if _unit("area", rows) is None:
        known = len({row["case"] for row in rows if row["unit"] == "mm"})
        notes.append(
            f"the spacing is known for {known} of {len({row['case'] for row in rows})} cases: "
            "what depends on a length is not averaged; cases.csv holds each in its own unit"
        )
        # the tolerance of nsd is a length too
        names = [name for name in names if METRICS[name].unit == "" and name != "nsd"]
    seen = Counter({row["case"]: row["seen"] for row in rows}.values())
    summary: dict[str, Any] = {
        "n": len({row["case"] for row in rows}),
        "groups": len({row["group"] for row in rows}),
        "trained_on": seen["train"],
        "chose_the_epoch": seen["val"] if val_chose else 0,
        "watched": 0 if val_chose else seen["val"],
        "length_unit": _unit("length", rows),
        "area_unit": _unit("area", rows),
        "interval": "95 % bootstrap over groups",
        "classes": {},
    }
    notes += few_groups_notes(summary["groups"])
    for name in dict.fromkeys(row["class"] for row in rows):
        own = [row for row in rows if row["class"] == name]
        cuts, band_notes = add_bands(own, contrast_median)
        prefix = f"{name}: " if len({row["class"] for row in rows}) > 1 else ""
        notes += [prefix + note for note in band_notes]
        failures = find_failures(own)
        full = [row for row in own if _area(row, "tp", "fp") and _area(row, "tp", "fn")]
        summary["classes"][name] = {
            "n": len(own),
            "per_image": {metric: _mean(own, metric) for metric in names},
            "n_without_empty": len(full),
            "without_empty": {
                metric: float(np.mean([row[metric] for row in full])) if full else None
                for metric in names
            },
            "pooled": pooled(own),
            "failures": failures,
            "cuts": cuts,
            "strata": {
                stratum.name: {
                    band: {"n": len(inside)}
                    | {metric: _mean(inside, metric) for metric in STRATA_METRICS}
                    for band, inside in members(own, stratum).items()
                }
                for stratum in STRATA
            },
        }
    if len(summary["classes"]) > 1:
        summary["mean_of_classes"] = {
            metric: _mean(mean_over_classes(rows, metric), metric) for metric in names
        }
    return summary, notes


def few_groups_notes(groups: int) -> list[str]:
    """What a reader of bootstrap intervals has to know where there are few groups of cases."""
    if not 1 < groups < FEW_GROUPS:
        return []
    return [
        f"{plural(groups, 'independent case')} are few: bootstrap intervals from fewer than "
        f"{FEW_GROUPS} are too narrow"
    ]


def find_failures(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Ids of the cases of one class where an average says little, by kind.

    missed: the structure is there, the prediction is empty. no_overlap: both hold something, no
    pixel in common. false_alarm: something predicted where there is nothing. both_empty: rightly
    nothing.
    """
    kinds: dict[str, list[str]] = {
        "missed": [], "no_overlap": [], "false_alarm": [], "both_empty": []
    }  # fmt: skip
    for row in rows:
        there, predicted = _area(row, "tp", "fn"), _area(row, "tp", "fp")
        if there and not predicted:
            kinds["missed"].append(row["case"])
        elif there and not row["tp"]:
            kinds["no_overlap"].append(row["case"])
        elif predicted and not there:
            kinds["false_alarm"].append(row["case"])
        elif not predicted:
            kinds["both_empty"].append(row["case"])
    return kinds


def mean_over_classes(rows: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """One row per case: the mean of `metric` over its classes, with the case's id and group."""
    by_case: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    return [
        {"case": case, "group": own[0]["group"], metric: float(np.mean([r[metric] for r in own]))}
        for case, own in by_case.items()
    ]


def over_folds(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    """Means of each fold of a cross-validation, and how they are spread.

    Args:
        rows: Of all cases, with the key `fold`.
        metrics: Which to average; over classes first, then over the images of a fold.

    Returns:
        `by_fold` (fold -> metric -> mean over its images), `mean` and `sd` (metric -> mean and
        sample standard deviation of the folds' means; sd is None where there is one fold).
    """
    by_fold: dict[int, dict[str, float]] = {}
    for fold in sorted({row["fold"] for row in rows}):
        own = [row for row in rows if row["fold"] == fold]
        by_fold[fold] = {
            metric: float(np.mean([row[metric] for row in mean_over_classes(own, metric)]))
            for metric in metrics
        }
    columns = {metric: [means[metric] for means in by_fold.values()] for metric in metrics}
    return {
        "by_fold": by_fold,
        "mean": {metric: float(np.mean(values)) for metric, values in columns.items()},
        "sd": {
            metric: float(np.std(values, ddof=1)) if len(values) > 1 else None
            for metric, values in columns.items()
        },
    }


def headline_means(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Per-image means of the one class, or of the mean over classes when there are several."""
    if "mean_of_classes" in summary:
        return summary["mean_of_classes"]
    return next(iter(summary["classes"].values()))["per_image"]


def _mean(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float | None]:
    return mean_of([row[metric] for row in rows], [row["group"] for row in rows])


def _area(row: Mapping[str, Any], *counts: str) -> int:
    return sum(row[count] for count in counts)


def _unit(kind: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The unit of "length" or "area" metrics; None where the cases do not share it."""
    metric = next(metric for metric in METRICS.values() if metric.unit == kind)
    units = {
        metric.unit_text((1.0,) if row["unit"] == "mm" else None, row["dimensions"]) for row in rows
    }
    return units.pop() if len(units) == 1 else None
