"""The encoder: a strided stem, then one stage a letter, each at half the resolution of the last."""

from torch import Tensor, nn

from hymunet.network.attention import AttentionBlock
from hymunet.network.config import HyMUNetConfig
from hymunet.network.conv import ResidualConvBlock, activate, conv_norm
from hymunet.network.mamba import VSSBlock
from hymunet.network.strips import in_strips


class Stem(nn.Module):
    """Image (B, in_channels, *spatial) -> (B, dims[0], *spatial / stem_stride) by convolutions."""

    def __init__(self, config: HyMUNetConfig) -> None:
        super().__init__()
        width, dims, norm = config.dims[0], config.spatial_dims, config.conv_norm
        strides = {1: (1,), 2: (2,), 4: (2, 2)}[config.stem_stride]
        self.layers = nn.ModuleList(
            conv_norm(config.in_channels if i == 0 else width, width, dims, norm, stride=stride)
            for i, stride in enumerate(strides)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = activate(layer(x))
        return x


class ConvStage(nn.Module):
    """Residual convolution blocks (letter C)."""

    def __init__(self, config: HyMUNetConfig, stage: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                ResidualConvBlock(config.dims[stage], config.spatial_dims, config.conv_norm, rate)
                for rate in config.drop_path_rates(stage)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class TokenStage(nn.Module):
    """Blocks that work channels last (letters M and A), and a LayerNorm over what they return,
    since nothing normalises the residual stream before."""

    def __init__(self, blocks: list[nn.Module], channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(x.movedim(1, -1))).movedim(-1, 1)


def mamba_stage(config: HyMUNetConfig, stage: int) -> TokenStage:
    """VSS blocks (letter M)."""
    channels = config.dims[stage]
    return TokenStage(
        [
            VSSBlock(
                channels,
                config.spatial_dims,
                config.d_state,
                config.expand,
                rate,
                config.directions,
            )
            for rate in config.drop_path_rates(stage)
        ],
        channels,
    )


def attention_stage(config: HyMUNetConfig, stage: int) -> TokenStage:
    """Self-attention blocks (letter A)."""
    channels = config.dims[stage]
    return TokenStage(
        [
            AttentionBlock(channels, config.spatial_dims, config.head_channels, drop_path=rate)
            for rate in config.drop_path_rates(stage)
        ],
        channels,
    )


STAGES = {"C": ConvStage, "M": mamba_stage, "A": attention_stage}


class Encoder(nn.Module):
    """(B, in_channels, *spatial) -> one feature a stage, finest first:
    (B, dims[i], *spatial / (stem_stride * 2**i))."""

    def __init__(self, config: HyMUNetConfig) -> None:
        super().__init__()
        self.channels = config.dims
        self.strides = (config.stem_stride, *[2] * (len(config.dims) - 1))
        self.stem = Stem(config)
        self.downs = nn.ModuleList(
            conv_norm(fine, coarse, config.spatial_dims, config.conv_norm, stride=2)
            for fine, coarse in zip(config.dims, config.dims[1:], strict=False)
        )
        self.stages = nn.ModuleList(
            STAGES[letter](config, stage) for stage, letter in enumerate(config.stages)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for stride, channels, entry, stage in zip(
            self.strides, self.channels, [self.stem, *self.downs], self.stages, strict=True
        ):
            shape = (x.shape[0], channels, *(-(-side // stride) for side in x.shape[2:]))
            x = in_strips((entry, stage), [x], shape)
            features.append(x)
        return features
