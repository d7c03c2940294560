"""Which structures are scored: what the data set declares, else what its reference masks hold."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hymunet.data.case import Case, Dataset
from hymunet.data.label_scheme import unnamed
from hymunet.data.mask_reading import read_stored_mask
from hymunet.data.masks_io import class_indices, histogram, listed, whole_numbers
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

MOST_VALUES = 32  # in masks that nobody described; an image or a count of cells has more


@dataclass(frozen=True)
class Structures:
    """How masks of a data set are read, and what is scored in them.

    Args:
        classes: Names of the classes, index 1 first, the background left out.
        regions: Name -> class indices of what is scored instead of the classes; None: the classes.
        notes: What was understood.
        values: Class indices that a prediction may hold; None: those of all classes.
    """

    classes: list[str]
    regions: Mapping[str, tuple[int, ...]] | None = None
    notes: tuple[str, ...] = ()
    values: frozenset[int] | None = None


def scored(
    classes: Sequence[str], nested: bool, regions: Mapping[str, tuple[int, ...]] | None
) -> dict[str, tuple[int, ...]]:
    """Name -> class indices of each structure that is scored: the regions where there are any, else
    a class each, with those after it where structures are nested."""
    if regions is not None:
        return dict(regions)
    last = len(classes)
    return {
        name: tuple(range(index, last + 1)) if nested else (index,)
        for index, name in enumerate(classes, start=1)
    }


def structures_of(dataset: Dataset, num_labels: int | None = None) -> Structures:
    """The structures of a data set, to judge masks that any tool wrote.

    Args:
        dataset: Where it declares no structures, its reference masks are looked at: they hold one
            structure when each of them can be read as a binary mask, else one for each value.
        num_labels: Classes with the background, which goes before all that; None: not said.

    Raises:
        HyMUNetError: If `num_labels` is below 2, or the masks hold values that are no classes.
    """
    names = dataset.label_names
    if num_labels is not None and num_labels < 2:
        raise HyMUNetError(f"--num-labels counts the background too: at least 2, got {num_labels}")
    if names is not None and num_labels in (None, dataset.num_labels):
        return Structures([names[index] for index in sorted(names)], dataset.regions)
    if num_labels is None:
        return _shown(dataset)
    if num_labels == 2 and names is None:
        return Structures(unnamed(1))
    own = enumerate(unnamed(num_labels - 1), start=1)
    classes = [(names or {}).get(index, name) for index, name in own]
    if names is None:
        return Structures(classes)
    note = (
        f"--num-labels says {plural(num_labels - 1, 'structure')}, the data {len(names)} "
        f"({listed(names.values())}); scored as --num-labels says"
    )
    return Structures(classes, None, (note,))


def _shown(dataset: Dataset) -> Structures:
    """What the reference masks hold."""
    labelled = [case for case in dataset.cases if case.label is not None]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        seen = list(pool.map(_look, labelled))
    if all(binary for binary, _ in seen):
        return Structures(unnamed(1))
    found = sorted(set().union(*(values for _, values in seen)) | {0})
    if found[0] < 0 or found[-1] > 255 or len(found) > MOST_VALUES:
        raise HyMUNetError(
            f"the reference masks of {dataset.root} hold {len(found)} values from {found[0]} to "
            f"{found[-1]} ({listed(found)}); expected class indices, 0 the background: look "
            "whether they are masks, and say how many classes there are (--num-labels, the "
            "background counted), or name them in a dataset.json"
        )
    classes = [f"class {index}" for index in range(1, found[-1] + 1)]
    regions = {f"class {value}": (value,) for value in found[1:]}
    note = (
        f"the data do not say which structures there are; the reference masks hold {listed(found)}:"
        f" scored as {listed(regions)} (--num-labels says otherwise)"
    )
    return Structures(classes, regions, (note,), frozenset(found))


def _look(case: Case) -> tuple[bool, set[int]]:
    """Whether a mask can be read as a binary one, and the values that it holds."""
    assert case.label is not None
    try:
        stored = read_stored_mask(case.label, image=next(iter(case.channels), None))
        values = whole_numbers(stored.values, case.label)
    except HyMUNetError:
        return True, set()  # scoring it says what is wrong, if it is to be scored
    found = {int(value) for value in histogram(values)[0]}
    try:
        class_indices(values, case.label, 2, stored.lossy)
    except HyMUNetError:
        return False, found
    return True, found


def structures_of_model(classes: Sequence[str], nested: bool, dataset: Dataset) -> Structures:
    """A model's structures, held against those that the data declare.

    Args:
        classes: The model's, index 1 first.
        nested: Whether each holds those after it.
        dataset: What it is judged on.

    Returns:
        The model's classes, and the data's regions where the model separates their classes.

    Raises:
        HyMUNetError: If the data declare another number of structures, the same in another order,
            or regions that do not lie within each other where the model's do.
    """
    if dataset.label_names is None:
        return Structures(list(classes))
    names = [dataset.label_names[index] for index in sorted(dataset.label_names)]
    theirs = list(dataset.regions) if nested and dataset.regions is not None else names
    said = f"the model finds {listed(classes)}; {dataset.root} holds {listed(theirs)}"
    if nested and dataset.regions is not None and not dataset.nested:
        raise HyMUNetError(
            f"{said}. The model's structures lie within each other, these regions do not: judge a "
            "model that was trained on these regions, or data with the model's"
        )
    if len(classes) != len(names):
        raise HyMUNetError(
            f"{said}: {len(classes)} and {len(names)}, so one cannot be scored by the other; name "
            "data whose masks hold the model's structures, or a model that was trained for these"
        )
    notes = []
    own, data = _plain(classes), _plain(theirs)
    if own != data:
        if set(own) & set(data) and any(
            a != b and a in data for a, b in zip(own, data, strict=True)
        ):
            raise HyMUNetError(
                f"{said}: the same names with other class indices, so the wrong ones would be "
                "compared; renumber the masks, or their description in dataset.json, as the model "
                "numbers them"
            )
        notes.append(f"{said}: compared in this order")
    if nested and dataset.regions is None:
        notes.append(
            "the model's structures lie within each other, the data's side by side: each one is "
            "scored together with those after it, in both"
        )
    return Structures(list(classes), None if nested else dataset.regions, tuple(notes))


def _plain(names: Iterable[str]) -> list[str]:
    return [name.strip().casefold() for name in names]
