"""`hymunet predict`: masks, measurements and, when asked for, probabilities and overlays of images."""

import csv
import io
import json as json_library
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from hymunet.errors import HyMUNetError


@dataclass
class PredictReport:
    """What `predict` did.

    Args:
        written: Mask files, in input order.
        failed: Input -> reason.
        measurements: A row an input and class.
    """

    written: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 only when every input was segmented."""
        return 1 if self.failed else 0


def predict(
    *inputs: str,
    model: Path,
    output: Path,
    probability: bool = False,
    overlay: bool = False,
    threshold: float | None = None,
    device: str | None = None,
    json: bool = False,
) -> PredictReport:
    """Segments images with a trained model.

    Writes OUTPUT/<stem>.png (0 and 255 for one structure, class indices for several) at each input's
    own size, or <stem>.nii.gz on the same grid for volumes, and measurements.csv and
    measurements.json. An input that cannot be read does not stop the others: it is listed at the
    end, and the exit code is 1.

    Args:
        inputs: Files, folders (searched with their subfolders) and globs.
        model: A model file (.safetensors) or a run folder.
        output: Folder for the results; created when missing.
        probability: Also write <stem>_probability.png, 16-bit: 65535 is 1.
        overlay: Also write <stem>_overlay.png: the image with the outline drawn on it.
        threshold: Probability from which a pixel belongs to the structure; default: the model's.
        device: cpu or cuda; default: CUDA when there is one.
        json: Print the results as JSON instead of a table.
    """
    from hymunet.data.formats import find_images
    from hymunet.files import make_folder, write_text
    from hymunet.inference.predictor import Predictor, describe_model, find_model

    console = Console(stderr=True)
    path = find_model(model)
    predictor = Predictor(path, device=device, threshold=threshold)
    images = find_images(inputs)
    targets = _targets(images, output, predictor.config.spatial_dims)
    make_folder(output)
    console.print(f"model: {path}, {describe_model(predictor.info)}", highlight=False)

    report = PredictReport()
    for image in track(images, "segmenting", console=console, transient=True):
        try:
            prediction = predictor(image)
            _write(prediction, targets[image], predictor, probability, overlay)
        except (HyMUNetError, MemoryError) as error:
            report.failed[str(image)] = str(error) or "not enough memory"
            continue
        report.written.append(targets[image])
        for row in prediction.measurements:
            report.measurements.append({"image": str(image), "mask": str(targets[image]), **row})
    write_text(output / "measurements.csv", _as_csv(report.measurements))
    summary = {"measurements": report.measurements, "failed": report.failed, "model": str(path)}
    text = json_library.dumps(summary, indent=2)
    write_text(output / "measurements.json", text + "\n")
    if json:
        print(text)
    else:
        _print(report, len(images), output, console)
    return report


def _targets(images: Sequence[Path], output: Path, spatial_dims: int) -> dict[Path, Path]:
    from hymunet.data.image_io import stem_of

    suffix = ".png" if spatial_dims == 2 else ".nii.gz"
    targets: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for image in images:
        target = output / f"{stem_of(image)}{suffix}"
        if target in owners:
            raise HyMUNetError(
                f"{owners[target]} and {image} would both be written to {target}; predict them in "
                "two calls with different --output folders"
            )
        owners[target] = image
        targets[image] = target
    clash = [str(image) for image in images if image.resolve() in {t.resolve() for t in owners}]
    if clash:
        raise HyMUNetError(
            f"the output would overwrite its own input {clash[0]}; choose another --output folder"
        )
    return targets


def _write(
    prediction: Any, target: Path, predictor: Any, probability: bool, overlay: bool
) -> None:
    import numpy as np
    from PIL import Image

    from hymunet.data.image_io import stem_of, write_mask
    from hymunet.files import write_with
    from hymunet.inference.overlay import draw_overlay

    stem = stem_of(target)
    write_mask(target, prediction.mask, like=prediction.image)
    flat = prediction.mask.ndim == 2
    if probability and flat:
        for name, one in zip(_names(predictor), prediction.probability, strict=True):
            grey = Image.fromarray((one * 65535.0).round().astype(np.uint16))
            write_with(target.with_name(f"{stem}{name}_probability.png"), grey.save)
    if overlay and flat:
        picture = Image.fromarray(draw_overlay(prediction.image.pixels, prediction.mask))
        write_with(target.with_name(f"{stem}_overlay.png"), picture.save)
    if (probability or overlay) and not flat:
        raise HyMUNetError(
            "probability maps and overlays are written for pictures only; leave --probability and "
            f"--overlay out for volumes (the mask {target} was written)"
        )


def _names(predictor: Any) -> list[str]:
    count = predictor.config.num_classes
    return [""] if count == 1 else [f"_{i}" for i in range(count)]


def _as_csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["image", "mask"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _print(report: PredictReport, total: int, output: Path, console: Console) -> None:
    from rich.table import Table

    table = Table(title=None, box=None, header_style="bold")
    for column, justify in (("image", "left"), ("class", "left"), ("area", "right"),
                            ("of frame", "right"), ("parts", "right")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in report.measurements[:12]:
        millimetres = row.get("area_mm2", row.get("volume_mm3"))
        unit = "mm²" if "area_mm2" in row else "mm³"
        pixels = f"{row.get('area_px', row.get('volume_voxels')):,} px"
        area = pixels if millimetres is None else f"{millimetres:,.1f} {unit}"
        table.add_row(
            Path(row["image"]).name, row["class"], area, f"{row['fraction']:.1%}", str(row["parts"])
        )
    console.print(table)
    if len(report.measurements) > 12:
        console.print(f"... {len(report.measurements) - 12} more rows in measurements.csv")
    console.print(
        f"{len(report.written)} of {total} images segmented into {output} "
        f"(masks, measurements.csv, measurements.json)",
        highlight=False,
    )
    if report.failed:
        console.print(f"[red]{len(report.failed)} failed:")
        for name, reason in report.failed.items():
            console.print(f"  {name}: {reason}", highlight=False, markup=False)
