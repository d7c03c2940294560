"""The files that a prediction becomes: where they lie, what must not be overwritten, what is in
them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from hymunet.data.image_cases import ImageCase
    from hymunet.inference.predictor import Prediction
    from hymunet.network.segmenter import NetworkFacts


@dataclass(frozen=True)
class Targets:
    """The files that one image becomes.

    Args:
        mask: PNG, NIfTI or a DICOM segmentation.
        probabilities: One an output channel, or none.
        overlay: A PNG, or a folder of DICOM secondary captures; None: not wanted.
    """

    mask: Path
    probabilities: tuple[Path, ...]
    overlay: Path | None

    def all(self) -> list[Path]:
        """Every file."""
        return [self.mask, *self.probabilities, *([self.overlay] if self.overlay else [])]


def targets_of(
    case: "ImageCase",
    output: Path,
    config: "NetworkFacts",
    probability: bool,
    overlay: bool,
    dicom: bool = False,
) -> Targets:
    """The files of a case below the folder `output`."""
    folder = output / case.below
    if dicom:
        drawn = folder / f"{case.name}_overlay" if overlay else None
        return Targets(folder / f"{case.name}.dcm", (), drawn)
    channels = [""] if config.num_classes == 1 else [f"_{i}" for i in range(config.num_classes)]
    return Targets(
        folder / f"{case.name}{'.png' if config.spatial_dims == 2 else '.nii.gz'}",
        tuple(folder / f"{case.name}{c}_probability.png" for c in channels) if probability else (),
        folder / f"{case.name}_overlay.png" if overlay else None,
    )


def check_targets(
    inputs: Sequence[str], cases: Sequence["ImageCase"], targets: Sequence[Targets], output: Path
) -> None:
    """Refuses what would overwrite an input or another result.

    Raises:
        HyMUNetError: Naming both.
    """
    owners: dict[Path, str] = {}
    for case, files in zip(cases, targets, strict=True):
        for target in files.all():
            if target in owners:
                raise HyMUNetError(
                    f"{owners[target]} and {case.label} would both be written to {target}; predict "
                    "them in two calls with different --output folders"
                )
            owners[target] = case.label
    written = {target.resolve() for target in owners}
    clash = [str(file) for case in cases for file in case.files if file.resolve() in written]
    if clash:
        raise HyMUNetError(
            f"the output would overwrite its own input {clash[0]}; choose another --output folder"
        )
    if any(Path(given).is_dir() and Path(given).resolve() == output.resolve() for given in inputs):
        raise HyMUNetError(
            f"the output folder {output} is an input folder, where the next call would take masks "
            "for images; choose another --output folder"
        )


def stored_values(info: Mapping[str, Any], num_labels: int) -> tuple[int, ...] | None:
    """Class index -> value to be written for it, the one in the masks that the model learnt from;
    None: class indices.

    Args:
        info: Metadata of the model, `label_values` in it.
        num_labels: Classes, background included.

    Raises:
        HyMUNetError: If there is not one value for each class.
    """
    values = info.get("label_values")
    if values is None:
        return None
    whole = isinstance(values, (list, tuple)) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 65535 for v in values
    )
    if not whole or len(values) != num_labels or len(set(values)) != num_labels:
        raise HyMUNetError(
            f"the model's label_values are {values!r:.100}; expected {num_labels} different whole "
            "numbers from 0 to 65535, one for each class with the background: the file was altered"
        )
    return tuple(values)


def write_prediction(
    prediction: "Prediction",
    targets: Targets,
    num_labels: int,
    values: tuple[int, ...] | None = None,
) -> None:
    """Writes the files of one image, each whole or not at all.

    Raises:
        HyMUNetError: If one cannot be written.
    """
    import numpy as np
    from PIL import Image

    from hymunet.data.mask_writing import write_mask
    from hymunet.files import write_with
    from hymunet.inference.overlay import draw_overlay

    write_mask(targets.mask, prediction.mask, prediction.image, num_labels, values)
    if targets.probabilities:
        for target, one in zip(targets.probabilities, prediction.probability, strict=True):
            grey = Image.fromarray((one * 65535.0).round().astype(np.uint16))
            write_with(target, grey.save)
    if targets.overlay is not None:
        picture = Image.fromarray(draw_overlay(prediction.image.pixels, prediction.mask))
        write_with(targets.overlay, picture.save)


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as a table; a column for each name in any of them."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["image", "mask"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
