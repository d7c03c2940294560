"""Effective fields lie within theoretical ones, fill them where nothing cancels, and are measured
alike whatever the size of the image."""

import numpy as np
import pytest
import torch
from torch import nn

from hymunet.experiments.inspect.inspector import Inspector
from hymunet.experiments.inspect.observe import observe, squared_gradient
from hymunet.experiments.inspect.receptive_field import (
    CentredMean,
    ball_diameter,
    densest,
    diameter,
    extents,
    theoretical_fields,
)
from hymunet.network.hymunet import HyMUNet

SMALL = {"dims": (4, 6, 8), "depths": (1, 1, 1), "stages": "CCC", "d_state": 2}


def field_of(layers: nn.Module, side: int = 31) -> np.ndarray:
    image = torch.randn(1, 1, side, side, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    return squared_gradient(layers(image), (side // 2,) * 2, image, generator).numpy()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_field_of_k_convolutions_lies_within_the_theoretical_one_and_fills_it_when_positive(k):
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(k)))
    inside = np.zeros((31, 31), bool)
    inside[15 - k : 16 + k, 15 - k : 16 + k] = True
    assert not field_of(layers)[~inside].any()
    for layer in layers:
        nn.init.uniform_(layer.weight, 0.1, 1.0)
    energy = field_of(layers)
    assert np.array_equal(energy > 0, inside)
    # what a person would measure: all of it within the corner, and half of it in fewer pixels
    assert diameter(energy, (15, 15), 1.0) == pytest.approx(1 + 2 * np.hypot(k, k))
    assert densest(energy, 1.0).sum() == inside.sum()
    assert densest(energy, 0.5).sum() < inside.sum()


def test_a_field_is_the_sum_of_all_squared_derivatives_in_the_mean():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1)
    image = torch.randn(1, 2, 5, 5, requires_grad=True)
    output, generator = layer(image), torch.Generator().manual_seed(0)
    draws = [squared_gradient(output, (2, 2), image, generator) for _ in range(3000)]
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = layer.weight.detach().square().sum(dim=(0, 1))
    np.testing.assert_allclose(torch.stack(draws).mean(dim=0), expected, rtol=0.15)


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("decoder_depth", [0, 1])
def test_a_convolutional_network_stays_within_its_theoretical_fields(stem_stride, decoder_depth):
    network = HyMUNet(1, 1, stem_stride=stem_stride, decoder_depth=decoder_depth, **SMALL).eval()
    size = (192, 192)
    theory = theoretical_fields(network, size)
    for parameter in network.parameters():  # no path cancels another
        parameter.data.abs_().add_(0.01)
    seen = observe(network, torch.rand(1, 1, *size), gradients=True)
    generator = torch.Generator().manual_seed(0)
    strides = [stem_stride * 2**i for i in range(3)]
    for output, stride, side in zip(
        [*seen.stage_outputs, seen.logits], [*strides, 1], theory, strict=True
    ):
        middle, extents_found = output.shape[2] // 2, []
        # which neighbours an interpolation takes differs between positions
        for at in range(middle, middle + (strides[-1] if output is seen.logits else 1)):
            energy = squared_gradient(output, (at, at), seen.image, generator).numpy()
            rows, columns = np.nonzero(energy)
            extents_found.append(max(np.ptp(rows), np.ptp(columns)) + 1)
            if output is not seen.logits:
                assert rows.min() + rows.max() == 2 * at * stride  # its centre is where we say
        assert max(extents_found) == side


@pytest.mark.parametrize("stages", ["CCM", "CCA"])
def test_a_stage_that_sees_everything_has_no_side(stages):
    network = HyMUNet(1, 1, **(SMALL | {"stages": stages, "head_channels": 4}))
    *fine, coarse, output = theoretical_fields(network, (64, 64))
    assert all(side is not None for side in fine)
    assert coarse is None
    assert output is None


def test_maps_are_laid_over_each_other_by_their_centres_and_weigh_alike():
    mean = CentredMean()
    small, large = np.zeros((3, 3)), np.zeros((7, 5))
    small[1, 2], large[3, 3], large[0, 2] = 5.0, 1.0, 3.0
    mean.add(small, (1, 1))
    mean.add(large, (3, 2))
    mean.add(np.zeros((9, 9)), (4, 4))  # nothing to say
    expected = np.zeros((7, 5))
    expected[3, 3], expected[0, 2] = 0.5 + 0.125, 0.375
    assert (mean.count, mean.centre) == (2, (3, 2))
    np.testing.assert_allclose(mean.mean, expected)
    reverse = CentredMean()
    reverse.add(large, (3, 2))
    reverse.add(small, (1, 1))
    np.testing.assert_allclose(reverse.mean, expected)


def test_extents_are_those_of_the_map_times_the_unit():
    mean = CentredMean()
    energy = np.zeros((9, 9))
    energy[4, 4], energy[4, 7] = 0.6, 0.4
    mean.add(energy, (4, 4))
    found = extents(mean, unit=8)
    assert found["d50"] == 8
    assert found["d95"] == 8 * 7
    assert found["same50"] == pytest.approx(8 * ball_diameter(1, 2))
    assert found["same95"] == pytest.approx(8 * ball_diameter(2, 2))
    assert extents(CentredMean()) is None


def test_balls_have_the_size_they_are_asked_for():
    assert np.pi / 4 * ball_diameter(50.0, 2) ** 2 == pytest.approx(50)
    assert np.pi / 6 * ball_diameter(50.0, 3) ** 3 == pytest.approx(50)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_seed_gives_the_same_numbers(dimensions):
    from hymunet.experiments.inspect.view import View

    torch.manual_seed(0)
    sizes = SMALL | {"stages": "CMM"}
    network = HyMUNet(1, 1, spatial_dims=dimensions, conv_norm="group", **sizes).eval()
    image = torch.randn(1, 1, *[16] * dimensions)
    inside = image[0, 0] > 0.5
    found = []
    for _ in range(2):
        inspector = Inspector(network)
        inspector.add(View(image, inside, torch.ones_like(inside)), "one", None, True)
        inspector.add_noise()
        found.append(inspector.summary())
    assert found[0] == found[1]
    assert [row["part"] for row in found[0]["fields"]][-1] == "output"
    assert 0 < found[0]["influence"][0]["own_share"] < 1
    for mean in inspector.influence.values():
        assert mean.mean[mean.centre] == 0  # the token itself is told apart
        assert mean.mean.sum() == pytest.approx(1)
    assert all(row["images"]["d95"] >= row["images"]["d50"] for row in found[0]["fields"])
    assert len(found[0]["memory"][0]["directions"]) == 2 * dimensions
