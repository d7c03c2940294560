"""What a model misses of a structure in independent, clean cases, at the threshold that keeps a
rate: each case is predicted once, and a second time only where its probabilities were too many to
keep."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.case_hash import case_hash
from hymunet.errors import HyMUNetError
from hymunet.evaluation.held_out import held_out, image_of, progress
from hymunet.evaluation.seen import KnownCases
from hymunet.evaluation.truth import Truth, read_truth
from hymunet.metrics.overlap import Counts
from hymunet.metrics.risk_control import (
    Controlled,
    MissesByLevel,
    cases_needed,
    control_miss_rate,
    counts_at,
    pixels,
    too_few,
)
from hymunet.wording import plural, some_of

if TYPE_CHECKING:
    from hymunet.data.case import Case
    from hymunet.inference.predictor import Predictor

KEEP = 2**30  # bytes of probabilities that are kept; beyond, cases are predicted again
_HALF = np.float32(0.5)


@dataclass
class MissRates:
    """What was found.

    Args:
        structure: Name of the structure.
        controlled: The threshold and its bound.
        cases: Those that set it, in order: independent, and each picture once.
        hashes: Their fingerprints.
        at_chosen: Each case's pixels for the mask at the threshold.
        at_half: The same at 0.5.
        seen: Case id -> what the model has met of it, members of a group that were not drawn too.
        notes: Which cases were left out, and why.
    """

    structure: str
    controlled: Controlled
    cases: list["Case"]
    hashes: list[str]
    at_chosen: list[Counts]
    at_half: list[Counts]
    seen: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def structure_index(predictor: "Predictor", name: str | None, path: object) -> int:
    """Which structure of the model `name` is; None: the only one there is.

    Raises:
        HyMUNetError: If the model cuts at no threshold, or the name is none or needed.
    """
    classes = predictor.classes
    if predictor.config.activation != "sigmoid":
        raise HyMUNetError(
            f"--miss-rate sets a threshold, but {path} chooses the most probable class (softmax) "
            "and has none; leave it out"
        )
    if name is None and len(classes) > 1:
        raise HyMUNetError(
            f"{path} finds {len(classes)} structures, and a miss rate is kept for one: name it by "
            f"--structure ({', '.join(classes)})"
        )
    if name is not None and name not in classes:
        raise HyMUNetError(f"--structure must be one of {', '.join(classes)}, not {name!r}")
    return 0 if name is None else classes.index(name)


def one_of_each_group(cases: Sequence["Case"]) -> list["Case"]:
    """A case of every group, in the order given. Which one is random but always the same: the
    first by SHA-256 of its id, whatever the order and the groups' names."""

    def rank(case: "Case") -> tuple[str, str]:
        return hashlib.sha256(f"0 {case.id}".encode()).hexdigest(), case.id

    first: dict[tuple[bool, str], Case] = {}
    for case in cases:
        key = (case.group is not None, case.group or case.id)
        if key not in first or rank(case) < rank(first[key]):
            first[key] = case
    drawn = {case.id for case in first.values()}
    return [case for case in cases if case.id in drawn]


def control(
    cases: Sequence["Case"], predictor: "Predictor", known: KnownCases, rate: float, index: int
) -> MissRates:
    """The threshold that keeps the miss rate, and what it costs.

    Args:
        cases: Those there are; one of each group is used, all are checked.
        predictor: The model, which predicts as it will be used.
        known: The cases it was made with.
        rate: The miss rate to keep.
        index: Of the structure; where structures are nested it holds those after it.

    Raises:
        HyMUNetError: As `held_out` does when `clean`, as `control_miss_rate`, or if a case has no
            image.
    """
    drawn = one_of_each_group(cases)
    if len(drawn) < cases_needed(rate):
        raise too_few(len(drawn), rate)
    wanted, seen = {case.id for case in drawn}, dict[str, str]()
    used: list[Case] = []
    hashes: dict[str, str] = {}  # fingerprint -> case id
    kept: list[tuple[np.ndarray, np.ndarray] | None] = []
    at_half: list[Counts] = []
    levels, room = MissesByLevel(), KEEP
    channels, num_labels = predictor.config.in_channels, len(predictor.classes) + 1
    label = f"predicting {plural(len(drawn), 'case')}"
    for case, truth in held_out(cases, channels, num_labels, known, seen, label=label, clean=True):
        if case.id not in wanted:
            continue
        found = case_hash(image_of(case, truth).pixels)
        if found in hashes:
            continue
        hashes[found] = case.id
        inside, outside = _split(predictor, case, truth, index)
        levels.add(inside)
        at_half.append(_cut(inside, outside))
        room -= inside.nbytes + outside.nbytes
        kept.append((inside, outside) if room >= 0 else None)
        used.append(case)
    if len(used) < cases_needed(rate):
        raise too_few(len(used), rate)
    low, high = levels.bracket(len(used), rate)
    pairs = [
        (pixels(inside, low, high), pixels(outside, low, high))
        for inside, outside in _again(used, kept, at_half, predictor, index)
    ]
    controlled = control_miss_rate([inside for inside, _ in pairs], rate)
    return MissRates(
        predictor.classes[index],
        controlled,
        used,
        list(hashes),
        [counts_at(inside, outside, controlled.threshold) for inside, outside in pairs],
        at_half,
        seen,
        _left_out(cases, drawn, used),
    )


def _split(
    predictor: "Predictor", case: "Case", truth: Truth, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities inside and outside the structure, of the pixels that count."""
    # a pixel belongs to a structure as soon as it belongs to one inside it
    probability = predictor(image_of(case, truth)).probability[index:].max(axis=0)
    event = truth.labels > index
    if truth.valid is None:
        return probability[event], probability[~event]
    return probability[event & truth.valid], probability[~event & truth.valid]


def _cut(inside: np.ndarray, outside: np.ndarray) -> Counts:
    tp, fp = int(np.count_nonzero(inside >= _HALF)), int(np.count_nonzero(outside >= _HALF))
    return Counts(tp, fp, inside.size - tp, outside.size - fp)


def _again(
    cases: Sequence["Case"],
    kept: Sequence[tuple[np.ndarray, np.ndarray] | None],
    at_half: Sequence[Counts],
    predictor: "Predictor",
    index: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What was kept of each case, or else predicted anew."""
    channels, num_labels = predictor.config.in_channels, len(predictor.classes) + 1
    lost = sum(pair is None for pair in kept)
    rows = list(zip(cases, kept, at_half, strict=True))
    for case, pair, counts in (
        progress(rows, f"predicting {plural(lost, 'case')} again") if lost else rows
    ):
        if pair is not None:
            yield pair
            continue
        found = _split(predictor, case, read_truth(case, channels, num_labels), index)
        if _cut(*found) != counts:
            raise HyMUNetError(
                f"case {case.id} was predicted twice and not alike, so no threshold can be exact; "
                "use --device cpu, and leave the data as they are meanwhile"
            )
        yield found


def _left_out(
    cases: Sequence["Case"], drawn: Sequence["Case"], used: Sequence["Case"]
) -> list[str]:
    notes = []
    sizes = Counter(case.group for case in cases if case.group is not None)
    if len(drawn) < len(cases):
        several = sum(size > 1 for size in sizes.values())
        notes.append(
            f"{plural(several, 'group holds', 'groups hold')} several cases: one of each was drawn "
            "(by the SHA-256 of its id), "
            f"{some_of(len(cases) - len(drawn), len(cases), 'case', ('was', 'were'))} left out"
        )
    if len(used) < len(drawn):
        notes.append(
            f"{some_of(len(drawn) - len(used), len(drawn), 'case', ('was', 'were'))} left out: "
            "pixel by pixel, their images are those of another case"
        )
    return notes
