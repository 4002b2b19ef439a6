"""A route: what it needs, what answers it, and how its errors are said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from data.errors import MediaTypeError, SlowError, TooLargeError
from serving import problems
from serving.access.caller import Scope
from serving.schema import LARGEST_BODY

SLOWEST_BODY = 30.0
"""Seconds for a body to arrive; one that trickles would hold its memory for ever."""
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Answering:
    """``needs``: the scope that a caller must have, None for everybody. ``problem``: an error, said in
    the way of the route's standard.
    """

    method: str
    path: str
    endpoint: Endpoint
    needs: Scope | None
    problem: Callable[[Exception], Response] = problems.response


async def body(request: Request, *kinds: str) -> bytes:
    """The body, which must be of one of ``kinds``.

    Raises MediaTypeError, SlowError or TooLargeError, the latter before it is all in memory.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in kinds:
        raise MediaTypeError(f"the body must be {' or '.join(kinds)}")
    limit = TooLargeError(f"the body is larger than {LARGEST_BODY} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > LARGEST_BODY:
        raise limit
    received = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for chunk in request.stream():
                received += chunk
                if len(received) > LARGEST_BODY:
                    raise limit
    except TimeoutError:
        raise SlowError(f"the body took longer than {SLOWEST_BODY:g} s") from None
    return bytes(received)
