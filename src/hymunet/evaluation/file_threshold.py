"""A threshold goes into a model file: which files may be given one, and what is kept beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hymunet.errors import HyMUNetError
from hymunet.evaluation.risk_control import file_record
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor


def check_writable(path: Path, predictor: "Predictor", force: bool) -> None:
    """Refuses, before any work, a file that may not be given a threshold.

    Raises:
        HyMUNetError: If the model has none, trained cases may choose it (`force`), or the file
            belongs to the installed package.
    """
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
    refuse_packaged(path)


def refuse_packaged(path: Path) -> None:
    """Raises HyMUNetError if the file belongs to the installed package."""
    import hymunet

    if Path(hymunet.__file__).resolve().parent in path.resolve().parents:
        raise HyMUNetError(
            f"{path} belongs to the installed package and is not changed; copy it to a folder of "
            "your own and name the copy"
        )


def write_threshold(path: Path, summary: Mapping[str, Any], hashes: Sequence[str]) -> list[str]:
    """Gives the model file its threshold, and says in it how it was chosen and on which cases.

    Args:
        path: The model file; weights stay as they are, bit by bit.
        summary: Of the calibration.
        hashes: Fingerprints of the cases that chose.

    Returns:
        Notes on what was written, and on a promise that went.
    """
    from hymunet.network.model_file import read_info, replace_info
    from hymunet.network.promise import promise_of_file, threshold_text

    old = read_info(path)
    # one threshold, one record: what another way of choosing said of it no longer holds
    info = {k: v for k, v in old.items() if k not in ("calibration", "risk_control")}
    if "risk_control" in summary:
        threshold = summary["risk_control"]["threshold"]
        own = {"risk_control": file_record(summary, hashes)}
    else:
        chosen = summary["threshold"]
        threshold = chosen["chosen"]
        calibration = {
            "threshold": threshold,
            "metric": chosen["metric"],
            "data": summary["data"],
            "split": summary["split"],
            "tta": summary["tta"],
            "n": summary["n"],
            "gain": chosen["gain"],
            "date": summary["made"]["date"],
            "cases": sorted(hashes),
        }
        own = {"calibration": calibration}
    replace_info(path, info | {"threshold": threshold} | own)
    notes = [
        f"threshold {threshold_text(threshold)} written to {path}; these "
        f"{plural(len(hashes), 'case')} chose it: judge the model on others"
    ]
    if "risk_control" not in own and (promise := promise_of_file(old)):
        notes.append(
            f"the threshold that it replaces kept a miss rate ({promise}); this keeps none"
        )
    return notes
