"""What a request can be refused for: a status, a short code for programs, a sentence for people."""

from dataclasses import dataclass
from typing import Any

STATUS = {
    "bad-request": 400,
    "bad-multipart": 400,
    "bad-length": 400,
    "no-token": 401,
    "wrong-host": 421,
    "not-found": 404,
    "method-not-allowed": 405,
    "body-timeout": 408,
    "body-too-large": 413,
    "too-many-pixels": 413,
    "too-complex": 413,
    "wrong-type": 415,
    "unreadable-image": 422,
    "bad-parameter": 422,
    "too-slow": 422,
    "busy": 429,
    "waited-too-long": 429,
    "internal": 500,
    "shutting-down": 503,
}


@dataclass(eq=False)  # an exception must have a hash
class RefusedError(Exception):
    """A request that is not answered by a mask.

    Args:
        code: One of `STATUS`.
        message: What was expected, what came, what to do. It may name nothing of a patient: it is
            sent, and never logged.
        retry_after_s: When to come again; None: not for this request as it is.
    """

    code: str
    message: str
    retry_after_s: int | None = None

    def __post_init__(self) -> None:
        super().__init__(self.code)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to it."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.code == "no-token":
            headers["WWW-Authenticate"] = 'Bearer realm="hymunet"'
        return headers

    def content(self, request_id: str) -> dict[str, Any]:
        """The body of the answer, for JSON."""
        return {
            "error": {"code": self.code, "message": self.message},
            "request_id": request_id,
        }


class AbandonedError(Exception):
    """Nobody waits for this request any longer: the client has gone, or its time is over."""
