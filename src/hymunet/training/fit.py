"""A training from a data set to a run folder; running it again on the folder goes on."""

import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hymunet.data.augment import Augment
from hymunet.data.cache import CaseCache, CaseFacts
from hymunet.data.case import Case
from hymunet.data.duplicates import hash_images, near_duplicate_groups
from hymunet.data.formats import Dataset, find_dataset
from hymunet.data.image_io import read_image
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.data.splits import Split, load_split, make_split, save_split, split_from_table
from hymunet.errors import HyMUNetError
from hymunet.network.hymunet import PRESETS, HyMUNet
from hymunet.network.model_file import read_info
from hymunet.training.dataset import CaseDataset, EpochSampler, training_statistics
from hymunet.training.lightning_module import SegmentationTask
from hymunet.training.options import TrainOptions
from hymunet.training.recorder import Recorder
from hymunet.training.run_folder import RunFolder, machine_facts


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
    console: Console | None = None,
) -> FinishedRun:
    """Trains a network on `data` and writes the run folder `output`.

    Args:
        data: A data set in any layout of `find_dataset`.
        output: The run folder; one that holds this very run is resumed.
        options: All settings.
        images: Folder of images, where it has no usual name.
        masks: Folder of masks, likewise.
        console: Where to report; None: standard error.

    Raises:
        HyMUNetError: If the data, the folder or the settings cannot be used.
    """
    console = console or Console(stderr=True)
    dataset = find_dataset(data, images, masks)
    run = RunFolder(output)
    resuming = run.open(options, data)
    console.print(f"{dataset.name}: {len(dataset.cases)} cases in {dataset.root}", highlight=False)
    for note in dataset.notes:
        console.print(f"  {note}", highlight=False)

    in_channels, spatial_dims = _kind_of_images(dataset.cases[0])
    network = _build(options, in_channels, spatial_dims)
    geometry = _geometry(options, network, spatial_dims)
    cache = CaseCache(Preprocess(geometry), in_channels, network.config.num_labels)
    facts = _prepare(dataset.cases, cache, console)
    split = _split(run, dataset, facts, options, resuming)
    for note in split.notes:
        console.print(f"  {note}", highlight=False)
    console.print(
        f"split: {len(split.train)} train, {len(split.val)} val, {len(split.test)} test",
        highlight=False,
    )
    by_id = {case.id: case for case in dataset.cases}
    train_cases = [by_id[id_] for id_ in split.train]
    val_cases = [by_id[id_] for id_ in split.val]
    if geometry.normalisation == "dataset":
        mean, std = training_statistics(train_cases, cache)
        geometry = PreprocessConfig(**(asdict(geometry) | {"mean": mean, "std": std}))
    preprocess = Preprocess(geometry)

    loaders = [
        _loader(train_cases, cache, preprocess, options, training=True),
        _loader(val_cases, cache, preprocess, options, training=False),
    ]
    task = SegmentationTask(network, options, steps_per_epoch=len(loaders[0]))
    device = _device(options)
    checkpoint, problems = run.checkpoint()
    for problem in problems:
        console.print(f"[yellow]{problem}; going on from the checkpoint before it")
    provenance = run.read_provenance()
    if provenance.get("finished"):
        console.print(f"{run.path} is finished already; nothing to train", highlight=False)
        return _finished(run, dataset, split)
    provenance.update(
        machine_facts(device),
        data=str(data),
        dataset=dataset.name,
        cases=len(dataset.cases),
        split=split_summary(split),
        split_sha256=_file_hash(run.split),
        parameters=sum(p.numel() for p in network.parameters()),
        finished=False,
    )
    run.write_provenance(provenance)
    info = _model_info(dataset, split, facts, options, preprocess, provenance)
    recorder = Recorder(run, lambda row: info | {"metrics": {"val": row}}, console)
    trainer = _trainer(options, device, recorder)
    if checkpoint is not None:
        console.print(f"resuming from {checkpoint}", highlight=False)
    else:
        console.print(
            f"training {options.preset} ({provenance['parameters']:,} parameters) on "
            f"{provenance['machine']['device']}, {options.epochs} epochs of {len(loaders[0])} steps",
            highlight=False,
        )
    started = time.monotonic()
    trainer.fit(task, loaders[0], loaders[1], ckpt_path=checkpoint, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
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


def _kind_of_images(case: Case) -> tuple[int, int]:
    """(channels, spatial dimensions): pictures are read as RGB, volumes as they are."""
    pixels = read_image(case.channels, None).pixels
    spatial_dims = pixels.ndim - 1
    return (3 if spatial_dims == 2 and len(case.channels) == 1 else len(pixels)), spatial_dims


def _build(options: TrainOptions, in_channels: int, spatial_dims: int) -> HyMUNet:
    several = options.structures > 1
    # weights are a function of the seed; the caller's random state is left as it was
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        return PRESETS[options.preset](
            in_channels,
            options.structures + 1 if several else 1,
            spatial_dims=spatial_dims,
            activation="softmax" if several else "sigmoid",
            stages=options.stages,
            skip=options.skip,
            drop_path=options.drop_path,
        )


def _geometry(options: TrainOptions, network: HyMUNet, spatial_dims: int) -> PreprocessConfig:
    channels, stride = network.config.in_channels, network.config.stride
    filler = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "multiple": stride}
    if spatial_dims == 3:
        return PreprocessConfig(None, "native", "image", **filler)
    side = options.image_size
    return PreprocessConfig((side, side), options.resize, "dataset", **filler)


def _prepare(cases: Sequence[Case], cache: CaseCache, console: Console) -> list[CaseFacts]:
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("reading cases", total=len(cases))
        facts = cache.prepare(cases, lambda: progress.advance(bar))
    notes: dict[str, int] = {}
    for fact in facts:
        for note in fact.notes:
            notes[note] = notes.get(note, 0) + 1
    for note, count in sorted(notes.items(), key=lambda item: -item[1])[:5]:
        console.print(f"  {count} files: {note}", highlight=False)
    return facts


def _split(
    run: RunFolder,
    dataset: Dataset,
    facts: Sequence[CaseFacts],
    options: TrainOptions,
    resuming: bool,
) -> Split:
    if resuming and run.split.exists():
        split = load_split(run.split)
        missing = {*split.train, *split.val, *split.test} - {case.id for case in dataset.cases}
        if missing:
            raise HyMUNetError(
                f"{len(missing)} cases of {run.split} are no longer in the data "
                f"({', '.join(sorted(missing)[:4])}); restore them or start a new run"
            )
        return split
    ids = [case.id for case in dataset.cases]
    if dataset.split is not None:
        split = split_from_table(ids, dataset.split)
    else:
        split = make_split(
            ids, _groups(dataset.cases), [fact.foreground for fact in facts], seed=options.seed
        )
    if not split.train or not split.val:
        raise HyMUNetError(
            f"a training needs cases to learn from and cases to validate on, but the split has "
            f"{len(split.train)} train and {len(split.val)} val cases; add some to split.csv"
        )
    save_split(run.split, split)
    return split


def _groups(cases: Sequence[Case]) -> list[str]:
    """The group of each case: what the data set says, else its cluster of near-duplicate pictures."""
    pictures = [case.channels[0] for case in cases]
    if any(path.name.lower().endswith((".nii", ".nii.gz")) for path in pictures):
        return [case.group or case.id for case in cases]
    clusters = near_duplicate_groups(hash_images(pictures))
    return [case.group or f"cluster {c}" for case, c in zip(cases, clusters, strict=True)]


def _loader(
    cases: Sequence[Case],
    cache: CaseCache,
    preprocess: Preprocess,
    options: TrainOptions,
    training: bool,
) -> DataLoader[dict[str, Tensor]]:
    config = preprocess.config
    augment = None
    if training and options.augment:
        square = config.image_size is not None and len(set(config.image_size)) == 1
        augment = Augment(
            2 if config.image_size else 3,
            intensity=config.normalisation == "dataset",
            square=square and config.resize == "squeeze",
        )
    workers = options.workers
    if workers == "auto":
        # on two cores a worker takes from the training as much as it gives
        workers = min(4, max(0, (os.cpu_count() or 1) - 2)) if training else 0
    return DataLoader(
        CaseDataset(cases, cache, preprocess, augment, options.seed),
        batch_size=options.batch_size,
        sampler=EpochSampler(len(cases), options.seed, shuffle=training),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
        # a last batch of one or two would make noisy batch statistics
        drop_last=training and len(cases) >= options.batch_size,
    )


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks samples; smaller ones are padded at the far ends, where nothing is valid."""
    size = [max(sides) for sides in zip(*(s["label"].shape for s in samples), strict=True)]

    def fit_to(tensor: Tensor) -> Tensor:
        pads: list[int] = []
        for side, spatial in zip(reversed(size), reversed(tensor.shape), strict=False):
            pads += [0, side - spatial]
        return F.pad(tensor, pads) if any(pads) else tensor

    batch = {name: torch.stack([fit_to(s[name]) for s in samples]) for name in samples[0] if name != "index"}
    return batch | {"index": torch.stack([s["index"] for s in samples])}


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
        callbacks=[recorder],
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
) -> dict[str, Any]:
    hashes = {fact.id: fact.sha256 for fact in facts}
    one = options.structures == 1
    return {
        "preprocess": preprocess.to_dict(),
        "classes": ["foreground"] if one else [f"class {i + 1}" for i in range(options.structures)],
        "training": {
            "data": dataset.name,
            "options": asdict(options),
            "split_sha256": provenance["split_sha256"],
        },
        "cases": {
            part: [hashes[id_] for id_ in getattr(split, part)] for part in ("train", "val", "test")
        },
        "licence": None,
        "versions": provenance["versions"],
    }


def _file_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
