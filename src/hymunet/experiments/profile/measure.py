"""Measures the cells of a profile: counts, memory in a process a cell, then times in turns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch

from hymunet.experiments import passes, timing
from hymunet.experiments.peak_memory import Job, Pass, lack_of_memory, measure_peak
from hymunet.experiments.profile.cells import (
    FAILED,
    MEASURED,
    NOT_RUN,
    OPEN,
    OUT_OF_MEMORY,
    Cell,
    Cells,
    Record,
)
from hymunet.experiments.profile.dry_run import counted, estimated_bytes
from hymunet.experiments.profile.part_clock import PartClock
from hymunet.network.config import HyMUNetConfig
from hymunet.network.hymunet import HyMUNet

# of the memory that is free; a process was seen to need 1.35 times what a dry run says of 1024x1024
_SHARE = 0.7


@dataclass(frozen=True)
class Settings:
    """How cells are measured.

    Args:
        batch: Images of a pass.
        train: A training step instead of a forward pass.
        repeats: Timed rounds.
        limit_s: A cell is not run where a pass would take longer.
        device: Where.
        free: Bytes that a pass may need; None: not known, and nothing is estimated.
    """

    batch: int
    train: bool
    repeats: int
    limit_s: float
    device: torch.device
    free: int | None


def measure(
    records: Sequence[Record],
    settings: Settings,
    cells: Cells,
    done: Callable[[str], None] = lambda text: None,
) -> None:
    """Fills in what is not known yet of `records`, and keeps each after each step.

    Args:
        records: Of one network, the smaller sizes first.
        settings: How.
        cells: Where they are kept.
        done: Called after each step with what it was.

    Raises:
        HyMUNetError: If a network's outputs are wrong, so that nothing of it should be timed.
    """
    previous: dict[tuple[str, int | None], Record] = {}
    for record in records:
        # a size is judged by the one before it, a depth on its own
        line = (record.cell.network, record.cell.depth)
        if record.status == OPEN:
            _look(record, previous.get(line), settings)
            cells.save(record)
        if record.first_pass_s is not None or record.status == OUT_OF_MEMORY:
            previous[line] = record
        done(f"{record.cell.key}: memory")
    _time(records, settings, cells, done)


def steps(records: Sequence[Record], settings: Settings) -> int:
    """How often `measure` calls `done` at most."""
    return len(records) * (1 + settings.repeats)


def _look(record: Record, smaller: Record | None, settings: Settings) -> None:
    """Counts, estimates, and measures the memory of one pass where it fits."""
    config = HyMUNetConfig(**record.cell.config)
    if not record.parts:
        record.parts = [vars(part) for part in counted(config, record.cell.side).parts]
    if record.first_pass_s is not None:
        return
    if smaller is not None and smaller.status == OUT_OF_MEMORY:
        record.status = NOT_RUN
        record.reason = f"there was no memory for {smaller.cell.side} already"
        return
    expected_s = _expected_seconds(record, smaller)
    if expected_s is not None and expected_s > settings.limit_s:
        record.status = NOT_RUN
        record.reason = (
            f"a pass would take about {expected_s:.0f} s, and --limit is {settings.limit_s:g} s"
        )
        return
    if settings.free is not None:
        record.estimated_bytes = estimated_bytes(
            config, record.cell.side, settings.batch, settings.train, str(settings.device)
        )
        if record.estimated_bytes > _SHARE * settings.free:
            record.status = NOT_RUN
            record.reason = (
                f"would need {record.estimated_bytes / 2**30:.3g} GiB, "
                f"{settings.free / 2**30:.3g} GiB are free"
            )
            return
    answer = measure_peak(_job(record.cell, settings))
    if answer.failed is not None:
        record.status, record.reason = FAILED, answer.failed
    elif answer.out_of_memory is not None:
        record.status, record.reason = OUT_OF_MEMORY, answer.out_of_memory
    else:
        record.peak_bytes, record.first_pass_s = answer.bytes, answer.seconds


def _job(cell: Cell, settings: Settings) -> Job:
    """The pass of a cell, after one of a toy network of the same letters."""
    config = HyMUNetConfig(**cell.config)
    stages = len(config.stages)
    toy = cell.config | {"dims": (config.head_channels,) * stages, "depths": (1,) * stages}

    def once(arguments: Mapping[str, Any], batch: int, side: int) -> Pass:
        image = (batch, config.in_channels, *(side,) * config.spatial_dims)
        make = f"{HyMUNet.__module__}:{HyMUNet.__name__}"
        return Pass(make, arguments, image, config.num_classes, settings.train)

    return Job(
        # two images at most: batch norm needs two values, and more would only take longer
        once(toy, min(settings.batch, 2), 2 * config.stride),
        once(cell.config, settings.batch, cell.side),
        torch.get_num_threads(),
        str(settings.device),
    )


def _expected_seconds(record: Record, smaller: Record | None) -> float | None:
    """From the smaller size, in proportion to the arithmetic; None where there is none."""
    if smaller is None or not smaller.work:
        return None
    known = min(smaller.times_s, default=smaller.first_pass_s)
    return None if known is None else known * record.work / smaller.work


def _time(
    records: Sequence[Record], settings: Settings, cells: Cells, done: Callable[[str], None]
) -> None:
    """Rounds in which all cells take turns, the networks of a size one after the other."""
    wait = timing.waiter(settings.device)
    runners: dict[str, _Runner] = {}
    try:
        for round_number in range(settings.repeats):
            for record in _by_size(records):
                if record.status in (OPEN, MEASURED) and len(record.times_s) <= round_number:
                    key = _network_key(record)
                    if key not in runners:
                        runners[key] = _Runner(record, settings, wait)
                    _one_turn(record, runners[key], settings, cells)
                done(f"{record.cell.key}: round {round_number + 1}")
    finally:
        runners.clear()


def _one_turn(record: Record, runner: "_Runner", settings: Settings, cells: Cells) -> None:
    try:
        duration, stages = runner.turn(record.cell.side)
    except (MemoryError, RuntimeError) as error:
        short = lack_of_memory(error)
        if short is None:
            raise
        record.status, record.reason = OUT_OF_MEMORY, short
    else:
        record.times_s.append(duration)
        record.stages_s.append(stages)
        record.status = MEASURED if len(record.times_s) >= settings.repeats else OPEN
    cells.save(record)


def _by_size(records: Sequence[Record]) -> Iterable[Record]:
    """Sorted by size and depth; networks of the same size stay in the order in which they came."""
    ordered = sorted(records, key=lambda r: (r.cell.depth is not None, r.cell.side, r.cell.depth))
    for _, group in groupby(ordered, key=lambda r: (r.cell.side, r.cell.depth)):
        yield from group


def _network_key(record: Record) -> str:
    return f"{record.cell.network} {record.cell.depth}"


class _Runner:
    """A network that is ready to be timed: checked at a small image, kept between its turns."""

    def __init__(self, record: Record, settings: Settings, wait: Callable[[], None]) -> None:
        config = HyMUNetConfig(**record.cell.config)
        torch.manual_seed(0)
        network = HyMUNet.from_config(config)
        image, target = self._picture(config, 2 * config.stride, 2)
        passes.check(record.cell.network, network, image, target)
        self._config, self._settings, self._wait = config, settings, wait
        self._network = network.to(settings.device)
        self._clock = PartClock(self._network, settings.device)
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=1e-4)
        self._warm: set[int] = set()

    def turn(self, side: int) -> tuple[float, dict[str, float]]:
        """The median of a turn, and the seconds by part of one more forward pass."""
        image, target = (
            one.to(self._settings.device)
            for one in self._picture(self._config, side, self._settings.batch)
        )
        call = partial(self._pass, image, target)
        if side not in self._warm:
            call()
            self._warm.add(side)
        duration = timing.turn(call)
        if self._settings.train:
            self._optimizer.zero_grad(set_to_none=True)  # or the clock's pass has less memory
        return duration, self._clock(image)

    def _pass(self, image: torch.Tensor, target: torch.Tensor) -> None:
        if self._settings.train:
            passes.training_step(self._network, self._optimizer, image, target)
        else:
            passes.forward(self._network, image)
        self._wait()

    @staticmethod
    def _picture(config: HyMUNetConfig, side: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (side,) * config.spatial_dims
        return passes.picture(batch, shape, config.in_channels, config.num_classes)
