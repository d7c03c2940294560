"""Convolution parts: normalisation by name, convolution with it, and the residual block.

The shallow stages of HyM-UNet are residual convolutions (He et al. 2016,
https://arxiv.org/abs/1512.03385): texture and edges are local, and a 3x3 convolution is the
cheapest thing that sees them.

Shapes are (B, C, *spatial), memory is channels last throughout: convolutions run about twice as
fast on a CPU, and the tokens of a Mamba or attention block are a view.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.errors import HyMUNetError

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_LINEAR_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *spatial) as it is, but with C as the fastest axis in memory; free where it is so."""
    if x.shape[1] == 1:
        # one channel fits both layouts; torch goes by the strides, and these say channels last
        return x.squeeze(1).contiguous().unsqueeze(-1).movedim(-1, 1)
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.01."""
    return F.leaky_relu(x, 0.01)


def make_norm(name: str, channels: int, spatial_dims: int) -> nn.Module:
    """`batch` (fastest, for batches of 8 and more), `instance` or `group` (for batches of 1 or 2).

    Raises:
        HyMUNetError: If the name is none of these.
    """
    if name == "batch":
        return _BATCH_NORM[spatial_dims](channels)
    if name == "instance":
        # the same function and parameters as nn.InstanceNorm, which copies channels-last tensors
        return nn.GroupNorm(channels, channels)
    if name == "group":
        groups = next(g for g in range(max(1, channels // 8), 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels)
    raise HyMUNetError(f"conv_norm must be 'batch', 'instance' or 'group', not {name!r}")


def conv_norm(
    in_channels: int,
    out_channels: int,
    spatial_dims: int,
    norm: str,
    kernel_size: int = 3,
    stride: int = 1,
) -> nn.Sequential:
    """Convolution without bias (the normalisation has one), then the normalisation."""
    return nn.Sequential(
        CONV[spatial_dims](
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        ),
        make_norm(norm, out_channels, spatial_dims),
    )


def upsample(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Bilinear or trilinear interpolation of (B, C, *spatial) to `size`; never a transposed
    convolution, whose uneven overlap draws checkerboards."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode=_LINEAR_INTERPOLATION[x.ndim - 2])


class TokenLinear(nn.Linear):
    """nn.Linear of (B, *spatial, C_in) tensors, computed on a CPU as the pointwise convolution that
    it is: oneDNN's takes half the time of the BLAS product, forwards and backwards.

    Compiled and exported graphs hold the plain product, which needs no axes moved.
    """

    def forward(self, input: Tensor) -> Tensor:
        if (
            torch.compiler.is_compiling()
            or input.ndim < 3
            or input.numel() == 0
            or input.shape[-1] != self.in_features
            or input.device.type != "cpu"
            or input.dtype == torch.float64  # oneDNN has no double precision
            or not torch.backends.mkldnn.is_available()
        ):
            return super().forward(input)
        grid = input.unsqueeze(1) if input.ndim == 3 else input.flatten(1, -3)  # (B, rows, W, C_in)
        out = F.conv2d(grid.movedim(-1, 1), self.weight[..., None, None], self.bias)
        return out.movedim(1, -1).reshape(*input.shape[:-1], self.out_features)


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for whole samples with probability p
    and scales the others by 1 / (1 - p) (Huang et al. 2016, https://arxiv.org/abs/1603.09382)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.p
        return x * keep.to(x.dtype) / (1.0 - self.p)


class ResidualConvBlock(nn.Module):
    """x + norm(conv(act(norm(conv(x))))), then the activation; (B, C, *spatial), same shape out."""

    def __init__(self, channels: int, spatial_dims: int, norm: str, drop_path: float = 0.0) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, spatial_dims, norm)
        self.second = conv_norm(channels, channels, spatial_dims, norm)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.second(activate(self.first(x)))
        return activate(x + self.drop_path(branch))
