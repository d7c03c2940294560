"""What `compare` and `ablate` return; imports nothing heavy, since verbs name it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Args:
        folder: Where everything lies.
        summary: What `table.json` holds: `models` (figures, differences, costs of each),
            `failed`, `open`, `notes`, and how it was made.
        report: The page.
    """

    folder: Path
    summary: dict[str, Any]
    report: Path

    @property
    def exit_code(self) -> int:
        """1 where a model that this call asked for could not be trained or judged."""
        return int(any(one["asked"] for one in self.summary["failed"]))
