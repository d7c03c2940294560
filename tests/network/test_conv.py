"""Layouts, overwriting and other ways to compute a product change the speed and nothing else."""

import pytest
import torch
from torch import nn

from hymunet import HyMUNet
from hymunet.network.attention import AttentionBlock
from hymunet.network.conv import (
    ResidualConvBlock,
    TokenLinear,
    channels_last,
    make_norm,
)
from hymunet.network.mamba import VSSBlock

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2, "head_channels": 4}
EXACT = {"rtol": 1e-10, "atol": 1e-12}
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def trained(network):
    """Batch statistics, gammas and betas that differ from where they start."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network.double()


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_is_torchs(dims):
    instance = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](6, affine=True).double()
    nn.init.normal_(instance.weight)
    nn.init.normal_(instance.bias)
    ours = make_norm("instance", 6, dims).double()
    ours.load_state_dict(instance.state_dict())
    x = torch.randn(3, 6, *(5, 4, 7)[:dims], dtype=torch.float64)
    torch.testing.assert_close(ours(x), instance(x), **EXACT)
    torch.testing.assert_close(ours(x.to(memory_format=LAYOUTS[dims])), instance(x), **EXACT)


@pytest.mark.parametrize("shape", [(2, 5, 4, 6), (1, 1, 4, 6), (3, 1, 4, 4), (2, 3, 4, 5, 6)])
def test_channels_last_moves_memory_and_no_value(shape):
    x = torch.randn(shape)
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride(1) == 1
    assert y.is_contiguous(memory_format=LAYOUTS[len(shape) - 2])
    assert channels_last(y).data_ptr() == y.data_ptr()


@pytest.mark.parametrize("conv_norm", ["batch", "instance", "group"])
@pytest.mark.parametrize(
    ("dims", "channels", "stages"),
    [(2, 3, "CCMM"), (2, 1, "CCAA"), (2, 3, "MACM"), (3, 1, "CCMM"), (3, 2, "CCAA")],
)
def test_any_memory_layout_of_the_image_gives_the_same_logits(dims, channels, stages, conv_norm):
    network = HyMUNet(
        channels, 2, spatial_dims=dims, stages=stages, conv_norm=conv_norm, stem_stride=1, **TOY
    )
    network = trained(network).eval()
    image = torch.randn(2, channels, *(16, 24, 16)[:dims], dtype=torch.float64)
    layouts = [
        image.to(memory_format=LAYOUTS[dims]),
        image.transpose(-1, -2).contiguous().transpose(-1, -2),
        torch.stack([image, image], dim=-1)[..., 0],
    ]
    with torch.no_grad():
        expected = network(image)
        assert expected.is_contiguous()
        for other in layouts:
            kept = other.clone()
            torch.testing.assert_close(network(other), expected, **EXACT)
            assert torch.equal(other, kept)


@pytest.mark.parametrize(("dims", "stages"), [(2, "CMAC"), (3, "CMAC")])
def test_all_features_stay_channels_last(dims, stages):
    """One block that falls back to the other layout would make all that follows copy."""
    network = HyMUNet(1, 1, spatial_dims=dims, stages=stages, **TOY).eval()
    layouts = []

    def see(module, inputs, output):
        layouts.append(output.is_contiguous(memory_format=LAYOUTS[dims]))

    for part in (*network.encoder.stages, *network.decoder.fusions, *network.decoder.blocks):
        part.register_forward_hook(see)
    threads = torch.get_num_threads()
    # with one, torch convolves so small a volume by a kernel that knows no other layout
    torch.set_num_threads(2)
    try:
        network(torch.randn(2, 1, *(32, 48, 32)[:dims]))
    finally:
        torch.set_num_threads(threads)
    assert layouts == [True] * 10


@pytest.mark.parametrize("skip", ["mgf", "concat", "attention"])
@pytest.mark.parametrize("conv_norm", ["batch", "instance", "group"])
def test_without_gradients_the_logits_are_the_same_and_the_features_whole(skip, conv_norm):
    """Without gradients, intermediate tensors are overwritten; the image and what a stage or the
    decoder returns must not be."""
    network = HyMUNet(3, 1, stages="CMAC", skip=skip, conv_norm=conv_norm, **TOY)
    network = trained(network).eval()
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    kept = image.clone()
    recorded = [network(image), *network.encoder(image)]
    with torch.no_grad():
        features = network.encoder(image)
        copies = [feature.clone() for feature in features]
        levels = network.decoder(features)
        assert len(levels) == 3
        for feature, copy in zip(features, copies, strict=True):
            assert torch.equal(feature, copy)
        for got, expected in zip([network(image), *features], recorded, strict=True):
            torch.testing.assert_close(got, expected.detach(), **EXACT)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), recorded[0].detach(), **EXACT)
    assert torch.equal(image, kept)


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (ResidualConvBlock(4, 2, "batch"), (2, 4, 6, 5)),
        (VSSBlock(4, 2, d_state=2, expand=2), (2, 6, 5, 4)),
        (AttentionBlock(4, 2, head_channels=2), (2, 6, 5, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_block_leaves_its_input_as_it_was(block, shape):
    x = torch.randn(shape)
    kept = x.clone()
    with torch.no_grad():
        block.eval()(x)
    assert torch.equal(x, kept)


def test_hooks_record_the_same_features_with_and_without_gradients():
    network = HyMUNet(3, 1, stages="CMAC", **TOY).eval()
    seen = []
    for module in network.modules():
        module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = torch.randn(1, 3, 32, 32)
    network(image)
    with_gradients = [t for t in seen if torch.is_tensor(t)]
    seen.clear()
    with torch.no_grad():
        network(image)
    for ours, expected in zip((t for t in seen if torch.is_tensor(t)), with_gradients, strict=True):
        torch.testing.assert_close(ours, expected.detach())


@pytest.mark.parametrize(
    "shape", [(7, 6), (2, 9, 6), (2, 3, 4, 6), (2, 3, 4, 5, 6), (0, 3, 4, 6), (2, 0, 6)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_token_linear_is_linear(shape, bias):
    torch.manual_seed(0)
    ours, theirs = TokenLinear(6, 5, bias=bias), nn.Linear(6, 5, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        y, expected = ours.to(dtype)(x), theirs.to(dtype)(x)
        torch.testing.assert_close(y, expected)
        weights = torch.randn_like(expected)
        for got, gradient in zip(
            torch.autograd.grad((y * weights).sum(), [x, *ours.parameters()]),
            torch.autograd.grad((expected * weights).sum(), [x, *theirs.parameters()]),
            strict=True,
        ):
            torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-5)


def test_token_linear_takes_strided_tokens():
    linear = TokenLinear(6, 5)
    x = torch.randn(2, 6, 3, 4).movedim(1, -1)
    wide = torch.randn(2, 3, 4, 12)[..., 3:9]
    for tokens in (x, wide):
        torch.testing.assert_close(linear(tokens), linear(tokens.contiguous()))


@pytest.mark.parametrize("training", [True, False])
def test_autocast_gives_nearly_the_same_logits(training):
    network = HyMUNet(3, 1, stages="CMAC", **TOY).train(training)
    image = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(image).float()
    assert (half - expected).abs().max() < 0.1 * expected.abs().max()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(image).float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
