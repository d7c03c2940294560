"""`hymunet predict`: masks, measurements and, when asked for, probabilities and overlays."""

import csv
import io
import json as json_library
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import track

from hymunet.console import say
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from hymunet.inference.predictor import Prediction, Predictor
    from hymunet.network.config import HyMUNetConfig


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
    tta: bool = False,
    postprocess: Annotated[bool, Parameter(negative="--no-postprocess")] = True,
    json: bool = False,
) -> PredictReport:
    """Segments images with a trained model.

    Writes `OUTPUT/<stem>.png` (0 and 255 for one structure, class indices for several) at the
    input's own size, or `<stem>.nii.gz` on its grid for volumes, and measurements.csv and
    measurements.json. An input that cannot be read, or does not fit into memory, does not stop the
    others: it is listed at the end, and the exit code is 1.

    Args:
        inputs: Files, folders and globs; a folder is searched with its subfolders, which the
            output repeats. A DICOM series in a folder is one image; FOLDER/UID names one of
            several series in it.
        model: A model file (.safetensors), a run folder, or the name of a model that comes with
            the package (`hymunet models` lists them).
        output: Folder for the results; created when missing.
        probability: Also write `<stem>_probability.png`, 16-bit: 65535 is 1; with several output
            channels `<stem>_0_probability.png` and so on. Pictures only.
        overlay: Also write `<stem>_overlay.png`: the image with the outline drawn on it. Pictures
            only.
        threshold: Probability from which a pixel belongs to the structure; default: the model's.
        device: cpu or cuda; default: CUDA when there is one.
        tta: Test-time augmentation: the mean over mirrorings and quarter turns of each image. A
            little better, 8 times the work.
        postprocess: Clean masks up as the model file says (only the largest part of a structure,
            holes filled); --no-postprocess leaves them as the network's probabilities are.
        json: Print the results as JSON instead of a table.

    Raises:
        HyMUNetError: If the model, an input's name or the output folder cannot be used, or results
            would overwrite each other or an input; nothing is written then.
    """
    from hymunet.data.formats import find_images, find_others
    from hymunet.data.masks_io import listed
    from hymunet.files import make_folder, write_text
    from hymunet.inference.predictor import Predictor, describe_model
    from hymunet.network.model_file import find_model
    from hymunet.network.pretrained import pretrained_file

    console = Console(stderr=True)
    path, output = find_model(model), Path(output)
    # a packaged model is called by its name: its path differs from installation to installation
    name = str(model) if pretrained_file(model) == path else str(path)
    predictor = Predictor(
        path, device=device, threshold=threshold, tta=tta, postprocess=postprocess
    )
    config = predictor.config
    if config.spatial_dims == 3 and (probability or overlay):
        raise HyMUNetError(
            f"probability maps and overlays are written for pictures only, and {name} segments "
            "volumes; leave --probability and --overlay out"
        )
    images = find_images(inputs)
    targets = {
        image: _targets(image, output / _subfolder(image, inputs), config, probability, overlay)
        for image in images
    }
    _check_targets(inputs, targets, output)
    for folder in {output, *(files.mask.parent for files in targets.values())}:
        make_folder(folder)
    about, terms = describe_model(predictor.info)
    say(console, f"model {name}: {about}")
    say(console, terms)
    if predictor.postprocess.operations:
        say(console, f"post-processing: {predictor.postprocess.describe()}")
    kept = _say_promise(predictor, console)
    if others := find_others(inputs):
        say(
            console,
            f"note: {len(others)} files or linked folders are no images by their names and were "
            f"passed over: {listed(path.name for path in others)}",
        )

    report = PredictReport()
    for image in track(images, "segmenting", console=console, transient=True):
        try:
            prediction = predictor(image)
            _write(prediction, targets[image], config.num_labels)
        except (HyMUNetError, MemoryError) as error:
            report.failed[str(image)] = str(error) or "not enough memory"
            continue
        mask = targets[image].mask
        report.written.append(mask)
        for row in prediction.measurements:
            report.measurements.append({"image": str(image), "mask": str(mask), **row})
    write_text(output / "measurements.csv", _as_csv(report.measurements))
    summary = {
        "measurements": report.measurements,
        "failed": report.failed,
        "model": name,
        "licence": predictor.info.get("licence"),
        "domain": predictor.info.get("domain"),
        "threshold": predictor.threshold if config.activation == "sigmoid" else None,
        "postprocess": predictor.postprocess.to_dict(),
        "miss_rate": kept,
    }
    text = json_library.dumps(summary, indent=2)
    write_text(output / "measurements.json", text + "\n")
    if json:
        print(text)
    else:
        _print(report, len(images), output, console)
    return report


def _say_promise(predictor: "Predictor", console: Console) -> float | None:
    """Says which miss rate the model's threshold keeps, or why it does not here; the rate, None
    where none is kept."""
    from hymunet.network.promise import promise_text, record_of, threshold_text, why_not

    record = record_of(predictor.info)
    if record is None:
        return None
    applied = predictor.postprocess.to_dict()
    broken = why_not(record, predictor.threshold, predictor.tta, applied)
    text = f"cut at {threshold_text(predictor.threshold)}: {promise_text(record)}"
    if broken is None:
        say(console, text)
        return float(record["miss_rate"])
    say(console, f"warning: {text}: this does not hold here, since {broken}", "yellow")
    return None


@dataclass(frozen=True)
class _Targets:
    """The files that one input becomes."""

    mask: Path
    probabilities: tuple[Path, ...]  # one an output channel, or none
    overlay: Path | None

    def all(self) -> list[Path]:
        return [self.mask, *self.probabilities, *([self.overlay] if self.overlay else [])]


def _subfolder(image: Path, inputs: Sequence[str]) -> Path:
    """Where an image lies below the input folder that it was found in; files of one name in several
    subfolders (a patient each, say) then do not meet."""
    for folder in map(Path, inputs):
        if folder.is_dir() and image != folder and image.is_relative_to(folder):
            return image.parent.relative_to(folder)
    return Path()


def _targets(
    image: Path, output: Path, config: "HyMUNetConfig", probability: bool, overlay: bool
) -> _Targets:
    from hymunet.data.image_io import stem_of

    stem = stem_of(image)
    channels = [""] if config.num_classes == 1 else [f"_{i}" for i in range(config.num_classes)]
    return _Targets(
        output / f"{stem}{'.png' if config.spatial_dims == 2 else '.nii.gz'}",
        tuple(output / f"{stem}{c}_probability.png" for c in channels) if probability else (),
        output / f"{stem}_overlay.png" if overlay else None,
    )


def _check_targets(inputs: Sequence[str], targets: dict[Path, _Targets], output: Path) -> None:
    """Refuses what would overwrite an input or another result."""
    owners: dict[Path, Path] = {}
    for image, files in targets.items():
        for target in files.all():
            if target in owners:
                raise HyMUNetError(
                    f"{owners[target]} and {image} would both be written to {target}; predict them "
                    "in two calls with different --output folders"
                )
            owners[target] = image
    written = {target.resolve() for target in owners}
    clash = [str(image) for image in targets if image.resolve() in written]
    if clash:
        raise HyMUNetError(
            f"the output would overwrite its own input {clash[0]}; choose another --output folder"
        )
    if any(Path(given).is_dir() and Path(given).resolve() == output.resolve() for given in inputs):
        raise HyMUNetError(
            f"the output folder {output} is an input folder, where the next call would take masks "
            "for images; choose another --output folder"
        )


def _write(prediction: "Prediction", targets: _Targets, num_labels: int) -> None:
    import numpy as np
    from PIL import Image

    from hymunet.data.masks_io import write_mask
    from hymunet.files import write_with
    from hymunet.inference.overlay import draw_overlay

    write_mask(targets.mask, prediction.mask, prediction.image, num_labels)
    if targets.probabilities:
        for target, one in zip(targets.probabilities, prediction.probability, strict=True):
            grey = Image.fromarray((one * 65535.0).round().astype(np.uint16))
            write_with(target, grey.save)
    if targets.overlay is not None:
        picture = Image.fromarray(draw_overlay(prediction.image.pixels, prediction.mask))
        write_with(targets.overlay, picture.save)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["image", "mask"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _print(report: PredictReport, total: int, output: Path, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=None, box=None, header_style="bold")
    for column, justify in (("image", "left"), ("class", "left"), ("area", "right"),
                            ("of frame", "right"), ("parts", "right")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in report.measurements[:12]:
        millimetres = row.get("area_mm2", row.get("volume_mm3"))
        unit = "mm²" if "area_mm2" in row else "mm³"
        flat = "area_px" in row
        count = f"{row['area_px']:,} px" if flat else f"{row['volume_voxels']:,} voxels"
        area = count if millimetres is None else f"{millimetres:,.1f} {unit}"
        # names may hold brackets, which rich would take for its markup
        name, structure = escape(Path(row["image"]).name), escape(row["class"])
        table.add_row(name, structure, area, f"{row['fraction']:.1%}", str(row["parts"]))
    console.print(table)
    if len(report.measurements) > 12:
        console.print(f"... {len(report.measurements) - 12} more rows in measurements.csv")
    say(
        console,
        f"{len(report.written)} of {total} images segmented into {output} "
        "(masks, measurements.csv, measurements.json)",
    )
    if report.failed:
        say(console, f"{len(report.failed)} failed:", "red")
        for name, reason in report.failed.items():
            say(console, f"  {name}: {reason}")
