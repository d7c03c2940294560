"""Checks on who is in the data twice: copies and patients, on both sides of a split."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from hymunet.data.case import Dataset
from hymunet.data.duplicates import near_duplicate_groups
from hymunet.data.findings import Finding, grouped
from hymunet.data.masks_io import listed
from hymunet.data.survey import CaseSurvey
from hymunet.wording import plural, shortened


def copies(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    same = [c for c in grouped(rows, lambda row: row.sha256).values() if len(c) > 1]
    if same:
        yield Finding(
            "warning",
            "copies",
            f"{sum(map(len, same))} images are copies of another, pixel for pixel, in "
            f"{plural(len(same), 'group')} ({_groups(same)}): keep one of each, with the better "
            "mask",
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
            f"{sum(map(len, near))} images nearly agree with another, in "
            f"{plural(len(near), 'group')} ({_groups(near)}); a drawn split keeps each group on "
            "one side",
            tuple(id_ for group in near for id_ in group),
        )
    yield from _leaks(dataset, [*near, *same], "near-duplicate images")


def patients(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    groups = grouped([row for row in rows if row.group is not None], lambda row: str(row.group))
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
        pairs = (f"{shortened(one)} and {shortened(other)}" for one, other in across)
        yield Finding(
            "warning",
            "leaks",
            f"{plural(len(across), f'pair of {what} lies', f'pairs of {what} lie')} on both sides "
            f"of the data's own split ({listed(pairs, 3)}): scores are flattered by what was "
            "trained on; move one of each to the other side",
            tuple(dict.fromkeys(id_ for pair in across for id_ in pair)),
        )


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return listed((" = ".join(map(shortened, group[:4])) for group in groups), 3)
