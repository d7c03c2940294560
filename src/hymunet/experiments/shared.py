"""What all cells of a comparison share: data, split, settings, decided once and kept.

`compare.json` in the folder of the comparison holds what was asked for and what came of it; the
split lies in `split.json` beside it. Models and seeds may be added to a folder, nothing else may
change.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.case import Case, Dataset
from hymunet.data.formats import find_dataset
from hymunet.data.groups import grouped_by_name
from hymunet.data.masks_io import listed
from hymunet.data.splits import Split, save_split
from hymunet.errors import HyMUNetError
from hymunet.experiments.entrants import Entrant, network_size
from hymunet.files import make_folder, write_text
from hymunet.training.cost import available_memory, batch_that_fits, bytes_a_sample
from hymunet.training.decide import Decision, decide, say_choices, uses_gpu
from hymunet.training.initial import GivenNetwork, starting_network
from hymunet.training.loading import given_split, kind_of_images
from hymunet.training.options import OPEN, TrainOptions
from hymunet.training.planning.effort import passes
from hymunet.training.planning.plan import Settings
from hymunet.training.run_config import run_settings, with_defaults

RECORD, SPLIT = "compare.json", "split.json"
# neither changes what is learnt
_FREE_TO_CHANGE = {"workers", "device"}


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
        console: Where to report.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        split_file: See `read_split`; None: the data's own, else drawn.

    Raises:
        HyMUNetError: If data or options cannot be used, or the folder holds something else.
    """
    _refuse_options(options)
    asked = _asked(options, data, images, masks, split_file)
    record = read_record(folder)
    _check_folder(folder, record, asked)
    settled = dict(record.get("settled") or {})
    chosen = replace(options, **_known(settled)) if settled else options
    dataset = grouped_by_name(find_dataset(data, images, masks), options.groups)
    say(console, f"{dataset.name}: {len(dataset.cases)} cases in {dataset.root}")
    given, notes = given_split(folder / SPLIT, dataset, split_file, bool(settled))
    if given is not None:
        used = {*given.train, *given.val, *given.test}
        dataset = replace(dataset, cases=tuple(case for case in dataset.cases if case.id in used))
    decision = decide(dataset, chosen, console, given=given)
    in_channels, spatial_dims, _ = kind_of_images(dataset.cases[0])
    if not settled:
        decision = _sized(decision, options, entrants, console)
        if options.batch_size is None:
            open_ = options.epochs is None
            decision = _batched(decision, entrants, in_channels, spatial_dims, console, open_)
    settings = decision.settings
    say_choices(decision.plan, console)
    split = decision.split
    assert split is not None  # it was drawn where none was given
    for note in notes or split.notes:
        say(console, f"  {note}")
    say(console, f"split: {len(split.train)} train, {len(split.val)} val, {len(split.test)} test")
    fixed = _fixed(options, settings)
    if not settled:
        make_folder(folder)
        save_split(folder / SPLIT, split)
        write_record(folder, {"asked": asked, "settled": _plain(fixed), "models": [], "cells": []})
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


def read_record(folder: Path) -> dict[str, Any]:
    """compare.json; empty where there is none.

    Raises:
        HyMUNetError: If it is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise HyMUNetError(
            f"{path} is damaged ({error}); bring it back, or start anew in another --output"
        ) from error


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """compare.json, whole or not at all."""
    write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _refuse_options(options: TrainOptions) -> None:
    if options.init is not None:
        raise HyMUNetError(
            "init starts from one model's weights, which would be an advantage over the others; "
            "leave --init out: all start from random weights"
        )
    if options.stages != "CCMM":
        raise HyMUNetError(
            f"stages {options.stages} is a model of its own here: name it by --models "
            f"{options.stages}"
        )


def _asked(
    options: TrainOptions,
    data: Path,
    images: Path | None,
    masks: Path | None,
    split_file: Path | None,
) -> dict[str, Any]:
    values = run_settings(options, data, Path(), images, masks, split_file)
    del values["output"]
    return dict(json.loads(json.dumps(values)))  # as JSON gives them back


def _check_folder(folder: Path, record: dict[str, Any], asked: dict[str, Any]) -> None:
    if not record:
        found = folder.iterdir() if folder.is_dir() else ()
        strangers = sorted(item.name for item in found if not item.name.startswith("."))
        if strangers:
            raise HyMUNetError(
                f"the output folder {folder} is not empty and holds no comparison "
                f"({listed(strangers)}; {RECORD} is missing); choose a new folder"
            )
        return
    there, now = with_defaults(record["asked"]), with_defaults(asked)
    differ = [
        f"{name} is {there.get(name)!r} there and {now.get(name)!r} now"
        for name in dict.fromkeys((*now, *there))
        if name not in _FREE_TO_CHANGE and there.get(name) != now.get(name)
    ]
    if differ:
        raise HyMUNetError(
            f"the comparison in {folder} was begun with other settings: {'; '.join(differ)}. "
            "Models and seeds may be added, all else must be the same; give the same settings, or "
            "another --output"
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
    """The planned batch, halved until the hungriest network can be trained with it; the passes,
    where nobody chose them, are then those of smaller batches."""
    settings, planned = decision.settings, decision.settings.batch_size
    size = network_size(settings)
    if size is None or planned == 1:
        return decision
    device = torch.device("cuda" if uses_gpu(settings) else "cpu")
    free, batch, hungriest = available_memory(device), planned, ""
    for entrant in entrants:
        try:
            network = new_network(entrant, replace(settings, **entrant.options), in_channels,
                                  spatial_dims)  # fmt: skip
            fits = batch_that_fits(planned, bytes_a_sample(network, size), free)
        except Exception:  # said when its turn comes
            continue
        if fits < batch:
            batch, hungriest = fits, entrant.name
    if batch == planned:
        return decision
    reason = f"{planned} would need over half of the memory for {hungriest}"
    say(console, f"  batch_size: {batch} ({reason})")
    decision = decision.but("batch_size", batch, reason)
    if not epochs_open:
        return decision
    count, why = passes(decision.plan.training_cases * settings.patches, batch, False)
    say(console, f"  epochs: {count} ({why})")
    return decision.but("epochs", count, why)


def new_network(entrant: Entrant, settings: Settings, in_channels: int, spatial_dims: int) -> Any:
    """The network of an entrant as `fit` makes it: weights are a function of the seed."""
    given = entrant.given() or GivenNetwork(entrant.name, entrant.make)
    return starting_network(settings, in_channels, spatial_dims, Path(), given).network


def _fixed(options: TrainOptions, settings: Settings) -> TrainOptions:
    """The options with what was decided; under a budget the epochs stay open."""
    values = {name: getattr(settings, name) for name in OPEN}
    if options.budget is not None:
        values["epochs"] = None
    return replace(options, **values)


def _plain(options: TrainOptions) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in OPEN}
    return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items() if v is not None}


def _known(settled: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(TrainOptions)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settled.items()
        if name in names
    }


def _padded(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-side // 64) * 64 for side in size)
