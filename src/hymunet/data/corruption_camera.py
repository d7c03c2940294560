"""What optics, sensor, light and file format do to a picture; the truth stays where it is.

Every function takes pixels (channels, height, width) uint8 and returns new ones of the same shape
and type. Lengths are in pixels of a picture of 256 x 256 and grow with the square root of the
area, so that a corruption looks the same at any size.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hymunet.errors import HyMUNetError


def gaussian_blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Out of focus, softly: a Gaussian of standard deviation `sigma`, cut at 4 sigma."""
    sigma = _own_pixels(pixels, sigma)
    if sigma == 0:
        return pixels.copy()
    y, x = _kernel_grid(4 * sigma)
    return _convolve(pixels, np.exp(-0.5 * (y**2 + x**2) / sigma**2))


def defocus(pixels: np.ndarray, radius: float) -> np.ndarray:
    """Out of focus as a lens is: each point becomes a disc of `radius` with a soft rim."""
    radius = _own_pixels(pixels, radius)
    y, x = _kernel_grid(radius)
    return _convolve(pixels, np.clip(radius + 0.5 - np.hypot(y, x), 0, 1))


def motion_blur(pixels: np.ndarray, length: float, angle: float) -> np.ndarray:
    """The hand moved: each point becomes a line of `length` at `angle` (radians)."""
    half = 0.5 * _own_pixels(pixels, length)
    y, x = _kernel_grid(half)
    along = np.clip(y * np.sin(angle) + x * np.cos(angle), -half, half)
    away = np.hypot(y - along * np.sin(angle), x - along * np.cos(angle))
    return _convolve(pixels, np.clip(1 - away, 0, 1))


def lower_resolution(pixels: np.ndarray, factor: float) -> np.ndarray:
    """A camera of fewer pixels: averaged down by `factor`, then enlarged to the size it had."""
    _, height, width = pixels.shape
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    picture = as_picture(pixels).resize(small, Image.Resampling.BOX)
    return as_pixels(picture.resize((width, height), Image.Resampling.BILINEAR))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pillow's JPEG of that quality, and back: blocks of 8 x 8, colour at half the resolution."""
    buffer = io.BytesIO()
    as_picture(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as picture:
        return as_pixels(picture)


def noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Grain: a normal number of standard deviation `sigma` (of 255) on each pixel and channel."""
    grain = rng.standard_normal(pixels.shape, dtype=np.float32)
    return _rounded(pixels + np.float32(sigma) * grain)


def brightness(pixels: np.ndarray, gain: float) -> np.ndarray:
    """Exposure: every value times `gain`; what leaves the range is clipped, as a sensor does."""
    return _rounded(pixels.astype(np.float32) * np.float32(gain))


def contrast(pixels: np.ndarray, gain: float) -> np.ndarray:
    """Haze: distances from the picture's mean value times `gain`."""
    values = pixels.astype(np.float32)
    mean = np.float32(values.mean())
    return _rounded(mean + np.float32(gain) * (values - mean))


def colour_cast(pixels: np.ndarray, gains: Sequence[float]) -> np.ndarray:
    """Another lamp or white balance: a gain for each of red, green and blue.

    Raises:
        HyMUNetError: If the picture has no three channels.
    """
    if len(pixels) != len(gains):
        raise HyMUNetError(
            f"a colour cast needs {len(gains)} channels (red, green, blue), the picture has "
            f"{len(pixels)}; leave it out for grey pictures"
        )
    factors = np.asarray(gains, np.float32)[:, None, None]
    return _rounded(pixels.astype(np.float32) * factors)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """(1 or 3, height, width) uint8 -> a Pillow picture, grey or RGB."""
    if len(pixels) == 1:
        return Image.fromarray(np.ascontiguousarray(pixels[0]))
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def as_pixels(picture: Image.Image) -> np.ndarray:
    """A grey or RGB Pillow picture -> (1 or 3, height, width) uint8."""
    values = np.asarray(picture)
    return (
        values[None].copy()
        if values.ndim == 2
        else np.ascontiguousarray(np.moveaxis(values, -1, 0))
    )


def _own_pixels(pixels: np.ndarray, length: float) -> float:
    """A length at 256 x 256 in pixels of this picture."""
    return length * float(np.sqrt(pixels.shape[1] * pixels.shape[2])) / 256


def _kernel_grid(reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each point of a square kernel that holds `reach` around its middle."""
    side = np.arange(-int(np.ceil(reach)) - 1, int(np.ceil(reach)) + 2, dtype=np.float64)
    return side[:, None], side[None, :]


def _convolve(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """With the normalised kernel, the picture reflected at its border; by Fourier transform, whose
    cost hardly grows with the kernel."""
    from scipy.signal import fftconvolve  # half a second to import

    margin = kernel.shape[0] // 2
    weights = (kernel / kernel.sum()).astype(np.float32)
    pads = ((0, 0), (margin, margin), (margin, margin))
    padded = np.pad(pixels, pads, mode="symmetric").astype(np.float32)
    return _rounded(fftconvolve(padded, weights[None], mode="valid", axes=(1, 2)))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
