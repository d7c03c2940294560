"""One model by one seed: a run folder, trained and judged, or the reason why not."""

import csv
import gc
import json
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.case import Case
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import Evaluation, score_all, write_evaluation
from hymunet.evaluation.provenance import record
from hymunet.evaluation.seen import known_cases
from hymunet.evaluation.sources import source_of
from hymunet.evaluation.structures import scored, structures_of_model
from hymunet.evaluation.summary import summarise
from hymunet.evaluation.truth import read_pixels
from hymunet.experiments.compare.adapter import load_into
from hymunet.experiments.compare.entrants import Entrant, new_network
from hymunet.experiments.compare.paces import within_budget
from hymunet.experiments.compare.record import read_record, write_record
from hymunet.experiments.compare.settle import SPLIT, Shared
from hymunet.files import write_text
from hymunet.inference.predictor import Predictor
from hymunet.network.model_file import model_identity
from hymunet.training.fit import fit

FAILURE = "failure.json"
_TEXT = {"case", "class", "group", "seen", "unit"}  # columns of cases.csv that hold no number


@dataclass(frozen=True)
class Cell:
    """One model by one seed, and where its run lies."""

    entrant: Entrant
    seed: int
    comparison: Path

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.comparison / f"{self.entrant.folder}-seed{self.seed}"

    @property
    def failure(self) -> dict[str, Any] | None:
        """Why it could not be finished: `reason`, `traceback`; None where nothing is known."""
        return _read_json(self.failure_file) or None

    @property
    def failure_file(self) -> Path:
        """Where it is written why it could not be finished."""
        return self.comparison / f"{self.folder.name}.{FAILURE}"

    def scores(self) -> list[dict[str, Any]] | None:
        """The rows of its cases.csv; None until it has been judged, with the weights it has now."""
        judged = _read_json(self.folder / "metrics.json").get("model")
        best = self.folder / "best.safetensors"
        if not judged or not self.finished or not best.is_file() or judged != model_identity(best):
            return None
        return read_rows(self.folder / "cases.csv")

    @property
    def provenance(self) -> dict[str, Any]:
        """What the run tells of itself; empty where it has not begun."""
        return _read_json(self.folder / "provenance.json")

    @property
    def finished(self) -> bool:
        """Whether its training has come to its end."""
        return self.provenance.get("finished") is True

    def epochs(self) -> list[tuple[int, float]]:
        """Optimisation steps done by the end of each epoch; seconds that it took, validation
        included."""
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return []
        with open(path, encoding="utf-8", newline="") as file:
            return [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]


def run_cell(cell: Cell, shared: Shared, console: Console) -> bool:
    """Trains and judges a cell, as far as that has not been done; a failure is written down.

    Args:
        cell: Which.
        shared: What all have in common.
        console: Where to report.

    Returns:
        Whether it is done.
    """
    note = cell.failure_file
    try:
        if cell.scores() is None:
            _train_and_judge(cell, shared, console)
    except Exception as error:  # one model's failure must not lose the others
        reason = str(error) if isinstance(error, HyMUNetError) else _named(error)
        content = {
            "model": cell.entrant.name,
            "seed": cell.seed,
            "reason": reason,
            "traceback": traceback.format_exc(),
        }
        write_text(note, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        say(console, f"{cell.entrant.name}, seed {cell.seed}: failed: {reason}", "red")
        say(console, f"  traceback: {note}")
        return False
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    note.unlink(missing_ok=True)
    return True


def _train_and_judge(cell: Cell, shared: Shared, console: Console) -> None:
    if not cell.epochs() and (source := cell.entrant.source()):
        before = read_record(shared.folder)
        sources = before.get("sources", {}) | {cell.folder.name: source}
        write_record(shared.folder, before | {"sources": sources})
    options = replace(shared.options, seed=cell.seed, **cell.entrant.options)
    finished = fit(
        shared.data,
        cell.folder,
        within_budget(options, shared, cell.entrant),
        shared.images,
        shared.masks,
        shared.folder / SPLIT,
        console,
        cell.entrant.given(),
    )
    parts = (finished.split.train, finished.split.val, finished.split.test)
    if parts != (shared.split.train, shared.split.val, shared.split.test):
        raise HyMUNetError(
            f"{cell.folder} was trained by another split than {shared.folder / SPLIT} holds; move "
            "that folder away, and it is trained anew"
        )
    _judge(cell, shared)


def _judge(cell: Cell, shared: Shared) -> None:
    """Writes cases.csv, metrics.json and report.html of a trained cell.

    Every network is built by its builder and given the weights of its file, ours as well, and
    scored without post-processing at a threshold of 0.5.
    """
    import time

    started = time.perf_counter()
    best = cell.folder / "best.safetensors"
    settings = shared.settings_of(cell.entrant, cell.seed)
    network = new_network(cell.entrant, settings, shared.in_channels, shared.spatial_dims)
    info = load_into(best, network)
    device = None if settings.device == "auto" else settings.device
    predictor = Predictor(network, device=device, info=info)
    source = source_of(predictor, str(best), cell.folder)
    found = structures_of_model(source.classes, source.nested, shared.dataset)
    source = replace(source, regions=found.regions, notes=found.notes)
    cases, known = shared.judged_cases(), known_cases(info)
    rows, seen = score_all(cases, source, known)
    median = (info.get("training") or {}).get("contrast_median")
    summary, notes = summarise(rows, median, known.val_chose)
    summary = {
        "prediction": source.name,
        "truth": str(shared.data),
        "data": shared.dataset.name,
        "split": shared.part,
        "structures": scored(source.classes, source.nested, source.regions),
        "forced": False,
        **summary,
        "made": record(
            str(cell.folder), shared.data, {"split": shared.part}, time.perf_counter() - started
        ),
        "model": model_identity(best),
    }
    by_id = {case.id: case for case in cases}
    evaluation = Evaluation(rows, summary, [*source.notes, *known.notes(seen), *notes], None, by_id)

    def predict(case: Case) -> np.ndarray:
        return source.predict(case, read_pixels(case, source.in_channels))

    write_evaluation(cell.folder, evaluation, predict, cell.folder)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a cases.csv with numbers as numbers; an empty cell is None.

    Raises:
        HyMUNetError: If it cannot be read.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [
                {name: text if name in _TEXT else _number(text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HyMUNetError(f"{path} cannot be read ({error}); delete it to judge anew") from error


def _number(text: str | None) -> Any:
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _named(error: Exception) -> str:
    """The type and the first line of an error that nobody expected."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
