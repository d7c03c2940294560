"""A training from a data set to a run folder; running it again on the folder goes on."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.cache import CaseCache
from hymunet.data.case import Dataset
from hymunet.data.formats import find_dataset
from hymunet.data.groups import grouped_by_name
from hymunet.data.preprocess import Preprocess
from hymunet.data.splits import Split, load_split
from hymunet.errors import HyMUNetError
from hymunet.network.model_file import read_info
from hymunet.training.begin import Begun, begin
from hymunet.training.decide import uses_gpu
from hymunet.training.initial import GivenNetwork, Start, starting_network
from hymunet.training.lightning_module import SegmentationTask
from hymunet.training.loading import given_split, make_loader
from hymunet.training.options import TrainOptions
from hymunet.training.ranks import ALONE, Ranks, joined, started_ranks
from hymunet.training.recorder import Recorder
from hymunet.training.run_folder import RunFolder
from hymunet.training.trainer import interrupts_as_they_are, make_trainer


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
        given_network: What to train instead of the network that the options describe; by one
            process.

    With several `devices`, processes are started on this machine and waited for; where torchrun
    or srun has started this process, it is one of them, and all get the same result.

    Raises:
        HyMUNetError: If the data, the folder or the settings cannot be used, or a process is lost.
    """
    console = console or Console(stderr=True)
    several = options.devices * options.num_nodes > 1
    if several and given_network is not None:
        raise HyMUNetError(
            f"the network {given_network.name} is trained by one process; leave --devices and "
            "--num-nodes out"
        )
    ranks = started_ranks(options)
    places = (images, masks, split_file)
    if ranks is None and several:
        return _launched(data, output, options, places, console)
    ranks = ranks or ALONE
    with joined(ranks, uses_gpu(options)):
        run = RunFolder(output)
        # the others write nothing
        with run.held() if ranks.first else nullcontext():
            return _fit(data, run, options, places, console, given_network, ranks)


Places = tuple[Path | None, Path | None, Path | None]


def _launched(
    data: Path, output: Path, options: TrainOptions, places: Places, console: Console
) -> FinishedRun:
    """A training by processes that are started here."""
    from hymunet.training.launch import launch

    run = RunFolder(output)
    with run.held():
        launch(options.devices, _as_rank, (data, output, options, places, console.quiet))
    images, masks, _ = places
    dataset = grouped_by_name(find_dataset(data, images, masks), options.groups)
    dataset, _ = given_split(dataset, None, run.split)
    return _finished(run, dataset, load_split(run.split))


def _as_rank(data: Path, output: Path, options: TrainOptions, places: Places, quiet: bool) -> None:
    """What each of the processes does that `_launched` starts, which holds the run folder."""
    ranks = started_ranks(options)
    assert ranks is not None
    console = Console(stderr=True, quiet=quiet)
    with joined(ranks, uses_gpu(options)):
        _fit(data, RunFolder(output), options, places, console, None, ranks)


def _fit(
    data: Path,
    run: RunFolder,
    options: TrainOptions,
    places: Places,
    console: Console,
    given_network: GivenNetwork | None,
    ranks: Ranks,
) -> FinishedRun:
    begun: Begun | None = None
    start: Start | None = None
    if ranks.first:
        begun, start = begin(data, run, options, *places, console, given_network, ranks)
    else:
        console = Console(quiet=True)
    begun = ranks.share(begun)
    if not begun.finished:
        settings, channels = begun.settings, begun.in_channels
        start = start or starting_network(settings, channels, begun.spatial_dims, run.init)
        _train(begun, start, run, options, console, ranks)
    ranks.gather(None)  # the first process has written what the others read
    return _finished(run, begun.dataset, begun.split)


def _train(
    begun: Begun,
    start: Start,
    run: RunFolder,
    options: TrainOptions,
    console: Console,
    ranks: Ranks,
) -> None:
    """All epochs, from the first or from a checkpoint."""
    settings, preprocess = begun.settings, Preprocess(begun.geometry)
    on_gpu = uses_gpu(options)
    if ranks.size > 1:
        from hymunet.training.sync_norm import synchronise_norms

        synchronise_norms(start.network, on_gpu)
    cache = CaseCache(preprocess, begun.in_channels, begun.num_labels)
    training, validation = (
        make_loader(begun.cases(part), cache, preprocess, settings, part == "train", ranks)
        for part in ("train", "val")
    )
    task = SegmentationTask(start.network, settings, begun.steps, ranks)
    info = begun.info or {}
    recorder = Recorder(
        run, lambda row: info | {"metrics": {"val": row}}, console, options.budget, ranks
    )
    trainer = make_trainer(settings, torch.device("cuda" if on_gpu else "cpu"), recorder, ranks)
    say(console, "a line an epoch; * marks the best validation Dice so far")
    started = time.monotonic()
    with interrupts_as_they_are(trainer):
        trainer.fit(task, training, validation, ckpt_path=begun.checkpoint, weights_only=True)
    if not ranks.first:
        return
    provenance = run.read_provenance()
    provenance["finished"] = True
    provenance["epochs"] = len(recorder.rows)
    provenance["best_epoch"] = recorder.best_epoch
    provenance["training_seconds"] = round(sum(row["seconds"] for row in recorder.rows), 1)
    provenance["last_session_seconds"] = round(time.monotonic() - started, 1)
    run.write_provenance(provenance)


def _finished(run: RunFolder, dataset: Dataset, split: Split) -> FinishedRun:
    provenance = run.read_provenance()
    val = read_info(run.best)["metrics"]["val"]
    return FinishedRun(
        run, dataset, split, provenance["epochs"], provenance["best_epoch"], val["val_dice"]
    )
