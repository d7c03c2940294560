"""HyM-UNet in MONAI's trainer and evaluator.

The question. Does the network run in the place of one of MONAI's own, inside its SupervisedTrainer
and SupervisedEvaluator, with its transforms, loss, metric and sliding windows?

The expectation. Drawn lesions; Dice on lesions that were not trained on rises far above what the
untrained network has. The evaluator reads them in windows smaller than the pictures.

What to look at. The network is one argument, `hymunet_tiny(...)`; everything else is as for MONAI's
UNet. What has another name here than there stands in docs/names.md. To hand a trained model to
people who use MONAI: `hymunet export MODEL --format bundle`.

    python examples/with_monai.py            # seconds on two CPU cores
    python examples/with_monai.py --full     # longer, on larger pictures
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, from_engine
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    NormalizeIntensityd,
    RandFlipd,
    RandRotate90d,
)
from rich.console import Console

from hymunet import HyMUNet, hymunet_tiny
from hymunet.console import run_script, say
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_text

OTHERS = 1_000_000  # lesions from here on are for judging
# less than half of the tiny preset's work, so that it takes seconds
SIZES: dict[str, Any] = {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "d_state": 8}
LEAST_GAIN = 0.2  # of Dice, by a few dozen steps


def lesions(first: int, number: int, side: int) -> list[dict[str, np.ndarray]]:
    """Pictures (3, side, side) and masks (1, side, side) under MONAI's usual keys."""
    drawn = [draw_lesion(first + i, (side, side)) for i in range(number)]
    return [
        {"image": one.image.astype(np.float32), "label": one.mask[None].astype(np.float32)}
        for one in drawn
    ]


def evaluator(network: HyMUNet, pictures: list[Any], side: int) -> SupervisedEvaluator:
    """Mean Dice over pictures that are read in windows of three quarters of their side."""
    window = 3 * side // 4 // network.config.stride * network.config.stride
    transforms = Compose([NormalizeIntensityd("image", 150.0, 50.0)])
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(pictures, transforms), batch_size=1),
        network=network,
        inferer=SlidingWindowInferer((window, window), overlap=0.5, mode="gaussian"),
        postprocessing=Compose(
            [Activationsd("pred", sigmoid=True), AsDiscreted("pred", threshold=0.5)]
        ),
        key_val_metric={"dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
    )


def main(*, full: bool = False, output: Path = Path("runs/examples")) -> dict[str, Any]:
    """Trains a small HyM-UNet by MONAI's SupervisedTrainer.

    Args:
        full: More, and larger, pictures and longer training.
        output: Folder for with_monai.json.

    Raises:
        HyMUNetError: If it has not learnt.
    """
    number, side, epochs = (400, 128, 20) if full else (48, 64, 8)
    out, console = make_folder(output), Console()
    logging.getLogger("ignite").setLevel(logging.WARNING)
    torch.manual_seed(0)
    network = hymunet_tiny(**SIZES)
    judge = evaluator(network, lesions(OTHERS, 16, side), side)
    judge.run()
    before = float(judge.state.metrics["dice"])
    transforms = Compose(
        [
            NormalizeIntensityd("image", 150.0, 50.0),
            RandFlipd(("image", "label"), prob=0.5, spatial_axis=0),
            RandRotate90d(("image", "label"), prob=0.5),
        ]
    ).set_random_state(seed=0)
    loader = DataLoader(Dataset(lesions(0, number, side), transforms), batch_size=8, shuffle=True)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=3e-3),
        loss_function=DiceCELoss(sigmoid=True),
    )
    trainer.run()
    judge.run()
    after = float(judge.state.metrics["dice"])
    steps = epochs * len(loader)
    result = {"dice_before": before, "dice_after": after, "steps": steps}
    say(console, f"MONAI, {steps} steps: Dice {before:.3f} -> {after:.3f} on other lesions")
    write_text(out / "with_monai.json", json.dumps(result, indent=2) + "\n")
    if after < before + LEAST_GAIN:
        raise HyMUNetError(
            f"Dice should rise by {LEAST_GAIN} at least, but went from {before:.3f} to {after:.3f}"
        )
    return result


if __name__ == "__main__":
    run_script(main)
