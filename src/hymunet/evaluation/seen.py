"""Whether a model has met a case before: the pixels' fingerprints against those in its file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hymunet.data.case_hash import case_hash, fingerprints
from hymunet.data.image_io import Image
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.wording import some_of

FORCED = "FORCED"
OPTIMISTIC = "these cases chose the epoch: optimistic"
CUT = "these cases chose the threshold: optimistic"
CLEANED = "these cases chose the post-processing: optimistic"
WATCHED = "these cases were watched during training but chose nothing"


@dataclass(frozen=True)
class KnownCases:
    """The cases that a model was made with.

    Args:
        train: Fingerprints (`case_hash`) of the cases it was trained on.
        val: Fingerprints of the validation part.
        val_chose: Whether the validation part decided which epoch's weights the model holds.
        cut: Fingerprints of the cases that chose its threshold (`hymunet calibrate --write`).
        cleaned: Fingerprints of the cases that chose its post-processing, where it has any.
        note: What a reader has to know when nothing can be compared.
    """

    train: frozenset[str] = frozenset()
    val: frozenset[str] = frozenset()
    val_chose: bool = True
    cut: frozenset[str] = frozenset()
    cleaned: frozenset[str] = frozenset()
    note: str | None = None

    def part_of(self, image: Image | None) -> str:
        """What the model has met an image as, by all of its pixels: "train", "val", "threshold" or
        "postprocess" for one that chose these and not the epoch, or ""."""
        if image is None or not self.train:
            return ""
        found = case_hash(image.pixels)
        if found in self.train:
            return "train"
        if found in self.val and self.val_chose:
            return "val"
        if found in self.cut:
            return "threshold"
        if found in self.cleaned:
            return "postprocess"
        return "val" if found in self.val else ""

    def notes(self, seen: Mapping[str, str]) -> list[str]:
        """What a reader has to know of the cases that were scored; `seen` as `part_of` gave it."""
        notes = [self.note] if self.note else []
        count = Counter(seen.values())
        if trained := count["train"]:
            notes.append(
                f"{FORCED}: {some_of(trained, len(seen), 'case', ('was', 'were'))} trained on; "
                "these numbers do not show how the model does on new images"
            )
        if chose := count["threshold"]:
            notes.append(
                f"{some_of(chose, len(seen), 'case', ('is', 'are'))} known to the model; {CUT}"
            )
        if chose := count["postprocess"]:
            notes.append(
                f"{some_of(chose, len(seen), 'case', ('is', 'are'))} known to the model; {CLEANED}"
            )
        if met := count["val"]:
            consequence = OPTIMISTIC if self.val_chose else WATCHED
            met_text = some_of(met, len(seen), "case", ("was", "were"))
            notes.append(f"{met_text} in the validation part; {consequence}")
        return notes


def known_cases(info: Mapping[str, Any] | None, postprocess: bool = True) -> KnownCases:
    """What a model file tells of its cases.

    Args:
        info: The file's metadata; None for masks whose model is not known.
        postprocess: Whether masks are cleaned up as the file says; else the cases that chose how
            have no part in what is looked at.
    """
    if info is None:
        note = "masks from a folder: whether their model was trained on a case is not known"
        return KnownCases(note=note)
    recorded = info.get("cases") or {}
    train, val = (fingerprints(recorded.get(part)) for part in ("train", "val"))
    if not train:
        note = "the model file lists no training cases: overlap with them was not checked"
        return KnownCases(note=note)
    records = [info.get(name) or {} for name in ("calibration", "risk_control")]
    cut = frozenset().union(*(fingerprints(record.get("cases")) for record in records))
    # where nothing was chosen, masks are what they would be without having looked
    chosen = info.get("postprocess_choice") if postprocess and info.get("postprocess") else None
    cleaned = fingerprints((chosen or {}).get("cases"))
    return KnownCases(train, val, _validation_chose(info), cut, frozenset(cleaned))


def refusal(seen: Mapping[str, str]) -> HyMUNetError:
    """The error that names every case that was trained on; `seen` holds each case's part."""
    trained: Sequence[str] = sorted(name for name, part in seen.items() if part == "train")
    return HyMUNetError(
        f"{some_of(len(trained), len(seen), 'case', ('was', 'were'))} trained on: "
        f"{listed(trained)}; their scores say nothing about new images. Name cases it "
        "has not seen (--split test where the data have a split; --split-file names another), or "
        "add --force to take them all the same"
    )


def chose_refusal(seen: Mapping[str, str]) -> HyMUNetError:
    """The error that names every case that chose the model's epoch, where nothing may have."""
    chose = sorted(name for name, part in seen.items() if part == "val")
    return HyMUNetError(
        f"{some_of(len(chose), len(seen), 'case', ('was', 'were'))} in the validation part, which "
        f"chose this model's epoch (or its file does not say that it did not): {listed(chose)}; "
        "what is new is not like them, so they cannot set a miss rate. Name cases that chose "
        "nothing (--split test, other data), or train with --select last"
    )


def _validation_chose(info: Mapping[str, Any]) -> bool:
    """Whether the validation part picked the epoch; taken for granted where the file is silent."""
    options = (info.get("training") or {}).get("options") or {}
    # with a patience the validation part decides when to stop, so which epoch is the last one
    return options.get("select") != "last" or bool(options.get("patience"))
