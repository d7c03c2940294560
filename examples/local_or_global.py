"""One layer of convolution against one of Mamba: which sees fine texture, which sees far?

The question. HyM-UNet's fine stages are convolutions, to see texture; its deep ones Visual Mamba,
to see the whole image. Is that so when each has one layer and as many parameters? A network here
is a pointwise convolution, one block of the package (Visual Mamba, residual convolution, as a third
self-attention) and a pointwise convolution: what a pixel learns of others comes from the block.

The tasks, drawn anew at each step. *texture*: a quilt of patches, each striped along one diagonal
or the other. Mean, variance, every row and column are alike; only the fine structure tells the two
apart, and other patches are no help. *distant mark*: all discs are alike, and whether a disc counts
is told by a bright or a dark mark, farther away than the two 3x3 convolutions of a block reach.

The expectation. On the distant mark convolution must guess, 50 % by construction: that half asks
only whether Mamba learns it. On texture convolution should be at least as good, though Mamba's
block has a depth-wise 3x3 convolution of its own.

What to look at. The differences with their intervals, paired: a seed means the same pictures for
all networks. The right figure shows how far a mark is remembered. Drawn pictures say what one block
learns in so many steps of one recipe; for deep networks on your images there is
`hymunet ablate DATA --factors stages`.

    python examples/local_or_global.py            # under a minute on two CPU cores
    python examples/local_or_global.py --full     # the version whose numbers one would quote
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hymunet.console import counted, run_script, say
from hymunet.files import make_folder, write_text, write_with
from hymunet.machine import machine
from hymunet.metrics import t_interval
from hymunet.network.attention import AttentionBlock
from hymunet.network.conv import ResidualConvBlock
from hymunet.network.encoder import TokenStage
from hymunet.network.mamba import VSSBlock
from hymunet.training.losses import cross_entropy_loss
from hymunet.training.optimiser import make_optimiser

SIDE, PATCH, RADIUS = 24, 8, 3  # of a picture, a patch of texture, a disc; pixels
REACH = 2  # how far a pixel sees through the two 3x3 convolutions of one block
DISTANCES = (8, 11, 14, 17, 34)  # edges of the figure's bins, pixels
BATCH, TEST_PICTURES = 8, 200
Pictures = tuple[Tensor, Tensor, Tensor, np.ndarray]  # image, target, valid: (B, 1, S, S); distance
BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "Mamba": lambda c: TokenStage([VSSBlock(c, 2, d_state=8, expand=2)], c),
    "convolution": lambda c: ResidualConvBlock(c, 2, norm="batch"),
    "attention": lambda c: TokenStage([AttentionBlock(c, 2, head_channels=c)], c),
}


def texture(rng: np.random.Generator, count: int) -> Pictures:
    """Stripes of period 4 under noise, along one diagonal where the target is 1, else the other."""
    y, x = np.mgrid[:SIDE, :SIDE]
    drawn = rng.integers(0, [[[[2]]], [[[4]]]], (2, count, SIDE // PATCH, SIDE // PATCH))
    target, phase = drawn.repeat(PATCH, axis=2).repeat(PATCH, axis=3)
    stripes = np.where((np.where(target, x + y, x - y) + phase) % 4 < 2, 1.0, -1.0)
    image = stripes + rng.standard_normal(stripes.shape)
    return (*_tensors(image, target, np.ones_like(image)), np.zeros(count))


def distant_mark(rng: np.random.Generator, count: int) -> Pictures:
    """A disc under noise and, out of a convolution's reach, a bright (target 1) or dark mark."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = 0.5 * rng.standard_normal((count, SIDE, SIDE))
    target, valid, distance = np.zeros(image.shape), np.zeros(image.shape), np.zeros(count)
    for i in range(count):
        while distance[i] < RADIUS + REACH + 3:  # 2 pixels of mark, 1 of margin
            disc, mark = rng.integers(RADIUS, SIDE - RADIUS, 2), rng.integers(1, SIDE, 2)
            distance[i] = np.hypot(*(disc - mark))
        bright = i % 2  # as many of the one as of the other: guessing is right half the time
        valid[i] = np.hypot(y - disc[0], x - disc[1]) <= RADIUS
        target[i] = bright * valid[i]
        image[i] += 2.0 * valid[i]
        image[i, mark[0] - 1 : mark[0] + 1, mark[1] - 1 : mark[1] + 1] += 4.0 if bright else -4.0
    return (*_tensors(image, target, valid), distance)


def _tensors(*arrays: np.ndarray) -> Any:
    return (torch.from_numpy(array[:, None]).float() for array in arrays)


TASKS = {"texture": texture, "distant mark": distant_mark}


def one_layer(block: str, channels: int) -> nn.Sequential:
    """Image (B, 1, S, S) -> logits of the same shape; only `block` looks beyond a pixel."""
    lift, head = nn.Conv2d(1, channels, 1), nn.Conv2d(channels, 1, 1)
    return nn.Sequential(lift, BLOCKS[block](channels), head)


def parameters(block: str, channels: int) -> int:
    return sum(p.numel() for p in one_layer(block, channels).parameters())


def matched_channels(channels: int) -> dict[str, int]:
    """The width at which each network has as nearly as possible the parameters of Mamba's."""
    aim, widths = parameters("Mamba", channels), range(2, 4 * channels)
    return {b: min(widths, key=lambda c: abs(parameters(b, c) - aim)) for b in BLOCKS}


def trained(task: str, block: str, channels: int, seed: int, steps: int) -> nn.Module:
    """One network after `steps` batches; a seed means the same pictures for every block."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([1, seed])
    network = one_layer(block, channels)
    optimiser, schedule = make_optimiser(network, 1e-2, 0.01, steps, warmup=0.1, name="adamw")
    for _ in range(steps):
        image, target, valid, _ = TASKS[task](rng, BATCH)
        optimiser.zero_grad()
        cross_entropy_loss(network(image), target, "sigmoid", valid).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def accuracy(network: nn.Module, pictures: Pictures) -> np.ndarray:
    """The share of pixels that count and are right, one number a picture."""
    image, target, valid, _ = pictures
    right = ((network(image) > 0) == (target > 0.5)) * valid
    return (right.sum((1, 2, 3)) / valid.sum((1, 2, 3))).double().numpy()


def difference(task: str, first: str, second: str, by_seed: list[float]) -> dict[str, Any]:
    """First minus second, paired over seeds: the interval, and what it says in words."""
    found = t_interval(by_seed)
    words = {1: f"{first} is better", -1: f"{second} is better", 0: "undecided"}[found.sign()]
    points = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f}) points"
    verdict = f"{task}: {words}; {first} - {second} {points}"
    names = {"task": task, "first": first, "second": second}
    return {**names, "by_seed": by_seed, **asdict(found), "verdict": verdict}


def main(
    *,
    seeds: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=2))] = 3,
    steps: cyclopts.types.PositiveInt = 300,
    full: bool = False,
    output: Path = Path("runs/examples"),
) -> dict[str, Any]:
    """One layer of convolution, Mamba or attention on a local and on a global task.

    Args:
        seeds: Trainings of each network on each task; two or more, as intervals need a spread.
        steps: Batches of 8 pictures a training.
        full: 10 seeds of 1500 steps instead.
        output: Folder for local_or_global.json and local_or_global.png.
    """
    seeds, steps = (10, 1500) if full else (seeds, steps)
    out, widths = make_folder(output), matched_channels(16)
    tests = {t: draw(np.random.default_rng([2, 0]), TEST_PICTURES) for t, draw in TASKS.items()}
    scores: dict[str, dict[str, list[np.ndarray]]] = {t: {b: [] for b in BLOCKS} for t in TASKS}
    jobs = list(product(range(seeds), TASKS, BLOCKS))
    with counted(Console(stderr=True), "training", len(jobs)) as advance:
        for seed, task, block in jobs:
            network = trained(task, block, widths[block], seed, steps)
            scores[task][block].append(accuracy(network, tests[task]))
            advance()
    means = {t: {b: [float(s.mean()) for s in scores[t][b]] for b in BLOCKS} for t in TASKS}
    bins = np.digitize(tests["distant mark"][3], DISTANCES) - 1
    far = {b: np.mean(scores["distant mark"][b], axis=0) for b in BLOCKS}
    result: dict[str, Any] = {
        "settings": {"seeds": seeds, "steps": steps, "batch": BATCH, "channels": widths},
        "parameters": {block: parameters(block, width) for block, width in widths.items()},
        "accuracy": {t: {b: asdict(t_interval(means[t][b])) for b in BLOCKS} for t in TASKS},
        "differences": [
            difference(task, a, b, np.subtract(means[task][a], means[task][b]).tolist())
            for task in TASKS
            for a, b in combinations(BLOCKS, 2)
        ],
        "by_distance": {
            b: [float(x[bins == i].mean()) for i in range(len(DISTANCES) - 1)]
            for b, x in far.items()
        },
        "machine": machine(),
    }
    console = Console()
    console.print(table(result))
    for one in result["differences"]:
        say(console, one["verdict"])
    write_text(out / "local_or_global.json", json.dumps(result, indent=2) + "\n")
    write_with(out / "local_or_global.png", figure(result).savefig)
    say(console, f"written: {out}/local_or_global.json and .png")
    return result


def bounded(accuracy: float) -> float:
    """A t-interval knows no bounds, an accuracy has two."""
    return min(max(accuracy, 0.0), 1.0)


def table(result: dict[str, Any]) -> Table:
    """A row a block: parameters, and the accuracy on each task."""
    title = "Pixels that are right, % (95 % interval)"
    grid = Table("one layer of", "parameters", *TASKS, title=title)
    for block, count in result["parameters"].items():
        rows = [result["accuracy"][task][block] for task in TASKS]
        scores = [[100 * bounded(row[key]) for key in ("mean", "low", "high")] for row in rows]
        cells = [f"{mean:.1f} ({low:.1f} to {high:.1f})" for mean, low, high in scores]
        grid.add_row(block, f"{count}", *cells)
    return grid


def figure(result: dict[str, Any]) -> Any:
    """An example of each task, the accuracies, and the accuracy by distance of the mark."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 3.2), layout="constrained")
    axes = drawn.subplots(1, 4, width_ratios=(1, 1, 1.6, 1.6))
    for axis, (task, draw) in zip(axes, TASKS.items(), strict=False):
        axis.imshow(draw(np.random.default_rng(0), 2)[0][1, 0].numpy(), cmap="gray")
        axis.set(title=task, xticks=[], yticks=[])
    bins = [*(f"{a} to {b}" for a, b in pairwise(DISTANCES[:-1])), f"{DISTANCES[-2]} up"]
    for i, block in enumerate(BLOCKS):
        rows = [result["accuracy"][task][block] for task in TASKS]
        x = np.arange(len(TASKS)) + 0.2 * (i - 1)
        ends = [[bounded(row[key]) for row in rows] for key in ("low", "high")]
        axes[2].vlines(x, *ends, color=f"C{i}")
        axes[2].plot(x, [r["mean"] for r in rows], "o", color=f"C{i}", label=block)
        axes[3].plot(bins, result["by_distance"][block], "o-", color=f"C{i}")
    axes[2].set(xticks=range(len(TASKS)), xticklabels=TASKS, title="accuracy", xlim=(-0.5, 1.5))
    axes[2].legend(frameon=False)
    axes[3].set(xlabel="pixels between disc and mark", title="distant mark", ylim=(0.4, 1.03))
    return drawn


if __name__ == "__main__":
    run_script(main)
