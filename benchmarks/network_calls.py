"""What is done with a network that is timed: a forward pass, a training step, and a check first."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.errors import HyMUNetError, NonFiniteError


def picture(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """A noisy disc and its mask: images (batch, 3, size, size), targets (batch, 1, size, size)."""
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, size)
    disc = (line[:, None] ** 2 + line[None, :] ** 2 < 0.25).float()
    target = disc.expand(batch, 1, size, size).contiguous()
    return target + 0.5 * torch.randn(batch, 3, size, size, generator=generator), target


def forward(network: nn.Module, image: Tensor) -> Tensor:
    """Logits of `image` as a user gets them: evaluation mode, no gradients."""
    network.eval()
    with torch.inference_mode():
        return network(image)


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, image: Tensor, target: Tensor
) -> Tensor:
    """One step of AdamW on the cross-entropy; returns the loss before it."""
    network.train()
    optimizer.zero_grad(set_to_none=True)
    loss = F.binary_cross_entropy_with_logits(network(image), target)
    loss.backward()
    optimizer.step()
    return loss.detach()


def check(name: str, network: nn.Module, image: Tensor, target: Tensor) -> None:
    """Refuses to time a network whose output is not a finite mask of the image's size.

    Raises:
        HyMUNetError: If the shape of the logits is not that of the target.
        NonFiniteError: If a logit, the loss or a gradient is NaN or infinite.
    """
    logits = forward(network, image)
    if logits.shape != target.shape:
        raise HyMUNetError(
            f"{name}: logits of shape {tuple(target.shape)} were expected, "
            f"{tuple(logits.shape)} came; nothing was timed"
        )
    network.train()
    loss = F.binary_cross_entropy_with_logits(network(image), target)
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    finite = [logits.isfinite().all(), loss.isfinite(), *(g.isfinite().all() for g in gradients)]
    if not gradients or not all(finite):
        raise NonFiniteError(
            f"{name}: a logit, the loss or a gradient is missing, NaN or infinite; "
            "nothing was timed: run the network's tests"
        )
