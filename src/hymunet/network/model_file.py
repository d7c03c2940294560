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
    # last, so that info read from another file cannot contradict the weights
    metadata = {**(info or {}), "format": FORMAT, "architecture": asdict(model.config)}
    weights = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    write_bytes(path, save(weights, {_KEY: json.dumps(metadata, sort_keys=True)}))
    return path


def find_model(model: str | Path) -> Path:
    """The model file that `model` means: itself, or best.safetensors of a run folder.

    Raises:
        HyMUNetError: If it is a folder without one.
    """
    path = Path(model)
    if path.is_dir():
        inside = path / "best.safetensors"
        if not inside.is_file():
            raise HyMUNetError(
                f"the folder {path} holds no best.safetensors; give a model file or the folder of "
                "a run that has finished its first epoch"
            )
        return inside
    return path


def read_info(path: Path | str) -> dict[str, Any]:
    """The metadata of a model file, without building the network.

    Raises:
        HyMUNetError: If the file is missing, truncated, a pickle, or no HyM-UNet model.
    """
    path = find_model(path)
    if not path.is_file():
        raise HyMUNetError(
            f"there is no model file or run folder {path}; give one, such as runs/mine or "
            "runs/mine/best.safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise HyMUNetError(_unreadable(path, error)) from error
    if _KEY not in metadata:
        raise HyMUNetError(
            f"{path} is a safetensors file, but not a HyM-UNet model (its metadata has no "
            f"{_KEY!r} entry); use a file that `hymunet train` or save_pretrained() wrote"
        )
    try:
        info = json.loads(metadata[_KEY])
        newest, architecture = int(info["format"]), dict(info["architecture"])
    except (ValueError, TypeError, KeyError) as error:
        raise HyMUNetError(
            f"the {_KEY!r} metadata of {path} are damaged ({error!r}): expected JSON with a format "
            "number and an architecture; use the file that was written by training"
        ) from error
    if newest > FORMAT:
        raise HyMUNetError(
            f"{path} has model format {newest}, this version reads up to {FORMAT}; update hymunet"
        )
    return {**info, "architecture": architecture}


def load_model(path: Path | str) -> tuple[HyMUNet, dict[str, Any]]:
    """The network in evaluation mode and float32 on the CPU, and the file's metadata.

    Draws no random numbers: what is seeded before gives the same after.

    Raises:
        HyMUNetError: As `read_info`, or if the weights do not belong to the architecture.
    """
    path = find_model(path)
    info = read_info(path)
    known = {field.name for field in fields(HyMUNetConfig)}
    unknown = sorted(set(info["architecture"]) - known)
    if unknown:
        raise HyMUNetError(
            f"{path} describes an architecture with {', '.join(unknown)}, which this version does "
            "not know; update hymunet"
        )
    try:
        # on the meta device nothing is drawn or allocated, however large the sizes in the file
        with torch.device("meta"):
            model = HyMUNet(**info["architecture"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise HyMUNetError(f"{path} describes an impossible architecture: {error}") from error
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_weights(path, model, weights)
    # half-precision files are computed with in float32; copies, since what safetensors returns is
    # the file itself, which may be replaced or cut short later
    types = {name: value.dtype for name, value in model.state_dict().items()}
    copies = {name: value.to(types[name], copy=True) for name, value in weights.items()}
    model.load_state_dict(copies, assign=True)
    return model.eval(), info


def _unreadable(path: Path, error: Exception) -> str:
    """Why what safetensors has refused is no model."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as reason:
        return f"cannot read the model file {path}: {reason.strerror or reason}"
    # torch.save writes a zip; a pickle starts with PROTO and its number, unless these are the
    # lowest bytes of a safetensors header's length, which a brace follows
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if start.startswith(b"PK\x03\x04") or (pickled and start[8:] != b"{"):
        return (
            f"{path} is a pickle (as torch.save writes); loading one can run any code, so it is "
            "refused: convert it to .safetensors with the software that made it"
        )
    return (
        f"{path} is not a whole safetensors file ({error}); it was truncated or altered: "
        "copy or download it again"
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
