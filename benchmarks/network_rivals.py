"""The networks that the presets are timed against, all from MONAI (extra `train`).

`U-Net` is the yardstick of the budgets; the others show where the presets stand among what people
use. Each takes 3 channels and gives 1 logit a pixel, in 2-D.
"""

import contextlib
import io
from collections.abc import Callable

from torch import nn

YARDSTICK, SWIN = "U-Net", "SwinUNETR"
CHANNELS = (64, 128, 256, 512, 1024)


def unet() -> nn.Module:
    """BasicUNet with the channels of the classic U-Net (Ronneberger et al. 2015,
    https://arxiv.org/abs/1505.04597)."""
    from monai.networks.nets import BasicUNet

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its features
        return BasicUNet(spatial_dims=2, in_channels=3, out_channels=1, features=(*CHANNELS, 64))


def attention_unet() -> nn.Module:
    """AttentionUnet with the same channels (Oktay et al. 2018, https://arxiv.org/abs/1804.03999)."""
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(
        spatial_dims=2, in_channels=3, out_channels=1, channels=CHANNELS, strides=(2, 2, 2, 2)
    )


def segresnet() -> nn.Module:
    """SegResNet with 32 filters, as its paper has it, without the auto-encoder (Myronenko 2018,
    https://arxiv.org/abs/1810.11654)."""
    from monai.networks.nets import SegResNet

    return SegResNet(
        spatial_dims=2,
        init_filters=32,
        in_channels=3,
        out_channels=1,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )


def swin_unetr() -> nn.Module:
    """SwinUNETR with 24 features, MONAI's default (Hatamizadeh et al. 2022,
    https://arxiv.org/abs/2201.01266). MONAI needs the package einops for this network alone."""
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(spatial_dims=2, in_channels=3, out_channels=1, feature_size=24)


RIVALS: dict[str, Callable[[], nn.Module]] = {
    YARDSTICK: unet,
    "AttentionUnet": attention_unet,
    "SegResNet": segresnet,
    SWIN: swin_unetr,
}
