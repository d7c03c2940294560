"""Hairs and JPEG as random transforms: how often, what they change, what they leave alone."""

import numpy as np
import pytest
import torch

from hymunet.data.augment_marks import RandHairs, RandJpeg
from hymunet.data.corruption_camera import jpeg

by_kind = pytest.mark.parametrize("kind", [RandHairs, RandJpeg])


def drawn(transform, image, seed):
    transform.set_random_state(seed=seed)
    return transform({"image": image})["image"]


def picture(channels=3, side=48):
    y, x = np.mgrid[0:side, 0:side] / side
    planes = np.stack([0.3 + 0.4 * x, 0.5 + 0.2 * np.sin(9 * y), 0.6 - 0.3 * y * x])
    return torch.from_numpy(np.rint(255 * planes[:channels]) / 255).float()


@by_kind
@pytest.mark.parametrize("channels", [1, 3])
def test_as_often_as_asked_and_within_range(kind, channels):
    image, transform = picture(channels), kind(0.3)
    results = [drawn(transform, image, seed) for seed in range(200)]
    changed = [result for result in results if not torch.equal(result, image)]
    assert 40 < len(changed) < 80  # 60 expected, 6.5 standard deviation
    for result in changed:
        assert result.shape == image.shape
        assert result.dtype == image.dtype
        assert result.min() >= 0
        assert result.max() <= 1
    assert len({result.numpy().tobytes() for result in changed}) > 15  # of 45 qualities, any hair
    assert torch.equal(image, picture(channels))  # the input is left alone


@by_kind
def test_never_and_always(kind):
    image = picture()
    for seed in range(10):
        assert drawn(kind(0.0), image, seed) is image
        assert not torch.equal(drawn(kind(1.0), image, seed), image)


@by_kind
@pytest.mark.parametrize("shape", [(2, 16, 16), (4, 16, 16), (1, 8, 8, 8), (3, 8, 8, 8)])
def test_what_is_no_picture_stays_as_it_is(kind, shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert drawn(kind(1.0), image, 0) is image


def test_hairs_cover_a_part_and_leave_the_rest():
    image = picture()
    for seed in range(20):
        touched = (drawn(RandHairs(1.0), image, seed) != image).any(dim=0).float().mean()
        assert 0.005 < touched < 0.75


def test_jpeg_is_that_of_the_corruptions():
    image = picture()
    pixels = (image * 255).round().to(torch.uint8).numpy()
    possible = {jpeg(pixels, quality).tobytes() for quality in range(15, 60)}
    found = {
        (drawn(RandJpeg(1.0), image, seed) * 255).round().to(torch.uint8).numpy().tobytes()
        for seed in range(40)
    }
    assert found <= possible
    assert len(found) > 10
