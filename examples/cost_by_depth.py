"""What depth costs: parameters, multiply-adds, memory and time of convolution, Mamba and attention.

The question. The paper calls its network light and its cost linear in the pixels. Which of that is
due to the kind of block, and which to how many there are? Three networks on one skeleton, all their
encoder stages of one kind (CCC, MMM, AAA), are made deeper in two ways: more blocks a stage, and
more stages (each at half the resolution and twice the channels of the last).

The expectation. Counted on paper: a block of convolutions or Mamba costs as much for every pixel,
attention also in proportion to the square of the pixels; a later stage has four times the
parameters of the one before at a quarter of its tokens. So blocks add cost by equal steps, stages
add parameters but little time, and only attention grows faster than the pixels.

What to look at. The exponent k of cost ~ pixels^k with its interval, once for the arithmetic, which
is exact, and once for the time, which is what waits for you. They need not agree: at small pictures
fixed costs hide what grows (k below 1), and a machine that runs out of cache adds to it. Memory is
counted too: the most that tensors hold at once in a forward pass, weights included.

    python examples/cost_by_depth.py            # under a minute on two CPU cores
    python examples/cost_by_depth.py --full     # larger pictures, more rounds: figures to quote

`hymunet profile` does this for any network and model file, with the peak memory of the process and
the time of each part.
"""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import cyclopts
from rich.console import Console
from rich.table import Table

from hymunet import HyMUNet, HyMUNetConfig
from hymunet.console import counted, run_script, say
from hymunet.errors import HyMUNetError
from hymunet.experiments.passes import forward, picture
from hymunet.experiments.profile import exponents
from hymunet.experiments.profile.dry_run import counted as count
from hymunet.experiments.profile.dry_run import estimated_bytes
from hymunet.experiments.timing import in_turns
from hymunet.files import make_folder, write_text, write_with
from hymunet.machine import machine
from hymunet.network.summary import SCAN_MULTIPLY_ADDS

COSTS = {"multiply_adds": "multiply-adds", "bytes": "memory", "seconds": "time"}
KINDS = {"C": "convolution", "M": "Mamba", "A": "attention"}
SIDES = (64, 96, 128, 192)
BLOCKS, STAGES = (1, 2, 4), (2, 3, 4)  # a stage; a network
MIDDLE = (BLOCKS[1], STAGES[1])  # what stays while something else varies


@dataclass(frozen=True)
class Cell:
    """A network and the side of the picture it is given."""

    kind: str
    blocks: int
    stages: int
    side: int

    def config(self) -> HyMUNetConfig:
        return HyMUNetConfig(
            stages=self.kind * self.stages,
            dims=(16, 32, 64, 128)[: self.stages],
            depths=(self.blocks,) * self.stages,
            head_channels=16,
        )


def cells(sides: tuple[int, ...]) -> list[Cell]:
    """Deeper by blocks and by stages on pictures of the middle size; then one network by size."""
    middle = sides[len(sides) // 2]
    wanted = [Cell(kind, blocks, MIDDLE[1], middle) for kind in KINDS for blocks in BLOCKS]
    wanted += [Cell(kind, MIDDLE[0], stages, middle) for kind in KINDS for stages in STAGES]
    wanted += [Cell(kind, *MIDDLE, side) for kind in KINDS for side in sides]
    return list(dict.fromkeys(wanted))


def arithmetic(cell: Cell) -> dict[str, int]:
    """What needs no clock; the scan's state updates count as 5 multiply-adds each."""
    found = count(cell.config(), cell.side)
    return {
        "parameters": found.parameters,
        "multiply_adds": found.multiply_adds + SCAN_MULTIPLY_ADDS * found.scan_updates,
        "bytes": estimated_bytes(cell.config(), cell.side),
    }


def measure(wanted: list[Cell], rounds: int) -> list[dict[str, Any]]:
    """Counts each cell, then times all of them in turns, so that a machine that slows down slows
    all alike. A row a cell: its fields, its arithmetic, and seconds by round."""
    images = {cell.side: picture(1, (cell.side, cell.side))[0] for cell in wanted}
    calls = {
        cell: partial(forward, HyMUNet.from_config(cell.config()), images[cell.side])
        for cell in wanted
    }
    with counted(Console(stderr=True), "timing", (rounds + 1) * len(wanted)) as advance:
        times = in_turns(calls, rounds, done=advance)
    return [{**asdict(cell), **arithmetic(cell), "seconds": times[cell]} for cell in wanted]


def growth(kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The exponents of pixels of one kind, arithmetic and time, and the verdict on each."""
    chosen = [r for r in rows if (r["kind"], r["blocks"], r["stages"]) == (kind, *MIDDLE)]
    rows = sorted(chosen, key=lambda r: r["side"])
    sides, pixels = [r["side"] for r in rows], [float(r["side"] ** 2) for r in rows]
    answer: dict[str, Any] = {"kind": kind}
    for cost, name in COSTS.items():
        # what is counted is the same in every round
        rounds = [[r[cost]] if cost != "seconds" else r[cost] for r in rows]
        by_round = list(zip(*rounds, strict=True))
        fit = exponents.power_law(pixels, by_round)
        steps = exponents.power_steps(sides, pixels, by_round)
        verdict = exponents.verdict(fit, steps, exact=cost != "seconds")
        range_ = "" if fit.low is None else f" ({fit.low:.2f} to {fit.high:.2f})"
        words = f"{name} ~ pixels^{fit.value:.2f}{range_}: {verdict}"
        last = asdict(steps[-1])
        answer[cost] = {**asdict(fit), "last": last, "verdict": verdict, "words": words}
    return answer


def main(
    *,
    sides: Annotated[tuple[int, ...], cyclopts.Parameter(consume_multiple=True)] = SIDES,
    rounds: cyclopts.types.PositiveInt = 3,
    full: bool = False,
    output: Path = Path("runs/examples"),
) -> dict[str, Any]:
    """Cost of convolution, Mamba and attention by blocks a stage, stages and pixels.

    Args:
        sides: Of the pictures, two or more multiples of 16.
        rounds: In which all networks are timed in turns; six or more give 95 % intervals.
        full: Pictures of 128, 256, 384 and 512 pixels, seven rounds.
        output: Folder for cost_by_depth.json and cost_by_depth.png.
    """
    sides, rounds = ((128, 256, 384, 512), 7) if full else (tuple(sorted(set(sides))), rounds)
    if len(sides) < 2:
        raise HyMUNetError(f"an exponent needs two or more different sides, not {sides}")
    out = make_folder(output)
    rows = measure(cells(sides), rounds)
    result: dict[str, Any] = {
        "settings": {"sides": sides, "rounds": rounds},
        "cells": rows,
        "growth": [growth(kind, rows) for kind in KINDS],
        "machine": machine(),
    }
    console = Console()
    console.print(table(rows))
    for one in result["growth"]:
        for cost in COSTS:
            say(console, f"{KINDS[one['kind']]}: {one[cost]['words']}")
    write_text(out / "cost_by_depth.json", json.dumps(result, indent=2) + "\n")
    write_with(out / "cost_by_depth.png", figure(rows).savefig)
    say(console, f"written: {out}/cost_by_depth.json and .png")
    return result


def table(rows: list[dict[str, Any]]) -> Table:
    """A row a network and picture."""
    headings = ("kind", "blocks", "stages", "side", "parameters", "M mult-adds", "MiB", "ms")
    grid = Table(*headings, title="A forward pass of one picture")
    grid.columns[0].no_wrap = True
    for r in rows:
        grid.add_row(
            KINDS[r["kind"]], str(r["blocks"]), str(r["stages"]), str(r["side"]),
            str(r["parameters"]), f"{r['multiply_adds'] / 1e6:.1f}", f"{r['bytes'] / 2**20:.1f}",
            f"{1e3 * median(r['seconds']):.1f}",
        )  # fmt: skip
    return grid


def figure(rows: list[dict[str, Any]]) -> Any:
    """Time by blocks a stage, time and parameters by stages, time by side; a colour a kind."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 3.2), layout="constrained")
    axes = drawn.subplots(1, 4)
    panels = (("blocks", "ms"), ("stages", "ms"), ("stages", "parameters"), ("side", "ms"))
    fixed = {"blocks": MIDDLE[0], "stages": MIDDLE[1], "side": rows[0]["side"]}
    for axis, (x, y) in zip(axes, panels, strict=True):
        scale = 2 if x == "side" else 1  # by pixels a linear cost is a straight line
        others = {name: value for name, value in fixed.items() if name != x}
        for i, (kind, name) in enumerate(KINDS.items()):
            line = sorted(
                (
                    r[x] ** scale,
                    r["parameters"] if y == "parameters" else 1e3 * median(r["seconds"]),
                )
                for r in rows
                if r["kind"] == kind and all(r[other] == others[other] for other in others)
            )
            axis.plot(*zip(*line, strict=True), "o-", color=f"C{i}", label=name)
        axis.set(title=y, xlabel=f"{x}  ({', '.join(f'{k} {v}' for k, v in others.items())})")
        ticks = sorted({r[x] for r in rows})
        axis.set_xticks(
            [t**scale for t in ticks], [f"{t}²" if scale == 2 else f"{t}" for t in ticks]
        )
    axes[2].set_yscale("log")
    axes[0].legend(frameon=False)
    return drawn


if __name__ == "__main__":
    run_script(main)
