"""A file that is still on its way: the bytes that have come, and of which version they are.

`NAME.part` holds the bytes; `NAME.part.json` beside it says where they are from and names the
version of the remote file by its ETag or its time, so that two versions are never mixed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hymunet.files import write_text


@dataclass(frozen=True)
class Remote:
    """The version of a file that a server gave: enough to know it again.

    Args:
        url: As it was asked for.
        total: Bytes; None when the server does not say.
        etag: The server's name of this version; None when it gives none.
        modified: Its Last-Modified header; None when it gives none.
    """

    url: str
    total: int | None
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """What an If-Range header may hold (RFC 9110, 13.1.5): a weak ETag does not promise the
        same bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


@dataclass(frozen=True)
class Partial:
    """The pair of files; neither need exist.

    Args:
        path: `NAME.part`.
    """

    path: Path

    @property
    def note(self) -> Path:
        """`NAME.part.json`."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    def known(self, url: str) -> Remote | None:
        """The version that the bytes are of; None when they are of another address, when their
        version is not known, or when they are more than it has: they are then of no use."""
        try:
            remote = Remote(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        fits = remote.url == url and remote.validator is not None and self.path.exists()
        return remote if fits and (remote.total is None or self.size <= remote.total) else None

    def begin(self, remote: Remote) -> None:
        """Drops what is there and notes what will come."""
        # in this order a crash in between leaves no bytes under another version's name
        self.path.unlink(missing_ok=True)
        write_text(self.note, json.dumps(asdict(remote), indent=2) + "\n")

    def discard(self) -> None:
        """Removes both files."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
