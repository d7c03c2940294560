"""Visual Mamba: the selective scan over an image in several directions, and the block around it.

Liu et al. 2024 (VMamba), https://arxiv.org/abs/2401.10166, on Gu & Dao 2023 (Mamba),
https://arxiv.org/abs/2312.00752. Tensors are channels last, (B, *spatial, C), throughout.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.network.conv import CONV, DropPath, TokenLinear
from hymunet.scan import scan_orders, selective_scan
from hymunet.scan.mamba_layer import initial_dt_bias


class SS2D(nn.Module):
    """Selective scan over a grid: (B, *spatial, channels) -> the same shape; in the first
    `directions` of `scan_orders`, None: in all of them, 4 in 2-D and 6 in 3-D.

    dt, B and C are linear in the token and projected for all directions at once, in raster order;
    the directions differ only in the order in which the scan visits the tokens. A, D and dt's bias
    start as in Mamba: A = -(1..d_state), D = 1, softplus(bias) log-uniform in [0.001, 0.1].
    """

    def __init__(
        self, channels: int, spatial_dims: int, d_state: int, directions: int | None = None
    ) -> None:
        super().__init__()
        self.directions = directions or 2 * spatial_dims
        self.d_state = d_state
        self.dt_rank = max(1, math.ceil(channels / 32))
        features = self.directions * (self.dt_rank + 2 * d_state)
        self.x_proj = TokenLinear(channels, features, bias=False)
        self.dt_weight = nn.Parameter(torch.empty(self.directions, channels, self.dt_rank))
        self.dt_bias = nn.Parameter(torch.empty(self.directions, channels))
        self.A_log = nn.Parameter(torch.empty(self.directions, channels, d_state))
        self.D = nn.Parameter(torch.ones(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Mamba's initialisation (see the class)."""
        bound = self.dt_rank**-0.5
        with torch.no_grad():
            self.dt_weight.uniform_(-bound, bound)
            self.dt_bias.copy_(
                initial_dt_bias(tuple(self.dt_bias.shape), device=self.dt_bias.device)
            )
            self.A_log.copy_(torch.arange(1, self.d_state + 1).log().expand_as(self.A_log))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the scan is steered by, in raster order, from tokens (B, *spatial, channels).

        Returns:
            delta (B, L, directions, channels), before its bias and softplus; B and C (B, L,
            directions, d_state).
        """
        # (B, L, K, dt_rank + 2 d_state)
        projected = self.x_proj(x).flatten(1, -2).unflatten(-1, (self.directions, -1))
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return torch.einsum("blkr,kcr->blkc", dt, self.dt_weight), B, C

    def forward(self, x: Tensor) -> Tensor:
        batch, *grid, channels = x.shape
        tokens = x.flatten(1, -2)  # (B, L, C)
        delta, B, C = self.project(x)
        y = selective_scan(
            tokens,
            delta,
            -torch.exp(self.A_log.float()),
            B,
            C,
            self.D,
            order=scan_orders(tuple(grid), x.device, self.directions),
            delta_bias=self.dt_bias,
            delta_softplus=True,
        )
        return y.view(batch, *grid, channels)

    def state_updates(self, tokens: int) -> int:
        """How often a state is multiplied and added to for one image of `tokens` tokens."""
        return tokens * self.directions * self.D.numel() * self.d_state


class VSSBlock(nn.Module):
    """LayerNorm -> Linear to (x, z) -> depth-wise conv, SiLU -> SS2D -> LayerNorm -> gate by
    SiLU(z) -> Linear -> residual; (B, *spatial, C), same shape out."""

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        d_state: int,
        expand: int,
        drop_path: float = 0.0,
        directions: int | None = None,
    ) -> None:
        super().__init__()
        inner = expand * channels
        self.norm = nn.LayerNorm(channels)
        self.in_proj = TokenLinear(channels, 2 * inner, bias=False)
        self.conv = CONV[spatial_dims](inner, inner, 3, padding=1, groups=inner)
        self.ss2d = SS2D(inner, spatial_dims, d_state, directions)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = TokenLinear(inner, channels, bias=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        inner, z = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        inner = F.silu(self.conv(inner.movedim(-1, 1))).movedim(1, -1)
        y = self.out_norm(self.ss2d(inner)) * F.silu(z)
        return x + self.drop_path(self.out_proj(y))
