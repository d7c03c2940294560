"""Checks on images: files, kinds, channels, spacing, intensities."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from hymunet.data.case import Dataset
from hymunet.data.findings import Finding, Level, grouped, minority, tally
from hymunet.data.masks_io import listed
from hymunet.data.survey import CaseSurvey
from hymunet.wording import plural, some_of

LARGEST_FRACTION_OF_SPACING = 2.0  # against the median
# a type says how a file was written; where the axes point changes what a network sees
_DIFFERENCES: tuple[tuple[str, Level], ...] = (("dtype", "note"), ("orientation", "warning"))


def unreadable(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    broken = [row for row in rows if row.problem is not None]
    for row in broken[:20]:
        yield Finding("error", "readable", str(row.problem), (row.id,))
    if len(broken) > 20:
        rest = tuple(row.id for row in broken[20:])
        yield Finding(
            "error",
            "readable",
            f"{plural(len(rest), 'more case', 'more cases')} cannot be used",
            rest,
        )


def kinds(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    # volumes of integers and of floats go together: neither has a scale of its own
    groups = grouped(rows, lambda row: row.kind if row.kind.startswith("2") else "3-D")
    if len(groups) > 1:
        yield Finding(
            "error",
            "kind of image",
            f"the images are of different kinds: {tally(groups)}. 8- and 16-bit pictures have a "
            "scale, floating-point ones and volumes have none, so one model cannot read both: "
            "convert them to one kind",
            minority(groups),
        )
    channels = grouped(rows, lambda row: f"{plural(row.channels, 'channel')}")
    pictures = {row.channels for row in rows} <= {1, 3} and rows[0].kind.startswith("2")
    if len(channels) > 1:
        yield Finding(
            "note" if pictures else "error",
            "channels",
            f"the images have different numbers of channels: {tally(channels)}"
            + (
                "; grey pictures are read as RGB"
                if pictures
                else "; a network reads one number of them: bring or remove channels"
            ),
            minority(channels),
        )
    for what, level in _DIFFERENCES:
        kinds = grouped(rows, partial(_named, what))
        if len(kinds) > 1:
            yield Finding(
                level,
                what,
                f"the images differ in {what}: {tally(kinds)}"
                + (
                    "; voxels are taken in the order in which they are stored, so the network sees "
                    "some of them mirrored or turned: reorient them alike"
                    if what == "orientation"
                    else ""
                ),
                minority(kinds),
            )


def spacing(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    volumes = [row for row in rows if len(row.size) == 3]
    unknown = [row.id for row in volumes if row.spacing_mm is None]
    if unknown:
        yield Finding(
            "warning",
            "spacing",
            f"{some_of(len(unknown), len(volumes), 'volume', ('does', 'do'))} not say how large "
            "voxels are: distances will be in voxels, and nothing is resampled",
            tuple(unknown),
        )
    known = [row for row in rows if row.spacing_mm is not None]
    if not known:
        return
    spacings = np.array([row.spacing_mm for row in known])
    ratio = spacings / np.median(spacings, axis=0)
    apart = np.maximum(ratio, 1 / ratio).max(axis=1)
    far = apart > LARGEST_FRACTION_OF_SPACING
    if far.any():
        order = [i for i in np.argsort(-apart) if far[i]]
        worst = known[order[0]]
        yield Finding(
            "warning",
            "spacing",
            f"{some_of(far.sum(), len(known), 'image', ('has', 'have'))} pixels more than twice as "
            f"large or small as the median {_by(np.median(spacings, axis=0))} mm, {worst.id} "
            f"{_by(np.array(worst.spacing_mm))} mm: check their headers",
            tuple(known[i].id for i in order),
        )


def intensities(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None
) -> Iterable[Finding]:
    constant = [row.id for row in rows if all(one.std == 0 for one in row.image)]
    if constant:
        yield Finding(
            "error",
            "intensities",
            f"{plural(len(constant), 'image is', 'images are')} of one value throughout; export "
            "them again",
            tuple(constant),
        )
    if not rows[0].kind.endswith("integer") or not rows[0].kind.startswith("2"):
        return  # arbitrary units differ from scanner to scanner
    means = np.array([np.mean([one.mean for one in row.image]) for row in rows])
    middle = np.median(means)
    spread = 1.4826 * np.median(np.abs(means - middle))
    far = np.abs(means - middle) > 6 * max(spread, 1e-9)
    if far.any() and len(rows) >= 20:
        order = [i for i in np.argsort(-np.abs(means - middle)) if far[i]]
        yield Finding(
            "warning",
            "intensities",
            f"{plural(len(order), 'image is', 'images are')} far brighter or darker than the "
            f"others (mean {listed((f'{means[i]:.0f}' for i in order), 4)} against {middle:.0f}): "
            "another kind of picture, or exported otherwise; see that each part of the split has "
            "some",
            tuple(rows[i].id for i in order),
        )


def _named(what: str, row: CaseSurvey) -> str:
    return str(getattr(row, what))


def _by(sides: np.ndarray) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)
