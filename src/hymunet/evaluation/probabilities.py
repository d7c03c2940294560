"""The pixels of held-out cases sorted by a model's probability: a forward pass a case, then only
counts are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.case_hash import case_hash
from hymunet.evaluation.held_out import held_out, image_of
from hymunet.evaluation.seen import KnownCases
from hymunet.evaluation.truth import Truth
from hymunet.metrics.calibration import ProbabilityCounts, count_probabilities
from hymunet.wording import plural

if TYPE_CHECKING:
    from hymunet.data.case import Case
    from hymunet.inference.predictor import Predictor

TOP_LABEL = "most probable class"


@dataclass
class Counted:
    """Everything that is kept of the cases.

    Args:
        groups: A label per case.
        hashes: Each case's fingerprint (`case_hash`).
        counts: By structure (softmax: `TOP_LABEL` alone), each case's pixels by probability.
        squared_error: Softmax only: each case's sum over pixels and classes of (p - y)^2.
        seen: Case id -> what the model has met of it (`KnownCases.part_of`).
    """

    groups: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    counts: dict[str, list[ProbabilityCounts]] = field(default_factory=dict)
    squared_error: list[float] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)


def count_all(
    cases: Sequence["Case"], predictor: "Predictor", known: KnownCases, force: bool
) -> Counted:
    """Predicts every case once and counts its pixels.

    Args:
        cases: Those to look at.
        predictor: The model.
        known: The cases it was made with.
        force: Count cases that it was trained on as well.

    Raises:
        HyMUNetError: As `held_out` does, or if a case has no image.
    """
    counted = Counted()
    channels, num_labels = predictor.config.in_channels, len(predictor.classes) + 1
    label = f"predicting {plural(len(cases), 'case')}"
    for case, truth in held_out(cases, channels, num_labels, known, counted.seen, force, label):
        image = image_of(case, truth)
        probability = predictor(image).probability
        counted.groups.append(case.group or case.id)
        counted.hashes.append(case_hash(image.pixels))
        if predictor.config.activation == "softmax":
            _count_classes(counted, probability, truth)
        else:
            _count_structures(counted, probability, truth, predictor.classes)
    return counted


def _count_structures(
    counted: Counted, probability: np.ndarray, truth: Truth, classes: Sequence[str]
) -> None:
    """Each structure by its own probability; where structures are nested, a pixel belongs to one
    as soon as it belongs to one inside it, so the probability is the largest of these."""
    reached = np.maximum.accumulate(probability[::-1], axis=0)[::-1]
    for index, (name, one) in enumerate(zip(classes, reached, strict=True), start=1):
        event = truth.labels >= index
        counted.counts.setdefault(name, []).append(count_probabilities(one, event, truth.valid))


def _count_classes(counted: Counted, probability: np.ndarray, truth: Truth) -> None:
    """The probability of the most probable class, and whether it is the right one; the Brier score
    of all classes."""
    labels = truth.labels
    right = probability.argmax(axis=0) == labels
    top = count_probabilities(probability.max(axis=0), right, truth.valid)
    counted.counts.setdefault(TOP_LABEL, []).append(top)
    # sum over classes of (p - y)^2, without a table of y: sum p^2 - 2 p_true + 1
    true = np.take_along_axis(probability, labels[None].astype(np.int64), axis=0)[0]
    errors = np.square(probability, dtype=np.float64).sum(axis=0) - 2 * true + 1
    counted.squared_error.append(
        float(errors.sum() if truth.valid is None else errors[truth.valid].sum())
    )
