"""Differences within kinds of cases, against the same sums by hand."""

import numpy as np
import pytest

from hymunet.evaluation.strata import STRATA
from hymunet.experiments.compare.kinds import METRICS_WITHIN, differences_within

CONTRAST = next(stratum for stratum in STRATA if stratum.name == "contrast")
FAINT, PLAIN = CONTRAST.bands


def rows(shift_of_band, seed=0, cases=30):
    draw = np.random.default_rng(0)
    noise = np.random.default_rng([seed, 1])
    made = []
    for index in range(cases):
        base = draw.uniform(0.4, 0.8)
        for name in ("core", "whole"):
            # one structure of a case may be faint and the other not
            band = FAINT if (index + (name == "core")) % 3 else PLAIN
            score = base + shift_of_band[band] + noise.normal(scale=1e-3)
            bands = {f"{stratum.name}_band": None for stratum in STRATA}
            made.append(
                {"case": f"c{index}", "class": name, "group": f"g{index // 2}"}
                | dict.fromkeys(METRICS_WITHIN, score)
                | bands
                | {"contrast_band": band}
            )
    return made


def test_each_kind_gets_its_own_difference():
    models = {
        "ours": {0: rows({FAINT: 0.0, PLAIN: 0.0}), 1: rows({FAINT: 0.0, PLAIN: 0.0}, seed=1)},
        "theirs": {0: rows({FAINT: 0.1, PLAIN: -0.05}, seed=2)},
    }
    found = differences_within(models, "ours")
    assert list(found) == ["theirs"]
    within = found["theirs"]["contrast"]
    assert (within[FAINT]["n"], within[PLAIN]["n"]) == (40, 20)
    for metric in METRICS_WITHIN:
        assert within[FAINT][metric]["mean"] == pytest.approx(0.1, abs=1e-3)
        assert within[PLAIN][metric]["mean"] == pytest.approx(-0.05, abs=1e-3)
        assert within[FAINT][metric]["low"] > 0 > within[PLAIN][metric]["high"]


def test_the_kinds_together_are_the_whole():
    ours, theirs = rows({FAINT: 0.0, PLAIN: 0.0}), rows({FAINT: 0.03, PLAIN: 0.01}, seed=3)
    within = differences_within({"ours": {0: ours}, "theirs": {0: theirs}}, "ours")["theirs"]
    parts = within["contrast"].values()
    total = sum(part["n"] * part["dice"]["mean"] for part in parts) / len(ours)
    change = np.mean([a["dice"] - b["dice"] for a, b in zip(theirs, ours, strict=True)])
    assert total == pytest.approx(change)


def test_a_kind_without_cases_is_left_out():
    ours = rows({FAINT: 0.0, PLAIN: 0.0})
    within = differences_within({"ours": {0: ours}, "theirs": {0: ours}}, "ours")["theirs"]
    assert within["size"] == {}
    assert set(within["contrast"]) == {FAINT, PLAIN}
