"""Images larger than the network was trained on: overlapping windows, weighted by a Gaussian."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from hymunet.errors import HyMUNetError

_SIGMA = 0.125  # of the window's side, as in nnU-Net (Isensee et al. 2021) and MONAI


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one axis: evenly spaced, the first at 0, the last ending at
    `length`, neighbours sharing at least `overlap` of a window."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1.0 - overlap)))
    count = -(-(length - window) // step) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def importance(window: Sequence[int], device: torch.device | None = None) -> Tensor:
    """(1, 1, *window) float32: exp(-|x - centre|^2 / (2 (side/8)^2)), at least 1e-3,
    so that a pixel which only a corner saw still has a prediction.

    A network sees less of the surroundings at a window's border, and is worse there.
    """
    weight = torch.ones((1, 1, *window), device=device)
    for axis, side in enumerate(window):
        places = torch.arange(side, device=device, dtype=torch.float32) - (side - 1) / 2
        line = torch.exp(-0.5 * (places / (_SIGMA * side)) ** 2)
        weight = weight * line.view(*(-1 if a == axis + 2 else 1 for a in range(weight.ndim)))
    return weight.clamp(min=1e-3)


def sliding_window(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    window: Sequence[int],
    overlap: float = 0.5,
    batch_size: int = 1,
    on_window: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Weighted mean of `predict` over windows that cover the image.

    At each pixel sum_w g_w p_w / sum_w g_w over the windows w that hold it, g as in `importance`.
    One accumulator of the output's size and one plane of weights are all the memory it takes
    beyond the image and a batch of windows.

    Args:
        predict: (b, channels, *window) -> (b, num_classes, *window) probabilities.
        image: (1, channels, *spatial); sides shorter than the window are padded at their far end
            by zeros, the mean of a normalised image, and cut off again.
        window: Sides of a window.
        overlap: Share of a window that neighbours have in common at least, in [0, 1).
        batch_size: Windows at a time.
        on_window: Called with (windows done, windows in all) after each batch.

    Returns:
        (1, num_classes, *spatial) float32 on the image's device.

    Raises:
        HyMUNetError: If the image is not one image of the window's dimensions, or the overlap is
            not in [0, 1).
    """
    spatial = tuple(image.shape[2:])
    if image.shape[0] != 1 or len(spatial) != len(window):
        raise HyMUNetError(
            f"expected one image (1, channels, *spatial) of {len(window)} spatial dimensions for "
            f"windows of {tuple(window)}, not {tuple(image.shape)}"
        )
    if not 0.0 <= overlap < 1.0:
        raise HyMUNetError(f"the overlap of windows must be in [0, 1), not {overlap}")
    size = tuple(map(max, spatial, window))
    starts = [window_starts(n, w, overlap) for n, w in zip(size, window, strict=True)]
    places = [
        tuple(slice(a, a + w) for a, w in zip(corner, window, strict=True))
        for corner in product(*starts)
    ]
    weight = importance(window, image.device)
    total: Tensor | None = None
    weights = torch.zeros((1, 1, *size), device=image.device)
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        # windows are padded, not the image, which would be held twice
        seen = predict(torch.cat([_padded(image, place, window) for place in batch]))
        if total is None:
            total = torch.zeros((1, seen.shape[1], *size), device=image.device)
        for one, place in zip(seen.float(), batch, strict=True):
            total[(slice(None), slice(None), *place)] += one[None] * weight
            weights[(slice(None), slice(None), *place)] += weight
        if on_window is not None:
            on_window(first + len(batch), len(places))
    assert total is not None  # there is at least one window
    inside = tuple(slice(0, side) for side in spatial)
    return total.div_(weights)[(slice(None), slice(None), *inside)]


def _padded(image: Tensor, place: Sequence[slice], window: Sequence[int]) -> Tensor:
    """The part of an image at `place`, zeros where it reaches beyond the image."""
    part = image[(slice(None), slice(None), *place)]
    short = [side - there for side, there in zip(window, part.shape[2:], strict=True)]
    pads = [pad for side in reversed(short) for pad in (0, side)]
    return F.pad(part, pads) if any(pads) else part
