"""How a prediction shows itself in a notebook."""

import base64
import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.inference.overlay import draw_overlay

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from hymunet.inference.predictor import Prediction

LARGEST = 640  # pixels of the longer side in a notebook's cell
_COLUMNS = {  # of the table: name -> title and unit, with decimals
    "area_mm2": ("area, mm²", 1),
    "volume_mm3": ("volume, mm³", 1),
    "area_px": ("area, px", 0),
    "volume_voxels": ("volume, voxels", 0),
    "diameter_mm": ("diameter, mm", 1),
    "diameter_px": ("diameter, px", 1),
    "parts": ("parts", 0),
}


def overlay_picture(prediction: "Prediction", index: int | None = None) -> "Picture":
    """The picture with outlines and a tint; of a volume one slice along its first axis.

    Args:
        prediction: What `Predictor` returned.
        index: Slice of a volume; None: the one that holds most of what was found.

    Returns:
        A Pillow picture, RGB.
    """
    from PIL import Image

    pixels, mask = prediction.image.pixels, prediction.mask
    if mask.ndim == 3:
        if index is None:
            index = int((mask > 0).sum(axis=(1, 2)).argmax())
        pixels, mask = pixels[:, index], mask[index]
    return Image.fromarray(draw_overlay(pixels, mask))


def as_html(prediction: "Prediction") -> str:
    """The picture with outlines, and a table of the measurements below."""
    picture = overlay_picture(prediction)
    picture.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    source = base64.b64encode(stream.getvalue()).decode()
    rows = prediction.measurements
    said = "; ".join(f"{row['class']}: {row['fraction']:.1%} of the image" for row in rows)
    shown = [name for name in _COLUMNS if any(name in row for row in rows)]
    titles = "".join(f"<th>{_COLUMNS[name][0]}</th>" for name in shown)
    cells = "".join(
        f"<tr><th>{html.escape(str(row['class']))}</th>"
        + "".join(f"<td>{_number(row.get(name), _COLUMNS[name][1])}</td>" for name in shown)
        + "</tr>"
        for row in rows
    )
    return (
        f'<img alt="{html.escape(said)}" src="data:image/png;base64,{source}">'
        f"<table><thead><tr><th></th>{titles}</tr></thead><tbody>{cells}</tbody></table>"
        "<p>Research use only, not a medical device.</p>"
    )


def in_words(prediction: "Prediction") -> str:
    """One line: sizes and shares."""
    size = " x ".join(map(str, np.shape(prediction.mask)))
    found = ", ".join(f"{row['class']} {row['fraction']:.1%}" for row in prediction.measurements)
    return f"Prediction({size}: {found})"


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
