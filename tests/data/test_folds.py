"""Folds: every case tested once, no group on two sides, alike in size, the same everywhere."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hymunet.data.folds import VAL_SHARE, load_folds, make_folds, save_folds
from hymunet.data.splits import PARTS
from hymunet.errors import HyMUNetError


def cases(count, seed=0):
    rng = np.random.default_rng(seed)
    return [f"case_{n:04d}" for n in range(count)], rng.lognormal(-2, 1, count).tolist()


def groups_of(split, group):
    return [{group[id] for id in getattr(split, part)} for part in PARTS]


@st.composite
def grouped(draw):
    """Numbers of groups, one a case, and how many folds they are enough for."""
    folds = draw(st.integers(3, 6))
    sizes = draw(st.lists(st.integers(1, 5), min_size=folds, max_size=25))
    return [number for number, size in enumerate(sizes) for _ in range(size)], folds


@given(of=grouped(), seed=st.integers(0, 99), balanced=st.booleans())
def test_each_case_is_tested_once_and_no_group_is_on_two_sides(of, seed, balanced):
    members, folds = of
    ids, sizes = cases(len(members))
    drawn = make_folds(ids, [f"g{m}" for m in members], sizes if balanced else None, folds, seed)
    group = dict(zip(ids, members, strict=True))
    assert len(drawn) == folds
    assert sorted(id for split in drawn for id in split.test) == ids
    for split in drawn:
        assert sorted(split.train + split.val + split.test) == ids
        train, val, test = groups_of(split, group)
        assert not train & val
        assert not train & test
        assert not val & test
        assert train
        assert val
        assert test
    held = [len(split.test) for split in drawn]
    assert max(held) - min(held) <= max(Counter(members).values())


@given(count=st.integers(10, 60), folds=st.integers(2, 6), seed=st.integers(0, 9))
def test_neither_order_nor_group_names_change_the_folds(count, folds, seed):
    ids, sizes = cases(count)
    groups = [None if n % 3 else f"patient {n // 6}" for n in range(count)]
    first = make_folds(ids, groups, sizes, folds, seed)
    assert make_folds(ids, groups, sizes, folds, seed) == first
    order = np.random.default_rng(seed).permutation(count)
    again = make_folds(
        [ids[n] for n in order],
        [groups[n] and groups[n][::-1] for n in order],
        [sizes[n] for n in order],
        folds,
        seed,
    )
    assert again == first


def test_another_seed_draws_other_folds():
    ids, sizes = cases(60)
    tests = {make_folds(ids, None, sizes, 5, seed)[0].test for seed in range(5)}
    assert len(tests) == 5


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_lesion_sizes_are_alike_in_all_folds(folds):
    ids, sizes = cases(400)
    area = dict(zip(ids, sizes, strict=True))
    low, high = np.quantile(sizes, [0.2, 0.8])

    def spread(splits):
        tested = [np.array([area[id] for id in split.test]) for split in splits]
        return max(
            max(abs(np.mean(values < low) - 0.2), abs(np.mean(values > high) - 0.2))
            for values in tested
        )

    worst = max(spread(make_folds(ids, None, sizes, folds, seed)) for seed in range(10))
    without = max(spread(make_folds(ids, None, None, folds, seed)) for seed in range(10))
    assert worst <= 1.01 * folds / 400  # a case of a fold
    assert without > 2 * worst  # so it is the balancing that does it


def test_validation_has_its_share_and_changes_from_fold_to_fold():
    ids, sizes = cases(200)
    drawn = make_folds(ids, None, sizes, 5)
    for split in drawn:
        assert abs(len(split.val) - VAL_SHARE * 160) <= 1
    # all but a few cases teach at least three of the four networks that may learn from them
    taught = Counter(id for split in drawn for id in split.train)
    assert min(taught[id] for id in ids) >= 1
    assert np.mean([taught[id] >= 3 for id in ids]) > 0.8
    assert len({split.val for split in drawn}) == 5


def test_too_few_groups_and_bad_arguments_are_refused():
    ids, sizes = cases(6)
    with pytest.raises(
        HyMUNetError, match=r"5 folds need at least 5 groups .* 6 cases form 3: ask"
    ):
        make_folds(ids, list("aabbcc"), sizes, 5)
    with pytest.raises(HyMUNetError, match=r"need at least 3 groups .* 6 cases form 2: add data"):
        make_folds(ids, list("aaabbb"), sizes, 2)
    with pytest.raises(HyMUNetError, match=r"outside fold \d are one group.*ask for 3 folds"):
        make_folds(ids, list("aaaabc"), None, 2)
    with pytest.raises(HyMUNetError, match=r"at least 2 folds, not 1"):
        make_folds(ids, None, sizes, 1)
    with pytest.raises(HyMUNetError, match=r"6 ids, but 5 sizes"):
        make_folds(ids, None, sizes[:5], 2)
    with pytest.raises(HyMUNetError, match=r"occur twice: case_0000"):
        make_folds([*ids, ids[0]], None, None, 2)


def test_saved_folds_come_back(tmp_path):
    ids, sizes = cases(12)
    ids[0] = "Füße ☂"
    drawn = make_folds(ids, None, sizes, 3, seed=7)
    path = tmp_path / "folds.json"
    save_folds(path, drawn, {"epochs": 3, "warmup": 0.05})
    assert load_folds(path) == (drawn, {"epochs": 3, "warmup": 0.05})
    assert [file.name for file in tmp_path.iterdir()] == ["folds.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["folds"][1]["test"].append(c["folds"][0]["test"][0]), r"fold 1 of .*twice"),
        (lambda c: c["folds"].append(c["folds"][0]), r"tests cases in two folds: case_"),
        (lambda c: c["folds"][2].pop("val"), r"fold 2 of .*folds\.json is not a split"),
        (lambda c: c.pop("settings"), r"holds no folds"),
        (lambda c: c.update(folds="all"), r"holds no folds"),
    ],
)
def test_damaged_folds_are_refused(tmp_path, change, words):
    path = tmp_path / "folds.json"
    save_folds(path, make_folds(cases(12)[0], None, None, 3), {})
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(HyMUNetError, match=words):
        load_folds(path)


def test_files_that_are_no_json_are_refused(tmp_path):
    path = tmp_path / "folds.json"
    with pytest.raises(HyMUNetError, match=r"folds\.json cannot be read"):
        load_folds(path)
    for content in (b"{", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(HyMUNetError, match=r"folds\.json is broken"):
            load_folds(path)
