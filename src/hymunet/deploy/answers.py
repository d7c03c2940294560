"""A prediction as the JSON of an answer: mask, probabilities, outlines, run lengths."""

import base64
import io
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.deploy.problems import RefusedError
from hymunet.inference.contours import rings
from hymunet.metrics.shape import of_structure

if TYPE_CHECKING:
    from hymunet.inference.predictor import Prediction, Predictor

PARTS = ("mask", "probability", "contours", "rle")
INCLUDE_PATTERN = "^(({0})(,({0}))*)?$".format("|".join(PARTS))  # none: measurements alone
MOST_NUMBERS = 1_000_000  # corners, or runs, of one answer


def parse_include(text: str, spatial_dims: int) -> tuple[str, ...]:
    """The parts that `?include=` names, each once.

    Raises:
        RefusedError: `bad-parameter`, for another word, or a part that volumes do not have.
    """
    words = dict.fromkeys(text.split(",") if text else ())
    unknown = len([word for word in words if word not in PARTS])
    if unknown:
        raise RefusedError(
            "bad-parameter",
            f"`include` holds {unknown} unknown of {len(words)} words; expected a comma-separated "
            f"list of {', '.join(PARTS)}, without blanks",
        )
    if spatial_dims == 3 and set(words) - {"mask"}:
        raise RefusedError(
            "bad-parameter",
            f"`include` asks for {', '.join(word for word in words if word != 'mask')}; this model "
            "segments volumes, for which there is the mask alone",
        )
    return tuple(words)


def parts_of(
    prediction: "Prediction",
    predictor: "Predictor",
    values: tuple[int, ...] | None,
    include: Collection[str],
) -> dict[str, Any]:
    """What an answer says of the image and its mask.

    Args:
        prediction: Of one image.
        predictor: Whose classes they are.
        values: As `stored_values` gives them.
        include: Some of `PARTS`.

    Raises:
        RefusedError: `too-complex`, if outlines or runs are more than an answer may hold.
    """
    mask = prediction.mask
    spacing = prediction.spacing_mm
    height, width = mask.shape[-2:]
    parts: dict[str, Any] = {
        "image": {
            "width": width,
            "height": height,
            "depth": mask.shape[0] if mask.ndim == 3 else None,
            "spacing_mm": None if spacing is None else list(spacing),
            "notes": list(prediction.notes),
        }
    }
    if "mask" in include:
        name, key = ("m.png", "mask_png") if mask.ndim == 2 else ("m.nii.gz", "mask_nifti")
        parts[key] = _base64(_mask_file(name, prediction, predictor, values))
    if "probability" in include:
        parts["probability_png"] = [_base64(grey_png(one)) for one in prediction.probability]
    nested = predictor.config.activation == "sigmoid"
    if "contours" in include:
        parts["contours"] = _each(mask, predictor.classes, nested, _contours, "corners")
    if "rle" in include:
        parts["rle"] = _each(mask, predictor.classes, nested, _runs, "runs")
    parts["measurements"] = prediction.measurements
    return parts


def as_json(content: dict[str, Any]) -> bytes:
    """UTF-8, without blanks."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _mask_file(
    name: str,
    prediction: "Prediction",
    predictor: "Predictor",
    values: tuple[int, ...] | None,
) -> bytes:
    """What `predict` would write."""
    from dataclasses import replace

    from hymunet.data.mask_writing import mask_bytes

    image = prediction.image
    if image.pixels.shape[1:] != prediction.mask.shape:  # let go of before the network's turn
        image = replace(image, pixels=np.broadcast_to(np.uint8(0), (1, *prediction.mask.shape)))
    return mask_bytes(Path(name), prediction.mask, image, predictor.config.num_labels, values)


def grey_png(probability: np.ndarray) -> bytes:
    """(height, width) float in [0, 1] -> 8-bit grey PNG of round(255 p)."""
    from PIL import Image

    buffer = io.BytesIO()
    grey = np.rint(probability * 255.0).astype(np.uint8)
    Image.fromarray(grey).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, zeros first, alternating."""
    flat = np.concatenate([[False], mask.astype(bool).ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return [int(count) for count in counts]


def _contours(mask: np.ndarray, most: int) -> tuple[dict[str, Any] | None, int]:
    found = rings(mask, most)
    return None if found is None else {"rings": found}, sum(map(len, found or ()))


def _runs(mask: np.ndarray, most: int) -> tuple[dict[str, Any] | None, int]:
    if int((mask[1:] != mask[:-1]).sum()) > most:
        return None, 0
    counts = run_lengths(mask)
    return {"size": list(mask.shape), "counts": counts}, len(counts)


def _each(
    mask: np.ndarray,
    classes: list[str],
    nested: bool,
    describe: Callable[[np.ndarray, int], tuple[dict[str, Any] | None, int]],
    what: str,
) -> list[dict[str, Any]]:
    """An entry a class, of no more than `MOST_NUMBERS` corners or runs together."""
    rows, left = [], MOST_NUMBERS
    for index, name in enumerate(classes, start=1):
        found, count = describe(of_structure(mask, index, nested), left)
        left -= count
        if found is None or left < 0:
            raise RefusedError(
                "too-complex",
                f"the mask has more than {MOST_NUMBERS} {what}; ask for the mask instead",
            )
        rows.append({"class": name, **found})
    return rows


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
