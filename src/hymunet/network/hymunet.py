"""HyM-UNet: convolutions in the fine stages, Visual Mamba in the deep ones, gated skips between.

    image --stem--> C --down--> C --down--> M --down--> M        encoder (stages="CCMM")
                    |           |           |           |
                   MGF <------ MGF <------ MGF <--------+        skips and decoder
                    |
                  logits

arXiv 2511.17988. Channels, depths and norms are our reading, chosen by measurement
(`docs/decisions.md`), since the paper does not give them.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import hymunet
from hymunet.errors import HyMUNetError
from hymunet.network.config import HyMUNetConfig
from hymunet.network.conv import channels_last, upsample
from hymunet.network.decoder import Decoder, Head
from hymunet.network.encoder import Encoder
from hymunet.network.segmenter import Segmenter


class HyMUNet(Segmenter):
    """U-shaped network; any number of channels and classes, 2-D and 3-D.

    Args:
        in_channels: Channels of the image.
        num_classes: Output channels.
        **sizes: Any other field of `HyMUNetConfig` by name (stages, dims, depths, skip, ...).

    Args of forward: image (B, in_channels, *spatial), each side a multiple of `config.stride`.
    Returns of forward: logits (B, num_classes, *spatial). With `deep_supervision`, in training
        mode only: a list of logits at full size, from the finest decoder level to the coarsest.

    Raises:
        HyMUNetError: If sizes do not fit each other, or an image does not fit the network.
    """

    config: HyMUNetConfig
    # of `from_pretrained`: the model file's metadata, and the digest of the weights they belong to
    loaded: tuple[dict[str, Any], str] | None = None

    def __init__(self, in_channels: int = 3, num_classes: int = 1, **sizes: Any) -> None:
        super().__init__()
        unknown = sorted(sizes.keys() - {field.name for field in fields(HyMUNetConfig)})
        if unknown:
            names = ", ".join(field.name for field in fields(HyMUNetConfig))
            raise HyMUNetError(
                f"HyMUNet has no argument {', '.join(unknown)}; expected some of {names}. "
                "docs/names.md says what other libraries' arguments are called here"
            )
        self.config = config = HyMUNetConfig(in_channels, num_classes, **sizes)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head = Head(config.dims[0], config)
        self.aux_heads = nn.ModuleList(
            Head(channels, config) for channels in config.dims[1:-1] if config.deep_supervision
        )

    @classmethod
    def from_config(cls, config: HyMUNetConfig) -> "HyMUNet":
        """The network that `config` describes, freshly initialised."""
        return cls(**asdict(config))

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> "HyMUNet":
        """A trained network, in evaluation mode, on the CPU.

        Args:
            model: A model file, a run folder, a folder with `model.safetensors` that
                `save_pretrained` wrote, the name of a packaged model (`hymunet models` lists them),
                or `owner/name` of the Hugging Face Hub (the extra `hub`). What is here comes before
                what is there.
            revision: Of a model of the Hub, as are the others: see `hymunet.network.hub.fetched`.

        Raises:
            HyMUNetError: If there is no such model, or it cannot be loaded.
        """
        from hymunet.network.hub import WEIGHTS, fetched, hub_address, is_bare_id
        from hymunet.network.model_file import load_model, weights_digest
        from hymunet.network.pretrained import pretrained_file

        address = hub_address(model)
        if address is None and is_bare_id(model):
            here = Path(model).exists() or pretrained_file(model) is not None
            address = None if here else (str(model), None)
        path = Path(model)
        if address is not None:
            repo_id, named = address
            of = (cache_dir, token, local_files_only, force_download)
            path = fetched(repo_id, revision or named, *of) / WEIGHTS
        network, info = load_model(path)
        network.loaded = info, weights_digest(network)
        return network

    def save_pretrained(
        self, save_directory: str | Path, info: dict[str, Any] | None = None
    ) -> Path:
        """Writes a folder by the conventions of the Hugging Face Hub: `hymunet.save_pretrained`."""
        # by its public name: the card beside the weights is made in a layer above
        return hymunet.save_pretrained(self, save_directory, info)

    def push_to_hub(self, repo_id: str, info: dict[str, Any] | None = None, **options: Any) -> str:
        """Uploads such a folder: `hymunet.push_to_hub`."""
        return hymunet.push_to_hub(self, repo_id, info, **options)

    def architecture(self) -> dict[str, Any]:
        """Every field of the configuration, from which `HyMUNet(**architecture)` is built again."""
        return asdict(self.config)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        self._check(image)
        size = image.shape[2:]
        levels = self.decoder(self.encoder(channels_last(image)))
        # the pointwise head runs before the interpolation: both are linear, and few logits are
        # cheaper to enlarge than many features
        logits = upsample(self.head(levels[-1]).contiguous(), size)
        if not (self.training and len(self.aux_heads)):
            return logits
        coarser = zip(self.aux_heads, reversed(levels[:-1]), strict=True)
        return [logits, *(upsample(head(level).contiguous(), size) for head, level in coarser)]

    def _check(self, image: Tensor) -> None:
        config = self.config
        if image.ndim != config.spatial_dims + 2 or image.shape[1] != config.in_channels:
            axes = "height, width" if config.spatial_dims == 2 else "depth, height, width"
            raise HyMUNetError(
                f"image must be (batch, {config.in_channels} channels, {axes}), but its shape is "
                f"{tuple(image.shape)}"
            )
        size = tuple(image.shape[2:])
        if any(side % config.stride or side == 0 for side in size):
            padded = tuple(max(1, -(-side // config.stride)) * config.stride for side in size)
            raise HyMUNetError(
                f"image size {size} is not a multiple of the network stride {config.stride}; "
                f"pad to {padded} or use Predictor, which pads and crops for you"
            )


def _norm_for(spatial_dims: int) -> str:
    # volumes train in batches of 1 or 2, too few for batch statistics
    return "batch" if spatial_dims == 2 else "group"


def hymunet_tiny(
    in_channels: int = 3, num_classes: int = 1, spatial_dims: int = 2, **sizes: Any
) -> HyMUNet:
    """0.8 M parameters in 2-D: real time on a laptop CPU."""
    defaults: dict[str, Any] = {
        "dims": (16, 32, 64, 128),
        "depths": (2, 2, 2, 2),
        "stem_stride": 2,
        "conv_norm": _norm_for(spatial_dims),
    }
    return HyMUNet(in_channels, num_classes, spatial_dims=spatial_dims, **(defaults | sizes))


def hymunet_small(
    in_channels: int = 3, num_classes: int = 1, spatial_dims: int = 2, **sizes: Any
) -> HyMUNet:
    """2.8 M parameters in 2-D: the default for publishable results."""
    defaults: dict[str, Any] = {
        "dims": (32, 64, 128, 224),
        "depths": (2, 2, 2, 2),
        "stem_stride": 2,
        "conv_norm": _norm_for(spatial_dims),
    }
    return HyMUNet(in_channels, num_classes, spatial_dims=spatial_dims, **(defaults | sizes))


def hymunet_base(
    in_channels: int = 3, num_classes: int = 1, spatial_dims: int = 2, **sizes: Any
) -> HyMUNet:
    """Below 10 M parameters in 2-D: for a GPU."""
    defaults: dict[str, Any] = {
        "dims": (48, 96, 192, 384),
        "depths": (2, 2, 3, 2),
        "stem_stride": 2,
        "conv_norm": _norm_for(spatial_dims),
    }
    return HyMUNet(in_channels, num_classes, spatial_dims=spatial_dims, **(defaults | sizes))


PRESETS = {"tiny": hymunet_tiny, "small": hymunet_small, "base": hymunet_base}
