"""Costs and receptive fields, against torch's flop counter, gradients and counting by hand."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hymunet import HyMUNet, hymunet_tiny
from hymunet.network import mamba
from hymunet.network.mamba import SS2D
from hymunet.network.summary import summarise
from hymunet.scan import selective_scan_reference

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 2, 1, 1), "d_state": 2, "head_channels": 4}


def counted_by_torch(network, size):
    """Multiply-adds of a forward pass; attention is counted as the two products it consists of."""
    image = torch.zeros(1, network.config.in_channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network.eval()(image)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    "sizes",
    [
        {"stages": "CCCC"},
        {"stages": "CCCC", "skip": "concat", "stem_stride": 4, "decoder_depth": 2},
        {"stages": "CCCC", "skip": "attention", "stem_stride": 1, "num_classes": 3},
        {"stages": "CCAA"},
        {"stages": "AC", "dims": (8, 4), "depths": (2, 1)},
        {"stages": "CCCC", "spatial_dims": 3, "conv_norm": "group"},
        {"stages": "CA", "dims": (4, 8), "depths": (1, 1), "spatial_dims": 3},
    ],
    ids=lambda sizes: " ".join(str(v) for v in sizes.values()),
)
def test_multiply_adds_are_those_that_torch_counts(sizes):
    network = HyMUNet(**{**TOY, **sizes})
    size = (32, 64, 32)[: network.config.spatial_dims]
    summary = summarise(network, size)
    assert summary.multiply_adds == counted_by_torch(network, size)
    assert summary.scan_updates == 0


@pytest.mark.parametrize(
    "sizes",
    [
        {"stages": "CCMM", "dims": (4, 8, 20, 36)},
        {"stages": "MM", "dims": (20, 24), "depths": (1, 2)},
        {"stages": "CM", "dims": (4, 20), "depths": (1, 1), "spatial_dims": 3, "expand": 3},
    ],
    ids=lambda sizes: " ".join(str(v) for v in sizes.values()),
)
def test_multiply_adds_with_a_scan(sizes, monkeypatch):
    """In plain torch, the only part of the scan that the flop counter sees is C h, a multiply-add
    a state update; the rest is elementwise. More than 32 inner channels give dt a rank of 2 and
    more, so that its projection is a product of matrices, which the counter sees too."""
    plain = lambda *args, **options: selective_scan_reference(*args, **options)[0]  # noqa: E731
    monkeypatch.setattr(mamba, "selective_scan", plain)  # an operator's inside is not counted
    network = HyMUNet(**{**TOY, **sizes})
    size = (32, 48, 16)[: network.config.spatial_dims]
    summary = summarise(network, size)
    assert min(m.dt_rank for m in network.modules() if isinstance(m, SS2D)) >= 2
    counted = counted_by_torch(network, size)
    assert summary.multiply_adds + summary.scan_updates == counted


@pytest.mark.parametrize(("spatial_dims", "directions"), [(2, 4), (3, 6)])
def test_a_mamba_stage_by_hand(spatial_dims, directions):
    """Stage 2 of CM: tokens, channels, and dt of rank 1, which torch counts as elementwise."""
    network = HyMUNet(
        1, 1, stages="CM", dims=(4, 8), depths=(1, 2), d_state=3, expand=2,
        spatial_dims=spatial_dims, stem_stride=2,
    )  # fmt: skip
    summary = summarise(network, (16,) * spatial_dims)
    stage = next(part for part in summary.parts if part.name == "encoder 2")
    tokens, inner, rank = 4**spatial_dims, 16, 1
    assert stage.shape == (8, *[4] * spatial_dims)
    assert stage.scan_updates == summary.scan_updates == 2 * tokens * directions * inner * 3
    down = tokens * 8 * 4 * 3**spatial_dims
    block = tokens * (
        8 * 2 * inner  # in_proj to x and z
        + inner * 3**spatial_dims  # depth-wise convolution
        + inner * directions * (rank + 2 * 3)  # dt, B and C
        + directions * inner * rank  # dt of each channel
        + inner * 8  # out_proj
    )
    assert stage.multiply_adds == down + 2 * block


@pytest.mark.parametrize("sizes", [{}, {"skip": "concat"}, {"deep_supervision": True}], ids=str)
def test_parts_add_up_to_the_network(sizes):
    network = HyMUNet(3, 2, **{**TOY, **sizes})
    summary = summarise(network, (32, 32))
    parameters = sum(p.numel() for p in network.parameters())
    assert summary.parameters == parameters
    assert sum(part.parameters for part in summary.parts) == parameters
    assert sum(part.multiply_adds for part in summary.parts) == summary.multiply_adds
    assert summary.parts[-1].shape == (2, 16, 16)  # logits, before they are enlarged


def test_costs_grow_with_the_pixels():
    """All but attention is linear in the pixels; attention is quadratic."""
    network = HyMUNet(3, 1, **TOY)
    small, large = summarise(network, (32, 32)), summarise(network, (64, 128))
    assert large.multiply_adds == 8 * small.multiply_adds
    assert large.scan_updates == 8 * small.scan_updates
    attention = HyMUNet(3, 1, **{**TOY, "stages": "CCAA"})
    small, large = summarise(attention, (32, 32)), summarise(attention, (64, 128))
    assert large.multiply_adds > 8 * small.multiply_adds


def gradient_support(network, channels, size):
    """Rows and columns of the image that the middle of the last encoder feature depends on."""
    image = torch.rand(1, channels, *size, dtype=torch.float64, requires_grad=True)
    features = network.encoder(image)[-1]
    middle = features[(slice(None), slice(None), *(side // 2 for side in features.shape[2:]))]
    (gradient,) = torch.autograd.grad(middle.sum(), image)
    touched = gradient.abs().sum(dim=(0, 1)).nonzero()
    return (touched.amax(dim=0) - touched.amin(dim=0) + 1).tolist()


@pytest.mark.parametrize(
    ("stages", "depths", "stem_stride", "size"),
    [("CC", (1, 1), 2, (79, 95)), ("CC", (2, 1), 1, (61, 57)), ("CC", (1, 2), 4, (191, 179)),
     ("CCC", (1, 1, 1), 2, (163, 175))],
)  # fmt: skip
def test_receptive_field_is_the_support_of_the_gradient(stages, depths, stem_stride, size):
    sizes = {"dims": (4,) * len(stages), "depths": depths, "stem_stride": stem_stride}
    network = HyMUNet(2, 1, stages=stages, **sizes).eval()
    stride = network.config.stride
    last = summarise(network, (2 * stride, 2 * stride)).parts[len(stages)]
    assert last.name == f"encoder {len(stages)}"
    assert max(size) > last.receptive_field  # or the frame would cut it
    support = gradient_support(network.double(), 2, size)
    assert support == [last.receptive_field, last.receptive_field]


@pytest.mark.parametrize("stages", ["CCMM", "CCAA", "CCMC", "CMCA"])
def test_scan_and_attention_see_the_whole_image_and_so_does_what_follows(stages):
    summary = summarise(HyMUNet(3, 1, **{**TOY, "stages": stages}), (32, 32))
    fields = [part.receptive_field for part in summary.parts[1:5]]
    first = min(stages.index(letter) for letter in "MA" if letter in stages)
    assert all(fields[:first])
    assert fields[first:] == [None] * (4 - first)


def test_the_model_is_left_as_it_came():
    network = HyMUNet(3, 1, **TOY).train()
    network.encoder.eval()  # as in fine-tuning with frozen statistics
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    summarise(network, (32, 32))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ValueError, match="not a multiple of the network stride"):
        summarise(network, (33, 32))
    assert not any(module._forward_hooks for module in network.modules())


def test_tiny_is_as_small_as_it_says():
    """README and docstring: below a million parameters, about a thousand million multiply-adds."""
    summary = summarise(hymunet_tiny(), (256, 256))
    assert 0.7e6 < summary.parameters < 1.0e6
    assert 0.9e9 < summary.multiply_adds < 1.2e9
