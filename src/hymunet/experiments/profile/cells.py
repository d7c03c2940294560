"""The cells of a profile: a network at one image size or depth, and what was measured of it.

Each cell is a JSON file of its own, written whole after each step of its measurement, so that a
profile that was stopped goes on there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_text

OPEN, MEASURED, NOT_RUN, OUT_OF_MEMORY, FAILED = (
    "open", "measured", "not run", "out of memory", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A network at one image size.

    Args:
        network: The name under which it is shown.
        config: Fields of its `HyMUNetConfig`.
        side: Of the image, in pixels.
        depth: Blocks of every encoder stage; None: as many as the network has by itself.
    """

    network: str
    config: dict[str, Any]
    side: int
    depth: int | None = None

    @property
    def pixels(self) -> int:
        """Of the image; voxels in 3-D."""
        return int(self.side ** self.config["spatial_dims"])

    @property
    def key(self) -> str:
        """The name of its file."""
        depth = "" if self.depth is None else f"-depth{self.depth}"
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', self.network)}-{self.side}px{depth}"


@dataclass
class Record:
    """What is known of a cell so far.

    Args:
        cell: Which.
        conditions: Machine, versions, threads, device, batch, pass: what figures depend on.
        status: open, measured, not run, out of memory or failed.
        reason: Why it was not run or failed, in words.
        parts: Rows of `PartSummary`, for one image.
        estimated_bytes: By a dry run; None where it was not needed.
        peak_bytes: By measurement, above a warm process without the network; None where the system
            does not tell.
        first_pass_s: Of the pass whose memory was measured; None: not measured yet.
        times_s: Median seconds of each turn.
        stages_s: Seconds by part of a forward pass, one after each turn.
    """

    cell: Cell
    conditions: Mapping[str, Any]
    status: str = OPEN
    reason: str | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    estimated_bytes: int | None = None
    peak_bytes: int | None = None
    first_pass_s: float | None = None
    times_s: list[float] = field(default_factory=list)
    stages_s: list[dict[str, float]] = field(default_factory=list)

    @property
    def multiply_adds(self) -> int:
        """Of convolutions, linear layers and attention, for one image."""
        return sum(part["multiply_adds"] for part in self.parts)

    @property
    def scan_updates(self) -> int:
        """State updates of the scan, for one image."""
        return sum(part["scan_updates"] for part in self.parts)

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(part["parameters"] for part in self.parts)

    @property
    def work(self) -> int:
        """All multiply-adds, the scan's five a state update included."""
        from hymunet.network.summary import SCAN_MULTIPLY_ADDS

        return self.multiply_adds + SCAN_MULTIPLY_ADDS * self.scan_updates


class Cells:
    """The records of a profile in `folder`/cells.

    Args:
        folder: Made when it is not there.

    Raises:
        HyMUNetError: If it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder / "cells")

    def load(self, cells: Sequence[Cell], conditions: Mapping[str, Any]) -> list[Record]:
        """A record a cell, as it was left, or empty. Cells that were not run or failed are open
        again: the reason may be gone. One that ran out of memory is not tried again.

        Raises:
            HyMUNetError: If a record was made under other conditions or of another network, or
                cannot be read.
        """
        return [self._load(cell, conditions) for cell in cells]

    def save(self, record: Record) -> None:
        """Writes the record, whole."""
        write_text(self._path(record.cell), json.dumps(asdict(record), indent=1) + "\n")

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.key}.json"

    def _load(self, cell: Cell, conditions: Mapping[str, Any]) -> Record:
        path = self._path(cell)
        if not path.exists():
            return Record(cell, dict(conditions))
        try:
            kept = json.loads(path.read_text("utf-8"))
            record = Record(**(kept | {"cell": Cell(**kept["cell"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HyMUNetError(
                f"{path} should hold what was measured of {cell.key}, but cannot be read "
                f"({error}); remove it to measure it again"
            ) from error
        # through JSON, where tuples are lists
        wanted = json.loads(json.dumps({**conditions, **cell.config}))
        found = {**record.conditions, **record.cell.config}
        for name in {**wanted, **found}:
            if wanted.get(name) != found.get(name):
                raise HyMUNetError(
                    f"{path} was measured with {name} {found.get(name)}, now it is "
                    f"{wanted.get(name)}, and such figures do not belong into one table; give "
                    "another --output, or remove that folder to start anew"
                )
        record.cell = cell
        if record.status in (NOT_RUN, FAILED):
            record.status, record.reason = OPEN, None
        return record
