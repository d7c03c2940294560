"""`hymunet evaluate`: scores masks against a reference, case by case, on the original pixels."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hymunet.data.case import Case
from hymunet.errors import HyMUNetError
from hymunet.evaluation import tables
from hymunet.evaluation.held_out import held_out
from hymunet.evaluation.provenance import record
from hymunet.evaluation.seen import KnownCases, known_cases
from hymunet.evaluation.sources import Source, find_source
from hymunet.evaluation.strata import describe
from hymunet.evaluation.structures import scored
from hymunet.evaluation.summary import summarise
from hymunet.evaluation.truth import Truth, find_cases, read_pixels
from hymunet.extras import require
from hymunet.files import make_folder, write_text
from hymunet.metrics.case import case_metrics
from hymunet.wording import plural


@dataclass
class Evaluation:
    """The tables of one evaluation.

    Args:
        cases: One row per case and class: `case`, `class`, `group`, `seen` ("train", "val" or
            ""), `unit` ("px" or "mm"), every metric, tp fp fn tn, the strata.
        summary: Averages with intervals, by class; what `metrics.json` holds.
        notes: What a reader has to know to judge the numbers.
        report: Where the HTML report lies; None when no output folder was given.
        sources: The cases by id, from which the report draws its pictures.
    """

    cases: list[dict[str, Any]]
    summary: dict[str, Any]
    notes: list[str]
    report: Path | None = None
    sources: dict[str, Case] = field(default_factory=dict, repr=False)


def evaluate(
    prediction: str | Path,
    truth: Path,
    *,
    output: Path | None = None,
    split: str | None = None,
    split_file: Path | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    force: bool = False,
    device: str | None = None,
    tta: bool = False,
    json: bool = False,
    num_labels: int | None = None,
    groups: str | None = None,
) -> Evaluation:
    """Scores a model, or masks that any tool wrote, against a reference.

    Every number is computed on the original pixels and comes with a 95 % interval; the mean over
    images and the pooled value are both given. A case that the model was trained on is refused.

    Args:
        prediction: A model file, a run folder (its best.safetensors), a folder of folds (`train
            --folds`; together: a case that any was trained on counts as trained on), a packaged
            model's name (`hymunet models` lists them) or a folder of masks, which are matched to
            the cases by name (a suffix such as _mask or _seg is ignored).
        truth: A data set in any layout that training takes, or a plain folder of masks.
        output: Folder for cases.csv, metrics.json and report.html; without it nothing is written.
        split: Only this part of the data: train, val or test.
        split_file: A table (columns case and split) or the split.json of any run that says which
            case is in which part; default: the run's own split, else the data's split.csv.
        images: Folder of images, when it has no usual name.
        masks: Folder of reference masks, when it has no usual name.
        force: Score cases the model was trained on as well; the report says so.
        device: cpu, cuda or cuda:1; chosen for you when left out.
        tta: Test-time augmentation of a model: the mean over mirrorings and quarter turns.
        json: Print the summary as JSON instead of tables.
        num_labels: For a folder of masks: the number of classes with the background. When left
            out, what the data set declares (classes, their names, regions), else what its reference
            masks hold. A model says it itself.
        groups: Regular expression that finds the patient in a case's name, such as '^[^_]+':
            intervals then know that images of one patient are not independent.

    Returns:
        Case rows, summary, notes, and where the report lies.

    Raises:
        HyMUNetError: If prediction and truth do not belong together (other structures, another
            grid), or cases were trained on.
    """
    started = time.perf_counter()
    if output is not None:
        require("train", "a report (--output)", "matplotlib", "jinja2")
    prediction, truth = str(prediction), Path(truth)
    dataset, cases, notes = find_cases(truth, prediction, split, images, masks, split_file, groups)
    source = find_source(prediction, cases, dataset, num_labels, device, tta)
    known = known_cases(source.info)
    if output is not None:
        make_folder(Path(output))
    rows, seen = score_all(cases, source, known, force)

    median = ((source.info or {}).get("training") or {}).get("contrast_median")
    summary, summary_notes = summarise(rows, median, known.val_chose)
    options: dict[str, str | Path | int | None] = {
        "images": images, "masks": masks, "split": split, "split_file": split_file,
        "num_labels": num_labels, "groups": groups, "force": force, "device": device, "tta": tta,
        "output": output,
    }  # fmt: skip
    summary = {
        "prediction": source.name,
        "truth": str(truth),
        "data": dataset.name,
        "split": split,
        "structures": scored(source.classes, source.nested, source.regions),
        "forced": force and "train" in seen.values(),
        **summary,
        "made": record(prediction, truth, options, time.perf_counter() - started),
    }
    if source.info is not None:
        from hymunet.network.model_file import models_identity

        summary["model"] = models_identity(prediction)
    notes = [*notes, *source.notes, *known.notes(seen), *summary_notes]
    evaluation = Evaluation(rows, summary, notes, None, {case.id: case for case in cases})
    if output is not None:

        def predict(case: Case) -> np.ndarray:
            return source.predict(case, read_pixels(case, source.in_channels))

        write_evaluation(Path(output), evaluation, predict, source.run)
    if json:
        print(as_json(evaluation))
    else:
        from hymunet.evaluation.terminal import print_tables

        print_tables(evaluation)
    return evaluation


def score_all(
    cases: Sequence[Case], source: Source, known: KnownCases, force: bool = False
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of all cases, and case id -> "train", "val" or "" for what the model has met.

    Raises:
        HyMUNetError: If a case was trained on, unless `force`.
    """
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    num_labels, label = len(source.classes) + 1, f"scoring {plural(len(cases), 'case')}"
    for case, truth in held_out(cases, source.in_channels, num_labels, known, seen, force, label):
        predicted = source.predict(case, truth.image)
        rows += score_case(
            case,
            truth,
            predicted,
            source.classes,
            seen[case.id],
            source.nested,
            source.regions,
        )
    return rows, seen


def score_case(
    case: Case,
    truth: Truth,
    predicted: np.ndarray,
    classes: Sequence[str],
    seen: str = "",
    nested: bool = False,
    regions: Mapping[str, tuple[int, ...]] | None = None,
) -> list[dict[str, Any]]:
    """One row per structure: identity, every metric, pixel counts and what kind of case it is.

    Args:
        case: Which case it is.
        truth: What `read_truth` read of it.
        predicted: Class indices, (*spatial).
        classes: Names of the classes, index 1 first.
        seen: "train" or "val" for a case that the model has met.
        nested: Whether each structure holds those after it (whole tumour, core, enhancing part):
            then structure k is where the class index is at least k.
        regions: Name -> class indices of what is scored instead; None: the classes.

    Raises:
        HyMUNetError: If prediction and reference differ in size.
    """
    target = truth.labels
    if predicted.shape != target.shape:
        raise HyMUNetError(
            f"case {case.id}: the reference has the size {target.shape}, the prediction "
            f"{predicted.shape}; masks are compared on the original pixel grid, so write them at "
            "the image's size"
        )
    pixels = truth.image.pixels if truth.image else None
    rows = []
    for name, of in scored(classes, nested, regions).items():
        inside, found = np.isin(target, of), np.isin(predicted, of)
        row: dict[str, Any] = {"case": case.id, "class": name, "group": case.group or case.id}
        row["seen"] = seen
        row["unit"] = "mm" if truth.spacing_mm else "px"
        row["dimensions"] = target.ndim
        row |= case_metrics(found, inside, truth.valid, truth.spacing_mm)
        rows.append(row | describe(pixels, inside, truth.valid))
    return rows


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    predict: Callable[[Case], np.ndarray],
    run: Path | None = None,
) -> None:
    """Writes cases.csv, metrics.json and report.html, and notes where the report is.

    Args:
        folder: Where to.
        evaluation: Its `report` is set.
        predict: Gives the class indices of a case again, for the report's pictures.
        run: The run folder whose learning curves and settings the report shows.
    """
    # the report is the package's only user of jinja2 and matplotlib: loaded when it is wanted
    from hymunet.evaluation.report import write_report

    write_text(folder / "cases.csv", tables.as_csv(evaluation.cases))
    write_text(folder / "metrics.json", as_json(evaluation))
    evaluation.report = folder / "report.html"
    write_report(evaluation.report, evaluation, run, predict)


def as_json(evaluation: Evaluation) -> str:
    """The summary and the notes as JSON; what is not finite becomes null."""
    return tables.as_json(evaluation.summary | {"notes": evaluation.notes})
