"""Small untrained models of every kind that an export has to carry."""

import pytest

pytest.importorskip("onnxscript", reason="NOT TESTED: ONNX needs the extra `export`")
pytest.importorskip("onnxruntime", reason="NOT TESTED: ONNX needs the extra `export`")

import numpy as np
import torch

from hymunet import HyMUNet, Predictor
from hymunet.data.phantoms import draw_lesion
from hymunet.data.preprocess import PreprocessConfig
from hymunet.network.model_file import save_model

SIZES = {"stages": "CM", "dims": (4, 8), "depths": (1, 1), "d_state": 3}


@pytest.fixture(scope="session")
def save_toy(tmp_path_factory):
    """A function that writes a seeded network of stride 4 as a model file."""

    def save(name="toy", in_channels=3, num_classes=1, preprocess=None, spatial_dims=2, **info):
        activation = info.pop("activation", "sigmoid")
        torch.manual_seed(1)
        network = HyMUNet(
            in_channels, num_classes, activation=activation, spatial_dims=spatial_dims, **SIZES
        ).eval()
        mean = {"mean": (0.5,) * in_channels, "std": (0.25,) * in_channels}
        config = PreprocessConfig(multiple=4, **(mean | (preprocess or {})))
        from hymunet.data.preprocess import Preprocess

        told = {"preprocess": Preprocess(config).to_dict(), **info}
        if spatial_dims == 2 and activation == "sigmoid" and in_channels == 3:
            # half of a picture belongs to the first structure, fewer pixels to the next; a little
            # beside the quantile, which is the very value of some pixels
            seen = Predictor(network, info=told)(draw_lesion(0, (60, 80)).image).probability
            shares = np.linspace(0.5, 0.8, num_classes)
            cuts = [np.quantile(one, share) for one, share in zip(seen, shares, strict=True)]
            with torch.no_grad():
                network.head.logits.bias -= torch.tensor(
                    [np.log(p / (1 - p)) + 1e-3 for p in cuts]
                ).float()
        return save_model(tmp_path_factory.mktemp(name) / f"{name}.safetensors", network, told)

    return save
