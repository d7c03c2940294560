"""Splits: each case once, no group on two sides, alike in lesion size, the same everywhere."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hymunet.data.splits import (
    PARTS,
    Split,
    load_split,
    make_split,
    read_split,
    save_split,
    split_from_table,
)
from hymunet.errors import HyMUNetError


def cases(count, seed=0):
    rng = np.random.default_rng(seed)
    return [f"case_{n:04d}" for n in range(count)], rng.lognormal(-2, 1, count).tolist()


@given(
    members=st.lists(st.integers(0, 12), min_size=3, max_size=60).filter(lambda m: len(set(m)) > 2),
    seed=st.integers(0, 99),
)
def test_each_case_once_each_group_on_one_side_each_part_filled(members, seed):
    ids, sizes = cases(len(members))
    split = make_split(ids, [f"g{m}" for m in members], sizes, seed=seed)
    assert sorted(split.train + split.val + split.test) == ids
    group = dict(zip(ids, members, strict=True))
    sides = [{group[id] for id in getattr(split, part)} for part in PARTS]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert all(sides)


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.5, 0.25, 0.25)])
@pytest.mark.parametrize("count", [20, 97, 1000])
def test_parts_have_their_shares(count, fractions):
    ids, sizes = cases(count)
    split = make_split(ids, None, sizes, fractions)
    for part, fraction in zip(PARTS, fractions, strict=True):
        assert abs(len(getattr(split, part)) - fraction * count) <= 1.5
    assert (len(split.test) == 0) == (fractions[2] == 0)


def test_lesion_sizes_are_alike_on_all_sides():
    ids, sizes = cases(400)
    area = dict(zip(ids, sizes, strict=True))
    low, high = np.quantile(sizes, [0.2, 0.8])

    def spread(split):
        values = [[area[id] for id in getattr(split, part)] for part in PARTS]
        return [
            max(abs(np.mean(np.array(v) < low) - 0.2), abs(np.mean(np.array(v) > high) - 0.2))
            for v in values
        ]

    worst = max(max(spread(make_split(ids, None, sizes, seed=seed))) for seed in range(20))
    without = max(max(spread(make_split(ids, None, None, seed=seed))) for seed in range(20))
    assert worst <= 0.025  # a case or so of sixty
    assert without > 0.08  # so it is the balancing that does it


def test_neither_order_nor_group_names_change_the_split():
    ids, sizes = cases(60)
    groups = [None if n % 3 else f"patient {n // 6}" for n in range(60)]
    first = make_split(ids, groups, sizes, seed=3)
    order = np.random.default_rng(1).permutation(60)
    again = make_split(
        [ids[n] for n in order],
        [groups[n] and groups[n][::-1] for n in order],
        [sizes[n] for n in order],
        seed=3,
    )
    assert first == again
    assert make_split(ids, groups, sizes, seed=4).val != first.val


def test_a_known_split_stays_as_it_is():
    ids, _ = cases(8)
    split = make_split(ids, None, None, seed=0)
    # the third and the fifth by the SHA-256 of "0 case_...", worked out by hand from the shares:
    # no version of a library and no machine may change it
    assert split.val == ("case_0002",)
    assert split.test == ("case_0006",)


def test_a_group_named_like_a_case_is_not_that_case():
    split = make_split(["a", "b", "c", "d"], ["b", None, None, None], None, (0.5, 0.25, 0.25))
    assert "in 4 groups" in split.notes[0]


def test_too_few_groups_and_bad_arguments_are_refused():
    ids, sizes = cases(5)
    with pytest.raises(HyMUNetError, match=r"at least 3 groups of cases, but 5 cases form 2"):
        make_split(ids, ["a", "a", "a", "b", "b"], sizes)
    assert make_split(ids, ["a", "a", "a", "b", "b"], sizes, (0.7, 0.3, 0)).test == ()
    with pytest.raises(HyMUNetError, match=r"at least 3 groups.*0 cases form 0"):
        make_split([], [], [])
    for fractions, words in (
        ((0.7, 0.2, 0.2), r"sum to 1.1; expected 1"),
        ((0.7, 0.4, -0.1), r"three numbers from 0 to 1"),
        ((0.8, 0.2), r"three numbers"),
        ((float("nan"), 0.5, 0.5), r"three numbers"),
        ((0.8, 0.0, 0.2), r"train and val must not be 0"),
    ):
        with pytest.raises(HyMUNetError, match=words):
            make_split(ids, None, sizes, fractions)
    with pytest.raises(HyMUNetError, match=r"5 ids, but 4 sizes"):
        make_split(ids, None, sizes[:4])
    with pytest.raises(HyMUNetError, match=r"occur twice: case_0000"):
        make_split([*ids, ids[0]], None, None)
    with pytest.raises(HyMUNetError, match=r"NaN or infinity"):
        make_split(ids, None, [*sizes[:4], float("nan")])


def test_a_given_split_is_checked():
    ids = ["a", "b", "c"]
    split = split_from_table(ids, {"c": "Testing", "a": "training", "b": " validation "})
    assert (split.train, split.val, split.test) == (("a",), ("b",), ("c",))
    for table, words in (
        ({"a": "train", "b": "val", "c": "holdout"}, r"'holdout'; expected train, val or test"),
        ({"a": "train", "b": "val"}, r"leaves out 1 case of the data: c"),
        ({"a": "train", "b": "val", "c": "test", "d": "test"}, r"names 1 case .* not have: d"),
    ):
        with pytest.raises(HyMUNetError, match=words):
            split_from_table(ids, table)


def test_a_split_file_is_a_table_or_the_split_of_a_run(tmp_path):
    ids = ["a", "b", "c", "d"]
    table, saved = tmp_path / "parts.csv", tmp_path / "split.json"
    table.write_text("case;split\nb;training\na;Validation\nc;test\n")
    split = read_split(table, ids)  # d is in no part
    assert (split.train, split.val, split.test) == (("b",), ("a",), ("c",))
    assert (split.seed, split.notes) == (None, (f"as given by {table}",))
    save_split(saved, Split(("b",), ("a",), ("c",), 7, ("drawn with seed 7",)))
    again = read_split(saved, ids)
    assert (again.train, again.val, again.test) == (("b",), ("a",), ("c",))
    assert (again.seed, again.notes) == (7, (f"as given by {saved}", "drawn with seed 7"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "case,split\na,train\nz,val\n", r"x\.csv names 1 case .* not have: z"),
        ("x.csv", "case,split\na,train\nb,dev\n", r"x\.csv names the parts 'dev'; expected train"),
        ("x.csv", "case,split\na,train\na,val\n", r"x\.csv names cases twice: a"),
        ("x.csv", "image,mask\na,b\n", r"x\.csv has the columns .*; expected case and split"),
        ("x.json", "{}", r"x\.json is not a split"),
        (
            "x.json",
            '{"train": ["a"], "val": ["z"], "test": [], "seed": 1, "notes": []}',
            r"x\.json names 1 case that the data do not have: z",
        ),
    ],
)
def test_split_files_that_do_not_fit_the_data_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(HyMUNetError, match=words):
        read_split(tmp_path / name, ["a", "b"])


def test_a_split_file_that_is_not_there_or_a_folder_is_refused(tmp_path):
    for name in ("gone.csv", "gone.json"):
        with pytest.raises(HyMUNetError, match=rf"{name} cannot be read"):
            read_split(tmp_path / name, ["a", "b"])
    with pytest.raises(HyMUNetError, match=r"is a folder; expected a split file: .* split\.json"):
        read_split(tmp_path, ["a", "b"])


def test_saved_splits_come_back(tmp_path):
    ids, sizes = cases(30)
    ids[0] = "Füße ☂"
    split = make_split(ids, None, sizes, seed=7)
    save_split(tmp_path / "split.json", split)
    assert load_split(tmp_path / "split.json") == split
    save_split(tmp_path / "split.json", Split(("a",), ("b",), ()))
    assert load_split(tmp_path / "split.json") == Split(("a",), ("b",), ())
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"val": ["a"]}, r"names cases twice: a"),
        ({"val": None}, r"is not a split"),
        ({"val": "abc"}, r"is not a split"),
        ({"test": [1]}, r"is not a split"),
        ({"seed": "7"}, r"is not a split"),
    ],
)
def test_broken_split_files_are_refused(tmp_path, change, words):
    path = tmp_path / "split.json"
    save_split(path, Split(("a",), ("b",), ("c",), 7))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(HyMUNetError, match=words):
        load_split(path)


def test_split_files_that_are_no_json_are_refused(tmp_path):
    path = tmp_path / "split.json"
    for content, words in ((b"{", r"is broken"), (b"\xff", r"is broken"), (b"[]", r"not a split")):
        path.write_bytes(content)
        with pytest.raises(HyMUNetError, match=words):
            load_split(path)
    with pytest.raises(HyMUNetError, match=r"cannot be read"):
        load_split(tmp_path / "gone.json")
