"""Cases as small JPEGs with the outlines of reference and prediction over them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THUMBNAIL_PX = 320
LONGEST_OUTLINE = 24_000  # characters of an SVG path; a speckled mask must not fill the report


@dataclass(frozen=True)
class Thumbnail:
    """A case as a picture: a JPEG data address and the outlines as SVG path data."""

    jpeg: str
    width: int
    height: int
    truth: str
    predicted: str
    where: str


def thumbnail(
    pixels: np.ndarray | None,
    truth: np.ndarray,
    predicted: np.ndarray,
    structures: Sequence[Sequence[int]] | None = None,
) -> Thumbnail:
    """A case at most 320 px wide and high; of a volume, the slice with the most reference.

    Args:
        pixels: Image, (channels, *spatial); None: the outlines stand on a grey ground.
        truth: Reference class indices, (*spatial), 2-D or 3-D.
        predicted: Predicted class indices, (*spatial).
        structures: Class indices that make up each structure to be outlined; None: a class each.
    """
    from PIL import Image as Picture

    where = ""
    if truth.ndim == 3:
        amount = (truth > 0).sum(axis=(1, 2)) * 1e6 + (predicted > 0).sum(axis=(1, 2))
        index = int(np.argmax(amount)) if amount.any() else len(truth) // 2
        where = f"slice {index + 1} of {len(truth)}"
        truth, predicted = truth[index], predicted[index]
        pixels = None if pixels is None else pixels[:, index]
    shown = (
        np.full((*truth.shape, 3), 96, np.uint8) if pixels is None else _to_display(pixels)
    )  # (height, width, 3)
    height, width = truth.shape
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    buffer = io.BytesIO()
    Picture.fromarray(shown).resize(size, Picture.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=80, optimize=True
    )
    return Thumbnail(
        "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(),
        *size,
        outline(truth, size, structures),
        outline(predicted, size, structures),
        where,
    )


def outline(
    labels: np.ndarray, size: tuple[int, int], structures: Sequence[Sequence[int]] | None = None
) -> str:
    """SVG path data of the outlines of all structures, in a frame of `size` (width, height).

    Structures within each other share no line; drawn class by class, each line between them would
    be there twice, and dashes would close to a solid line.
    """
    from contourpy import contour_generator

    path = ""
    for limit in (max(size), 160, 80, 40):  # coarser until the path is short enough
        reduced, step = _reduce(labels, limit)
        parts = []
        for of in structures or [[index] for index in np.unique(reduced[reduced > 0])]:
            # a border of background closes outlines at the image's edge
            field = np.pad(np.isin(reduced, of).astype(float), 1)
            for line in contour_generator(z=field).lines(0.5):
                points = np.clip(np.asarray(line) - 0.5, 0, [reduced.shape[1], reduced.shape[0]])
                scaled = points * step * [size[0] / labels.shape[1], size[1] / labels.shape[0]]
                parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in _straighten(scaled)))
        path = "".join(parts)
        if len(path) <= LONGEST_OUTLINE:
            return path
    return path[: path.rfind("M", 0, LONGEST_OUTLINE)]


def _straighten(points: np.ndarray) -> np.ndarray:
    """Leaves out points on a straight line between their neighbours; (n, 2) -> (m, 2)."""
    if len(points) < 3:
        return points
    before, after = points[1:-1] - points[:-2], points[2:] - points[1:-1]
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    return points[np.concatenate([[True], turns, [True]])]


def _reduce(labels: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """Every k-th pixel, taken in the middle of its block, so that no side exceeds `limit`."""
    step = max(1, -(-max(labels.shape) // limit))
    start = [min((step - 1) // 2, size - 1) for size in labels.shape]
    return labels[start[0] :: step, start[1] :: step], step


def _to_display(pixels: np.ndarray) -> np.ndarray:
    """(channels, height, width) of any type -> (height, width, 3) uint8 for the eye."""
    shown = pixels[:3] if len(pixels) >= 3 and pixels.dtype == np.uint8 else pixels[:1]
    if shown.dtype != np.uint8:
        values = shown.astype(np.float64)
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
        scaled = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-12)
        shown = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (3, *shown.shape[1:])).transpose(1, 2, 0))
