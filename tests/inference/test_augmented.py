"""Test-time augmentation: a mean over eight views that no turn of the image changes."""

import numpy as np
import pytest
import torch

from hymunet import HyMUNet, Predictor
from hymunet.evaluation.evaluate import evaluate
from hymunet.inference.augmented import mean_over_symmetries, symmetries
from hymunet.inference.predict import predict

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


def test_the_eight_symmetries_of_a_square_are_all_different():
    grid = torch.arange(9.0).view(1, 1, 3, 3)
    views = []
    mean_over_symmetries(lambda x: views.append(tuple(x.flatten().tolist())) or x, grid)
    turns = [np.rot90(grid[0, 0].numpy(), k) for k in range(4)]
    expected = {tuple(t.flatten()) for turn in turns for t in (turn, turn[:, ::-1])}
    assert set(views) == expected
    assert len(views) == len(list(symmetries(2))) == 8


def test_the_mirrorings_of_a_volume():
    volume = torch.randn(1, 1, 2, 3, 4)
    seen = []
    out = mean_over_symmetries(lambda x: seen.append(x) or x, volume)
    assert len(seen) == 8
    assert all(x.shape == volume.shape for x in seen)
    torch.testing.assert_close(out, volume)  # each view was turned back before it was added


def test_is_the_mean_of_predictions_on_turned_copies(toy, picture):
    square = picture[:, :32, :32]
    plain = Predictor(toy)

    def probability(pixels):
        return plain(np.ascontiguousarray(pixels)).probability

    views = []
    for k in range(4):
        turned = np.rot90(square, k, axes=(1, 2))
        views.append(np.rot90(probability(turned), -k, axes=(1, 2)))
        mirrored = turned[:, :, ::-1]
        views.append(np.rot90(probability(mirrored)[:, :, ::-1], -k, axes=(1, 2)))
    got = Predictor(toy, tta=True)(square).probability
    np.testing.assert_allclose(got, np.mean(views, axis=0), atol=1e-5)
    assert np.abs(got - probability(square)).max() > 1e-3  # and not the plain prediction


def test_turning_the_image_turns_the_prediction(toy, picture):
    square = np.ascontiguousarray(picture[:, :32, :48])
    averaged = Predictor(toy, tta=True)
    expected = averaged(square).probability
    mirrored = averaged(np.ascontiguousarray(square[:, ::-1])).probability
    np.testing.assert_allclose(mirrored, expected[:, ::-1], atol=1e-5)
    turned = averaged(np.ascontiguousarray(np.rot90(square, axes=(1, 2)))).probability
    np.testing.assert_allclose(turned, np.rot90(expected, axes=(1, 2)), atol=1e-5)


def test_exclusive_classes_still_sum_to_one():
    torch.manual_seed(0)
    network = HyMUNet(1, 3, activation="softmax", spatial_dims=3, conv_norm="group", **TOY)
    volume = np.random.default_rng(0).random((1, 16, 16, 16), np.float32)
    probability = Predictor(network, tta=True)(volume).probability
    np.testing.assert_allclose(probability.sum(axis=0), 1.0, atol=1e-5)


def test_the_commands_take_it(toy_file, folder, tmp_path):
    masks = [tmp_path / name for name in ("plain", "averaged")]
    predict(str(folder), model=toy_file, output=masks[0], probability=True)
    predict(str(folder), model=toy_file, output=masks[1], probability=True, tta=True)
    plain, averaged = ((path / "a_probability.png").read_bytes() for path in masks)
    assert plain != averaged
    for file in masks[1].glob("*_probability.png"):
        file.unlink()
    result = evaluate(toy_file, masks[1], images=folder, masks=masks[1], tta=True)
    assert "with test-time augmentation" in result.summary["prediction"]
    assert "--tta" in result.summary["made"]["command"]
    # the masks that predict --tta wrote are the reference: evaluate --tta makes the same
    assert [row["dice"] for row in result.cases] == [1.0] * len(result.cases)


def test_masks_cannot_be_augmented(folder, tmp_path, toy_file):
    predict(str(folder), model=toy_file, output=tmp_path / "masks")
    with pytest.raises(ValueError, match="--tta augments what a model predicts"):
        evaluate(tmp_path / "masks", tmp_path / "masks", tta=True)
