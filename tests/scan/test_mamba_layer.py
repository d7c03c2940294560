"""The Mamba layer against mambapy's, an independent implementation with the same parameters."""

import pytest
import torch

from hymunet.scan.compat import Mamba

SIZES = [
    {"d_model": 8},
    {"d_model": 20, "d_state": 5, "d_conv": 3, "expand": 3},
    {"d_model": 6, "dt_rank": 4, "conv_bias": False, "bias": True},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_is_the_layer_of_mambapy(sizes):
    mambapy = pytest.importorskip("mambapy.mamba", reason="NOT TESTED: mambapy is not installed")
    torch.manual_seed(0)
    ours = Mamba(**sizes)
    names = {"expand": "expand_factor"}
    config = mambapy.MambaConfig(n_layers=1, **{names.get(n, n): v for n, v in sizes.items()})
    theirs = mambapy.MambaBlock(config)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(2, 13, sizes["d_model"], requires_grad=True)
    y, expected = ours(tokens), theirs(tokens)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(y)
    parameters = dict(ours.named_parameters())
    other = dict(theirs.named_parameters())
    got = torch.autograd.grad((y * weights).sum(), [tokens, *parameters.values()])
    want = torch.autograd.grad(
        (expected * weights).sum(), [tokens, *(other[name] for name in parameters)]
    )
    for name, ours_, theirs_ in zip(["tokens", *parameters], got, want, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-3, atol=1e-5, msg=name)


def test_a_token_does_not_see_those_after_it():
    layer = Mamba(8).eval()
    tokens = torch.randn(1, 10, 8)
    changed = tokens.clone()
    changed[:, 6:] += 1.0
    before, after = layer(tokens), layer(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])


def test_steps_start_between_dt_min_and_dt_max():
    layer = Mamba(64, dt_min=0.01, dt_max=0.2)
    dt = torch.nn.functional.softplus(layer.dt_proj.bias.detach())
    assert 0.01 * 0.999 <= float(dt.min()) < 0.03
    assert 0.1 < float(dt.max()) <= 0.2 * 1.001


def test_half_precision():
    layer = Mamba(8, dtype=torch.bfloat16)
    tokens = torch.randn(2, 5, 8, dtype=torch.bfloat16)
    y = layer(tokens)
    assert y.dtype == torch.bfloat16
    assert layer.A_log.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer.float()(tokens.float()), rtol=0.1, atol=2e-2)


def test_what_is_not_supported_is_refused():
    with pytest.raises(ValueError, match="token-by-token generation"):
        Mamba(4)(torch.randn(1, 3, 4), inference_params=object())
    with pytest.raises(ValueError, match="dt_init must be 'random' or 'constant', not 'zero'"):
        Mamba(4, dt_init="zero")
