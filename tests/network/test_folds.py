"""A folder of folds: all of its models, none of them missing, or none at all."""

import json

import pytest
import torch

from hymunet import HyMUNet
from hymunet.errors import HyMUNetError
from hymunet.network.folds import find_folds
from hymunet.network.model_file import (
    find_model,
    find_models,
    model_identity,
    models_identity,
    save_model,
)

SIZE = {"dims": (4, 8), "depths": (1, 1), "d_state": 2, "stages": "CC"}


def folds(folder, numbers=range(3), planned=None, **info):
    for number in numbers:
        (folder / f"fold-{number}").mkdir(parents=True)
        torch.manual_seed(number)
        save_model(folder / f"fold-{number}" / "best.safetensors", HyMUNet(1, 1, **SIZE), info)
    if planned is not None:
        (folder / "folds.json").write_text(json.dumps({"folds": [{}] * planned}))
    return folder


def test_folds_are_found_in_their_order(tmp_path):
    folds(tmp_path, range(11), planned=11)
    (tmp_path / "fold-x").mkdir()
    (tmp_path / "split-fold-0.json").touch()
    expected = [tmp_path / f"fold-{number}" for number in range(11)]
    assert find_folds(tmp_path) == expected
    assert find_models(tmp_path) == [path / "best.safetensors" for path in expected]
    assert find_models(str(expected[3])) == [expected[3] / "best.safetensors"]


def test_a_fold_that_is_not_trained_yet_is_not_passed_over(tmp_path):
    folds(tmp_path, (0, 1), planned=3)
    with pytest.raises(HyMUNetError, match=r"fold-2 of .* hold no best.safetensors yet"):
        find_models(tmp_path)
    (tmp_path / "folds.json").unlink()
    assert len(find_models(tmp_path)) == 2
    (tmp_path / "fold-0" / "best.safetensors").unlink()
    with pytest.raises(HyMUNetError, match="fold-0 of"):
        find_models(tmp_path)


def test_where_one_model_is_wanted_the_folds_are_named(tmp_path):
    folds(tmp_path)
    with pytest.raises(HyMUNetError, match=r"holds 3 folds, and one model is wanted.*fold-0"):
        find_model(tmp_path)
    save_model(tmp_path / "best.safetensors", HyMUNet(1, 1, **SIZE))
    assert find_models(tmp_path) == [find_model(tmp_path)] == [tmp_path / "best.safetensors"]


def test_the_identity_of_several_is_that_of_all(tmp_path):
    one = folds(tmp_path / "one", (0, 1), threshold=0.25)
    other = folds(tmp_path / "other", (0, 1), threshold=0.25)
    third = folds(tmp_path / "third", (0, 2), threshold=0.25)
    found = models_identity(one)
    assert found == models_identity(other) != models_identity(third)
    assert (found["threshold"], found["models"]) == (0.25, 2)
    fold = one / "fold-0" / "best.safetensors"
    assert models_identity(fold) == model_identity(fold) != found
    (one / "fold-1").rename(one / "fold-2")
    (one / "fold-0").rename(one / "fold-1")
    (one / "fold-2").rename(one / "fold-0")
    assert models_identity(one) == found
