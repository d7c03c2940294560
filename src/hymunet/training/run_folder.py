"""A run is one folder: its settings, split, provenance, curves, checkpoints and best weights.

Running the same command on it again goes on where it stopped; other settings are refused.
"""

import csv
import io
import json
import platform
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, strangers, write_text
from hymunet.machine import processor, versions
from hymunet.training.options import OPEN, TrainOptions
from hymunet.training.run_config import (
    FREE_TO_CHANGE,
    config_text,
    differing,
    read_config,
)

# what may be left open, in order to be settled when a run begins
_OPEN = (*OPEN, "steps_per_epoch")
# between a start and a resume: a budget became epochs when the run began
_FREE_TO_CHANGE = FREE_TO_CHANGE | {"output", "budget"}
METRIC_COLUMNS = (
    "epoch",
    "step",
    "lr",
    "seconds",
    "train_loss",
    "train_cross_entropy",
    "train_dice_loss",
    "train_boundary",
    "val_loss",
    "val_dice",
    "val_iou",
)


class RunFolder:
    """Paths and bookkeeping of one run.

    Args:
        path: The folder; created when missing.

    Raises:
        HyMUNetError: If it cannot be written to, or holds something that is no run.
    """

    def __init__(self, path: Path) -> None:
        self.path = make_folder(path)
        self.config = path / "config.yaml"
        self.split = path / "split.json"
        self.provenance = path / "provenance.json"
        self.metrics = path / "metrics.csv"
        self.last = path / "last.ckpt"
        self.previous = path / "previous.ckpt"
        self.best = path / "best.safetensors"
        self.init = path / "init.safetensors"
        self.plan = path / "plan.json"
        self.data = path / "data.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other trainings off the folder; the system lets go of it when this process ends,
        however it ends. What killed ones left half-written is removed.

        Raises:
            HyMUNetError: If another training holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise HyMUNetError(
                f"another training is writing to the run folder {self.path}; wait for its end, or "
                "choose another --output"
            ) from error
        try:
            for left in self.path.glob(".*.partial*") if self.config.exists() else ():
                left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def holds(self, settings: dict[str, Any]) -> bool:
        """Whether the folder already holds this run; nothing is written.

        Raises:
            HyMUNetError: If the folder holds a run with other settings, naming each that differs,
                files that are no run, or a run whose config.yaml is damaged.
        """
        if not self.config.exists():
            if others := strangers(self.path):
                raise HyMUNetError(
                    f"the output folder {self.path} is not empty and holds no run "
                    f"({', '.join(others[:4])}); choose a new folder"
                )
            return False
        # what is left open is as the plan chose it
        free = _FREE_TO_CHANGE | (set(_OPEN) - settings.keys())
        if differ := differing(read_config(self.config), settings, free, _same):
            raise HyMUNetError(
                f"the run folder {self.path} was made by other settings: {'; '.join(differ)}. "
                "Give the same settings to resume it, or another --output for a new run"
            )
        return True

    def settled(self, options: TrainOptions) -> TrainOptions:
        """The options, with what was left open as it was settled when this run began."""
        found = read_config(self.config)
        there = {name: found[name] for name in _OPEN if found.get(name) is not None}
        missing = {name: there[name] for name in there if getattr(options, name) is None}
        return replace(options, budget=None, **missing)

    def start(self, settings: dict[str, Any]) -> None:
        """Makes the folder this run's, by writing its settings."""
        write_text(self.config, config_text(settings))

    def checkpoint(self) -> tuple[Path | None, list[str]]:
        """The newest whole checkpoint, and what was wrong with newer ones.

        Raises:
            HyMUNetError: If there are checkpoints and none of them is whole.
        """
        problems = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                with zipfile.ZipFile(path) as members:
                    torn = members.testzip()  # mapped into memory, nothing would be checked
                if torn is not None:
                    raise ValueError(f"checksum of {torn}")
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:  # whatever a torn file makes the unpickler say
                problems.append(f"{path.name} cannot be read ({type(error).__name__})")
            else:
                return path, problems
        if problems:
            raise HyMUNetError(
                f"no checkpoint of {self.path} is whole: {'; '.join(problems)}; start a new run in "
                "another folder (best.safetensors there still holds the best weights so far)"
            )
        return None, []

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        """metrics.csv, a row an epoch, whole."""
        text = io.StringIO()
        writer = csv.DictWriter(text, METRIC_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{row[name]:.10g}" for name in METRIC_COLUMNS} for row in rows)
        write_text(self.metrics, text.getvalue())

    def read_provenance(self) -> dict[str, Any]:
        """provenance.json, empty before the run has started."""
        if not self.provenance.exists():
            return {}
        try:
            return dict(json.loads(self.provenance.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise HyMUNetError(
                f"{self.provenance} is damaged ({error}); delete it, and the same command goes on"
            ) from error

    def write_provenance(self, values: dict[str, Any]) -> None:
        """provenance.json, sorted and indented."""
        write_text(self.provenance, json.dumps(values, indent=2, sort_keys=True) + "\n")


def _same(name: str, there: Any, now: Any) -> bool:
    """Whether an entry of config.yaml is what is asked for now."""
    if name == "init" and None not in (there, now) and str(Path(now).resolve()) == there:
        return True  # a run folder that is gone looks like the name of packaged weights
    return bool(there == now)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What ran: versions, processor, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "command": " ".join(sys.argv),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "device": name,
            "threads": torch.get_num_threads(),
        },
        "versions": versions("torch", "monai", "lightning", "pytorch_optimizer", "numpy"),
    }
