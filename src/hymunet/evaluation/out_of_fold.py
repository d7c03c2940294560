"""Scores of a cross-validation: each case by the one network that has not seen it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hymunet.data.case import Case, Dataset
from hymunet.data.splits import Split
from hymunet.evaluation.evaluate import Evaluation, score_all, write_evaluation
from hymunet.evaluation.provenance import record
from hymunet.evaluation.seen import known_cases
from hymunet.evaluation.sources import Source, find_source
from hymunet.evaluation.summary import headline_means, over_folds, summarise
from hymunet.evaluation.truth import read_pixels
from hymunet.network.model_file import model_identity
from hymunet.training.fit import FinishedRun

PART = "out-of-fold"


def judge_folds(
    output: Path,
    data: Path,
    dataset: Dataset,
    splits: Sequence[Split],
    runs: Sequence[FinishedRun],
    command: str,
    started: float,
) -> Evaluation:
    """Scores every case by the network of its fold; writes cases.csv, metrics.json, report.html.

    Args:
        output: Folder to write to, which is the ensemble's name too.
        data: Where the data set lies.
        dataset: Its cases.
        splits: Of each fold; the first one's notes, but for its own, are passed on.
        runs: Of each fold, finished.
        command: What was called.
        started: When, by `time.perf_counter`.

    Returns:
        As `evaluate`, with the key `fold` in each row, and in the summary `folds` (what each was
        made of, and its means) and `over_folds` (their mean and standard deviation by metric).

    Raises:
        HyMUNetError: If a case was trained on by the network of its fold, or cannot be read.
    """
    by_id = {case.id: case for case in dataset.cases}
    rows: list[dict[str, Any]] = []
    judges: dict[str, Source] = {}
    for number, (split, run) in enumerate(zip(splits, runs, strict=True)):
        cases = [by_id[id_] for id_ in split.test]
        source = find_source(str(run.folder.path), cases, dataset)
        scored, _ = score_all(cases, source, known_cases(source.info))
        # beside the names, where a reader of cases.csv looks for it
        rows += [{"case": r["case"], "class": r["class"], "fold": number, **r} for r in scored]
        judges |= {case.id: source for case in cases}
    rows.sort(key=lambda row: row["case"])  # stable: classes stay in order

    # every case is a training case of other folds, so their own median is the training cases'
    summary, notes = summarise(rows)
    spread = over_folds(rows, list(headline_means(summary)))
    summary = {
        "prediction": str(output),
        "truth": str(data),
        "data": dataset.name,
        "split": PART,
        "forced": False,
        **summary,
        "folds": [
            {
                "fold": number,
                "n": len(split.test),
                "train": len(split.train),
                "val": len(split.val),
                "epochs": run.epochs,
                "best_epoch": run.best_epoch,
                "val_dice": run.best_dice,
                "means": spread["by_fold"][number],
                "model": model_identity(run.folder.path),
            }
            for number, (split, run) in enumerate(zip(splits, runs, strict=True))
        ],
        "over_folds": {"mean": spread["mean"], "sd": spread["sd"]},
        "made": record(str(output), data, {}, time.perf_counter() - started, "train")
        | {"command": command},
    }
    notes = [
        "each case was scored by the network of its fold, which had it neither for training nor "
        "for choosing the epoch",
        "the figures are those of one network; all folds together (predict --model "
        f"{output}) are another model, which none of these cases can judge",
        *splits[0].notes[1:],
        *notes,
    ]
    sources = {id_: by_id[id_] for id_ in judges}
    evaluation = Evaluation(rows, summary, notes, None, sources)

    def predict(case: Case) -> np.ndarray:
        source = judges[case.id]
        return source.predict(case, read_pixels(case, source.in_channels))

    write_evaluation(output, evaluation, predict)
    return evaluation
