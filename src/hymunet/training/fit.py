"""A training from a data set to a run folder; running it again on the folder goes on."""

import hashlib
import logging
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.cache import CaseCache, CaseFacts
from hymunet.data.case import Dataset
from hymunet.data.formats import find_dataset
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.data.splits import PARTS, Split, save_split
from hymunet.errors import HyMUNetError
from hymunet.network.hymunet import HyMUNet
from hymunet.network.model_file import read_info
from hymunet.training.dataset import training_statistics
from hymunet.training.initial import EncoderStaysAsItIs, Start, save_start, starting_network
from hymunet.training.lightning_module import SegmentationTask
from hymunet.training.loading import (
    contrast_median,
    draw_split,
    given_split,
    kind_of_images,
    make_loader,
    prepare,
    refuse_known_cases,
)
from hymunet.training.options import TrainOptions, run_settings
from hymunet.training.recorder import Recorder
from hymunet.training.run_folder import RunFolder, machine_facts

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

    Raises:
        HyMUNetError: If the data, the folder or the settings cannot be used.
    """
    console = console or Console(stderr=True)
    dataset = find_dataset(data, images, masks)
    run = RunFolder(output)
    settings = run_settings(options, data, output, images, masks, split_file)
    resuming = run.holds(settings)
    say(console, f"{dataset.name}: {len(dataset.cases)} cases in {dataset.root}")
    for note in dataset.notes:
        say(console, f"  {note}")

    given, split_notes = given_split(run.split, dataset, split_file, resuming)
    if given is not None:
        used = {*given.train, *given.val, *given.test}
        dataset = replace(dataset, cases=tuple(case for case in dataset.cases if case.id in used))
    in_channels, spatial_dims, arbitrary_units = kind_of_images(dataset.cases[0])
    start = starting_network(options, in_channels, spatial_dims, run.init)
    network = start.network
    for note in start.notes:
        say(console, note)
    geometry = _geometry(options, network, arbitrary_units)
    cache = CaseCache(Preprocess(geometry), in_channels, network.config.num_labels)
    facts = prepare(dataset.cases, cache, console)
    split = given or draw_split(dataset.cases, facts, options.seed, start.cases)
    for note in split_notes or split.notes:
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

    loaders = [
        make_loader(train_cases, cache, preprocess, options, training=True),
        make_loader(val_cases, cache, preprocess, options, training=False),
    ]
    if (
        min(options.batch_size, len(train_cases)) == 1
        and geometry.image_size == (network.config.stride,) * 2
    ):
        raise HyMUNetError(
            f"batches of 1 at {options.image_size} x {options.image_size} leave one value a "
            "channel in the deepest stage, too few for batch normalisation; raise --batch-size or "
            "--image-size"
        )
    task = SegmentationTask(network, options, steps_per_epoch=len(loaders[0]))
    device = _device(options)
    checkpoint, problems = run.checkpoint()
    for problem in problems:
        say(console, f"{problem}; going on from the checkpoint before it", "yellow")
    if not resuming:  # from here on the folder is this run's: what can be refused has been checked
        run.start(settings)
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
    if start.origin:
        provenance["init"] = start.origin
    run.write_provenance(provenance)
    info = _model_info(dataset, split, facts, options, preprocess, provenance, start)
    info["training"]["contrast_median"] = contrast_median(
        train_cases, in_channels, network.config.num_labels
    )
    recorder = Recorder(run, lambda row: info | {"metrics": {"val": row}}, console)
    trainer = _trainer(options, device, recorder)
    if checkpoint is not None:
        say(console, f"resuming from {checkpoint}")
    else:
        say(console, _announcement(options, start, provenance, len(loaders[0])))
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
    with _interrupts_as_they_are(trainer):
        trainer.fit(task, loaders[0], loaders[1], ckpt_path=checkpoint, weights_only=True)
    provenance["finished"] = True
    provenance["epochs"] = len(recorder.rows)
    provenance["best_epoch"] = recorder.best_epoch
    provenance["training_seconds"] = round(sum(row["seconds"] for row in recorder.rows), 1)
    provenance["last_session_seconds"] = round(time.monotonic() - started, 1)
    run.write_provenance(provenance)
    return _finished(run, dataset, split)


@contextmanager
def _interrupts_as_they_are(trainer: lightning.Trainer) -> Iterator[None]:
    """Lightning turns Ctrl-C into exit code 1 and leaves the signal ignored for the rest of the
    process, a notebook's kernel for instance; here it stays a KeyboardInterrupt."""
    main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if main_thread:
            signal.signal(signal.SIGINT, handler)


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
    options: TrainOptions, start: Start, provenance: dict[str, Any], steps: int
) -> str:
    what = f"fine-tuning {start.origin['name']}" if start.origin else f"training {options.preset}"
    still = sum(p.numel() for p in start.network.parameters() if not p.requires_grad)
    frozen = f", {still:,} of them frozen" if still else ""
    return (
        f"{what} ({provenance['parameters']:,} parameters{frozen}) on "
        f"{provenance['machine']['device']}, epochs: {options.epochs}, steps each: {steps}"
    )


def _geometry(options: TrainOptions, network: HyMUNet, arbitrary_units: bool) -> PreprocessConfig:
    channels, stride = network.config.in_channels, network.config.stride
    mean, std = (0.0,) * channels, (1.0,) * channels  # until the training images' are known
    normalisation = "image" if arbitrary_units else "dataset"
    if network.config.spatial_dims == 3:
        return PreprocessConfig(None, "native", normalisation, mean, std, stride)
    size = (options.image_size, options.image_size)
    return PreprocessConfig(size, options.resize, normalisation, mean, std, stride)


def _device(options: TrainOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise HyMUNetError("there is no CUDA device here; leave --device out to use the CPU")
    use_cuda = options.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def _trainer(options: TrainOptions, device: torch.device, recorder: Recorder) -> lightning.Trainer:
    bfloat16 = options.precision == "bfloat16" or (
        options.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its greetings and tips
    # we choose the number of workers ourselves, see TrainOptions
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own
    warnings.filterwarnings("ignore", ".*number of training batches.*logging interval.*")
    return lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if bfloat16 else "32-true",
        gradient_clip_val=options.clip,
        callbacks=[recorder, *([EncoderStaysAsItIs()] if options.freeze_encoder else [])],
        logger=False,
        enable_checkpointing=False,  # the recorder's are whole or not at all
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _model_info(
    dataset: Dataset,
    split: Split,
    facts: Sequence[CaseFacts],
    options: TrainOptions,
    preprocess: Preprocess,
    provenance: dict[str, Any],
    start: Start,
) -> dict[str, Any]:
    hashes = {fact.id: fact.sha256 for fact in facts}
    cases = {part: [hashes[id_] for id_ in getattr(split, part)] for part in PARTS}
    # what the starting weights were trained on, this model was trained on as well
    cases["train"] += sorted(start.cases - set(cases["train"]))
    one = options.structures == 1
    return {
        "preprocess": preprocess.to_dict(),
        "classes": ["foreground"] if one else [f"class {i + 1}" for i in range(options.structures)],
        "training": {
            "data": dataset.name,
            # a path tells of the trainer's disk, nothing of the model
            "options": asdict(options) | {"init": start.origin.get("name")},
            "split_sha256": provenance["split_sha256"],
            **({"init": start.origin} if start.origin else {}),
        },
        "cases": cases,
        "licence": start.origin.get("licence"),
        "versions": provenance["versions"],
    }
