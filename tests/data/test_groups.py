"""Names tell groups, all of them or none."""

from pathlib import Path

import pytest

from hymunet.data.case import Case, Dataset
from hymunet.data.groups import grouped_by_name
from hymunet.errors import HyMUNetError


def dataset_of(*ids):
    cases = tuple(Case(id_, (Path(f"{id_}.png"),), Path("mask.png")) for id_ in ids)
    return Dataset("folder pairs", Path("data"), cases)


@pytest.mark.parametrize("pattern", ["^[^_]+", r"(P\d+)_", r"^(P\d+)(_.*)?$"])
def test_the_first_parentheses_or_the_whole_match_is_the_group(pattern):
    grouped = grouped_by_name(dataset_of("P1_a", "P1_b", "P22_a"), pattern)
    assert [case.group for case in grouped.cases] == ["P1", "P1", "P22"]
    assert "2 groups by --groups" in grouped.notes[-1]


def test_without_a_pattern_nothing_changes():
    dataset = dataset_of("a", "b")
    assert grouped_by_name(dataset, None) is dataset


def test_a_name_without_a_group_and_a_broken_pattern_are_refused():
    with pytest.raises(HyMUNetError, match=r"finds nothing in 1 of 2 names \(other\)"):
        grouped_by_name(dataset_of("P1_a", "other"), r"P\d")
    with pytest.raises(HyMUNetError, match="is no regular expression"):
        grouped_by_name(dataset_of("P1_a"), "(")
