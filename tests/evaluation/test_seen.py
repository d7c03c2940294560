"""Which cases a model has met, by their pixels, and what a reader is told of it."""

import numpy as np
import pytest

from hymunet.data.case_hash import case_hash
from hymunet.data.image_io import Image
from hymunet.errors import HyMUNetError
from hymunet.evaluation.seen import FORCED, OPTIMISTIC, WATCHED, known_cases, refusal


def image(seed: int) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 255, (3, 4, 5), dtype=np.uint8))


def info(options: dict | None = None, **cases: list[int]) -> dict:
    hashes = {part: [case_hash(image(s).pixels) for s in seeds] for part, seeds in cases.items()}
    training = {} if options is None else {"training": {"options": options}}
    return {"cases": hashes} | training


def test_a_case_is_known_by_all_of_its_pixels_and_training_comes_first():
    known = known_cases(info(train=[0, 1], val=[1, 2], test=[3]))
    assert [known.part_of(image(seed)) for seed in range(5)] == ["train", "train", "val", "", ""]
    changed = image(0)
    changed.pixels[2, 3, 4] ^= 1
    assert known.part_of(changed) == ""
    assert known.part_of(None) == ""


def test_fingerprints_by_name_and_as_a_list_are_the_same():
    listed = info(train=[0], val=[1])
    named = {"cases": {part: {"x": h[0]} for part, h in listed["cases"].items()}}
    assert known_cases(named) == known_cases(listed)


@pytest.mark.parametrize(
    ("options", "chose"),
    [
        (None, True),
        ({}, True),
        ({"select": "best"}, True),
        ({"select": "last"}, False),
        ({"select": "last", "patience": 0}, False),
        ({"select": "last", "patience": 5}, True),  # validation said when to stop
    ],
    ids=str,
)
def test_validation_cases_are_called_optimistic_only_if_they_chose(options, chose):
    known = known_cases(info(options, train=[0], val=[1]))
    assert known.val_chose is chose
    (note,) = known.notes({"a": "val", "b": "", "c": "val"})
    assert note == f"2 of 3 cases were in the validation part; {OPTIMISTIC if chose else WATCHED}"
    assert ("optimistic" in note) is chose
    assert known.notes({"b": ""}) == []


def test_what_cannot_be_compared_is_said():
    assert "is not known" in known_cases(None).notes({"a": ""})[0]
    for silent in ({}, {"cases": None}, info(val=[1])):
        known = known_cases(silent)
        assert "overlap with them was not checked" in known.notes({"a": ""})[0]
        assert known.part_of(image(1)) == ""


def test_forced_scores_and_refusals_name_what_was_trained_on():
    seen = {"z": "train", "a": "train", "m": "val", "b": ""}
    forced, _ = known_cases(info(train=[0])).notes(seen)
    assert forced.startswith(f"{FORCED}: 2 of 4 cases were trained on")
    with pytest.raises(HyMUNetError, match=r"2 of 4 cases were trained on: a, z; .*--split test"):
        raise refusal(seen)
