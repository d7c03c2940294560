"""What all cells of a comparison share: data, split, settings, decided once and kept.

compare.json (`hymunet.experiments.compare.record`) in the folder of the comparison holds what was
asked for and what came of it; the split lies in split.json beside it.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.case import Case, Dataset
from hymunet.data.formats import find_dataset
from hymunet.data.groups import grouped_by_name
from hymunet.data.splits import Split, save_split
from hymunet.errors import HyMUNetError
from hymunet.experiments.compare.entrants import Entrant, network_size, new_network
from hymunet.experiments.compare.record import (
    check_folder,
    known_options,
    plain_options,
    read_record,
    write_record,
)
from hymunet.files import make_folder
from hymunet.training.cost import available_memory, bytes_a_sample
from hymunet.training.decide import Decision, decide, say_choices, uses_gpu
from hymunet.training.limits import in_memory
from hymunet.training.loading import given_split, kind_of_images
from hymunet.training.options import OPEN, TrainOptions
from hymunet.training.planning.plan import Settings
from hymunet.training.run_config import plain_settings
from hymunet.wording import plural

SPLIT = "split.json"


@dataclass(frozen=True)
class Shared:
    """What all cells of a comparison share.

    Args:
        folder: Of the comparison.
        data: Where the data set lies.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        dataset: Its cases that are used.
        split: Which case is in which part.
        options: Of `train`, nothing left open but the epochs under a budget.
        settings: The same with the activation.
        in_channels: Of the images.
        spatial_dims: 2 or 3.
        size: Of an image as a network sees it; where images differ, of the median one.
    """

    folder: Path
    data: Path
    images: Path | None
    masks: Path | None
    dataset: Dataset
    split: Split
    options: TrainOptions
    settings: Settings
    in_channels: int
    spatial_dims: int
    size: tuple[int, ...]

    @property
    def part(self) -> str:
        """The part that models are judged on."""
        return "test" if self.split.test else "val"

    def judged_cases(self) -> list[Case]:
        """The cases that models are judged on."""
        by_id = {case.id: case for case in self.dataset.cases}
        return [by_id[id_] for id_ in getattr(self.split, self.part)]

    def settings_of(self, entrant: Entrant, seed: int) -> Settings:
        """The settings of one cell; under a budget its epochs are still to be found."""
        return replace(self.settings, seed=seed, **entrant.options)


def settle_all(
    folder: Path,
    data: Path,
    options: TrainOptions,
    entrants: Sequence[Entrant],
    verb: str,
    console: Console,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
) -> Shared:
    """Decides what all share, or reads what was decided when the comparison began.

    The plan of `hymunet plan` for our network holds for all. Sides of images become multiples of
    every network's stride, so that none is padded; the batch is the largest of the plan's halves
    that the hungriest network can be trained with, so that it is the same for each.

    Args:
        folder: Of the comparison; what it holds already is kept.
        data: A data set in any layout of `find_dataset`.
        options: What somebody chose; the seed draws the split.
        entrants: Who takes part.
        verb: compare or ablate; a folder holds one or the other.
        console: Where to report.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        split_file: See `read_split`; None: the data's own, else drawn.

    Raises:
        HyMUNetError: If data or options cannot be used, or the folder holds something else.
    """
    _refuse_options(options, entrants)
    asked = plain_settings(options, data, images, masks, split_file)
    record = read_record(folder)
    check_folder(folder, record, asked, verb)
    settled = dict(record.get("settled") or {})
    chosen = replace(options, **known_options(settled)) if settled else options
    dataset = grouped_by_name(find_dataset(data, images, masks), options.groups)
    found = len(dataset.cases)
    dataset, given = given_split(dataset, split_file, folder / SPLIT if settled else None)
    say(console, f"{dataset.name}: {plural(found, 'case')} in {dataset.root}")
    for note in dataset.notes:
        say(console, f"  {note}")
    decision = decide(dataset, chosen, console, given=given)
    in_channels, spatial_dims, _ = kind_of_images(dataset.cases[0])
    if not settled:
        decision = _sized(decision, options, entrants, console)
        if options.batch_size is None:
            open_ = options.epochs is None
            decision = _batched(decision, entrants, in_channels, spatial_dims, console, open_)
    settings = decision.settings
    say_choices(decision.plan, console, () if options.budget is None else ("epochs",))
    split = decision.split
    assert split is not None  # it was drawn where none was given
    for note in split.notes:
        say(console, f"  {note}")
    say(console, f"split: {len(split.train)} train, {len(split.val)} val, {len(split.test)} test")
    fixed = _fixed(options, settings)
    if not settled:
        make_folder(folder)
        save_split(folder / SPLIT, split)
        write_record(
            folder,
            {
                "verb": verb,
                "asked": asked,
                "settled": plain_options(fixed),
                "models": [],
                "cells": [],
            },
        )
    return Shared(
        folder,
        data,
        images,
        masks,
        dataset,
        split,
        fixed,
        settings,
        in_channels,
        spatial_dims,
        network_size(settings) or _padded(decision.plan.median_size),
    )


def _refuse_options(options: TrainOptions, entrants: Sequence[Entrant]) -> None:
    if options.init is not None:
        raise HyMUNetError(
            "init starts from one model's weights, which would be an advantage over the others; "
            "leave --init out: all start from random weights"
        )
    if options.stages != "CCMM":
        raise HyMUNetError(
            f"stages {options.stages} cannot hold for all: each model has stages of its own here "
            "(for `compare`, four letters under --models are one); leave --stages out"
        )
    for entrant in entrants:
        own = entrant.options.items()
        if entrant.factor and own and all(getattr(options, name) == value for name, value in own):
            name, value = next(iter(own))
            option = name.replace("_", "-")
            raise HyMUNetError(
                f"with --{option} {value} there would be no difference between "
                f"{entrants[0].name} and {entrant.name}; leave --{option} out, or the factor "
                f"{entrant.factor}"
            )


def _sized(
    decision: Decision, options: TrainOptions, entrants: Sequence[Entrant], console: Console
) -> Decision:
    """Sides of images as multiples of every network's stride."""
    settings = decision.settings
    multiple = math.lcm(*(entrant.stride(settings) for entrant in entrants))
    for name in ("image_size", "patch_size"):
        value = getattr(settings, name)
        if value is None or (name == "image_size" and settings.resize == "window"):
            continue
        sides = value if isinstance(value, tuple) else (value,)
        rounded = tuple(-(-side // multiple) * multiple for side in sides)
        if rounded == tuple(sides):
            continue
        shown = " ".join(map(str, rounded))
        if getattr(options, name) is not None:
            raise HyMUNetError(
                f"{name} {' '.join(map(str, sides))} is not a multiple of {multiple}, as these "
                f"models need together; give {shown}, or other models"
            )
        reason = f"a multiple of {multiple}, which all models take"
        decision = decision.but(name, rounded if isinstance(value, tuple) else rounded[0], reason)
    if settings.resize == "native":
        say(console, "warning: images of their own sizes are padded to each network's stride; "
            "--resize squeeze makes them the same for all", "yellow")  # fmt: skip
    return decision


def _batched(
    decision: Decision,
    entrants: Sequence[Entrant],
    in_channels: int,
    spatial_dims: int,
    console: Console,
    epochs_open: bool,
) -> Decision:
    """The planned batch, halved until the hungriest network can be trained with it."""
    settings, size = decision.settings, network_size(decision.settings)
    if size is None:
        return decision
    needed = {}
    for entrant in entrants:
        own = replace(settings, **entrant.options)
        with contextlib.suppress(Exception):  # said when its turn comes
            network = new_network(entrant, own, in_channels, spatial_dims)
            needed[entrant.name] = bytes_a_sample(network, size)
    if not needed:
        return decision
    device = torch.device("cuda" if uses_gpu(settings) else "cpu")
    hungriest = max(needed, key=lambda name: needed[name])
    fitting = in_memory(decision, needed[hungriest], available_memory(device), console, epochs_open)
    if fitting is not decision:
        say(console, f"  {hungriest} needs the most memory; the batch is the same for all")
    return fitting


def _fixed(options: TrainOptions, settings: Settings) -> TrainOptions:
    """The options with what was decided; under a budget the epochs stay open."""
    values = {name: getattr(settings, name) for name in OPEN}
    if options.budget is not None:
        values["epochs"] = None
    return replace(options, **values)


def _padded(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-side // 64) * 64 for side in size)
