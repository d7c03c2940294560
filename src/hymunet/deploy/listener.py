"""The HTTP listener: uvicorn, with patience that ends and a shutdown that finishes its work."""

import asyncio
import signal
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hymunet.deploy.gate import Gate, log

HEAD_SECONDS = 10.0  # for a request's first lines
LINGER_SECONDS = 10.0  # for the rest of a body that is refused already
LAME_DUCK_SECONDS = 0.5  # newcomers are told 503 at least so long


class PatientProtocol(H11Protocol):
    """A connection that may not stay open for nothing: neither while its first lines trickle in,
    nor while it sends on after its answer."""

    _deadline: asyncio.TimerHandle | None = None
    _ends = False  # close once what still comes in has come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._give(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._give(None)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self._ends and self.cycle.response_complete and not self._sends_on():
            self.transport.close()
        begun = self.cycle is not None and not self.cycle.response_complete
        if begun:
            self._give(None)  # the application has its own deadline
        elif self._deadline is None and self.conn.trailing_data[0]:
            self._give(HEAD_SECONDS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._sends_on() and not self.transport.is_closing():
            self._give(LINGER_SECONDS)

    def shutdown(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            # a client that has just been let in: its request is under way, and told 503
            self.loop.call_later(LAME_DUCK_SECONDS, self.transport.close)
        elif self.cycle is not None and self.cycle.response_complete and self._sends_on():
            self._ends = True  # to close now would reset the answer on its way
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        body = (
            b'{"error":{"code":"bad-request","message":"no valid HTTP came; expected HTTP/1.1"},'
            b'"request_id":null}'
        )
        headers = [("content-type", "application/json"), ("connection", "close")]
        headers.append(("content-length", str(len(body))))
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE, h11.SEND_BODY):
                break  # an answer is under way already
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _sends_on(self) -> bool:
        """Whether the rest of a body has yet to come."""
        return self.conn.their_state is h11.SEND_BODY

    def _give(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.close)


class DrainingServer(uvicorn.Server):
    """Told to stop, it answers newcomers 503, finishes what it has accepted, and then closes; told
    a second time, it closes."""

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self.gate = gate
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal; see the class."""
        if self.gate.draining:
            self.force_exit = self.should_exit = True
            return
        self.gate.draining = True
        if sig == signal.SIGINT:
            log.warning("finishing what was accepted; Ctrl-C again to stop at once")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: begins to drain once the signal has come."""
        if self.gate.draining and self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        await asyncio.sleep(LAME_DUCK_SECONDS)
        while self.gate.open_requests:
            await asyncio.sleep(0.02)
        self.should_exit = True


def make_server(gate: Gate, timeout_s: float, **where: Any) -> DrainingServer:
    """A server of the application.

    Args:
        gate: The application.
        timeout_s: Of a request; draining takes no longer than it and a little.
        **where: `host` and `port` of uvicorn's Config, where no sockets are given to `run`.
    """
    config = uvicorn.Config(
        gate,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(timeout_s) + 5,
        h11_max_incomplete_event_size=32 * 1024,
        backlog=128,
        **where,
    )
    return DrainingServer(config, gate)
