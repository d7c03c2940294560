"""Reading a request's body: into memory, never onto a disk, within a size and a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hymunet.deploy.limits import Limits
from hymunet.deploy.problems import AbandonedError, RefusedError

FIELD = b"image"
_MOST_PARTS = 8  # of a form; some clients send fields of their own beside the file
_LEAST_PART = 2**20  # bytes: no body is refused for want of room while this little is held


@dataclass
class Held:
    """Bytes of all bodies that lie in memory, arriving or waiting.

    Args:
        most: Beyond this newcomers are refused.
        count: How many there are now.
    """

    most: int
    count: int = 0


class Body:
    """One request's bytes, counted in `held` while the `with` block lasts."""

    def __init__(self, held: Held, limits: Limits) -> None:
        self._held = held
        self._limits = limits
        self._chunks: list[bytes] = []
        self.size = 0

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.count -= self.size
        self._chunks.clear()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Keeps a chunk.

        Raises:
            RefusedError: `body-too-large`, or `busy` when many bodies together are.
        """
        self.size += len(chunk)
        self._held.count += len(chunk)
        self._chunks.append(chunk)
        if self.size > self._limits.body_bytes:
            raise too_large(self._limits)
        if self._held.count > self._held.most and self.size > _LEAST_PART:
            raise RefusedError(
                "busy", "many large requests at once; come again in 2 s (Retry-After)", 2
            )

    def join(self) -> bytes:
        """All of it; the chunks are let go of."""
        content = b"".join(self._chunks)
        self._chunks.clear()
        return content


def too_large(limits: Limits) -> RefusedError:
    """The refusal of a body over the limit."""
    return RefusedError(
        "body-too-large",
        f"the body is larger than {limits.megabytes:g} MB (10^6 bytes); send a smaller file, or "
        "start the server with a higher --max-megabytes",
    )


def check_length(length: str | None, limits: Limits) -> None:
    """Refuses a request by what its Content-Length announces, before it is read.

    Raises:
        RefusedError: `bad-length` or `body-too-large`.
    """
    if length is None:
        return  # chunked: counted as it comes
    if not (length.isascii() and length.isdigit()):
        raise RefusedError("bad-length", "Content-Length is no whole number; send the body's bytes")
    if int(length[:20]) > limits.body_bytes:
        raise too_large(limits)


async def read(stream: AsyncIterator[bytes], body: Body, deadline: float) -> bytes:
    """The whole body.

    Args:
        stream: Its chunks.
        body: Takes them.
        deadline: By `time.perf_counter`; a client that trickles is given up then.

    Raises:
        RefusedError: `body-timeout`, or what `Body.add` raises.
    """
    try:
        async with asyncio.timeout(max(0.0, deadline - time.perf_counter())):
            async for chunk in stream:
                body.add(chunk)
    except TimeoutError:
        raise RefusedError(
            "body-timeout",
            f"only {body.size} bytes of the body came in time; send it faster, or a smaller file",
        ) from None
    return body.join()


def form_image(content: bytes, content_type: str) -> bytes:
    """The content of the one field `image` of a form; its file name is not even looked at.

    Raises:
        RefusedError: `bad-multipart`, saying what the form lacks or has too much of.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise RefusedError(
            "bad-multipart", "multipart/form-data comes without a boundary of 1 to 70"
        )
    found: list[list[bytes]] = []
    parts = 0
    header = {b"name": b"", b"value": b""}
    is_image = ended = False

    def begin() -> None:
        nonlocal parts, is_image
        parts, is_image = parts + 1, False
        if parts > _MOST_PARTS:
            raise FormParserError("too many parts")

    def name(data: bytes, start: int, end: int) -> None:
        header[b"name"] += data[start:end]

    def value(data: bytes, start: int, end: int) -> None:
        header[b"value"] += data[start:end]

    def header_end() -> None:
        nonlocal is_image
        if header[b"name"].lower() == b"content-disposition":
            is_image = parse_options_header(header[b"value"])[1].get(b"name") == FIELD
        header.update({b"name": b"", b"value": b""})

    def headers_finished() -> None:
        if is_image:
            found.append([])

    def data(data: bytes, start: int, end: int) -> None:
        if is_image:
            found[-1].append(data[start:end])

    def finish() -> None:
        nonlocal ended
        ended = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": name,
            "on_header_value": value,
            "on_header_end": header_end,
            "on_headers_finished": headers_finished,
            "on_part_data": data,
            "on_end": finish,
        },
    )
    try:
        parser.write(content)
        parser.finalize()
    except FormParserError:
        message = f"the form is broken, or has more than {_MOST_PARTS} parts"
        raise RefusedError(
            "bad-multipart", f"{message}; send one field `image` with a file"
        ) from None
    if not ended:
        raise RefusedError(
            "bad-multipart", "the form is cut short; send it whole, with its last line"
        )
    if len(found) != 1:
        raise RefusedError(
            "bad-multipart",
            f"the form has {len(found)} fields called `image`; expected one, with a file",
        )
    return b"".join(found[0])


@contextmanager
def unexpected_end() -> Iterator[None]:
    """A client that goes away while it sends: nobody is there to be answered."""
    from starlette.requests import ClientDisconnect

    try:
        yield
    except ClientDisconnect:
        raise AbandonedError from None
