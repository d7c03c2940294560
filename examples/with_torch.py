"""HyM-UNet in a training loop of your own: torch, a loss, an optimiser, nothing else.

The question. Is the network an ordinary `nn.Module`, that learns by any loss and optimiser in a
loop written by hand, and can what was learnt be used by `predict` afterwards?

The expectation. Drawn lesions; soft Dice and cross-entropy from torch's own functions; AdamW. Dice
on lesions that were not trained on rises far above what the untrained network has. The saved folder
gives the same masks through `Predictor`, which resizes and normalises by what the folder says.

What to look at. What a loop has to know of the network: logits come out, at the size of the image;
sides must be multiples of `network.config.stride`; in training mode `deep_supervision=True` would
give a list of logits. `info` is what the loop has to tell `Predictor` of its preprocessing.

    python examples/with_torch.py            # seconds on two CPU cores
    python examples/with_torch.py --full     # longer, on larger pictures
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from hymunet import HyMUNet, Predictor, hymunet_tiny
from hymunet.console import run_script, say
from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_text

MEAN, STD = 0.6, 0.2  # of the drawn pictures' values in [0, 1]; all channels alike
OTHERS = 1_000_000  # lesions from here on are for judging
# less than half of the tiny preset's work, so that it takes seconds
SIZES: dict[str, Any] = {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "d_state": 8}
LEAST_GAIN = 0.2  # of Dice, by a few dozen steps


def lesions(first: int, number: int, side: int) -> tuple[Tensor, Tensor]:
    """Pictures (number, 3, side, side), normalised, and masks (number, 1, side, side)."""
    drawn = [draw_lesion(first + i, (side, side)) for i in range(number)]
    images = torch.from_numpy(np.stack([one.image for one in drawn])).float() / 255
    masks = torch.from_numpy(np.stack([one.mask for one in drawn])).float()
    return (images - MEAN) / STD, masks[:, None]


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, and 1 - soft Dice of each picture."""
    found = torch.sigmoid(logits)
    both, sizes = (found * target).sum((1, 2, 3)), (found + target).sum((1, 2, 3))
    dice = (2 * both + 1) / (sizes + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - dice).mean()


@torch.inference_mode()
def mean_dice(network: HyMUNet, images: Tensor, masks: Tensor) -> float:
    """Over the pictures, of masks cut at a probability of 0.5; pixel by pixel, so lesions only."""
    found = (network.eval()(images) > 0).float()
    both, sizes = (found * masks).sum((1, 2, 3)), (found + masks).sum((1, 2, 3))
    return float((2 * both / sizes.clamp(min=1)).mean())


def main(*, full: bool = False, output: Path = Path("runs/examples")) -> dict[str, Any]:
    """Trains a small HyM-UNet in a plain loop, saves it, predicts with it.

    Args:
        full: More, and larger, pictures and longer training.
        output: Folder for with_torch.json and the folder with_torch.

    Raises:
        HyMUNetError: If it has not learnt.
    """
    number, side, steps = (400, 128, 1000) if full else (48, 64, 48)
    out, console = make_folder(output), Console()
    torch.manual_seed(0)
    images, masks = lesions(0, number, side)
    others = lesions(OTHERS, 16, side)
    network = hymunet_tiny(**SIZES)
    before = mean_dice(network, *others)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(number, (8,))
        optimiser.zero_grad()
        loss(network(images[chosen]), masks[chosen]).backward()
        optimiser.step()
    after = mean_dice(network, *others)

    preprocess = {"mean": [MEAN] * 3, "std": [STD] * 3, "multiple": network.config.stride}
    folder = network.save_pretrained(
        out / "with_torch", info={"preprocess": preprocess, "classes": ["lesion"]}
    )
    picture = draw_lesion(OTHERS, (side, side)).image
    with torch.inference_mode():
        own = (torch.sigmoid(network(others[0][:1])) >= 0.5)[0, 0].numpy()
    same = bool((Predictor(folder, device="cpu")(picture).mask == own).all())
    result = {"dice_before": before, "dice_after": after, "steps": steps, "predictor_agrees": same}
    say(console, f"plain torch, {steps} steps: Dice {before:.3f} -> {after:.3f} on other lesions")
    say(console, f"saved to {folder}; Predictor gives {'the same' if same else 'another'} mask")
    write_text(out / "with_torch.json", json.dumps(result, indent=2) + "\n")
    if not same:
        raise HyMUNetError(f"Predictor should give the mask of the loop, but {folder} does not")
    if after < before + LEAST_GAIN:
        raise HyMUNetError(
            f"Dice should rise by {LEAST_GAIN} at least, but went from {before:.3f} to {after:.3f}"
        )
    return result


if __name__ == "__main__":
    run_script(main)
