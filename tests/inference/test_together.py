"""Pictures predicted together are predicted as each alone, whatever their sizes and models."""

import numpy as np
import pytest
import torch

from hymunet import HyMUNet, Predictor
from hymunet.data.phantoms import draw_lesion
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.inference.together import can_join, predict_together, prepare
from tests.inference.conftest import TOY

SIZES = ((37, 53), (64, 48), (37, 53), (20, 90))


def made(resize, seed=0, **more):
    torch.manual_seed(seed)
    config = PreprocessConfig(
        image_size=(32, 48),
        resize=resize,
        normalisation="image",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        multiple=16,
        **more,
    )
    return HyMUNet(3, 1, **TOY).eval(), {"preprocess": Preprocess(config).to_dict()}


@pytest.mark.parametrize("resize", ["squeeze", "letterbox"])
def test_together_is_as_each_alone(resize):
    network, info = made(resize)
    predictor = Predictor(network, info=info)
    assert can_join(predictor)
    images = [predictor.decode(draw_lesion(n, size).image) for n, size in enumerate(SIZES)]
    joined = list(predict_together(predictor, [prepare(predictor, image) for image in images]))
    alone = [predictor(image).probability for image in images]
    for one, other, size in zip(joined, alone, SIZES, strict=True):
        assert one.shape == (1, *size)
        np.testing.assert_allclose(one, other, atol=2e-6)
    assert np.abs(alone[0] - alone[2]).max() > 1e-3  # the order of the results is told apart


def test_the_mean_of_several_models_is_theirs_together():
    networks = [made("squeeze", seed)[0] for seed in (0, 1)]
    predictor = Predictor(networks, info=made("squeeze")[1])
    images = [predictor.decode(draw_lesion(n, size).image) for n, size in enumerate(SIZES)]
    joined = list(predict_together(predictor, [prepare(predictor, image) for image in images]))
    for one, image in zip(joined, images, strict=True):
        np.testing.assert_allclose(one, predictor(image).probability, atol=2e-6)


def test_windows_and_mirrorings_are_not_joined(toy):
    network, info = made("squeeze")
    assert not can_join(Predictor(network, info=info, tta=True))
    config = PreprocessConfig(
        resize="window", patch_size=(32, 32), normalisation="image", mean=(0.5,) * 3,
        std=(0.25,) * 3, multiple=16,
    )  # fmt: skip
    assert not can_join(Predictor(network, info={"preprocess": Preprocess(config).to_dict()}))
