"""A folder of folds under the judges: one prediction of all, no case that any has learnt from."""

import json

import numpy as np
import pytest

from hymunet.data.case_hash import case_hash
from hymunet.data.image_io import read_image
from hymunet.errors import HyMUNetError
from hymunet.evaluation.calibrate import calibrate
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.robustness import robustness
from hymunet.inference.predictor import Predictor
from hymunet.network.model_file import read_info, replace_info
from tests.evaluation.small_models import save_small, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folds(data, tmp_path):
    """Two folds: cases 0, 1 trained the first; 2, 3 the second, which differs from it."""
    run = tmp_path / "run"
    hashes = [
        case_hash(read_image(data / "images" / f"phantom_{i:04d}.png").pixels) for i in range(7)
    ]
    for number, train in enumerate(([0, 1], [2, 3])):
        (run / f"fold-{number}").mkdir(parents=True)
        path = save_small(data, run / f"fold-{number}" / "best.safetensors")
        held = {"train": [hashes[i] for i in train], "val": [hashes[4]], "test": []}
        replace_info(path, read_info(path) | {"cases": held, "threshold": 0.45 + 0.02 * number})
    return run


def test_masks_are_those_of_all_folds(data, folds, tmp_path):
    result = evaluate(folds, data, split="test", output=tmp_path / "out")
    assert "(2 folds together)" in result.summary["prediction"]
    assert result.summary["model"]["models"] == 2
    predictor = Predictor(folds)
    assert predictor.threshold == pytest.approx(0.46)
    for row in result.cases:
        mask = predictor(data / "images" / f"{row['case']}.png").mask
        assert row["tp"] + row["fp"] == np.count_nonzero(mask)
        assert row["seen"] == ""
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["model"] == result.summary["model"]


def test_what_any_fold_was_trained_on_is_refused(data, folds):
    with pytest.raises(HyMUNetError, match=r"4 of 7 cases were trained on: phantom_0000, .*_0003;"):
        evaluate(folds, data)
    rows = evaluate(folds, data, force=True).cases
    assert [row["seen"] for row in rows] == ["train"] * 4 + ["val", "", ""]


def test_a_silent_fold_is_told_of(data, folds):
    path = folds / "fold-1" / "best.safetensors"
    replace_info(path, {k: v for k, v in read_info(path).items() if k != "cases"})
    notes = evaluate(folds, data, split="test").notes
    assert any("1 of the 2 models list no training cases" in note for note in notes)


def test_calibration_and_robustness_of_folds(data, folds):
    found = calibrate(folds, data, split="test").summary
    assert found["model"]["models"] == 2
    with pytest.raises(HyMUNetError, match=r"one model file, and .* holds 2; leave it out"):
        calibrate(folds, data, split="test", write=True)
    result = robustness(folds, data, split="test", limit=1)
    assert result.summary["model"] == found["model"]
