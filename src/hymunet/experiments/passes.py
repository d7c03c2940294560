"""What is done with a network that is measured: a forward pass, a step, a check before."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hymunet.errors import HyMUNetError, NonFiniteError


def picture(
    batch: int, shape: Sequence[int], channels: int = 3, classes: int = 1
) -> tuple[Tensor, Tensor]:
    """A noisy ellipse (in 3-D an ellipsoid) and its mask: images (batch, channels, *shape), targets
    (batch, classes, *shape)."""
    generator = torch.Generator().manual_seed(0)
    distance = torch.zeros(*shape)
    for axis, side in enumerate(shape):
        line = torch.linspace(-1, 1, side)
        distance += (line**2).view([-1 if a == axis else 1 for a in range(len(shape))])
    disc = (distance < 0.25).float()
    image = torch.randn(batch, channels, *shape, generator=generator).mul_(0.5).add_(disc)
    return image, disc.expand(batch, classes, *shape).contiguous()


def forward(network: nn.Module, image: Tensor) -> Tensor:
    """Logits of `image` as a user gets them: evaluation mode, no gradients."""
    if network.training:  # to walk through all modules is a part of a short pass
        network.eval()
    with torch.inference_mode():
        return network(image)


def training_loss(network: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy in training mode, summed over the outputs of a network with several."""
    network.train()
    logits = network(image)
    outputs = logits if isinstance(logits, list) else [logits]
    losses = [F.binary_cross_entropy_with_logits(one, target) for one in outputs]
    return torch.stack(losses).sum()


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, image: Tensor, target: Tensor
) -> Tensor:
    """One step of `optimizer` on the cross-entropy; returns the loss before it."""
    optimizer.zero_grad(set_to_none=True)
    loss = training_loss(network, image, target)
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
    loss = training_loss(network, image, target)
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    finite = [logits.isfinite().all(), loss.isfinite(), *(g.isfinite().all() for g in gradients)]
    if not gradients or not all(finite):
        raise NonFiniteError(
            f"{name}: a logit, the loss or a gradient is missing, NaN or infinite; "
            "nothing was timed: run the network's tests"
        )
