"""`hymunet train --folds`: a network a fold, every case judged by the one that did not see it."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hymunet.console import say
from hymunet.data.case import Dataset
from hymunet.data.folds import load_folds, save_folds
from hymunet.data.formats import find_dataset
from hymunet.data.groups import grouped_by_name
from hymunet.data.masks_io import listed
from hymunet.data.splits import Split, save_split
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.out_of_fold import judge_folds
from hymunet.evaluation.provenance import command_line
from hymunet.evaluation.summary import headline_means
from hymunet.evaluation.terminal import print_tables
from hymunet.files import make_folder, strangers
from hymunet.training.fit import FinishedRun, fit
from hymunet.training.options import TrainOptions
from hymunet.training.run_config import changed_options, differing, plain_settings
from hymunet.wording import plural
from hymunet.workflows.after_training import choose_after_training
from hymunet.workflows.fold_drawing import draw_folds
from hymunet.workflows.train import TrainResult


def cross_validate(
    data: Path,
    output: Path,
    options: TrainOptions,
    folds: int | None,
    fold: int | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Trains `folds` networks and scores every case by the one that did not see it.

    `output` gets folds.json (drawn once), split-fold-K.json and the run folder fold-K for each
    fold, and cases.csv, metrics.json and report.html over all of them. Called again it goes on
    where it stopped; finished folds are only scored.

    Args:
        data: A data set in any layout of `find_dataset`.
        output: The folder; one that holds this very cross-validation is resumed.
        options: All settings, the same for each fold.
        folds: How many.
        fold: Train and score this one only, 0 the first; None: all of them.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        split_file: See `read_split`: its train and val parts are cross-validated over together,
            its test part is left untouched; None: so with the data's own split, where there is one.
        console: Where to report; None: standard error.

    Raises:
        HyMUNetError: If the data, the folder or the settings cannot be used.
    """
    started = time.perf_counter()
    console = console or Console(stderr=True)
    if folds is None:
        raise HyMUNetError(
            f"--fold {fold} says which fold to train, but not of how many; add --folds, such as "
            "--folds 5"
        )
    if fold is not None and not 0 <= fold < folds:
        raise HyMUNetError(f"--fold counts from 0 to {folds - 1} with --folds {folds}, not {fold}")
    settings = {"folds": folds, **plain_settings(options, data, images, masks, split_file)}
    path = output / "folds.json"
    dataset = grouped_by_name(find_dataset(data, images, masks), options.groups)
    if not _holds(output, path, settings):
        drawn = draw_folds(dataset, options, folds, split_file, console)
        make_folder(output)
        save_folds(path, drawn, settings)
    splits, _ = load_folds(path)
    _check_cases(path, splits, dataset)

    chosen = range(folds) if fold is None else (fold,)
    runs = []
    for number in chosen:
        say(console, f"fold {number}, {number + 1} of {folds}", "bold")
        file = output / f"split-fold-{number}.json"
        save_split(file, splits[number])
        run = fit(data, output / f"fold-{number}", options, images, masks, file, console)
        _check_split(run, splits[number], path)
        choose_after_training(run, options, console)
        runs.append(run)
    if fold is not None:
        return _one_fold(runs[0], data, images, masks, output, folds, options.groups, console)
    words = {
        "folds": folds, "output": output, "images": images, "masks": masks,
        "split_file": split_file, **changed_options(options),
    }  # fmt: skip
    command = command_line("train", [str(data)], words)
    evaluation = judge_folds(output, data, dataset, splits, runs, command, started)
    print_tables(evaluation)
    say(console, f"the folds together: hymunet predict IMAGES --model {output} --output MASKS")
    say(console, f"report: {output / 'report.html'}")
    dice = headline_means(evaluation.summary)["dice"]["mean"]
    return TrainResult(output, output, output / "report.html", dice)


def _holds(output: Path, path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder already holds this cross-validation; nothing is written.

    Raises:
        HyMUNetError: If it holds one with other settings, or files that are none.
    """
    if not path.exists():
        if others := strangers(output):
            raise HyMUNetError(
                f"the output folder {output} is not empty and holds no cross-validation "
                f"({listed(others)}; folds.json is missing); choose a new folder"
            )
        return False
    if differ := differing(load_folds(path)[1], settings):
        raise HyMUNetError(
            f"the cross-validation in {output} was begun with other settings: "
            f"{'; '.join(differ)}. Give the same settings to go on, or another --output to start "
            "anew"
        )
    return True


def _check_cases(path: Path, splits: Sequence[Split], dataset: Dataset) -> None:
    ids = {case.id for case in dataset.cases}
    gone = {id_ for split in splits for id_ in (*split.train, *split.val, *split.test)} - ids
    if gone:
        raise HyMUNetError(
            f"{plural(len(gone), f'case of {path} is', f'cases of {path} are')} no longer in the "
            f"data ({listed(sorted(gone))}); restore them, or start anew in another --output"
        )


def _check_split(run: FinishedRun, split: Split, path: Path) -> None:
    """Refuses a run folder that was trained by other parts than folds.json says now."""
    if (run.split.train, run.split.val, run.split.test) != (split.train, split.val, split.test):
        raise HyMUNetError(
            f"{run.folder.path} was trained by another split than {path} holds, so its scores "
            "would not be out of fold; bring folds.json back, or move that folder away"
        )


def _one_fold(
    run: FinishedRun,
    data: Path,
    images: Path | None,
    masks: Path | None,
    output: Path,
    folds: int,
    groups: str | None,
    console: Console,
) -> TrainResult:
    """Scores one fold alone, as a run of its own, and says which folds are still to be trained."""
    folder = run.folder.path
    evaluation = evaluate(
        str(folder), data, images=images, masks=masks, split="test", output=folder, groups=groups
    )
    open_ = [k for k in range(folds) if not _is_finished(output / f"fold-{k}")]
    if open_:
        say(console, f"still to be trained: --fold {', '.join(map(str, open_))}")
    else:
        say(console, "all folds are trained: the same command without --fold joins them")
    say(console, f"report: {folder / 'report.html'}")
    dice = headline_means(evaluation.summary)["dice"]["mean"]
    return TrainResult(folder, run.folder.best, folder / "report.html", dice)


def _is_finished(folder: Path) -> bool:
    try:
        text = (folder / "provenance.json").read_text(encoding="utf-8")
        return json.loads(text).get("finished") is True
    except (OSError, ValueError):
        return False
