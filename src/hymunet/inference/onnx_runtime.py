"""ONNX files that `hymunet export` wrote, in the place of torch networks inside `Predictor`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.network.hub import in_hub_cache, model_name
from hymunet.network.model_file import model_identity
from hymunet.network.pretrained import pretrained_file
from hymunet.network.segmenter import Segmenter

KEY = "hymunet"
RUNTIMES = ("torch", "onnx")


@dataclass(frozen=True)
class OnnxFacts:
    """What the file says of its network; the fields are those of `NetworkFacts`."""

    in_channels: int
    num_classes: int
    spatial_dims: int
    activation: str
    stride: int
    num_labels: int
    conv_norm: str = ""


class ExportedNetwork(Segmenter):
    """A network that was exported, its activation included.

    Its forward takes (B, channels, *spatial) float32, what `Preprocess` makes, to probabilities;
    where it takes pictures, decoded ones of 8 bits to probabilities at their own size.

    Args:
        name: What it is called in messages.
        info: Metadata of the file, as `hymunet export` writes them.

    Raises:
        HyMUNetError: If the metadata lack something.
    """

    config: OnnxFacts

    def __init__(self, name: str, info: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.info = name, info
        names = ("in_channels", "num_classes", "spatial_dims", "activation", "stride", "num_labels")
        try:
            self.config = OnnxFacts(**{name: self.info[name] for name in names})
            self.takes_pictures = self.info["interface"] == "picture"
        except KeyError as error:
            raise HyMUNetError(
                f"the {KEY!r} metadata of {name} lack {error}; write it again with `hymunet export`"
            ) from error

    def run(self, fed: np.ndarray) -> tuple[np.ndarray, ...]:
        """Input as the file takes it -> probability, and of pictures the mask."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        fed = image.permute(0, 2, 3, 1) if self.takes_pictures else image.float()
        probability = self.run(np.ascontiguousarray(fed.cpu().numpy()))[0]
        return torch.from_numpy(probability).to(image.device)

    def pictures(self, pixels: Tensor) -> Tensor:
        """`forward` for pictures, refusing what is not of 8 bits.

        Raises:
            HyMUNetError: If the pixels are not uint8.
        """
        if pixels.dtype != torch.uint8:
            raise HyMUNetError(
                f"{self.name} reads pictures of 8 bits, and this image is {pixels.dtype}: use "
                "--runtime torch, or convert the image to 8 bits"
            )
        return self(pixels)

    def architecture(self) -> dict[str, Any]:
        raise HyMUNetError(f"{self.name} was exported: it cannot be saved as a model file")


class OnnxNetwork(ExportedNetwork):
    """An ONNX file run by onnxruntime.

    Args:
        path: A file that `hymunet export` wrote.
        device: cpu, or cuda where onnxruntime was built for it.

    Raises:
        HyMUNetError: If onnxruntime is missing or cannot run the file here, or it was written by
            something else.
    """

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        require("export", f"running {path}", "onnxruntime")
        import onnxruntime

        providers = ["CPUExecutionProvider"]
        if device is not None and device.type == "cuda":
            providers.insert(0, "CUDAExecutionProvider")
            if providers[0] not in onnxruntime.get_available_providers():
                raise HyMUNetError(
                    f"this onnxruntime has no CUDA: {path} can run on the CPU (--device cpu), or "
                    "install onnxruntime-gpu in its place"
                )
        options = onnxruntime.SessionOptions()
        # as many threads as torch would take: what limits the one limits the other
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors come back as exceptions; warnings are for makers
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's own types share no public base
            raise HyMUNetError(
                f"onnxruntime {onnxruntime.__version__} cannot load {path} "
                f"({_first_line(error)}); write it again with `hymunet export`, or update "
                "onnxruntime"
            ) from error
        super().__init__(
            str(path), _read_metadata(path, session.get_modelmeta().custom_metadata_map)
        )
        self.session = session
        self.input = session.get_inputs()[0]

    def run(self, fed: np.ndarray) -> tuple[np.ndarray, ...]:
        fixed = [side for side in self.input.shape[2:] if isinstance(side, int)]
        if not self.takes_pictures and fixed and tuple(fixed) != fed.shape[2:]:
            raise HyMUNetError(
                f"{self.name} reads windows of {tuple(fixed)}, and one of {fed.shape[2:]} came: "
                "quarter turns (--tta) of windows that are not square need --runtime torch"
            )
        try:
            return tuple(self.session.run(None, {self.input.name: fed}))
        except Exception as error:  # as above
            if "llocat" in str(error):  # "Failed to allocate memory", "bad allocation"
                raise MemoryError(str(error)) from error
            raise HyMUNetError(
                f"onnxruntime could not run {self.name} on an image of shape {fed.shape}: "
                f"{_first_line(error)}"
            ) from error


def _first_line(error: Exception) -> str:
    return f"{(str(error).splitlines() or [type(error).__name__])[0]:.300}"


def _read_metadata(path: Path, stored: dict[str, str]) -> dict[str, Any]:
    if KEY not in stored:
        raise HyMUNetError(
            f"{path} is an ONNX file, but has no {KEY!r} metadata, which say how images are "
            "prepared and masks cut; use a file that `hymunet export` wrote"
        )
    try:
        return dict(json.loads(stored[KEY]))
    except (ValueError, TypeError) as error:
        raise HyMUNetError(
            f"the {KEY!r} metadata of {path} are damaged ({error!r}); write it again with "
            "`hymunet export`"
        ) from error


def onnx_beside(model: Path) -> Path:
    """Where `hymunet export` puts the ONNX file of a model file: beside it, under its name; of a
    packaged model, and of one in the cache of the Hugging Face Hub, in the present folder."""
    if pretrained_file(model.stem) == model or in_hub_cache(model):
        return Path(f"{model_name(model)}.onnx")
    return model.with_suffix(".onnx")


def find_onnx(path: Path, runtime: str | None) -> Path | None:
    """The ONNX file to run for the model file `path`; None: torch runs it.

    Args:
        path: A model file of either kind.
        runtime: torch or onnx; None: what the file is made for.

    Raises:
        HyMUNetError: If there is no such runtime, the file is not made for it, or the ONNX file of
            a model is missing or belongs to other weights.
    """
    if runtime not in (None, *RUNTIMES):
        raise HyMUNetError(f"there is no runtime {runtime!r}; expected torch or onnx")
    if path.suffix.lower() == ".onnx":
        if runtime == "torch":
            raise HyMUNetError(
                f"{path} is an ONNX file, which torch does not run; give the model file it was "
                "exported from, or leave --runtime out"
            )
        return path
    if runtime != "onnx":
        return None
    beside = onnx_beside(path)
    given = path.stem if pretrained_file(path.stem) == path else path
    command = f"hymunet export {given} --format onnx"
    if not beside.is_file():
        raise HyMUNetError(
            f"there is no ONNX file {beside} of this model; write it with: {command}"
        )
    return beside


def load_onnx(path: Path, device: torch.device, of: Path | None = None) -> OnnxNetwork:
    """The file as a network; `of`, the model file that it must have been exported from.

    Raises:
        HyMUNetError: As `OnnxNetwork`, or if it was exported from another model.
    """
    if not path.is_file():
        raise HyMUNetError(f"there is no ONNX file {path}; write it with `hymunet export`")
    network = OnnxNetwork(path, device)
    if of is not None and network.info.get("model") != model_identity(of):
        raise HyMUNetError(
            f"{path} was exported from other weights, another threshold or other post-processing "
            f"than those of {of}; write it again: hymunet export {of} --format onnx --output {path}"
        )
    return network
