"""What lies over a lesion and is not lesion: hair, rulers, ink, bubbles, stickers, glare.

Every function changes the picture in place and nothing else: the mask comes from
`phantom_lesion.lesion_shape` alone. Opaque things (stickers, ink, the dark corners of a round
lens) keep clear of the lesion, since a truth that nobody can see would teach nothing.
"""

import numpy as np
from PIL import Image, ImageDraw

from hymunet.data.phantom_fields import random_stream, smooth_noise, smooth_step
from hymunet.data.phantom_lesion import LesionShape

_STICKERS = np.array(
    [(246, 132, 30), (28, 132, 206), (118, 196, 192), (240, 198, 44), (70, 160, 84), (214, 70, 96)],
    np.float32,
)


class Ink:
    """A canvas of lines in frame coordinates, drawn larger and averaged down to a soft alpha."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        pixels = size[0] * size[1]
        self.scale = 3 if pixels <= 512**2 else 2 if pixels <= 2048**2 else 1
        self.unit = float(np.sqrt(pixels)) * self.scale
        self.canvas = Image.new("L", (size[1] * self.scale, size[0] * self.scale), 0)
        self.draw = ImageDraw.Draw(self.canvas)

    def line(self, points: np.ndarray, width: float, strength: float) -> None:
        """A polyline through `points` (n, 2) of (y, x); `width` in frame units."""
        thick = width * self.unit
        # below one canvas pixel a line gets fainter, not thinner
        value = round(255 * strength * min(1.0, thick))
        half = np.array(self.size) * self.scale / 2
        corners = points * self.unit + half
        self.draw.line(
            [(float(px), float(py)) for py, px in corners],
            fill=value,
            width=max(1, round(thick)),
            joint="curve",
        )

    def alpha(self) -> np.ndarray:
        """(height, width) float32 in [0, 1]."""
        small = self.canvas.reduce(self.scale) if self.scale > 1 else self.canvas
        return np.asarray(small, np.float32) / np.float32(255)


def blend(picture: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """picture += alpha (colour - picture), in place."""
    for channel in range(3):
        picture[channel] += alpha * (np.float32(colour[channel]) - picture[channel])


def _add_hairs(picture: np.ndarray, rng: np.random.Generator, half: np.ndarray) -> None:
    count = int(
        rng.choice([0, int(rng.integers(2, 8)), int(rng.integers(12, 26))], p=[0.5, 0.3, 0.2])
    )
    if count == 0:
        return
    size = (picture.shape[1], picture.shape[2])
    dark, light = Ink(size), Ink(size)
    heading = rng.uniform(0, 2 * np.pi)
    pale = rng.random() < 0.3
    steps = 24
    for _ in range(count):
        length = rng.uniform(0.35, 1.3)
        curvature = rng.normal(0, 1.3) + np.linspace(-1, 1, steps) * rng.normal(0, 1.2)
        angle = heading + rng.normal(0, 0.6) + np.cumsum(curvature) * length / steps
        path = np.cumsum(np.stack([np.sin(angle), np.cos(angle)], 1), 0) * length / steps
        path += half * rng.uniform(-1, 1, 2) - path[steps // 2]
        thin = rng.random() < (0.85 if pale else 0.12)
        width = rng.uniform(0.0018, 0.003) if thin else rng.uniform(0.003, 0.0062)
        strength = rng.uniform(0.35, 0.65) if thin else rng.uniform(0.7, 0.95)
        ink = light if thin else dark
        # root to tip: thinner in three pieces
        for first, last, taper in ((0, 10, 1.0), (9, 18, 0.85), (17, steps, 0.6)):
            ink.line(path[first:last], width * taper, strength)
    colour = np.array([52, 36, 28]) * rng.uniform(0.5, 1.5)
    cover = dark.alpha()
    # the hair's soft shadow on the skin beside it
    shift = max(1, round(0.004 * float(np.sqrt(size[0] * size[1]))))
    if min(size) > shift:
        picture[:, shift:, shift:] *= 1 - np.float32(0.16) * cover[:-shift, :-shift]
    blend(picture, cover, colour)
    blend(picture, light.alpha(), np.array([228, 206, 178]))


def _add_ruler(
    picture: np.ndarray, rng: np.random.Generator, half: np.ndarray, shape: LesionShape
) -> None:
    """A millimetre scale along one side, on the half of the frame away from the lesion."""
    ink = Ink((picture.shape[1], picture.shape[2]))
    upright = rng.random() < 0.3
    along = 1 if not upright else 0
    across = 1 - along
    side = 1.0 if shape.centre[across] <= 0 else -1.0
    length = half[along] * rng.uniform(1.1, 1.7)
    tilt = rng.normal(0, 0.06)
    direction, normal = np.zeros(2), np.zeros(2)
    direction[along], direction[across] = np.cos(tilt), np.sin(tilt)
    normal[across], normal[along] = -side * np.cos(tilt), side * np.sin(tilt)
    start = -0.5 * length * direction
    start[across] += side * half[across] * rng.uniform(0.78, 0.92)
    start[along] += half[along] * rng.uniform(-0.15, 0.15)
    thick = 0.0045
    ink.line(np.stack([start, start + length * direction]), thick, 0.9)
    ticks = int(rng.integers(12, 22))
    for tick in range(ticks + 1):
        foot = start + length * tick / ticks * direction
        tall = 0.035 if tick % 5 == 0 else 0.02
        ink.line(np.stack([foot, foot + tall * normal]), thick * 0.8, 0.9)
    # the letters MM, in strokes, at the foot of the scale
    letter = np.array([(0.0, 0.0), (0.024, 0.0), (0.010, 0.011), (0.024, 0.022), (0.0, 0.022)])
    up, right = np.array([-1.0, 0.0]), np.array([0.0, 1.0])
    corner = start - 0.012 * direction if upright else start - 0.066 * right + 0.012 * side * up
    if upright and side > 0:
        corner = corner - 0.054 * right
    for k in range(2):
        strokes = corner + letter[:, :1] * up + (letter[:, 1:] + 0.032 * k) * right
        ink.line(strokes, thick * 0.8, 0.85)
    colour = np.array([34, 30, 30]) if rng.random() < 0.85 else np.array([232, 230, 224])
    blend(picture, ink.alpha(), colour)


def _add_pen(
    picture: np.ndarray,
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    shape: LesionShape,
) -> None:
    """A surgeon's violet pen line around the lesion, patchy as ink on skin is."""
    ink = Ink((picture.shape[1], picture.shape[2]))
    begin, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 5.0)
    angle = begin + np.linspace(0, sweep, 60)
    wobble = 1 + 0.05 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.03 * np.sin(7 * angle)
    distance = (1.12 * shape.reach + rng.uniform(0.05, 0.14)) * wobble
    path = np.stack([np.sin(angle), np.cos(angle)], 1) * distance[:, None] + shape.centre
    ink.line(path, rng.uniform(0.012, 0.024), 1.0)
    patchy = smooth_step(-1.0, 1.2, smooth_noise(rng, y, x, 46.0) + smooth_noise(rng, y, x, 9.0))
    blend(picture, np.float32(0.75) * ink.alpha() * patchy, np.array([98, 76, 148]))


def add_bubbles(
    picture: np.ndarray, rng: np.random.Generator, y: np.ndarray, x: np.ndarray, half: np.ndarray
) -> None:
    """Air in the gel: a bright ring, a dim inside, a glint."""
    for _ in range(int(rng.integers(1, 7))):
        row, column = half * rng.uniform(-1, 1, 2)
        radius = float(np.exp(rng.uniform(np.log(0.012), np.log(0.055))))
        glint = rng.uniform(0, 2 * np.pi)
        strength = rng.uniform(0.35, 0.8)
        rows = np.flatnonzero(np.abs(y[:, 0] - row) < 1.5 * radius)
        columns = np.flatnonzero(np.abs(x[0] - column) < 1.5 * radius)
        if rows.size == 0 or columns.size == 0:
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        v = (y[window[0]] - np.float32(row)) / np.float32(radius)
        u = (x[:, window[1]] - np.float32(column)) / np.float32(radius)
        r = np.hypot(v, u)
        facing = (u * np.float32(np.cos(glint)) + v * np.float32(np.sin(glint))) / (r + 1e-6)
        ring = np.exp(-(((r - np.float32(0.95)) / np.float32(0.13)) ** 2))
        dim = smooth_step(-1.0, -0.7, -r) * np.float32(0.1)
        patch = picture[(slice(None), *window)]
        patch *= 1 - dim
        bright = np.float32(strength) * ring * (np.float32(0.45) + np.float32(0.55) * facing**2)
        spot = np.exp(
            -(
                (v - np.float32(0.5 * np.sin(glint))) ** 2
                + (u - np.float32(0.5 * np.cos(glint))) ** 2
            )
            / np.float32(0.02)
        )
        blend(patch, np.clip(bright + np.float32(0.8 * strength) * spot, 0, 1), np.array([252] * 3))


def _add_sticker(
    picture: np.ndarray,
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    half: np.ndarray,
    shape: LesionShape,
) -> None:
    """A coloured disc that looks in from the corner farthest from the lesion, if there is room."""
    centre = np.array(shape.centre)
    corner = np.where(centre > 0, -1.0, 1.0) * half
    corner[int(rng.integers(2))] *= rng.uniform(0.2, 1.0)
    gap = float(np.hypot(*(corner - centre))) - shape.reach
    radius = rng.uniform(0.22, 0.4)
    inside = min(rng.uniform(0.12, 0.3), gap - 0.03)
    colour = _STICKERS[int(rng.integers(len(_STICKERS)))] * np.float32(rng.uniform(0.85, 1.05))
    paper = smooth_noise(rng, y, x, 60.0)
    if inside < 0.06:
        return
    away = (corner - centre) / (np.hypot(*(corner - centre)) + 1e-6)
    middle = corner + away * (radius - inside)
    r = np.hypot(y - np.float32(middle[0]), x - np.float32(middle[1]))
    pixel = 1 / float(np.sqrt(picture.shape[1] * picture.shape[2]))
    picture *= 1 - np.float32(0.22) * smooth_step(-radius - 0.025, -radius, -r)
    alpha = np.clip((np.float32(radius) - r) / np.float32(1.5 * pixel) + np.float32(0.5), 0, 1)
    shade = 1 + np.float32(0.035) * paper
    for channel in range(3):
        picture[channel] += alpha * (shade * colour[channel] - picture[channel])


def _add_glare(
    picture: np.ndarray, rng: np.random.Generator, y: np.ndarray, x: np.ndarray, half: np.ndarray
) -> None:
    """Small white reflections of the lamp on wet skin, in one or two clusters."""
    spots = smooth_step(1.5, 2.3, smooth_noise(rng, y, x, 34.0))
    area = np.zeros_like(spots)
    for _ in range(int(rng.integers(1, 3))):
        row, column = half * rng.uniform(-0.8, 0.8, 2)
        spread = rng.uniform(0.06, 0.16)
        area += np.exp(
            -((y - np.float32(row)) ** 2 + (x - np.float32(column)) ** 2) / np.float32(spread**2)
        )
    blend(picture, np.clip(np.float32(1.2) * spots * area, 0, 0.9), np.array([250, 248, 246]))


def add_distractors(
    picture: np.ndarray, seed: int, y: np.ndarray, x: np.ndarray, shape: LesionShape
) -> None:
    """Adds this seed's hair, marks, gel and sticker to `picture` (3, height, width), in place."""
    rng = random_stream(seed, 5)
    half = 0.5 * np.sqrt(np.array([y.shape[0] / x.shape[1], x.shape[1] / y.shape[0]]))
    glare, pen, ruler, bubbles, sticker = rng.random(5)
    if glare < 0.35:
        _add_glare(picture, rng, y, x, half)
    if pen < 0.08:
        _add_pen(picture, rng, y, x, shape)
    if ruler < 0.2:
        _add_ruler(picture, rng, half, shape)
    if sticker < 0.14:
        _add_sticker(picture, rng, y, x, half, shape)
    _add_hairs(picture, rng, half)
    if bubbles < 0.3:
        add_bubbles(picture, rng, y, x, half)


def add_lens_corners(
    picture: np.ndarray, seed: int, y: np.ndarray, x: np.ndarray, shape: LesionShape
) -> None:
    """The black outside a dermoscope's round field of view, where the lesion leaves room for it."""
    rng = random_stream(seed, 6)
    wanted, softness = rng.random() < 0.25, rng.uniform(0.006, 0.03)
    corner = float(
        np.hypot(0.5, 0.5) * np.sqrt(0.5 * (y.shape[0] / x.shape[1] + x.shape[1] / y.shape[0]))
    )
    radius = corner * rng.uniform(0.72, 0.93)
    centre = rng.normal(0, 0.015, 2)
    needed = float(np.hypot(*shape.centre)) + shape.reach + 0.04
    if not wanted or needed > radius:
        return
    r = np.hypot(y - np.float32(centre[0]), x - np.float32(centre[1]))
    blend(picture, smooth_step(radius, radius + softness, r), np.array([7, 5, 7]))
