"""What lies between the lens and the skin: hair, a ruler, a surgeon's pen, bubbles in the gel.

Drawn in frame coordinates (see `hymunet.data.phantom_fields`), so that the same draw covers the
same share of a picture of any size. What is opaque and wide keeps off the structure: the truth
must stay visible.
"""

import numpy as np

from hymunet.data.corruption_geometry import Sample
from hymunet.data.image_io import LUMA
from hymunet.data.phantom_distractors import Ink, add_bubbles, blend
from hymunet.data.phantom_fields import frame_grid

DARK_HAIR = (46.0, 32.0, 24.0)
LIGHT_HAIR = (226.0, 204.0, 172.0)
_STEPS = 24  # points of a hair


def hairs(
    sample: Sample, count: int, colour: tuple[float, float, float], rng: np.random.Generator
) -> Sample:
    """`count` curved hairs across the frame, thinner towards their tips, mostly in one direction.

    0.8 to 1.6 px wide in a picture of 256 x 256, 0.3 to 1.2 frames long; where two cross, they
    cover no more than one.
    """
    canvas = _canvas(sample)
    ink = Ink(sample.labels.shape)
    half = _half_sides(sample)
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(count):
        length = rng.uniform(0.3, 1.2)
        bend = rng.normal(0, 1.2) + np.linspace(-1, 1, _STEPS) * rng.normal(0, 1.5)
        angle = heading + rng.normal(0, 0.7) + np.cumsum(bend) * length / _STEPS
        path = np.cumsum(np.stack([np.sin(angle), np.cos(angle)], axis=1), axis=0)
        path = path * length / _STEPS
        path += half * rng.uniform(-1, 1, 2) - path[_STEPS // 2]
        width, strength = rng.uniform(0.0031, 0.0063), rng.uniform(0.7, 0.95)
        for first, last, taper in ((0, 10, 1.0), (9, 18, 0.8), (17, _STEPS, 0.55)):
            ink.line(path[first:last], width * taper, strength)
    blend(canvas, ink.alpha(), np.array(colour))
    return _with(sample, canvas)


def ruler(sample: Sample, rng: np.random.Generator) -> Sample:
    """A black scale along one border: a tick every 1/50 of the side, each fifth one longer."""
    canvas = _canvas(sample)
    ink = Ink(sample.labels.shape)
    half = _half_sides(sample)
    across = int(rng.integers(2))  # 0: along the upper or lower border
    side = float(rng.choice([-1.0, 1.0]))
    edge = half[across] - rng.uniform(0.02, 0.06)

    def point(along: float, depth: float) -> np.ndarray:
        place = np.empty(2)
        place[across], place[1 - across] = side * (edge - depth), along
        return place

    length = half[1 - across]
    ink.line(np.stack([point(-length, 0.0), point(length, 0.0)]), 0.004, 0.9)
    for number, along in enumerate(np.linspace(-length, length, 51)):
        tall = 0.05 if number % 5 == 0 else 0.028
        ink.line(np.stack([point(along, 0.0), point(along, tall)]), 0.0035, 0.9)
    blend(canvas, ink.alpha(), np.array([28.0, 26.0, 26.0]))
    return _with(sample, canvas)


def pen(sample: Sample, rng: np.random.Generator) -> Sample:
    """A surgeon's violet line around the structure, at a distance, not closed; where the structure
    leaves no room in the frame, or there is none, around the middle, but never on it."""
    canvas = _canvas(sample)
    ink = Ink(sample.labels.shape)
    half = _half_sides(sample)
    y, x = frame_grid(sample.labels.shape)
    inside = sample.labels > 0
    centre, reach = np.zeros(2), 0.25
    if inside.any():
        rows, columns = np.nonzero(inside)
        centre = np.array([y[rows, 0].mean(), x[0, columns].mean()])
        distance = np.hypot(y[rows, 0] - centre[0], x[0, columns] - centre[1])
        reach = float(np.quantile(distance, 0.98))
    radius = min(1.1 * reach + rng.uniform(0.03, 0.08), 0.9 * float(half.min()))
    angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(3.0, 5.5), 80)
    wobble = 1 + 0.05 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.03 * np.sin(7 * angle)
    path = centre + radius * wobble[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    ink.line(path, rng.uniform(0.014, 0.024), 0.8)
    blend(canvas, ink.alpha() * ~inside, np.array([92.0, 70.0, 146.0]))
    return _with(sample, canvas)


def bubbles(sample: Sample, clusters: int, rng: np.random.Generator) -> Sample:
    """Air in the gel: `clusters` times one to six bright rings with a glint."""
    canvas = _canvas(sample)
    y, x = frame_grid(sample.labels.shape)
    for _ in range(clusters):
        add_bubbles(canvas, rng, y, x, _half_sides(sample))
    return _with(sample, canvas)


def _half_sides(sample: Sample) -> np.ndarray:
    """Half the height and width in frame coordinates."""
    sides = np.array(sample.labels.shape, dtype=np.float64)
    return 0.5 * sides / np.sqrt(sides.prod())


def _canvas(sample: Sample) -> np.ndarray:
    """(3, height, width) float32 to draw on."""
    return np.repeat(sample.pixels, 3 // len(sample.pixels), axis=0).astype(np.float32)


def _with(sample: Sample, canvas: np.ndarray) -> Sample:
    """The sample with what was drawn, in as many channels as it had."""
    if len(sample.pixels) == 1:
        canvas = np.tensordot(LUMA, canvas, axes=1)[None]
    pixels = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Sample(pixels, sample.labels, sample.valid)
