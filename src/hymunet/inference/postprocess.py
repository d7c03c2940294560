"""Cleaning a mask up: only the largest part of a structure, and without holes.

A network decides pixel by pixel and does not know that an organ is one piece. Which structures are
is not known beforehand either, so `hymunet.evaluation.choose_postprocess` tries it on validation
cases, as nnU-Net does (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z).

Masks hold class indices. Structure k is where the index is k (softmax), or at least k where
structures are nested (sigmoid). All structures lose their smaller parts first, the first one first;
then holes are filled, those of the last structure first, since structures that lie inside others
come after them. Doing it twice changes nothing more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import ndimage

from hymunet.errors import HyMUNetError
from hymunet.network.promise import postprocess_text

KEEP_LARGEST = "keep_largest"
FILL_HOLES = "fill_holes"
OPERATIONS = (KEEP_LARGEST, FILL_HOLES)

_Box = tuple[slice, ...]


@dataclass(frozen=True)
class Postprocess:
    """What is done to a mask: `Postprocess(("liver",), False, {"liver": ("keep_largest",)})(mask)`.

    `keep_largest`: the connected part (corners touching) with the most pixels stays; of equally
    large ones the first in raster order. What goes becomes background, or, where structures are
    nested, belongs to the structure around it only (index k - 1).

    `fill_holes`: pixels that no path over edges (2-D) or faces (3-D) leads out of the structure
    from join it. Other structures keep theirs: where they are not nested, only background is
    filled, in whole pieces that touch the structure.

    Args:
        classes: Names of the classes 1, 2, ...
        nested: Whether a structure holds those of higher index.
        operations: Name of a structure -> `keep_largest`, `fill_holes` or both, in any order.

    Raises:
        HyMUNetError: If a name is no structure's or several structures', or an operation is none.
    """

    classes: tuple[str, ...]
    nested: bool = False
    operations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not isinstance(self.operations, Mapping):
            raise HyMUNetError(
                'the post-processing must name operations by structure, such as {"liver": '
                f'["{KEEP_LARGEST}"]}}, not {self.operations!r:.100}'
            )
        chosen = {}
        for name, wanted in self.operations.items():
            if self.classes.count(name) != 1:
                raise HyMUNetError(
                    f"the post-processing names the structure {name!r}; expected one of "
                    f"{', '.join(self.classes)}, each name once"
                )
            listed = isinstance(wanted, (list, tuple))
            unknown = [one for one in wanted if one not in OPERATIONS] if listed else [wanted]
            if unknown:
                raise HyMUNetError(
                    f"the post-processing of {name} has {', '.join(map(str, unknown)):.100}, which "
                    f"this version does not know; it knows {', '.join(OPERATIONS)}: update hymunet"
                )
            if wanted:
                chosen[name] = tuple(one for one in OPERATIONS if one in wanted)
        object.__setattr__(self, "operations", chosen)

    @classmethod
    def from_dict(cls, values: Any, classes: Iterable[str], nested: bool) -> "Postprocess":
        """From the `postprocess` entry of a model file; None, no entry, does nothing.

        Args:
            values: Name of a structure -> list of operations.
            classes: As above.
            nested: As above.

        Raises:
            HyMUNetError: If it has a structure or an operation that is not known.
        """
        return cls(tuple(classes), nested, {} if values is None else values)

    def to_dict(self) -> dict[str, list[str]]:
        """For the `postprocess` entry of a model file."""
        return {name: list(chosen) for name, chosen in self.operations.items()}

    def with_operation(self, structure: str, operation: str) -> "Postprocess":
        """The same and one operation more."""
        chosen = (*self.operations.get(structure, ()), operation)
        return replace(self, operations={**self.operations, structure: chosen})

    def describe(self) -> str:
        """`liver: keep largest, fill holes; spleen: ...`; empty when nothing is done."""
        return postprocess_text(self.operations)

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        """Class indices (*spatial), 2-D or 3-D, unsigned or signed -> the same shape and type; the
        input stays as it is.

        Raises:
            HyMUNetError: If the mask does not hold class indices.
        """
        if mask.ndim not in (2, 3) or mask.dtype.kind not in "ui":
            raise HyMUNetError(
                "a mask holds class indices, whole numbers, in 2-D or 3-D, but this one is "
                f"{mask.dtype} of shape {mask.shape}"
            )
        if not self.operations or not mask.size:
            return mask
        mask = mask.copy()
        # nothing below leaves the box of its structure, and what goes only makes it too large
        boxes = _boxes(mask, len(self.classes), self.nested)
        places = [
            (index, boxes[index - 1], self.operations[name])
            for index, name in enumerate(self.classes, start=1)
            if name in self.operations
        ]
        for index, box, chosen in places:
            if box is not None and KEEP_LARGEST in chosen:
                _keep_largest(mask[box], index, self.nested)
        for index, box, chosen in reversed(places):
            if box is not None and FILL_HOLES in chosen:
                _fill_holes(mask[box], index, self.nested)
        return mask


def _boxes(mask: np.ndarray, structures: int, nested: bool) -> list[_Box | None]:
    """The bounding box of each structure; None of an empty one."""
    boxes: list[_Box | None] = list(ndimage.find_objects(mask, max_label=structures))
    if nested:
        for index in reversed(range(structures - 1)):
            boxes[index] = _around(boxes[index], boxes[index + 1])
    return boxes


def _around(one: _Box | None, other: _Box | None) -> _Box | None:
    if one is None or other is None:
        return other if one is None else one
    ends = zip(one, other, strict=True)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in ends)


def _inside(region: np.ndarray, index: int, nested: bool) -> np.ndarray:
    return region >= index if nested else region == index


def _keep_largest(region: np.ndarray, index: int, nested: bool) -> None:
    """In place: `region` is the part of the mask with the structure."""
    inside = _inside(region, index, nested)
    parts, count = ndimage.label(inside, np.ones((3,) * region.ndim, bool))
    if count < 2:
        return
    sizes = np.bincount(parts[inside], minlength=count + 1)
    inside &= parts != sizes.argmax()
    region[inside] = index - 1 if nested else 0


def _fill_holes(region: np.ndarray, index: int, nested: bool) -> None:
    """In place, as above."""
    inside = _inside(region, index, nested)
    holes = _enclosed(inside)
    if not nested:
        empty = holes & (region == 0)
        if not np.array_equal(empty, holes):
            # others lie in the holes: a piece of background within another is not this one's
            empty = _touching(empty, inside)
        holes = empty
    region[holes] = index


def _enclosed(inside: np.ndarray) -> np.ndarray:
    """Pixels outside the structure that cannot reach the frame by steps along the axes; scipy's
    binary_fill_holes finds the same in twice the time."""
    cross = ndimage.generate_binary_structure(inside.ndim, 1)
    # a rim around all, so that what is outside is one part, the one at the corner
    parts, count = ndimage.label(np.pad(~inside, 1, constant_values=True), cross)
    inner = parts[(slice(1, -1),) * inside.ndim]
    if count == 1:
        return np.zeros_like(inside)
    return (inner != parts.flat[0]) & ~inside


def _touching(empty: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The connected pieces of `empty` that share an edge or a face with `inside`."""
    cross = ndimage.generate_binary_structure(inside.ndim, 1)
    parts, count = ndimage.label(empty, cross)
    touches = np.zeros(count + 1, bool)
    for axis in range(inside.ndim):
        # views with the axis in front: each pixel and its neighbour, then the other way round
        near, pieces, own = (np.moveaxis(a, axis, 0) for a in (inside, parts, empty))
        touches[pieces[1:][own[1:] & near[:-1]]] = True
        touches[pieces[:-1][own[:-1] & near[1:]]] = True
    return touches[parts]
