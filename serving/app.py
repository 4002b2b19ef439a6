"""The application: which route is answered by what, what is there while it runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router

from serving import problems, routes
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.routes import Runtime

logger = logging.getLogger(__name__)
POLL_SECONDS = 1.0
NOWHERE = "(none)"
"""The route of a request that no route answers."""

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(start: Callable[[], Runtime]) -> Starlette:
    """The application. ``start`` is called in the worker, after the fork."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        runtime = await asyncio.to_thread(start)
        app.state.runtime = runtime
        # A full collection over the framework's heap takes 200 ms, in the middle of some request.
        gc.collect()
        gc.freeze()
        poll = asyncio.create_task(_follow(runtime.deployed))
        try:
            yield
        finally:
            poll.cancel()
            with suppress(asyncio.CancelledError):
                await poll
            await asyncio.to_thread(runtime.log.close)

    answered = [
        _route("GET", "/v1/models", routes.list_models),
        _route("POST", "/v1/outcomes", routes.outcomes),
        _route("POST", "/v1/{model}/predict", routes.predict),
        _route("GET", "/v1/{model}", routes.describe),
        _route("GET", "/openapi.json", routes.describe_api),
        _route("GET", "/metrics", routes.metrics),
    ]
    # BentoML passes on only what some route of ours takes, and answers the rest with plain text:
    # a mount takes everything. BentoML's own /livez and /readyz come before it.
    everything = Mount("/", app=Router(answered, redirect_slashes=False))
    return Starlette(
        routes=[everything], lifespan=lifespan, exception_handlers={HTTPException: _no_route}
    )


def _route(method: str, path: str, endpoint: Endpoint) -> Route:
    """A route whose every error becomes a problem document, and none a traceback with a value."""

    async def guarded(request: Request) -> Response:
        began = time.perf_counter()
        try:
            response = await endpoint(request)
        except Exception as error:  # noqa: BLE001 the last line before the caller
            response = problems.response(error)
        _metrics(request).request(path, response.status_code, time.perf_counter() - began)
        return response

    return Route(path, guarded, methods=[method])


async def _no_route(request: Request, error: Exception) -> Response:
    response = problems.response(error)
    _metrics(request).request(NOWHERE, response.status_code, 0.0)
    return response


def _metrics(request: Request) -> Metrics:
    runtime: Runtime = request.app.state.runtime
    return runtime.metrics


async def _follow(deployed: Deployed) -> None:
    """Pick up promotions without a restart."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            await asyncio.to_thread(deployed.refresh)
        except Exception as error:  # noqa: BLE001 a promotion after this one must still be seen
            logger.error("the releases cannot be read: %s", type(error).__name__)
