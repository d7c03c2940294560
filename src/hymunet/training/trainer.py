"""Lightning's trainer as a run needs it: quiet, whole checkpoints only, Ctrl-C as it is."""

import io
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from hymunet.training.initial import EncoderStaysAsItIs
from hymunet.training.planning.plan import Settings
from hymunet.training.ranks import ALONE, Ranks
from hymunet.training.recorder import Recorder


class PlainFiles(TorchCheckpointIO):
    """Checkpoints written to the very path, which is the recorder's temporary one: Lightning's way
    through a file in /tmp needs the space twice and leaves it behind when it is killed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()  # torch's writer would hide the reason why a file cannot be written
        torch.save(checkpoint, content)
        Path(path).write_bytes(content.getbuffer())


def make_trainer(
    options: Settings, device: torch.device, recorder: Recorder, ranks: Ranks = ALONE
) -> lightning.Trainer:
    """For this process on `device`; the recorder keeps the run folder."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its greetings and tips
    # we choose the number of workers ourselves, see TrainOptions
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own
    warnings.filterwarnings("ignore", ".*number of training batches.*logging interval.*")
    # about DDP: a newer name that older versions lack; layouts of depth-wise kernels
    warnings.filterwarnings("ignore", ".*broadcast_buffers. is deprecated.*")
    warnings.filterwarnings("ignore", ".*Grad strides do not match bucket view strides.*")
    return lightning.Trainer(
        max_epochs=options.epochs,
        # an int is a number of steps, a float a share of them
        limit_train_batches=options.steps_per_epoch or 1.0,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=_strategy(options, ranks),
        # however the processes were started, they are named as torchrun names them
        plugins=[PlainFiles(), *([TorchElasticEnvironment()] if ranks.size > 1 else [])],
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


def _strategy(options: Settings, ranks: Ranks) -> Strategy | str:
    if ranks.size == 1:
        return "auto"
    if options.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=ranks.size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one file, whole or not at all
        )
    # statistics of norms are the same everywhere, see sync_norm
    return DDPStrategy(broadcast_buffers=False)


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
