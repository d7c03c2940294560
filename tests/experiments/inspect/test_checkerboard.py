"""A drawn checkerboard stands out of the spectrum at its own period; slopes and noise do not."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from hymunet.experiments.inspect.checkerboard import checkerboard_score, noise_reference
from hymunet.network.conv import upsample


def smooth(shape=(64, 96), sigma=4.0, seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    field = gaussian_filter(noise, sigma)
    return field / field.std()


def board(shape, period: int) -> np.ndarray:
    total = sum(np.indices(shape) // (period // 2))
    return np.where(total % 2, 1.0, -1.0)


@pytest.mark.parametrize("shape", [(64, 96), (44, 44, 48)])
@pytest.mark.parametrize("period", [2, 4])
def test_a_faint_checkerboard_is_found_at_its_period_only(shape, period):
    clean = smooth(shape)
    drawn = clean + 0.02 * board(shape, period)
    assert checkerboard_score(drawn, period) > 10 * checkerboard_score(clean, period)
    other = 6 - period
    # a board of 4 pixels has no part of period 2; one of 2 pixels none of period 4
    before, after = (checkerboard_score(field, other) for field in (clean, drawn))
    assert after == pytest.approx(before, rel=0.5)


def test_stripes_along_one_axis_count_as_well():
    field = smooth()
    striped = field + 0.05 * np.where(np.arange(96) % 2, 1.0, -1.0)
    assert checkerboard_score(striped) > 3 * checkerboard_score(field)


def fields(kind: str, seed: int) -> np.ndarray:
    white = np.random.default_rng(seed).standard_normal((64, 64))
    frequency = [np.fft.fftfreq(side) for side in (64, 64)]
    radius = np.hypot(*np.meshgrid(*frequency, indexing="ij")) + 1e-3
    steep = np.fft.ifft2(np.fft.fft2(white) / radius**2).real
    return {"white": white, "steep": steep, "smooth": smooth((64, 64), seed=seed)}[kind]


@pytest.mark.parametrize("kind", ["white", "steep", "smooth"])
@pytest.mark.parametrize("period", [2, 4])
def test_fields_without_a_pattern_have_no_peak_whatever_their_slope(kind, period):
    logs = [np.log(checkerboard_score(fields(kind, seed), period)) for seed in range(16)]
    assert 0.5 < np.exp(np.mean(logs)) < 2


@pytest.mark.parametrize("period", [2, 4])
def test_a_ramp_has_no_peak_and_nothing_has_none_of_any_kind(period):
    ramp = np.add.outer(np.arange(64.0), 3 * np.arange(64.0))
    assert checkerboard_score(ramp, period) < 1.5
    assert checkerboard_score(np.zeros((64, 64)), period) == pytest.approx(1)


def test_it_does_not_depend_on_scale_or_offset():
    field = smooth() + 0.05 * board((64, 96), 2)
    assert checkerboard_score(7 + 100 * field) == pytest.approx(checkerboard_score(field), rel=1e-6)


def test_enlarged_noise_has_no_peak_and_a_transposed_convolution_has_one():
    reference = noise_reference((128, 128), 2, 2)
    assert reference == noise_reference((128, 128), 2, 2)
    assert reference["low"] < reference["mean"] < reference["high"] < 1.2
    torch.manual_seed(0)
    # stride 2 under a kernel of 3: the uneven overlap of Odena et al.
    transposed = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=1, bias=False)
    nn.init.constant_(transposed.weight, 0.25)
    disc = np.hypot(*np.indices((64, 64)) - 30.0) < 18  # logits of a lesion
    coarse = torch.from_numpy(gaussian_filter(8.0 * disc, 2) - 4).float()[None, None]
    drawn = transposed(coarse).detach().numpy()[0, 0]
    assert checkerboard_score(drawn) > 10 > reference["high"]
    assert checkerboard_score(upsample(coarse, (128, 128)).numpy()[0, 0]) < 1.5


def test_fields_too_small_for_neighbours_have_no_score():
    assert checkerboard_score(np.zeros((21, 64))) is None
    assert checkerboard_score(np.zeros((22, 64))) is not None
    assert checkerboard_score(smooth(), 16) is None
    assert noise_reference((32, 32), 2, 8) is None
