"""What the benchmarks share: timing in turns, JSON, errors without a traceback."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from hymunet.console import say
from hymunet.errors import HyMUNetError
from hymunet.experiments import timing
from hymunet.experiments.timing import Key
from hymunet.files import write_text
from hymunet.machine import versions


def in_turns(
    calls: dict[Key, Callable[[], object]], repeats: int, warm_up: bool = True
) -> dict[Key, list[float]]:
    """`timing.in_turns` with a progress bar."""
    console = Console(stderr=True)  # standard output holds the tables alone
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("timing", total=(repeats + warm_up) * len(calls))
        return timing.in_turns(calls, repeats, warm_up, lambda: progress.advance(task))


def done(wait: Callable[[], None], call: Callable[..., object], *arguments: object) -> None:
    """A call, and until the device has done it."""
    call(*arguments)
    wait()


def outcome(kept: bool) -> str:
    """The word for a target in a table."""
    return "kept" if kept else "missed"


def milliseconds(duration_s: float) -> str:
    """Three digits or a few more, as fast and slow rivals share a column."""
    return f"{1e3 * duration_s:.{1 if duration_s < 0.1 else 0}f} ms"


def check_at_least(least: int, **values: int | None) -> None:
    """Refuses an option's value below `least`; None is an option that was not given.

    Raises:
        HyMUNetError: If a value is too small, naming the option.
    """
    for name, value in values.items():
        if value is not None and value < least:
            option = name.replace("_", "-")
            raise HyMUNetError(f"--{option} must be at least {least}, {value} came")


def gpu_facts() -> dict[str, Any]:
    """The GPU and its compiler.

    Raises:
        HyMUNetError: If there is none.
    """
    if not torch.cuda.is_available():
        raise HyMUNetError("there is no CUDA device here; leave --device out to measure the CPU")
    return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, **versions("triton")}


def introduce(console: Console, facts: dict[str, Any]) -> None:
    """Prints the line that stands above every table."""
    gpu = f"{facts['gpu']}, " if "gpu" in facts else ""
    say(
        console,
        f"{gpu}{facts['processor']}, {facts['threads']} threads of {facts['cores']} cores, "
        f"torch {facts['torch']}",
    )


def write_json(path: Path, name: str, result: dict[str, Any], console: Console) -> None:
    """Writes every single time to `path`, or to `name`.json in it if it is no .json file."""
    if path.suffix != ".json":
        path = path / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result, indent=2) + "\n")
    say(console, f"written: {path}")
