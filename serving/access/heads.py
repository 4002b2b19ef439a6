"""Bounds on what a client may send around its body, before anybody knows who it is.

Uvicorn bounds neither the size of a request's head nor the time that it takes: one client could fill a
worker's memory with a single header, or hold connections open for ever with a byte now and then. A
proxy in front sets such bounds too, but a service must not depend on one.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST = 64 * 1024
"""Bytes of head, trailers and chunk lengths together; the piece in which they arrive may be larger."""
SECONDS = 15.0
"""For a head to be complete, from its first byte or, of a new connection, from its beginning."""
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large"
TOO_SLOW = b"HTTP/1.1 408 Request Timeout"


class Bounded(HttpToolsProtocol):
    """Uvicorn's protocol, which says 431 or 408 and hangs up where a head is too large or too slow."""

    _timer: asyncio.TimerHandle | None = None
    _around = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as theirs
        super().connection_made(transport)
        self._timer = self.loop.call_later(SECONDS, self._hang_up, TOO_SLOW)

    def data_received(self, data: bytes) -> None:
        self._around += len(data)
        super().data_received(data)
        if self._around > LARGEST:
            self._hang_up(TOO_LARGE)

    def on_message_begin(self) -> None:
        self._around = 0
        if self._timer is None:
            self._timer = self.loop.call_later(SECONDS, self._hang_up, TOO_SLOW)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._around -= len(body)
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self, status: bytes) -> None:
        self._stop()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # not into the middle of an answer
            self.transport.write(status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
        # Over TLS that waits for the other side, which may go on for half a minute.
        self.loop.call_later(1.0, self.transport.abort)


def bound() -> None:
    """Let Uvicorn, started after this by somebody else, use :class:`Bounded`."""
    auto.AutoHTTPProtocol = Bounded
