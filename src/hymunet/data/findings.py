"""What is found in a data set, and how groups of its cases are put into words."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hymunet.data.case import Dataset
from hymunet.data.masks_io import listed
from hymunet.data.survey import CaseSurvey
from hymunet.wording import shortened

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


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


def grouped(rows: Sequence[CaseSurvey], key: Callable[[CaseSurvey], str]) -> dict[str, list[str]]:
    """Key -> ids of the cases that have it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row.id)
    return groups


def tally(groups: dict[str, list[str]]) -> str:
    """How many cases each has, the most frequent first."""
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return "; ".join(
        f"{len(ids)} {name} ({listed(map(shortened, ids), 3)})" for name, ids in ordered
    )


def minority(groups: dict[str, list[str]]) -> tuple[str, ...]:
    """All but the largest group."""
    largest = Counter({name: len(ids) for name, ids in groups.items()}).most_common(1)[0][0]
    return tuple(id_ for name, ids in groups.items() if name != largest for id_ in ids)
