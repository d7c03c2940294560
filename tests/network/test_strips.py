"""Strips of rows give what the whole feature gives, and stay away where they would not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hymunet import HyMUNet
from hymunet.network import strips
from hymunet.network.strips import in_strips

SIZES = {"dims": (4, 6, 8), "depths": (2, 1, 1), "d_state": 2, "head_channels": 4}


@pytest.fixture
def low_limits(monkeypatch):
    """Every feature counts as large, and strips are as thin as they may be."""
    monkeypatch.setattr(strips, "LARGE_BYTES", 0)
    monkeypatch.setattr(strips, "STRIP_BYTES", 0)


def has_norm(module):
    """Whether a norm follows this convolution, which then needs no bias."""
    return isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.bias is None


@pytest.fixture
def calls(monkeypatch):
    """Input rows of each convolution with a norm, in the order of the calls."""
    rows = []

    def record(kind):
        forward = kind.forward

        def recorded(self, x):
            if has_norm(self):
                rows.append(x.shape[2])
            return forward(self, x)

        monkeypatch.setattr(kind, "forward", recorded)

    record(nn.Conv2d)
    record(nn.Conv3d)
    return rows


def network_of(**sizes):
    torch.manual_seed(0)
    network = HyMUNet(2, 1, **{**SIZES, **sizes})
    with torch.no_grad():  # statistics that differ from where they start
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.double().eval()


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ({"stages": "CCM", "stem_stride": 1}, (200, 24)),
        ({"stages": "CCC", "stem_stride": 2, "skip": "concat"}, (520, 16)),
        ({"stages": "CCA", "stem_stride": 4, "skip": "attention"}, (1040, 32)),
        ({"stages": "CCC", "decoder_depth": 0, "stem_stride": 1}, (304, 8)),
        ({"stages": "CCC", "decoder_depth": 2, "stem_stride": 1}, (328, 8)),
        ({"stages": "CC", "dims": (4, 6), "depths": (1, 1), "spatial_dims": 3, "stem_stride": 1},
         (136, 8, 6)),
    ],
    ids=str,
)  # fmt: skip
def test_strips_give_the_logits_of_the_whole(low_limits, calls, monkeypatch, sizes, size):
    network = network_of(**sizes)
    image = torch.randn(2, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        got = network(image)
        in_parts = len(calls)
        monkeypatch.setattr(strips, "LARGE_BYTES", 1 << 60)
        expected = network(image)
    assert in_parts > 2 * (len(calls) - in_parts)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_the_halo_is_as_wide_as_it_must_be(low_limits, monkeypatch):
    """With fewer rows on either side the borders between strips would show."""
    network = network_of(stages="CCC", stem_stride=1)
    image = torch.randn(1, 2, 200, 16, dtype=torch.float64)
    with torch.no_grad():
        exact = network(image)
        monkeypatch.setattr(strips, "_halo", lambda modules: 2)
        assert not torch.allclose(network(image), exact)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_statistics_of_the_whole_image_are_not_taken_from_strips(low_limits, calls, norm):
    network = network_of(stages="CCC", conv_norm=norm, stem_stride=1)
    with torch.no_grad():
        network(torch.randn(1, 2, 200, 16, dtype=torch.float64))
    assert len(calls) == sum(has_norm(m) for m in network.modules())


def test_scans_and_attention_see_the_whole_image(low_limits, calls):
    network = network_of(stages="MAM", stem_stride=1, head_channels=2)
    with torch.no_grad():
        network.encoder(torch.randn(1, 2, 200, 8, dtype=torch.float64))
    assert calls == [200, 200, 100]


@pytest.mark.parametrize("reason", ["gradients", "training", "hook"])
def test_whole_features_where_somebody_needs_them(low_limits, calls, reason):
    network = network_of(stages="CCC", stem_stride=1).train(reason == "training")
    seen = []
    if reason == "hook":
        network.encoder.stages[0].blocks[0].first.register_forward_hook(
            lambda module, inputs, output: seen.append(output.shape[2])
        )
    with torch.set_grad_enabled(reason == "gradients"):
        network.encoder(torch.randn(1, 2, 200, 16, dtype=torch.float64))
    assert max(calls[:5]) == 200
    assert calls[:5] == [200] * 5
    assert seen == ([200] if reason == "hook" else [])


class Enlarge(nn.Module):
    """Interpolation by `factor`, then two convolutions."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.convs = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))

    def forward(self, x):
        return self.convs(F.interpolate(x, scale_factor=self.factor, mode="bilinear"))


@pytest.mark.parametrize(("factor", "rows"), [(2, 64), (3, 67)])
def test_the_reach_of_an_interpolation_and_rows_that_do_not_halve(low_limits, factor, rows):
    """Rows enlarged by 3 cannot be cut at even rows, so this is done at once."""
    enlarge = Enlarge(factor).double().eval()
    x = torch.randn(1, 3, rows, 4, dtype=torch.float64)
    shape = (1, 3, factor * rows, factor * 4)
    with torch.no_grad():
        got = in_strips((enlarge, nn.Sequential().eval()), [x], shape)
        torch.testing.assert_close(got, enlarge(x), rtol=1e-10, atol=1e-12)


def test_small_features_are_computed_whole(calls):
    network = network_of(stages="CCC", stem_stride=1)
    with torch.no_grad():
        network(torch.randn(1, 2, 200, 16, dtype=torch.float64))
    assert len(calls) == sum(has_norm(m) for m in network.modules())


def test_what_sees_far_rows_is_computed_whole(low_limits, calls):
    network = network_of(stages="CCC", stem_stride=1)
    image = torch.randn(1, 2, 200, 16, dtype=torch.float64)
    blocks = network.encoder.stages[0].blocks
    with torch.no_grad():
        blocks[0].first[1].track_running_stats = False
        blocks[0].first[1].running_mean = blocks[0].first[1].running_var = None
        network.encoder(image)
        assert calls[:5] == [200] * 5
        calls.clear()
        network = network_of(stages="CCC", stem_stride=1)
        network.encoder.stages[0].blocks[0].first[0].padding_mode = "circular"
        network.encoder(image)
        assert calls[:5] == [200] * 5


def test_vmap_over_images(low_limits):
    network = network_of(stages="CCC", stem_stride=1)
    images = torch.randn(2, 1, 2, 200, 16, dtype=torch.float64)
    with torch.no_grad():
        mapped = torch.func.vmap(network)(images)
        torch.testing.assert_close(mapped, torch.stack([network(image) for image in images]))
