"""Augmentation: a function of the seed, the same geometry for all, nothing outside its range."""

import numpy as np
import pytest
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta

from hymunet.data.augment import Augment, RandBlur, RandColour, RandNoise
from hymunet.errors import HyMUNetError

SHAPES = {
    "square": ((3, 32, 32), {"spatial_dims": 2}),
    "wide": ((3, 24, 40), {"spatial_dims": 2, "square": False}),
    "volume": ((2, 14, 17, 12), {"spatial_dims": 3, "intensity": False}),
    "grey": ((1, 32, 32), {"spatial_dims": 2}),
    "marked": ((3, 32, 32), {"spatial_dims": 2, "hairs": 0.5, "jpeg": 0.5}),
    "marked grey": ((1, 24, 40), {"spatial_dims": 2, "square": False, "hairs": 0.5, "jpeg": 0.5}),
}
by_shape = pytest.mark.parametrize(("shape", "options"), SHAPES.values(), ids=SHAPES)


def sample(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(shape, generator=generator)
    label = torch.randint(0, 6, shape[1:], generator=generator, dtype=torch.uint8)
    return image, label, (label < 5).to(torch.uint8)


def shapes_of(size):
    """Two areas without any symmetry, as fractions of a picture or volume of `size`."""
    at = torch.meshgrid(*[(torch.arange(n) + 0.5) / n for n in size], indexing="ij")
    radius = sum(
        ((a - c) / r) ** 2
        for a, c, r in zip(at, (0.35, 0.6, 0.45), (0.25, 0.3, 0.35), strict=False)
    )
    first = (radius < 1) | ((at[0] > 0.6) & (at[-1] < 0.45))
    second = (at[0] + 0.5 * at[-1]) > 0.55
    return first.to(torch.uint8), second.to(torch.uint8)


# --- seeds ------------------------------------------------------------------------------------


@by_shape
def test_equal_seeds_give_equal_samples_whatever_was_drawn_before(shape, options):
    fresh = [Augment(**options)(*sample(shape), seed) for seed in (7, 8)]
    used = Augment(**options)
    for seed in range(5):
        used(*sample(shape), seed)
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002 - the global state must not matter
    for seed, expected in zip((7, 8), fresh, strict=True):
        for one, other in zip(used(*sample(shape), seed), expected, strict=True):
            assert torch.equal(one, other)


@by_shape
def test_other_seeds_give_other_samples_and_leave_the_input_alone(shape, options):
    augment = Augment(**options)
    image, label, valid = sample(shape)
    seen = {augment(image, label, valid, seed)[0].numpy().tobytes() for seed in range(30)}
    assert len(seen) >= 25
    for one, other in zip((image, label, valid), sample(shape), strict=True):
        assert torch.equal(one, other)


def test_seeds_reach_every_step():
    # with one seed for all steps, these draws would agree
    augment = Augment(2)
    augment.compose.set_random_state(seed=3)
    draws = [step.R.uniform() for step in augment.compose.transforms]
    assert len(set(draws)) == len(draws)


# --- geometry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options"),
    [((96, 96), {"spatial_dims": 2}), ((72, 110), {"spatial_dims": 2, "square": False})],
    ids=["square", "wide"],
)
def test_label_and_valid_area_move_with_the_image(size, options):
    augment = Augment(**options, intensity=False)
    label, valid = shapes_of(size)
    image = torch.stack([label, valid]).float()
    moved = 0
    for seed in range(40):
        out, new_label, new_valid = augment(image, label, valid, seed)
        assert ((out[0] > 0.5) == (new_label > 0)).float().mean() >= 0.97
        assert ((out[1] > 0.5) == (new_valid > 0)).float().mean() >= 0.97
        moved += int((new_label != label).float().mean() > 0.1)
    assert moved >= 25


def test_label_and_valid_area_move_with_the_volume():
    augment = Augment(3, intensity=False)
    label, valid = shapes_of((32, 40, 36))
    image = torch.stack([label, valid]).float()
    moved = 0
    for seed in range(12):
        out, new_label, new_valid = augment(image, label, valid, seed)
        assert ((out[0] > 0.5) == (new_label > 0)).float().mean() >= 0.97
        assert ((out[1] > 0.5) == (new_valid > 0)).float().mean() >= 0.97
        moved += int((new_label != label).float().mean() > 0.1)
    assert moved >= 8


@by_shape
def test_shapes_types_and_classes_are_kept(shape, options):
    augment = Augment(**options)
    image, label, valid = sample(shape)
    label = torch.where(label == 1, 5, label)  # a class that interpolation would bring back
    for seed in range(20):
        out = augment(image, label, valid, seed)
        assert [tuple(one.shape) for one in out] == [shape, shape[1:], shape[1:]]
        assert [one.dtype for one in out] == [torch.float32, torch.uint8, torch.uint8]
        assert set(out[1].unique().tolist()) <= set(label.unique().tolist())
        assert set(out[2].unique().tolist()) <= {0, 1}
        assert all(type(one) is torch.Tensor for one in out)


def test_turning_by_90_degrees_needs_equal_sides():
    with pytest.raises(HyMUNetError, match=r"size \(24, 40\) does not keep.*square=False"):
        Augment(2)(*sample((3, 24, 40)), 0)
    assert Augment(3)(*sample((1, 8, 9, 7)), 0)[0].shape == (1, 8, 9, 7)


# --- intensities ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["square", "wide", "grey"])
def test_intensities_stay_in_the_unit_range(name):
    shape, options = SHAPES[name]
    augment = Augment(**options)
    image, label, valid = sample(shape)
    for seed in range(60):
        out = augment(image.round(), label, valid, seed)[0]
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_constant_image_stays_as_it_is(spatial_dims):
    shape = (2, 20, 20) if spatial_dims == 2 else (2, 12, 11, 13)
    augment = Augment(spatial_dims, intensity=False)
    image, label = torch.full(shape, 0.5), torch.ones(shape[1:], dtype=torch.uint8)
    for seed in range(40):
        out, new_label, new_valid = augment(image, label, label, seed)
        torch.testing.assert_close(out, image, atol=1e-5, rtol=0)
        assert (new_label == 1).all()
        assert (new_valid == 1).all()


def test_a_volumes_unit_does_not_matter():
    augment = Augment(3, intensity=False)
    image, label, valid = sample((2, 12, 11, 13))
    for seed in range(20):
        one = augment(image, label, valid, seed)[0]
        other = augment(1000 * image, label, valid, seed)[0]
        torch.testing.assert_close(other, 1000 * one, atol=1e-1, rtol=0)


def test_blur_smooths_and_keeps_the_mean():
    image = torch.rand(2, 40, 50)
    for seed in range(5):
        out = RandBlur(prob=1.0).set_random_state(seed=seed)({"image": image})["image"]
        assert out.var() < 0.95 * image.var()
        torch.testing.assert_close(out.mean((1, 2)), image.mean((1, 2)), atol=2e-3, rtol=0)


def test_noise_follows_each_channels_deviation():
    image = torch.randn(2, 30, 30, 30) * torch.tensor([1.0, 100.0]).view(2, 1, 1, 1)
    shares = []
    for seed in range(30):
        out = RandNoise(prob=1.0, std=0.15).set_random_state(seed=seed)({"image": image})["image"]
        share = (out - image).std(dim=(1, 2, 3)) / image.std(dim=(1, 2, 3))
        torch.testing.assert_close(share[0], share[1], atol=0, rtol=0.05)
        shares.append(float(share[0]))
    assert 0 <= min(shares) < 0.05
    assert 0.1 < max(shares) < 0.155


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_is_a_cast_and_a_light(channels):
    image = torch.full((channels, 16, 24), 0.4)
    means, slopes = [], []
    for seed in range(30):
        step = RandColour(prob=1.0).set_random_state(seed=seed)
        out = step({"image": image})["image"]
        assert torch.equal(step({"image": 0 * image})["image"], 0 * image)  # black stays black
        means.append(out.mean((1, 2)))
        slopes.append(float(out[:, :, -1].mean() / out[:, :, 0].mean()))
    light = torch.stack(means).mean(1) / 0.4
    assert 0.7 * 0.85 < light.min() < 0.8  # the ends of light x cast
    assert 1.2 < light.max() < 1.3 * 1.15
    assert min(slopes) < 0.8
    assert max(slopes) > 1.2
    if channels == 3:
        spread = torch.stack(means)
        assert (spread.amax(1) / spread.amin(1)).max() > 1.1


# --- state ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracked", [True, False])
def test_monais_switch_for_metadata_is_put_back(tracked):
    before = get_track_meta()
    try:
        set_track_meta(tracked)
        Augment(2)(*sample((3, 16, 16)), 0)
        assert get_track_meta() is tracked
        with pytest.raises(Exception, match=r".+"):
            Augment(2)(torch.rand(3, 16, 16), torch.zeros(5, 7, 2), torch.zeros(3), 2)
        assert get_track_meta() is tracked
    finally:
        set_track_meta(before)
