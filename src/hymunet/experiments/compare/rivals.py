"""The networks that HyM-UNet is compared with, all from MONAI (extra `train`).

Each is built as its paper or MONAI has it, sizes spelled out, and takes (channels of the image,
output channels, spatial dimensions, image size) to a freshly initialised network.
"""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hymunet.errors import HyMUNetError
from hymunet.extras import require

Size = tuple[int, ...] | None
Builder = Callable[[int, int, int, Size], nn.Module]

CHANNELS = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Rival:
    """A builder, what a table says of it, and what sides of images must be multiples of."""

    build: Builder
    what: str
    stride: int


def unet(in_channels: int, num_classes: int, spatial_dims: int = 2, size: Size = None) -> nn.Module:
    """BasicUNet with the channels of the classic U-Net (Ronneberger et al. 2015,
    https://arxiv.org/abs/1505.04597): 31 M parameters in 2-D."""
    return _basic_unet(in_channels, num_classes, spatial_dims, (*CHANNELS, 64))


def unet_small(
    in_channels: int, num_classes: int, spatial_dims: int = 2, size: Size = None
) -> nn.Module:
    """BasicUNet with MONAI's default channels: 2 M parameters in 2-D, as many as `small`."""
    return _basic_unet(in_channels, num_classes, spatial_dims, (32, 32, 64, 128, 256, 32))


def attention_unet(
    in_channels: int, num_classes: int, spatial_dims: int = 2, size: Size = None
) -> nn.Module:
    """AttentionUnet with the same channels (Oktay et al. 2018, https://arxiv.org/abs/1804.03999)."""
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=num_classes,
        channels=CHANNELS,
        strides=(2, 2, 2, 2),
    )


def unet_plus_plus(
    in_channels: int, num_classes: int, spatial_dims: int = 2, size: Size = None
) -> nn.Module:
    """BasicUNetPlusPlus with the channels of UNet++ (Zhou et al. 2018,
    https://arxiv.org/abs/1807.10165), without its deep supervision."""
    from monai.networks.nets import BasicUNetPlusPlus

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its features
        return BasicUNetPlusPlus(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=num_classes,
            features=(32, 64, 128, 256, 512, 32),
        )


def segresnet(
    in_channels: int, num_classes: int, spatial_dims: int = 2, size: Size = None
) -> nn.Module:
    """SegResNet with 32 filters, as its paper has it, without the auto-encoder (Myronenko 2018,
    https://arxiv.org/abs/1810.11654)."""
    from monai.networks.nets import SegResNet

    return SegResNet(
        spatial_dims=spatial_dims,
        init_filters=32,
        in_channels=in_channels,
        out_channels=num_classes,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )


def unetr(
    in_channels: int, num_classes: int, spatial_dims: int = 2, size: Size = None
) -> nn.Module:
    """UNETR with a ViT-B encoder, as its paper has it (Hatamizadeh et al. 2022,
    https://arxiv.org/abs/2103.10504); it knows images of one size only.

    Raises:
        HyMUNetError: If there is no such size.
    """
    from monai.networks.nets import UNETR

    if size is None:
        raise HyMUNetError(
            "UNETR has a learnt position for each patch of an image of one size, and these images "
            "have none: resize them (--resize squeeze) or read them in windows (--resize window)"
        )
    return UNETR(
        in_channels=in_channels,
        out_channels=num_classes,
        img_size=size,
        feature_size=16,
        hidden_size=768,
        mlp_dim=3072,
        num_heads=12,
        spatial_dims=spatial_dims,
    )


def swin_unetr(
    in_channels: int, num_classes: int, spatial_dims: int = 2, size: Size = None
) -> nn.Module:
    """SwinUNETR with 24 features, MONAI's default (Hatamizadeh et al. 2022,
    https://arxiv.org/abs/2201.01266). MONAI needs the package einops for this network alone.

    Raises:
        HyMUNetError: If einops is not installed.
    """
    from monai.networks.nets import SwinUNETR

    require("train", "SwinUNETR", "einops")
    return SwinUNETR(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=num_classes,
        feature_size=24,
    )


def _basic_unet(
    in_channels: int, num_classes: int, spatial_dims: int, features: tuple[int, ...]
) -> nn.Module:
    from monai.networks.nets import BasicUNet

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its features
        return BasicUNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=num_classes,
            features=features,
        )


RIVALS: dict[str, Rival] = {
    "unet": Rival(unet, "classic U-Net, 64 to 1024 channels (MONAI BasicUNet)", 16),
    "unet-small": Rival(unet_small, "U-Net, 32 to 256 channels (MONAI BasicUNet)", 16),
    "attention-unet": Rival(attention_unet, "Attention U-Net (MONAI)", 16),
    "unet++": Rival(unet_plus_plus, "UNet++ (MONAI BasicUNetPlusPlus)", 16),
    "segresnet": Rival(segresnet, "SegResNet (MONAI)", 8),
    "unetr": Rival(unetr, "UNETR, ViT-B encoder (MONAI)", 16),
    "swin-unetr": Rival(swin_unetr, "SwinUNETR, 24 features (MONAI)", 32),
}
