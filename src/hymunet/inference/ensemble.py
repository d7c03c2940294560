"""Several models as one: what they must have in common, and what is said of them together.

The mean of the probabilities of networks that were trained on different folds, or from different
seeds, is usually a little better than any one of them (Lakshminarayanan et al. 2017,
https://arxiv.org/abs/1612.01474; nnU-Net predicts with its five folds in this way).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hymunet.data.case_hash import fingerprints
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.errors import HyMUNetError
from hymunet.inference.onnx_runtime import find_onnx, load_onnx
from hymunet.network.model_file import find_models, joint_threshold, load_model
from hymunet.network.segmenter import Segmenter

# entries of model files that change masks: where models differ in them none is applied
_MASKS = {"label_values": "values of the masks' files", "postprocess": "post-processing"}
# entries that belong to the probabilities of one model, or are joined below
_OWN = ("risk_control", "calibration", "postprocess_choice", "card", "metrics", "cases", "training")


@dataclass(frozen=True)
class Member:
    """One of the models.

    Args:
        name: What it is called in messages: its file, or its place among networks.
        network: On its device, in evaluation mode.
        info: Metadata of its file.
        preprocess: Its own.
    """

    name: str
    network: Segmenter
    info: Mapping[str, Any]
    preprocess: Preprocess


def make_member(name: str, network: Segmenter, info: Mapping[str, Any]) -> Member:
    """A model with the preprocessing that its metadata name.

    Raises:
        HyMUNetError: If that does not fit the network.
    """
    config = network.config
    if "preprocess" in info:
        preprocess = Preprocess.from_dict(info["preprocess"])
    else:
        mean, std = (0.5,) * config.in_channels, (0.25,) * config.in_channels
        preprocess = Preprocess(
            PreprocessConfig(normalisation="image", mean=mean, std=std, multiple=config.stride)
        )
    chosen = preprocess.config
    if len(chosen.mean) != config.in_channels or chosen.multiple % config.stride:
        raise HyMUNetError(
            f"the preprocessing, for {len(chosen.mean)} channels and multiples of "
            f"{chosen.multiple}, does not fit the network, of {config.in_channels} "
            f"channels and stride {config.stride}"
        )
    return Member(name, network, info, preprocess)


def load_members(
    model: str | Path | Segmenter | Sequence[str | Path | Segmenter],
    info: dict[str, Any],
    device: torch.device,
    runtime: str | None = None,
) -> tuple[Member, ...]:
    """The models that are named, each on the device and in evaluation mode; `info` is that of
    networks which do not come from a file, `runtime` as in `Predictor`.

    Raises:
        HyMUNetError: If one cannot be used, or none is named.
    """
    given = [model] if isinstance(model, (str, Path, Segmenter)) else list(model)
    if not given:
        raise HyMUNetError("no model is given; expected a model file, or several")
    members: list[Member] = []
    for one in given:
        loaded: list[tuple[str, Segmenter, Mapping[str, Any]]]
        if isinstance(one, Segmenter):
            if runtime == "onnx":
                raise HyMUNetError(
                    "onnxruntime runs files, and a network in memory was given; save it, then "
                    "`hymunet export` it"
                )
            loaded = [(f"network {len(members) + 1}", one, info)]
        else:
            loaded = [(str(path), *_load(path, device, runtime)) for path in find_models(one)]
        members += (make_member(name, net.eval().to(device), about) for name, net, about in loaded)
    return tuple(members)


def _load(
    path: Path, device: torch.device, runtime: str | None
) -> tuple[Segmenter, Mapping[str, Any]]:
    onnx = find_onnx(path, runtime)
    if onnx is None:
        return load_model(path)
    network = load_onnx(onnx, device, None if onnx == path else path)
    return network, network.info


def check_alike(members: Sequence[Member]) -> None:
    """Refuses models whose probabilities do not mean the same.

    Raises:
        HyMUNetError: If one differs from the first in channels, outputs, activation, spatial
            dimensions or names of classes; or one is named twice.
    """
    first = members[0]
    for other in members[1:]:
        for what, one, two in zip(_FACTS, _facts(first), _facts(other), strict=True):
            if one != two:
                raise HyMUNetError(
                    f"these models cannot predict together: {first.name} has {what} {one}, "
                    f"{other.name} has {two}; expected the same channels, output channels, "
                    "activation, spatial dimensions and classes"
                )
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HyMUNetError(f"the model {twice[0]} is named twice; name each once")


_FACTS = ("input channels", "output channels", "activation", "spatial dimensions", "classes")


def _facts(member: Member) -> tuple[object, ...]:
    config = member.network.config
    classes = ", ".join(member.info.get("classes") or ()) or "without names"
    return config.in_channels, config.num_classes, config.activation, config.spatial_dims, classes


def joined_info(infos: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Metadata of several models taken together, as a model file would hold them, and notes.

    What all say alike stays. Cases: a case that any was trained on counts as trained on. Threshold:
    the common one, else the mean. Licences and domains: all of them. A promised miss rate is left
    out, since it belongs to the probabilities of one model.
    """
    first, notes = infos[0], []
    joined = {
        name: value
        for name, value in first.items()
        if name not in _OWN and all(name in info and info[name] == value for info in infos)
    }
    for name, what in _MASKS.items():
        if any(info.get(name) != first.get(name) for info in infos):
            notes.append(f"the models' files name different {what}: none is applied")
    thresholds = [info.get("threshold", 0.5) for info in infos]
    joined["threshold"] = joint_threshold(thresholds)
    for name in ("licence", "domain"):
        values = list(dict.fromkeys(info.get(name) for info in infos))
        if values != [None]:
            joined[name] = "; ".join(value or f"{name} not stated" for value in values)
    trainings = [info.get("training") or {} for info in infos]
    joined["training"] = {"options": _options(trainings)}
    data = dict.fromkeys(training.get("data") for training in trainings)
    if set(data) != {None}:
        joined["training"]["data"] = "; ".join(name or "unknown data" for name in data)
    recorded = [info.get("cases") or {} for info in infos]
    train = _union(cases.get("train") for cases in recorded)
    val = _union(cases.get("val") for cases in recorded) - train
    joined["cases"] = {"train": sorted(train), "val": sorted(val)}
    silent = sum(not fingerprints(cases.get("train")) for cases in recorded)
    if silent and train:
        notes.append(
            f"{silent} of the {len(infos)} models list no training cases: overlap with theirs was "
            "not checked"
        )
    for kept, names in {
        "calibration": ("calibration", "risk_control"),
        "postprocess_choice": ("postprocess_choice",),
    }.items():
        chose = _union((info.get(name) or {}).get("cases") for info in infos for name in names)
        if chose:
            joined[kept] = {"cases": sorted(chose)}
    return joined, notes


def _union(recorded: Iterable[Any]) -> frozenset[str]:
    return frozenset().union(*map(fingerprints, recorded))


def _options(trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """That no model's epoch was chosen by its validation part, where this is so of all."""
    options = [training.get("options") or {} for training in trainings]
    last = all(one.get("select") == "last" and not one.get("patience") for one in options)
    return {"select": "last"} if last else {}


@dataclass(frozen=True)
class Shares:
    """What part of the work is done, from windows of one of several images and models."""

    model: int
    models: int
    images: int
    on_progress: Callable[[float], None] | None

    def report(self, image: int, done: int, windows: int) -> None:
        if self.on_progress is not None:
            own = (image + done / windows) / self.images
            self.on_progress((self.model + own) / self.models)
