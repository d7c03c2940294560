"""Numbers over many cases: bootstrap intervals, pooled scores, a paired test, Holm's correction.

Images of one patient or near-duplicates are not independent; whatever is random here therefore
acts on whole groups.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hymunet.errors import HyMUNetError
from hymunet.metrics.overlap import Counts, overlap_metrics

_BLOCK = 2_000_000  # random numbers held at once


@dataclass(frozen=True)
class Interval:
    """A mean over cases and the interval that a repetition of the study would likely show.

    Args:
        mean: Over the cases as they are.
        low: Lower bound; NaN when there is only one group, whose spread nobody can know.
        high: Upper bound, likewise.
    """

    mean: float
    low: float
    high: float

    def sign(self) -> int:
        """1 or -1 when the whole interval lies above or below 0; 0, undecided, when it holds 0 or
        is not known."""
        return int(self.low > 0) - int(self.high < 0)


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable | None] | None = None,
    samples: int = 2000,
    seed: int = 0,
    *,
    level: float = 0.95,
) -> Interval:
    """Mean of `values` with a percentile bootstrap interval that resamples groups.

    Each of `samples` repetitions draws as many groups as there are, with replacement, and takes
    the mean over all cases in them (a group drawn twice counts twice); the interval lies between
    the (1 - level) / 2 quantiles of these means. Efron & Tibshirani 1993, chapters 8 and 13.

    Args:
        values: One finite number per case.
        groups: One label per case; a case whose label is None is a group of its own. None: all are.
        samples: Repetitions.
        seed: Of the draws; the same arguments give the same interval.
        level: Coverage aimed at.

    Raises:
        HyMUNetError: If there is no value, one is NaN or infinite, the lengths differ, `samples`
            is below 1 or `level` is not in (0, 1).
    """
    numbers = _finite(values, "values")
    codes = _group_codes(groups, len(numbers))
    _check_samples(samples)
    _check_level(level)
    sums, sizes = np.bincount(codes, weights=numbers), np.bincount(codes)
    mean = float(numbers.mean())
    if len(sums) == 1:
        return Interval(mean, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    means = []
    for rows in _blocks(samples, len(sums)):
        drawn = rng.integers(len(sums), size=(len(rows), len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    # equal values leave rounding alone, which must not put the mean outside its own interval
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def t_interval(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Interval:
    """Mean of a few independent repetitions, such as seeds, with Student's t interval.

        mean +- t(level, n - 1) * s / sqrt(n),    s the standard deviation (n - 1 in it)

    For three to ten numbers, of which a bootstrap's interval would be far too narrow; right where
    they scatter about normally. Student 1908, https://doi.org/10.1093/biomet/6.1.1.

    Args:
        values: One finite number per repetition.
        level: Coverage aimed at.

    Returns:
        The interval; low and high are NaN for a single number.

    Raises:
        HyMUNetError: If there is no value, one is NaN or infinite, or `level` is not in (0, 1).
    """
    from scipy.stats import t

    numbers = _finite(values, "values")
    _check_level(level)
    mean, n = float(numbers.mean()), len(numbers)
    if n == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = float(t.ppf((1 + level) / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def pooled(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The overlap metrics of all cases' pixels thrown together: from summed tp, fp, fn, tn.

    Large structures weigh more than small ones here; the mean over cases weighs all alike. The
    two differ, and a table must say which it shows.

    Args:
        counts: Per case a mapping with tp, fp, fn, tn, such as `case_metrics` returns.

    Returns:
        dice, iou, precision, recall, specificity, accuracy.

    Raises:
        HyMUNetError: If there is no case, or a count is missing, negative or not whole.
    """
    if len(counts) == 0:
        raise HyMUNetError("pooled metrics need at least one case, got none; check the split")
    totals = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for index, row in enumerate(counts):
        for key in totals:
            value = float(row[key]) if key in row else float("nan")
            if not (value >= 0 and value.is_integer()):
                raise HyMUNetError(
                    f"case {index} must have {key} as a whole number of pixels, "
                    f"got {row.get(key, 'nothing')}; pass what case_metrics returned"
                )
            totals[key] += int(value)
    return overlap_metrics(Counts(**totals))


def bootstrap_pooled(
    counts: Sequence[Mapping[str, float]],
    groups: Sequence[Hashable | None] | None = None,
    classes: Sequence[Hashable] | None = None,
    metric: str = "dice",
    samples: int = 2000,
    seed: int = 0,
    *,
    level: float = 0.95,
) -> Interval:
    """A pooled score with a percentile bootstrap interval that resamples groups.

    As `bootstrap_mean`, but each repetition sums tp, fp and fn over all cases drawn and takes the
    score of the sums: 2 tp / (2 tp + fp + fn) or tp / (tp + fp + fn), 1 where nothing is there and
    nothing was found.

    Args:
        counts: As in `pooled`.
        groups: One label per row; None, for a row or for all: a group of its own.
        classes: One label per row; scores of several classes are averaged. None: all of one.
        metric: dice or iou.
        samples: Repetitions.
        seed: Of the draws.
        level: Coverage aimed at.

    Returns:
        `mean` is the pooled score of all rows; low and high are NaN when there is one group.

    Raises:
        HyMUNetError: As `pooled` and `bootstrap_mean`, or if the metric is none of the two.
    """
    if metric not in ("dice", "iou"):
        raise HyMUNetError(f"pooled intervals are of dice or iou, not {metric!r}")
    pooled(counts)  # checks every count
    codes = _group_codes(groups, len(counts))
    kinds = _group_codes(classes, len(counts)) if classes is not None else np.zeros_like(codes)
    _check_samples(samples)
    table = np.zeros((codes.max() + 1, kinds.max() + 1, 3))
    rows = [[float(row[key]) for key in ("tp", "fp", "fn")] for row in counts]
    np.add.at(table, (codes, kinds), np.array(rows))

    def score(sums: np.ndarray) -> np.ndarray:  # (..., classes, 3) -> (...)
        hit = sums[..., 0] * (2 if metric == "dice" else 1)
        whole = hit + sums[..., 1] + sums[..., 2]
        return np.where(whole > 0, hit / np.maximum(whole, 1), 1.0).mean(axis=-1)

    seen = float(score(table.sum(axis=0)))
    if len(table) == 1:
        return Interval(seen, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    scores = []
    for numbers in _blocks(samples, table.size):
        drawn = rng.integers(len(table), size=(len(numbers), len(table)))
        scores.append(score(table[drawn].sum(axis=1)))
    low, high = np.quantile(np.concatenate(scores), [(1 - level) / 2, (1 + level) / 2])
    return Interval(seen, min(float(low), seen), max(float(high), seen))


def paired_sign_flip(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable | None] | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value that two models' scores on the same cases differ by chance alone.

    If neither model is better, the sign of a group's mean difference is a coin toss. p is the
    share of sign patterns whose |mean over groups| is at least the one seen: over all 2^G patterns
    of G groups when these are at most `samples`, else over `samples` random ones with the seen one
    added, (1 + hits) / (1 + samples). Fisher 1935; Phipson & Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585, for the added one.

    Args:
        a: One finite score per case of one model, seeds averaged before.
        b: The other model's on the same cases in the same order.
        groups: One label per case; None, for a case or for all: a group of its own.
        samples: Random patterns, and the bound of complete enumeration.
        seed: Of the random patterns.

    Returns:
        A value in (0, 1]; 1 when nothing differs. With G groups it cannot fall below 2 / 2^G.

    Raises:
        HyMUNetError: If there is no case, the lengths differ, a score is not finite or `samples`
            is below 1.
    """
    first, second = _finite(a, "scores of the first model"), _finite(b, "scores of the second")
    if len(first) != len(second):
        raise HyMUNetError(
            f"a paired test needs both models' scores on the same cases, got {len(first)} and "
            f"{len(second)}; align them by case id"
        )
    codes = _group_codes(groups, len(first))
    _check_samples(samples)
    differences = np.bincount(codes, weights=first - second) / np.bincount(codes)
    # sums that tie with the one seen may differ by rounding
    bound = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    size = len(differences)
    exact = 2**size <= samples
    rng = np.random.default_rng(seed)
    hits = 0
    for rows in _blocks(2**size if exact else samples, size):
        if exact:  # the bits of 0 .. 2^G - 1 are all patterns
            tosses = (rows[:, None] >> np.arange(size)) & 1
        else:
            tosses = rng.integers(2, size=(len(rows), size))
        hits += int(np.count_nonzero(np.abs((2.0 * tosses - 1.0) @ differences) >= bound))
    if exact:
        return hits / 2**size
    return (1 + hits) / (1 + samples)


def holm(p_values: Sequence[float] | np.ndarray) -> list[float]:
    """Adjusted p-values of several tests; rejecting those <= 5 % errs at all in at most 5 %.

    The i-th smallest of m (i from 0) becomes the largest of (m - j) p_j over j <= i, at most 1
    (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    Args:
        p_values: In any order.

    Returns:
        The adjusted values in the same order.

    Raises:
        HyMUNetError: If one is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise HyMUNetError(f"p-values must be a list of numbers in [0, 1], got {p_values}")
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def _finite(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise HyMUNetError(
            f"{name} must be one number per case for at least one case, got shape {numbers.shape}"
        )
    if not np.isfinite(numbers).all():
        where = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise HyMUNetError(
            f"{name} must be finite, got {numbers[where]} for case {where}; "
            "a missed structure has a defined score (docs/metrics.md), so find where this came from"
        )
    return numbers


def _group_codes(groups: Sequence[Hashable | None] | None, cases: int) -> np.ndarray:
    if groups is None:
        return np.arange(cases)
    if len(groups) != cases:
        raise HyMUNetError(
            f"groups must name one group per case, got {len(groups)} for {cases} cases; "
            "use None for a case of its own"
        )
    codes: dict[object, int] = {}
    # a tuple cannot collide with a label that happens to equal a position
    keys = [("alone", i) if g is None else ("group", g) for i, g in enumerate(groups)]
    return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.int64)


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise HyMUNetError(f"samples must be at least 1, got {samples}; 2000 or more is usual")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise HyMUNetError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")


def _blocks(rows: int, columns: int) -> Iterator[np.ndarray]:
    """Row numbers in pieces, so that memory does not grow with rows x columns."""
    step = max(1, _BLOCK // columns)
    for start in range(0, rows, step):
        yield np.arange(start, min(start + step, rows))
