"""What best.safetensors says of itself: how it reads images, what it segments, what it has seen."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hymunet.data.cache import CaseFacts
from hymunet.data.case import Dataset
from hymunet.data.label_map import inverse_label_map
from hymunet.data.preprocess import Preprocess
from hymunet.data.splits import PARTS, Split
from hymunet.training.decide import class_names
from hymunet.training.initial import Start
from hymunet.training.planning.plan import Settings


def model_info(
    dataset: Dataset,
    split: Split,
    facts: Sequence[CaseFacts],
    settings: Settings,
    preprocess: Preprocess,
    provenance: dict[str, Any],
    start: Start,
) -> dict[str, Any]:
    """The metadata of a model file, but for its scores.

    Args:
        dataset: Its name, classes and label values.
        split: Which case is in which part.
        facts: Of every case in it.
        settings: Of the run.
        preprocess: With the training images' statistics.
        provenance: Of the run: versions, digest of the split.
        start: What the network started from.
    """
    hashes = {fact.id: fact.sha256 for fact in facts}
    cases = {part: [hashes[id_] for id_ in getattr(split, part)] for part in PARTS}
    # what the starting weights were trained on, this model was trained on as well
    cases["train"] += sorted(start.cases - set(cases["train"]))
    values = _label_values(dataset, settings.structures + 1)
    return {
        "preprocess": preprocess.to_dict(),
        **({} if values is None else {"label_values": list(values)}),
        "classes": class_names(dataset, settings),
        "training": {
            "data": dataset.name,
            # a path tells of the trainer's disk, nothing of the model
            "options": asdict(settings) | {"init": start.origin.get("name")},
            "split_sha256": provenance["split_sha256"],
            **({"init": start.origin} if start.origin else {}),
        },
        "cases": cases,
        "licence": _licence(start.origin.get("licence"), dataset.licence),
        "versions": provenance["versions"],
    }


def _licence(*stated: str | None) -> str | None:
    """Of the weights: what is stated of the model they began as and of the images, both where they
    differ; None where nobody states any."""
    return " AND ".join(dict.fromkeys(licence for licence in stated if licence)) or None


def _label_values(dataset: Dataset, num_labels: int) -> tuple[int, ...] | None:
    """Class index -> the value that the data's own masks hold; None: the class index."""
    maps = {case.label_map for case in dataset.cases}
    return inverse_label_map(maps.pop(), num_labels) if len(maps) == 1 else None
