"""Everything before the first step of a run: the data read, every setting settled, the run folder
begun. Of several processes the first one does it and tells the others."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.cache import CaseCache
from hymunet.data.case import Case, Dataset
from hymunet.data.formats import find_dataset
from hymunet.data.groups import grouped_by_name
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.data.splits import Split, save_split
from hymunet.training.cost import available_memory, bytes_a_sample
from hymunet.training.dataset import geometry_of, training_statistics
from hymunet.training.decide import decide, save_decision, say_choices, uses_gpu
from hymunet.training.initial import GivenNetwork, Start, save_start, starting_network
from hymunet.training.limits import check_batch, in_memory, in_time
from hymunet.training.loading import (
    contrast_median,
    given_split,
    kind_of_images,
    make_loader,
    prepare,
    refuse_known_cases,
)
from hymunet.training.model_info import model_info
from hymunet.training.options import TrainOptions
from hymunet.training.planning.plan import Settings
from hymunet.training.ranks import Ranks
from hymunet.training.run_config import run_settings
from hymunet.training.run_folder import RunFolder, machine_facts
from hymunet.training.same_data import check_same_data, save_fingerprints
from hymunet.wording import plural

# below it networks of this kind tend to predict all or nothing, from scratch and from a model
FEW_STEPS, FEW_MORE_STEPS = 300, 100


@dataclass(frozen=True)
class Begun:
    """What all processes of a training have to know, as the first one found it.

    Args:
        dataset: The cases that are used.
        split: Which case is in which part.
        settings: All of them.
        geometry: How images are prepared, with the training images' statistics.
        in_channels: Channels of the images.
        num_labels: Values a label map may have.
        spatial_dims: 2 or 3.
        steps: Of an epoch.
        checkpoint: To go on from.
        info: Metadata of the model file, but for its scores.
        finished: There is nothing left to do.
    """

    dataset: Dataset
    split: Split
    settings: Settings
    geometry: PreprocessConfig
    in_channels: int
    num_labels: int
    spatial_dims: int
    steps: int = 0
    checkpoint: Path | None = None
    info: dict[str, Any] | None = None
    finished: bool = False

    def cases(self, part: str) -> list[Case]:
        """Those of a part of the split."""
        by_id = {case.id: case for case in self.dataset.cases}
        return [by_id[id_] for id_ in getattr(self.split, part)]


def begin(
    data: Path,
    run: RunFolder,
    options: TrainOptions,
    images: Path | None,
    masks: Path | None,
    split_file: Path | None,
    console: Console,
    given_network: GivenNetwork | None,
    ranks: Ranks,
) -> tuple[Begun, Start]:
    """Reads the data, settles the settings, begins the run folder or finds where to go on.

    Args:
        data: As `fit`, and so are the others.
        run: The run folder, held.
        options: Of the user.
        images: Folder of images.
        masks: Folder of masks.
        split_file: Which case is in which part.
        console: Where to report.
        given_network: What to train instead of a preset's network.
        ranks: This process, the first.

    Raises:
        HyMUNetError: If the data, the folder or the settings cannot be used.
    """
    dataset = grouped_by_name(find_dataset(data, images, masks), options.groups)
    named = None if given_network is None else given_network.name
    resuming = run.holds(run_settings(options, data, run.path, images, masks, split_file, named))
    found = len(dataset.cases)
    dataset, given = given_split(dataset, split_file, run.split if resuming else None)
    say(console, f"{dataset.name}: {plural(found, 'case')} in {dataset.root}")
    for note in dataset.notes:
        say(console, f"  {note}")

    if resuming:
        options = run.settled(options)
    decision = decide(dataset, options, console, run.init, given)
    settings = decision.settings
    say_choices(decision.plan, console, () if options.budget is None else ("epochs",))
    in_channels, spatial_dims, _ = kind_of_images(dataset.cases[0])
    start = starting_network(settings, in_channels, spatial_dims, run.init, given_network)
    network = start.network
    for note in start.notes:
        say(console, note)
    device = torch.device("cuda" if uses_gpu(options) else "cpu")
    geometry, num_labels = geometry_of(settings, network.config), network.config.num_labels
    cache = CaseCache(Preprocess(geometry), in_channels, num_labels)
    facts = prepare(dataset.cases, cache, console)
    split = decision.split
    assert split is not None  # it was drawn where none was given
    for note in split.notes:
        say(console, f"  {note}")
    say(console, f"split: {len(split.train)} train, {len(split.val)} val, {len(split.test)} test")
    refuse_known_cases(split, facts, start.cases, start.origin.get("name", ""))
    check_same_data(run, facts)
    provenance = run.read_provenance()
    begun = Begun(dataset, split, settings, geometry, in_channels, num_labels, spatial_dims)
    if provenance.get("finished"):
        say(console, f"{run.path} is finished already; nothing to train")
        return replace(begun, finished=True), start
    train_cases, val_cases = begun.cases("train"), begun.cases("val")
    if geometry.normalisation == "dataset":
        mean, std = training_statistics(train_cases, cache)
        geometry = PreprocessConfig(**(asdict(geometry) | {"mean": mean, "std": std}))
    preprocess = Preprocess(geometry)

    size = geometry.patch_size or geometry.image_size
    if options.batch_size is None and size is not None:  # else images are of any size
        # a batch is spread over the GPUs, or over the machines
        apart = ranks.size // (1 if device.type == "cuda" else ranks.local_size)
        needed, free = bytes_a_sample(network, size) // apart, available_memory(device)
        decision = in_memory(decision, needed, free, console, options.epochs is None)
        settings = decision.settings
    check_batch(settings, len(train_cases), geometry, network, ranks)
    loaders = (
        make_loader(train_cases, cache, preprocess, settings, training=True, ranks=ranks),
        make_loader(val_cases, cache, preprocess, settings, training=False, ranks=ranks),
    )
    if options.budget is not None:
        decision = in_time(options.budget, decision, network, loaders, device, console)
        settings = decision.settings
    steps = min(settings.steps_per_epoch or len(loaders[0]), len(loaders[0]))
    checkpoint, problems = run.checkpoint()
    for problem in problems:
        say(console, f"{problem}; going on from the checkpoint before it", "yellow")
    if not resuming:  # from here on the folder is this run's: what can be refused has been checked
        run.start(run_settings(settings, data, run.path, images, masks, split_file, named))
    if not run.plan.exists():
        save_decision(run, decision)
    if not run.split.exists():
        save_split(run.split, split)
    if start.origin and not run.init.exists():
        save_start(run.init, start)
    if not run.data.exists():
        save_fingerprints(run, facts)
    provenance.update(
        machine_facts(device),
        data=str(data),
        dataset=dataset.name,
        cases=len(dataset.cases),
        split=split_summary(split),
        split_sha256=hashlib.sha256(run.split.read_bytes()).hexdigest(),
        parameters=sum(p.numel() for p in network.parameters()),
        finished=False,
    )
    if named is not None:
        provenance["network"] = named
    if start.origin:
        provenance["init"] = start.origin
    run.write_provenance(provenance)
    info = model_info(dataset, split, facts, settings, preprocess, provenance, start)
    info["training"]["contrast_median"] = contrast_median(train_cases, in_channels, num_labels)
    if checkpoint is not None:
        say(console, f"resuming from {checkpoint}")
    else:
        say(
            console,
            _announcement(named or str(settings.preset), settings, start, provenance, steps),
        )
    needed, goal = (FEW_MORE_STEPS, "new images") if start.origin else (FEW_STEPS, "from scratch")
    total = steps * settings.epochs
    if total < needed:
        say(
            console,
            f"warning: {total} optimisation steps in all are too few to learn {goal} "
            f"(at least {needed} as a rule): raise --epochs or lower --batch-size",
            "yellow",
        )
    return replace(
        begun,
        settings=settings,
        geometry=geometry,
        steps=steps,
        checkpoint=checkpoint,
        info=info,
    ), start


def split_summary(split: Split) -> dict[str, int]:
    """How many cases each part has."""
    return {"train": len(split.train), "val": len(split.val), "test": len(split.test)}


def _announcement(
    name: str, options: TrainOptions, start: Start, provenance: dict[str, Any], steps: int
) -> str:
    what = f"fine-tuning {start.origin['name']}" if start.origin else f"training {name}"
    still = sum(p.numel() for p in start.network.parameters() if not p.requires_grad)
    frozen = f", {still:,} of them frozen" if still else ""
    return (
        f"{what} ({provenance['parameters']:,} parameters{frozen}) on "
        f"{provenance['machine']['device']}, epochs: {options.epochs}, steps each: {steps}"
    )
