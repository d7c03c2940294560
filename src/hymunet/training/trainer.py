"""Lightning's trainer as a run needs it: quiet, whole checkpoints only, Ctrl-C as it is."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning
import torch

from hymunet.training.initial import EncoderStaysAsItIs
from hymunet.training.planning.plan import Settings
from hymunet.training.recorder import Recorder


def make_trainer(options: Settings, device: torch.device, recorder: Recorder) -> lightning.Trainer:
    """For one process on `device`; the recorder keeps the run folder."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its greetings and tips
    # we choose the number of workers ourselves, see TrainOptions
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own
    warnings.filterwarnings("ignore", ".*number of training batches.*logging interval.*")
    return lightning.Trainer(
        max_epochs=options.epochs,
        # an int is a number of steps, a float a share of them
        limit_train_batches=options.steps_per_epoch or 1.0,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if in_bfloat16(options, device) else "32-true",
        gradient_clip_val=options.clip,
        callbacks=[recorder, *([EncoderStaysAsItIs()] if options.freeze_encoder else [])],
        logger=False,
        enable_checkpointing=False,  # the recorder's are whole or not at all
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def in_bfloat16(options: Settings, device: torch.device) -> bool:
    """Whether the network computes in mixed precision."""
    return options.precision == "bfloat16" or (
        options.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )


@contextmanager
def interrupts_as_they_are(trainer: lightning.Trainer) -> Iterator[None]:
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
