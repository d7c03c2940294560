"""Skips: how an encoder feature meets the deeper feature that comes up the decoder.

`MambaGuidedFusion` is the paper's MGF-Skip as we read it (arXiv 2511.17988: deep semantics as
gating signals on shallow features); the other two are what it is compared with.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.network.conv import CONV, activate, conv_norm, upsample


class MambaGuidedFusion(nn.Module):
    """MGF-Skip: the deep feature opens and closes the shallow one, per channel and position.

        d    = up(P_d deep)
        gate = sigmoid(W act(norm(P_s shallow) + d))
        out  = act(norm(conv3([gate * shallow, d])))

    with P_d, P_s, W pointwise and `up` bilinear. At the deepest skip `deep` is the output of the
    last Mamba stage; further up it is the decoder feature that carries it. Where the deep feature
    sees background, the gate closes, and texture that only looks like a border does not reach the
    decoder.

    Args of forward: shallow (B, C, *spatial), deep (B, C_deep, *smaller).
    Returns: (B, C, *spatial).
    """

    def __init__(
        self, shallow_channels: int, deep_channels: int, spatial_dims: int, norm: str
    ) -> None:
        super().__init__()
        self.project_deep = conv_norm(deep_channels, shallow_channels, spatial_dims, norm, 1)
        self.project_shallow = conv_norm(shallow_channels, shallow_channels, spatial_dims, norm, 1)
        self.gate = CONV[spatial_dims](shallow_channels, shallow_channels, 1)
        self.fuse = conv_norm(2 * shallow_channels, shallow_channels, spatial_dims, norm)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        deep = upsample(self.project_deep(deep), shallow.shape[2:])
        gate = torch.sigmoid(self.gate(activate(self.project_shallow(shallow) + deep)))
        return activate(self.fuse(torch.cat([gate * shallow, deep], dim=1)))


class ConcatFusion(nn.Module):
    """U-Net's skip (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597): concatenation of
    the shallow feature and the up-sampled deep one, then a convolution."""

    def __init__(
        self, shallow_channels: int, deep_channels: int, spatial_dims: int, norm: str
    ) -> None:
        super().__init__()
        self.project_deep = conv_norm(deep_channels, shallow_channels, spatial_dims, norm, 1)
        self.fuse = conv_norm(2 * shallow_channels, shallow_channels, spatial_dims, norm)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        deep = upsample(self.project_deep(deep), shallow.shape[2:])
        return activate(self.fuse(torch.cat([shallow, deep], dim=1)))


class AttentionGateFusion(nn.Module):
    """Attention U-Net's skip (Oktay et al. 2018, https://arxiv.org/abs/1804.03999): one gate value
    a position, shared by all channels, from the sum of both projections."""

    def __init__(
        self, shallow_channels: int, deep_channels: int, spatial_dims: int, norm: str
    ) -> None:
        super().__init__()
        inner = max(1, shallow_channels // 2)
        self.project_deep = conv_norm(deep_channels, shallow_channels, spatial_dims, norm, 1)
        self.query = conv_norm(shallow_channels, inner, spatial_dims, norm, 1)
        self.key = conv_norm(shallow_channels, inner, spatial_dims, norm, 1)
        self.gate = CONV[spatial_dims](inner, 1, 1)
        self.fuse = conv_norm(2 * shallow_channels, shallow_channels, spatial_dims, norm)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        deep = upsample(self.project_deep(deep), shallow.shape[2:])
        gate = torch.sigmoid(self.gate(F.relu(self.query(shallow) + self.key(deep))))
        return activate(self.fuse(torch.cat([gate * shallow, deep], dim=1)))


FUSIONS: dict[str, type[MambaGuidedFusion] | type[ConcatFusion] | type[AttentionGateFusion]] = {
    "mgf": MambaGuidedFusion,
    "concat": ConcatFusion,
    "attention": AttentionGateFusion,
}
