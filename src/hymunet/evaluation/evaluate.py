"""`hymunet evaluate`: scores masks against a reference, case by case, on the original pixels."""

import csv
import io
import math
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from json import dumps
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hymunet import __version__
from hymunet.data.case import Case
from hymunet.data.case_hash import case_hash
from hymunet.data.formats import Dataset, find_dataset, read_case
from hymunet.data.image_io import SUFFIXES, Image, read_image, read_mask, stem_of
from hymunet.data.masks_io import is_volume, listed
from hymunet.data.splits import load_split
from hymunet.errors import HyMUNetError
from hymunet.evaluation.strata import describe, summarise
from hymunet.files import make_folder, write_text
from hymunet.metrics.case import case_metrics

OPTIMISTIC = "these cases chose the epoch: optimistic"
_MASK_SUFFIX = re.compile(r"[_-](masks?|seg|segmentation|labels?|pred|prediction|gt|truth)$", re.I)


class Predicted(Protocol):
    """What is compared with the reference: class indices on the case's own grid, (*spatial)."""

    @property
    def mask(self) -> np.ndarray: ...


@dataclass(frozen=True)
class PredictedMask:
    """A mask that another tool wrote, read from its file."""

    mask: np.ndarray


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


@dataclass
class _Source:
    """Where predictions come from: a model, or a folder of masks."""

    name: str
    predict: Callable[[Case, Image | None], Predicted]
    classes: list[str]
    in_channels: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    run: Path | None = None
    nested: bool = False


def evaluate(
    prediction: str | Path,
    truth: Path,
    *,
    output: Path | None = None,
    split: str | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    force: bool = False,
    device: str | None = None,
    json: bool = False,
    num_labels: int | None = None,
) -> Evaluation:
    """Scores a model, or masks that any tool wrote, against a reference.

    Every number is computed on the original pixels and comes with a 95 % interval; the mean over
    images and the pooled value are both given. A case that the model was trained on is refused.

    Args:
        prediction: A model file, a run folder (its best.safetensors) or a folder of masks, which
            are matched to the cases by name (a suffix such as _mask or _seg is ignored).
        truth: A data set in any layout that training takes, or a plain folder of masks.
        output: Folder for cases.csv, metrics.json and report.html; without it nothing is written.
        split: Only this part of the data: train, val or test.
        images: Folder of images, when it has no usual name.
        masks: Folder of reference masks, when it has no usual name.
        force: Score cases the model was trained on as well; the report says so.
        device: cpu, cuda or cuda:1; chosen for you when left out.
        json: Print the summary as JSON instead of tables.
        num_labels: For a folder of masks: the number of classes with the background; 2 when left
            out. A model says it itself.

    Returns:
        Case rows, summary, notes, and where the report lies.

    Raises:
        HyMUNetError: If prediction and truth do not belong together, or cases were trained on.
    """
    started = time.perf_counter()
    prediction, truth = str(prediction), Path(truth)
    from_masks = _is_mask_folder(Path(prediction))
    dataset = _find_truth(truth, from_masks, images, masks)
    cases, notes = _labelled(dataset)
    run = _run_folder(Path(prediction))
    cases, split_notes = _choose(cases, dataset, split, run)
    if from_masks:
        source = _mask_source(Path(prediction), cases, dataset, num_labels or 2)
        notes.append("masks from a folder: whether their model was trained on a case is not known")
    else:
        source = _model_source(prediction, run, device)
    if output is not None:
        make_folder(Path(output))
    seen, seen_notes = _check_unseen(cases, source, force)
    notes = [*dataset.notes, *notes, *split_notes, *seen_notes]

    rows: list[dict[str, Any]] = []
    for case in _progress(cases, "scoring"):
        rows += score_case(
            case, source.classes, source.predict, source.in_channels, seen, source.nested
        )
    median = (source.info.get("training") or {}).get("contrast_median")
    summary, summary_notes = summarise(rows, median)
    summary = {
        "prediction": source.name,
        "truth": str(truth),
        "data": dataset.name,
        "split": split,
        "forced": force and "train" in seen.values(),
        **summary,
        "made": _made(prediction, truth, split, force, device, time.perf_counter() - started),
    }
    evaluation = Evaluation(rows, summary, notes + summary_notes, None, {c.id: c for c in cases})
    # the report is the package's only user of jinja2 and matplotlib: loaded when it is wanted
    from hymunet.evaluation.report import print_tables, write_report

    if output is not None:
        folder = Path(output)
        write_text(folder / "cases.csv", _as_csv(rows))
        write_text(folder / "metrics.json", as_json(evaluation))

        def predict(case: Case) -> Predicted:
            return source.predict(case, _image(case, source.in_channels))

        evaluation.report = folder / "report.html"
        write_report(evaluation.report, evaluation, source.run, predict)
    if json:
        print(as_json(evaluation))
    else:
        print_tables(evaluation)
    return evaluation


def score_case(
    case: Case,
    classes: Sequence[str],
    predict: Callable[[Case, Image | None], Predicted],
    in_channels: int | None = None,
    seen: Mapping[str, str] | None = None,
    nested: bool = False,
) -> list[dict[str, Any]]:
    """One row per class: identity, every metric, pixel counts and what kind of case it is.

    Args:
        case: The case; its label must exist.
        classes: Names of the structures, class index 1 first.
        predict: Called with the case and its image (None when only masks are at hand).
        in_channels: Channels to read the image with; None: as it is.
        seen: Case id -> "train" or "val", for cases that the model has met.
        nested: Whether each structure holds those after it (whole tumour, core, enhancing part):
            then structure k is where the class index is at least k.

    Raises:
        HyMUNetError: If a file cannot be read, or image, prediction, reference and valid area
            differ in size.
    """
    image: Image | None = None
    if case.channels:
        image, reference, valid = read_case(case, in_channels, len(classes) + 1)
        target, spacing = reference.labels, image.spacing_mm
    else:
        assert case.label is not None
        target, valid = read_mask(case.label, len(classes) + 1).labels, None
        spacing = case.spacing_mm
    predicted = predict(case, image).mask
    if predicted.shape != target.shape:
        raise HyMUNetError(
            f"case {case.id}: the reference has the size {target.shape}, the prediction "
            f"{predicted.shape}; masks are compared on the original pixel grid, so write them at "
            "the image's size"
        )
    pixels = image.pixels if image else None
    rows = []
    for index, name in enumerate(classes, start=1):
        inside = target >= index if nested else target == index
        found = predicted >= index if nested else predicted == index
        row: dict[str, Any] = {"case": case.id, "class": name, "group": case.group or case.id}
        row["seen"] = (seen or {}).get(case.id, "")
        row["unit"] = "mm" if spacing else "px"
        row["dimensions"] = target.ndim
        row |= case_metrics(found, inside, valid, spacing)
        rows.append(row | describe(pixels, inside, valid))
    return rows


def as_json(evaluation: Evaluation) -> str:
    """The summary and the notes as JSON; what is not finite becomes null."""
    content = _finite(evaluation.summary | {"notes": evaluation.notes})
    return dumps(content, indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _progress(cases: Sequence[Case], what: str) -> Iterable[Case]:
    from rich.console import Console
    from rich.progress import track

    # on stderr: --json leaves stdout to machines
    return track(cases, f"{what} {len(cases)} cases", console=Console(stderr=True), transient=True)


def _image(case: Case, in_channels: int | None) -> Image | None:
    """The image of a case; None for a case of a plain folder of masks."""
    if case.channels:
        return read_image(case.channels, in_channels)
    return None


def _key(name: str) -> str:
    return _MASK_SUFFIX.sub("", name)


def _mask_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
    )


def _run_folder(prediction: Path) -> Path | None:
    """The run folder that `prediction` is, or whose best.safetensors it is."""
    folder = prediction if prediction.is_dir() else prediction.parent
    looks = (folder / "config.yaml").is_file() and (folder / "metrics.csv").is_file()
    named = prediction.is_dir() or prediction.name == "best.safetensors"
    return folder if named and looks else None


def _is_mask_folder(prediction: Path) -> bool:
    if not prediction.is_dir() or (prediction / "best.safetensors").is_file():
        return False
    if (prediction / "config.yaml").is_file():
        raise HyMUNetError(
            f"the run folder {prediction} holds no best.safetensors yet; "
            "let the training finish its first validation, then evaluate again"
        )
    if not _mask_files(prediction):
        raise HyMUNetError(
            f"expected a model file, a run folder or a folder of masks, got {prediction} "
            f"without best.safetensors and without any {', '.join(SUFFIXES)} file; "
            "name the folder that holds the masks themselves"
        )
    return True


def _find_truth(truth: Path, plain_masks: bool, images: Path | None, masks: Path | None) -> Dataset:
    try:
        return find_dataset(truth, images, masks)
    except HyMUNetError:
        if not (plain_masks and truth.is_dir() and _mask_files(truth)):
            raise
    cases: dict[str, Case] = {}
    for path in _mask_files(truth):
        name = _key(stem_of(path))
        if name in cases:
            raise HyMUNetError(
                f"two reference masks are named {name}: {cases[name].label} and {path}; keep one"
            )
        cases[name] = Case(name, (), label=path, spacing_mm=_spacing_of_mask(path))
    note = "the reference is a plain folder of masks: no images, so no contrast"
    return Dataset("folder of masks", truth, tuple(cases.values()), None, (note,))


def _spacing_of_mask(path: Path) -> tuple[float, ...] | None:
    # a picture's resolution tag says nothing about a mask; a volume's header does
    return read_image(path, in_channels=None).spacing_mm if is_volume(path) else None


def _labelled(dataset: Dataset) -> tuple[list[Case], list[str]]:
    cases = [case for case in dataset.cases if case.label is not None]
    if not cases:
        raise HyMUNetError(
            f"none of the {len(dataset.cases)} cases of {dataset.root} has a reference mask; "
            "an evaluation needs them"
        )
    left = len(dataset.cases) - len(cases)
    return cases, [f"{left} cases without a reference mask were left out"] if left else []


def _choose(
    cases: list[Case], dataset: Dataset, split: str | None, run: Path | None
) -> tuple[list[Case], list[str]]:
    """The cases of the named part: by the run's own split when it knows them, else the data's."""
    if split is None:
        return cases, []
    parts = ("train", "val", "test")
    if split not in parts:
        raise HyMUNetError(f"expected --split train, val or test, got {split!r}")
    known = {case.id for case in cases}
    table, origin = dataset.split, "the data's split.csv"
    if run is not None and (run / "split.json").is_file():
        saved = load_split(run / "split.json")
        own = {name: part for part in parts for name in getattr(saved, part)}
        if own.keys() & known:
            table, origin = own, "the run's split.json"
    if table is None:
        raise HyMUNetError(
            f"--split {split} needs a split, and {dataset.root} has no split.csv; "
            "add one (columns case,split) or leave --split out"
        )
    wanted = {name for name, part in table.items() if part == split}
    if wanted - known:
        raise HyMUNetError(
            f"{origin} puts {len(wanted)} cases into {split}, but {len(wanted - known)} of them "
            f"are not in {dataset.root} or have no mask: {listed(sorted(wanted - known))}"
        )
    if not wanted:
        raise HyMUNetError(f"{origin} puts no case into {split}; choose another part")
    note = f"{len(wanted)} of {len(known)} cases: the part {split} of {origin}"
    return [case for case in cases if case.id in wanted], [note]


def _mask_source(folder: Path, cases: Sequence[Case], dataset: Dataset, num_labels: int) -> _Source:
    """Masks by case id; every case needs exactly one, and every mask a case of the data."""
    if num_labels < 2:
        raise HyMUNetError(f"--num-labels counts the background too: at least 2, got {num_labels}")
    files: dict[str, list[Path]] = {}
    for path in _mask_files(folder):
        files.setdefault(_key(stem_of(path)), []).append(path)
    doubled = {str(path) for paths in files.values() if len(paths) > 1 for path in paths}
    if doubled:
        raise HyMUNetError(
            f"several masks are meant for one case: {listed(sorted(doubled))}; keep one"
        )
    keys = {case.id: _key(case.id.rsplit("/", 1)[-1]) for case in dataset.cases}
    ambiguous = [name for name, count in Counter(keys.values()).items() if count > 1]
    if ambiguous:
        raise HyMUNetError(
            f"{len(ambiguous)} case names differ only in their folder or mask suffix, so a folder "
            f"of masks cannot be matched to them: {listed(sorted(ambiguous))}; rename them"
        )
    missing = {case.id for case in cases if keys[case.id] not in files}
    extra = {files[key][0].name for key in files.keys() - set(keys.values())}
    if missing or extra:
        raise HyMUNetError(
            f"expected one mask for each of the {len(cases)} cases, got {len(missing)} missing"
            + (f" ({listed(sorted(missing))})" if missing else "")
            + f" and {len(extra)} extra"
            + (f" ({listed(sorted(extra))})" if extra else "")
            + f" in {folder}; file names must be those of the cases (suffixes as _mask are ignored)"
        )

    def predict(case: Case, image: Image | None) -> Predicted:
        return PredictedMask(read_mask(files[keys[case.id]][0], num_labels).labels)

    classes = [f"class {i}" for i in range(1, num_labels)] if num_labels > 2 else ["structure"]
    return _Source(str(folder), predict, classes)


def _model_source(prediction: str, run: Path | None, device: str | None) -> _Source:
    from hymunet.inference.predictor import Predictor

    folder = Path(prediction)
    model = folder / "best.safetensors" if folder.is_dir() else prediction
    predictor = Predictor(model, device=device)

    def predict(case: Case, image: Image | None) -> Predicted:
        if image is None:
            raise HyMUNetError(
                f"case {case.id} has a reference mask but no image to predict on; name a data set "
                "with images, or evaluate a folder of masks"
            )
        return predictor(image)

    config = predictor.config
    return _Source(
        str(model),
        predict,
        predictor.classes,
        config.in_channels,
        predictor.info,
        run,
        nested=config.activation == "sigmoid" and len(predictor.classes) > 1,
    )


def _check_unseen(
    cases: Sequence[Case], source: _Source, force: bool
) -> tuple[dict[str, str], list[str]]:
    """Case id -> "train" or "val" for cases that the model has met, compared pixel by pixel.

    Raises:
        HyMUNetError: If any was trained on, unless `force`.
    """
    if not source.info:
        return {}, []
    recorded = source.info.get("cases") or {}
    hashes = {part: _hashes(recorded.get(part)) for part in ("train", "val")}
    if not hashes["train"]:
        return {}, ["the model file lists no training cases: overlap with them was not checked"]
    seen: dict[str, str] = {}
    for case in _progress(cases, "checking that the model has not seen"):
        image = _image(case, source.in_channels)
        found = "" if image is None else case_hash(image.pixels)
        for part, known in hashes.items():
            if found in known:
                seen.setdefault(case.id, part)
    trained = {name for name, part in seen.items() if part == "train"}
    if trained and not force:
        raise HyMUNetError(
            f"{len(trained)} of {len(cases)} cases were trained on: {listed(sorted(trained))}; "
            "their scores say nothing about new images. Name the held-out part (--split test), "
            "or add --force to score them all the same"
        )
    notes = []
    if trained:
        notes.append(
            f"FORCED: {len(trained)} of {len(cases)} cases were trained on; "
            "these numbers do not show how the model does on new images"
        )
    if chose := sum(part == "val" for part in seen.values()):
        notes.append(f"{chose} of {len(cases)} cases were in the validation part; {OPTIMISTIC}")
    return seen, notes


def _hashes(recorded: Any) -> set[str]:
    return set(recorded.values()) if isinstance(recorded, Mapping) else set(recorded or ())


def _made(
    prediction: str, truth: Path, split: str | None, force: bool, device: str | None, seconds: float
) -> dict[str, Any]:
    """How these numbers came about, for the report and metrics.json."""
    words = ["hymunet", "evaluate", prediction, str(truth)]
    words += ["--split", split] if split else []
    words += ["--force"] if force else []
    words += ["--device", device] if device else []
    versions = {"hymunet": __version__}
    for package in ("numpy", "scipy", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": " ".join(f'"{word}"' if " " in word else word for word in words),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(seconds, 1),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
    }
