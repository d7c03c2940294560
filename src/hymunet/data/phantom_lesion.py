"""The lesion of a phantom and the skin it lies in: one implicit function gives picture and mask.

A contour rho = R(theta) with seeded Fourier harmonics, lobes joined to it by a smooth minimum, a
warped plane and a rough edge make a function d that is negative inside. The lesion's opacity is

    level = 1 / (1 + exp(d / w)),    w > 0 a slowly varying border width,

so the 50 % level is d = 0 whatever the width: mask = (level >= 0.5) is exact. Colours follow from
absorption, skin * exp(-melanin * a_m - blood * a_b), which keeps browns and pinks plausible at any
density (the two-chromophore picture of skin colour: Tsumura et al. 1999, J. Opt. Soc. Am. A 16).
"""

from dataclasses import dataclass

import numpy as np

from hymunet.data.phantom_fields import (
    fractal_noise,
    random_stream,
    scattered_dots,
    smooth_noise,
    smooth_step,
)

# absorption per unit of pigment in red, green, blue
MELANIN = np.array([0.50, 0.88, 1.22], np.float32)
BLOOD = np.array([0.14, 0.92, 0.78], np.float32)

# colours of skin under a dermoscope, light to dark
_SKIN_TONES = np.array(
    [
        (244, 214, 204),
        (236, 196, 178),
        (226, 182, 168),
        (206, 200, 180),
        (214, 168, 138),
        (184, 158, 148),
        (188, 138, 106),
        (150, 106, 80),
        (118, 80, 60),
    ],
    np.float32,
)


@dataclass(frozen=True)
class LesionShape:
    """Where the lesion is; the drawing and the mask both come from here.

    Args:
        level: Opacity of the lesion, (height, width) float32 in [0, 1]; the mask is >= 0.5.
        depth: Distance inside the contour over the mean radius, 0 outside, same shape.
        centre: Row and column of the centre in frame coordinates.
        radius: Mean radius of the main body in frame coordinates.
        reach: No pixel of the lesion is farther than this from the centre.
    """

    level: np.ndarray
    depth: np.ndarray
    centre: tuple[float, float]
    radius: float
    reach: float


def _contour_distance(
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    radius: float,
    stretch: float,
    irregularity: float,
) -> tuple[np.ndarray, float]:
    """rho - R(theta) of a star-shaped contour around the origin, and its farthest extent."""
    harmonics = np.arange(2, 8)
    a, b = irregularity * rng.standard_normal((2, harmonics.size)) / harmonics
    turn = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u = (c * x + s * y) * np.float32(1 / stretch)
    v = (c * y - s * x) * np.float32(stretch)
    rho = np.sqrt(u * u + v * v) + np.float32(1e-6)
    cos1, sin1 = u / rho, v / rho
    # cos and sin of k theta by recurrence: no arctangent, and smooth at the origin's cut
    cos_k, sin_k = cos1, sin1
    wave = np.zeros_like(rho)
    for a_k, b_k in zip(a, b, strict=True):
        cos_k, sin_k = cos_k * cos1 - sin_k * sin1, sin_k * cos1 + cos_k * sin1
        wave += np.float32(a_k) * cos_k + np.float32(b_k) * sin_k
    # the radius that keeps the area at pi radius^2 with these harmonics
    mean = radius / np.sqrt(1 + 0.5 * float(np.sum(a * a + b * b)))
    contour = np.maximum(np.float32(mean) * (1 + wave), np.float32(0.25 * mean))
    largest = mean * (1 + float(np.sum(np.hypot(a, b))))
    return rho - contour, largest * max(stretch, 1 / stretch)


def _smooth_minimum(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """The smaller of a and b, rounded off where they differ by less than `blend`."""
    h = np.maximum(np.float32(blend) - np.abs(a - b), 0) / np.float32(blend)
    return np.minimum(a, b) - h * h * np.float32(blend / 4)


def lesion_shape(seed: int, y: np.ndarray, x: np.ndarray) -> LesionShape:
    """The lesion of this seed on the pixels at frame coordinates y (height, 1), x (1, width).

    Areas run from about 0.5 % to about 65 % of the frame, skewed towards small ones as in
    clinical collections; about one in six is pushed over an edge of the frame.
    """
    rng = random_stream(seed, 1)
    height, width = y.shape[0], x.shape[1]
    half = 0.5 * np.sqrt(np.array([height / width, width / height]))
    area = 10.0 ** (-2.25 + 2.12 * rng.random() ** 0.68)
    radius = float(np.sqrt(area / np.pi))
    room = np.maximum(half - 1.15 * radius, 0.12 * half)
    centre = room * rng.uniform(-0.85, 0.85, 2)
    push, axis, side = rng.random() < 0.2, int(rng.integers(2)), rng.choice([-1.0, 1.0])
    overlap = rng.uniform(-0.3, 0.6)
    if push and area > 0.02:
        centre[axis] = side * max(half[axis] - overlap * radius - 0.01, 0.1 * half[axis])
    irregularity = float(rng.uniform(0.03, 0.26))
    stretch = float(np.exp(rng.uniform(-0.28, 0.28)))

    warp = np.float32(radius * rng.uniform(0.03, 0.14))
    slow = 0.9 / radius
    dy = y - np.float32(centre[0]) + warp * smooth_noise(rng, y, x, slow)
    dx = x - np.float32(centre[1]) + warp * smooth_noise(rng, y, x, slow)

    lobes = int(rng.choice([0, 1, 2, 3], p=[0.45, 0.25, 0.2, 0.1]))
    # lobes add area: shrink the body so that the whole keeps the size that was drawn
    body = radius * (1 - 0.07 * lobes)
    distance, reach = _contour_distance(rng, dy, dx, body, stretch, irregularity)
    for _ in range(lobes):
        angle = rng.uniform(0, 2 * np.pi)
        away = body * rng.uniform(0.65, 0.95)
        small = body * rng.uniform(0.35, 0.6)
        lobe, extent = _contour_distance(
            rng,
            dy - np.float32(away * np.sin(angle)),
            dx - np.float32(away * np.cos(angle)),
            small,
            float(np.exp(rng.uniform(-0.2, 0.2))),
            irregularity,
        )
        distance = _smooth_minimum(distance, lobe, 0.3 * small)
        reach = max(reach, away + extent)

    # a rough edge, finer than the harmonics; not finer than the picture shows at 128 pixels
    roughness = radius * float(rng.choice([0.025, 0.05, 0.095], p=[0.35, 0.4, 0.25]))
    distance += np.float32(roughness) * fractal_noise(rng, y, x, min(2.6 / radius, 13.0), 4, 0.72)

    border = float(np.exp(rng.uniform(np.log(0.003), np.log(0.016))))
    border = min(border, 0.12 * radius)
    local = np.exp(np.float32(0.35) * smooth_noise(rng, y, x, 4.0))
    # tanh cannot overflow, and is 0 exactly where the distance is
    level = 0.5 - 0.5 * np.tanh(distance / (np.float32(2 * border) * local))
    depth = np.maximum(distance * np.float32(-1 / radius), 0)
    reach = reach + 4 * float(warp) + 4 * roughness
    return LesionShape(level, depth, (float(centre[0]), float(centre[1])), radius, reach)


def _hexagonal_network(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, frequency: float
) -> np.ndarray:
    """A honeycomb of dark lines around pale holes, warped; 0 in the holes, 1 on the lines."""
    near, far = np.float32(0.2 / frequency), np.float32(1.0 / frequency)
    v = y + near * smooth_noise(rng, y, x, frequency * 0.7)
    v += far * smooth_noise(rng, y, x, frequency * 0.2)
    u = x + near * smooth_noise(rng, y, x, frequency * 0.7)
    u += far * smooth_noise(rng, y, x, frequency * 0.2)
    turn = rng.uniform(0, np.pi)
    holes = np.zeros_like(v)
    for third in range(3):
        angle = turn + third * np.pi / 3
        k = 2 * np.pi * frequency
        holes += np.cos(np.float32(k * np.cos(angle)) * u + np.float32(k * np.sin(angle)) * v)
    # holes of unequal size, lines that thin out and break
    holes += np.float32(0.9) * smooth_noise(rng, y, x, frequency * 0.5)
    return 1 - smooth_step(-1.5, 1.1, holes)


def draw_skin(seed: int, y: np.ndarray, x: np.ndarray, contrast: float) -> np.ndarray:
    """Skin without a lesion: tone, mottling, freckles, fine furrows; (3, height, width) float32.

    Freckles and mottling stay weaker than `contrast`, the melanin density of the lesion to come.
    """
    rng = random_stream(seed, 2)
    place = rng.beta(1.0, 1.4) * (len(_SKIN_TONES) - 1)
    low = int(place)
    tone = _SKIN_TONES[low] + (place - low) * (
        _SKIN_TONES[min(low + 1, len(_SKIN_TONES) - 1)] - _SKIN_TONES[low]
    )
    tone = tone * (1 + rng.normal(0, [0.025, 0.02, 0.03]))

    melanin = np.float32(rng.uniform(0.012, 0.03)) * fractal_noise(rng, y, x, 9.0, 2)
    blood = np.float32(rng.uniform(0.012, 0.035)) * fractal_noise(rng, y, x, 4.0, 3)
    mottled, freckled, vessels = rng.random(3)
    if mottled < 0.3:  # sun-damaged skin: pale brown patches without a clear edge
        patches = smooth_step(0.6, 2.4, fractal_noise(rng, y, x, 5.5, 3))
        melanin += np.float32(min(0.3, 0.45 * contrast)) * patches
    if freckled < 0.45:
        warped = np.float32(0.03) * smooth_noise(rng, y, x, 5.0)
        rough = np.float32(0.006) * smooth_noise(rng, y, x, 34.0)
        share = rng.uniform(0.04, 0.16)
        dots = scattered_dots(
            rng, y + warped + rough, x - warped, rng.uniform(8, 15), share, (0.02, 0.2), 0.22
        )
        melanin += np.float32(min(0.25, 0.45 * contrast)) * dots
    if vessels < 0.25:
        ridge = 1 - np.abs(smooth_noise(rng, y, x, 9.0)) * np.float32(7)
        patch = smooth_step(0.0, 1.5, smooth_noise(rng, y, x, 3.0))
        blood += np.float32(0.11) * np.maximum(ridge, 0) * patch
    furrows = np.abs(smooth_noise(rng, y, x, 30.0)) + np.abs(smooth_noise(rng, y, x, 44.0))
    melanin += np.float32(rng.uniform(0.008, 0.028)) * (np.float32(0.7) - furrows)
    return _absorb(tone.astype(np.float32)[:, None, None], melanin, blood)


def _absorb(colour: np.ndarray, melanin: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """colour * exp(-(melanin a_m + blood a_b)), channels first."""
    out = np.empty((3, *melanin.shape), np.float32)
    for channel in range(3):
        density = MELANIN[channel] * melanin + BLOOD[channel] * blood
        np.multiply(colour[channel], np.exp(-density), out=out[channel])
    return out


def lesion_contrast(seed: int, radius: float) -> float:
    """Melanin density of the lesion, 0.32 (faint, but seen) to 1.9 (nearly black), log-uniform.

    A small lesion is at least 0.65, else nothing would tell it from a freckle.
    """
    rng = random_stream(seed, 3)
    lowest = 0.32 + 0.33 * float(np.clip((0.12 - radius) / 0.07, 0, 1))
    return float(np.exp(rng.uniform(np.log(lowest), np.log(1.9))))


def draw_lesion_on(
    skin: np.ndarray, seed: int, y: np.ndarray, x: np.ndarray, shape: LesionShape, contrast: float
) -> np.ndarray:
    """The skin with the lesion in it: pigment times `shape.level`, and the structures inside."""
    rng = random_stream(seed, 4)
    level, depth = shape.level, shape.depth
    broad = float(np.clip(0.8 / shape.radius, 2.5, 9))
    fine = float(np.clip(3.0 / shape.radius, 12, 22))
    tones = fractal_noise(rng, y, x, broad, 4, 0.6)
    pigment = np.exp(np.float32(rng.uniform(0.14, 0.36)) * tones)
    pigment *= 1 + np.float32(rng.uniform(0.06, 0.2)) * fractal_noise(rng, y, x, fine, 2, 0.8)
    # blood shows where melanin is sparse: dense lesions are brown, faint ones may be pink
    redness = rng.choice([0.03, 0.15, 0.35], p=[0.45, 0.35, 0.2])
    if contrast < 0.55 and rng.random() < 0.3:
        redness = rng.uniform(0.7, 1.3)
    blood_tones = np.exp(np.float32(0.35) * smooth_noise(rng, y, x, 5.0))

    core, second, network, globules, veil, regression = rng.random(6)
    if core < 0.4:  # an eccentric dark heart
        heart = smooth_step(0.1, 0.75, depth + np.float32(0.16) * tones)
        pigment += np.float32(rng.uniform(0.4, 1.0)) * heart
    if second < 0.4:  # another colour in part of it, with a border of its own
        patch = fractal_noise(rng, y, x, broad, 4, 0.7)
        pigment *= 1 + np.float32(rng.uniform(0.4, 1.0)) * smooth_step(0.1, 0.9, patch)
    if network < 0.5:
        web = _hexagonal_network(rng, y, x, rng.uniform(26, 42))
        patch = smooth_step(-0.9, 0.7, smooth_noise(rng, y, x, 0.7 / shape.radius))
        pigment *= 1 + np.float32(rng.uniform(0.3, 0.7)) * patch * (web - np.float32(0.5))
    if globules < 0.4:
        warped = np.float32(0.012) * smooth_noise(rng, y, x, 11.0)
        dots = scattered_dots(
            rng, y + warped, x - warped, rng.uniform(24, 40), 0.4, (0.08, 0.3), 0.16
        )
        patch = smooth_step(-0.4, 1.0, smooth_noise(rng, y, x, 0.8 / shape.radius))
        pigment += np.float32(rng.uniform(0.5, 1.0)) * dots * patch
    if regression < 0.25:  # scar-like pale areas; the rim stays, so the border stays visible
        scar = smooth_step(0.15, 1.2, fractal_noise(rng, y, x, 0.9 / shape.radius, 3))
        pigment *= 1 - np.float32(0.7) * scar * smooth_step(0.12, 0.4, depth)

    density = np.float32(contrast) * level
    picture = _absorb(skin, density * pigment, np.float32(redness) * density * blood_tones)
    if veil < 0.28 and contrast > 0.5:  # blue-white veil: structureless, over part of the middle
        over = smooth_step(-0.2, 1.2, fractal_noise(rng, y, x, 0.8 / shape.radius, 3))
        over *= smooth_step(0.12, 0.5, depth) * np.float32(rng.uniform(0.5, 0.8))
        colour = np.array([98, 112, 138], np.float32) * rng.uniform(0.8, 1.25)
        picture += over * (colour.astype(np.float32)[:, None, None] - picture)
    return picture
