"""Where an image's bytes come from: a file, or memory, as a request to a server brings them."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class InMemory:
    """The content of a file that never was one; it stands where a path would.

    Args:
        name: What messages call it. Chosen by us: a name that a client sent may be a patient's.
        content: All of its bytes.
    """

    name: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name


Source = Path | InMemory


def open_source(source: Source) -> BinaryIO:
    """The bytes, from their beginning.

    Raises:
        OSError: If it is a file that cannot be opened.
    """
    return io.BytesIO(source.content) if isinstance(source, InMemory) else open(source, "rb")
