"""Averages by hand: per image, pooled, without empties, by class and by stratum."""

import math

import numpy as np
import pytest

from hymunet.evaluation.strata import describe
from hymunet.evaluation.summary import find_failures, headline_means, over_folds, summarise
from hymunet.metrics.case import case_metrics


def row(name: str, pred: np.ndarray, target: np.ndarray, **other: object) -> dict:
    base = {
        "case": name, "class": "lesion", "group": name, "seen": "", "unit": "px",
        "dimensions": target.ndim, **case_metrics(pred, target),
    }  # fmt: skip
    return base | describe(None, target) | other


def square(*edges: int, size: int = 10) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    top, bottom, left, right = edges
    mask[top:bottom, left:right] = True
    return mask


def test_summary_of_three_cases_by_hand():
    target = square(2, 6, 2, 6)  # 16 of 100 pixels
    half, nothing = square(2, 4, 2, 6), np.zeros((10, 10), bool)
    rows = [row("a", target, target), row("b", half, target), row("c", nothing, target)]
    summary, notes = summarise(rows)
    entry = summary["classes"]["lesion"]
    # Dice 1, 2*8/(8+16), 0; IoU 1, 1/2, 0; thresholded IoU 1, 0, 0
    assert entry["per_image"]["dice"]["mean"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert entry["per_image"]["iou"]["mean"] == pytest.approx(0.5)
    assert entry["per_image"]["thresholded_iou"]["mean"] == pytest.approx(1 / 3)
    assert entry["per_image"]["dice"]["low"] < 5 / 9 < entry["per_image"]["dice"]["high"]
    # a missed lesion is as far away as the image is wide: sqrt(200)
    assert entry["per_image"]["hd"]["mean"] == pytest.approx((0 + 2 + math.sqrt(200)) / 3)
    assert entry["without_empty"]["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert entry["n_without_empty"] == 2
    # 24 true positives, 24 missed pixels: J = 1/2, D = 2J/(1+J)
    assert entry["pooled"]["iou"] == pytest.approx(0.5)
    assert entry["pooled"]["dice"] == pytest.approx(2 / 3)
    assert entry["failures"]["missed"] == ["c"]
    band = entry["strata"]["size"]["5-20 %"]
    assert band["n"] == 3
    assert band["dice"]["mean"] == entry["per_image"]["dice"]["mean"]
    assert entry["strata"]["contrast"] == {}
    assert (summary["n"], summary["length_unit"], summary["area_unit"]) == (3, "px", "px")
    assert notes == [
        "3 independent cases are few: bootstrap intervals from fewer than 30 are too narrow"
    ]


def test_every_kind_of_failure_is_told_from_the_others():
    one, other, nothing = square(0, 2, 0, 2), square(5, 7, 5, 7), np.zeros((10, 10), bool)
    rows = [
        row("missed", nothing, one),
        row("no_overlap", other, one),
        row("false_alarm", one, nothing),
        row("both_empty", nothing, nothing),
        row("fine", one, one),
    ]
    found = find_failures(rows)
    assert found == {name: [name] for name in found}
    assert len(found) == 4


def test_one_group_has_no_interval_and_mixed_units_no_mean_distance():
    target = square(2, 6, 2, 6)
    rows = [row(name, target, target, group="patient") for name in "ab"]
    rows[1]["unit"] = "mm"
    summary, notes = summarise(rows)
    mean = summary["classes"]["lesion"]["per_image"]
    assert mean["dice"] == {"mean": 1.0, "low": None, "high": None}
    assert not {"hd", "hd95", "assd", "nsd", "pred_area"} & set(mean)
    assert summary["length_unit"] is None
    assert "known for 1 of 2 cases" in notes[0]


def test_several_classes_get_a_mean_over_classes():
    target = square(2, 6, 2, 6)
    nothing = np.zeros((10, 10), bool)
    rows = [row("a", target, target), {**row("a", nothing, target), "class": "core"}]
    summary, _ = summarise(rows)
    assert list(summary["classes"]) == ["lesion", "core"]
    assert summary["mean_of_classes"]["dice"]["mean"] == 0.5
    assert headline_means(summary) is summary["mean_of_classes"]
    single, _ = summarise(rows[:1])
    assert headline_means(single) is single["classes"]["lesion"]["per_image"]
    assert summary["n"] == 1


def test_validation_cases_chose_the_epoch_or_were_watched():
    target = square(2, 6, 2, 6)
    rows = [row(name, target, target, seen=part) for name, part in (("a", "val"), ("b", ""))]
    chose, _ = summarise(rows)
    assert (chose["chose_the_epoch"], chose["watched"], chose["trained_on"]) == (1, 0, 0)
    watched, _ = summarise(rows, val_chose=False)
    assert (watched["chose_the_epoch"], watched["watched"]) == (0, 1)


def test_folds_have_means_of_their_own_and_a_spread():
    target, nothing = square(2, 6, 2, 6), np.zeros((10, 10), bool)
    rows = [
        {**row(name, found, target), "fold": fold, "class": kind}
        for fold, name, kind, found in (
            (1, "c", "lesion", target),
            (1, "c", "core", target),
            (0, "a", "lesion", target),
            (0, "a", "core", nothing),
            (0, "b", "lesion", nothing),
            (0, "b", "core", nothing),
        )
    ]
    spread = over_folds(rows, ["dice"])
    # over the classes of a case, then over cases, then over folds
    assert spread["by_fold"] == {0: {"dice": 0.25}, 1: {"dice": 1.0}}
    assert list(spread["by_fold"]) == [0, 1]
    assert spread["mean"] == {"dice": 0.625}
    assert spread["sd"]["dice"] == pytest.approx(0.75 / 2**0.5)
    assert over_folds(rows[:2], ["dice"])["sd"] == {"dice": None}
