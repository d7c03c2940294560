"""`hymunet predict`: masks, measurements and, when asked for, probabilities and overlays."""

import json as json_library
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from hymunet.console import say
from hymunet.errors import HyMUNetError, NoRoomError
from hymunet.extras import require
from hymunet.inference.archive.report import ArchiveReport
from hymunet.inference.job import (
    Job,
    Segmented,
    check_job,
    model_names,
    segment_case,
    summary_of,
)
from hymunet.inference.outputs import Targets, as_csv, check_targets, targets_of
from hymunet.inference.predict_terminal import image_progress, print_report, say_inputs, say_job
from hymunet.wording import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from hymunet.data.image_cases import ImageCase
    from hymunet.inference.dicom_outputs import DicomOutputs
    from hymunet.inference.predictor import Predictor

_ROW_BYTES = 1200  # of an image and class in measurements.csv and .json, its names not counted


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
    output: str | Path,
    probability: bool = False,
    overlay: bool = False,
    threshold: float | None = None,
    device: str | None = None,
    tta: bool = False,
    postprocess: Annotated[bool, Parameter(negative="--no-postprocess")] = True,
    runtime: str | None = None,
    engine: Literal["plain", "ray"] = "plain",
    workers: int | None = None,
    address: str | None = None,
    output_format: Literal["dicom-seg"] | None = None,
    codes: Path | None = None,
    json: bool = False,
) -> PredictReport | ArchiveReport:
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
            in a folder is one image; FOLDER/UID names one of several series in it. With --engine
            ray also addresses of object stores, such as s3://bucket/folder/.
        model: A model file (.safetensors, or .onnx of `hymunet export`), a run folder, or the name
            of a model that comes with the package (`hymunet models` lists them); a folder of folds
            (`train --folds`), which predict together. Several times: the mean of the models'
            probabilities.
        output: Folder for the results; created when missing. With --engine ray also an address.
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
        engine: plain segments one image after the other. ray, for archives, spreads them over the
            processors of this machine or of a cluster (the extra `cluster`): masks are the same,
            the same command goes on after a kill, what is done and what failed stands in
            OUTPUT/manifest/, measurements in OUTPUT/measurements.parquet/.
        workers: Processes that segment, with --engine ray; default: one a processor, or one a GPU
            where there are any. More than GPUs: they share them.
        address: Of the Ray cluster to join, with --engine ray: auto, or HOST:PORT; default: Ray on
            this machine, for the time of the command.
        output_format: dicom-seg: of DICOM images write `<stem>.dcm`, a DICOM segmentation in the
            image's own study and frame of reference (needs the extra `dicom`). A model of pictures
            then segments a series slice by slice. Default: PNG for pictures, NIfTI for volumes.
        codes: Of dicom-seg: a YAML or JSON file that says what the structures are in coded terms,
            such as `liver: {type: [10200004, SCT, Liver]}`; see docs/dicom.md.
        json: Print the results as JSON instead of a table.

    Raises:
        HyMUNetError: If the model, an input's name or the output folder cannot be used, or results
            would overwrite each other or an input; nothing is written then.
        NoRoomError: If the disk runs full or becomes read-only: what is done stays.
    """
    console = Console(stderr=True)
    models = [model] if isinstance(model, (str, Path)) else list(model)
    models = [Path(one) for one in models]
    job = Job(
        tuple(models), device, threshold, tta, postprocess, runtime, probability, overlay
    )  # fmt: skip
    if output_format is not None:
        require("dicom", f"--output-format {output_format}", "highdicom", "pydicom")
    elif codes is not None:
        raise HyMUNetError(
            "--codes says what a DICOM segmentation holds; add --output-format dicom-seg"
        )
    if engine == "ray":
        if output_format is not None:
            raise HyMUNetError(
                f"--output-format {output_format} is written by the plain engine; leave --engine "
                "ray out"
            )
        from hymunet.inference.archive.run import predict_archive

        if workers is not None and workers < 1:
            raise HyMUNetError(f"--workers must be 1 or more, not {workers}")
        return predict_archive(inputs, output, job, workers, address, console, json)
    _check_plain(inputs, output, workers, address)
    _refuse_archive(Path(output))
    return _predict_here(inputs, Path(output), job, output_format, codes, console, json)


def _check_plain(
    inputs: Sequence[str], output: str | Path, workers: int | None, address: str | None
) -> None:
    """Refuses what only the other engine can do.

    Raises:
        HyMUNetError: Naming it.
    """
    from hymunet.data.remote import is_url

    urls = [str(one) for one in (*inputs, output) if is_url(one)]
    options = [("--workers", workers), ("--address", address)]
    asked = urls + [name for name, value in options if value is not None]
    if asked:
        raise HyMUNetError(f"{', '.join(asked[:4])}: only --engine ray knows this; add it")


def _refuse_archive(output: Path) -> None:
    """Keeps masks that no manifest knows out of the results of --engine ray.

    Raises:
        HyMUNetError: If the output holds such results.
    """
    from hymunet.inference.archive.manifest import SETTINGS

    if (output / SETTINGS).exists():
        raise HyMUNetError(
            f"{output} holds results of --engine ray, whose manifest would not know of this call; "
            "add --engine ray, or choose another --output"
        )


def _predict_here(
    inputs: Sequence[str],
    output: Path,
    job: Job,
    output_format: str | None,
    codes: Path | None,
    console: Console,
    json: bool,
) -> PredictReport:
    """The plain engine: one image after the other in this process."""
    from hymunet.data.image_cases import find_image_cases
    from hymunet.files import make_folder, room_kept, write_text

    predictor = job.predictor()
    config = predictor.config
    dicom = None if output_format is None else _dicom_outputs(job, predictor, codes)
    values = check_job(job, predictor) if dicom is None else None
    cases, notes = find_image_cases(inputs, config.in_channels)
    if dicom is not None:
        from hymunet.inference.dicom_outputs import only_dicom

        cases = only_dicom(cases)
        notes += dicom.notes
    targets = [
        targets_of(case, output, config, job.probability, job.overlay, dicom is not None)
        for case in cases
    ]
    check_targets(inputs, cases, targets, output)
    for folder in {output, *(files.mask.parent for files in targets)}:
        make_folder(folder)
    kept = say_job(job, predictor, values, console)
    say_inputs(inputs, notes, console)

    def segment(
        case: "ImageCase", files: Targets, on_progress: "Callable[[float], None]"
    ) -> Segmented:
        if dicom is not None:
            return dicom.segment(case, files, on_progress)
        return segment_case(predictor, case, files, values, on_progress)

    report = PredictReport()
    stopped: NoRoomError | KeyboardInterrupt | None = None
    names = sum(len(case.label) for case in cases) + sum(len(str(one.mask)) for one in targets)
    size = (config.num_labels - 1) * (2 * names + _ROW_BYTES * len(cases))
    with room_kept(output, size) as free_room:
        try:
            _segment_all(cases, targets, segment, report, console)
        except (NoRoomError, KeyboardInterrupt) as error:
            stopped = error
        free_room()
        summary = {
            "measurements": report.measurements,
            "failed": report.failed,
            "suspects": report.suspects,
            **summary_of(job, predictor, kept),
        }
        text = json_library.dumps(summary, indent=2)
        try:
            write_text(output / "measurements.csv", as_csv(report.measurements))
            write_text(output / "measurements.json", text + "\n")
        except HyMUNetError as error:
            if stopped is None:
                raise
            tables = f"the tables could not be written ({error})"
        else:
            tables = "measurements.csv and measurements.json hold them"
    if stopped is not None:
        count = f"{len(report.written)} of {plural(len(cases), 'image')}"
        done = f"{count} are segmented and whole, {tables}"
        if isinstance(stopped, KeyboardInterrupt):
            say(console, done)
            raise stopped
        raise NoRoomError(f"{stopped}. {done}; free the place and give the same command")
    if json:
        print(text)
    else:
        print_report(report, len(cases), output, console)
    return report


def _dicom_outputs(job: Job, predictor: "Predictor", codes: Path | None) -> "DicomOutputs":
    """What writes DICOM.

    Raises:
        HyMUNetError: If probability maps are wanted too, or the codes cannot be used.
    """
    from hymunet.inference.dicom_outputs import DicomOutputs
    from hymunet.network.model_file import find_models

    if job.probability:
        raise HyMUNetError(
            "probability maps are written beside PNG masks only; leave --probability or "
            "--output-format out"
        )
    files = [path for model in job.models for path in find_models(model)]
    return DicomOutputs(predictor, model_names(job.models), files, codes)


def _segment_all(
    cases: Sequence["ImageCase"],
    targets: Sequence[Targets],
    segment: "Callable[[ImageCase, Targets, Callable[[float], None]], Segmented]",
    report: PredictReport,
    console: Console,
) -> None:
    """Segments the cases into `report`.

    Raises:
        NoRoomError: If nothing more can be written; the report holds what is done.
    """
    afterwards: dict[str, None] = {}
    with image_progress(console, len(cases)) as (on_progress, advance):
        for case, files in zip(cases, targets, strict=True):
            try:
                segmented = segment(case, files, on_progress)
            except NoRoomError:
                raise
            except HyMUNetError as error:
                report.failed[case.label] = str(error)
                continue
            finally:
                advance()
            report.written.append(files.mask)
            for row in segmented.measurements:
                report.measurements.append({"image": case.label, "mask": str(files.mask), **row})
            if segmented.suspect:
                report.suspects[case.label] = segmented.suspect
            afterwards.update(dict.fromkeys(segmented.notes))
    for note in afterwards:
        say(console, f"note: {note}")
