"""The decoder: fuse with each skip, refine by convolutions, finest resolution last."""

from torch import Tensor, nn

from hymunet.network.config import HyMUNetConfig
from hymunet.network.conv import CONV, ResidualConvBlock
from hymunet.network.fusion import FUSIONS
from hymunet.network.strips import in_strips


class Decoder(nn.Module):
    """Encoder features, finest first -> decoder features, coarsest first.

    Level i (from the second coarsest up) is fusion(encoder[i], level i + 1) followed by
    `decoder_depth` residual convolution blocks; (B, dims[i], *spatial of encoder[i]).
    """

    def __init__(self, config: HyMUNetConfig) -> None:
        super().__init__()
        fusion = FUSIONS[config.skip]
        dims, norm = config.spatial_dims, config.conv_norm
        levels = list(reversed(range(len(config.stages) - 1)))
        self.fusions = nn.ModuleList(
            fusion(config.dims[i], config.dims[i + 1], dims, norm) for i in levels
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualConvBlock(config.dims[i], dims, norm)
                    for _ in range(config.decoder_depth)
                )
            )
            for i in levels
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        deep = features[-1]
        levels = []
        for fusion, block, shallow in zip(
            self.fusions, self.blocks, reversed(features[:-1]), strict=True
        ):
            deep = in_strips((fusion, block), [shallow, deep], tuple(shallow.shape))
            levels.append(deep)
        return levels


class Head(nn.Module):
    """Pointwise convolution to `num_classes` logits, (B, C, *spatial) -> (B, num_classes, ...)."""

    def __init__(self, channels: int, config: HyMUNetConfig) -> None:
        super().__init__()
        self.logits = CONV[config.spatial_dims](channels, config.num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)
