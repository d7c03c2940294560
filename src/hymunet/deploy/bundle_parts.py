"""What the configuration of an exported MONAI bundle names: from files to masks, as `predict` does.

Each class is one step of `configs/inference.json`, around a `Predictor` of the bundle's weights:
files -> `PrepareImage` -> (batch) -> `ProbabilityInferer` -> `ToMask` -> `WriteMask`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import Transform
from torch import Tensor

from hymunet.data.image_cases import find_image_cases
from hymunet.errors import HyMUNetError
from hymunet.inference.outputs import (
    Targets,
    check_targets,
    stored_values,
    targets_of,
    write_prediction,
)
from hymunet.inference.predictor import Predictor
from hymunet.inference.sliding_window import sliding_window
from hymunet.network.hymunet import HyMUNet
from hymunet.network.model_file import load_weights, read_info


def load_predictor(
    network: HyMUNet,
    weights: str,
    device: str | torch.device | None = None,
    threshold: float | None = None,
) -> Predictor:
    """The predictor of a bundle: `network_def` of its configuration with the weights, preprocessing
    and threshold of `models/model.safetensors`.

    Raises:
        HyMUNetError: If the file cannot be used or holds another network.
    """
    info = read_info(weights)
    load_weights(Path(weights), network)
    return Predictor(network, None if device is None else str(device), threshold, info)


def list_images(predictor: Predictor, dataset_dir: str, output_dir: str) -> list[dict[str, Any]]:
    """The images of a folder, a file or a glob as `predict` finds them: entries with the files of
    one image (`image`) and what its mask is to be written to (`target`).

    Raises:
        HyMUNetError: If there is none, one lacks a channel, or masks would overwrite something.
    """
    config, output = predictor.config, Path(output_dir)
    cases, _ = find_image_cases([dataset_dir], config.in_channels)
    targets = [targets_of(case, output, config, False, False) for case in cases]
    check_targets([dataset_dir], cases, targets, output)
    if problems := [case.problem for case in cases if case.problem is not None]:
        raise HyMUNetError("; ".join(problems))
    return [
        {"image": [str(file) for file in case.files], "target": str(files.mask)}
        for case, files in zip(cases, targets, strict=True)
    ]


class PrepareImage(Transform):
    """Files -> what the network sees (channels, *network size) float32 under `image`, and the
    decoded image under `decoded`."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @torch.inference_mode()
    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        decoded = self.predictor.decode([Path(file) for file in data["image"]])
        pixels = self.predictor.batch_of_one(decoded)
        image = self.predictor.members[0].preprocess(pixels, decoded.spacing_mm)
        return {**data, "image": image[0], "decoded": decoded}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch: images stacked, everything else as lists."""
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in items[0]}
    # a clone, since what inference mode has made may not be changed in place outside it
    return batch | {"image": torch.stack(batch["image"]).clone()}


class ProbabilityInferer(Inferer):
    """Network input (B, channels, *spatial) -> probabilities (B, num_classes, *spatial), of large
    images from overlapping windows."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def __call__(self, inputs: Tensor, network: HyMUNet, *args: Any, **kwargs: Any) -> Tensor:
        probability = partial(self.predictor.network_probability, network)
        window = self.predictor.members[0].preprocess.config.patch_size
        if window is None:
            return probability(inputs)
        return torch.cat([sliding_window(probability, one[None], window) for one in inputs])


class ToMask(Transform):
    """Probabilities of a batch under `pred` -> a `Prediction` of each image, on the image's own
    grid and cleaned up as the model file says, under `prediction`."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        restore = self.predictor.members[0].preprocess.restore
        found = []
        for probability, decoded in zip(data["pred"], data["decoded"], strict=True):
            size = tuple(decoded.pixels.shape[1:])
            own = restore(probability[None], size, decoded.spacing_mm)
            found.append(self.predictor.conclude(decoded, own[0].cpu().numpy()))
        return {**data, "prediction": found}


class WriteMask(Transform):
    """Writes each mask as `predict` does, to what stands under `target`."""

    def __init__(self, predictor: Predictor) -> None:
        self.num_labels = predictor.config.num_labels
        self.values = stored_values(predictor.info, self.num_labels)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        for prediction, target in zip(data["prediction"], data["target"], strict=True):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            files = Targets(Path(target), (), None)
            write_prediction(prediction, files, self.num_labels, self.values)
        return data
