"""A model as a MONAI bundle, which `python -m monai.bundle run` runs.

    configs/metadata.json, inference.json, logging.conf    what MONAI reads
    models/model.safetensors                               the model file, as it is
    docs/README.md, LICENSE                                the model's card, and its terms

The weights are no pickle, though the specification's `models/model.pt` is one: loading them runs no
code. https://docs.monai.io/en/latest/mb_specification.html
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hymunet.deploy.own_folder import make_own_folder
from hymunet.files import make_folder, write_bytes, write_text
from hymunet.machine import versions
from hymunet.network.config import HyMUNetConfig
from hymunet.network.hub import WEIGHTS, model_name
from hymunet.network.model_file import model_identity, read_info
from hymunet.network.pretrained import headline_scores

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
_PARTS = "hymunet.deploy.bundle_parts"
# beside MONAI, torch and numpy; fire reads MONAI's command line, ignite has its evaluator
_NEEDED = ("hymunet", "pytorch-ignite", "fire")
_LOGGING = """[loggers]
keys=root

[handlers]
keys=consoleHandler

[formatters]
keys=fullFormatter

[logger_root]
level=INFO
handlers=consoleHandler

[handler_consoleHandler]
class=StreamHandler
level=INFO
formatter=fullFormatter
args=(sys.stdout,)

[formatter_fullFormatter]
format=%(asctime)s - %(name)s - %(levelname)s - %(message)s
"""


def write_bundle(source: Path, folder: Path) -> dict[str, Any]:
    """Writes the bundle of a model file and returns its metadata.

    Raises:
        HyMUNetError: If the file cannot be used, or the folder not be written or holds something
            else than a bundle.
    """
    from hymunet.evaluation.card import model_card

    info, name = read_info(source), model_name(source)
    make_own_folder(folder, "bundle")
    for part in ("configs", "models", "docs"):
        make_folder(folder / part)
    content = source.read_bytes()
    metadata = bundle_metadata(name, info, model_identity(source)["weights_sha256"])
    write_bytes(folder / "models" / WEIGHTS, content)
    _write_json(folder / "configs" / "metadata.json", metadata)
    _write_json(folder / "configs" / "inference.json", inference_config(info))
    write_text(folder / "configs" / "logging.conf", _LOGGING)
    card = model_card(name, info, len(content))
    write_text(folder / "docs" / "README.md", f"{card}\n{_how_to_run()}")
    write_text(folder / "LICENSE", _licence(info))
    return metadata


def run_command(folder: Path) -> str:
    """The command that runs the bundle in `folder`, for a shell."""
    config = folder / "configs" / "inference.json"
    return shlex.join(
        (
            *("python", "-m", "monai.bundle", "run", "--bundle_root", folder.as_posix()),
            *("--config_file", config.as_posix(), "--dataset_dir", "PHOTOS"),
            *("--output_dir", "masks"),
        )
    )


def inference_config(info: Mapping[str, Any]) -> dict[str, Any]:
    """`configs/inference.json`: MONAI's evaluator over a folder of images.

    Overridden on the command line, as everything in it: `dataset_dir`, `output_dir`, `device`,
    `threshold`.
    """
    predictor = "@predictor"
    return {
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "weights": f"$@bundle_root + '/models/{WEIGHTS}'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "threshold": None,
        "network_def": {"_target_": "hymunet.HyMUNet", **info["architecture"]},
        "predictor": {
            "_target_": f"{_PARTS}.load_predictor",
            "network": "@network_def",
            "weights": "@weights",
            "device": "@device",
            "threshold": "@threshold",
        },
        "images": {
            "_target_": f"{_PARTS}.list_images",
            "predictor": predictor,
            "dataset_dir": "@dataset_dir",
            "output_dir": "@output_dir",
        },
        "preprocessing": {"_target_": f"{_PARTS}.PrepareImage", "predictor": predictor},
        "dataset": {"_target_": "Dataset", "data": "@images", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
            "collate_fn": {"_target_": f"{_PARTS}.collate", "_mode_": "callable"},
        },
        "iteration": {"_target_": f"{_PARTS}.Iteration"},
        "inferer": {"_target_": f"{_PARTS}.ProbabilityInferer", "predictor": predictor},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": f"{_PARTS}.ToMask", "predictor": predictor},
                {"_target_": f"{_PARTS}.WriteMask", "predictor": predictor},
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "$@predictor.network",
            "iteration_update": "@iteration",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            # the steps after the network take a batch and its decoded images, each of its own size
            "decollate": False,
        },
        "run": ["$@evaluator.run()"],
        "finalize": ["$@iteration.conclude()"],
    }


def bundle_metadata(name: str, info: Mapping[str, Any], weights_sha256: str) -> dict[str, Any]:
    """`configs/metadata.json` by MONAI's schema of 2024-07-25.

    Args:
        name: Of the model.
        info: Metadata of its file.
        weights_sha256: Of its weights, by which results are told to belong to them.
    """
    config = HyMUNetConfig(**info["architecture"])
    training = info.get("training") or {}
    licence = info.get("licence") or "not stated: that of its training data applies"
    classes = list(info.get("classes") or []) or [f"structure {i}" for i in _structures(config)]
    installed = versions("monai", "torch", "numpy", *_NEEDED)
    domain = info.get("domain") or "medical images"
    scores = headline_scores(dict(info))
    return {
        "schema": SCHEMA,
        "name": name,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported from the model of weights SHA-256 {weights_sha256}"},
        "monai_version": installed["monai"],
        "pytorch_version": installed["torch"].split("+")[0],
        "numpy_version": installed["numpy"],
        "required_packages_version": {
            package: installed[package] for package in _NEEDED if package in installed
        },
        "task": f"Segmentation of {', '.join(classes)} in {domain}",
        "description": f"HyM-UNet ({config.stages}), {domain}",
        "authors": "not stated in the model file",
        "copyright": f"Weights: {licence}",
        "data_source": training.get("data") or "not stated in the model file",
        "data_type": "pictures, NIfTI or DICOM",
        "pred_classes": ", ".join(classes),
        "eval_metrics": {
            f"mean_{metric}": round(scores[0][metric]["mean"], 4) for metric in ("dice", "iou")
        }
        if scores
        else {},
        "intended_use": "Research only; not a medical device and not for diagnosis",
        "references": ["HyM-UNet, https://arxiv.org/abs/2511.17988", *(info.get("sources") or [])],
        "network_data_format": _data_format(config, info.get("preprocess") or {}, classes),
    }


def _structures(config: HyMUNetConfig) -> range:
    return range(1, config.num_labels)


def _data_format(
    config: HyMUNetConfig, preprocess: Mapping[str, Any], classes: list[str]
) -> dict[str, Any]:
    """What the network itself takes and gives: prepared images, logits."""
    window = preprocess.get("patch_size")
    sides = window or preprocess.get("image_size")
    shape: list[int | str] = (
        [-(-side // config.stride) * config.stride for side in sides]
        if sides
        else [f"{config.stride}*n"] * config.spatial_dims
    )
    several = config.activation == "softmax"
    channels = ["background", *classes] if several else classes
    common = {
        "type": "image",
        "modality": "n/a",
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": window is not None,
    }
    return {
        "inputs": {
            "image": {
                **common,
                "format": "magnitude",
                "num_channels": config.in_channels,
                "channel_def": {str(i): f"channel {i}" for i in range(config.in_channels)},
            }
        },
        "outputs": {
            "pred": {
                **common,
                # softmax: the largest channel wins; sigmoid: each structure holds the next
                "format": "labels" if several else "classes",
                "num_channels": config.num_classes,
                "channel_def": {str(i): channel for i, channel in enumerate(channels)},
            }
        },
    }


def _how_to_run() -> str:
    return (
        "## How to run this bundle\n\nIn its folder, the one that holds `configs/`:\n\n"
        '```\npip install "hymunet[bundle]"\n'
        f"{run_command(Path())}\n```\n\n"
        "Masks are those of `hymunet predict`, byte for byte. An image that cannot be segmented "
        "does not stop the others: it is named at the end, and the exit code is 1. "
        "`--threshold 0.4` and `--device cpu` override the configuration, as any of its entries "
        f"can be. The weights are `models/{WEIGHTS}`, which runs no code when it is loaded; tools "
        "that ask for the specification's pickle `models/model.pt` get it by\n\n"
        "```python\nimport torch\nfrom safetensors.torch import load_file\n\n"
        f'torch.save(load_file("models/{WEIGHTS}"), "models/model.pt")\n```\n'
    )


def _licence(info: Mapping[str, Any]) -> str:
    licence = info.get("licence") or "not stated: that of the images it was trained on applies"
    address = f"\n{info['licence_url']}" if info.get("licence_url") else ""
    sources = "".join(f"- {source}\n" for source in info.get("sources") or [])
    cited = f"\nTo cite:\n\n{sources}" if sources else ""
    return (
        f"models/{WEIGHTS}\n\nLicence of the weights: {licence}{address}\n{cited}\n"
        "Everything else in this folder\n\nApache License 2.0, "
        "https://www.apache.org/licenses/LICENSE-2.0\n\nResearch only. Not a medical device: not "
        "for diagnosis. Without any warranty.\n"
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
