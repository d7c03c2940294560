"""The figures of a model card: evaluations, robustness and calibration, cut to what a card tells.

They are kept in the model file's metadata (`card`), so that a file carries its own results, and
the card can be written from the file alone.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hymunet.errors import HyMUNetError

FAILURES = {
    "missed": "missed altogether",
    "no_overlap": "without a pixel in common",
    "false_alarm": "found where there is nothing",
}
_EVALUATION = (
    "data", "split", "n", "groups", "length_unit", "area_unit", "interval", "notes",
)  # fmt: skip
_CLASS = ("n", "per_image", "pooled", "cuts", "strata")
_MEASURED = ("data", "split", "tta", "n", "groups", "notes")
_ROBUSTNESS = (*_MEASURED, "fell_by", "clean", "corruptions")
_CORRUPTION = ("kind", "corruption", "n", "dice", "iou", "dice_change", "fell")
_CALIBRATION = (*_MEASURED, "probabilities", "threshold")


def card_numbers(
    evaluations: Sequence[Mapping[str, Any]],
    robustness: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    name: str = "MODEL",
) -> dict[str, Any]:
    """What a card needs of its inputs, without case names, paths and superfluous digits.

    Args:
        evaluations: Contents of the metrics.json that `hymunet evaluate` wrote, the most important
            first.
        robustness: Content of a robustness.json.
        calibration: Content of a calibration.json.
        name: What the model is called in the commands.

    Returns:
        `evaluations`, `robustness` and `calibration`; failures are counts, floats have 6 digits.

    Raises:
        HyMUNetError: If something else came than those files hold.
    """
    numbers: dict[str, Any] = {"evaluations": [_evaluation(one, name) for one in evaluations]}
    if robustness is not None:
        found = _chosen(robustness, _ROBUSTNESS, "robustness") | _origin(robustness, name)
        rows = found["corruptions"]
        found["corruptions"] = [_chosen(row, _CORRUPTION, "robustness") for row in rows]
        numbers["robustness"] = found
    if calibration is not None:
        found = _chosen(calibration, _CALIBRATION, "calibration") | _origin(calibration, name)
        if found["threshold"] is not None:
            # the whole curve is in thresholds.csv; a card tells how flat it is
            found["threshold"] = {k: v for k, v in found["threshold"].items() if k != "curve"}
        numbers["calibration"] = found
    rounded: dict[str, Any] = _rounded(numbers)
    return rounded


def read_results(path: Path, name: str, verb: str) -> dict[str, Any]:
    """The content of a result file.

    Args:
        path: The file, or the folder that holds it.
        name: What the file is called in a folder, such as metrics.json.
        verb: The command that writes it, for the message.

    Raises:
        HyMUNetError: If it is missing or no JSON of that kind.
    """
    file = path / name if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HyMUNetError(
            f"there is no {file}; give the folder that `hymunet {verb} ... --output FOLDER` wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise HyMUNetError(f"cannot read {file} as JSON: {error}") from error
    if not isinstance(content, dict):
        raise HyMUNetError(f"expected {file} to hold what `hymunet {verb}` writes, a JSON object")
    return content


def check_model(content: Mapping[str, Any], source: str, model: Mapping[str, Any]) -> str | None:
    """Whether results were measured with this model.

    Args:
        content: Of a result file; its `model` is what `model_identity` said when it was measured.
        source: What the file is called in messages.
        model: What `hymunet.network.model_file.model_identity` says now.

    Returns:
        What a reader should know where the results do not say it; None: all is well.

    Raises:
        HyMUNetError: If they say that they belong to another model.
    """
    measured = content.get("model")
    if not isinstance(measured, Mapping) or "weights_sha256" not in measured:
        return f"{source} does not say which weights it measured; it is taken at its word"
    if measured["weights_sha256"] != model["weights_sha256"]:
        raise HyMUNetError(
            f"{source} was measured with other weights than this model's "
            f"({measured['weights_sha256'][:12]}, not {model['weights_sha256'][:12]}); measure "
            "this model"
        )
    # what chooses a threshold (`calibrate --write`) was measured before it was there
    chose = "probabilities" in content
    if not chose and measured.get("threshold") != model["threshold"]:
        raise HyMUNetError(
            f"{source} was measured at the threshold {measured.get('threshold')}, this model's is "
            f"{model['threshold']}; measure it again"
        )
    if not chose and measured.get("postprocess") != model.get("postprocess"):
        raise HyMUNetError(
            f"{source} was measured with other post-processing than this model's "
            f"({measured.get('postprocess')}, not {model.get('postprocess')}); measure it again"
        )
    return None


def _evaluation(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        entry = {key: content[key] for key in _EVALUATION}
        entry["classes"] = {
            structure: {key: found[key] for key in _CLASS}
            | {"failures": {kind: len(found["failures"][kind]) for kind in FAILURES}}
            for structure, found in content["classes"].items()
        }
        if "mean_of_classes" in content:
            entry["mean_of_classes"] = content["mean_of_classes"]
        return entry | _origin(content, name)
    except (KeyError, TypeError, AttributeError) as error:
        raise HyMUNetError(
            f"an evaluation lacks {error}; expected what `hymunet evaluate` writes as metrics.json"
        ) from error


def _chosen(content: Mapping[str, Any], keys: Sequence[str], kind: str) -> dict[str, Any]:
    try:
        return {key: content[key] for key in keys}
    except (KeyError, TypeError) as error:
        raise HyMUNetError(f"the {kind} given lacks {error}; measure it again") from error


def _origin(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The command with DATA for the data's path, and without its output and folders; the name of
    the data's folder."""
    made = content.get("made")
    if not isinstance(made, Mapping) or "command" not in made:
        return {}
    given, words, folder = shlex.split(made["command"]), [], ""
    if len(given) > 3:
        folder = Path(given[3]).name
        given[2:4] = [name, "DATA"]
    rest = iter(given)
    for word in rest:
        if word == "--output":
            next(rest, None)
        else:  # files that an option names, without their folders
            words.append(Path(word).name or word)
    origin = {key: made[key] for key in ("date", "machine", "seconds") if key in made}
    return origin | {"command": shlex.join(words), "folder": folder, "tta": "--tta" in words}


def _rounded(value: Any) -> Any:
    """Floats of 6 digits, and keys in the order in which a model file gives them back."""
    if isinstance(value, Mapping):
        return {key: _rounded(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
