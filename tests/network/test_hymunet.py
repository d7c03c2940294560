"""The network: shapes, laws, presets within their budgets, errors that say what to do."""

import pytest
import torch

from hymunet import HyMUNet, HyMUNetConfig, hymunet_base, hymunet_small, hymunet_tiny
from hymunet.network.conv import DropPath, make_norm

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2, "head_channels": 4}


@pytest.mark.parametrize("stages", ["CCMM", "CCCC", "MMMM", "CCAA", "CM", "CMA"])
@pytest.mark.parametrize("skip", ["mgf", "concat", "attention"])
def test_stages_and_skips_give_logits_of_the_image_size(stages, skip):
    sizes = {**TOY, "dims": TOY["dims"][: len(stages)], "depths": (1,) * len(stages)}
    network = HyMUNet(2, 3, stages=stages, skip=skip, activation="softmax", **sizes).eval()
    assert network(torch.randn(2, 2, 32, 48)).shape == (2, 3, 32, 48)


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
@pytest.mark.parametrize("conv_norm", ["batch", "instance", "group"])
def test_stems_and_norms(stem_stride, conv_norm):
    network = HyMUNet(1, 1, stem_stride=stem_stride, conv_norm=conv_norm, **TOY).eval()
    stride = network.config.stride
    assert stride == 8 * stem_stride
    assert network(torch.randn(1, 1, 2 * stride, stride)).shape == (1, 1, 2 * stride, stride)


def test_volumes_with_four_channels_and_three_classes():
    network = HyMUNet(4, 3, spatial_dims=3, activation="softmax", conv_norm="group", **TOY)
    logits = network(torch.randn(1, 4, 16, 32, 16))
    assert logits.shape == (1, 3, 16, 32, 16)
    logits.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(
    ("preset", "most"), [(hymunet_tiny, 1.0e6), (hymunet_small, 3.0e6), (hymunet_base, 10.0e6)]
)
def test_presets_keep_their_parameter_budget(preset, most):
    assert sum(p.numel() for p in preset().parameters()) <= most


def test_every_parameter_learns():
    network = HyMUNet(3, 2, activation="softmax", deep_supervision=True, **TOY)
    sum(level.square().mean() for level in network(torch.randn(2, 3, 32, 32))).backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias right before a softmax-free square loss still moves; nothing may be left out
    assert idle == []


def test_deep_supervision_returns_levels_in_training_only():
    network = HyMUNet(3, 1, deep_supervision=True, **TOY)
    x = torch.randn(2, 3, 32, 32)
    levels = network.train()(x)
    assert [tuple(level.shape) for level in levels] == [(2, 1, 32, 32)] * 3
    assert network.eval()(x).shape == (2, 1, 32, 32)


def test_a_sample_does_not_see_its_neighbours_in_the_batch():
    network = HyMUNet(3, 1, **TOY).double().eval()
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]))


def test_a_mamba_stage_sees_the_whole_image_and_a_convolution_does_not():
    x = torch.randn(1, 3, 96, 96, dtype=torch.float64, requires_grad=True)

    def reach(stages):
        sizes = {**TOY, "dims": (4, 8), "depths": (1, 1)}
        network = HyMUNet(3, 1, stages=stages, stem_stride=1, **sizes).double().eval()
        (gradient,) = torch.autograd.grad(network(x)[0, 0, 0, 0], x)
        return gradient[0].abs().sum(0)[-1, -1].item()  # from one corner to the other

    assert reach("CM") > 0
    assert reach("CC") == 0


def test_eval_is_deterministic_and_seeded():
    def logits():
        torch.manual_seed(3)
        return HyMUNet(3, 1, **TOY).eval()(torch.ones(1, 3, 32, 32))

    assert torch.equal(logits(), logits())


def test_drop_path_keeps_the_mean_and_whole_samples():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    out = drop(torch.ones(4000, 2, 3))
    per_sample = out.flatten(1)
    assert (per_sample.min(1).values == per_sample.max(1).values).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(torch.ones(5, 2)), torch.ones(5, 2))


def test_drop_path_grows_with_depth():
    config = HyMUNetConfig(drop_path=0.3, depths=(1, 2, 2, 2))
    rates = [rate for stage in range(4) for rate in config.drop_path_rates(stage)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.3)
    assert rates == sorted(rates)


def test_a_size_that_does_not_fit_says_which_would():
    network = HyMUNet(3, 1, **TOY)
    with pytest.raises(ValueError, match=r"pad to \(256, 320\)"):
        network(torch.zeros(1, 3, 250, 310))
    with pytest.raises(ValueError, match="3 channels, height, width"):
        network(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match="height, width"):
        network(torch.zeros(1, 3, 32, 32, 32))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"stages": "CCXM"}, "letters C"),
        ({"stages": "C"}, "two or more"),
        ({"dims": (16, 32)}, "dims must be 4 positive numbers"),
        ({"depths": (1, 1, 0, 1)}, "depths must be 4 positive numbers"),
        ({"skip": "add"}, "skip must be one of"),
        ({"activation": "softmax", "num_classes": 1}, "softmax over 1 class is always 1"),
        ({"stem_stride": 3}, "stem_stride must be one of"),
        ({"in_channels": 0}, "in_channels must be 1 or more"),
        ({"directions": 5}, "directions must be 1 to 4 in 2-D, not 5"),
        ({"directions": 0, "spatial_dims": 3}, "directions must be 1 to 6 in 3-D, not 0"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\)"),
    ],
)
def test_impossible_sizes_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        HyMUNetConfig(**sizes)


def test_attention_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="cannot be cut into heads"):
        HyMUNet(3, 1, stages="CA", dims=(4, 10), depths=(1, 1), head_channels=4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'batch', 'instance' or 'group'"):
        make_norm("layer", 4, 2)


def test_group_norm_groups_divide_the_channels():
    assert make_norm("group", 20, 2).num_groups == 2
    assert make_norm("group", 3, 2).num_groups == 1
