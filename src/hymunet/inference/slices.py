"""A DICOM series through a model of pictures: each slice by itself, the masks stacked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.image_io import read_slices
from hymunet.inference.measurements import measure
from hymunet.inference.predictor import Prediction

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor


def predict_slices(
    predictor: "Predictor", path: Path, on_progress: Callable[[float], None] | None = None
) -> Prediction:
    """Segments a series slice by slice; each slice as the model sees it when its file is given.

    Args:
        predictor: Of a 2-D model.
        path: The series.
        on_progress: Called with the share that is done, after each slice.

    Returns:
        Mask (depth, height, width), probabilities and image of the whole series.

    Raises:
        HyMUNetError: As `Predictor.__call__`.
    """
    grid, slices = read_slices(path, predictor.config.in_channels)
    depth = grid.shape[0]
    found: list[Prediction | None] = [None] * depth
    for number, (place, image) in enumerate(slices, start=1):
        found[place] = predictor(image)
        if on_progress is not None:
            on_progress(number / depth)
    each = [one for one in found if one is not None]
    mask = np.stack([one.mask for one in each])
    pixels = np.stack([one.image.pixels for one in each], axis=1)
    notes = tuple(dict.fromkeys(note for one in each for note in one.notes))
    return Prediction(
        mask,
        np.stack([one.probability for one in each], axis=1),
        grid.spacing_mm,
        measure(mask, predictor.classes, grid.spacing_mm, each[0].nested),
        notes,
        replace(each[0].image, pixels=pixels, spacing_mm=grid.spacing_mm, affine=grid.affine),
        each[0].nested,
    )
