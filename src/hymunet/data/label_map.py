"""Values that a data set stores in its masks to class indices, and back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hymunet.data.masks_io import histogram, listed, whole_numbers
from hymunet.errors import HyMUNetError
from hymunet.wording import plural


def map_labels(
    values: np.ndarray,
    path: Path,
    label_map: Sequence[tuple[int, int]] | None,
    ignore_label: int | None,
    num_labels: int,
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Class indices, the pixels to be ignored, and notes on what was understood.

    Args:
        values: (*spatial), as they stand in the file: bool, integer or float.
        path: Named in errors.
        label_map: (stored value, class index) pairs; None: the values are left as they are.
        ignore_label: Stored value of pixels that do not count; None: there is none. They become
            background.
        num_labels: Classes, background included.

    Returns:
        (*spatial) numbers; (*spatial) bool, or None without an `ignore_label`; notes.

    Raises:
        HyMUNetError: If a value stands neither in the map nor for what is ignored (the message
            lists such values), or the map leads to more classes than `num_labels`.
    """
    values = whole_numbers(values, path)
    ignored = None if ignore_label is None else values == ignore_label
    if label_map is None:
        return values if ignored is None else np.where(ignored, 0, values), ignored, []
    class_of = dict(label_map)
    highest = max(class_of.values())
    if not 0 <= min(class_of.values()) <= highest < num_labels:
        raise HyMUNetError(
            f"the labels of {path} make classes up to {highest}, but {num_labels} classes are "
            f"expected, background included: say that there are {plural(highest, 'structure')} "
            f"(train --structures {highest}; evaluate --num-labels {highest + 1})"
        )
    found = [int(value) for value in histogram(values)[0] if value != ignore_label]
    unknown = [value for value in found if value not in class_of]
    if unknown:
        raise HyMUNetError(
            f"mask {path} holds {len(unknown)} values that are no label of its data set "
            f"({listed(unknown)}); expected {listed(sorted(class_of), 20)}: correct the mask, or "
            "the data set's description of its labels"
        )
    classes = np.zeros(values.shape, np.uint8)
    for value in found:
        if class_of[value]:
            classes[values == value] = class_of[value]
    changed = [pair for pair in sorted(class_of.items()) if pair[0] != pair[1]]
    shown = listed((f"{value} as {index}" for value, index in changed), 6)
    return classes, ignored, [f"values of the mask read as classes: {shown}"] if changed else []


def inverse_label_map(
    label_map: Sequence[tuple[int, int]] | None, num_labels: int
) -> tuple[int, ...] | None:
    """Class index -> the value that stands for it in the masks of a data set, so that what is
    written with these values is read by `map_labels` as the same classes.

    Where several values lead to one class it is the first of them in the map, which is how
    `label_scheme` orders them: the value that the data set itself writes for the region
    (nnU-Net's `regions_class_order`), else the lowest.

    Args:
        label_map: (stored value, class index) pairs, see `Case`.
        num_labels: Classes, background included.

    Returns:
        `num_labels` values; None where masks hold class indices: without a map, or with one that
        changes nothing. (A map of two classes is never None: without values a binary PNG is
        written as 0 and 255, and the map knows of no 255.)

    Raises:
        HyMUNetError: If a class has no value, or the map leads to more classes than `num_labels`.
    """
    if label_map is None:
        return None
    first: dict[int, int] = {}
    for value, index in label_map:
        first.setdefault(index, value)
    if first.keys() != set(range(num_labels)):
        raise HyMUNetError(
            f"the labels of the data make the classes {listed(sorted(first), 20)}; expected a "
            f"stored value for each of the {num_labels} classes, 0 to {num_labels - 1}"
        )
    if num_labels > 2 and all(value == index for value, index in label_map):
        return None
    return tuple(first[index] for index in range(num_labels))
