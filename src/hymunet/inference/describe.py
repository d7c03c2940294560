"""A model in words, wherever it is used."""

from collections.abc import Mapping
from typing import Any

from hymunet.wording import plural


def describe_model(info: Mapping[str, Any]) -> list[str]:
    """Two lines on what a model is for and under which terms, to be printed wherever it is used."""
    training = info.get("training", {})
    cases = len(info.get("cases", {}).get("train", []))
    trained = f"trained on {training.get('data', 'unknown data')} ({plural(cases, 'case')})"
    domain = info.get("domain")
    licence = info.get("licence") or "not stated: that of its training data applies"
    if "NC" in licence.split("-"):  # Creative Commons' own sign for it
        licence += ", no commercial use"
    return [
        f"for {domain}; {trained}" if domain else trained,
        f"licence: {licence}; research use only, not a medical device",
    ]
