"""Charts stay small, repeatable and described, and skip what is no number."""

import re

import numpy as np
import pytest

from hymunet.evaluation.charts import (
    blank_axes,
    histogram,
    learning_curves,
    log_ticks,
    score_by_size,
    sorted_scores,
)

HEADER = (
    "epoch,step,lr,seconds,train_loss,train_cross_entropy,train_dice_loss,train_boundary,"
    "val_loss,val_dice,val_iou\n"
)


def test_charts_of_many_cases_stay_small_and_say_what_they_show():
    scores = np.random.default_rng(0).beta(9, 1, 20_000)
    for chart in (sorted_scores(scores), score_by_size(scores / 2, scores)):
        assert len(chart.svg) < 150_000
        assert "20,000 cases" in chart.alt + chart.title
    assert f"median {np.median(scores):.3f}" in sorted_scores(scores).svg


def test_the_same_numbers_give_the_same_chart():
    assert sorted_scores([0.1, 0.5, 0.9]) == sorted_scores([0.9, 0.1, 0.5])


def test_learning_curves_skip_what_is_no_number(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER, encoding="utf-8")
    assert learning_curves(path) == []
    path.write_text(HEADER + "1,1,0,1,0.5,,,,nan,0.25,\n2,2,0,1,0.4,,,,,,\n", encoding="utf-8")
    loss, dice = learning_curves(path)
    assert loss.alt == "Loss by epoch; at the end training 0.4."
    assert "0.250" in dice.alt


def test_a_histogram_counts_every_case_and_says_where_they_lie():
    shares = np.random.default_rng(0).lognormal(1.0, 1.0, 300)
    chart = histogram(shares, "Share", "%", log=True)
    low, middle, high = np.percentile(shares, (5, 50, 95))
    assert f"median {middle:.3g}, 5 to 95 % of them {low:.3g} to {high:.3g}" in chart.alt
    assert "of 300 cases" in chart.alt
    assert len(chart.svg) < 60_000
    assert "median 7" in histogram([7.0, 7.0], "Equal", "px").title  # one value is no error
    ids = [set(re.findall(r'id="([^"]+)"', histogram(shares, t, "%").svg)) for t in "AB"]
    assert not ids[0] & ids[1]  # two on one page do not share an id


@pytest.mark.parametrize(
    ("ends", "first"),
    [((0.5, 900), [1, 10, 100]), ((18, 210), [20, 50, 100]), ((110, 190), [120, 140, 160])],
)
def test_a_logarithmic_axis_has_ticks_however_little_it_spans(ends, first):
    _, axes = blank_axes("ms")
    axes.set_xscale("log")
    axes.set_xlim(*ends)
    log_ticks(axes, "x")
    assert axes.get_xlim() == ends
    ticks = axes.get_xticks()
    assert list(ticks[:3]) == pytest.approx(first)
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{t:g}" for t in ticks]
