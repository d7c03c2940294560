"""Pictures as they come from other clinics: 24 ways to change one, each the same every time.

A corruption is a function of the picture, the case's id and nothing else: what is drawn or thrown
is seeded by both names. Where a corruption moves things, the truth moves with them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hymunet.data import corruption_camera as camera
from hymunet.data import corruption_geometry as geometry
from hymunet.data import corruption_marks as marks
from hymunet.data.corruption_geometry import Sample
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

__all__ = ["CORRUPTIONS", "Corruption", "Sample", "check_picture", "corrupt"]

Change = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class Corruption:
    """One way to change a picture, at one strength.

    Args:
        kind: The heading it stands under: blur, file, light, colour, noise, marks, geometry.
        name: What is done.
        level: How strongly, in words; empty where there is one strength.
        change: (sample, generator) -> sample.
        needs_colour: Whether it means nothing for a grey picture.
    """

    kind: str
    name: str
    level: str
    change: Change
    needs_colour: bool = False

    @property
    def key(self) -> str:
        """Its name in tables, unique: name and level."""
        return f"{self.name}, {self.level}" if self.level else self.name


def _of_pixels(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    """A change of the pixels alone."""

    def changed(sample: Sample, rng: np.random.Generator) -> Sample:
        return Sample(change(sample.pixels, rng), sample.labels, sample.valid)

    return changed


def _blur(sigma: float) -> Corruption:
    change = _of_pixels(lambda pixels, _: camera.gaussian_blur(pixels, sigma))
    return Corruption("blur", "blur", f"sigma {sigma:g} px", change)


def _defocus(radius: float) -> Corruption:
    change = _of_pixels(lambda pixels, _: camera.defocus(pixels, radius))
    return Corruption("blur", "defocus", f"radius {radius:g} px", change)


def _motion(length: float) -> Corruption:
    change = _of_pixels(
        lambda pixels, rng: camera.motion_blur(pixels, length, rng.uniform(0, np.pi))
    )
    return Corruption("blur", "motion", f"{length:g} px", change)


def _jpeg(quality: int) -> Corruption:
    change = _of_pixels(lambda pixels, _: camera.jpeg(pixels, quality))
    return Corruption("file", "JPEG", f"quality {quality}", change)


def _resolution(factor: int) -> Corruption:
    change = _of_pixels(lambda pixels, _: camera.lower_resolution(pixels, factor))
    return Corruption("file", "resolution", f"1/{factor}", change)


def _brightness(gain: float) -> Corruption:
    change = _of_pixels(lambda pixels, _: camera.brightness(pixels, gain))
    return Corruption("light", "brighter" if gain > 1 else "darker", f"x {gain:g}", change)


def _contrast(gain: float) -> Corruption:
    change = _of_pixels(lambda pixels, _: camera.contrast(pixels, gain))
    return Corruption("light", "contrast", f"x {gain:g}", change)


def _cast(name: str, *gains: float) -> Corruption:
    change = _of_pixels(lambda pixels, _: camera.colour_cast(pixels, gains))
    level = "x " + " ".join(f"{gain:g}" for gain in gains)
    return Corruption("colour", name, level, change, needs_colour=True)


def _noise(sigma: float) -> Corruption:
    change = _of_pixels(lambda pixels, rng: camera.noise(pixels, sigma, rng))
    return Corruption("noise", "noise", f"sigma {sigma:g}", change)


def _hairs(name: str, count: int, colour: tuple[float, float, float]) -> Corruption:
    return Corruption(
        "marks", name, f"{count}", lambda sample, rng: marks.hairs(sample, count, colour, rng)
    )


def _rotation(degrees: float) -> Corruption:
    def change(sample: Sample, rng: np.random.Generator) -> Sample:
        return geometry.rotated(sample, degrees * float(rng.choice([-1.0, 1.0])))

    return Corruption("geometry", "rotation", f"{degrees:g} degrees", change)


def _quarter_turn(sample: Sample, rng: np.random.Generator) -> Sample:
    return geometry.quarter_turned(sample, int(rng.choice([1, 3])))


def _zoom(factor: float) -> Corruption:
    name = "zoom in" if factor > 1 else "zoom out"
    return Corruption(
        "geometry", name, f"x {factor:g}", lambda sample, _: geometry.zoomed(sample, factor)
    )


CORRUPTIONS: tuple[Corruption, ...] = (
    _blur(1.0),
    _blur(2.5),
    _defocus(3.0),
    _motion(9.0),
    _jpeg(20),
    _resolution(2),
    _resolution(4),
    _brightness(0.6),
    _brightness(1.3),
    _contrast(0.5),
    _cast("warm", 1.1, 1.0, 0.8),
    _cast("cool", 0.85, 1.0, 1.15),
    _cast("green", 0.9, 1.1, 0.9),
    _noise(10.0),
    _noise(25.0),
    _hairs("dark hairs", 40, marks.DARK_HAIR),
    _hairs("light hairs", 40, marks.LIGHT_HAIR),
    Corruption("marks", "ruler", "", marks.ruler),
    Corruption("marks", "pen", "", marks.pen),
    Corruption("marks", "bubbles", "3 to 18", lambda sample, rng: marks.bubbles(sample, 3, rng)),
    _rotation(30.0),
    Corruption("geometry", "quarter turn", "", _quarter_turn),
    _zoom(0.6),
    _zoom(1.5),
)


def corrupt(sample: Sample, corruption: Corruption, case: str) -> Sample:
    """The sample under one corruption; equal arguments give equal bytes, on any machine.

    Args:
        sample: As decoded; not changed.
        corruption: One of `CORRUPTIONS`.
        case: The case's id, which seeds what is drawn.

    Raises:
        HyMUNetError: If the picture is not 8-bit with 1 or 3 channels, or is grey where the
            corruption needs colour.
    """
    check_picture(sample.pixels, case)
    seed = hashlib.sha256(f"{corruption.key}\n{case}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, "<u4"))
    return corruption.change(sample, rng)


def check_picture(pixels: np.ndarray, case: str) -> None:
    """Raises HyMUNetError unless pixels are (1 or 3, height, width) uint8."""
    if pixels.ndim != 3:
        raise HyMUNetError(
            f"case {case}: robustness is measured on pictures (2-D), and this image has "
            f"{pixels.ndim - 1} dimensions; corruptions of volumes are not defined here"
        )
    if pixels.dtype != np.uint8 or len(pixels) not in (1, 3):
        raise HyMUNetError(
            f"case {case}: corruptions are defined for 8-bit pictures, grey or RGB, and this one "
            f"has {plural(len(pixels), 'channel')} of {pixels.dtype}; convert the pictures first"
        )
