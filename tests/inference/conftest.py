"""A small untrained network that takes half of a drawn picture for a lesion; the same each run."""

import numpy as np
import pytest
import torch
from PIL import Image

from hymunet import HyMUNet, Predictor
from hymunet.data.phantoms import draw_lesion
from hymunet.network.model_file import save_model

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}


@pytest.fixture(scope="session")
def picture():
    """(3, 37, 53) uint8: no side is a multiple of anything."""
    return draw_lesion(0, (37, 53)).image


@pytest.fixture(scope="session")
def toy(picture):
    """Seeded, and its head's bias shifted so that half of the picture is above 0.5."""
    torch.manual_seed(3)
    network = HyMUNet(3, 1, **TOY).eval()
    median = float(np.median(Predictor(network)(picture).probability))
    with torch.no_grad():
        network.head.logits.bias -= np.log(median / (1 - median))
    return network


@pytest.fixture(scope="session")
def toy_file(toy, tmp_path_factory):
    """The toy as a model file, with the metadata that training writes."""
    info = {
        "classes": ["lesion"],
        "licence": "CC0-1.0",
        "training": {"data": "drawn lesions"},
        "cases": {"train": ["hash"] * 7},
    }
    return save_model(tmp_path_factory.mktemp("model") / "toy.safetensors", toy, info)


@pytest.fixture
def folder(picture, tmp_path):
    """images/ with three pictures of different sizes and kinds, the second in a subfolder."""
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    rgb = np.moveaxis(picture, 0, -1)
    Image.fromarray(rgb).save(images / "a.png")
    Image.fromarray(rgb[:20, :30]).save(images / "more" / "b.bmp")
    Image.fromarray(rgb[..., 1]).save(images / "c.tif")
    return images
