"""What a model file promises of its threshold, and when that does not hold."""

import numpy as np
import pytest

from hymunet.network.promise import (
    described_threshold,
    postprocess_text,
    promise_of_file,
    promise_text,
    record_of,
    takes_away,
    threshold_text,
    why_not,
)

RECORD = {
    "miss_rate": 0.1,
    "threshold": float(np.float32(0.28371254)),
    "structure": "lesion",
    "n": 120,
    "data": "ISIC 2018 Task 1",
    "split": "test",
    "tta": False,
}


@pytest.mark.parametrize("seed", range(5))
def test_the_text_of_a_threshold_cuts_as_the_threshold_does(seed):
    threshold = np.random.default_rng(seed).random(1, np.float32)[0]
    text = threshold_text(float(threshold))
    assert np.float32(float(text)) == threshold
    assert len(text) <= 13
    assert [threshold_text(value) for value in (0.5, 0.44)] == ["0.5", "0.44"]


def test_a_record_in_words():
    assert promise_text(RECORD) == (
        "on average at most 10 % of the lesion missed; set on 120 cases of ISIC 2018 Task 1, test"
    )
    silent = RECORD | {"split": None, "data": None, "structure": None, "miss_rate": 0.07}
    assert promise_text(silent | {"tta": True}) == (
        "on average at most 7 % of the structure missed; set on 120 cases of unnamed data, "
        "with test-time augmentation"
    )


def test_it_holds_at_its_threshold_and_below_it_the_same_way():
    own = RECORD["threshold"]
    assert why_not(RECORD, own, tta=False) is None
    assert why_not(RECORD, 0.28371254, tta=False) is None  # as it is typed
    assert why_not(RECORD, 0.1, tta=False) is None
    above = float(np.nextafter(np.float32(own), np.float32(1)))
    assert "is above 0.28371254, its own" in why_not(RECORD, above, tta=False)
    assert why_not(RECORD, own, tta=True) == (
        "it was set without test-time augmentation, and this is with it"
    )
    assert why_not(RECORD | {"tta": True}, own, tta=False) == (
        "it was set with test-time augmentation, and this is without it"
    )


def test_of_a_file():
    info = {"threshold": RECORD["threshold"], "risk_control": RECORD}
    assert promise_of_file(info) == promise_text(RECORD)
    assert described_threshold(info) == f"0.28371254: {promise_text(RECORD)}"
    # a threshold that somebody changed afterwards, or none at all, which is 0.5
    assert promise_of_file(info | {"threshold": 0.4}) is None
    assert promise_of_file({"risk_control": RECORD}) is None
    assert described_threshold({"risk_control": RECORD}) == "0.5"
    assert described_threshold({}) == "0.5"


@pytest.mark.parametrize(
    ("postprocess", "takes"),
    [
        (None, False),
        ({}, False),
        ({"lesion": []}, False),
        ({"lesion": ["fill_holes"]}, False),
        ({"lesion": ["fill_holes", "keep_largest"]}, True),
        ({"lesion": ["fill_holes"], "core": ["keep_largest"]}, True),
        ({"lesion": ["of a later version"]}, True),
        # what cannot be read promises nothing
        ({"lesion": "fill_holes"}, True),
        ({"lesion": 5}, True),
        ({"lesion": [{}]}, True),
        (["fill_holes"], True),
    ],
    ids=str,
)
def test_it_holds_unless_something_is_taken_away_afterwards(postprocess, takes):
    assert takes_away(postprocess) is takes
    info = {"threshold": RECORD["threshold"], "risk_control": RECORD, "postprocess": postprocess}
    broken = why_not(RECORD, RECORD["threshold"], False, postprocess)
    assert (broken is not None) is takes
    assert promise_of_file(info) == (None if takes else promise_text(RECORD))
    if takes:
        assert "post-processing takes away parts" in broken
        assert "--no-postprocess" in broken


def test_post_processing_in_words():
    both = {"liver": ["keep_largest", "fill_holes"], "spleen": ["fill_holes"]}
    assert postprocess_text(both) == "liver: keep largest, fill holes; spleen: fill holes"
    assert postprocess_text(None) == postprocess_text({}) == ""


@pytest.mark.parametrize(
    "record",
    [None, [], "10 %", {}, RECORD | {"n": "many"}, {k: RECORD[k] for k in ("n", "tta")}],
    ids=str,
)
def test_a_record_that_says_too_little_promises_nothing(record):
    info = {"threshold": 0.1, "risk_control": record}
    assert record_of(info) is None
    assert promise_of_file(info) is None
