"""Do gated skips keep the background out? Energy of the encoder's features before and after.

The paper says that deep features gate shallow ones so that background noise does not reach the
decoder. If so, the background's share of the energy falls at the gate. A gate that dampens all
alike, by whatever factor, changes nothing: the next convolution can undo it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hymunet.evaluation.tables import mean_of
from hymunet.experiments.inspect.observe import Skip


def region_shares(inside: Tensor, counted: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """How much of each cell of a coarser grid is structure, and how much background.

    Args:
        inside: The structure, bool, (*spatial).
        counted: Pixels that belong to the picture (not to its padding) and count, bool.
        grid: Size of the feature; `inside` is a multiple of it.

    Returns:
        Structure and background, float64 (*grid) each.
    """
    both = torch.stack([inside & counted, ~inside & counted]).double()
    cells = [side // cell for side, cell in zip(inside.shape, grid, strict=True)]
    pool = F.avg_pool2d if inside.ndim == 2 else F.avg_pool3d
    structure, background = pool(both[None], cells)[0]
    return structure, background


def background_ratio(feature: Tensor, structure: Tensor, background: Tensor) -> float | None:
    """Mean energy (square, over channels and cells) in the background over that in the structure;
    None where either is absent or there is no energy to compare with.

    Args:
        feature: (1, C, *spatial).
        structure: Share of each cell, (*spatial); `background` likewise.
    """
    energy = feature[0].double().square().mean(dim=0).cpu()
    means = []
    for share in (structure, background):
        if not float(share.sum()) > 0:
            return None
        means.append(float((energy * share).sum() / share.sum()))
    inner, outer = means
    return outer / inner if inner > 0 and outer > 0 else None


def gate_numbers(skips: Sequence[Skip], inside: Tensor, counted: Tensor) -> list[dict[str, Any]]:
    """A row a gated skip: `level`, `before` and `after` (`background_ratio` of the encoder feature
    without and with its gate), `open_structure` and `open_background` (mean gate there). Skips of
    an image without structure or without background are left out.
    """
    rows = []
    for skip in skips:
        if skip.gate is None:
            continue
        regions = region_shares(inside, counted, skip.shallow.shape[2:])
        before = background_ratio(skip.shallow, *regions)
        after = background_ratio(skip.gate * skip.shallow, *regions)
        if before is None or after is None:
            continue
        gate = skip.gate[0].double().mean(dim=0).cpu()
        opened = [float((gate * share).sum() / share.sum()) for share in regions]
        rows.append(
            {"level": skip.level, "before": before, "after": after}
            | {"open_structure": opened[0], "open_background": opened[1]}
        )
    return rows


def summarise_gates(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means over images with 95 % bootstrap intervals over groups.

    A row a skip and, where there are several, one of all skips together (level None: the geometric
    mean over its skips of each image).
    `change` is after / before: below 1 the gate takes more from the background than from the
    structure. `suppressed` counts the images in which it does.

    Args:
        rows: Of `gate_numbers`, with `case` and `group`.
    """
    levels = sorted({row["level"] for row in rows})
    found = [_summary(level, [row for row in rows if row["level"] == level]) for level in levels]
    if len(levels) > 1:
        by_case: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_case.setdefault(row["case"], []).append(row)
        whole = [own for own in by_case.values() if len(own) == len(levels)]
        joined = [
            {"group": own[0]["group"]}
            | {name: _geometric([row[name] for row in own]) for name in ("before", "after")}
            | {
                name: sum(row[name] for row in own) / len(own)
                for name in ("open_structure", "open_background")
            }
            for own in whole
        ]
        if joined:
            found.append(_summary(None, joined))
    return found


def _summary(level: int | None, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    groups = [row["group"] for row in rows]
    logs = {
        "before": [math.log(row["before"]) for row in rows],
        "after": [math.log(row["after"]) for row in rows],
        "change": [math.log(row["after"] / row["before"]) for row in rows],
    }
    means = {name: mean_of(values, groups) for name, values in logs.items()}
    return {
        "level": level,
        "n": len(rows),
        **{
            name: {key: None if value is None else math.exp(value) for key, value in mean.items()}
            for name, mean in means.items()
        },
        "suppressed": sum(value < 0 for value in logs["change"]),
        "open_structure": mean_of([row["open_structure"] for row in rows], groups),
        "open_background": mean_of([row["open_background"] for row in rows], groups),
    }


def _geometric(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))
