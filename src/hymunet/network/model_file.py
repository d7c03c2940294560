"""A model is one `.safetensors` file: weights, and everything needed to use them, as JSON metadata.

Loading runs no code: safetensors holds tensors and strings only, and pickles are refused.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hymunet.errors import HyMUNetError
from hymunet.files import write_bytes
from hymunet.network.config import HyMUNetConfig
from hymunet.network.folds import BEST, find_folds
from hymunet.network.hub import WEIGHTS, config_of_folder, fetched, hub_address
from hymunet.network.hymunet import HyMUNet
from hymunet.network.pretrained import no_such_model, pretrained_file
from hymunet.network.segmenter import Segmenter

FORMAT = 1
_KEY = "hymunet"
# entry of an architecture that names who built the network, where HyMUNet did not
BUILDER = "builder"

# tensors of up to this many numbers keep float32 in a file of half precision: norms and their
# statistics, biases, the stem and the finest convolutions. They are 6 % of the numbers of `tiny`
# and make five sixths of what rounding does to its probabilities
HALF_ABOVE = 4096


def save_model(
    path: Path | str, model: Segmenter, info: dict[str, Any] | None = None, half: bool = False
) -> Path:
    """Writes `model` with its architecture and `info` to one file, whole or not at all.

    The bytes are a function of weights and info: equal models are equal files.

    Args:
        path: Where to; the suffix `.safetensors` is added when there is none.
        model: The network; weights are written as they are, on the CPU.
        info: JSON-able metadata kept beside the architecture: `preprocess`, `postprocess`,
            `classes`, `training`, `cases`, `metrics`, `licence`, `versions`.
        half: Store large float32 tensors as float16, half the file: those of more than
            `HALF_ABOVE` numbers, unless one of them lies beyond float16's range.

    Returns:
        The path written.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".safetensors")
    # last, so that info read from another file cannot contradict the weights
    metadata = {**(info or {}), "format": FORMAT, "architecture": model.architecture()}
    weights = _on_cpu(model)
    if half:
        weights = {name: _halved(value) for name, value in weights.items()}
    write_bytes(path, save(weights, {_KEY: json.dumps(metadata, sort_keys=True)}))
    return path


def replace_info(path: Path | str, info: dict[str, Any]) -> Path:
    """Gives a model file other metadata; its weights stay as they are stored, bit by bit.

    Args:
        path: A model file or a run folder; rewritten whole or not at all.
        info: All of the new metadata, such as `read_info(path) | {"threshold": 0.4}`; the
            architecture and the format stay those of the file.

    Returns:
        The path written.

    Raises:
        HyMUNetError: As `read_info`, or if the file cannot be written.
    """
    path = find_model(path)
    kept = {name: read_info(path)[name] for name in ("format", "architecture")}
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    write_bytes(path, save(weights, {_KEY: json.dumps({**info, **kept}, sort_keys=True)}))
    return path


def model_identity(path: Path | str) -> dict[str, Any]:
    """What decides a model's masks, by which results and a model file can be told to belong
    together: `weights_sha256`, of the weights as they are stored (names, types, shapes, numbers),
    `threshold`, and `postprocess` where masks are cleaned up.

    Raises:
        HyMUNetError: As `read_info`.
    """
    path = find_model(path)
    info = read_info(path)
    decides: dict[str, Any] = {"threshold": info.get("threshold", 0.5)}
    if info.get("postprocess"):
        decides["postprocess"] = info["postprocess"]
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        del header["__metadata__"]
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        digest.update(file.read())
    return {"weights_sha256": digest.hexdigest(), **decides}


def weights_digest(network: Segmenter) -> str:
    """SHA-256 of a network's weights as they are, whatever its device: equal weights of one
    architecture are an equal digest."""
    return hashlib.sha256(save(_on_cpu(network))).hexdigest()


def models_identity(model: Path | str) -> dict[str, Any]:
    """`model_identity` of what may be a folder of folds: of several models one SHA-256 over theirs,
    in any order, their joint threshold, how many they are (`models`), and what else all share.

    Raises:
        HyMUNetError: As `find_models` and `read_info`.
    """
    each = [model_identity(path) for path in find_models(model)]
    if len(each) == 1:
        return each[0]
    shared = {k: v for k, v in each[0].items() if all(one.get(k) == v for one in each)}
    digests = sorted(one["weights_sha256"] for one in each)
    return {
        **shared,
        "weights_sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "threshold": joint_threshold([one["threshold"] for one in each]),
        "models": len(each),
    }


def joint_threshold(thresholds: Sequence[float]) -> float:
    """Where the mean probability of several models is cut: at their common threshold, else at the
    mean of theirs."""
    if len(set(thresholds)) == 1:
        return thresholds[0]
    return math.fsum(thresholds) / len(thresholds)


def find_models(model: str | Path) -> list[Path]:
    """The model files that `model` means: those of all folds of a folder of folds, else the one of
    `find_model`.

    Raises:
        HyMUNetError: As `find_model`, or if a fold has no model yet.
    """
    folds = find_folds(Path(model))
    lacking = [fold.name for fold in folds if not (fold / BEST).is_file()]
    if lacking:
        raise HyMUNetError(
            f"{', '.join(lacking)} of {model} hold no {BEST} yet; the folds predict together: let "
            f"the training finish, or name single folds, such as {folds[0]}"
        )
    return [fold / BEST for fold in folds] or [find_model(model)]


def find_model(model: str | Path) -> Path:
    """The model file that `model` means: itself, best.safetensors of a run folder,
    model.safetensors of a folder that `save_pretrained` wrote or `hf://owner/name` stands for, or
    the packaged file of that name. A file or folder that exists comes before a name.

    Raises:
        HyMUNetError: If there is none, it is a folder without a model, or the Hugging Face Hub
            does not give it.
    """
    if address := hub_address(model):
        return fetched(*address) / WEIGHTS
    path = Path(model)
    if path.is_dir():
        inside = path / BEST
        if not inside.is_file() and (path / WEIGHTS).is_file():
            return path / WEIGHTS
        if folds := find_folds(path):
            raise HyMUNetError(
                f"{path} holds {len(folds)} folds, and one model is wanted here; name one of them, "
                f"such as {folds[0]}"
            )
        if not inside.is_file():
            named = " (a packaged model has this name: rename the folder, or call from another)"
            raise HyMUNetError(
                f"the folder {path} holds no best.safetensors; give a model file, the folder of a "
                f"run that has finished its first epoch, or one with {WEIGHTS} in it"
                f"{named if pretrained_file(model) else ''}"
            )
        return inside
    if path.exists():
        return path
    packaged = pretrained_file(model)
    if packaged is None:
        raise no_such_model(model)
    return packaged


def read_info(path: Path | str) -> dict[str, Any]:
    """The metadata of a model file, without building the network.

    Of a `model.safetensors` that other software has written, without any, the architecture is that
    of the `config.json` beside it.

    Raises:
        HyMUNetError: If the file is missing, truncated, a pickle, or no HyM-UNet model, or the
            config.json beside it says otherwise than the file.
    """
    path = find_model(path)
    if not path.is_file():
        raise HyMUNetError(f"{path} is neither a file nor a folder; give a model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise HyMUNetError(_unreadable(path, error)) from error
    config = config_of_folder(path)
    if _KEY not in metadata and config is not None:
        return {"format": FORMAT, "architecture": config}
    if _KEY not in metadata:
        raise HyMUNetError(
            f"{path} is a safetensors file, but not a HyM-UNet model (its metadata has no "
            f"{_KEY!r} entry); use a file that `hymunet train` or save_pretrained() wrote"
        )
    try:
        info = json.loads(metadata[_KEY])
        newest, architecture = int(info["format"]), dict(info["architecture"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise HyMUNetError(
            f"the {_KEY!r} metadata of {path} are damaged ({error!r}): expected JSON with a format "
            "number and an architecture; use the file that was written by training"
        ) from error
    if newest > FORMAT:
        raise HyMUNetError(
            f"{path} has model format {newest}, this version reads up to {FORMAT}; update hymunet"
        )
    differ = [] if config is None else _differing(config, architecture)
    if differ:
        raise HyMUNetError(
            f"the config.json beside {path} describes another network than the file itself "
            f"({', '.join(differ)}); take both from one place"
        )
    return {**info, "architecture": architecture}


def load_model(path: Path | str) -> tuple[HyMUNet, dict[str, Any]]:
    """The network in evaluation mode and float32 on the CPU, and the file's metadata.

    `path` is a model file, a run folder or the name of a packaged model. Draws no random numbers:
    what is seeded before gives the same after.

    Raises:
        HyMUNetError: As `read_info`, or if the weights do not belong to the architecture.
    """
    path = find_model(path)
    info = read_info(path)
    if BUILDER in info["architecture"]:
        raise HyMUNetError(
            f"{path} holds the weights of the network {info['architecture'][BUILDER]}, which took "
            "part in a comparison; loading a file runs no code, so it cannot be built from the "
            "file alone: `hymunet compare` on the folder of the comparison uses it"
        )
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
    load_weights(path, model)
    return model.eval(), info


def load_weights(path: Path, network: Segmenter) -> None:
    """Gives a network that has been built the weights of a model file.

    Raises:
        HyMUNetError: If they are not the weights of such a network.
    """
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_weights(path, network, weights)
    # half-precision files are computed with in float32; copies, since what safetensors returns is
    # the file itself, which may be replaced or cut short later
    types = {name: value.dtype for name, value in network.state_dict().items()}
    copies = {name: value.to(types[name], copy=True) for name, value in weights.items()}
    network.load_state_dict(copies, assign=True)


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the sizes in which two descriptions differ; what is left out has its default, since
    earlier versions knew fewer sizes."""
    defaults = json.loads(json.dumps(asdict(HyMUNetConfig())))
    one, other = defaults | one, defaults | other
    return sorted(name for name in one | other if one.get(name) != other.get(name))


def _on_cpu(network: Segmenter) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _halved(value: torch.Tensor) -> torch.Tensor:
    """float16 where that halves something large and keeps every number in range."""
    if value.dtype != torch.float32 or value.numel() <= HALF_ABOVE:
        return value
    half = value.half()
    return half if torch.isfinite(half).all() else value


def _unreadable(path: Path, error: Exception) -> str:
    """Why what safetensors has refused is no model."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as reason:
        return f"cannot read the model file {path}: {reason.strerror or reason}"
    if path.suffix.lower() == ".onnx":
        return (
            f"{path} is an ONNX file, which `predict` and `serve` run; here the model file is "
            "needed that it was exported from"
        )
    if path.suffix.lower() == ".pt2":
        return (
            f"{path} is a program of torch.export, which plain torch runs; here the model file is "
            "needed that it was exported from, or for `predict` and `serve` its ONNX file"
        )
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


def _check_weights(path: Path, model: Segmenter, weights: dict[str, torch.Tensor]) -> None:
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
