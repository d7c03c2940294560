"""Differences within kinds of cases: small and large, faint and plain, ragged and round, cut off.

A network may gain on the hard cases what it loses on the easy ones. Kinds are those of
`hymunet.evaluation.strata`, by the image and its reference alone, so they are the same for all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hymunet.evaluation.strata import STRATA, members
from hymunet.evaluation.tables import as_bounds
from hymunet.experiments.compare.results import of_shared_seeds
from hymunet.metrics.statistics import bootstrap_mean

METRICS_WITHIN = ("dice", "boundary_iou")
FEWEST = 5  # groups of cases: resampling two or three shows nothing but themselves

Rows = Sequence[Mapping[str, Any]]


def differences_within(
    models: Mapping[str, Mapping[int, Rows]], reference: str
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Each model minus the reference on the cases of each kind.

    Args:
        models: Name -> seed -> rows, a row a case and class with its bands; all scored on the same
            cases, as `results.differences` has checked.
        reference: Whom the others are compared with.

    Returns:
        Model -> stratum -> band -> `n` (references in it) and for each of `METRICS_WITHIN` `mean`,
        `low`, `high` (bootstrap over groups of the paired differences, seeds averaged first; None
        below `FEWEST` groups).
        They are not corrected: with so many, some leave 0 out by chance.
    """
    one_seed = next(iter(models[reference].values()))
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for name in models:
        if name == reference:
            continue
        theirs, own = map(_averaged, of_shared_seeds(models[name], models[reference]))
        found[name] = {
            stratum.name: {
                band: {"n": len(rows)}
                | {metric: _difference(theirs, own, rows, metric) for metric in METRICS_WITHIN}
                for band, rows in members(one_seed, stratum).items()
            }
            for stratum in STRATA
        }
    return found


def _difference(
    theirs: Mapping[tuple[str, str], Mapping[str, float]],
    own: Mapping[tuple[str, str], Mapping[str, float]],
    rows: Rows,
    metric: str,
) -> dict[str, float | None]:
    keys = [(row["case"], row["class"]) for row in rows]
    change = np.array([theirs[key][metric] - own[key][metric] for key in keys])
    groups = [row["group"] for row in rows]
    if len(set(groups)) < FEWEST:
        return {"mean": float(change.mean()), "low": None, "high": None}
    return as_bounds(bootstrap_mean(change, groups))


def _averaged(by_seed: Mapping[int, Rows]) -> dict[tuple[str, str], dict[str, float]]:
    """(case, class) -> each metric, the mean over the seeds."""
    gathered: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for rows in by_seed.values():
        for row in rows:
            gathered.setdefault((row["case"], row["class"]), []).append(row)
    return {
        key: {metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS_WITHIN}
        for key, rows in gathered.items()
    }
