"""Cells one after the other, then their figures: what `compare` and `ablate` have in common."""

import json
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from rich.console import Console

from hymunet.console import say
from hymunet.errors import HyMUNetError
from hymunet.evaluation.tables import as_json
from hymunet.experiments.compare.cells import Cell, run_cell
from hymunet.experiments.compare.costs import Cost, measure
from hymunet.experiments.compare.entrants import Entrant
from hymunet.experiments.compare.kinds import differences_within
from hymunet.experiments.compare.paces import measure_paces, paces
from hymunet.experiments.compare.record import read_record, write_record
from hymunet.experiments.compare.results import (
    differences,
    empty_notes,
    model_figures,
    shared_seeds,
    statistics_notes,
)
from hymunet.experiments.compare.settle import Shared
from hymunet.files import write_text
from hymunet.machine import machine
from hymunet.training.run_config import read_config
from hymunet.training.run_folder import machine_facts


def run_cells(
    shared: Shared, entrants: Sequence[Entrant], seeds: Sequence[int], console: Console
) -> None:
    """Trains and judges every model by every seed; what is done already is left alone.

    All models take their turn by the first seed before any does by the second, so that what is
    interrupted can be looked at. The record remembers who took part, by this call and others.
    """
    record = read_record(shared.folder)
    known = [Entrant(**one) for one in record["models"]]
    cells = [(name, int(seed)) for name, seed in record["cells"]]
    for entrant in entrants:
        if entrant not in known:
            _check_name(entrant, known)
            known.append(entrant)
        cells += [(entrant.name, s) for s in seeds if (entrant.name, s) not in cells]
        own = [Cell(entrant, seed, shared.folder) for name, seed in cells if name == entrant.name]
        _check_source(entrant, own, record.get("sources", {}))
    record |= {"models": [asdict(one) for one in known], "cells": cells}
    write_record(shared.folder, record)
    measure_paces(shared, entrants, console)
    total = len(seeds) * len(entrants)
    for number, seed in enumerate(seeds):
        for place, entrant in enumerate(entrants):
            count = number * len(entrants) + place + 1
            say(console, f"{entrant.name}, seed {seed} ({count} of {total})", "bold")
            run_cell(Cell(entrant, seed, shared.folder), shared, console)


def summarise(
    shared: Shared, asked: Set[tuple[str, int]], command: str, started: float, console: Console
) -> dict[str, Any]:
    """Figures of all cells that are done, whichever call did them; writes costs.json and
    table.json.

    Args:
        shared: What all have in common.
        asked: Models and seeds of this call.
        command: Of this call.
        started: When it began, on the clock `time.perf_counter`.
        console: Where to report.

    Raises:
        HyMUNetError: If no cell is done.
    """
    record = read_record(shared.folder)
    entrants = {one["name"]: Entrant(**one) for one in record["models"]}
    cells = [Cell(entrants[name], int(seed), shared.folder) for name, seed in record["cells"]]
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in entrants}
    failed, left = [], []
    for cell in cells:
        scores = cell.scores()
        if scores is not None:
            rows[cell.entrant.name][cell.seed] = scores
        elif cell.failure is not None:
            reason = cell.failure["reason"]
            name, seed = cell.entrant.name, cell.seed
            failed.append(
                {
                    "model": name,
                    "seed": seed,
                    "reason": reason,
                    "file": cell.failure_file.name,
                    "asked": (name, seed) in asked,
                }
            )
        else:
            left.append({"model": cell.entrant.name, "seed": cell.seed})
    rows = {name: by_seed for name, by_seed in rows.items() if by_seed}
    if not rows:
        reasons = "; ".join(f"{one['model']}: {one['reason']}" for one in failed)
        raise HyMUNetError(f"no model has been trained and judged; {reasons}")
    reference = next(iter(entrants))
    found = differences(rows, reference) if reference in rows else {}
    within = differences_within(rows, reference) if reference in rows else {}
    costs, cost_facts = _costs(shared, [entrants[name] for name in rows], console)
    models = [
        {
            "name": name,
            "what": _described(entrants[name], shared),
            "factor": entrants[name].factor,
            **_training(shared, [c for c in cells if c.entrant.name == name and c.seed in by_seed]),
            **model_figures(by_seed),
            "difference": found.get(name),
            "difference_seeds": shared_seeds(by_seed, rows.get(reference, {})),
            "difference_within": within.get(name),
            "cost": asdict(costs[name]),
        }
        for name, by_seed in rows.items()
    ]
    notes = statistics_notes(models[0]["groups"], len(found), max(map(len, rows.values())))
    notes += empty_notes(rows)
    if reference not in rows:
        notes.append(f"{reference}, which the others are to be compared with, is not done: no "
                     "differences")  # fmt: skip
    if not shared.split.test:
        notes.append("the data have no test part: models are judged on the validation part, which "
                     "chose their epochs, so all scores are optimistic")  # fmt: skip
    notes += _edited(entrants, cells, record.get("sources", {}))
    notes += [f"{name}: {note}" for name, cost in costs.items() for note in cost.notes]
    summary = {
        "data": shared.dataset.name,
        "root": str(shared.data),
        "part": shared.part,
        "n": models[0]["n"],
        "groups": models[0]["groups"],
        "length_unit": models[0]["length_unit"],
        "size": list(shared.size),
        "split": {part: len(getattr(shared.split, part)) for part in ("train", "val", "test")},
        "budget": shared.options.budget,
        "batch_size": shared.settings.batch_size,
        "reference": reference,
        "models": models,
        "failed": failed,
        "open": left,
        "costs": cost_facts,
        "notes": notes,
        "made": {
            "command": command,
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "seconds": round(time.perf_counter() - started, 1),
            **{k: v for k, v in machine_facts(_device(shared)).items() if k != "command"},
        },
    }
    write_text(shared.folder / "table.json", as_json(summary))
    return summary


def _training(shared: Shared, cells: Sequence[Cell]) -> dict[str, Any]:
    """Seeds, epochs and time of a model's trainings. `passes` is how often each training case (or
    patch) was seen, `best_passes` how often until the weights that were kept; `images_a_second`
    counts them by the run's own clock, loading, augmentation and validation included; under a
    budget by the pace that was measured in turns with the others'."""
    samples = len(shared.split.train) * shared.settings.patches
    batch = min(shared.settings.batch_size, samples)
    epochs = [cell.epochs() for cell in cells]
    best = [cell.provenance.get("best_epoch") for cell in cells]
    done = [rows[-1][0] if rows else 0 for rows in epochs]
    until_best = [rows[k - 1][0] if k else 0 for rows, k in zip(epochs, best, strict=True)]
    a_step = [
        float(np.median([seconds for _, seconds in rows])) * len(rows) / rows[-1][0]
        for rows in epochs
        if rows
    ]
    if (pace := paces(shared).get(cells[0].entrant.name)) is not None:
        a_step = [pace["step"] + pace["look"] / pace["steps_per_epoch"]]
    return {
        "seeds": [cell.seed for cell in cells],
        "epochs": [read_config(cell.folder / "config.yaml").get("epochs") for cell in cells],
        "best_epochs": best,
        "steps": done,
        "passes": [steps * batch / samples for steps in done],
        "best_passes": [steps * batch / samples for steps in until_best],
        "training_seconds": [cell.provenance.get("training_seconds") for cell in cells],
        "images_a_second": batch / float(np.median(a_step)) if a_step else None,
    }


def _edited(
    entrants: Mapping[str, Entrant], cells: Sequence[Cell], sources: Mapping[str, str]
) -> list[str]:
    """A note for each model whose file is not what its seeds were trained with."""
    notes = []
    for name, entrant in entrants.items():
        old = _of_another_file(entrant, [c for c in cells if c.entrant.name == name], sources)
        if old:
            notes.append(
                f"{name}: its file was edited after seed {', '.join(str(c.seed) for c in old)} had "
                "been trained: scores are of the file as it was, costs of the file as it is; move "
                "those run folders away, and they are trained anew"
            )
    return notes


def _of_another_file(
    entrant: Entrant, cells: Sequence[Cell], sources: Mapping[str, str]
) -> list[Cell]:
    """The cells that were trained with the file of the function as it was before."""
    now = entrant.source()
    begun = [cell for cell in cells if cell.epochs()]
    return [cell for cell in begun if now and sources.get(cell.folder.name, now) != now]


def _check_source(entrant: Entrant, cells: Sequence[Cell], sources: Mapping[str, str]) -> None:
    """Refuses to train a network beside others of one name that were something else."""
    old = _of_another_file(entrant, cells, sources)
    if old and not all(cell.finished for cell in cells):
        raise HyMUNetError(
            f"{entrant.name}: its file was edited since {', '.join(c.folder.name for c in old)} "
            f"began, so different networks would stand under one name; move what is old out of "
            f"{old[0].comparison}, and it is trained anew, or give the new network a function of "
            "its own"
        )


def _described(entrant: Entrant, shared: Shared) -> str:
    """What it is, with the shared options that make it another network."""
    skip = shared.settings_of(entrant, 0).skip
    if entrant.builder is not None or skip == "mgf" or "skip" in entrant.options:
        return entrant.what
    return f"{entrant.what}; its skips: {skip}"


def _costs(
    shared: Shared, entrants: Sequence[Entrant], console: Console
) -> tuple[dict[str, Cost], dict[str, Any]]:
    """What every model costs, measured in turns; as costs.json has it where nothing changed. A
    user's file that cannot be read any more is taken for unchanged."""
    path = shared.folder / "costs.json"
    facts = {
        **machine("numba"),
        "size": list(shared.size),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    sources = {e.name: source for e in entrants if (source := e.source())}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        edited = sources.items() - kept.get("sources", {}).items()
        known = {e.name for e in entrants} <= kept["models"].keys()
        if kept["facts"] == facts and known and not edited:
            return {e.name: Cost(**kept["models"][e.name]) for e in entrants}, facts
    except (OSError, ValueError, KeyError, TypeError):
        pass
    say(console, "measuring latency and memory at batch 1")
    settings = {entrant.name: shared.settings_of(entrant, 0) for entrant in entrants}
    costs = measure(entrants, settings, shared.in_channels, shared.size)
    measured = {name: asdict(cost) for name, cost in costs.items() if cost.parameters is not None}
    content = {"facts": facts, "sources": sources, "models": measured}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return costs, facts


def _check_name(entrant: Entrant, known: Sequence[Entrant]) -> None:
    for other in known:
        if entrant.folder.lower() == other.folder.lower():
            raise HyMUNetError(
                f"{entrant.name} and {other.name} would share the folder {entrant.folder}; give "
                "one of them another name, or another --output"
            )


def _device(shared: Shared) -> torch.device:
    on_gpu = shared.options.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")
