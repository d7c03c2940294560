"""After each epoch: a line to read, a row in metrics.csv, the best weights, a whole checkpoint."""

import math
import os
import time
from collections.abc import Callable
from typing import Any

import lightning
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hymunet.console import say
from hymunet.errors import NonFiniteError
from hymunet.files import replacing
from hymunet.network.model_file import save_model
from hymunet.network.segmenter import Segmenter
from hymunet.training.lightning_module import SegmentationTask
from hymunet.training.options import seconds_of
from hymunet.training.ranks import ALONE, Ranks
from hymunet.training.run_folder import RunFolder

# of a time budget, from which on it is worth a warning
_OVERRUN = 1.1


class Recorder(lightning.Callback):
    """Keeps the run folder up to date and the user informed; stops early when asked to.

    Args:
        run: Where to.
        model_info: Makes the metadata of best.safetensors from (row of metrics, epochs trained).
        console: Where lines and the progress bar go.
        budget: Time for all epochs together, such as 45m; that it will not do is said once.
        ranks: Of several processes each keeps the rows, and the first one writes.
    """

    def __init__(
        self,
        run: RunFolder,
        model_info: Callable[[dict[str, float]], dict[str, Any]],
        console: Console,
        budget: str | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.run, self.model_info, self.console, self.ranks = run, model_info, console, ranks
        self.budget = budget
        self.rows: list[dict[str, float]] = []
        self.best_epoch, self.best_dice = 0, -1.0
        self.progress: Progress | None = None
        self.bar: Any = None
        self.started = time.monotonic()

    # kept in the checkpoint, so that a resumed run writes the files an uninterrupted one would
    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "best_epoch": self.best_epoch,
            "best_dice": self.best_dice,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self.best_epoch = state_dict["best_epoch"]
        self.best_dice = state_dict["best_dice"]

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        # a run that was killed after its last checkpoint, before it was marked as finished
        assert isinstance(pl_module, SegmentationTask)
        if self._out_of_patience(pl_module.options.patience):
            trainer.should_stop = True

    def _out_of_patience(self, patience: int) -> bool:
        return 0 < patience <= len(self.rows) - self.best_epoch

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.started = time.monotonic()
        self.progress = Progress(
            TextColumn("epoch {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.progress.start()
        self.bar = self.progress.add_task(
            f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            total=trainer.num_training_batches,
            loss="-",
        )

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.progress is not None:
            self.progress.update(self.bar, advance=1, loss=f"{float(outputs['loss']):.3f}")

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        self._stop_progress()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._stop_progress()
        assert isinstance(pl_module, SegmentationTask)
        epoch = trainer.current_epoch + 1
        row = {
            "epoch": epoch,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": time.monotonic() - self.started,
            **pl_module.epoch_row(),
        }
        if not all(math.isfinite(value) for value in row.values()):
            raise NonFiniteError(
                f"validation after epoch {epoch} met NaN or infinity (val_loss {row['val_loss']}): "
                "training has diverged, and nothing of this epoch was kept; lower --learning-rate"
            )
        self.rows.append(row)
        better = row["val_dice"] > self.best_dice
        if better:
            self.best_epoch, self.best_dice = epoch, row["val_dice"]
        options = pl_module.options
        if better or options.select == "last":
            self._save_best(pl_module.averaged_network(), row)
        if self._out_of_patience(options.patience):
            trainer.should_stop = True
        if self.ranks.first:
            self.run.write_metrics(self.rows)
        self._save_checkpoint(trainer)
        self._say(trainer, row, better)

    def _save_best(self, network: Segmenter, row: dict[str, float]) -> None:
        if self.ranks.first:
            save_model(self.run.best, network, self.model_info(row))

    def _save_checkpoint(self, trainer: lightning.Trainer) -> None:
        if not self.ranks.first:  # Lightning asks all for what they have
            trainer.save_checkpoint(self.run.path / "new.ckpt")
            return
        # the new one is whole under its own name before the old one moves away
        with replacing(self.run.path / "new.ckpt") as temporary:
            trainer.save_checkpoint(temporary)
        if self.run.last.exists():
            os.replace(self.run.last, self.run.previous)
        os.replace(self.run.path / "new.ckpt", self.run.last)

    def _say(self, trainer: lightning.Trainer, row: dict[str, float], better: bool) -> None:
        left = (trainer.max_epochs or 0) - int(row["epoch"])
        recent = [r["seconds"] for r in self.rows[-3:]]
        seconds = left * sum(recent) / len(recent)
        remaining = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        say(
            self.console,
            f"epoch {int(row['epoch']):>3}/{trainer.max_epochs}  "
            f"loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
            f"val Dice {row['val_dice']:.4f}  IoU {row['val_iou']:.4f}  "
            f"{row['seconds']:.0f} s, {remaining} left{'  *' if better else ''}",
        )
        self._say_of_budget(seconds)

    def _say_of_budget(self, left: float) -> None:
        """Epochs were counted by steps measured before the first: a machine that has other work
        by now, or that was busy then, takes another time."""
        if self.budget is None:
            return
        allowed = seconds_of(self.budget)
        total = sum(row["seconds"] for row in self.rows) + left
        if left > 0 and total > _OVERRUN * allowed:
            say(
                self.console,
                f"warning: epochs take longer than was measured before the first; at this pace the "
                f"training takes {total / 60:.1f} minutes, not {self.budget}",
                "yellow",
            )
            self.budget = None  # once

    def _stop_progress(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
