"""Counts and memory without computing: the same as with real tensors, and free."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hymunet import HyMUNet
from hymunet.experiments import passes
from hymunet.experiments.profile.dry_run import _Held, counted, estimated_bytes
from hymunet.network.config import HyMUNetConfig
from hymunet.network.summary import SCAN_MULTIPLY_ADDS, summarise
from hymunet.scan import scan_orders

TOY = {"dims": (4, 8, 8, 16), "depths": (1, 2, 1, 1), "d_state": 2, "head_channels": 4}
WORDS = [{"stages": word} for word in ("CCMM", "CCAA", "CCCC", "MMMM")]
VOLUMES = {"stages": "CCCM", "spatial_dims": 3, "conv_norm": "group"}
names = lambda sizes: sizes["stages"]  # noqa: E731


@pytest.mark.parametrize("sizes", [*WORDS, VOLUMES], ids=names)
def test_counts_are_those_of_a_real_pass(sizes):
    config = HyMUNetConfig(**{**TOY, **sizes})
    side = (32,) * config.spatial_dims
    assert counted(config, 32) == summarise(HyMUNet.from_config(config), side)


@pytest.mark.parametrize("sizes", [WORDS[1], WORDS[2]], ids=names)
def test_multiply_adds_are_those_that_torch_counts(sizes):
    config = HyMUNetConfig(**{**TOY, **sizes})
    network = HyMUNet.from_config(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 3, 64, 64))
    assert counted(config, 64).multiply_adds == counter.get_total_flops() / 2


def test_the_scan_has_a_column_of_its_own():
    """4 directions, twice the channels, d_state states, a block after the other; 5 multiply-adds
    each, which are not among the others."""
    summary = counted(HyMUNetConfig(**{**TOY, "stages": "CCMM"}), 64)
    tokens = {"encoder 3": 8 * 8, "encoder 4": 4 * 4}  # stem and two or three halvings
    for name, channels in (("encoder 3", 8), ("encoder 4", 16)):
        part = next(part for part in summary.parts if part.name == name)
        assert part.scan_updates == tokens[name] * 4 * 2 * channels * 2
    assert summary.scan_updates == sum(part.scan_updates for part in summary.parts)
    assert SCAN_MULTIPLY_ADDS == 5
    # the same network with twice the states: the scan doubles, and of the rest only B and C grow
    more = counted(HyMUNetConfig(**{**TOY, "stages": "CCMM", "d_state": 4}), 64)
    assert more.scan_updates == 2 * summary.scan_updates
    projected = sum(tokens[f"encoder {i}"] * 2 * c * 4 * 2 * 2 for i, c in ((3, 8), (4, 16)))
    assert more.multiply_adds - summary.multiply_adds == projected


@pytest.mark.parametrize("sizes", [*WORDS, VOLUMES], ids=names)
@pytest.mark.parametrize("train", [False, True], ids=["forward", "train"])
def test_memory_is_what_real_tensors_hold(sizes, train):
    config = HyMUNetConfig(**{**TOY, **sizes})
    shape = (32,) * config.spatial_dims
    with _Held() as held:
        network = HyMUNet.from_config(config)
        image = torch.zeros(2, 3, *shape)
        if train:
            passes.training_loss(network, image, torch.zeros(2, 1, *shape)).backward()
        else:
            network.eval()
            with torch.no_grad():
                network(image)
    weights = sum(4 * p.numel() for p in network.parameters())
    moments = 2 * weights if train else 0
    estimate = estimated_bytes(config, 32, batch=2, train=train)
    assert estimate - moments == pytest.approx(held.most, rel=0.1)
    assert estimate > weights + moments + image.nbytes


def test_memory_grows_with_the_image_and_training_needs_more():
    config = HyMUNetConfig(**{**TOY, "stages": "CCCC"})
    small, large = estimated_bytes(config, 256), estimated_bytes(config, 512)
    assert large / small == pytest.approx(4, rel=0.15)
    assert estimated_bytes(config, 256, train=True) > 2 * small
    # 2^28 images are free to ask about
    assert estimated_bytes(config, 32, batch=2**28) > 2**28 * 3 * 32 * 32 * 4


def test_no_stand_in_stays_behind():
    grid = (7, 5)  # of no other test
    counted(HyMUNetConfig(**{**TOY, "stages": "MM", "dims": (4, 8), "depths": (1, 1)}), 28)
    assert type(scan_orders(grid)) is torch.Tensor
    assert type(scan_orders((14, 14))) is torch.Tensor
    with torch.no_grad():
        assert type(HyMUNet(stages="CM", dims=(4, 8), depths=(1, 1)).eval()(
            torch.zeros(1, 3, 28, 28)
        )) is torch.Tensor  # fmt: skip
