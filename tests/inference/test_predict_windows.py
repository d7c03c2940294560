"""A model of windows: any size of volume, at its spacing, on the image's own grid."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from hymunet import HyMUNet, Predictor
from hymunet.data.image_io import Image
from hymunet.data.preprocess import Preprocess
from hymunet.errors import HyMUNetError
from hymunet.inference.sliding_window import sliding_window

WINDOW = {
    "resize": "window", "patch_size": (8, 16, 16), "normalisation": "nonzero",
    "mean": (0.0,), "std": (1.0,), "multiple": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    sizes = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2, "stem_stride": 1}
    return HyMUNet(1, 3, spatial_dims=3, activation="softmax", **sizes).eval()


def volume(size, seed=0):
    values = np.random.default_rng(seed).normal(50, 10, (1, *size)).astype(np.float32)
    values[:, :, :3] = 0  # cut away
    return values


@pytest.mark.parametrize("size", [(8, 16, 16), (5, 9, 30), (20, 17, 33)])
@pytest.mark.parametrize("tta", [False, True])
def test_any_volume_comes_back_on_its_own_grid(network, size, tta):
    prediction = Predictor(network, info={"preprocess": WINDOW}, tta=tta)(volume(size))
    assert prediction.mask.shape == size
    np.testing.assert_allclose(prediction.probability.sum(axis=0), 1, atol=1e-5)


def test_one_window_is_the_network_itself(network):
    pixels = volume((8, 16, 16))
    inside = pixels[pixels != 0].astype(np.float64)
    expected = np.where(pixels == 0, 0, (pixels - inside.mean()) / inside.std())
    with torch.no_grad():
        logits = network(torch.from_numpy(expected.astype(np.float32))[None])
    prediction = Predictor(network, info={"preprocess": WINDOW})(pixels)
    np.testing.assert_allclose(prediction.probability, logits.softmax(1)[0], atol=1e-5)


def test_larger_volumes_are_the_weighted_mean_of_windows(network):
    pixels = volume((12, 20, 26))
    predictor = Predictor(network, info={"preprocess": WINDOW})
    prepared = Preprocess.from_dict(WINDOW)(torch.from_numpy(pixels)[None])
    with torch.no_grad():
        expected = sliding_window(lambda x: network(x).softmax(1), prepared, (8, 16, 16))[0]
    np.testing.assert_allclose(predictor(pixels).probability, expected, atol=1e-5)


def test_spacing_brings_anatomy_to_one_scale(network):
    """A volume and the same one with every slice twice, half as thick: one prediction."""
    predictor = Predictor(network, info={"preprocess": WINDOW | {"spacing_mm": (2.0, 1.0, 1.0)}})
    pixels = gaussian_filter(volume((8, 16, 16)), (0, 3, 1, 1))  # nothing is lost between slices
    thick = predictor(Image(pixels, (2.0, 1.0, 1.0)))
    thin = predictor(Image(np.repeat(pixels, 2, axis=1), (1.0, 1.0, 1.0)))
    assert thin.mask.shape == (16, 16, 16)
    assert thick.mask.shape == (8, 16, 16)
    agreement = (np.repeat(thick.mask, 2, axis=0) == thin.mask).mean()
    assert agreement > 0.9  # but for what interpolation does at slices' borders


def test_an_unknown_spacing_is_refused(network):
    predictor = Predictor(network, info={"preprocess": WINDOW | {"spacing_mm": (2.0, 1.0, 1.0)}})
    with pytest.raises(HyMUNetError, match=r"works at 2 x 1 x 1 mm"):
        predictor(volume((8, 16, 16)))
