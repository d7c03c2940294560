"""The hybrid loss: cross-entropy for each pixel, soft Dice for the area, a term for the boundary.

Everything works on logits and targets in channel form, (B, num_classes, *spatial), in 2-D and 3-D,
and is computed in float32 whatever the precision of the logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_WEIGHT = 1e-6  # of all pixels together; below it there is nothing to learn from
_SMOOTH = 1.0  # pixels; keeps an empty target with an empty prediction at a loss of 0


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three terms of the hybrid loss, and of the classes in the cross-entropy (the
    background's first; None: all alike)."""

    cross_entropy: float = 1.0
    dice: float = 1.0
    boundary: float = 0.5
    classes: tuple[float, ...] | None = None


def encode_labels(labels: Tensor, num_classes: int, activation: str) -> Tensor:
    """Label map (B, *spatial), 0 the background -> target (B, num_classes, *spatial) float32.

    `softmax`: one-hot. `sigmoid`: class k is where the label is above k, so one structure is
    label > 0, and several are nested, the first the largest.
    """
    if activation == "softmax":
        return F.one_hot(labels.long(), num_classes).movedim(-1, 1).float()
    thresholds = torch.arange(num_classes, device=labels.device).view(
        1, -1, *[1] * (labels.ndim - 1)
    )
    return (labels.unsqueeze(1) > thresholds).float()


def probabilities(logits: Tensor, activation: str) -> Tensor:
    """Sigmoid of each class, or softmax over the classes (dimension 1), in float32 at least."""
    logits = logits.float() if logits.dtype != torch.float64 else logits
    return torch.sigmoid(logits) if activation == "sigmoid" else torch.softmax(logits, dim=1)


def cross_entropy_loss(
    logits: Tensor,
    target: Tensor,
    activation: str,
    valid: Tensor | None = None,
    class_weights: tuple[float, ...] | None = None,
) -> Tensor:
    """Mean over valid pixels of -sum_c t_c log p_c (softmax), or of the mean over classes of
    -t log p - (1 - t) log(1 - p) (sigmoid); scalar. With `class_weights` it is the weighted mean,
    a pixel's weight that of its class."""
    logits = logits.float() if logits.dtype != torch.float64 else logits
    if activation == "sigmoid":
        pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        pixels = (pixels / pixels.shape[1]).sum(dim=1, keepdim=True)
    else:
        pixels = -(target * F.log_softmax(logits, dim=1)).sum(dim=1, keepdim=True)
    weights = pixel_weights(target, activation, valid, class_weights)
    # divided before it is summed: the sum of bfloat16's largest logits would overflow
    return (pixels * (weights / weights.sum().clamp(min=LEAST_WEIGHT))).sum()


def pixel_weights(
    target: Tensor,
    activation: str,
    valid: Tensor | None = None,
    class_weights: tuple[float, ...] | None = None,
) -> Tensor:
    """What each pixel counts in the cross-entropy, (B, 1, *spatial): `valid` times the weight of
    its class."""
    if valid is None:
        valid = torch.ones_like(target[:, :1])
    if class_weights is None:
        return valid
    labels = target.argmax(dim=1) if activation == "softmax" else (target > 0.5).sum(dim=1)
    return valid * torch.tensor(class_weights, device=labels.device)[labels].unsqueeze(1)


def dice_loss(
    probability: Tensor, target: Tensor, activation: str, valid: Tensor | None = None
) -> Tensor:
    """1 - (2 sum p t + 1) / (sum p + sum t + 1), for each sample and class over the valid pixels,
    then the mean; the background is left out under softmax. Scalar in [0, 1).

    Per sample, since the reported Dice is a mean over images. Source: Milletari et al. 2016
    (V-Net), https://arxiv.org/abs/1606.04797, with linear denominators.
    """
    probability, target = _foreground(probability, target, activation)
    if valid is not None:
        probability, target = probability * valid, target * valid
    return _soft_dice_distance(probability, target, square=False)


def boundary_loss(
    probability: Tensor, target: Tensor, activation: str, valid: Tensor | None = None
) -> Tensor:
    """Soft Dice distance of the two edges: 1 - (2 sum g_p g_t + 1) / (sum g_p^2 + sum g_t^2 + 1)
    with the soft morphological gradient g(x) = maxpool3(x) - minpool3(x); scalar in [0, 1).

    Pixels whose 3x3 neighbourhood is not wholly valid are left out: the rim of the valid area is
    no edge of the structure. It needs no distance transform and so runs on any device.
    """
    probability, target = _foreground(probability, target, activation)
    predicted_edge, true_edge = (
        _morphological_gradient(probability),
        _morphological_gradient(target),
    )
    if valid is not None:
        inner = -_max_pool(-valid)
        predicted_edge, true_edge = predicted_edge * inner, true_edge * inner
    return _soft_dice_distance(predicted_edge, true_edge, square=True)


def hybrid_loss(
    logits: Tensor,
    target: Tensor,
    activation: str = "sigmoid",
    weights: LossWeights | None = None,
    valid: Tensor | None = None,
) -> dict[str, Tensor]:
    """The three terms and their weighted sum.

    Args:
        logits: (B, num_classes, *spatial), any float type.
        target: The same shape, values in [0, 1]; see `encode_labels`.
        activation: `sigmoid` or `softmax`.
        weights: Of the terms; those with weight 0 are still reported.
        valid: (B, 1, *spatial), 1 where a pixel counts; None: everywhere.

    Returns:
        `loss`, `cross_entropy`, `dice_loss`, `boundary`: scalars.

    Raises:
        ValueError: If the shapes differ.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape; "
            "encode_labels() turns a label map into a target"
        )
    if valid is not None and valid.shape != (logits.shape[0], 1, *logits.shape[2:]):
        raise ValueError(
            f"valid must be {(logits.shape[0], 1, *logits.shape[2:])}, not {tuple(valid.shape)}"
        )
    weights = weights or LossWeights()
    probability = probabilities(logits, activation)
    target = target.to(probability.dtype)
    valid = None if valid is None else valid.to(probability.dtype)
    terms = {
        "cross_entropy": cross_entropy_loss(logits, target, activation, valid, weights.classes),
        "dice_loss": dice_loss(probability, target, activation, valid),
        "boundary": boundary_loss(probability, target, activation, valid),
    }
    return weighted(terms, weights)


def weighted(terms: dict[str, Tensor], weights: LossWeights) -> dict[str, Tensor]:
    """The three terms with their weighted sum, `loss`, before them."""
    total = (
        weights.cross_entropy * terms["cross_entropy"]
        + weights.dice * terms["dice_loss"]
        + weights.boundary * terms["boundary"]
    )
    return {"loss": total, **terms}


def _foreground(probability: Tensor, target: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    if activation == "softmax":
        return probability[:, 1:], target[:, 1:]
    return probability, target


def _soft_dice_distance(a: Tensor, b: Tensor, square: bool) -> Tensor:
    a, b = a.flatten(2), b.flatten(2)  # (B, classes, pixels)
    size = (a * a + b * b).sum(-1) if square else (a + b).sum(-1)
    return (1.0 - (2.0 * (a * b).sum(-1) + _SMOOTH) / (size + _SMOOTH)).mean()


def _max_pool(x: Tensor) -> Tensor:
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    return pool(x, kernel_size=3, stride=1, padding=1)  # padding is -inf: the frame adds no edge


def _morphological_gradient(x: Tensor) -> Tensor:
    return _max_pool(x) + _max_pool(-x)
