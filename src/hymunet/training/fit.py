"""A training from a data set to a run folder; running it again on the folder goes on."""

import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.cache import CaseCache
from hymunet.data.case import Dataset
from hymunet.data.formats import find_dataset
from hymunet.data.groups import grouped_by_name
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.data.splits import Split, save_split
from hymunet.network.model_file import read_info
from hymunet.training.cost import available_memory, bytes_a_sample
from hymunet.training.dataset import geometry_of, training_statistics
from hymunet.training.decide import decide, save_decision, say_choices, uses_gpu
from hymunet.training.initial import GivenNetwork, Start, save_start, starting_network
from hymunet.training.lightning_module import SegmentationTask
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
from hymunet.training.recorder import Recorder
from hymunet.training.run_config import run_settings
from hymunet.training.run_folder import RunFolder, machine_facts
from hymunet.training.trainer import interrupts_as_they_are, make_trainer
from hymunet.wording import plural

# below it networks of this kind tend to predict all or nothing, from scratch and from a model
FEW_STEPS, FEW_MORE_STEPS = 300, 100


@dataclass(frozen=True)
class FinishedRun:
    """What `fit` leaves behind."""

    folder: RunFolder
    dataset: Dataset
    split: Split
    epochs: int
    best_epoch: int
    best_dice: float


def fit(
    data: Path,
    output: Path,
    options: TrainOptions,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    console: Console | None = None,
    given_network: GivenNetwork | None = None,
) -> FinishedRun:
    """Trains a network on `data` and writes the run folder `output`.

    Args:
        data: A data set in any layout of `find_dataset`.
        output: The run folder; one that holds this very run is resumed.
        options: All settings.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        split_file: Which case is in which part, see `read_split`; None: the data's own, else drawn.
        console: Where to report; None: standard error.
        given_network: What to train instead of the network that the options describe.

    Raises:
        HyMUNetError: If the data, the folder or the settings cannot be used.
    """
    console = console or Console(stderr=True)
    dataset = grouped_by_name(find_dataset(data, images, masks), options.groups)
    run = RunFolder(output)
    named = None if given_network is None else given_network.name
    resuming = run.holds(run_settings(options, data, output, images, masks, split_file, named))
    found = len(dataset.cases)
    dataset, given = given_split(dataset, split_file, run.split if resuming else None)
    say(console, f"{dataset.name}: {plural(found, 'case')} in {dataset.root}")
    for note in dataset.notes:
        say(console, f"  {note}")

    budget = options.budget
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
    geometry = geometry_of(settings, network.config)
    cache = CaseCache(Preprocess(geometry), in_channels, network.config.num_labels)
    facts = prepare(dataset.cases, cache, console)
    split = decision.split
    assert split is not None  # it was drawn where none was given
    for note in split.notes:
        say(console, f"  {note}")
    say(console, f"split: {len(split.train)} train, {len(split.val)} val, {len(split.test)} test")
    refuse_known_cases(split, facts, start.cases, start.origin.get("name", ""))
    provenance = run.read_provenance()
    if provenance.get("finished"):
        say(console, f"{run.path} is finished already; nothing to train")
        return _finished(run, dataset, split)
    by_id = {case.id: case for case in dataset.cases}
    train_cases = [by_id[id_] for id_ in split.train]
    val_cases = [by_id[id_] for id_ in split.val]
    if geometry.normalisation == "dataset":
        mean, std = training_statistics(train_cases, cache)
        geometry = PreprocessConfig(**(asdict(geometry) | {"mean": mean, "std": std}))
    preprocess = Preprocess(geometry)

    size = geometry.patch_size or geometry.image_size
    if options.batch_size is None and size is not None:  # else images are of any size
        needed, free = bytes_a_sample(network, size), available_memory(device)
        decision = in_memory(decision, needed, free, console, options.epochs is None)
        settings = decision.settings
    loaders = (
        make_loader(train_cases, cache, preprocess, settings, training=True),
        make_loader(val_cases, cache, preprocess, settings, training=False),
    )
    check_batch(settings, len(train_cases), geometry, network)
    if options.budget is not None:
        decision = in_time(options.budget, decision, network, loaders, device, console)
        settings = decision.settings
    steps = min(settings.steps_per_epoch or len(loaders[0]), len(loaders[0]))
    task = SegmentationTask(network, settings, steps)
    checkpoint, problems = run.checkpoint()
    for problem in problems:
        say(console, f"{problem}; going on from the checkpoint before it", "yellow")
    if not resuming:  # from here on the folder is this run's: what can be refused has been checked
        run.start(run_settings(settings, data, output, images, masks, split_file, named))
        save_decision(run, decision)
    if not run.split.exists():
        save_split(run.split, split)
    if start.origin and not run.init.exists():
        save_start(run.init, start)
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
    info["training"]["contrast_median"] = contrast_median(
        train_cases, in_channels, network.config.num_labels
    )
    recorder = Recorder(run, lambda row: info | {"metrics": {"val": row}}, console, budget)
    trainer = make_trainer(settings, device, recorder)
    if checkpoint is not None:
        say(console, f"resuming from {checkpoint}")
    else:
        say(
            console,
            _announcement(named or str(settings.preset), settings, start, provenance, steps),
        )
    needed, goal = (FEW_MORE_STEPS, "new images") if start.origin else (FEW_STEPS, "from scratch")
    if task.total_steps < needed:
        say(
            console,
            f"warning: {task.total_steps} optimisation steps in all are too few to learn {goal} "
            f"(at least {needed} as a rule): raise --epochs or lower --batch-size",
            "yellow",
        )
    say(console, "a line an epoch; * marks the best validation Dice so far")
    started = time.monotonic()
    with interrupts_as_they_are(trainer):
        trainer.fit(task, loaders[0], loaders[1], ckpt_path=checkpoint, weights_only=True)
    provenance["finished"] = True
    provenance["epochs"] = len(recorder.rows)
    provenance["best_epoch"] = recorder.best_epoch
    provenance["training_seconds"] = round(sum(row["seconds"] for row in recorder.rows), 1)
    provenance["last_session_seconds"] = round(time.monotonic() - started, 1)
    run.write_provenance(provenance)
    return _finished(run, dataset, split)


def split_summary(split: Split) -> dict[str, int]:
    """How many cases each part has."""
    return {"train": len(split.train), "val": len(split.val), "test": len(split.test)}


def _finished(run: RunFolder, dataset: Dataset, split: Split) -> FinishedRun:
    provenance = run.read_provenance()
    val = read_info(run.best)["metrics"]["val"]
    return FinishedRun(
        run, dataset, split, provenance["epochs"], provenance["best_epoch"], val["val_dice"]
    )


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
