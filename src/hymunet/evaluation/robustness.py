"""`hymunet robustness`: what blur, bad light, hair or another angle cost a model.

Each case is scored as it is and under every corruption, so that the loss is a difference within
the case: what the data set happens to hold cancels out, and the interval is that of the loss.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.data.case import Case
from hymunet.data.corruptions import CORRUPTIONS, Corruption, Sample, check_picture, corrupt
from hymunet.data.image_io import Image
from hymunet.errors import HyMUNetError
from hymunet.evaluation import tables
from hymunet.evaluation.held_out import held_out, image_of, limited, refuse_masks
from hymunet.evaluation.provenance import record
from hymunet.evaluation.robustness_summary import CLEAN, summarise
from hymunet.evaluation.seen import KnownCases, known_cases
from hymunet.evaluation.sources import postprocess_notes
from hymunet.evaluation.truth import Truth, find_cases
from hymunet.extras import require
from hymunet.files import make_folder, write_text
from hymunet.metrics.overlap import count, dice, iou
from hymunet.metrics.shape import of_structure
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor


@dataclass
class Robustness:
    """The tables of one measurement.

    Args:
        cases: One row per case, corruption and class: `case`, `group`, `seen`, `kind`,
            `corruption` ("clean" for the picture as it is), `class`, `dice`, `iou`, `dice_change`,
            `iou_change`, tp fp fn tn.
        summary: What `robustness.json` holds; see `hymunet.evaluation.robustness_summary`.
        notes: What a reader has to know to judge the numbers.
        report: Where the HTML report lies; None when no output folder was given.
        sources: The cases by id, from which the report draws its pictures.
    """

    cases: list[dict[str, Any]]
    summary: dict[str, Any]
    notes: list[str]
    report: Path | None = None
    sources: dict[str, Case] = field(default_factory=dict, repr=False)


def robustness(
    model: str | Path,
    data: Path,
    *,
    output: Path | None = None,
    split: str | None = None,
    split_file: Path | None = None,
    limit: int | None = None,
    tta: bool = False,
    images: Path | None = None,
    masks: Path | None = None,
    force: bool = False,
    device: str | None = None,
    json: bool = False,
) -> Robustness:
    """Measures what a model loses when pictures are blurred, badly lit, covered, turned or scaled.

    Each case is predicted as it is and under 24 corruptions (docs/metrics.md), the same ones each
    time; where a corruption moves the picture, the truth moves with it. The table gives Dice and
    IoU, their change against the clean pictures with 95 % intervals, and how many cases lost more
    than 0.1 of Dice. Pictures only: 8-bit, grey or RGB.

    Args:
        model: A model file, a run folder (its best.safetensors), a folder of folds (together)
            or the name of a packaged model.
        data: A data set in any layout that training takes.
        output: Folder for robustness.json, robustness.csv and robustness.html; without it nothing
            is written.
        split: Only this part of the data: train, val or test.
        split_file: Says which case is in which part, as for `evaluate`.
        limit: At most so many cases, evenly spread over the list.
        tta: Test-time augmentation: the mean over mirrorings and quarter turns, 8 times the work.
        images: Folder of images, when it has no usual name.
        masks: Folder of reference masks, when it has no usual name.
        force: Score cases the model was trained on as well; the notes say so.
        device: cpu, cuda or cuda:1; chosen for you when left out.
        json: Print the summary as JSON instead of a table.

    Returns:
        Case rows, summary, notes, and where the report lies.

    Raises:
        HyMUNetError: If model and data do not belong together, the images are volumes or not 8-bit
            pictures, or cases were trained on.
    """
    from hymunet.inference.predictor import Predictor
    from hymunet.network.model_file import find_models, models_identity

    started = time.perf_counter()
    if output is not None:
        require("train", "a report (--output)", "matplotlib", "jinja2")
    refuse_masks(str(model), "robustness")
    paths = find_models(model)
    path = paths[0] if len(paths) == 1 else Path(model)
    dataset, cases, notes = find_cases(Path(data), str(model), split, images, masks, split_file)
    cases, limit_notes = limited(cases, limit)
    predictor = Predictor(paths, device=device, tta=tta)
    if predictor.config.spatial_dims != 2:
        raise HyMUNetError(
            f"robustness is measured on pictures (2-D), and {path} segments volumes; "
            "`hymunet evaluate` scores it on the volumes as they are"
        )
    known = known_cases(predictor.info)
    if output is not None:
        make_folder(Path(output))
    corruptions = _that_apply(predictor.config.in_channels)
    rows, seen = _score_all(cases, predictor, corruptions, known, force)

    options: dict[str, str | Path | int | None] = {
        "images": images, "masks": masks, "split": split, "split_file": split_file,
        "limit": limit, "tta": tta, "force": force, "device": device, "output": output,
    }  # fmt: skip
    summary = {
        "prediction": str(path),
        "truth": str(data),
        "data": dataset.name,
        "split": split,
        "tta": tta,
        "forced": force and "train" in seen.values(),
        "model": models_identity(path),
        **summarise(rows, corruptions),
        "made": record(
            str(model), Path(data), options, time.perf_counter() - started, "robustness"
        ),
    }
    notes = [*notes, *limit_notes, *predictor.notes, *postprocess_notes(predictor)]
    notes += known.notes(seen)
    notes += _notes(summary, corruptions)
    result = Robustness(rows, summary, notes, None, {case.id: case for case in cases})
    if output is not None:
        _write(Path(output), result, predictor)
    if json:
        print(as_json(result), end="")
    else:
        from hymunet.evaluation.robustness_terminal import print_table

        print_table(result)
    return result


def predict_corrupted(
    predictor: "Predictor", case: Case, truth: Truth, corruption: Corruption | None
) -> tuple[Sample, np.ndarray]:
    """The case under a corruption (None: as it is), and the class indices predicted on it."""
    pixels = image_of(case, truth).pixels
    check_picture(pixels, case.id)
    sample = Sample(pixels, truth.labels, truth.valid)
    if corruption is not None:
        sample = corrupt(sample, corruption, case.id)
    return sample, predictor(Image(sample.pixels)).mask


def _that_apply(in_channels: int) -> list[Corruption]:
    if in_channels not in (1, 3):
        raise HyMUNetError(
            f"corruptions are defined for grey and RGB pictures, and the model reads {in_channels} "
            "channels; `hymunet evaluate` scores it on the images as they are"
        )
    return [one for one in CORRUPTIONS if in_channels == 3 or not one.needs_colour]


def _score_all(
    cases: Sequence[Case],
    predictor: "Predictor",
    corruptions: Sequence[Corruption],
    known: KnownCases,
    force: bool,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of all cases and corruptions, and case id -> what the model has met of it."""
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    channels, num_labels = predictor.config.in_channels, len(predictor.classes) + 1
    label = f"scoring {plural(len(cases), 'case')}, each {len(corruptions) + 1} times"
    for case, truth in held_out(cases, channels, num_labels, known, seen, force, label):
        clean: list[dict[str, Any]] = []
        for corruption in (None, *corruptions):
            sample, predicted = predict_corrupted(predictor, case, truth, corruption)
            scores = _score(sample, predicted, predictor)
            clean = clean or scores
            for name, own, before in zip(predictor.classes, scores, clean, strict=True):
                row: dict[str, Any] = {"case": case.id, "group": case.group or case.id}
                row |= {"seen": seen[case.id], "kind": corruption.kind if corruption else CLEAN}
                row |= {"corruption": corruption.key if corruption else CLEAN, "class": name}
                row |= {measure: own[measure] for measure in ("dice", "iou")}
                for measure in ("dice", "iou"):
                    row[f"{measure}_change"] = own[measure] - before[measure]
                rows.append(row | {key: own[key] for key in ("tp", "fp", "fn", "tn")})
    return rows, seen


def _score(sample: Sample, predicted: np.ndarray, predictor: "Predictor") -> list[dict[str, Any]]:
    """Dice, IoU and pixel counts of each structure."""
    nested = predictor.config.activation == "sigmoid"
    scores: list[dict[str, Any]] = []
    for index in range(1, len(predictor.classes) + 1):
        found, there = (of_structure(mask, index, nested) for mask in (predicted, sample.labels))
        counts = count(found, there, sample.valid)
        scores.append({"dice": dice(counts), "iou": iou(counts), **vars(counts)})
    return scores


def _notes(summary: Mapping[str, Any], corruptions: Sequence[Corruption]) -> list[str]:
    notes = [
        f"{entry['corruption']} moves the truth of {plural(entry['emptied'], 'case')} out of the "
        "frame; scored as without a structure"
        for entry in summary["corruptions"]
        if entry["emptied"]
    ]
    if left := len(CORRUPTIONS) - len(corruptions):
        notes.append(
            f"{plural(left, 'corruption needs', 'corruptions need')} colour and were left out: the "
            "model reads grey"
        )
    return notes


def _write(folder: Path, result: Robustness, predictor: "Predictor") -> None:
    # the page is the only user of jinja2 here: loaded when it is wanted
    from hymunet.evaluation.robustness_page import write_page

    write_text(folder / "robustness.csv", tables.as_csv(result.cases))
    write_text(folder / "robustness.json", as_json(result))
    result.report = folder / "robustness.html"
    write_page(result.report, result, predictor)


def as_json(result: Robustness) -> str:
    """The summary and the notes as JSON."""
    return tables.as_json(result.summary | {"notes": result.notes})
