"""What predictions are compared with: the cases of a data set, or a plain folder of masks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hymunet.data.case import Case, Dataset
from hymunet.data.case_io import read_case, read_label
from hymunet.data.formats import find_dataset
from hymunet.data.groups import grouped_by_name
from hymunet.data.image_io import Image, read_image, stem_of
from hymunet.data.masks_io import is_volume, listed
from hymunet.data.splits import PARTS, load_split, read_split
from hymunet.errors import HyMUNetError
from hymunet.evaluation.sources import case_name, find_run, is_mask_folder, mask_files
from hymunet.wording import plural


@dataclass(frozen=True)
class Truth:
    """What a prediction of one case is compared with, on the case's original pixels.

    Args:
        image: None for a case of a plain folder of masks.
        labels: Class indices, (*spatial).
        valid: Pixels that count, bool, (*spatial); None: all.
        spacing_mm: Size of a pixel along each axis; None: unknown.
    """

    image: Image | None
    labels: np.ndarray
    valid: np.ndarray | None = None
    spacing_mm: tuple[float, ...] | None = None


def find_cases(
    truth: Path,
    prediction: str,
    split: str | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    groups: str | None = None,
) -> tuple[Dataset, list[Case], list[str]]:
    """The data set, its cases to score, and notes on what was chosen or left out.

    Args:
        truth: A data set in any layout that training takes; to be compared with a folder of masks
            also a plain folder of masks.
        prediction: As in `find_source`.
        split: Only this part: of `split_file`, else by the run's own split when it knows the cases,
            else the data's.
        images: Folder of images, when it has no usual name.
        masks: Folder of reference masks, when it has no usual name.
        split_file: A split.csv, or the split.json of a run; see `read_split`.
        groups: See `grouped_by_name`; cases of one group are not independent.

    Raises:
        HyMUNetError: If there are no such cases.
    """
    found = _find_truth(truth, is_mask_folder(Path(prediction)), images, masks)
    dataset = grouped_by_name(found, groups)
    cases, notes = _labelled(dataset)
    cases, split_notes = _choose(cases, dataset, split, find_run(Path(prediction)), split_file)
    return dataset, cases, [*dataset.notes, *notes, *split_notes]


def read_truth(case: Case, in_channels: int | None, num_labels: int) -> Truth:
    """Reads image, reference and valid area of a case, each once.

    Args:
        case: Its label must exist.
        in_channels: Channels to read the image with; None: as it is.
        num_labels: Classes, background included.

    Raises:
        HyMUNetError: If a file cannot be read, or the sizes differ.
    """
    if not case.channels:
        assert case.label is not None
        labels = read_label(case, num_labels).labels
        return Truth(None, labels, None, case.spacing_mm or _spacing_of_mask(case.label))
    image, reference, valid = read_case(case, in_channels, num_labels)
    return Truth(image, reference.labels, valid, image.spacing_mm)


def read_pixels(case: Case, in_channels: int | None) -> Image | None:
    """The image of a case; None for a case of a plain folder of masks."""
    if case.channels:
        return read_image(case.channels, in_channels)
    return None


def _find_truth(truth: Path, plain_masks: bool, images: Path | None, masks: Path | None) -> Dataset:
    try:
        return find_dataset(truth, images, masks)
    except HyMUNetError:
        if not (plain_masks and truth.is_dir() and mask_files(truth)):
            raise
    cases: dict[str, Case] = {}
    for path in mask_files(truth):
        name = case_name(stem_of(path))
        if name in cases:
            raise HyMUNetError(
                f"two reference masks are named {name}: {cases[name].label} and {path}; keep one"
            )
        cases[name] = Case(name, (), label=path)
    note = "the reference is a plain folder of masks: no images, so no contrast"
    return Dataset("folder of masks", truth, tuple(cases.values()), None, (note,))


def _spacing_of_mask(path: Path) -> tuple[float, ...] | None:
    # a picture's resolution tag says nothing about a mask; a volume's header does
    return read_image(path, in_channels=None).spacing_mm if is_volume(path) else None


def _labelled(dataset: Dataset) -> tuple[list[Case], list[str]]:
    cases = [case for case in dataset.cases if case.label is not None]
    if not cases:
        raise HyMUNetError(
            f"no case of {dataset.root} has a reference mask "
            f"({plural(len(dataset.cases), 'case')}); an evaluation needs them"
        )
    left = len(dataset.cases) - len(cases)
    return cases, [
        f"{plural(left, 'case')} without a reference mask {'was' if left == 1 else 'were'} left out"
    ] if left else []


def _choose(
    cases: list[Case],
    dataset: Dataset,
    split: str | None,
    run: Path | None,
    split_file: Path | None,
) -> tuple[list[Case], list[str]]:
    """The cases of the named part: of the split file, else by the run's own split when it knows
    them, else the data's."""
    if split is None:
        if split_file is not None:
            raise HyMUNetError(
                f"--split-file {split_file} says which case is in which part; say by --split which "
                "part to score: train, val or test"
            )
        return cases, []
    if split not in PARTS:
        raise HyMUNetError(f"expected --split train, val or test, got {split!r}")
    known = {case.id for case in cases}
    table, origin = dataset.split, "the data's split.csv"
    if split_file is not None:
        table = read_split(split_file, [case.id for case in dataset.cases]).part_of
        origin = split_file.name
    elif run is not None and (run / "split.json").is_file():
        own = load_split(run / "split.json").part_of
        if own.keys() & known:
            table, origin = own, "the run's split.json"
    if table is None:
        raise HyMUNetError(
            f"--split {split} needs a split, and {dataset.root} has no split.csv; "
            "add one (columns case,split), name one by --split-file, or leave --split out"
        )
    wanted = {name for name, part in table.items() if part == split}
    if wanted - known:
        raise HyMUNetError(
            f"{origin} puts {plural(len(wanted), 'case')} into {split}, but {len(wanted - known)} "
            f"of them are not in {dataset.root} or have no mask: {listed(sorted(wanted - known))}"
        )
    if not wanted:
        raise HyMUNetError(f"{origin} puts no case into {split}; choose another part")
    note = f"{len(wanted)} of {plural(len(known), 'case')}: the part {split} of {origin}"
    return [case for case in cases if case.id in wanted], [note]
