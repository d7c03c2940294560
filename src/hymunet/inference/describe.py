"""A model in words, wherever it is used."""

import re
from collections.abc import Mapping
from typing import Any

from hymunet.wording import plural


def describe_model(info: Mapping[str, Any]) -> list[str]:
    """Two lines on what a model is for and under which terms, to be printed wherever it is used."""
    training = info.get("training", {})
    # an exported file names no cases, only how many there were
    cases = info.get("training_cases", len(info.get("cases", {}).get("train", [])))
    trained = f"trained on {training.get('data', 'unknown data')} ({plural(cases, 'case')})"
    domain = info.get("domain")
    licence = info.get("licence") or "not stated: that of its training data applies"
    if forbids_commerce(licence):
        licence += ", no commercial use"
    return [
        f"for {domain}; {trained}" if domain else trained,
        f"licence: {licence}; research use only, not a medical device",
    ]


def forbids_commerce(licence: str) -> bool:
    """Whether a licence's name holds Creative Commons' sign for it: CC-BY-NC-4.0, CC BY-NC-SA."""
    return re.search(r"\bNC\b", licence) is not None
