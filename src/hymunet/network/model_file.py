"""A model is one `.safetensors` file: weights, and everything needed to use them, as JSON metadata.

Loading runs no code: safetensors holds tensors and strings only, and pickles are refused.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hymunet.errors import HyMUNetError
from hymunet.files import write_bytes
from hymunet.network.config import HyMUNetConfig
from hymunet.network.hymunet import HyMUNet

FORMAT = 1
_KEY = "hymunet"


def save_model(path: Path | str, model: HyMUNet, info: dict[str, Any] | None = None) -> Path:
    """Writes `model` with its architecture and `info` to one file, whole or not at all.

    Args:
        path: Where to; the suffix `.safetensors` is added when there is none.
        model: The network; weights are written as they are, on the CPU.
        info: JSON-able metadata kept beside the architecture: `preprocess`, `classes`, `training`,
            `cases`, `metrics`, `licence`, `versions`.

    Returns:
        The path written.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".safetensors")
    metadata = {"format": FORMAT, "architecture": asdict(model.config), **(info or {})}
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(path, save(weights, {_KEY: json.dumps(metadata, sort_keys=True)}))
    return path


def read_info(path: Path | str) -> dict[str, Any]:
    """The metadata of a model file, without building the network.

    Raises:
        HyMUNetError: If the file is missing, truncated, a pickle, or no HyM-UNet model.
    """
    path = Path(path)
    _refuse_what_is_no_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise HyMUNetError(
            f"{path} is not a whole safetensors file ({error}); it was truncated or altered: "
            "copy or download it again"
        ) from error
    if _KEY not in metadata:
        raise HyMUNetError(
            f"{path} is a safetensors file, but not a HyM-UNet model (its metadata has no "
            f"{_KEY!r} entry); use a file that `hymunet train` or save_pretrained() wrote"
        )
    info = json.loads(metadata[_KEY])
    if info.get("format", 0) > FORMAT:
        raise HyMUNetError(
            f"{path} has model format {info['format']}, this version reads up to {FORMAT}; "
            "update hymunet"
        )
    return info


def load_model(path: Path | str) -> tuple[HyMUNet, dict[str, Any]]:
    """The network in evaluation mode, and the file's metadata.

    Raises:
        HyMUNetError: As `read_info`, or if the weights do not belong to the architecture.
    """
    path = Path(path)
    info = read_info(path)
    known = {field.name for field in fields(HyMUNetConfig)}
    unknown = sorted(set(info["architecture"]) - known)
    if unknown:
        raise HyMUNetError(
            f"{path} describes an architecture with {', '.join(unknown)}, which this version does "
            "not know; update hymunet"
        )
    try:
        model = HyMUNet(**info["architecture"])
    except (TypeError, ValueError) as error:
        raise HyMUNetError(f"{path} describes an impossible architecture: {error}") from error
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_weights(path, model, weights)
    # half-precision files are computed with in float32
    model.load_state_dict(weights)
    return model.eval(), info


def _refuse_what_is_no_safetensors(path: Path) -> None:
    if not path.is_file():
        raise HyMUNetError(
            f"there is no model file {path}; give the .safetensors file of a run, "
            "such as runs/mine/best.safetensors"
        )
    with open(path, "rb") as file:
        start = file.read(4)
    # a bare pickle starts with the PROTO opcode, torch.save's with a zip's signature
    if start[:1] == b"\x80" or start == b"PK\x03\x04":
        raise HyMUNetError(
            f"{path} is a pickle (as torch.save writes); loading one can run any code, so it is "
            "refused: convert it to .safetensors with the software that made it"
        )


def _check_weights(path: Path, model: HyMUNet, weights: dict[str, torch.Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected == found:
        return
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    differ = sorted(
        f"{name} {found[name]} instead of {expected[name]}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    )
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in ((missing, "missing"), (surplus, "unknown"), (differ, "of other shape"))
        if names
    ]
    raise HyMUNetError(
        f"the weights of {path} do not belong to the architecture that it describes: "
        f"{'; '.join(parts)}; the file was altered: use the one that was written by training"
    )
