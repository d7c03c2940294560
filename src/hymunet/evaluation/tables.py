"""How figures are put into files: means with intervals, rows as CSV, summaries as JSON."""

import csv
import io
import math
from collections.abc import Hashable, Mapping, Sequence
from json import dumps
from typing import Any

import numpy as np

from hymunet.metrics.statistics import Interval, bootstrap_mean


def mean_of(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable | None]
) -> dict[str, float | None]:
    """The mean over cases with its 95 % bootstrap interval over groups, as in `as_bounds`."""
    return as_bounds(bootstrap_mean(values, groups))


def as_bounds(interval: Interval) -> dict[str, float | None]:
    """`mean`, `low` and `high`; a bound that nobody can know (one group) is None, not NaN, so that
    it is plain JSON."""
    return {
        name: None if math.isnan(value) else value
        for name, value in (
            ("mean", interval.mean), ("low", interval.low), ("high", interval.high)
        )
    }  # fmt: skip


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as CSV with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(content: Any) -> str:
    """Indented JSON; what is not finite becomes null."""
    return dumps(_finite(content), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
