"""Our metrics against independent libraries on drawn pairs of masks: a table of docs/metrics.md.

python -m benchmarks.metric_oracles            print the table
python -m benchmarks.metric_oracles --write    put it into docs/metrics.md
"""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from scipy.ndimage import (
    binary_erosion,
    distance_transform_edt,
    gaussian_filter,
    generate_binary_structure,
)
from sklearn import metrics as sklearn_metrics

from hymunet.console import run_script
from hymunet.files import write_text
from hymunet.metrics import METRICS, case_metrics
from hymunet.metrics.overlap import ISIC_THRESHOLD
from hymunet.metrics.surface import BOUNDARY_RATIO, NSD_TOLERANCE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
COMMAND = "python -m benchmarks.metric_oracles --write"
BEGIN, END = f"<!-- written by {COMMAND} -->", "<!-- end of what it writes -->"
PAIRS, LIMIT = 200, 1e-6
_FLOOR = -12  # exponents below it are rounding, which differs between machines
# NSD's tolerance is the exact length of a step in none of the unequal spacings
GRIDS: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = (
    ((48, 56), (1.0, 1.0)),
    ((40, 64), (0.7, 1.9)),
    ((18, 24, 22), (1.0, 1.0, 1.0)),
    ((12, 28, 24), (3.3, 0.9, 1.1)),
)
KINDS = ("blobs", "thin lines", "several parts")

Values = dict[str, float]


@dataclass(frozen=True)
class Pair:
    """Two masks (*spatial) bool, neither empty, the grid they lie on, and what was drawn."""

    pred: np.ndarray
    target: np.ndarray
    spacing_mm: tuple[float, ...]
    kind: str


def draw_pairs(count: int = PAIRS, seed: int = 0) -> list[Pair]:
    """Pairs in turn of each grid and kind; the prediction is the reference moved and damaged."""
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    while len(pairs) < count:
        shape, spacing_mm = GRIDS[len(pairs) % len(GRIDS)]
        kind = KINDS[len(pairs) // len(GRIDS) % len(KINDS)]
        target = _draw(kind, rng, shape)
        move = rng.integers(-2, 3, len(shape))
        pred = np.roll(target, move, range(len(shape))) & ~_blobs(rng, shape, 2.0, 0.15)
        pred |= _draw(kind, rng, shape) & _blobs(rng, shape, 3.0, 0.1)
        if pred.any() and target.any() and (pred != target).any():
            pairs.append(Pair(pred, target, spacing_mm, kind))
    return pairs


def _draw(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "blobs":  # up to the rim of the frame
        return _blobs(rng, shape, 3.0, rng.uniform(0.1, 0.5))
    mask = np.zeros(shape, bool)
    if kind == "thin lines":
        corners = rng.uniform(0, shape, (4, len(shape)))
        for start, end in pairwise(corners):
            steps = np.linspace(start, end, 4 * max(shape)).astype(int)
            mask[tuple(steps.T)] = True
        return mask
    grid = np.indices(shape)
    for _ in range(rng.integers(2, 7)):
        centre, radii = rng.uniform(0, shape), rng.uniform(1, 5, len(shape))
        away = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True))
        mask |= away <= 1
    return mask


def _blobs(
    rng: np.random.Generator, shape: tuple[int, ...], smooth: float, share: float
) -> np.ndarray:
    noise = gaussian_filter(rng.standard_normal(shape), smooth)
    return noise > np.quantile(noise, 1 - share)


def monai(pair: Pair) -> Values:
    """MONAI's functions on tensors (1, 1, *spatial)."""
    from monai import metrics
    from monai.metrics.utils import get_edge_surface_distance

    masks = [torch.from_numpy(mask)[None, None].float() for mask in (pair.pred, pair.target)]
    confusion = metrics.get_confusion_matrix(*masks)

    def of(name: str) -> float:
        return metrics.compute_confusion_matrix_metric(name, confusion).item()

    found = {
        "dice": metrics.compute_dice(*masks).item(),
        "iou": metrics.compute_iou(*masks).item(),
        "precision": of("precision"),
        "recall": of("sensitivity"),
        "specificity": of("specificity"),
        "accuracy": of("accuracy"),
    }
    options = {"include_background": True, "spacing": pair.spacing_mm}
    with warnings.catch_warnings():  # of MONAI's own calls
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        found["hd"] = metrics.compute_hausdorff_distance(*masks, **options).item()
        _, distances, _ = get_edge_surface_distance(
            *(mask[0, 0] for mask in masks), spacing=pair.spacing_mm, symmetric=True
        )
        # its own percentile is taken in float32, whose rank is off by up to 1e-5 of a distance
        found["hd95"] = max(np.percentile(d.numpy().astype(np.float64), 95) for d in distances)
        average = metrics.compute_average_surface_distance(*masks, **options, symmetric=True)
        found["assd"] = average.item()
        found["nsd"] = metrics.compute_surface_dice(*masks, [NSD_TOLERANCE], **options).item()
    return found


def scikit_learn(pair: Pair) -> Values:
    """scikit-learn's scores of the pixels in a row."""
    truth, guess = pair.target.ravel(), pair.pred.ravel()
    jaccard = float(sklearn_metrics.jaccard_score(truth, guess))
    return {
        "dice": float(sklearn_metrics.f1_score(truth, guess)),
        "iou": jaccard,
        "thresholded_iou": jaccard if jaccard >= ISIC_THRESHOLD else 0.0,
        "precision": float(sklearn_metrics.precision_score(truth, guess, zero_division=0)),
        "recall": float(sklearn_metrics.recall_score(truth, guess)),
        "specificity": float(sklearn_metrics.recall_score(truth, guess, pos_label=0)),
        "accuracy": float(sklearn_metrics.accuracy_score(truth, guess)),
    }


def scipy(pair: Pair) -> Values:
    """Erosions and exact distance transforms over the whole frame."""
    masks = (pair.pred, pair.target)
    cross = generate_binary_structure(pair.pred.ndim, 1)
    surfaces = [mask & ~binary_erosion(mask, cross) for mask in masks]
    to_pred, to_target = (
        distance_transform_edt(~surface, sampling=pair.spacing_mm) for surface in surfaces
    )
    bands = [
        mask & ~binary_erosion(mask, np.ones([2 * w + 1 for w in _widths(pair)])) for mask in masks
    ]
    return _of_distances(to_target[surfaces[0]], to_pred[surfaces[1]]) | {
        "boundary_iou": float((bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum())
    }


def simple_itk(pair: Pair) -> Values:
    """SimpleITK's filters on images that know their spacing."""
    images = [_itk(mask, pair.spacing_mm) for mask in (pair.pred, pair.target)]
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    found = {
        "dice": overlap.GetDiceCoefficient(1),
        "iou": overlap.GetJaccardCoefficient(1),
        "precision": 1 - overlap.GetFalseDiscoveryRate(1),
        "recall": 1 - overlap.GetFalseNegativeError(1),
    }
    for name, image in zip(("pred_area", "target_area"), images, strict=True):
        shape = SimpleITK.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        found[name] = shape.GetPhysicalSize(1)
    # of the surfaces: of the masks it would be another distance
    surfaces = [_shell(image, [1] * pair.pred.ndim, SimpleITK.sitkCross) for image in images]
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*surfaces)
    found["hd"] = hausdorff.GetHausdorffDistance()
    bands = [_shell(image, _widths(pair)[::-1], SimpleITK.sitkBox) for image in images]
    overlap.Execute(*bands)
    return found | {"boundary_iou": overlap.GetJaccardCoefficient(1)}


def _itk(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_mm[::-1])  # its axes are (x, y, z)
    return image


def _shell(image: SimpleITK.Image, radius: list[int], kernel: int) -> SimpleITK.Image:
    """A mask without its erosion, the outside of the frame being background."""
    return image - SimpleITK.BinaryErode(image, radius, kernel, 0, 1, False)


def _widths(pair: Pair) -> list[int]:
    """Half-widths of boundary IoU's band along each axis, as docs/metrics.md defines them."""
    lengths = [n * step for n, step in zip(pair.pred.shape, pair.spacing_mm, strict=True)]
    return [max(1, round(BOUNDARY_RATIO * math.hypot(*lengths) / s)) for s in pair.spacing_mm]


def _of_distances(to_target: np.ndarray, to_pred: np.ndarray) -> Values:
    """The metrics of both lists of distances, written anew from docs/metrics.md."""
    to_target, to_pred = to_target.astype(np.float64), to_pred.astype(np.float64)
    both = np.concatenate([to_target, to_pred])
    return {
        "hd": float(both.max()),
        "hd95": float(max(np.percentile(to_target, 95), np.percentile(to_pred, 95))),
        "assd": float(both.mean()),
        "nsd": float((both <= NSD_TOLERANCE).mean()),
    }


ORACLES: dict[str, Callable[[Pair], Values]] = {
    "MONAI": monai,
    "SciPy": scipy,
    "scikit-learn": scikit_learn,
    "SimpleITK": simple_itk,
}


def differences(pairs: list[Pair]) -> dict[tuple[str, str], float]:
    """(metric, oracle) -> the largest relative difference |ours - theirs| / |theirs| over all
    pairs; infinite where only theirs is 0, or one is no number."""
    largest: dict[tuple[str, str], float] = {}
    for pair in pairs:
        ours = case_metrics(pair.pred, pair.target, spacing_mm=pair.spacing_mm)
        for oracle, measure in ORACLES.items():
            for metric, theirs in measure(pair).items():
                found = _relative(ours[metric], theirs)
                largest[metric, oracle] = max(largest.get((metric, oracle), 0.0), found)
    return {key: largest[key] for key in sorted(largest, key=lambda k: list(METRICS).index(k[0]))}


def _relative(ours: float, theirs: float) -> float:
    if ours == theirs:
        return 0.0
    if theirs == 0 or not math.isfinite(ours - theirs):
        return math.inf
    return abs(ours - theirs) / abs(theirs)


def bound(difference: float) -> float:
    """The power of ten, at least 1e-12, that a difference does not exceed."""
    if not math.isfinite(difference):
        return math.inf
    exponent = _FLOOR if difference == 0 else math.ceil(math.log10(difference))
    return float(f"1e{max(_FLOOR, exponent)}")


def table(largest: dict[tuple[str, str], float], pairs: list[Pair]) -> str:
    """The table in Markdown, and the line above it that says what was compared."""
    flat = sum(pair.pred.ndim == 2 for pair in pairs)
    lines = [
        f"{len(pairs)} pairs of masks ({flat} in 2-D, {len(pairs) - flat} in 3-D; half of "
        f"them with unequal spacing; {', '.join(KINDS)}), drawn from a fixed seed:",
        "",
        f"| metric | {' | '.join(ORACLES)} |",
        f"|---|{'---|' * len(ORACLES)}",
    ]
    for metric in dict.fromkeys(metric for metric, _ in largest):
        cells = [
            f"≤ {bound(largest[metric, oracle]):.0e}" if (metric, oracle) in largest else ""
            for oracle in ORACLES
        ]
        lines.append(f"| `{metric}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def read_table(text: str) -> tuple[int, dict[tuple[str, str], float]]:
    """Number of pairs and (metric, oracle) -> bound, as they stand in docs/metrics.md."""
    written = text.split(BEGIN)[1].split(END)[0]
    count = re.search(r"^(\d+) pairs", written, re.MULTILINE)
    rows = [
        [cell.strip(" `≤") for cell in line.strip("|").split("|")]
        for line in written.splitlines()
        if line.startswith("|")
    ]
    (_, *oracles), _, *lines = rows
    found = {
        (metric, oracle): float(cell)
        for metric, *cells in lines
        for oracle, cell in zip(oracles, cells, strict=True)
        if cell
    }
    return int(count[1]) if count else 0, found


def main(*, write: bool = False) -> None:
    """Compare our metrics with MONAI, SciPy, scikit-learn and SimpleITK on 200 pairs of masks.

    Args:
        write: Put the table into docs/metrics.md instead of printing it.
    """
    pairs = draw_pairs()
    text = table(differences(pairs), pairs)
    if not write:
        print(text)
        return
    page = PAGE.read_text("utf-8")
    before, rest = page.split(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    run_script(main, "python -m benchmarks.metric_oracles")
