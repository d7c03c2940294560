"""Going through the cases that a model may be judged on: each read once, trained ones refused."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from hymunet.data.case import Case
from hymunet.data.image_io import Image
from hymunet.errors import HyMUNetError
from hymunet.evaluation.seen import KnownCases, chose_refusal, refusal
from hymunet.evaluation.sources import is_mask_folder
from hymunet.evaluation.truth import Truth, read_pixels, read_truth
from hymunet.wording import plural

_Item = TypeVar("_Item")


def refuse_masks(model: str, verb: str) -> None:
    """Raises HyMUNetError if `model` is a folder of masks, which `evaluate` alone can judge."""
    if is_mask_folder(Path(model)):
        raise HyMUNetError(
            f"{verb} has to run the model, but {model} is a folder of masks; name a model file or "
            "a run folder"
        )


def image_of(case: Case, truth: Truth) -> Image:
    """The image of a case; raises HyMUNetError where there are only masks."""
    if truth.image is None:
        raise HyMUNetError(
            f"case {case.id} has a reference mask but no image to predict on; name a data set with "
            "images"
        )
    return truth.image


def limited(cases: Sequence[Case], limit: int | None) -> tuple[list[Case], list[str]]:
    """At most `limit` cases, evenly spread over the list, and the note that says so.

    Raises:
        HyMUNetError: If the limit is below 1.
    """
    if limit is None or limit >= len(cases):
        return list(cases), []
    if limit < 1:
        raise HyMUNetError(f"--limit must be 1 or more, not {limit}; leave it out to take all")
    chosen = np.linspace(0, len(cases) - 1, limit).round().astype(int)
    note = f"{limit} of {plural(len(cases), 'case')}, evenly spread over the list (--limit)"
    return [cases[index] for index in chosen], [note]


def held_out(
    cases: Sequence[Case],
    in_channels: int | None,
    num_labels: int,
    known: KnownCases,
    seen: dict[str, str],
    force: bool = False,
    label: str = "",
    clean: bool = False,
) -> Iterator[tuple[Case, Truth]]:
    """Each case with its image and truth, read once, under a progress bar.

    After the first case that must be refused nothing is handed out any more: the others are only
    checked, so that all of them are named in the error at the end.

    Args:
        cases: In the order wanted.
        in_channels: Channels to read images with; None: as they are.
        num_labels: Classes, the background included.
        known: The cases that the model was made with.
        seen: Filled in: case id -> what `KnownCases.part_of` says of it.
        force: Hand out cases that were trained on as well.
        label: What is being done, for the progress bar.
        clean: Refuse cases that chose the model's epoch as well.

    Raises:
        HyMUNetError: After the last case, if one was trained on and `force` is not given, or one
            chose the epoch and all must be `clean`; or if a file cannot be read.
    """
    unfit = set() if force else {"train"}
    if clean and known.val_chose:
        unfit.add("val")
    refused = False
    for case in progress(cases, label):
        if refused:
            seen[case.id] = known.part_of(read_pixels(case, in_channels))
            continue
        truth = read_truth(case, in_channels, num_labels)
        seen[case.id] = known.part_of(truth.image)
        refused = seen[case.id] in unfit
        if not refused:
            yield case, truth
    if refused:
        trained = "train" in unfit and "train" in seen.values()
        raise refusal(seen) if trained else chose_refusal(seen)


def progress(cases: Sequence[_Item], label: str) -> Iterable[_Item]:
    """The items of a list, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    # on stderr: --json leaves stdout to machines
    return track(cases, label, console=Console(stderr=True), transient=True)
