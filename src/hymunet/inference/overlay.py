"""The image with what was found drawn on it: an outline a class, a light tint inside."""

import numpy as np
from scipy import ndimage

# Okabe and Ito's colours, told apart by colour-blind eyes too (https://jfly.uni-koeln.de/color/)
COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
)


def draw_overlay(pixels: np.ndarray, mask: np.ndarray, tint: float = 0.18) -> np.ndarray:
    """RGB picture with outlines.

    Args:
        pixels: (channels, height, width) uint8, uint16 or float; other than 1 or 3 channels: the
            first is shown. Floats are stretched from their 1st to their 99th percentile.
        mask: (height, width) class indices.
        tint: Share of the class's colour inside.

    Returns:
        (height, width, 3) uint8.
    """
    canvas = _as_rgb(pixels)
    width = max(1, round(max(mask.shape) / 300))
    for index in range(1, int(mask.max(initial=0)) + 1):
        inside = mask == index
        if not inside.any():
            continue
        colour = np.array(COLOURS[(index - 1) % len(COLOURS)], np.float32)
        rim = inside & ~ndimage.binary_erosion(inside, iterations=width)
        canvas[inside] = (1 - tint) * canvas[inside] + tint * colour
        canvas[rim] = colour
    return canvas.round().clip(0, 255).astype(np.uint8)


def _as_rgb(pixels: np.ndarray) -> np.ndarray:
    shown = pixels if len(pixels) in (1, 3) else pixels[:1]
    canvas = shown.astype(np.float32).transpose(1, 2, 0)
    if pixels.dtype == np.uint16:
        canvas = canvas / 257.0
    elif pixels.dtype.kind == "f":
        low, high = np.percentile(canvas, (1, 99))
        canvas = (canvas - low) / max(float(high - low), 1e-6) * 255.0
    return np.repeat(canvas, 3, axis=2) if canvas.shape[2] == 1 else canvas.copy()
