"""One look at every case of a data set: sizes, spacing, intensities, labels, fingerprints.

`verify` says from it what is wrong, `plan` what to do. Each case is decoded once; what was seen is
kept beside the prepared cases, so that a second look costs nothing while the files stay the same.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from scipy import ndimage

from hymunet.data.case import Case, Dataset
from hymunet.data.case_hash import case_hash
from hymunet.data.case_io import read_stored_case
from hymunet.data.duplicates import picture_hash
from hymunet.data.image_io import Image
from hymunet.data.masks_io import histogram
from hymunet.data.stamps import file_stamps
from hymunet.errors import HyMUNetError
from hymunet.files import write_bytes

_VERSION = 3  # part of every key: raise it when what is kept changes
_SAMPLE = 200_000  # pixels that percentiles are taken of: three digits, in milliseconds


@dataclass(frozen=True)
class Intensities:
    """Of one channel: percentiles 0.5 and 99.5, mean and standard deviation, in the file's unit."""

    low: float
    mean: float
    std: float
    high: float


@dataclass(frozen=True)
class CaseSurvey:
    """What one case looks like.

    Args:
        id: The case's id.
        group: Of the case, None where the data name none.
        problem: Why the case cannot be used; None: it can, and only then is the rest known.
        size: (*spatial) in pixels or voxels.
        spacing_mm: Along each axis; None: unknown.
        orientation: Where the axes of a volume point, as stored: "RAS", "LPI", ...; None: unknown.
        channels: Number of channels.
        dtype: uint8, uint16 or float32.
        image: A row a channel, over the whole image.
        zeros: Share of pixels that are 0 in every channel.
        inside: A row a channel, over the labelled pixels; empty where there are none.
        counts: Value in the mask (class index where the data map them) -> pixels.
        pieces: Connected pieces of the labelled area; 0 in volumes, where nobody asks.
        piece_area: Pixels of the median piece.
        not_valid: Share of pixels that do not count.
        sha256: `case_hash` of the image.
        picture_hash: See `hymunet.data.duplicates.picture_hash`.
        notes: What was understood or converted while reading.
    """

    id: str
    group: str | None = None
    problem: str | None = None
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    orientation: str | None = None
    channels: int = 0
    dtype: str = ""
    image: tuple[Intensities, ...] = ()
    zeros: float = 0.0
    inside: tuple[Intensities, ...] = ()
    counts: tuple[tuple[int, int], ...] = ()
    pieces: int = 0
    piece_area: float = 0.0
    not_valid: float = 0.0
    sha256: str = ""
    picture_hash: int = 0
    notes: tuple[str, ...] = ()

    @property
    def foreground(self) -> float:
        """Share of pixels that are labelled."""
        pixels = dict(self.counts)
        total = sum(pixels.values())
        return 1.0 - pixels.get(0, 0) / total if total else 0.0

    @property
    def kind(self) -> str:
        """ "2-D integer", "2-D float", "3-D integer" or "3-D float"."""
        return f"{len(self.size)}-D {'float' if self.dtype.startswith('f') else 'integer'}"


def survey(
    dataset: Dataset, folder: Path | None = None, progress: Callable[[], object] = lambda: None
) -> list[CaseSurvey]:
    """Looks at every case, in parallel; a case that cannot be read is a row with its `problem`.

    Args:
        dataset: Its cases.
        folder: Where rows are kept between runs; None: nowhere.
        progress: Called after each case, from any thread.

    Returns:
        A row a case, in the order of the data set.
    """

    def one(case: Case) -> CaseSurvey:
        try:
            return _remembered(case, folder)
        except HyMUNetError as error:
            return CaseSurvey(case.id, case.group, problem=str(error))
        finally:
            progress()

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, dataset.cases))


def look_at(case: Case) -> CaseSurvey:
    """The row of one case.

    Raises:
        HyMUNetError: If a file cannot be read, sizes or grids differ, or a value in the mask is no
            label of the data set.
    """
    image, values, valid, notes = read_stored_case(case)
    found, counts = histogram(values)
    labelled = values > 0 if valid is None else (values > 0) & valid
    channels = image.pixels.reshape(len(image.pixels), -1)
    flat = labelled.ravel()
    pieces, piece_area = _pieces(labelled) if labelled.ndim == 2 else (0, 0.0)
    return CaseSurvey(
        id=case.id,
        group=case.group,
        size=tuple(image.pixels.shape[1:]),
        spacing_mm=image.spacing_mm,
        orientation=_orientation(image),
        channels=len(image.pixels),
        dtype=image.pixels.dtype.name,
        image=tuple(_intensities(channel) for channel in channels),
        zeros=float((channels == 0).all(axis=0).mean()),
        inside=tuple(_intensities(channel[flat]) for channel in channels) if flat.any() else (),
        counts=tuple((int(v), int(n)) for v, n in zip(found, counts, strict=True)),
        pieces=pieces,
        piece_area=piece_area,
        not_valid=0.0 if valid is None else float(1.0 - valid.mean()),
        sha256=case_hash(_as_trained(image.pixels, len(case.channels))),
        picture_hash=picture_hash(image.pixels),
        notes=tuple(notes),
    )


def _as_trained(pixels: np.ndarray, files: int) -> np.ndarray:
    """Grey pictures are read as RGB, and are known by these pixels."""
    grey = pixels.ndim == 3 and len(pixels) == 1 and files == 1
    return np.repeat(pixels, 3, axis=0) if grey else pixels


def _pieces(labelled: np.ndarray) -> tuple[int, float]:
    """Number of connected pieces and the median of their areas."""
    numbered, count = ndimage.label(labelled)
    if count == 0:
        return 0, 0.0
    return count, float(np.median(np.bincount(numbered.ravel())[1:]))


def _intensities(values: np.ndarray) -> Intensities:
    step = -(-len(values) // _SAMPLE)
    low, high = np.percentile(values[::step], (0.5, 99.5))
    exact = values.astype(np.float64)
    return Intensities(float(low), float(exact.mean()), float(exact.std()), float(high))


def _orientation(image: Image) -> str | None:
    """Where the stored axes point, in the file's own (x, y, z) order; None without an affine."""
    if image.affine is None or not np.isfinite(image.affine).all():
        return None
    from nibabel.orientations import aff2axcodes

    codes = aff2axcodes(image.affine)
    return None if None in codes else "".join(codes)


def _remembered(case: Case, folder: Path | None) -> CaseSurvey:
    if folder is None:
        return look_at(case)
    path = folder / f"{_key(case)}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):  # not there, or cut short
        return _from_json(json.loads(path.read_text("utf-8")))
    row = look_at(case)
    with suppress(HyMUNetError):  # a full disk costs the next look, not this one
        write_bytes(path, json.dumps(asdict(row)).encode())
    return row


def _key(case: Case) -> str:
    """Of the files' paths, sizes and times, and of all else that a row depends on."""
    about = [case.id, case.group, case.spacing_mm, case.label_map, case.ignore_label]
    stamps = [_VERSION, *about, *file_stamps(case)]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:32]


def _from_json(values: dict[str, object]) -> CaseSurvey:
    known = {field.name for field in fields(CaseSurvey)}
    if set(values) != known:
        raise ValueError("of another version")
    plain = {name: _tuples(value) for name, value in values.items()}
    for name in ("image", "inside"):
        rows = values[name]
        assert isinstance(rows, list)
        plain[name] = tuple(Intensities(**row) for row in rows)
    return CaseSurvey(**plain)  # type: ignore[arg-type]


def _tuples(value: object) -> object:
    """JSON's lists as tuples, at any depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
