"""Self-attention block: the rival of Visual Mamba on the same skeleton (stage letter A).

Pre-norm Transformer (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Dosovitskiy et al.
2020, https://arxiv.org/abs/2010.11929) with a depth-wise convolution as positional encoding (Chu et
al. 2021, https://arxiv.org/abs/2102.10882), so that any image size works. Quadratic in the tokens.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.errors import HyMUNetError
from hymunet.network.conv import CONV, DropPath, TokenLinear


class AttentionBlock(nn.Module):
    """Position by depth-wise conv -> multi-head attention -> MLP, each residual;
    (B, *spatial, C), same shape out.

    Raises:
        HyMUNetError: If `channels` is not a multiple of `head_channels`.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        head_channels: int,
        mlp_ratio: int = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if channels % head_channels:
            raise HyMUNetError(
                f"an attention stage of {channels} channels cannot be cut into heads of "
                f"{head_channels}; choose dims that are multiples of head_channels"
            )
        self.heads = channels // head_channels
        self.position = CONV[spatial_dims](channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.qkv = TokenLinear(channels, 3 * channels)
        self.out_proj = TokenLinear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            TokenLinear(channels, mlp_ratio * channels),
            nn.GELU(),
            TokenLinear(mlp_ratio * channels, channels),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position(x.movedim(-1, 1)).movedim(1, -1)
        tokens = self.qkv(self.norm(x)).flatten(1, -2)  # (B, L, 3 C)
        # (3, B, heads, L, head_channels)
        q, k, v = tokens.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.drop_path(self.out_proj(attended))
        return x + self.drop_path(self.mlp(x))

    def attention_multiply_adds(self, tokens: int) -> int:
        """Products q k and weights v of one image of `tokens` tokens (the Linears apart)."""
        return 2 * tokens * tokens * self.out_proj.in_features
