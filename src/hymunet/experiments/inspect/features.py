"""Features for the eye: their energy over channels, and their first principal components."""

import torch
from torch import Tensor


def rms(feature: Tensor) -> Tensor:
    """(1, C, *spatial) -> root mean square over channels (*spatial), float64 on the CPU."""
    return feature[0].double().square().mean(dim=0).sqrt().cpu()


def principal_components(feature: Tensor, count: int = 3) -> tuple[Tensor, list[float]]:
    """The directions in channel space along which positions differ most.

    Args:
        feature: (1, C, *spatial).
        count: How many; with fewer channels the rest is 0.

    Returns:
        Components (count, *spatial), float64 on the CPU, each with its channel of largest weight
        counted positive; and the share of the variance that each holds (0 for a constant feature).
    """
    flat = feature[0].double().flatten(1).cpu()  # (C, positions)
    centred = flat - flat.mean(dim=1, keepdim=True)
    variances, directions = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    variances, directions = variances.flip(0).clamp(min=0), directions.flip(1)
    total = float(variances.sum())
    shown = torch.zeros(count, flat.shape[1], dtype=torch.float64)
    shares = [0.0] * count
    for index in range(min(count, len(variances))):
        weights = directions[:, index]
        sign = 1.0 if weights[weights.abs().argmax()] >= 0 else -1.0
        shown[index] = sign * (weights @ centred)
        shares[index] = float(variances[index]) / total if total > 0 else 0.0
    return shown.view(count, *feature.shape[2:]), shares
