"""Decoded and resized cases on disk, so that loading never starves training.

A case is decoded and resized once; later epochs, and later runs at the same size, map the result
into memory. The key holds the path, size and time of each file and the geometry, so a changed file
or setting makes a new entry. Entries are safetensors files, written whole or not at all.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hymunet.data.case import Case
from hymunet.data.case_hash import case_hash
from hymunet.data.case_io import read_case
from hymunet.data.image_io import Image
from hymunet.data.patches import places_of_classes
from hymunet.data.preprocess import Preprocess
from hymunet.data.stamps import file_stamps
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_bytes
from hymunet.wording import plural

Read = TypeVar("Read")
_VERSION = 2  # part of every key: raise it when what an entry holds changes


@dataclass(frozen=True)
class CaseFacts:
    """What reading a case once told about it.

    Args:
        id: The case's id.
        sha256: `case_hash` of its decoded pixels.
        mask_sha256: Of its decoded mask, and of its valid area where it has one.
        size: Its own size in pixels or voxels.
        foreground: Fraction of its pixels that are labelled.
        labels: Class indices that occur in its mask.
        kind: "2-D integer", "2-D float" or "3-D ...": what its pixels are.
        notes: What was understood or converted while reading.
    """

    id: str
    sha256: str
    mask_sha256: str
    size: tuple[int, ...]
    foreground: float
    labels: tuple[int, ...]
    kind: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CachedCase:
    """A case as training reads it: image (channels, *size) uint8 or float32, label and valid
    (*size) uint8."""

    image: Tensor
    label: Tensor
    valid: Tensor


def default_cache_folder() -> Path:
    """$HYMUNET_CACHE, or `hymunet` in the user's cache folder ($XDG_CACHE_HOME, ~/.cache).

    Raises:
        HyMUNetError: If none of them is set and the user has no home folder.
    """
    try:
        if os.environ.get("HYMUNET_CACHE"):
            return Path(os.environ["HYMUNET_CACHE"]).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hymunet"
    except RuntimeError as error:
        raise HyMUNetError(
            "there is no home folder for the cache of prepared images; set HYMUNET_CACHE to a "
            "folder that can be written to"
        ) from error


def kind_of(pixels: np.ndarray) -> str:
    """What pixels are: "2-D integer" pictures have a scale of their own (0 to 255 or 65535), "2-D
    float" ones and volumes ("3-D integer", "3-D float") are in arbitrary units."""
    return f"{pixels.ndim - 1}-D {'float' if pixels.dtype.kind == 'f' else 'integer'}"


class CaseCache:
    """Cases, prepared by `preprocess`'s resize policy, in `folder`.

    Args:
        preprocess: Its geometry is applied; normalisation is left to the training step.
        in_channels: Channels to read.
        num_labels: Values a label map may have, the background included.
        folder: Where entries are kept; None: `default_cache_folder()`.

    Raises:
        HyMUNetError: If the folder cannot be written to.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        in_channels: int,
        num_labels: int,
        folder: Path | None = None,
    ) -> None:
        self.preprocess, self.in_channels, self.num_labels = preprocess, in_channels, num_labels
        self.folder = _writable(folder or default_cache_folder())
        config = preprocess.config
        self._geometry: tuple[object, ...] = (config.resize, config.image_size)
        if config.clip is not None:  # else the key is what it always was
            self._geometry = (*self._geometry, config.clip)
        if config.resize == "window":
            own = config.normalisation if config.normalises_whole else None
            self._geometry = (config.resize, config.spacing_mm, own, config.clip)

    def prepare(
        self, cases: Sequence[Case], progress: Callable[[], object] = lambda: None
    ) -> list[CaseFacts]:
        """Fills the cache for `cases`, in parallel, and returns the facts in their order.

        All broken cases are collected and reported together, so that one pass finds them all.

        Raises:
            HyMUNetError: If any case cannot be read, listing the first ten with their reasons.
        """
        problems: list[str] = []

        def prepare_one(case: Case) -> CaseFacts | None:
            try:
                return self.facts(case)
            except HyMUNetError as error:
                problems.append(f"{case.id}: {error}")
                return None
            finally:
                progress()

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            facts = list(pool.map(prepare_one, cases))
        if problems:
            problems.sort()
            more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise HyMUNetError(
                f"{len(problems)} of {plural(len(cases), 'case')} cannot be used:\n  "
                + "\n  ".join(problems[:10])
                + more
            )
        return [fact for fact in facts if fact is not None]

    def facts(self, case: Case) -> CaseFacts:
        """The facts of one case, from its entry, which is made when missing."""

        def read(path: Path) -> CaseFacts:
            with safe_open(path, framework="pt") as file:
                values = json.loads(file.metadata()["facts"])
            return CaseFacts(
                case.id,
                values["sha256"],
                values["mask_sha256"],
                tuple(values["size"]),
                values["foreground"],
                tuple(values["labels"]),
                values["kind"],
                tuple(values["notes"]),
            )

        return self.read(case, read)

    def load(self, case: Case) -> CachedCase:
        """The prepared tensors of one case, from its entry, which is made when missing."""

        def read(path: Path) -> CachedCase:
            with safe_open(path, framework="pt") as file:
                image, label = file.get_tensor("image"), file.get_tensor("label")
                has_valid = "valid" in file.keys()  # noqa: SIM118
                valid = file.get_tensor("valid") if has_valid else torch.ones_like(label)
            return CachedCase(image, label, valid)

        return self.read(case, read)

    def read(self, case: Case, read: Callable[[Path], Read]) -> Read:
        """What `read` finds in the entry of `case`, a safetensors file with the tensors image and
        label, valid where there is one, and places under `window`; an entry that is missing or cut
        short is made first.

        Raises:
            HyMUNetError: If the case cannot be read, or the entry cannot be kept.
        """
        path = self._entry(case)
        # a full disk or a power cut may leave a broken entry
        broken = (OSError, SafetensorError, KeyError, TypeError, ValueError)
        with suppress(*broken):
            return read(path)
        self._fill(case, path)
        try:
            return read(path)
        except broken as error:
            raise HyMUNetError(
                f"cannot read back {path} ({error}); check the disk or set HYMUNET_CACHE elsewhere"
            ) from error

    def _entry(self, case: Case) -> Path:
        """Where `case` is kept: a name made of its files' paths, sizes and times, and geometry."""
        key = [_VERSION, file_stamps(case), self._geometry, self.in_channels, self.num_labels]
        if case.label_map is not None or case.ignore_label is not None:
            key += [case.label_map, case.ignore_label]  # else the key is what it always was
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.safetensors"

    def _fill(self, case: Case, path: Path) -> None:
        image, mask, valid = read_case(case, self.in_channels, self.num_labels)
        if self.preprocess.config.image_size is not None and image.pixels.ndim != 3:
            raise HyMUNetError(
                f"{case.channels[0]} is a volume among pictures; train pictures and volumes apart"
            )
        label = self._resize_labels(mask.labels, self.num_labels, image.spacing_mm)
        tensors = {"image": self._resize(image), "label": label}
        if valid is not None:
            tensors["valid"] = self._resize_labels(valid.astype(np.uint8), 2, image.spacing_mm)
        if self.preprocess.config.resize == "window":
            tensors["places"] = places_of_classes(label, tensors.get("valid"))
        facts = {
            "sha256": case_hash(image.pixels),
            "mask_sha256": case_hash(mask.labels)
            if valid is None
            else case_hash(np.stack([mask.labels, valid.astype(mask.labels.dtype)])),
            "size": image.pixels.shape[1:],
            "foreground": float((mask.labels > 0).mean()),
            "labels": np.unique(mask.labels).tolist(),
            "kind": kind_of(image.pixels),
            "notes": [*image.notes, *mask.notes],
        }
        _writable(path.parent)
        entry = save({k: v.contiguous() for k, v in tensors.items()}, {"facts": json.dumps(facts)})
        if shutil.disk_usage(path.parent).free < 2 * len(entry):
            raise HyMUNetError(
                f"the disk of the cache folder {self.folder} is full; free some space or set "
                "HYMUNET_CACHE to another folder"
            )
        write_bytes(path, entry)

    def _resize(self, image: Image) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image.pixels))
        resized = self.preprocess.resize(
            self.preprocess.unit_range(pixels)[None], image.spacing_mm
        )[0]
        if self.preprocess.config.normalises_whole:
            return self.preprocess.normalise(resized[None])[0].half()
        if pixels.dtype == torch.uint8 and self.preprocess.config.resize != "window":
            # a quarter of the space; half a grey level of rounding is below the noise of any camera
            resized = (resized * 255.0).round().clamp(0, 255).to(torch.uint8)
        return resized

    def _resize_labels(
        self, labels: np.ndarray, num_labels: int, spacing_mm: tuple[float, ...] | None
    ) -> Tensor:
        label = torch.from_numpy(np.ascontiguousarray(labels))[None]
        return self.preprocess.resize_labels(label, num_labels, spacing_mm)[0]


def _writable(folder: Path) -> Path:
    try:
        return make_folder(folder)
    except HyMUNetError as error:
        raise HyMUNetError(
            f"the cache of prepared images cannot be kept in {folder} ({error.__cause__}); free "
            "the place or set HYMUNET_CACHE to another folder"
        ) from error
