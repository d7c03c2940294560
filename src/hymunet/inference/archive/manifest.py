"""What is done and what failed, on disk: parts that are added and never changed.

    OUTPUT/manifest/settings.json       what decides the masks: models, threshold, ...
    OUTPUT/manifest/00000001.jsonl      a line an image: done, or failed and why
    OUTPUT/measurements.parquet/00000001.parquet    the measurements of the images of that part

A part of the manifest is written after its masks and its measurements, whole or not at all. So an
image that it calls done has all its files, whenever the process was killed; measurements without
their part of the manifest are those of a call that was killed in between, and removed by the next
one, which segments these images again. Of two lines for an image the later one counts: it had
failed and was tried again.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hymunet.errors import HyMUNetError
from hymunet.inference.archive.storage import Storage
from hymunet.inference.archive.table import as_parquet

FOLDER, TABLES = "manifest", "measurements.parquet"
SETTINGS = f"{FOLDER}/settings.json"
# a part is written when it is so old or so long: what a kill can cost is work of seconds
_SECONDS = 5.0
_PART = re.compile(r"\d{8,}\.jsonl")
_LINES = 5000


class Manifest:
    """The manifest of an output.

    Args:
        storage: The output.
        settings: What decides the masks, as JSON can hold it.
        spatial_dims: Of the model.

    Raises:
        HyMUNetError: If the output has results of other settings, or cannot be used.
    """

    def __init__(self, storage: Storage, settings: dict[str, Any], spatial_dims: int) -> None:
        self._storage = storage
        self._spatial_dims = spatial_dims
        self._lines: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()
        written = storage.read(SETTINGS)
        if written is None:
            storage.write(SETTINGS, (json.dumps(settings, indent=2) + "\n").encode())
        else:
            try:
                before = dict(json.loads(written))
            except (ValueError, TypeError) as error:
                raise HyMUNetError(
                    f"{storage.where(SETTINGS)} was altered ({error}): restore it, or choose "
                    "another --output"
                ) from error
            self._check(before, settings)
        self.lost = 0  # images whose measurements are gone, after `lines`
        self._parts = [name for name in storage.names(FOLDER) if _PART.fullmatch(name)]
        self._next = int(self._parts[-1].split(".")[0]) + 1 if self._parts else 1
        self._tables = set(storage.names(TABLES))
        for name in sorted(self._tables):
            part = name.replace(".parquet", ".jsonl")
            if _PART.fullmatch(part) and part not in self._parts:
                storage.remove(f"{TABLES}/{name}")

    def _check(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        other = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if other:
            listed = "; ".join(f"{n}: {before.get(n)!r:.80}, now {now.get(n)!r:.80}" for n in other)
            raise HyMUNetError(
                f"{self._storage.root} holds results of other settings ({listed}); an archive's "
                "masks must be of one kind: give the same options, or another --output"
            )

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of all parts, the earliest first; one part is in memory at a time. What is done
        but has lost its table of measurements is left out, and counted in `lost`.

        Raises:
            HyMUNetError: If a part cannot be read or was altered.
        """
        for name in self._parts:
            content = self._storage.read(f"{FOLDER}/{name}") or b""
            has_table = name.replace(".jsonl", ".parquet") in self._tables
            for text in content.splitlines():
                line = self._line(name, text)
                if line["status"] == "done" and not has_table:
                    self.lost += 1
                else:
                    yield line

    def _line(self, part: str, text: bytes) -> dict[str, Any]:
        try:
            line = json.loads(text)
            return {name: line[name] for name in ("status", "image", "mask", "stamp")} | line
        except (ValueError, TypeError, KeyError) as error:
            raise HyMUNetError(
                f"{self._storage.where(f'{FOLDER}/{part}')} holds a line that is none of a "
                f"manifest ({text[:60]!r}): it was altered; restore it, or choose another --output"
            ) from error

    def add(self, image: str, mask: str, stamp: str, outcome: dict[str, Any]) -> None:
        """Takes note of what became of an image; written with the next part, in seconds.

        Args:
            image: The input.
            mask: Its mask, below the output.
            stamp: Of the input's files.
            outcome: As `worker.Worker` returns.

        Raises:
            NoRoomError: If the disk is full or read-only.
            HyMUNetError: If the part that is due cannot be written.
        """
        line = {"image": image, "mask": mask, "stamp": stamp}
        if outcome["status"] == "done":
            seconds = round(outcome["seconds"], 4)
            line |= {"status": "done", "suspect": outcome["suspect"], "seconds": seconds}
            rows = outcome["measurements"]
            self._rows += [{"image": image, "mask": mask, **row} for row in rows]
        else:
            line |= {"status": "failed", "reason": outcome["reason"]}
        self._lines.append(line)
        if len(self._lines) >= _LINES or time.monotonic() - self._written >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was noted since the last part.

        Raises:
            NoRoomError: If the disk is full or read-only.
            HyMUNetError: If it cannot be written; the images of it will be segmented again.
        """
        if self._lines:
            name = f"{self._next:08d}"
            if self._rows:
                table = as_parquet(self._rows, self._spatial_dims)
                self._storage.write(f"{TABLES}/{name}.parquet", table)
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines)
            self._storage.write(f"{FOLDER}/{name}.jsonl", text.encode())
            self._next += 1
            self._lines, self._rows = [], []
        self._written = time.monotonic()


@contextmanager
def alone(storage: Storage) -> Iterator[None]:
    """One call at a time works on an output; the system forgets a killed one's claim by itself.

    Object stores know no locks: there it is the user's part.

    Raises:
        HyMUNetError: If another process is at it.
    """
    from filelock import FileLock, Timeout

    if storage.local is None:
        yield
        return
    storage.make(FOLDER)
    try:
        with FileLock(storage.local / FOLDER / ".lock", timeout=0):
            yield
    except Timeout:
        raise HyMUNetError(
            f"another process is segmenting into {storage.root}; wait for it, or choose another "
            "--output"
        ) from None
