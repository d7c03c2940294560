"""Looking changes nothing, and what is seen is what the network computes with."""

import pytest
import torch
from torch.nn import functional as F

from hymunet.experiments.inspect.observe import observe
from hymunet.network.conv import activate, channels_last, upsample
from hymunet.network.hymunet import HyMUNet

SIZES = {"dims": (4, 6, 8), "depths": (1, 2, 1), "stages": "CMM", "d_state": 2}


def make(skip: str = "mgf", dimensions: int = 2) -> HyMUNet:
    torch.manual_seed(0)
    norm = "batch" if dimensions == 2 else "group"
    return HyMUNet(2, 1, spatial_dims=dimensions, skip=skip, conv_norm=norm, **SIZES)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_network_is_left_as_it_was(dimensions, gradients, training):
    network, image = make(dimensions=dimensions), torch.randn(1, 2, *[16] * dimensions)
    with torch.no_grad():
        before = network.eval()(image)
    network.train(training)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    seen = observe(network, image, gradients)
    assert torch.equal(seen.logits, before)
    assert all(module.training is training for module in network.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not image.requires_grad
    with torch.no_grad():
        assert torch.equal(network.eval()(image), before)


def test_hooks_are_removed_when_the_image_is_refused():
    network = make()
    with pytest.raises(ValueError, match="pad to"):
        observe(network, torch.randn(1, 2, 17, 16))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("skip", ["mgf", "attention"])
def test_the_gate_is_the_one_that_the_skip_multiplies_with(skip):
    network = make(skip).eval()
    seen = observe(network, torch.randn(1, 2, 16, 16))
    assert [one.level for one in seen.skips] == [0, 1]
    fusion, block = network.decoder.fusions[0], network.decoder.blocks[0]
    deepest = seen.skips[1]
    assert torch.equal(deepest.shallow, seen.stage_outputs[1])
    with torch.no_grad():
        deep = upsample(fusion.project_deep(seen.stage_outputs[2]), deepest.shallow.shape[2:])
        fused = activate(fusion.fuse(torch.cat([deepest.gate * deepest.shallow, deep], dim=1)))
        torch.testing.assert_close(block(fused), deepest.decoded)
    assert deepest.gate.shape[1] == (6 if skip == "mgf" else 1)


def test_a_skip_without_a_gate_has_none():
    seen = observe(make("concat"), torch.randn(1, 2, 16, 16))
    assert [one.gate for one in seen.skips] == [None, None]


def test_stages_and_scans_are_seen_in_order():
    network, image = make().eval(), torch.randn(1, 2, 16, 16)
    seen = observe(network, image)
    with torch.no_grad():
        features = network.encoder(channels_last(image))
        first = network.encoder.stages[0](seen.stage_inputs[0])
    for expected, found in zip(features, seen.stage_outputs, strict=True):
        assert torch.equal(expected, found)
    assert torch.equal(first, seen.stage_outputs[0])
    assert {stage: len(scans) for stage, scans in seen.scans.items()} == {1: 2, 2: 1}
    for scans in seen.scans.values():
        for scan, tokens in scans:
            assert tokens.shape[-1] == scan.D.numel()
            dt = F.softplus(scan.project(tokens)[0] + scan.dt_bias)
            assert dt.shape == (1, tokens[0, ..., 0].numel(), 4, tokens.shape[-1])
