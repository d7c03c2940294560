"""mamba_ssm's `Mamba` layer over our scan: same arguments, parameters and result, on any device.

Gu & Dao 2023, section 3.4, https://arxiv.org/abs/2312.00752; names of arguments and parameters as
in https://github.com/state-spaces/mamba, `mamba_ssm/modules/mamba_simple.py`: its weights load.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.scan.operator import selective_scan_with_states


def initial_dt_bias(
    shape: tuple[int, ...],
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    dt_init_floor: float = 0.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Biases whose softplus, the first step sizes, is log-uniform in [dt_min, dt_max] and not below
    `dt_init_floor`; Gu & Dao 2023, section 3.6."""
    spread = math.log(dt_max) - math.log(dt_min)
    dt = torch.exp(torch.rand(shape, device=device) * spread + math.log(dt_min))
    dt = dt.clamp(min=dt_init_floor)
    return dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus


class Mamba(nn.Module):
    """A causal Mamba layer over tokens, (batch, length, d_model) -> the same shape.

        x, z = in_proj(tokens);  x = silu(causal depth-wise conv(x))
        dt, B, C = x_proj(x);  y = selective scan of x with softplus(dt_proj(dt)), A = -exp(A_log)
        out = out_proj(y silu(z))

    Args:
        d_model: Channels of a token.
        d_state: Size of the state a channel.
        d_conv: Width of the convolution, in tokens.
        expand: Inner channels, as a multiple of d_model.
        dt_rank: Rank of dt's projection; auto: d_model / 16, rounded up.
        dt_min: Smallest initial step size.
        dt_max: Largest initial step size.
        dt_init: How dt_proj's weights start: random (uniform) or constant.
        dt_scale: Factor on these weights.
        dt_init_floor: No initial step size is below it.
        conv_bias: Whether the convolution has a bias.
        bias: Whether in_proj and out_proj have one.
        use_fast_path: Accepted for mamba_ssm's sake; there is one path, and it is fast.
        layer_idx: Accepted likewise; only token-by-token generation uses it.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        ValueError: If `inference_params` asks for token-by-token generation, which is not here.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise ValueError(f"dt_init must be 'random' or 'constant', not {dt_init!r}")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.layer_idx, self.use_fast_path = layer_idx, use_fast_path
        inner = self.d_inner
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, device=device, dtype=dtype)
        self.conv1d = nn.Conv1d(
            inner,
            inner,
            d_conv,
            groups=inner,
            padding=d_conv - 1,
            bias=conv_bias,
            device=device,
            dtype=dtype,
        )
        features = self.dt_rank + 2 * d_state
        self.x_proj = nn.Linear(inner, features, bias=False, device=device, dtype=dtype)
        self.dt_proj = nn.Linear(self.dt_rank, inner, bias=True, device=device, dtype=dtype)
        # the recurrence is computed in float32, whatever the type of the rest
        rates = torch.arange(1, d_state + 1, dtype=torch.float32, device=device)
        self.A_log = nn.Parameter(rates.log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner, device=device))
        self.out_proj = nn.Linear(inner, d_model, bias=bias, device=device, dtype=dtype)

        bound = dt_scale * self.dt_rank**-0.5
        with torch.no_grad():
            if dt_init == "constant":
                self.dt_proj.weight.fill_(bound)
            else:
                self.dt_proj.weight.uniform_(-bound, bound)
            self.dt_proj.bias.copy_(
                initial_dt_bias((inner,), dt_min, dt_max, dt_init_floor, device)
            )

    def forward(self, hidden_states: Tensor, inference_params: object | None = None) -> Tensor:
        if inference_params is not None:
            raise ValueError(
                "inference_params asks for token-by-token generation, which is not supported; "
                "leave it None"
            )
        length = hidden_states.shape[1]
        x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., :length]).transpose(1, 2)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y, _ = selective_scan_with_states(
            x,
            F.linear(dt, self.dt_proj.weight).unsqueeze(2),
            -torch.exp(self.A_log.float()).unsqueeze(0),
            B.unsqueeze(2),
            C.unsqueeze(2),
            self.D.float(),
            delta_bias=self.dt_proj.bias.float().unsqueeze(0),
            delta_softplus=True,
        )
        return self.out_proj(y * F.silu(z))
