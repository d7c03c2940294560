"""HyM-UNet in a LightningModule of your own.

The question. Does the network run inside Lightning's trainer without anything of this package
around it, with a loss of MONAI's, validation and a learning-rate schedule as Lightning does them?

The expectation. Drawn lesions; MONAI's DiceCELoss; Dice on lesions that were not trained on rises
far above what the untrained network has.

What to look at. The module below is all there is: the network is one attribute. `hymunet train` is
made of the same trainer, with a module that also keeps a moving average, cuts windows and resumes
bit for bit.

    python examples/with_lightning.py            # seconds on two CPU cores
    python examples/with_lightning.py --full     # longer, on larger pictures
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from monai.losses import DiceCELoss
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from hymunet import hymunet_tiny
from hymunet.console import run_script, say
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_text

OTHERS = 1_000_000  # lesions from here on are for judging
# less than half of the tiny preset's work, so that it takes seconds
SIZES: dict[str, Any] = {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "d_state": 8}
LEAST_GAIN = 0.2  # of Dice, by a few dozen steps


def lesions(first: int, number: int, side: int) -> TensorDataset:
    """Pictures (3, side, side), about -3 to 2, and masks (1, side, side) of 0 and 1."""
    drawn = [draw_lesion(first + i, (side, side)) for i in range(number)]
    images = torch.from_numpy(np.stack([one.image for one in drawn])).float()
    masks = torch.from_numpy(np.stack([one.mask for one in drawn])).float()
    return TensorDataset((images - 150) / 50, masks[:, None])


class Segmentation(lightning.LightningModule):
    """Trains `network` by MONAI's loss; logs the mean Dice of the validation pictures."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.network = hymunet_tiny(**SIZES)
        self.loss = DiceCELoss(sigmoid=True)
        self.steps = steps

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, masks = batch
        loss: Tensor = self.loss(self.network(images), masks)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, masks = batch
        found = (self.network(images) > 0).float()
        both, sizes = (found * masks).sum((1, 2, 3)), (found + masks).sum((1, 2, 3))
        self.log("dice", (2 * both / sizes.clamp(min=1)).mean(), batch_size=len(images))

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=self.steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def main(*, full: bool = False, output: Path = Path("runs/examples")) -> dict[str, Any]:
    """Trains a small HyM-UNet by a LightningModule of the example's own.

    Args:
        full: More, and larger, pictures and longer training.
        output: Folder for with_lightning.json.

    Raises:
        HyMUNetError: If it has not learnt.
    """
    number, side, epochs = (400, 128, 20) if full else (48, 64, 8)
    out, console = make_folder(output), Console()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    torch.manual_seed(0)
    train = DataLoader(lesions(0, number, side), batch_size=8, shuffle=True)
    val = DataLoader(lesions(OTHERS, 16, side), batch_size=8)
    task = Segmentation(epochs * len(train))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    before = trainer.validate(task, val, verbose=False)[0]["dice"]
    trainer.fit(task, train, val)
    after = trainer.validate(task, val, verbose=False)[0]["dice"]
    result = {"dice_before": before, "dice_after": after, "steps": task.steps}
    say(
        console, f"Lightning, {task.steps} steps: Dice {before:.3f} -> {after:.3f} on other lesions"
    )
    write_text(out / "with_lightning.json", json.dumps(result, indent=2) + "\n")
    if after < before + LEAST_GAIN:
        raise HyMUNetError(
            f"Dice should rise by {LEAST_GAIN} at least, but went from {before:.3f} to {after:.3f}"
        )
    return result


if __name__ == "__main__":
    run_script(main)
