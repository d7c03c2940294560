"""Drawn multi-channel volumes with an exact label map: 3-D tests and demos need no download.

Like a small MRI study: several contrasts of the same anatomy on one grid, a smooth bias field and
noise. The structures are level sets of one smooth function, either nested (as tumour regions) or
side by side (as the parts of the hippocampus).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from hymunet.data.phantom_fields import random_stream
from hymunet.errors import HyMUNetError


def draw_volume(
    seed: int,
    size: tuple[int, int, int] = (35, 51, 35),
    channels: int = 4,
    num_labels: int = 3,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the volume number `seed` and its label map.

    Even seeds give structures side by side, odd seeds nested ones (label 1 outermost). A channel
    shows each tissue at a brightness of its own; not every channel shows every structure, but at
    least one channel tells any structure from the tissue around it.

    Args:
        seed: Any whole number from 0; the same arguments give the same bytes.
        size: (depth, height, width) in voxels.
        channels: Number of contrasts, at least 1.
        num_labels: Labels including background 0; each of 1..num_labels-1 is present.

    Returns:
        The volume (channels, depth, height, width) float32, not negative, in arbitrary units as
        MRI has, and the labels (depth, height, width) uint8.

    Raises:
        HyMUNetError: If an argument is out of range, or the volume has fewer voxels than labels.
    """
    _check(seed, size, channels, num_labels)
    seed = int(seed)
    depth, height, width = (int(n) for n in size)
    rng = random_stream(seed, 21)
    # each axis runs over (-1, 1), so that the anatomy follows the shape of the volume
    grid = [
        ((np.arange(n) + 0.5) / n * 2 - 1).reshape([-1 if axis == k else 1 for k in range(3)])
        for axis, n in enumerate((depth, height, width))
    ]
    labels = _structures(rng, grid, num_labels, nested=seed % 2 == 1)
    body = np.sqrt(sum(p * p for p in grid)) + 0.08 * _waves(rng, grid, 2.5) < 0.98
    tissue = np.where(labels > 0, labels.astype(np.int64) + 1, body.astype(np.int64))

    volume = np.empty((channels, depth, height, width), np.float32)
    brightness = _contrasts(rng, channels, num_labels)
    # fine anatomy that all channels share, each with a sign and strength of its own
    folds = np.tanh(1.5 * _waves(rng, grid, 16.0))
    noise_rng = random_stream(seed, 22)
    for channel in range(channels):
        # voxels at an interface hold a little of both tissues
        clean = gaussian_filter(brightness[channel][tissue], 0.55, mode="nearest")
        texture = 1 + rng.uniform(-0.09, 0.09) * folds
        bias = np.exp(0.14 * _waves(rng, grid, 1.2))
        sigma = rng.uniform(0.02, 0.05)
        real, imaginary = sigma * noise_rng.standard_normal((2, depth, height, width))
        # the magnitude of a complex signal: Rician noise, as in MRI, never negative
        signal = np.hypot(clean * texture * bias + real, imaginary)
        volume[channel] = rng.uniform(300, 1500) * signal
    return volume, labels


def _waves(rng: np.random.Generator, grid: list[np.ndarray], frequency: float) -> np.ndarray:
    """Smooth noise, variance about 1: eight plane waves of wave number about `frequency`."""
    total = np.zeros([p.size for p in grid])
    for _ in range(8):
        k = rng.normal(0, frequency / np.sqrt(3), 3)
        phase = rng.uniform(0, 2 * np.pi)
        # a plane wave is a product over the axes: no cosine per voxel
        z, y, x = (np.exp(1j * k_axis * p) for k_axis, p in zip(k, grid, strict=True))
        total += (z * y * (x * np.exp(1j * phase))).real
    return total / 2


def _structures(
    rng: np.random.Generator, grid: list[np.ndarray], num_labels: int, nested: bool
) -> np.ndarray:
    """Labels 1..num_labels-1 as level sets inside one warped ellipsoid; 0 elsewhere.

    Thresholds are ranks of the voxels, not fixed numbers: every label gets its share of the blob's
    voxels, at least one, whatever the size.
    """
    parts = num_labels - 1
    shape = tuple(p.size for p in grid)
    labels = np.zeros(int(np.prod(shape)), np.uint8)
    centre = rng.uniform(-0.2, 0.2, 3)
    axes = rng.uniform(0.75, 1.3, 3)
    distance = np.sqrt(
        sum(((p - c) / a) ** 2 for p, c, a in zip(grid, centre, axes, strict=True))
    ) * (1 + 0.13 * _waves(rng, grid, 3.5) + 0.06 * _waves(rng, grid, 7.0))
    share = rng.uniform(0.06, 0.16)
    # the volume of a ball of radius 0.9 in the cube: the blob never fills the body
    voxels = min(max(round(share * labels.size), parts), labels.size - 1)
    inside = np.argsort(distance, axis=None, kind="stable")[:voxels]
    if nested:
        weights = np.linspace(1.6, 1.0, parts) * rng.uniform(0.8, 1.2, parts)
        inside = inside[::-1]  # from the rim inwards
    else:
        weights = rng.uniform(0.7, 1.3, parts)
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        along = sum(p * d for p, d in zip(grid, direction, strict=True))
        along = along + 0.08 * _waves(rng, grid, 5.0)
        inside = inside[np.argsort(along.reshape(-1)[inside], kind="stable")]
    # each part one voxel, and the rest in proportion
    edges = np.rint(np.cumsum(weights) / weights.sum() * (voxels - parts)).astype(np.int64)
    edges += np.arange(1, parts + 1)
    begin = 0
    for label, end in enumerate(edges, start=1):
        labels[inside[begin:end]] = label
        begin = int(end)
    return labels.reshape(shape)


def _contrasts(rng: np.random.Generator, channels: int, num_labels: int) -> np.ndarray:
    """Brightness (channels, air + tissue + structures): neighbours differ by 0.35 somewhere."""
    brightness = rng.uniform(0.35, 0.95, (channels, num_labels + 1))
    brightness[:, 0] = 0.03
    for structure in range(2, num_labels + 1):
        # structures touch the body and the structure before and after them
        for _ in range(100):
            body_gap = np.abs(brightness[:, structure] - brightness[:, 1]).max()
            last_gap = np.abs(brightness[:, structure] - brightness[:, structure - 1]).max()
            if min(body_gap, last_gap) >= 0.35:
                break
            brightness[:, structure] = rng.uniform(0.2, 1.1, channels)
    return brightness


def _check(seed: int, size: tuple[int, int, int], channels: int, num_labels: int) -> None:
    def whole(value: object) -> bool:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)

    if not whole(seed) or seed < 0:
        raise HyMUNetError(f"seed must be a whole number from 0, got {seed!r}; choose such a one")
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    if len(sides) != 3 or not all(whole(n) and n >= 1 for n in sides):
        raise HyMUNetError(
            "size must be (depth, height, width) in voxels, three whole numbers from 1, "
            f"got {size!r}; write for example (35, 51, 35)"
        )
    if not whole(channels) or channels < 1:
        raise HyMUNetError(f"channels must be a whole number from 1, got {channels!r}; use 1 to 4")
    if not whole(num_labels) or not 2 <= num_labels <= 256:
        raise HyMUNetError(
            "num_labels counts the background and must be a whole number from 2 to 256, "
            f"got {num_labels!r}; use 2 for one structure"
        )
    if np.prod([int(n) for n in sides]) < num_labels:
        raise HyMUNetError(
            f"a volume of size {sides} has fewer voxels than its {num_labels} labels; "
            "choose a larger size or fewer labels"
        )
