"""Settings that hang on the machine: a batch that fits its memory, epochs that fit a budget."""

from dataclasses import replace

import torch
from rich.console import Console

from hymunet.console import say
from hymunet.data.preprocess import PreprocessConfig
from hymunet.errors import HyMUNetError
from hymunet.network.segmenter import Segmenter
from hymunet.training.cost import Batches, batch_that_fits, pace_of
from hymunet.training.decide import Decision
from hymunet.training.options import seconds_of
from hymunet.training.planning.effort import passes
from hymunet.training.planning.plan import Settings
from hymunet.training.ranks import ALONE, Ranks
from hymunet.wording import memory_text, plural


def check_batch(
    settings: Settings,
    cases: int,
    geometry: PreprocessConfig,
    network: Segmenter,
    ranks: Ranks = ALONE,
) -> None:
    """Batch statistics need more than one value a channel in the deepest stage, and each process
    a sample of every batch.

    Raises:
        HyMUNetError: If there are too few samples in a batch.
    """
    samples = cases * settings.patches
    if min(settings.batch_size, samples) < ranks.size:
        raise HyMUNetError(
            f"a batch of {min(settings.batch_size, samples)} (batch size {settings.batch_size}, "
            f"{samples} samples an epoch) cannot be shared out among {ranks.size} processes; lower "
            "--devices or raise --batch-size"
        )
    size = geometry.patch_size or geometry.image_size
    config = network.config
    alone = min(settings.batch_size, samples) == 1
    if alone and config.conv_norm == "batch" and size == (config.stride,) * config.spatial_dims:
        raise HyMUNetError(
            f"batches of 1 at {' x '.join(map(str, size))} leave one value a channel in the "
            "deepest stage, too few for batch normalisation; raise --batch-size or --image-size"
        )


def in_memory(
    decision: Decision,
    needed: int,
    free: int | None,
    console: Console,
    epochs_open: bool,
) -> Decision:
    """The planned batch, halved where the machine's memory asks for it; then the passes, where
    nobody chose them, are those of smaller batches.

    Args:
        decision: With the planned batch.
        needed: Bytes a sample, see `bytes_a_sample`.
        free: Bytes that are free, see `available_memory`.
        console: Where to report.
        epochs_open: Whether nobody chose the passes.
    """
    planned = decision.settings.batch_size
    fits = batch_that_fits(planned, needed, free)
    if fits == planned:
        return decision
    reason = f"{planned} would need {memory_text(planned * needed)}, over half of what is free"
    say(console, f"  batch_size: {fits} ({reason})")
    decision = decision.but("batch_size", fits, reason)
    if not epochs_open:
        return decision
    samples = decision.plan.training_cases * decision.settings.patches
    count, why = passes(samples, fits, decision.settings.init is not None)
    say(console, f"  epochs: {count} ({why})")
    return decision.but("epochs", count, why)


def in_time(
    budget: str,
    decision: Decision,
    network: Segmenter,
    loaders: tuple[Batches, Batches],
    device: torch.device,
    console: Console,
) -> Decision:
    """As many epochs as a time budget holds, shorter ones than a pass where few would fit."""
    settings, a_pass = decision.settings, len(loaders[0])
    whole = min(settings.steps_per_epoch or a_pass, a_pass)
    pace = pace_of(network, loaders, settings, device)
    epochs, steps = pace.epochs_in(seconds_of(budget), whole, settings.steps_per_epoch is None)
    each = pace.seconds(steps)
    if epochs * each > seconds_of(budget):
        say(
            console,
            f"warning: {plural(steps, 'step')} and a validation take {each:.0f} s here, more than "
            f"the budget of {budget}",
            "yellow",
        )
    reason = f"an epoch takes {each:.1f} s here, and the budget is {budget}"
    if steps < whole:
        decision = replace(decision, settings=replace(settings, steps_per_epoch=steps))
        reason = f"each of {steps} steps, where a pass over the cases has {whole}: {reason}"
    say(console, f"  epochs: {epochs} ({reason})")
    return decision.but("epochs", epochs, reason)
