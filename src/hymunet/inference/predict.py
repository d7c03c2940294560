"""`hymunet predict`: masks, measurements and, when asked for, probabilities and overlays."""

import json as json_library
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from hymunet.console import say
from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.inference.outputs import (
    as_csv,
    check_targets,
    stored_values,
    targets_of,
    write_prediction,
)
from hymunet.wording import plural, shortened

MOST_SUSPECTS = 5  # named in the terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from hymunet.inference.predictor import Predictor


@dataclass
class PredictReport:
    """What `predict` did.

    Args:
        written: Mask files, in input order.
        failed: Input -> reason.
        measurements: A row an input and class.
        suspects: Input -> why its mask should be looked at; they are among those written.
    """

    written: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    suspects: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 only when every input was segmented."""
        return 1 if self.failed else 0


def predict(
    *inputs: str,
    model: list[Path],
    output: Path,
    probability: bool = False,
    overlay: bool = False,
    threshold: float | None = None,
    device: str | None = None,
    tta: bool = False,
    postprocess: Annotated[bool, Parameter(negative="--no-postprocess")] = True,
    runtime: str | None = None,
    output_format: Literal["dicom-seg"] | None = None,
    codes: Path | None = None,
    json: bool = False,
) -> PredictReport:
    """Segments images with a trained model, or with several together.

    Writes `OUTPUT/<stem>.png` (0 and 255 for one structure, class indices for several) at the
    input's own size, or `<stem>.nii.gz` on its grid for volumes, and measurements.csv and
    measurements.json. Where the data set that the model learnt from stores other values in its
    masks (BraTS: 0, 1, 2, 4), so do these masks. An input that cannot be read, or does not fit into
    memory, does not stop the others: it is listed at the end, and the exit code is 1.

    Args:
        inputs: Files, folders and globs; a folder is searched with its subfolders, which the
            output repeats. Of a data set, whole or in part, the images are taken and the masks
            left. A case of several files, a channel each, is one image, called as the case:
            BraTS's CASE_flair, _t1, _t1ce, _t2 and nnU-Net's CASE_0000, CASE_0001. A DICOM series
            in a folder is one image; FOLDER/UID names one of several series in it.
        model: A model file (.safetensors, or .onnx of `hymunet export`), a run folder, or the name
            of a model that comes with the package (`hymunet models` lists them); a folder of folds
            (`train --folds`), which predict together. Several times: the mean of the models'
            probabilities.
        output: Folder for the results; created when missing.
        probability: Also write `<stem>_probability.png`, 16-bit: 65535 is 1; with several output
            channels `<stem>_0_probability.png` and so on. Pictures only.
        overlay: Also write `<stem>_overlay.png`: the image with the outline drawn on it. Pictures
            only; with dicom-seg of series too, as secondary captures in the folder
            `<stem>_overlay`, a file a slice.
        threshold: Probability from which a pixel belongs to the structure; default: the model's, of
            several models their common one, else the mean of theirs.
        device: cpu or cuda; default: CUDA when there is one.
        tta: Test-time augmentation: the mean over mirrorings and quarter turns of each image. A
            little better, 8 times the work.
        postprocess: Clean masks up as the model file says (only the largest part of a structure,
            holes filled); --no-postprocess leaves them as the network's probabilities are.
        runtime: torch, or onnx to run the file that `hymunet export` has written beside a model
            file (of a packaged model: in the present folder); default: what a file is made for.
        output_format: dicom-seg: of DICOM images write `<stem>.dcm`, a DICOM segmentation in the
            image's own study and frame of reference (needs the extra `dicom`). A model of pictures
            then segments a series slice by slice. Default: PNG for pictures, NIfTI for volumes.
        codes: Of dicom-seg: a YAML or JSON file that says what the structures are in coded terms,
            such as `liver: {type: [10200004, SCT, Liver]}`; see docs/dicom.md.
        json: Print the results as JSON instead of a table.

    Raises:
        HyMUNetError: If the model, an input's name or the output folder cannot be used, or results
            would overwrite each other or an input; nothing is written then.
    """
    if output_format is not None:
        require("dicom", f"--output-format {output_format}", "highdicom", "pydicom")
    from hymunet.data.formats import find_others
    from hymunet.data.image_cases import find_image_cases
    from hymunet.data.masks_io import listed
    from hymunet.files import make_folder, write_text
    from hymunet.inference.dicom_outputs import DicomOutputs, only_dicom
    from hymunet.inference.predictor import Predictor

    console = Console(stderr=True)
    models, output = [model] if isinstance(model, (str, Path)) else list(model), Path(output)
    predictor = Predictor(
        models,
        device=device,
        threshold=threshold,
        tta=tta,
        postprocess=postprocess,
        runtime=runtime,
    )
    names = _names(models)
    config = predictor.config
    dicom = None
    if output_format is not None:
        if probability:
            raise HyMUNetError(
                "probability maps are written beside PNG masks only; leave --probability or "
                "--output-format out"
            )
        dicom = DicomOutputs(predictor, names, _files(models), codes)
    elif codes is not None:
        raise HyMUNetError(
            "--codes says what a DICOM segmentation holds; add --output-format dicom-seg"
        )
    if dicom is None and config.spatial_dims == 3 and (probability or overlay):
        raise HyMUNetError(
            f"probability maps and overlays are written for pictures only, and {listed(names)} "
            "segments volumes; leave --probability and --overlay out"
        )
    values = stored_values(predictor.info, config.num_labels)
    cases, notes = find_image_cases(inputs, config.in_channels)
    if dicom is not None:
        cases, values = only_dicom(cases), None
        notes += dicom.notes
    targets = [
        targets_of(case, output, config, probability, overlay, dicom is not None) for case in cases
    ]
    check_targets(inputs, cases, targets, output)
    for folder in {output, *(files.mask.parent for files in targets)}:
        make_folder(folder)
    _say_models(predictor, names, threshold is not None, console)
    if predictor.postprocess.operations:
        say(console, f"post-processing: {predictor.postprocess.describe()}")
    kept = _say_promise(predictor, console)
    if values is not None:
        say(console, f"masks hold the values of the model's data: {listed(values, 20)}")
    if others := find_others(inputs):
        notes.append(
            f"{plural(len(others), 'file or linked folder', 'files or linked folders')} passed "
            f"over, no images by their names: {listed(path.name for path in others)}"
        )
    for note in notes:
        say(console, f"note: {note}")

    report = PredictReport()
    afterwards: dict[str, None] = {}
    with _progress(console, len(cases)) as (on_progress, advance):
        for case, files in zip(cases, targets, strict=True):
            try:
                if case.problem is not None:
                    raise HyMUNetError(case.problem)
                if dicom is not None:
                    prediction = dicom.predict(case.files[0], on_progress)
                    afterwards.update(dict.fromkeys(dicom.write(prediction, case, files)))
                else:
                    image = case.files[0] if len(case.files) == 1 else list(case.files)
                    prediction = predictor(image, on_progress)
                    write_prediction(prediction, files, config.num_labels, values)
            except (HyMUNetError, MemoryError) as error:
                report.failed[case.label] = str(error) or "not enough memory"
                continue
            finally:
                advance()
            report.written.append(files.mask)
            for row in prediction.measurements:
                report.measurements.append({"image": case.label, "mask": str(files.mask), **row})
            if why := suspicion(float((prediction.mask > 0).mean())):
                report.suspects[case.label] = why
            del prediction  # or the next volume would find this one still in memory
    for note in afterwards:
        say(console, f"note: {note}")
    write_text(output / "measurements.csv", as_csv(report.measurements))
    summary = {
        "measurements": report.measurements,
        "failed": report.failed,
        "suspects": report.suspects,
        "model": names[0] if len(names) == 1 else names,
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
        _print(report, len(cases), output, console)
    return report


def suspicion(share: float) -> str | None:
    """Why a mask that covers `share` of its image should be looked at, as `verify` does with
    reference masks; None: nothing is odd."""
    from hymunet.data.verify_masks import NEARLY_FULL

    if share == 0:
        return "the mask is empty"
    if share >= NEARLY_FULL:
        return f"the mask covers {share:.1%} of the image"
    return None


def _files(models: Sequence[Path]) -> list[Path]:
    from hymunet.network.model_file import find_models

    return [path for model in models for path in find_models(model)]


def _names(models: Sequence[Path]) -> list[str]:
    """The model files by their paths; a packaged one by its name, since its path differs from
    installation to installation."""
    from hymunet.network.model_file import find_models
    from hymunet.network.pretrained import pretrained_file

    return [
        str(model) if pretrained_file(model) == path else str(path)
        for model in models
        for path in find_models(model)
    ]


def _say_models(
    predictor: "Predictor", names: Sequence[str], given: bool, console: Console
) -> None:
    """What each model is for and under which terms; of several also where their mean is cut."""
    from hymunet.inference.describe import describe_model
    from hymunet.network.promise import threshold_text

    described = [describe_model(member.info) for member in predictor.members]
    for name, (about, terms) in zip(names, described, strict=True):
        say(console, f"model {name}: {about}")
        if len({terms for _, terms in described}) > 1:
            say(console, terms)
    if len({terms for _, terms in described}) == 1:
        say(console, described[0][1])
    if len(names) == 1:
        return
    text = f"the mean of {len(names)} models' probabilities"
    if predictor.config.activation == "sigmoid":
        own = [float(member.info.get("threshold", 0.5)) for member in predictor.members]
        of = ", the one given" if given else "" if len(set(own)) == 1 else ", the mean of "
        of += "" if given or len(set(own)) == 1 else ", ".join(map(threshold_text, own))
        text += f", cut at {threshold_text(predictor.threshold)}{of}"
    say(console, text)
    for note in predictor.notes:
        say(console, f"note: {note}", "yellow")


@contextmanager
def _progress(
    console: Console, total: int
) -> "Iterator[tuple[Callable[[float], None], Callable[[], None]]]":
    """A progress bar of images, on which the windows of a large one count by their share: what is
    to be called with the share of the present image, and what after each image."""
    from rich.progress import Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task(f"segmenting {plural(total, 'image')}", total=total)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress.update(bar, completed=done)

        yield lambda share: progress.update(bar, completed=done + share), advance


def _say_promise(predictor: "Predictor", console: Console) -> float | None:
    """Says which miss rate the model's threshold keeps, or why it does not here; the rate, None
    where none is kept."""
    from hymunet.network.promise import (
        not_for_several,
        promise_text,
        record_of,
        threshold_text,
        why_not,
    )

    if (count := len(predictor.members)) > 1:
        for member in predictor.members:
            if record := record_of(member.info):
                text = f"{member.name}, cut at {threshold_text(record['threshold'])}: "
                text += f"{promise_text(record)}: this does not hold here, since "
                say(console, f"warning: {text}{not_for_several(count)}", "yellow")
        return None
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
        name, structure = escape(shortened(Path(row["image"]).name, 30)), escape(row["class"])
        table.add_row(name, structure, area, f"{row['fraction']:.1%}", str(row["parts"]))
    console.print(table)
    if len(report.measurements) > 12:
        rows = plural(len(report.measurements) - 12, "more row", "more rows")
        console.print(f"... {rows} in measurements.csv", highlight=False)
    _print_suspects(report, console)
    say(
        console,
        f"{len(report.written)} of {plural(total, 'image')} segmented into {output} "
        "(masks, measurements.csv, measurements.json)",
    )
    if report.failed:
        say(console, f"{len(report.failed)} failed:", "red")
        for name, reason in report.failed.items():
            say(console, f"  {name}: {reason}")


def _print_suspects(report: PredictReport, console: Console) -> None:
    """Masks to look at: the first few by name, then how many there are."""
    from hymunet.data.verify_masks import NEARLY_FULL

    for name, why in list(report.suspects.items())[:MOST_SUSPECTS]:
        say(console, f"note: {name}: {why}")
    if report.suspects:
        empty = sum(why == suspicion(0) for why in report.suspects.values())
        full = len(report.suspects) - empty
        said = (f"{empty} empty", f"{full} over {NEARLY_FULL:.0%} or more of the image")
        found = " and ".join(text for text, n in zip(said, (empty, full), strict=True) if n)
        say(
            console,
            f"note: {plural(len(report.suspects), 'mask')} of {len(report.written)} to look at: "
            f"{found}; right where nothing or nothing else is to be seen, else images unlike those "
            "that the model learnt from (all by name: suspects in measurements.json)",
        )
