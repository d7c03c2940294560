"""Drawn lesions and small untrained networks, for tests of what is done with a model."""

from pathlib import Path

import numpy as np

from hymunet.data.case_hash import case_hash
from hymunet.data.image_io import read_image
from hymunet.data.phantoms import write_phantoms

SPLIT = ("train", "train", "val", "val", "val", "test", "test")
SIZE = {"dims": (4, 8), "depths": (1, 1), "d_state": 2, "stages": "CM"}


def write_data(folder: Path) -> Path:
    """Seven phantoms of 48 x 64 pixels: two train, three val, two test."""
    write_phantoms(folder, len(SPLIT), (48, 64))
    rows = [f"phantom_{i:04d},{part}\n" for i, part in enumerate(SPLIT)]
    (folder / "split.csv").write_text("case,split\n" + "".join(rows), encoding="utf-8")
    return folder


def save_small(data: Path, path: Path, in_channels: int = 3, num_classes: int = 1, **info) -> Path:
    """A seeded network whose file says that it was trained on the train part of `data`.

    Its bias is such that, with one structure, half of the first test picture is above 0.5.
    """
    import torch

    from hymunet.inference.predictor import Predictor
    from hymunet.network.hymunet import HyMUNet
    from hymunet.network.model_file import save_model

    activation = info.pop("activation", "sigmoid")
    spatial_dims = info.pop("spatial_dims", 2)
    torch.manual_seed(0)
    network = HyMUNet(
        in_channels, num_classes, activation=activation, spatial_dims=spatial_dims, **SIZE
    )
    if spatial_dims == 2 and activation == "sigmoid":
        picture = read_image(data / "images" / "phantom_0005.png", in_channels)
        median = np.median(Predictor(network)(picture).probability, axis=(1, 2))
        with torch.no_grad():
            network.head.logits.bias -= torch.from_numpy(np.log(median / (1 - median)))
    hashes = {"train": [], "val": [], "test": []}
    for i, part in enumerate(SPLIT):
        pixels = read_image(data / "images" / f"phantom_{i:04d}.png", in_channels).pixels
        hashes[part].append(case_hash(pixels))
    structures = num_classes - (activation == "softmax")
    told = {
        "classes": ["lesion", "core", "middle"][:structures],
        "cases": hashes,
        "training": {"options": {"select": "last"}},
    }
    return save_model(path, network, told | info)
