"""`hymunet profile`: what networks cost, and how that grows with the image and with depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    import torch

WORDS = ("CCMM", "CCAA", "CCCC", "MMMM")
_SEVERAL = Parameter(consume_multiple=True)


@dataclass(frozen=True)
class Profile:
    """What `profile` measured.

    Args:
        summary: What profile.json holds; see `hymunet.experiments.profile.summary`.
        notes: What a reader has to know to judge the numbers, cells without a time included.
        report: The HTML page; None where matplotlib and jinja2 are not installed.
    """

    summary: dict[str, Any]
    notes: list[str]
    report: Path | None = None

    @property
    def exit_code(self) -> int:
        """1 when a cell failed; what was not run, or had no memory, is a result."""
        return int(any(row["status"] == "failed" for row in self.summary["cells"]))


def profile(
    *,
    words: Annotated[tuple[str, ...] | None, _SEVERAL] = None,
    model: Annotated[tuple[str, ...], _SEVERAL] = (),
    preset: Literal["tiny", "small", "base"] = "tiny",
    sizes: Annotated[tuple[int, ...] | None, _SEVERAL] = None,
    depths: Annotated[tuple[int, ...] | None, _SEVERAL] = None,
    depth_size: int | None = None,
    batch: int = 1,
    train: bool = False,
    repeats: int = 6,
    limit: float = 10.0,
    threads: int | None = None,
    in_channels: int = 3,
    num_classes: int = 1,
    spatial_dims: Literal[2, 3] = 2,
    quick: bool = False,
    output: Path = Path("runs/profile"),
    device: str | None = None,
    json: bool = False,
) -> Profile:
    """Measures parameters, multiply-adds, time and memory against image size and depth.

    Networks of one skeleton stand side by side: Visual Mamba (CCMM), self-attention (CCAA),
    convolutions (CCCC), Mamba throughout (MMMM), untrained, or model files. Each cell, a network
    at a size, is looked at three times: its arithmetic and memory are counted without computing
    it; its peak memory is measured in a process of its own; then all take turns in one process
    for --repeats rounds, and part by part. Exponents of the pixels, with intervals over rounds,
    say whether it is linear. What does not fit or takes too long is left out in words, and the
    same command on the same folder goes on where it stopped, with more sizes or rounds as well.

    Args:
        words: Stages, a letter each: C convolution, M Visual Mamba, A attention. CCMM, CCAA, CCCC
            and MMMM when neither words nor models are given.
        model: Model files, run folders or names of packaged models; costs do not depend on
            weights, so the network is built anew by what the file says of it.
        preset: Channels and depths of the words' networks.
        sizes: Sides of the image in pixels; 128 to 2048, for volumes 32 to 128.
        depths: Blocks in every encoder stage, for costs against depth; 1, 2 and 4. A single number
            leaves this part out.
        depth_size: Side of the image for that; 256, for volumes 64.
        batch: Images of a pass.
        train: Measure a training step (forward, backward, AdamW on the cross-entropy) instead of a
            forward pass. Parts are timed in the forward pass all the same.
        repeats: Timed rounds; from 6 on intervals are of 95 %, below the range of the rounds.
        limit: A cell is not run where a pass would take longer than this many seconds, judged by
            the size before it.
        threads: Threads that torch uses; its own choice when not given.
        in_channels: Channels of the words' images.
        num_classes: Output channels of the words' networks.
        spatial_dims: 2 for pictures, 3 for volumes; of the words.
        quick: Two words, two small sizes, two rounds, no depth: shows in seconds that all works.
        output: Folder for profile.json, profile.csv, profile.html and the cells.
        device: cpu, cuda or cuda:1; chosen for you when left out.
        json: Print profile.json instead of tables.

    Returns:
        Summary, notes, and where the report lies.

    Raises:
        HyMUNetError: If an option or a word cannot be, or the folder holds figures of another
            machine, version, preset or pass.
    """
    import torch
    from rich.console import Console

    from hymunet.console import counted, say
    from hymunet.errors import HyMUNetError
    from hymunet.evaluation.provenance import command_line
    from hymunet.experiments.profile.cells import Cells
    from hymunet.experiments.profile.measure import Settings, measure, steps
    from hymunet.experiments.profile.plan import check_options, find_networks, lay_out
    from hymunet.experiments.profile.summary import missing, summarise_profile
    from hymunet.inference.predictor import find_device
    from hymunet.training.cost import available_memory

    if quick:
        words = words or (() if model else WORDS[:2])
        sizes, depths, repeats = sizes or (32, 64), depths or (2,), min(repeats, 2)
    if words is None:
        words = () if model else WORDS
    where = find_device(device)
    check_options(
        words, depths, batch=batch, repeats=repeats, threads=threads, depth_size=depth_size
    )
    if not limit > 0:  # NaN is not
        raise HyMUNetError(f"--limit is a number of seconds above 0, not {limit}")
    if threads is not None:
        torch.set_num_threads(threads)
    named = find_networks(words, model, preset, in_channels, num_classes, spatial_dims)
    cells = lay_out(named, sizes, depths, depth_size, train)
    conditions = _conditions(where, batch, train)
    store = Cells(Path(output))
    records = store.load(cells, conditions)
    settings = Settings(batch, train, repeats, limit, where, available_memory(where))
    console = Console(stderr=True)
    with counted(console, f"{len(cells)} cells", steps(records, settings)) as advance:
        measure(records, settings, store, lambda text: advance())

    summary = summarise_profile(records, conditions)
    notes = missing(summary["cells"]) + _notes(conditions, train)
    options = {
        "words": words or None, "model": model or None, "preset": preset, "sizes": sizes,
        "depths": depths, "depth_size": depth_size, "batch": batch, "train": train,
        "repeats": repeats, "limit": limit, "threads": threads, "in_channels": in_channels,
        "num_classes": num_classes, "spatial_dims": spatial_dims, "output": output,
        "device": device,
    }  # fmt: skip
    command = command_line("profile", [], options)
    summary["made"] = _made(command, conditions, words, model, preset)
    report = _write(Path(output), summary, notes)
    result = Profile(summary, notes, report)
    if json:
        from hymunet.evaluation import tables

        print(tables.as_json(summary | {"notes": notes}), end="")
    else:
        from hymunet.experiments.profile.terminal import print_profile

        print_profile(summary, notes)
        say(Console(), f"  written: {report or Path(output) / 'profile.json'}")
    return result


def _conditions(device: "torch.device", batch: int, train: bool) -> dict[str, Any]:
    """What figures depend on; cells of other conditions do not go into one table."""
    import torch

    from hymunet.machine import machine
    from hymunet.scan import backend_name

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return machine("numba") | {
        "device": str(device),
        "device_name": name,
        "scan": backend_name(device.type),
        "batch": batch,
        "pass": "training step" if train else "forward pass",
        "precision": "float32",
    }


def _notes(conditions: Mapping[str, Any], train: bool) -> list[str]:
    """How time and memory were measured, as far as it bears on what they mean."""
    on_gpu = str(conditions["device"]).startswith("cuda")
    notes = [
        "networks took turns, small sizes first; a turn is the median of the calls that fit into "
        "0.3 s, at least one, after a pass that warms up; a time is the median of the rounds",
        "memory is the largest "
        + ("allocated memory on the GPU" if on_gpu else "resident set")
        + " in one pass of a fresh process, above what it held after imports and a toy network: "
        "weights, image, activations and scratch space; one measurement, without an interval",
        "intervals are over rounds of this run on this machine, not over machines: of 95 % from 6 "
        "rounds on, below that the range of the rounds",
    ]
    if train:
        notes.append("parts are timed in a forward pass in evaluation mode, not in the step")
    if conditions["scan"] == "torch":
        notes.append("the scan ran in plain torch, many times slower than compiled")
    return notes


def _made(
    command: str,
    conditions: Mapping[str, Any],
    words: Sequence[str],
    models: Sequence[str],
    preset: str,
) -> list[tuple[str, str]]:
    """Rows for "How this was made"."""
    from datetime import UTC, datetime

    rows = [
        ("command", command),
        ("networks", ", ".join([f"{word} {preset}" for word in words] + list(models))),
        ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]
    return rows + [(name.replace("_", " "), str(value)) for name, value in conditions.items()]


def _write(folder: Path, summary: Mapping[str, Any], notes: list[str]) -> Path | None:
    """profile.json, profile.csv and, where its packages are there, profile.html."""
    from importlib.util import find_spec

    from hymunet.evaluation import tables
    from hymunet.files import write_text

    write_text(folder / "profile.json", tables.as_json({**summary, "notes": notes}))
    write_text(folder / "profile.csv", tables.as_csv(summary["cells"]))
    if find_spec("matplotlib") is None or find_spec("jinja2") is None:
        notes.append('no page was written; it needs: pip install "hymunet[train]"')
        return None
    from hymunet.experiments.profile.page import write_page

    write_page(folder / "profile.html", summary, notes)
    return folder / "profile.html"
