"""`hymunet calibrate`: are a model's probabilities right, and at which one should it cut?

Both are answered on held-out cases. What was chosen there is no longer clean there: a threshold
that is written into a model file brings along the fingerprints of the cases that chose it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hymunet.errors import HyMUNetError
from hymunet.evaluation import tables
from hymunet.evaluation.held_out import limited, refuse_masks
from hymunet.evaluation.probabilities import Counted, count_all
from hymunet.evaluation.provenance import record
from hymunet.evaluation.seen import known_cases
from hymunet.evaluation.summary import few_groups_notes
from hymunet.evaluation.thresholds import choose_threshold
from hymunet.evaluation.truth import find_cases
from hymunet.files import make_folder, write_text
from hymunet.metrics.calibration import calibration_error, pooled_mean, reliability

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor


@dataclass
class Calibration:
    """What one calibration found.

    Args:
        summary: What `calibration.json` holds: `probabilities` by structure (for softmax that of
            the most probable class) with `ece`, `brier` and `reliability`; `threshold` (None for
            softmax), see `hymunet.evaluation.thresholds.choose_threshold`.
        notes: What a reader has to know to judge the numbers.
        written: The model file that was given the threshold; None without `write`.
    """

    summary: dict[str, Any]
    notes: list[str]
    written: Path | None = None


def calibrate(
    model: str | Path,
    data: Path,
    *,
    output: Path | None = None,
    split: str | None = None,
    split_file: Path | None = None,
    write: bool = False,
    metric: Literal["dice", "iou"] = "dice",
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

    Args:
        model: A model file, a run folder (its best.safetensors) or the name of a packaged model.
        data: A data set in any layout that training takes.
        output: Folder for calibration.json and thresholds.csv; without it no report is written.
        split: Only this part of the data: train, val or test.
        split_file: Says which case is in which part, as for `evaluate`.
        write: Store the threshold in the model file, which `predict` and `evaluate` then cut at.
            Weights stay as they are. The cases that chose it are recorded: `evaluate` will call
            them optimistic.
        metric: The mean that the threshold is to maximise.
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
            threshold is to be written where there is none to choose or no place for it.
    """
    from hymunet.inference.predictor import Predictor
    from hymunet.network.model_file import find_model, model_identity

    started = time.perf_counter()
    refuse_masks(str(model), "calibrate")
    path = find_model(model)
    dataset, cases, notes = find_cases(Path(data), str(model), split, images, masks, split_file)
    cases, limit_notes = limited(cases, limit)
    predictor = Predictor(path, device=device, tta=tta)
    if write:
        _check_writable(path, predictor, force)
    known = known_cases(predictor.info)
    if output is not None:
        make_folder(Path(output))
    counted = count_all(cases, predictor, known, force)

    options: dict[str, str | Path | int | None] = {
        "images": images, "masks": masks, "split": split, "split_file": split_file,
        "write": write, "metric": metric, "limit": limit, "tta": tta,
        "force": force, "device": device, "output": output,
    }  # fmt: skip
    sigmoid = predictor.config.activation == "sigmoid"
    summary: dict[str, Any] = {
        "prediction": str(path),
        "truth": str(data),
        "data": dataset.name,
        "split": split,
        "tta": tta,
        "forced": force and "train" in counted.seen.values(),
        "n": len(cases),
        "groups": len(set(counted.groups)),
        "interval": "95 % bootstrap over groups",
        "model": model_identity(path),
        "probabilities": _probabilities(counted),
        "threshold": choose_threshold(counted.counts, counted.groups, metric, predictor.threshold)
        if sigmoid
        else None,
        "made": record(str(model), Path(data), options, time.perf_counter() - started, "calibrate"),
    }
    notes = [*notes, *limit_notes, *known.notes(counted.seen), *_notes(summary)]
    result = Calibration(summary, notes)
    if write:
        result.written = _write_threshold(path, summary, counted.hashes)
        notes.append(
            f"threshold {summary['threshold']['chosen']:g} written to {path}; these {len(cases)} "
            "cases chose it: judge the model on others"
        )
    if output is not None:
        _write(Path(output), result)
    if json:
        print(as_json(result), end="")
    else:
        from hymunet.evaluation.calibrate_terminal import print_tables

        print_tables(result)
    return result


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


def _check_writable(path: Path, predictor: "Predictor", force: bool) -> None:
    import hymunet

    if predictor.config.activation != "sigmoid":
        raise HyMUNetError(
            f"--write stores a threshold, but {path} chooses the most probable class (softmax) and "
            "has none; leave --write out"
        )
    if force:
        raise HyMUNetError(
            "--write and --force do not go together: a threshold chosen on cases that the model "
            "was trained on does not fit new ones; name a held-out part (--split val)"
        )
    if Path(hymunet.__file__).resolve().parent in path.resolve().parents:
        raise HyMUNetError(
            f"{path} belongs to the installed package and is not changed; copy it to a folder of "
            "your own and name the copy"
        )


def _write_threshold(path: Path, summary: Mapping[str, Any], hashes: Sequence[str]) -> Path:
    """Gives the model file its threshold, and says in it how it was chosen and on which cases."""
    from hymunet.network.model_file import read_info, replace_info

    chosen = summary["threshold"]
    calibration = {
        "threshold": chosen["chosen"],
        "metric": chosen["metric"],
        "data": summary["data"],
        "split": summary["split"],
        "tta": summary["tta"],
        "n": summary["n"],
        "gain": chosen["gain"],
        "date": summary["made"]["date"],
        "cases": sorted(hashes),
    }
    info = read_info(path)
    return replace_info(path, info | {"threshold": chosen["chosen"], "calibration": calibration})


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = few_groups_notes(summary["groups"])
    chosen = summary["threshold"]
    if chosen and chosen["chosen"] != 0.5:
        gain = chosen["gain_cross_fitted"]
        if gain is None or gain["low"] is None or gain["low"] <= 0:
            notes.append(
                f"the gain of {chosen['chosen']:g} over 0.5 is not certain on cases that did not "
                "choose it: 0.5 may do as well"
            )
    return notes


def _write(folder: Path, result: Calibration) -> None:
    write_text(folder / "calibration.json", as_json(result))
    if result.summary["threshold"]:
        curve = tables.as_csv(result.summary["threshold"]["curve"])
        write_text(folder / "thresholds.csv", curve)


def as_json(result: Calibration) -> str:
    """The summary, the notes and the file that was written as JSON."""
    written = None if result.written is None else str(result.written)
    return tables.as_json(result.summary | {"notes": result.notes, "written": written})
