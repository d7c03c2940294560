"""Means and paired differences against independent computations on made-up rows."""

import numpy as np
import pytest
from scipy import stats

from hymunet.errors import HyMUNetError
from hymunet.experiments.compare.results import (
    PER_IMAGE,
    differences,
    empty_notes,
    model_figures,
    statistics_notes,
)
from hymunet.metrics.statistics import holm, paired_sign_flip


def made_up(seed, cases=40, shift=0.0, classes=("lesion",), unit="px"):
    """Rows of one training, `shift` added to every Dice."""
    own, shared = np.random.default_rng([seed, 1]), np.random.default_rng(0)
    # cases of one group go together, which is what groups are there for
    noise = own.normal(scale=0.02, size=cases // 2).repeat(2)
    rows = []
    for index in range(cases):
        base = shared.uniform(0.5, 0.9)
        for name in classes:
            score = base + shift + noise[index] + own.normal(scale=0.002)
            counts = {k: int(n) for k, n in zip(("tp", "fp", "fn", "tn"),
                                               own.integers(1, 500, 4), strict=True)}  # fmt: skip
            row = {"case": f"c{index:02d}", "class": name, "group": f"g{index // 2}", "unit": unit}
            rows.append(row | dict.fromkeys(PER_IMAGE, score) | counts)
    return rows


def by_case(rows):
    return np.array([row["dice"] for row in rows])


def test_a_model_of_one_seed_is_measured_against_that_seed():
    ours = {0: made_up(0), 1: made_up(1, shift=-0.1)}  # the second was a hard one
    theirs = {0: made_up(2, shift=0.01)}
    alone = differences({"ours": {0: ours[0]}, "theirs": theirs}, "ours")["theirs"]["dice"]
    assert differences({"ours": ours, "theirs": theirs}, "ours")["theirs"]["dice"] == alone
    apart = differences({"ours": ours, "theirs": {7: theirs[0]}}, "ours")["theirs"]["dice"]
    assert apart["mean"] > alone["mean"] + 0.04  # no seed in common: all that there are


def test_differences_are_those_of_scipy_on_group_means():
    ours = {0: made_up(0), 1: made_up(1)}
    theirs = {0: made_up(2, shift=-0.02), 1: made_up(3, shift=-0.02)}
    found = differences({"ours": ours, "theirs": theirs}, "ours")["theirs"]["dice"]
    # a case first
    change = sum(by_case(theirs[seed]) - by_case(ours[seed]) for seed in (0, 1)) / 2
    groups = change.reshape(-1, 2).mean(axis=1)
    assert found["mean"] == pytest.approx(change.mean())
    test = stats.permutation_test(
        (groups,), np.mean, permutation_type="samples", n_resamples=20_000,
        alternative="two-sided", rng=np.random.default_rng(0),
    )  # fmt: skip
    assert 0.001 < test.pvalue < 0.5  # neither end would tell anything
    assert found["p"] == pytest.approx(test.pvalue, abs=0.02)
    interval = stats.bootstrap(
        (groups,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    width = interval.high - interval.low
    assert found["low"] == pytest.approx(interval.low, abs=0.05 * width)
    assert found["high"] == pytest.approx(interval.high, abs=0.05 * width)


def test_holm_is_over_the_models_of_one_metric():
    models = {"ours": {0: made_up(0)}}
    models |= {f"rival {i}": {0: made_up(i + 5, shift=s)} for i, s in enumerate((-0.05, -0.004, 0))}
    found = differences(models, "ours")
    assert list(found) == ["rival 0", "rival 1", "rival 2"]
    raw = [one["dice"]["p"] for one in found.values()]
    # Holm by hand: the smallest times 3, the next times 2, the largest as it is, never falling
    order = np.argsort(raw)
    by_hand, worst = {}, 0.0
    for place, index in enumerate(order):
        worst = max(worst, min(1.0, raw[index] * (3 - place)))
        by_hand[index] = worst
    assert [one["dice"]["p_holm"] for one in found.values()] == [by_hand[i] for i in range(3)]
    assert by_hand[order[0]] == pytest.approx(3 * raw[order[0]])


def test_a_model_against_itself_does_not_differ():
    rows = {0: made_up(0)}
    one = differences({"a": rows, "b": rows}, "a")["b"]["iou"]
    assert (one["mean"], one["low"], one["high"], one["p"], one["p_holm"]) == (0, 0, 0, 1, 1)


def test_means_average_classes_and_seeds_a_case_first():
    by_seed = {0: made_up(0, classes=("a", "b")), 3: made_up(1, classes=("a", "b"))}
    figures = model_figures(by_seed)
    means = [by_case(rows).mean() for rows in by_seed.values()]
    assert figures["n"] == 40
    assert figures["groups"] == 20
    dice = figures["per_image"]["dice"]
    assert dice["mean"] == pytest.approx(np.mean(means))
    assert dice["sd_over_seeds"] == pytest.approx(np.std(means, ddof=1))
    assert dice["low"] < dice["mean"] < dice["high"]
    pooled = []
    for name in "ab":
        rows = [row for rows in by_seed.values() for row in rows if row["class"] == name]
        tp, fp, fn = (sum(row[k] for row in rows) for k in ("tp", "fp", "fn"))
        pooled.append(2 * tp / (2 * tp + fp + fn))
    assert figures["pooled"]["dice"]["mean"] == pytest.approx(np.mean(pooled))
    assert model_figures({0: by_seed[0]})["per_image"]["dice"]["sd_over_seeds"] is None


def test_lengths_in_different_units_are_left_out():
    rows = made_up(0)
    rows[3]["unit"] = "mm"
    figures = model_figures({0: rows})
    assert "hd95" not in figures["per_image"]
    assert figures["length_unit"] is None
    found = differences({"a": {0: rows}, "b": {0: made_up(1)}}, "a")
    assert "hd95" not in found["b"]
    assert "hd95" in differences({"a": {0: made_up(0)}, "b": {0: made_up(1)}}, "a")["b"]


def test_other_cases_are_not_paired():
    few = made_up(1)[:-1]
    with pytest.raises(HyMUNetError, match=r"b and a were scored on other cases \(1 differ.*c39"):
        differences({"a": {0: made_up(0)}, "b": {0: few}}, "a")
    with pytest.raises(HyMUNetError, match=r"seeds of a model were scored on other cases"):
        model_figures({0: made_up(0), 1: few})


@pytest.mark.parametrize(
    ("groups", "models", "said"),
    [(1, 1, "1 independent case no corrected p can be below 1:"), (5, 1, "below 0.062:"),
     (6, 1, ""), (6, 2, "below 0.062:"), (9, 10, ""), (2, 0, "")],
)  # fmt: skip
def test_it_is_said_where_no_difference_could_be_shown(groups, models, said):
    notes = statistics_notes(groups, models, 1)
    assert "one seed each" in notes[1]
    assert "one seed each" not in " ".join(statistics_notes(groups, models, 2))
    assert any("cannot show it" in note for note in notes) == bool(said)
    assert said in " ".join(notes)
    assert any("Holm" in note for note in notes) == bool(models)
    # the bound is what the test itself gives where all cases agree
    if groups > 1 and models:
        p = holm([paired_sign_flip([1.0] * groups, [0.0] * groups)] * models)[0]
        assert (p > 0.05) == bool(said)


def test_masks_with_a_fixed_score_are_counted():
    rows = [{"pred_area": p, "target_area": t} for p, t in ((0, 5), (5, 0), (0, 0), (5, 5))]
    (note,) = empty_notes({"ours": {0: rows[2:]}, "theirs": {0: rows, 1: rows}})
    assert note.endswith("for a distance: theirs 4 of 8")
    assert empty_notes({"ours": {0: rows[2:]}}) == []
