"""What the configuration of an exported MONAI bundle names: from files to masks, as `predict` does.

Each class is one step of `configs/inference.json`, around a `Predictor` of the bundle's weights:
files -> `PrepareImage` -> (batch) -> `ProbabilityInferer` -> `ToMask` -> `WriteMask`. `Iteration`
keeps what cannot be segmented from stopping the rest.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import Transform
from torch import Tensor

from hymunet.data.image_cases import find_image_cases
from hymunet.errors import HyMUNetError, NoRoomError
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
from hymunet.wording import plural

_LOG = logging.getLogger(__name__)


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
    one image (`image`), what it is called (`label`), what its mask is to be written to (`target`),
    and why it cannot be segmented (`problem`), None so far for most.

    Raises:
        HyMUNetError: If there is none, or masks would overwrite something.
    """
    config, output = predictor.config, Path(output_dir)
    cases, _ = find_image_cases([dataset_dir], config.in_channels)
    targets = [targets_of(case, output, config, False, False) for case in cases]
    check_targets([dataset_dir], cases, targets, output)
    return [
        {
            "image": [str(file) for file in case.files],
            "label": case.label,
            "target": str(files.mask),
            "problem": case.problem,
        }
        for case, files in zip(cases, targets, strict=True)
    ]


class PrepareImage(Transform):
    """Files -> what the network sees (channels, *network size) float32 under `image`, and the
    decoded image under `decoded`; where that cannot be done, why under `problem`."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @torch.inference_mode()
    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        if data["problem"] is not None:
            return data
        try:
            decoded = self.predictor.decode([Path(file) for file in data["image"]])
            pixels = self.predictor.batch_of_one(decoded)
            image = self.predictor.members[0].preprocess(pixels, decoded.spacing_mm)
        except (HyMUNetError, MemoryError) as error:
            return {**data, "problem": _reason(error)}
        return {**data, "image": image[0], "decoded": decoded}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch: images stacked, everything else as lists; what has a problem apart, as label ->
    problem under `failed`."""
    failed = {item["label"]: item["problem"] for item in items if item["problem"] is not None}
    items = [item for item in items if item["problem"] is None]
    if not items:
        return {"failed": failed}
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in items[0]}
    batch["failed"] = failed
    # a clone, since what inference mode has made may not be changed in place outside it
    return batch | {"image": torch.stack(batch["image"]).clone()}


class Iteration:
    """The evaluator's step for a batch, without those images that cannot be segmented.

    Attributes:
        failed: What they are called -> why.
    """

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def __call__(self, engine: SupervisedEvaluator, batch: dict[str, Any]) -> dict[str, Any]:
        failed, output = dict(batch["failed"]), {}
        if "image" in batch:
            try:
                output = engine._iteration(engine, batch)
            except NoRoomError:
                raise
            except (HyMUNetError, MemoryError, torch.OutOfMemoryError) as error:
                failed |= dict.fromkeys(batch["label"], _reason(error))
        for label, reason in failed.items():
            _LOG.warning("not segmented: %s: %s", label, reason)
        self.failed |= failed
        return output

    def conclude(self) -> None:
        """The last step of the command.

        Raises:
            SystemExit: With exit code 1 and what failed, if anything did.
        """
        if self.failed:
            lines = [f"  {label}: {reason}" for label, reason in self.failed.items()]
            count = plural(len(self.failed), "image")
            raise SystemExit("\n".join([f"error: {count} could not be segmented:", *lines]))


def _reason(error: Exception) -> str:
    return str(error) or "not enough memory"


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
