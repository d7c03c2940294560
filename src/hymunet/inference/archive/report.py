"""What `predict --engine ray` returns: counts, since an archive's tables do not fit into memory."""

from dataclasses import dataclass, field
from typing import Any

MOST_NAMED = 20  # failures that are kept by name; the manifest has all of them


@dataclass
class ArchiveReport:
    """What a call did with an archive, together with the calls before it.

    Args:
        total: Images that the inputs mean.
        done: How many of them are segmented, now or before.
        before: How many of these an earlier call had done.
        failed: How many could not be.
        first_failed: The first of them -> reason.
        suspects: How many masks of this call should be looked at.
        summary: What summary.json holds.
    """

    total: int
    done: int = 0
    before: int = 0
    failed: int = 0
    first_failed: dict[str, str] = field(default_factory=dict)
    suspects: int = 0
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 only when every input is segmented."""
        return 0 if self.done == self.total else 1

    def add(self, label: str, outcome: dict[str, Any]) -> None:
        """Counts what became of an image."""
        if outcome["status"] == "done":
            self.done += 1
            self.suspects += outcome["suspect"] is not None
            return
        self.failed += 1
        if len(self.first_failed) < MOST_NAMED:
            self.first_failed[label] = outcome["reason"]
