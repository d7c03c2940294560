"""Volumes onto other grids: linear functions stay, means stay, each axis is independent."""

import pytest
import torch
from torch.nn import functional as F

from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.data.resample import interpolate
from hymunet.errors import HyMUNetError

SIZE = (9, 14, 11)


def window(spacing=(2.0, 1.0, 1.0), normalisation="image", **settings):
    return Preprocess(
        PreprocessConfig(
            None, "window", normalisation, (0.0,), (1.0,), 4, (8, 8, 8), spacing, **settings
        )
    )


def volume(seed=0, size=SIZE, channels=1):
    return torch.rand((1, channels, *size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(18, 20, 30), (9, 28, 11), (20, 14, 11), (9, 14, 40)])
def test_growing_a_volume_is_torchs_trilinear(size):
    image = volume(channels=2)
    theirs = F.interpolate(image, size=size, mode="trilinear", align_corners=False)
    torch.testing.assert_close(interpolate(image, size), theirs)


@pytest.mark.parametrize("size", [(4, 5, 6), (9, 7, 11), (3, 14, 11), (20, 6, 5)])
def test_shrinking_a_volume_averages_it(size):
    noise = torch.randn((1, 1, 40, 40, 40), generator=torch.Generator().manual_seed(1))
    shrunk = interpolate(noise, size)
    assert shrunk.shape[2:] == size
    aliased = F.interpolate(noise, size=size, mode="trilinear")
    assert shrunk.std() < 0.7 * aliased.std()  # what is only sampled keeps the noise
    torch.testing.assert_close(interpolate(torch.ones_like(noise), size), torch.ones(1, 1, *size))


def test_axes_do_not_mix():
    along = torch.linspace(0, 1, 12)
    for axis, expected in enumerate([(6, 12, 12), (12, 6, 12), (12, 12, 6)], start=2):
        shape = [1] * 5
        shape[axis] = 12
        ramp = along.view(shape).expand(1, 1, 12, 12, 12).contiguous()
        small = interpolate(ramp, expected)
        lines = small.movedim(axis, -1).reshape(-1, 6)
        assert (lines == lines[0]).all()
        assert (lines[0].diff() > 0).all()


def test_the_same_grid_is_the_same_tensor():
    image = volume()
    assert interpolate(image, SIZE) is image


def test_spacing_decides_the_size_and_the_way_back():
    pre = window()
    assert pre.resized_size(SIZE, (4.0, 0.5, 1.0)) == (18, 7, 11)
    assert pre.resized_size(SIZE, (2.0, 1.0, 1.0)) == SIZE
    assert pre.resized_size((1, 1, 1), (0.1, 0.1, 0.1)) == (1, 1, 1)
    out = pre(volume(), (4.0, 0.5, 1.0))
    assert out.shape == (1, 1, 18, 7, 11)  # windows are padded where they are cut, not here
    assert pre.restore(out, SIZE, (4.0, 0.5, 1.0)).shape == (1, 1, *SIZE)


def test_a_blob_stays_where_it_is_in_millimetres():
    at = torch.meshgrid(*[(torch.arange(n) + 0.5) / n for n in (20, 40, 30)], indexing="ij")
    blob = torch.exp(-sum((a - c) ** 2 for a, c in zip(at, (0.4, 0.6, 0.5), strict=True)) / 0.02)
    pre = window((1.0, 1.5, 2.0), "dataset")
    there = pre(blob[None, None], (2.5, 1.0, 1.0))
    back = pre.restore(there, (20, 40, 30), (2.5, 1.0, 1.0))[0, 0]
    for axis, n in zip(at, (20, 40, 30), strict=True):
        shift = (axis * back).sum() / back.sum() - (axis * blob).sum() / blob.sum()
        assert abs(float(shift)) * n < 0.05


def test_labels_follow_their_share():
    labels = torch.zeros((1, 4, 4, 4), dtype=torch.uint8)
    labels[:, :2, :2, :] = 2
    small = window((2.0, 2.0, 2.0)).resize_labels(labels, 3, (1.0, 1.0, 1.0))
    assert small.shape == (1, 2, 2, 2)
    assert small[0, 0, 0].tolist() == [2, 2]
    assert small.sum() == 4


def test_without_spacing_a_model_of_a_spacing_says_what_it_needs():
    with pytest.raises(HyMUNetError, match=r"works at 2 x 1 x 1 mm.*does not say how large"):
        window()(volume())
    unscaled = window(None)
    assert unscaled(volume()).shape == (1, 1, *SIZE)


def test_zeros_do_not_set_the_scale():
    image = volume() + 1.0
    image[..., :6] = 0.0
    pre = window(None, "nonzero")
    out = pre(image)
    assert (out[..., :6] == 0).all()
    inside = out[..., 6:]
    assert abs(float(inside.mean())) < 1e-5
    assert float(inside.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(pre(image * 1000), out, atol=1e-4, rtol=1e-4)
    assert (pre(torch.zeros_like(image)) == 0).all()


def test_a_ct_window_cuts_what_lies_outside():
    image = torch.tensor([-2000.0, -100.0, 50.0, 3000.0]).view(1, 1, 4, 1, 1)
    pre = Preprocess(
        PreprocessConfig(
            None, "window", "dataset", (50.0,), (100.0,), 4, (4, 4, 4), None, (-150.0, 250.0)
        )
    )
    assert pre(image).flatten().tolist() == [-2.0, -1.5, 0.0, 2.0]


def test_windows_are_not_padded():
    assert window(None)(volume(size=(5, 6, 7))).shape == (1, 1, 5, 6, 7)
