"""What a model file says of its threshold, and whether it holds for the way a mask is cut.

The record is written by `hymunet calibrate --miss-rate RATE --write` (`risk_control` in the file's
metadata) and belongs to one threshold and one way of predicting.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hymunet.wording import plural

# what is done to a mask and leaves no pixel of a structure out that the threshold took in; the
# operations are those of `hymunet.inference.postprocess`, and any other may take some away
ONLY_ADDS = ("fill_holes",)


def threshold_text(threshold: float) -> str:
    """The shortest decimal number that cuts as `threshold` does: predictors compare in float32."""
    return str(np.float32(threshold))


def record_of(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a controlled miss rate in a model file's metadata; None when it has none, or
    one that does not say which rate, threshold and cases."""
    record = info.get("risk_control")
    needed = {"miss_rate": float, "threshold": float, "n": int, "tta": bool}
    if not isinstance(record, dict):
        return None
    fits = all(isinstance(record.get(name), kind) for name, kind in needed.items())
    return record if fits else None


def promise_text(record: Mapping[str, Any]) -> str:
    """`on average at most 10 % of the lesion missed; set on 120 cases of ISIC 2018 Task 1, val`."""
    words = (record.get("data") or "unnamed data", record.get("split"))
    text = f"on average at most {100 * record['miss_rate']:g} % of the "
    text += (
        f"{record.get('structure') or 'structure'} missed; set on {plural(record['n'], 'case')} of "
    )
    text += ", ".join(filter(None, words))
    return text + (", with test-time augmentation" if record["tta"] else "")


def why_not(
    record: Mapping[str, Any], threshold: float, tta: bool, postprocess: Any = None
) -> str | None:
    """Why the promise does not hold for masks cut at `threshold`, with or without test-time
    augmentation, and cleaned up as `postprocess` says (a model file's entry, structure ->
    operations; None: not at all); None: it does. A lower threshold than the record's misses no
    more, nor do filled holes."""
    own = record["threshold"]
    if np.float32(threshold) > np.float32(own):
        return f"the threshold {threshold_text(threshold)} is above {threshold_text(own)}, its own"
    if tta != record["tta"]:
        used, other = ("with", "without") if record["tta"] else ("without", "with")
        return f"it was set {used} test-time augmentation, and this is {other} it"
    if takes_away(postprocess):
        return (
            "post-processing takes away parts of structures that the threshold had found "
            "(`predict --no-postprocess` leaves them)"
        )
    return None


def takes_away(postprocess: Any) -> bool:
    """Whether post-processing, a model file's entry, may take pixels from a structure."""
    if not isinstance(postprocess, Mapping):
        return bool(postprocess)  # what cannot be read promises nothing
    return any(
        not isinstance(chosen, (list, tuple)) or any(one not in ONLY_ADDS for one in chosen)
        for chosen in postprocess.values()
    )


def postprocess_text(postprocess: Any) -> str:
    """`liver: keep largest, fill holes; spleen: ...` of a model file's entry; empty for none."""
    if not isinstance(postprocess, Mapping):
        return "" if postprocess is None else str(postprocess)
    return "; ".join(
        f"{name}: {', '.join(str(one).replace('_', ' ') for one in chosen)}"
        for name, chosen in postprocess.items()
    )


def promise_of_file(info: Mapping[str, Any]) -> str | None:
    """The promise of a file's own threshold in words; None where there is none."""
    record = record_of(info)
    if record is None:
        return None
    threshold, postprocess = info.get("threshold", 0.5), info.get("postprocess")
    return None if why_not(record, threshold, record["tta"], postprocess) else promise_text(record)


def described_threshold(info: Mapping[str, Any]) -> str:
    """The file's threshold and, where it is so, the miss rate that it keeps: one line."""
    return ": ".join(
        filter(None, (threshold_text(info.get("threshold", 0.5)), promise_of_file(info)))
    )


def not_for_several(models: int) -> str:
    """Why the promise of one model does not hold for the mean of `models`."""
    return f"it was set for one model alone, and this is the mean of {models}"
