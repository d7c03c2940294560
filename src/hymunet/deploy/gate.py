"""What every request passes before a route sees it: a number, the door, headers, one error shape.

A plain ASGI wrapper. Its log has the request's number, route, status and duration; never an
address, a path that a client made up, a file's name, or a message about an image.
"""

import hmac
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from hymunet.deploy.answers import as_json
from hymunet.deploy.problems import RefusedError

if TYPE_CHECKING:
    from hymunet.deploy.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = logging.getLogger("hymunet.serve")

OPEN = ("/", "/health", "/openapi.json")  # without a token; the page's files too
PAGE = "/page/"
ROUTES = (*OPEN, "/v1/segment", "/v1/models", "/metrics")
_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
)


class Gate:
    """The wrapper around the application.

    Args:
        app: The routes.
        metrics: Counts answers.
        token: The bearer token; None: nobody has to show one.
        hosts: Names under which the server may be called; None: any. On 127.0.0.1 this keeps web
            pages from reaching it under a name of theirs that points here (DNS rebinding).
    """

    def __init__(
        self,
        app: Asgi,
        metrics: "Metrics",
        token: str | None = None,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.token = None if token is None else sha256(token.encode()).digest()
        self.hosts = hosts
        self.draining = False
        self.open_requests = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        path = scope["path"]
        route = path if path in ROUTES else PAGE if path.startswith(PAGE) else "other"
        request_id = secrets.token_hex(8)
        # a copy: the server below still has to know that it was HEAD, and sends no body then
        scope = dict(scope, method="GET") if scope["method"] == "HEAD" else dict(scope)
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "begun": begun}
        status = 0
        sent = {name for name, _ in scope["headers"]}
        bodyless = not {b"content-length", b"transfer-encoding"} & sent

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    *self._headers(route, request_id, message.get("headers", []), bodyless),
                ]
            await send(message)

        counted = not self.draining
        self.open_requests += counted
        self.metrics.in_flight.inc()
        try:
            self._check(route, scope["headers"])
            await self.app(scope, receive, send_on)
        except RefusedError as problem:
            await send_problem(problem, request_id, send_on)
            self.metrics.refused(problem.code)
        except Exception as error:  # Starlette has answered by our 500 already, and raises it again
            log.error("%s %s", request_id, where(error))
            if not status:
                await send_problem(internal(), request_id, send_on)
        finally:
            self.open_requests -= counted
            self.metrics.in_flight.dec()
            self.metrics.answered(route, status)
            duration = 1e3 * (time.perf_counter() - begun)
            log.info("%s %s %s %.0f ms", request_id, route, status or "gone", duration)

    def _check(self, route: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Who may come in, now.

        Raises:
            RefusedError: `wrong-host`, `shutting-down` or `no-token`.
        """
        given = dict(headers)
        if self.hosts is not None and host_of(given.get(b"host", b"")) not in self.hosts:
            raise RefusedError(
                "wrong-host",
                f"this server answers to {', '.join(sorted(self.hosts))}; call it by one of these, "
                "or start it with --host",
            )
        if self.draining:
            raise RefusedError(
                "shutting-down", "this server is shutting down; ask another, or later", 5
            )
        if self.token is None or route in OPEN or route == PAGE:
            return
        scheme, _, shown = given.get(b"authorization", b"").partition(b" ")
        # compared in a time that says nothing of how much of it is right
        right = hmac.compare_digest(sha256(shown.strip()).digest(), self.token)
        if scheme.lower() != b"bearer" or not right:
            raise RefusedError(
                "no-token",
                "this server asks for its token; send the header 'Authorization: Bearer TOKEN'",
            )

    def _headers(
        self, route: str, request_id: str, own: list[tuple[bytes, bytes]], bodyless: bool
    ) -> list[tuple[bytes, bytes]]:
        names = {name.lower() for name, _ in own}
        cache = "no-cache" if route in ("/", PAGE) else "no-store"
        ours = (*_HEADERS, ("cache-control", cache), ("x-request-id", request_id))
        added = [(name.encode(), text.encode()) for name, text in ours]
        if self.draining and bodyless:  # a body still under way would reset the answer
            added.append((b"connection", b"close"))
        return [(name, text) for name, text in added if name not in names]


def host_of(header: bytes) -> str:
    """The name in a Host header, without its port."""
    text = header.decode("latin-1").lower().strip()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


def internal() -> RefusedError:
    """The answer to a mistake of ours."""
    return RefusedError(
        "internal", "the server made a mistake; the log has it under this request_id"
    )


def where(error: BaseException) -> str:
    """The kind of an error and the lines it came through. Not its text, which may quote a file."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"


async def send_problem(problem: RefusedError, request_id: str, send: Send) -> None:
    """Answers by a problem, in the one shape that all have."""
    body = as_json(problem.content(request_id))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **problem.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
