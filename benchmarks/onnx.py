"""Times exported ONNX files in onnxruntime against torch on this machine, once they agree.

    python -m benchmarks.onnx [--sizes 256 512] [--repeats 7] [--images 100]

A decoded picture goes in and probabilities of its size come out, in both: preprocessing, network,
activation. Presets are untrained and work at the picture's size; packaged models at the size they
were trained at. Both take turns in one process with the same number of threads, so that a
machine that slows down slows both, and the ratio is what travels. `hymunet export` has compared
the file with the model on `--images` drawn pictures before; a file that disagrees ends the run.
"""

import statistics
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import common
from hymunet.console import run_script, say
from hymunet.data.phantoms import draw_lesion
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.deploy.export import export
from hymunet.deploy.onnx_export import Exported
from hymunet.inference.predictor import Predictor
from hymunet.machine import machine
from hymunet.network.hymunet import PRESETS
from hymunet.network.model_file import save_model

# times of onnxruntime over torch's at 256 x 256
MOST, AIM = 4.0, 2.0
SIDE = 256


def exported(name: str, side: int, folder: Path, images: int) -> tuple[Predictor, Exported]:
    """A preset at that size, or a packaged model, in torch; and its file, compared with it."""
    model: str | Path = name
    if name in PRESETS:
        torch.manual_seed(0)
        network = PRESETS[name]()
        config = PreprocessConfig(
            image_size=(side, side), resize="squeeze", multiple=network.config.stride
        )
        info = {"preprocess": Preprocess(config).to_dict()}
        model = save_model(folder / f"{name}.safetensors", network, info)
    written = export(model, output=folder / f"{name}-{side}.onnx", images=images)
    return Predictor(model, device="cpu"), written


def main(
    *,
    models: Annotated[list[str] | None, cyclopts.Parameter(consume_multiple=True)] = None,
    sizes: Annotated[list[int] | None, cyclopts.Parameter(consume_multiple=True)] = None,
    repeats: int = 7,
    images: int = 100,
    output: Path | None = None,
) -> None:
    """Times onnxruntime against torch.

    Args:
        models: Presets and packaged models; default: the three presets.
        sizes: Sides of the square picture; default: 256 and 512.
        repeats: Timed rounds.
        images: Drawn pictures on which file and model must agree before.
        output: A .json file, or a folder for onnx.json, with every single time.
    """
    common.check_at_least(1, repeats=repeats, images=images, sizes=min(sizes or [256]))
    names, sides = models or list(PRESETS), sizes or [SIDE, 512]
    console, errors = Console(), Console(stderr=True)
    facts = machine("onnxruntime")
    common.introduce(console, facts)
    calls: dict[tuple[str, int, str], Any] = {}
    agreements = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, side in product(names, sides):
            torch_model, written = exported(name, side, Path(folder), images)
            agreements[f"{name} {side}"] = written.agreement.to_dict()
            onnx_model = Predictor(written.path)
            pixels = torch.from_numpy(draw_lesion(1, (side, side)).image)[None]
            calls[name, side, "torch"] = partial(torch_model.probability, pixels)
            calls[name, side, "onnxruntime"] = partial(onnx_model.probability, pixels)
        times = common.in_turns(calls, repeats)
    table = Table(title=f"Medians of {repeats} rounds, one picture")
    for column in ("model", "picture", "torch", "onnxruntime", "ratio"):
        table.add_column(column, justify="left" if column == "model" else "right")
    ratios: dict[tuple[str, int], float] = {}
    for name in names:
        for side in sides:
            ours, theirs = (times[name, side, which] for which in ("torch", "onnxruntime"))
            # of each round, in which both ran under the same conditions
            ratio = float(np.median([b / a for a, b in zip(ours, theirs, strict=True)]))
            ratios[name, side] = ratio
            medians = [common.milliseconds(statistics.median(one)) for one in (ours, theirs)]
            table.add_row(name, f"{side} x {side}", *medians, f"{ratio:.2f}")
    console.print(table)
    for (name, side), ratio in ratios.items():
        if side == SIDE:
            verdict = common.outcome(ratio <= MOST)
            say(console, f"{name}: at most {MOST:g} times torch's (aim: {AIM:g}): {verdict}")
    if output is not None:
        rows = [
            {"model": name, "side": side, "runtime": which, "seconds": found}
            for (name, side, which), found in times.items()
        ]
        result = {"machine": facts, "agreement": agreements, "times": rows}
        common.write_json(Path(output), "onnx", result, errors)


if __name__ == "__main__":
    run_script(main, "python -m benchmarks.onnx")
