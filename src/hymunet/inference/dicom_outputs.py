"""A prediction as DICOM: a segmentation of the image's series, and captures with the outlines."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.dicom_capture import make_captures
from hymunet.data.dicom_codes import UNKNOWN, read_terms, term_of
from hymunet.data.dicom_header import is_dicom
from hymunet.data.dicom_seg_writing import Algorithm, Segment, make_segmentation, write_dicom
from hymunet.data.dicom_series import is_dicom_volume
from hymunet.data.dicom_source import read_source
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder
from hymunet.inference.job import Segmented, model_digest, suspicion
from hymunet.inference.overlay import COLOURS, draw_overlay
from hymunet.inference.slices import predict_slices
from hymunet.network.promise import threshold_text
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.data.image_cases import ImageCase
    from hymunet.inference.outputs import Targets
    from hymunet.inference.predictor import Prediction, Predictor

_CAPTURE = re.compile(r"[0-9]{4,}\.dcm")


class DicomOutputs:
    """Writes what a predictor finds as DICOM.

    Args:
        predictor: What predicts.
        names: Its models, as messages call them.
        files: Their files.
        codes: A table of the structures' codes, see `dicom_codes.read_terms`.

    Raises:
        HyMUNetError: If the table cannot be used.
    """

    def __init__(
        self, predictor: "Predictor", names: Sequence[str], files: Sequence[Path],
        codes: Path | None,
    ) -> None:  # fmt: skip
        self.predictor = predictor
        self.segments, self.notes = segments_of(predictor, codes)
        self.algorithm = _algorithm(predictor, names, files)

    def segment(
        self,
        case: "ImageCase",
        targets: "Targets",
        on_progress: Callable[[float], None] | None = None,
    ) -> Segmented:
        """Segments one case and writes its files, as `job.segment_case` does.

        Raises:
            HyMUNetError: As `predict` and `write`, or if the case does not fit into memory.
        """
        if case.problem is not None:
            raise HyMUNetError(case.problem)
        try:
            prediction = self.predict(case.files[0], on_progress)
            notes = self.write(prediction, case, targets)
        except MemoryError as error:
            raise HyMUNetError(str(error) or "not enough memory") from error
        suspect = suspicion(float((prediction.mask > 0).mean()))
        return Segmented(prediction.measurements, suspect, tuple(notes))

    def predict(
        self, path: Path, on_progress: Callable[[float], None] | None = None
    ) -> "Prediction":
        """Segments an image; with a model of pictures a series slice by slice.

        Raises:
            HyMUNetError: As `Predictor.__call__`.
        """
        if self.predictor.config.spatial_dims == 2 and is_dicom_volume(path):
            return predict_slices(self.predictor, path, on_progress)
        return self.predictor(path, on_progress)

    def write(self, prediction: "Prediction", case: "ImageCase", targets: "Targets") -> list[str]:
        """Writes the files of one image; returns notes.

        Raises:
            HyMUNetError: If its headers allow none, or a file cannot be written.
        """
        source = read_source(case.files[0])
        made = make_segmentation(prediction.mask, source, self.segments, self.algorithm)
        if targets.overlay is not None:
            folder = make_folder(targets.overlay)
            _remove_captures(folder)
            captures = make_captures(_pictures(prediction), source, self.algorithm)
            for number, capture in enumerate(captures, start=1):
                write_dicom(folder / f"{number:04d}.dcm", capture)
        # last: where the segmentation lies, all else is there
        write_dicom(targets.mask, made)
        return list(source.notes)


def only_dicom(cases: Sequence["ImageCase"]) -> list["ImageCase"]:
    """The cases, those that no DICOM object can be made of with the reason as their problem.

    Raises:
        HyMUNetError: If that is all of them.
    """
    wanted = (
        "a DICOM segmentation takes patient, study and place from its source: give the DICOM "
        "series, or leave --output-format out for PNG and NIfTI"
    )
    fits = [all(is_dicom(file) for file in case.files) for case in cases]
    if not any(fits):
        count = plural(len(cases), "image is", "images are")
        raise HyMUNetError(
            f"--output-format dicom-seg needs DICOM images, and {count} none "
            f"({listed((case.label for case in cases), 4)}); {wanted}"
        )
    checked = []
    for case, is_one in zip(cases, fits, strict=True):
        problem = case.problem
        if problem is None and not is_one:
            problem = f"{case.label} is no DICOM image; {wanted}"
        elif problem is None and len(case.files) > 1:
            problem = (
                f"{case.label} is of {len(case.files)} series, a channel each, and a segmentation "
                "refers to one; leave --output-format out for NIfTI"
            )
        checked.append(replace(case, problem=problem))
    return checked


def segments_of(predictor: "Predictor", codes: Path | None) -> tuple[list[Segment], list[str]]:
    """The segments that stand for a model's classes, and what their codes are, as notes.

    A mask holds one class a voxel. Where structures lie within each other, a segment is therefore
    what lies in one and not in the next, and is called so: `tumour without core`.
    """
    table = {} if codes is None else read_terms(codes)
    nested = predictor.config.activation == "sigmoid"
    names = list(predictor.classes)
    segments, unknown, said = [], [], []
    for index, name in enumerate(names):
        last = index == len(names) - 1
        label = name if last or not nested else f"{name} without {names[index + 1]}"
        term = term_of(label, table) or term_of(name, table)
        if term is None:
            unknown.append(name)
        else:
            said.append(f"{label} as {term.type}")
        colour = COLOURS[index % len(COLOURS)]
        segments.append(Segment(label, term or UNKNOWN, colour))
    notes = [f"coded: {listed(said, 12)}"] if said else []
    if unknown:
        notes.append(
            f"no code is known for {listed(unknown, 12)}: coded as {UNKNOWN.type}; --codes FILE "
            "says what they are"
        )
    return segments, notes


def _algorithm(predictor: "Predictor", names: Sequence[str], files: Sequence[Path]) -> Algorithm:
    # the last folder and the file: where a path begins is nobody's business
    model = " + ".join("/".join(Path(name).parts[-2:]) for name in names)
    digests = [model_digest(file) for file in files]
    identity = digests[0] if len(digests) == 1 else hashlib.sha256(
        "\n".join(digests).encode()
    ).hexdigest()  # fmt: skip
    parameters: dict[str, Any] = {}
    if predictor.config.activation == "sigmoid":
        parameters["threshold"] = threshold_text(predictor.threshold)
    if predictor.postprocess.operations:
        parameters["postprocess"] = predictor.postprocess.describe()
    if predictor.tta:
        parameters["tta"] = "8 symmetries"
    return Algorithm(model, f"sha256:{identity[:32]}", parameters)


def _remove_captures(folder: Path) -> None:
    """Removes the captures of an earlier call, which may show another patient: all of them, before
    the first new one is written. Files that are not called as ours are left alone."""
    for path in folder.iterdir():
        if _CAPTURE.fullmatch(path.name) and not path.is_dir():
            try:
                path.unlink()
            except OSError as error:
                raise HyMUNetError(
                    f"cannot remove {path}, a capture of an earlier call: "
                    f"{error.strerror or error}; remove it, or choose another --output"
                ) from error


def _pictures(prediction: "Prediction") -> Iterator[np.ndarray]:
    """RGB slices with outlines, by depth."""
    pixels, mask = prediction.image.pixels, prediction.mask
    if mask.ndim == 2:
        yield draw_overlay(pixels, mask)
        return
    # one grey scale for all slices, or it would flicker from one to the next
    low, high = (0, 255) if pixels.dtype == np.uint8 else np.percentile(pixels[:1], (1, 99))
    scale = 255.0 / max(float(high - low), 1e-6)
    for depth, flat in enumerate(mask):
        shown = (pixels[:, depth].astype(np.float32) - low) * scale
        yield draw_overlay(shown.clip(0, 255).astype(np.uint8), flat)
