"""The images of an archive and what is still to be done, in a temporary database: however many
they are, little of it is in memory."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from hymunet.data.image_cases import ImageCase
from hymunet.errors import HyMUNetError


@dataclass(frozen=True)
class Entry:
    """An image, in words that can be sent to other machines.

    Args:
        label: What it is called: an absolute path or an address.
        mask: Its mask, below the output; no other image has the same.
        stamp: Sizes and times of its files.
        name: As in `ImageCase`.
        below: As in `ImageCase`.
        files: Absolute paths or addresses.
        real: Its first file, links followed; an image that has come by another name has the same.
        problem: As in `ImageCase`.
        others: What else it becomes, below the output: probabilities, an overlay.
    """

    label: str
    mask: str
    stamp: str
    name: str
    below: str
    files: tuple[str, ...]
    real: str
    problem: str | None = None
    others: tuple[str, ...] = ()

    def case(self, files: Iterable[Path]) -> ImageCase:
        """The image, with `files` for where its files are now."""
        return ImageCase(self.name, tuple(files), Path(self.below), self.problem)


class WorkList:
    """Images, each once, and how often each was tried."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="hymunet-")
        self._database = sqlite3.connect(Path(self._folder.name) / "work.sqlite")
        # nothing of it is needed after a crash: the next call makes it anew
        self._database.executescript(
            "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -16384;"
            "CREATE TABLE work (id INTEGER PRIMARY KEY, mask TEXT UNIQUE, label TEXT, stamp TEXT,"
            " real TEXT UNIQUE, entry TEXT, through INTEGER DEFAULT 0, tries INTEGER DEFAULT 0);"
            "CREATE TABLE others (target TEXT PRIMARY KEY, label TEXT) WITHOUT ROWID"
        )

    def __enter__(self) -> "WorkList":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()
        self._folder.cleanup()

    def add(self, entries: Iterable[Entry]) -> None:
        """Takes images in; one that is there already, by whatever name, is not taken twice.

        Raises:
            HyMUNetError: If two different ones would be written to one file.
        """
        with self._database:
            for entry in entries:
                if self._one("SELECT 1 FROM work WHERE real = ?", entry.real):
                    continue
                for target in (entry.mask, *entry.others):
                    self._check_free(target, entry.label)
                self._database.execute(
                    "INSERT INTO work (mask, label, stamp, real, entry) VALUES (?, ?, ?, ?, ?)",
                    (entry.mask, entry.label, entry.stamp, entry.real, json.dumps(asdict(entry))),
                )
                self._database.executemany(
                    "INSERT INTO others VALUES (?, ?)",
                    ((target, entry.label) for target in entry.others),
                )

    def _check_free(self, target: str, label: str) -> None:
        other = self._one("SELECT label FROM work WHERE mask = ?", target) or self._one(
            "SELECT label FROM others WHERE target = ?", target
        )
        if other is not None:
            raise HyMUNetError(
                f"{other[0]} and {label} would both be written to {target}; give them in two calls "
                "with different --output folders"
            )

    def _one(self, question: str, value: str) -> Any:
        return self._database.execute(question, (value,)).fetchone()

    def take_over(
        self, lines: Iterable[dict[str, Any]], there: Callable[[str], bool]
    ) -> tuple[list[str], int]:
        """Leaves out what a manifest calls done.

        Args:
            lines: Of the manifest.
            there: Whether a mask is where it was written.

        Returns:
            Some of the images that have changed since, which are left out too; and how many are to
            be done again because their masks are gone.

        Raises:
            HyMUNetError: If the manifest's mask is that of another image.
        """
        changed: list[str] = []
        lost = 0
        with self._database:
            for line in lines:
                if line["status"] != "done":
                    continue
                if not there(line["mask"]):
                    lost += 1
                    continue
                found = self._database.execute(
                    "UPDATE work SET through = 1 WHERE mask = ? RETURNING label, stamp",
                    (line["mask"],),
                ).fetchone()
                if found is None:  # no input of this call
                    continue
                if found[0] != line["image"]:
                    raise HyMUNetError(
                        f"{line['mask']} in the output is the mask of {line['image']}, and would "
                        f"be that of {found[0]}; give one archive, under one path, an output of "
                        "its own"
                    )
                if found[1] != line["stamp"] and len(changed) < 20:
                    changed.append(found[0])
        return changed, lost

    def count(self, through: bool) -> int:
        """How many images are through, or not yet."""
        found = self._database.execute(
            "SELECT count(*) FROM work WHERE through = ?", (int(through),)
        )  # fmt: skip
        return int(found.fetchone()[0])

    def waiting(self, tries: int, most: int) -> Iterator[list[tuple[int, str]]]:
        """Images that were tried so often and are not through, as numbers and JSON of an `Entry`,
        at most so many together. Each group counts as tried when it is given out."""
        last = 0
        while True:
            rows = self._database.execute(
                "SELECT id, entry FROM work WHERE id > ? AND through = 0 AND tries = ?"
                " ORDER BY id LIMIT ?",
                (last, tries, most),
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            with self._database:
                self._database.executemany(
                    "UPDATE work SET tries = tries + 1 WHERE id = ?", [(row[0],) for row in rows]
                )
            yield rows

    def finish(self, number: int) -> Entry | None:
        """Marks an image as through; None: it was already."""
        with self._database:
            found = self._database.execute(
                "UPDATE work SET through = 1 WHERE id = ? AND through = 0 RETURNING entry",
                (number,),
            ).fetchone()
        return None if found is None else as_entry(found[0])


def as_entry(text: str) -> Entry:
    """An image from its JSON."""
    fields = json.loads(text)
    return Entry(**{**fields, "files": tuple(fields["files"]), "others": tuple(fields["others"])})
