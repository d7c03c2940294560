"""`hymunet calibrate`: are a model's probabilities right, and at which one should it cut?

At the best one, or at the one that keeps a miss rate (`hymunet.evaluation.risk_control`). All is
answered on held-out cases. What was chosen there is no longer clean there: a threshold that is
written into a model file brings along the fingerprints of the cases that chose it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hymunet.errors import HyMUNetError
from hymunet.evaluation import tables
from hymunet.evaluation.file_threshold import check_writable, write_threshold
from hymunet.evaluation.held_out import limited, refuse_masks
from hymunet.evaluation.miss_rates import control, structure_index
from hymunet.evaluation.probabilities import Counted, count_all
from hymunet.evaluation.provenance import record
from hymunet.evaluation.risk_control import case_rows, risk_notes, summarise_risk
from hymunet.evaluation.seen import known_cases
from hymunet.evaluation.summary import few_groups_notes
from hymunet.evaluation.thresholds import choose_threshold
from hymunet.evaluation.truth import find_cases
from hymunet.files import make_folder, write_text
from hymunet.metrics.calibration import calibration_error, pooled_mean, reliability
from hymunet.metrics.risk_control import cases_needed
from hymunet.network.promise import takes_away


@dataclass
class Calibration:
    """What one calibration found.

    Args:
        summary: What `calibration.json` holds: `probabilities` by structure (for softmax that of
            the most probable class) with `ece`, `brier` and `reliability`; `threshold` (None for
            softmax), see `hymunet.evaluation.thresholds.choose_threshold`. With a miss rate
            instead of these `risk_control`, see `hymunet.evaluation.risk_control.summarise_risk`.
        notes: What a reader has to know to judge the numbers.
        written: The model file that was given the threshold; None without `write`.
        cases: With a miss rate: a row a case, what `risk_control.csv` holds.
    """

    summary: dict[str, Any]
    notes: list[str]
    written: Path | None = None
    cases: list[dict[str, Any]] = field(default_factory=list)


def calibrate(
    model: str | Path,
    data: Path,
    *,
    output: Path | None = None,
    split: str | None = None,
    split_file: Path | None = None,
    write: bool = False,
    metric: Literal["dice", "iou"] | None = None,
    miss_rate: float | None = None,
    structure: str | None = None,
    limit: int | None = None,
    tta: bool = False,
    images: Path | None = None,
    masks: Path | None = None,
    force: bool = False,
    device: str | None = None,
    json: bool = False,
) -> Calibration:
    """Checks a model's probabilities on held-out cases, and finds the threshold that is best there.

    Prints the expected calibration error (15 bins), the Brier score and the reliability table; for
    models that cut at a threshold also per-image Dice and IoU at 0.05 to 0.95, how flat the best
    is, and its gain over 0.5 with 95 % intervals: on the same cases, and cross-fitted, on cases
    that did not choose it.

    With --miss-rate it does something else: it finds the highest threshold at which, in a new case,
    no more than that share of the structure is missed on average (conformal risk control), and what
    it costs in precision and Dice. This holds for cases that come as these did, on average over
    them: not for each image, nor for each kind of image.

    Args:
        model: A model file, a run folder (its best.safetensors), a folder of folds (together)
            or the name of a packaged model.
        data: A data set in any layout that training takes.
        output: Folder for calibration.json and thresholds.csv (with --miss-rate: risk_control.json
            and risk_control.csv, a row a case); without it no report is written.
        split: Only this part of the data: train, val or test.
        split_file: Says which case is in which part, as for `evaluate`.
        write: Store the threshold in the model file, which `predict` and `evaluate` then cut at.
            Weights stay as they are. The cases that chose it are recorded: `evaluate` will call
            them optimistic.
        metric: The mean that the threshold is to maximise: dice (the default) or iou.
        miss_rate: The share of the structure that may be missed on average, such as 0.1. Needs
            1 / rate - 1 cases that had no part in the model, one a patient; of a group one is
            drawn.
        structure: With --miss-rate, of a model of several nested structures: the one that it is
            kept for.
        limit: At most so many cases, evenly spread over the list.
        tta: Test-time augmentation: the mean over mirrorings and quarter turns, 8 times the work.
        images: Folder of images, when it has no usual name.
        masks: Folder of reference masks, when it has no usual name.
        force: Use cases the model was trained on as well; not together with --write.
        device: cpu, cuda or cuda:1; chosen for you when left out.
        json: Print the summary as JSON instead of tables.

    Returns:
        Summary, notes, and the file that was written.

    Raises:
        HyMUNetError: If model and data do not belong together, cases were trained on, or a
            threshold is to be written where there is none to choose or no place for it; with a
            miss rate also if the cases are too few for it, or chose the model's epoch.
    """
    from hymunet.inference.predictor import Predictor
    from hymunet.network.model_file import find_models, models_identity

    started = time.perf_counter()
    refuse_masks(str(model), "calibrate")
    _check_options(metric, miss_rate, structure, force)
    paths = find_models(model)
    path = paths[0] if len(paths) == 1 else Path(model)
    dataset, cases, notes = find_cases(Path(data), str(model), split, images, masks, split_file)
    cases, limit_notes = limited(cases, limit)
    # probabilities are looked at, and masks as they are cut from them
    predictor = Predictor(paths, device=device, tta=tta, postprocess=False)
    index = 0 if miss_rate is None else structure_index(predictor, structure, path)
    if write and len(paths) > 1:
        raise HyMUNetError(
            f"--write stores a threshold in one model file, and {path} holds {len(paths)}; "
            "leave it out, and name the threshold by `predict --threshold`"
        )
    if write:
        check_writable(path, predictor, force)
    known = known_cases(predictor.info, postprocess=False)
    if output is not None:
        make_folder(Path(output))
    result = Calibration({}, [*notes, *limit_notes, *predictor.notes])
    if miss_rate is None:
        counted = count_all(cases, predictor, known, force)
        seen, hashes, groups = counted.seen, counted.hashes, len(set(counted.groups))
        found: dict[str, Any] = {
            "probabilities": _probabilities(counted),
            "threshold": choose_threshold(
                counted.counts, counted.groups, metric or "dice", predictor.threshold
            )
            if predictor.config.activation == "sigmoid"
            else None,
        }
    else:
        missed = control(cases, predictor, known, miss_rate, index)
        # a threshold that is replaced has no part in the new one
        seen = {name: part.replace("threshold", "") for name, part in missed.seen.items()}
        hashes, groups = missed.hashes, len(missed.hashes)
        found = {"risk_control": summarise_risk(missed, miss_rate, predictor)}
        result.cases = case_rows(missed)
        result.notes += missed.notes

    options: dict[str, str | Path | int | None] = {
        "images": images, "masks": masks, "split": split, "split_file": split_file,
        "write": write, "metric": metric, "miss_rate": _plain(miss_rate), "structure": structure,
        "limit": limit, "tta": tta, "force": force, "device": device, "output": output,
    }  # fmt: skip
    summary = result.summary
    summary |= {
        "prediction": str(path),
        "truth": str(data),
        "data": dataset.name,
        "split": split,
        "tta": tta,
        "forced": force and "train" in seen.values(),
        "n": len(hashes),
        "groups": groups,
        "interval": "95 % bootstrap over groups",
        "model": models_identity(path),
        **found,
        "made": record(str(model), Path(data), options, time.perf_counter() - started, "calibrate"),
    }
    result.notes += [*known.notes(seen), *_notes(summary)]
    result.notes += _postprocess_notes(predictor.info, miss_rate is not None)
    if write:
        result.written = path
        result.notes += write_threshold(path, summary, hashes)
    if output is not None:
        _write(Path(output), result)
    if json:
        print(as_json(result), end="")
    elif miss_rate is not None:
        from hymunet.evaluation.risk_control_terminal import print_risk

        print_risk(result)
    else:
        from hymunet.evaluation.calibrate_terminal import print_tables

        print_tables(result)
    return result


def _check_options(
    metric: str | None, miss_rate: float | None, structure: str | None, force: bool
) -> None:
    if miss_rate is None:
        if structure is not None:
            raise HyMUNetError(
                "--structure names what --miss-rate is kept for; without it the threshold is that "
                "of all structures: leave it out"
            )
        return
    cases_needed(miss_rate)
    if metric is not None:
        raise HyMUNetError(
            f"--metric {metric} and --miss-rate {miss_rate:g} each set the threshold; name one"
        )
    if force:
        raise HyMUNetError(
            "--miss-rate and --force do not go together: cases that the model was trained on say "
            "nothing of what it misses in new ones"
        )


def _plain(number: float | None) -> str | None:
    return None if number is None else str(number)


def _probabilities(counted: Counted) -> dict[str, dict[str, Any]]:
    found = {}
    for name, cases in counted.counts.items():
        sums = counted.squared_error or [case.squared_error for case in cases]
        pixels = [float(case.pixels.sum()) for case in cases]
        found[name] = {
            "ece": tables.as_bounds(calibration_error(cases, counted.groups)),
            "brier": tables.as_bounds(pooled_mean(sums, pixels, counted.groups)),
            "reliability": reliability(cases),
        }
    return found


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = few_groups_notes(summary["groups"])
    if "risk_control" in summary:
        notes += risk_notes(summary["risk_control"])
    chosen = summary.get("threshold")
    if chosen and chosen["chosen"] != 0.5:
        gain = chosen["gain_cross_fitted"]
        if gain is None or gain["low"] is None or gain["low"] <= 0:
            notes.append(
                f"the gain of {chosen['chosen']:g} over 0.5 is not certain on cases that did not "
                "choose it: 0.5 may do as well"
            )
    return notes


def _postprocess_notes(info: Mapping[str, Any], promised: bool) -> list[str]:
    if not info.get("postprocess"):
        return []
    notes = ["masks are counted as they are cut, without the post-processing that the file holds"]
    if promised and takes_away(info["postprocess"]):
        notes.append(
            "the rate holds for masks without post-processing only (`predict --no-postprocess`): "
            "this file's takes away parts of structures"
        )
    return notes


def _write(folder: Path, result: Calibration) -> None:
    if "risk_control" in result.summary:
        write_text(folder / "risk_control.json", as_json(result))
        write_text(folder / "risk_control.csv", tables.as_csv(result.cases))
        return
    write_text(folder / "calibration.json", as_json(result))
    if result.summary["threshold"]:
        curve = tables.as_csv(result.summary["threshold"]["curve"])
        write_text(folder / "thresholds.csv", curve)


def as_json(result: Calibration) -> str:
    """The summary, the notes and the file that was written as JSON."""
    written = None if result.written is None else str(result.written)
    return tables.as_json(result.summary | {"notes": result.notes, "written": written})
