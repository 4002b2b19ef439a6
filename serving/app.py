"""The application: which route is answered by what, what is there while it runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router

from serving import problems, routes
from serving.access import cors, smart
from serving.cds import feedback as cds_feedback
from serving.cds import hooks as cds_hooks
from serving.fhir import evaluate as fhir
from serving.fhir import outcome as fhir_outcome
from serving.metrics import pointed
from serving.routing import Answering
from serving.runtime import Runtime, of

logger = logging.getLogger(__name__)
POLL_SECONDS = 1.0
NOWHERE = "(none)"
"""The route of a request that no route answers."""

ROUTES: tuple[Answering, ...] = (
    *routes.ROUTES,
    *smart.ROUTES,
    *cors.ROUTES,
    *fhir.ROUTES,
    *cds_hooks.ROUTES,
    *cds_feedback.ROUTES,
)


def make_app(start: Callable[[], Runtime]) -> Starlette:
    """The application. ``start`` is called in the worker, after the fork."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        runtime = await asyncio.to_thread(start)
        app.state.runtime = runtime
        # A full collection over the framework's heap takes 200 ms, in the middle of some request.
        gc.collect()
        gc.freeze()
        gc.enable()
        polls = [
            asyncio.create_task(followed) for followed in (_follow(runtime), runtime.guard.follow())
        ]
        try:
            yield
        finally:
            for poll in polls:
                poll.cancel()
                with suppress(asyncio.CancelledError):
                    await poll
            await runtime.shadow.drain()
            await asyncio.to_thread(runtime.guard.close)
            await asyncio.to_thread(runtime.log.close)
            await asyncio.to_thread(runtime.stages.close)

    answered = [_route(answering) for answering in ROUTES]
    # BentoML passes on only what some route of ours takes, and answers the rest with plain text:
    # a mount takes everything. BentoML's own /livez and /readyz come before it.
    everything = Mount("/", app=Router(answered, redirect_slashes=False))
    return Starlette(
        routes=[everything], lifespan=lifespan, exception_handlers={HTTPException: _no_route}
    )


def _route(answering: Answering) -> Route:
    """A route whose every error is said in its own way, and none as a traceback with a value."""

    async def guarded(request: Request) -> Response:
        began, runtime = time.perf_counter(), of(request)
        with runtime.stages.request(answering.method, answering.path, request.headers) as call:
            try:
                request.state.caller = await runtime.guard.admit(request, answering.needs)
                response = await answering.endpoint(request)
            except Exception as error:  # noqa: BLE001 the last line before the caller
                runtime.guard.refused(request, answering.path, error)
                response = answering.problem(error)
                response.headers.update(problems.headers(error))
            call.ended(response.status_code)
        cors.grant(request, response, runtime.guard.origins)
        spent = time.perf_counter() - began
        runtime.metrics.request(answering.path, response.status_code, spent)
        return response

    return Route(answering.path, guarded, methods=[answering.method])


async def _no_route(request: Request, error: Exception) -> Response:
    said = fhir_outcome.problem if request.scope["path"].startswith("/fhir") else problems.response
    response = said(error)
    of(request).metrics.request(NOWHERE, response.status_code, 0.0)
    return response


async def _follow(runtime: Runtime) -> None:
    """Pick up promotions without a restart, and keep what the metrics say of the present."""
    deployed = runtime.deployed
    while True:
        served = pointed(deployed.scorers, deployed.challengers)
        champions, silent = deployed.faults, deployed.silent_faults
        faults = [*((m, "champion") for m in champions), *((m, "challenger") for m in silent)]
        runtime.metrics.watch(served, faults)
        await asyncio.sleep(POLL_SECONDS)
        try:
            await asyncio.to_thread(deployed.refresh)
        except Exception as error:  # noqa: BLE001 a promotion after this one must still be seen
            logger.error("the releases cannot be read: %s", type(error).__name__)
