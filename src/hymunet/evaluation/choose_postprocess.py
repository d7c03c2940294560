"""Which cleaning up of masks helps: tried on validation cases, one operation of one structure after
the other, and kept only where the gain is more than noise.

The rule: an operation is kept if the mean per-image Dice of its structure over the cases rises by
`MARGIN` or more, the 95 % bootstrap interval of that rise (paired, over groups) lies above 0, and
no other structure's mean falls. Where fewer than four of many cases gain the interval reaches 0, so
a single spectacular case decides nothing. Doing nothing is the default.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hymunet.data.case import Case
from hymunet.data.case_hash import case_hash
from hymunet.errors import HyMUNetError
from hymunet.evaluation import tables
from hymunet.evaluation.file_threshold import refuse_packaged
from hymunet.evaluation.held_out import held_out, image_of, progress, refuse_masks
from hymunet.evaluation.seen import known_cases
from hymunet.inference.postprocess import OPERATIONS, Postprocess
from hymunet.metrics.overlap import Counts, dice
from hymunet.metrics.statistics import bootstrap_mean
from hymunet.wording import plural

MARGIN = 0.0001  # of Dice; tables show four decimals
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PostprocessChoice:
    """What was found to help.

    Args:
        postprocess: The operations that were kept; perhaps none.
        table: A row a structure and operation, in the order tried: `structure`, `operation`,
            `dice_before` and `dice_after` (per-image means over the cases, with what was kept
            before), `change` (mean, low, high), `cases_changed` (those in which any pixel of the
            mask changes), `chosen`.
        n: Cases.
        groups: Independent ones.
        notes: What a reader has to know.
    """

    postprocess: Postprocess
    table: list[dict[str, Any]]
    n: int
    groups: int
    notes: tuple[str, ...] = ()


class Pair:
    """A prediction and its reference, in little memory: only the box that holds something of
    either, compressed; nothing outside it can change a Dice, and no operation reaches there.

    Args:
        mask: Predicted class indices (*spatial), uint8, as they are cut.
        labels: Those of the reference.
        valid: The pixels that count, bool; None: all.
        group: Pairs of one group are not independent.

    Raises:
        HyMUNetError: If the shapes differ.
    """

    def __init__(
        self,
        mask: np.ndarray,
        labels: np.ndarray,
        valid: np.ndarray | None = None,
        group: str | None = None,
    ) -> None:
        if mask.shape != labels.shape or (valid is not None and valid.shape != mask.shape):
            raise HyMUNetError(
                f"the prediction has the shape {mask.shape}, the reference {labels.shape}; masks "
                "are compared on the image's own grid"
            )
        self.group = group
        some = (mask > 0) | (labels > 0)
        axes = range(some.ndim)
        found = [np.flatnonzero(some.any(axis=tuple({*axes} - {axis}))) for axis in axes]
        box = tuple(slice(int(f[0]), int(f[-1]) + 1) if f.size else slice(0, 1) for f in found)
        parts = [mask[box], labels[box], np.ones_like(some[box]) if valid is None else valid[box]]
        self._shape = parts[0].shape
        self._packed = [zlib.compress(part.astype(np.uint8).tobytes(), 1) for part in parts]

    def unpack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask and reference, uint8, and what counts, bool, all within the box."""
        mask, labels, valid = (
            np.frombuffer(zlib.decompress(one), np.uint8).reshape(self._shape)
            for one in self._packed
        )
        return mask, labels, valid.astype(bool)


def choose_operations(
    pairs: Sequence[Pair], classes: Sequence[str], nested: bool = False
) -> PostprocessChoice:
    """Tries each operation of each structure, in order, and keeps what helps by the rule above.

    Args:
        pairs: Predictions without post-processing, of cases that the model was not trained on.
        classes: Names of the structures, class index 1 first.
        nested: Whether each structure holds those after it.

    Raises:
        HyMUNetError: If there is no pair.
    """
    if not pairs:
        raise HyMUNetError(
            "no validation case with a reference: post-processing is chosen on at least one"
        )
    groups = [pair.group for pair in pairs]
    chosen = Postprocess(tuple(classes), nested)
    before, masks = _scores(pairs, chosen)
    table = []
    candidates = [(index, name, o) for index, name in enumerate(classes) for o in OPERATIONS]
    for index, name, operation in progress(candidates, "choosing post-processing"):
        candidate = chosen.with_operation(name, operation)
        after, new_masks = _scores(pairs, candidate)
        change = after - before
        own = bootstrap_mean(change[:, index], groups)
        harmless = bool((change.mean(axis=0) >= -_ROUNDING).all())
        # an interval that nobody can know (one group) is NaN, and not above 0
        kept = own.mean >= MARGIN and own.low > _ROUNDING and harmless
        table.append(
            {
                "structure": name,
                "operation": operation,
                "dice_before": float(before[:, index].mean()),
                "dice_after": float(after[:, index].mean()),
                "change": tables.as_bounds(own),
                "cases_changed": sum(a != b for a, b in zip(masks, new_masks, strict=True)),
                "chosen": kept,
            }
        )
        if kept:
            chosen, before, masks = candidate, after, new_masks
    alone = sum(group is None for group in groups)
    return PostprocessChoice(chosen, table, len(pairs), len({*groups} - {None}) + alone)


def choose_postprocess(
    model: str | Path,
    cases: Sequence[Case],
    data: str | None = None,
    split: str | None = "val",
    device: str | None = None,
) -> PostprocessChoice:
    """Chooses a model's post-processing on validation cases and writes it into its file.

    The file gets `postprocess`, which `Predictor` applies (no entry where nothing helps), and
    `postprocess_choice`: rule, table, and the fingerprints of the cases, which `evaluate` then
    calls optimistic. What both held before is replaced; weights stay as they are, bit by bit.

    Args:
        model: A model file or a run folder (its best.safetensors).
        cases: With images and references; none that the model was trained on.
        data: What the cases are of, for the record.
        split: Which part of it they are.
        device: cpu, cuda or cuda:1; None: chosen by the predictor.

    Raises:
        HyMUNetError: If there is no case, one was trained on or cannot be read, or the file cannot
            be written or belongs to the installed package.
    """
    from hymunet.inference.predictor import Predictor
    from hymunet.network.model_file import find_model, replace_info

    refuse_masks(str(model), "choosing post-processing")
    path = find_model(model)
    refuse_packaged(path)
    predictor = Predictor(path, device=device, postprocess=False)
    known = known_cases(predictor.info, postprocess=False)
    seen: dict[str, str] = {}
    pairs, hashes = [], []
    channels, num_labels = predictor.config.in_channels, len(predictor.classes) + 1
    label = f"predicting {plural(len(cases), 'case')}"
    for case, truth in held_out(cases, channels, num_labels, known, seen, label=label):
        image = image_of(case, truth)
        mask = predictor(image).mask
        pairs.append(Pair(mask, truth.labels, truth.valid, case.group or case.id))
        hashes.append(case_hash(image.pixels))
    nested = predictor.postprocess.nested
    found = choose_operations(pairs, predictor.classes, nested)
    old = {k: v for k, v in predictor.info.items() if not k.startswith("postprocess")}
    new = {"postprocess_choice": _record(found, predictor.threshold, data, split, hashes)}
    if found.postprocess.operations:
        new["postprocess"] = found.postprocess.to_dict()
    replace_info(path, old | new)
    return PostprocessChoice(
        found.postprocess, found.table, found.n, found.groups, (known.note,) if known.note else ()
    )


def _record(
    found: PostprocessChoice,
    threshold: float,
    data: str | None,
    split: str | None,
    hashes: Sequence[str],
) -> dict[str, Any]:
    """Without a date, so that equal choices make equal files."""
    return {
        "metric": "dice",
        "margin": MARGIN,
        "interval": "95 % bootstrap over groups",
        "threshold": threshold,
        "data": data,
        "split": split,
        "n": found.n,
        "groups": found.groups,
        "table": found.table,
        "cases": sorted(hashes),
    }


def _scores(pairs: Sequence[Pair], postprocess: Postprocess) -> tuple[np.ndarray, list[bytes]]:
    """Dice (cases, structures) of the masks after post-processing, and their digests, by which
    equal ones are told."""
    scores, digests = [], []
    for pair in pairs:
        mask, labels, valid = pair.unpack()
        done = postprocess(mask)
        digests.append(hashlib.sha256(done.tobytes()).digest())
        scores.append(_dice(done[valid], labels[valid], postprocess))
    return np.array(scores), digests


def _dice(mask: np.ndarray, labels: np.ndarray, postprocess: Postprocess) -> list[float]:
    """Of each structure, from one table of pixels by predicted and true class."""
    number = len(postprocess.classes) + 1
    both = mask.astype(np.intp) * number + labels
    joint = np.bincount(both, minlength=number * number).reshape(number, number)
    if postprocess.nested:  # structure k holds classes k and above: sums from the last one back
        joint = joint[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
        pred, true = joint[:, 0], joint[0]
    else:
        pred, true = joint.sum(axis=1), joint.sum(axis=0)
    total = mask.size
    found = []
    for k in range(1, number):
        tp, p, t = int(joint[k, k]), int(pred[k]), int(true[k])
        found.append(dice(Counts(tp, p - tp, t - tp, total - p - t + tp)))
    return found
