"""From a data set to batches: what its images are, how they are split, how they are loaded."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hymunet.console import counted, say
from hymunet.data.augment import Augment
from hymunet.data.cache import CaseCache, CaseFacts, kind_of
from hymunet.data.case import Case, Dataset
from hymunet.data.case_io import read_case
from hymunet.data.dicom_header import is_dicom
from hymunet.data.dicom_series import is_dicom_volume
from hymunet.data.duplicates import hash_images, near_duplicate_groups
from hymunet.data.image_io import read_image
from hymunet.data.masks_io import is_volume, listed
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.data.splits import Split, load_split, make_split, read_split, split_from_table
from hymunet.data.survey import CaseSurvey
from hymunet.errors import HyMUNetError
from hymunet.metrics.shape import contrast
from hymunet.training.dataset import CaseDataset, EpochSampler, PatchDataset, RankBatches
from hymunet.training.options import TrainOptions
from hymunet.training.planning.plan import Settings
from hymunet.training.ranks import ALONE, Ranks
from hymunet.wording import plural


def kind_of_images(case: Case) -> tuple[int, int, bool]:
    """(channels, spatial dimensions, whether intensities are in arbitrary units): pictures are read
    as RGB, volumes as they are; see `hymunet.data.cache.kind_of`."""
    pixels = read_image(case.channels, None).pixels
    dims = pixels.ndim - 1
    channels = 3 if dims == 2 and len(case.channels) == 1 else len(pixels)
    return channels, dims, kind_of(pixels) != "2-D integer"


def prepare(cases: Sequence[Case], cache: CaseCache, console: Console) -> list[CaseFacts]:
    """Reads and resizes every case once, and says what was understood.

    Raises:
        HyMUNetError: If cases cannot be read.
    """
    with counted(console, "reading cases", len(cases)) as advance:
        facts = cache.prepare(cases, advance)
    notes: dict[str, int] = {}
    for fact in facts:
        for note in fact.notes:
            notes[note] = notes.get(note, 0) + 1
    for note, count in sorted(notes.items(), key=lambda item: -item[1])[:5]:
        say(console, f"  {plural(count, 'file')}: {note}")
    return facts


def given_split(
    dataset: Dataset, file: Path | None, saved: Path | None = None
) -> tuple[Dataset, Split | None]:
    """The split of a run where there is one before its cases are read: the one that a resumed run
    has saved, else that of `file`, else the data's own.

    Returns:
        The data set of the cases that are used, with what the file says as its own split; and the
        split, None where it is still to be drawn, wholly or but for its test part.

    Raises:
        HyMUNetError: If cases of the split are not in the data, or none is for training.
    """
    ids = [case.id for case in dataset.cases]
    if saved is not None and saved.exists():
        split = load_split(saved)
        used = {*split.train, *split.val, *split.test}
        missing = used - set(ids)
        if missing:
            raise HyMUNetError(
                f"{plural(len(missing), f'case of {saved} is', f'cases of {saved} are')} no longer "
                f"in the data ({listed(sorted(missing))}); restore them or start a new run"
            )
        new = len(ids) - len(used)
        notes = [f"{plural(new, 'case')} in no part of its split and not used"] * (new > 0)
        return _only(dataset, used), replace(split, notes=(*split.notes, *notes))
    if file is not None:
        split = read_split(file, ids)
        parts = split.part_of
        left = sorted(set(ids) - set(parts))
        note = f"{plural(len(left), 'case')} in no part of it and not used: {listed(left, 3)}"
        split = replace(split, notes=(*split.notes, *([note] if left else [])))
        dataset = replace(_only(dataset, set(parts)), split=parts)
    elif dataset.split is not None:
        split = split_from_table(ids, dataset.split)
    else:
        return dataset, None
    if not split.train:
        where = "the data's split" if file is None else str(file)
        raise HyMUNetError(
            f"{where} gives no case to train; expected some, and some for val (else they are drawn "
            "from those of train)"
        )
    if split.val:
        return dataset, split
    said = split.notes if file is not None else ()
    return replace(dataset, notes=(*dataset.notes, *said)), None


def _only(dataset: Dataset, ids: set[str]) -> Dataset:
    return replace(dataset, cases=tuple(case for case in dataset.cases if case.id in ids))


def test_part(dataset: Dataset) -> frozenset[str]:
    """Ids of the test part that the data set itself names."""
    return frozenset(id_ for id_, part in (dataset.split or {}).items() if part == "test")


def draw_split(
    cases: Sequence[Case],
    facts: Sequence[CaseSurvey],
    settings: TrainOptions,
    trained: frozenset[str],
    test: frozenset[str] = frozenset(),
) -> Split:
    """A drawn split: near-duplicates on one side, lesion sizes balanced, and what a model has been
    trained on, with its near-duplicates, in train. Where the data have a test part of their own, it
    stays, and a validation part is drawn from the rest.

    Args:
        cases: All cases.
        facts: Of each.
        settings: Shares of val and test; another seed, another split.
        trained: Fingerprints of cases that the starting weights were trained on.
        test: Ids of the data's own test part.

    Raises:
        HyMUNetError: If there are too few groups of cases for the parts.
    """
    seed, val = settings.seed, settings.val_share
    if test:
        rest = [
            (case, fact) for case, fact in zip(cases, facts, strict=True) if case.id not in test
        ]
        drawn = _drawn([c for c, _ in rest], [f for _, f in rest], seed, trained, (1 - val, val, 0))
        note = f"the {plural(len(test), 'test case')} as given; train and val drawn from the others"
        return replace(drawn, test=tuple(sorted(test)), notes=(note, *drawn.notes))
    fractions = (1 - val - settings.test_share, val, settings.test_share)
    return _drawn(cases, facts, seed, trained, fractions)


def _drawn(
    cases: Sequence[Case],
    facts: Sequence[CaseSurvey],
    seed: int,
    trained: frozenset[str],
    fractions: tuple[float, float, float],
) -> Split:
    groups = _surveyed_groups(cases, facts)
    met = {group for group, fact in zip(groups, facts, strict=True) if fact.sha256 in trained}
    old = [case.id for case, group in zip(cases, groups, strict=True) if group in met]
    new = [i for i, group in enumerate(groups) if group not in met]
    if old and len({groups[i] for i in new}) < sum(share > 0 for share in fractions):
        raise HyMUNetError(
            f"the model of --init was trained on {len(old)} of the {len(cases)} cases (or on near-"
            "duplicates of them), which leaves too few to validate and test on: give its run's "
            "parts by --split-file RUN/split.json, or add cases"
        )
    split = make_split(
        [cases[i].id for i in new],
        [groups[i] for i in new],
        [facts[i].foreground for i in new],
        fractions,
        seed=seed,
    )
    if not old:
        return split
    were = "was" if len(old) == 1 else "were"
    note = (
        f"{plural(len(old), 'case')} that the model of --init was trained on {were} put into train"
    )
    return replace(split, train=tuple(sorted((*split.train, *old))), notes=(*split.notes, note))


def refuse_known_cases(
    split: Split, facts: Sequence[CaseFacts], trained: frozenset[str], model: str
) -> None:
    """Refuses a split whose val or test part `model` has been trained on.

    Args:
        split: The parts.
        facts: Of every case in them.
        trained: Fingerprints of the cases that the starting weights were trained on.
        model: Whose weights these are.

    Raises:
        HyMUNetError: Naming the cases.
    """
    judging = {*split.val, *split.test}
    known = sorted(fact.id for fact in facts if fact.id in judging and fact.sha256 in trained)
    if known:
        were = "was" if len(known) == 1 else "were"
        raise HyMUNetError(
            f"{len(known)} of the {len(judging)} val and test cases {were} trained on by {model} "
            f"(--init): {listed(known)}; their scores would say nothing about new images. Put them "
            "into train by a split file (--split-file FILE)"
        )


def case_groups(cases: Sequence[Case]) -> list[str]:
    """The group of each case: what the data set says, else its cluster of near-duplicates.

    Volumes are not compared: each without a group is one of its own.
    """
    pictures = [case.channels[0] for case in cases]
    if any(is_volume(path) or (is_dicom(path) and is_dicom_volume(path)) for path in pictures):
        return [case.group or case.id for case in cases]
    clusters = near_duplicate_groups(hash_images(pictures))
    return [case.group or f"cluster {c}" for case, c in zip(cases, clusters, strict=True)]


def _surveyed_groups(cases: Sequence[Case], facts: Sequence[CaseSurvey]) -> list[str]:
    """As `case_groups`, without reading the images again."""
    if any(len(fact.size) == 3 for fact in facts):
        return [case.group or case.id for case in cases]
    clusters = near_duplicate_groups([fact.picture_hash for fact in facts])
    return [case.group or f"cluster {c}" for case, c in zip(cases, clusters, strict=True)]


def make_loader(
    cases: Sequence[Case],
    cache: CaseCache,
    preprocess: Preprocess,
    options: Settings,
    training: bool,
    ranks: Ranks = ALONE,
) -> DataLoader[dict[str, Tensor]]:
    """Batches of cases, or of patches in training under `window`; there a validation batch is one
    whole image. Of several processes, each one's share of them."""
    config = preprocess.config
    windows = config.resize == "window"
    augment = make_augment(options, config, cases[0]) if training and options.augment else None
    data: CaseDataset | PatchDataset
    if windows and training:
        data = PatchDataset(
            cases, cache, preprocess, augment, options.seed, options.patches, options.foreground
        )
    else:
        data = CaseDataset(cases, cache, preprocess, augment, options.seed)
    batch_size = options.batch_size if training or not windows else ranks.size
    # on two cores a worker takes from the training as much as it gives
    cores = (os.cpu_count() or 1) // ranks.local_size
    spare = min(4, max(0, cores - 2)) if training else 0
    workers = spare if options.workers == "auto" else options.workers
    # a last batch of one or two would make noisy batch statistics
    drop_last = training and len(data) >= batch_size
    order = EpochSampler(len(data), options.seed, shuffle=training)
    return DataLoader(
        data,
        batch_sampler=RankBatches(order, batch_size, drop_last, ranks),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
    )


def make_augment(options: Settings, config: PreprocessConfig, case: Case) -> Augment:
    """What is done to training images of the kind of `case`."""
    _, spatial_dims, arbitrary_units = kind_of_images(case)
    sides = config.image_size or config.patch_size
    return Augment(
        spatial_dims,
        intensity=not arbitrary_units,
        square=sides is not None and len(set(sides)) == 1 and config.resize != "letterbox",
        hairs=options.hairs,
        jpeg=options.jpeg,
    )


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks samples; smaller ones are padded at the far ends, where nothing is valid."""
    size = [max(sides) for sides in zip(*(s["label"].shape for s in samples), strict=True)]

    def fit_to(tensor: Tensor) -> Tensor:
        pads: list[int] = []
        for side, spatial in zip(reversed(size), reversed(tensor.shape), strict=False):
            pads += [0, side - spatial]
        return F.pad(tensor, pads) if any(pads) else tensor

    batch = {
        name: torch.stack([fit_to(s[name]) for s in samples])
        for name in samples[0]
        if name != "index"
    }
    return batch | {"index": torch.stack([s["index"] for s in samples])}


def contrast_median(
    cases: Sequence[Case], in_channels: int, num_labels: int, most: int = 200
) -> float | None:
    """Median contrast of the training cases' structures (of evenly spaced cases where there are
    more than `most`): the cut between strata of an evaluation, which no test case may choose."""
    values = []
    for i in np.unique(np.linspace(0, len(cases) - 1, most).astype(int)):
        image, mask, valid = read_case(cases[i], in_channels, num_labels)
        values.append(contrast(image.pixels, mask.labels > 0, valid))
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.median(known)) if known else None
