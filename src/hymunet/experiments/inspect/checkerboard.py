"""Checkerboards: is there more at the frequencies of a sampling grid than beside them?

Transposed convolutions, and strided ones under a gradient, draw patterns whose period is a power of
2 (Odena et al. 2016, https://doi.org/10.23915/distill.00003). They are peaks of the spectrum at
1/2, 1/4, ... cycles a pixel, where a natural picture has a slope and no peak.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

REFERENCE_DRAWS = 24
NEAR, FAR = 3, 8  # bins off the peak, along an axis, that it is compared with
_FLOOR = 1e-13  # of the mean power: rounding of float32 alone is no pattern


def power_spectrum(field: np.ndarray) -> np.ndarray:
    """|FFT|^2 of a field without its mean, under a Hann window (its borders do not meet)."""
    field = np.asarray(field, np.float64)
    field = field - field.mean()
    for axis, side in enumerate(field.shape):
        shape = [1] * field.ndim
        shape[axis] = side
        field = field * np.hanning(side + 1)[:side].reshape(shape)
    power = np.abs(np.fft.fftn(field)) ** 2
    return power + _FLOOR * power.mean() + np.finfo(np.float64).tiny


def checkerboard_score(field: np.ndarray, period: int = 2) -> float | None:
    """Energy of a pattern of `period` pixels against its neighbours in the spectrum; 1: no peak.

    The points of the pattern are all combinations of frequency 0 and 1/period over the axes, but
    the one of zeros; period 2 is the Nyquist frequency. At each the mean log energy within one bin
    is compared with what the bins 3 to 8 away on both sides, along each axis on which the point is
    not 0, let expect: the parabola in the distance that fits them best. So a spectrum that falls,
    by a power or faster, or that has a ridge along an axis, has no peak for it.

    Args:
        field: Logits of one class, (*spatial).
        period: Pixels, a power of 2 usually.

    Returns:
        peak / expected, a geometric mean over the points; None where the field is too small for
        such a comparison.
    """
    if min(field.shape) < period * (FAR + 3):  # the neighbours would reach frequency 0
        return None
    logs = np.log(power_spectrum(field))
    distances = np.arange(NEAR, FAR + 1)
    # of a + b d^2, fitted to the mean of both sides: the value expected over d = -1, 0, 1
    solve = np.linalg.pinv(np.stack([np.ones(len(distances)), distances**2.0], axis=1))
    weights = solve[0] + 2 / 3 * solve[1]
    differences = []
    for point in itertools.product((0, 1), repeat=field.ndim):
        at = [
            round(side / period) if on else 0 for on, side in zip(point, field.shape, strict=True)
        ]
        for axis in (axis for axis, on in enumerate(point) if on):
            sides = []
            for distance in distances:
                moved = [list(at), list(at)]
                moved[0][axis] -= distance
                moved[1][axis] += distance
                sides.append(sum(_mean(logs, place, but=axis) for place in moved) / 2)
            differences.append(_mean(logs, at) - float(weights @ np.array(sides)))
    return math.exp(float(np.mean(differences)))


def _mean(logs: np.ndarray, at: Sequence[int], but: int | None = None) -> float:
    """Mean over the bins within one of `at` (along the axis `but`: of that bin only)."""
    index = [
        np.arange(place - (axis != but), place + 1 + (axis != but)) % side
        for axis, (place, side) in enumerate(zip(at, logs.shape, strict=True))
    ]
    return float(logs[np.ix_(*index)].mean())


def noise_reference(
    shape: tuple[int, ...], stride: int, period: int, seed: int = 0
) -> dict[str, float] | None:
    """The score of white noise on the head's grid, enlarged linearly to `shape` as logits are: the
    value of a decoder that draws nothing of its own. `mean` (geometric) and the 2.5 and 97.5 %
    quantiles over draws, `low` and `high`.

    Args:
        shape: Of the logits.
        stride: Pixels of the logits a position of the head stands for.
        period: As in `checkerboard_score`.
        seed: Of the noise.
    """
    import torch

    from hymunet.network.conv import upsample

    generator = torch.Generator().manual_seed(seed)
    grid = tuple(side // stride for side in shape)
    logs = []
    for _ in range(REFERENCE_DRAWS):
        noise = torch.randn(1, 1, *grid, generator=generator)
        score = checkerboard_score(upsample(noise, shape)[0, 0].numpy(), period)
        if score is None:
            return None
        logs.append(math.log(score))
    low, high = np.quantile(logs, [0.025, 0.975])
    return {"mean": math.exp(np.mean(logs)), "low": math.exp(low), "high": math.exp(high)}
