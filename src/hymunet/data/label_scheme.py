"""The labels that a dataset.json declares: stored values to classes, their names, nested regions.

nnU-Net's regions are unions of labels. Where each lies within the one before it (whole tumour,
tumour core, enhancing part), classes are numbered from the outside in: class k is what lies in
exactly k regions, so region k is class k and all above it. That is what `activation="sigmoid"`
segments, and what metrics call nested.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError


@dataclass(frozen=True)
class LabelScheme:
    """What the values in the masks of a data set mean.

    Args:
        names: Class index -> name, from 1 on, the background left out.
        label_map: (stored value, class index) pairs; None: the two are the same. Of several values
            of one class the one that stands for it comes first.
        regions: Name -> class indices; None: there are none.
        ignore_label: Stored value of pixels that do not count; None: there is none.
    """

    names: dict[int, str]
    label_map: tuple[tuple[int, int], ...] | None = None
    regions: dict[str, tuple[int, ...]] | None = None
    ignore_label: int | None = None

    def describe(self) -> list[str]:
        """Notes for the user."""
        notes = [f"structures: {listed(self.names.values(), 6)}"]
        if self.label_map is not None:
            classes = listed((f"{value} as {index}" for value, index in self.label_map if index), 6)
            notes.append(f"values of the masks are renumbered: {classes}")
        if self.regions is not None:
            unions = (f"{name} ({listed(of)})" for name, of in self.regions.items())
            notes.append(f"regions, by class: {listed(unions, 6)}")
        if self.ignore_label is not None:
            notes.append(f"pixels of the value {self.ignore_label} do not count")
        return notes


def unnamed(structures: int) -> list[str]:
    """The names of structures that nobody has named, index 1 first: the one is `foreground`,
    several are `class 1`, `class 2`, ... Every verb calls them so."""
    return ["foreground"] if structures == 1 else [f"class {k + 1}" for k in range(structures)]


def label_scheme(labels: object, class_order: object, where: Path) -> LabelScheme:
    """The labels of a dataset.json, either the Decathlon's or nnU-Net's.

    Args:
        labels: {"0": "background", "1": "liver"}, or {"background": 0, "liver": 1}, in which a
            list of values is a region and "ignore" the value of pixels that do not count.
        class_order: nnU-Net's `regions_class_order`: the value that is written for each region.
            Classes are numbered from the regions themselves.
        where: The file, named in errors.

    Raises:
        HyMUNetError: If they are of another form, one value has two names, or there is none beside
            the background.
    """
    structures, ignore = _stored(labels, where)
    if not structures or max(map(len, structures.values())) == 1:
        values = {name: of[0] for name, of in structures.items()}
        return _side_by_side(values, ignore, where)
    if class_order is not None and (
        not isinstance(class_order, list) or len(class_order) != len(structures)
    ):
        raise HyMUNetError(
            f"{where}: regions_class_order is {class_order!r:.100}; expected a value for each of "
            f"the {len(structures)} regions ({listed(structures)})"
        )
    return _regions(structures, ignore, class_order or ())


def _stored(labels: object, where: Path) -> tuple[dict[str, tuple[int, ...]], int | None]:
    """Structure -> its stored values, in the file's order, and the value to be ignored."""
    expected = 'expected {"background": 0, "liver": 1, ...} or {"0": "background", "1": "liver"}'
    if not isinstance(labels, dict):
        raise HyMUNetError(f"{where}: the labels are {labels!r:.100}; {expected}")
    structures: dict[str, tuple[int, ...]] = {}
    ignore: int | None = None
    for key, value in labels.items():
        # the Decathlon has names by number, nnU-Net numbers by name
        name, of = (value, [key]) if isinstance(value, str) and key.isdigit() else (key, value)
        numbers = [_number(v) for v in (of if isinstance(of, list) else [of])]
        values = tuple(sorted({v for v in numbers if v is not None}))
        if not values or None in numbers:
            raise HyMUNetError(
                f"{where}: the label {name!r} has the value {value!r:.100}; {expected}, and a list "
                "of such numbers for a region"
            )
        if name.lower() == "ignore" and len(values) == 1:
            ignore = values[0]
        elif (name.lower() in ("background", "ignore") or 0 in values) and values != (0,):
            raise HyMUNetError(
                f"{where}: the label {name!r} has the value {value!r:.100}; expected 0 for the "
                "background and for nothing else, and one number for what is to be ignored"
            )
        elif values != (0,):
            if name in structures:
                raise HyMUNetError(f"{where}: two labels are called {name!r}; name them apart")
            structures[name] = values
    used = {value for values in structures.values() for value in values}
    if not structures or len(used) > 255 or ignore in {0, *used}:
        raise HyMUNetError(
            f"{where}: the labels are {len(used)} beside the background ({listed(sorted(used))}), "
            f"the one to be ignored is {ignore}; expected 1 to 255 of them, and to ignore another"
        )
    return structures, ignore


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return int(value) if whole else None  # type: ignore[call-overload]


def _side_by_side(values: dict[str, int], ignore: int | None, where: Path) -> LabelScheme:
    """A class for each structure, by ascending value."""
    order = sorted(values, key=values.__getitem__)
    for one, other in pairwise(order):
        if values[one] == values[other]:
            raise HyMUNetError(
                f"{where}: the labels {one!r} and {other!r} both have the value {values[one]}; "
                "give each its own"
            )
    names = dict(enumerate(order, 1))
    return LabelScheme(names, _map({values[name]: k for k, name in names.items()}), None, ignore)


def _regions(
    structures: dict[str, tuple[int, ...]], ignore: int | None, written: Sequence[object]
) -> LabelScheme:
    outside_in = sorted(structures, key=lambda name: -len(structures[name]))
    if all(set(structures[a]) > set(structures[b]) for a, b in pairwise(outside_in)):
        class_of = {
            value: sum(value in values for values in structures.values())
            for value in structures[outside_in[0]]
        }
        regions = {
            name: tuple(range(first, len(outside_in) + 1))
            for first, name in enumerate(outside_in, 1)
        }
        # what lies in a region and not in the next one has no name of its own
        names = {k: f"{a} without {b}" for k, (a, b) in enumerate(pairwise(outside_in), 1)}
        names[len(outside_in)] = outside_in[-1]
        return LabelScheme(names, _map(class_of, written), regions, ignore)
    used = sorted({value for values in structures.values() for value in values})
    class_of = {value: k for k, value in enumerate(used, 1)}
    alone = {values[0]: name for name, values in structures.items() if len(values) == 1}
    names = {class_of[value]: alone.get(value, f"label {value}") for value in used}
    regions = {name: tuple(class_of[v] for v in values) for name, values in structures.items()}
    return LabelScheme(names, _map(class_of), regions, ignore)


def _map(
    class_of: dict[int, int], written: Sequence[object] = ()
) -> tuple[tuple[int, int], ...] | None:
    """The map with the background, values in `written` before others; None where every value is its
    class already."""
    if all(value == index for value, index in class_of.items()):
        return None
    return ((0, 0), *sorted(class_of.items(), key=lambda pair: (pair[0] not in written, pair[0])))
