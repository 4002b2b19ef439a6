"""The routes: HTTP in, HTTP out. What is answered is decided in ``scorer`` and ``deployed``."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from data.errors import CaremodelsError, ConflictError, ContractError, MediaTypeError, TooLargeError
from data.log.append import (
    Answer,
    Entry,
    LogWriter,
    OutcomeRow,
    Replay,
    find_answer,
    record_outcomes,
)
from data.pseudonym import keyed_hash
from serving import openapi
from serving.deployed import Deployed
from serving.schema import LARGEST_BODY, read_outcomes, read_predict
from serving.scorer import Scorer

logger = logging.getLogger(__name__)
POLL_SECONDS = 1.0
MANY = 8
"""From here on a request is scored in a thread, so that it does not hold up the others."""

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass
class Runtime:
    """What the routes work on; made when the server starts, not when the module is imported."""

    deployed: Deployed
    engine: Engine
    log: LogWriter

    @property
    def key(self) -> bytes:
        return self.deployed.key


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

    routes = [
        Route("/v1/models", _guarded(list_models), methods=["GET"]),
        Route("/v1/outcomes", _guarded(outcomes), methods=["POST"]),
        Route("/v1/{model}/predict", _guarded(predict), methods=["POST"]),
        Route("/v1/{model}", _guarded(describe), methods=["GET"]),
        Route("/openapi.json", _guarded(describe_api), methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_problem})


async def predict(request: Request) -> Response:
    runtime: Runtime = request.app.state.runtime
    scorer = runtime.deployed[request.path_params["model"]]
    body = await _json_body(request)
    answer_key, body_hash = _idempotency(request, runtime.key, scorer.name, body)
    if answer_key and (sent := await asyncio.to_thread(find_answer, runtime.engine, answer_key)):
        return _replayed(sent, body_hash)
    asked = read_predict(body)
    if len(asked.instances) > MANY:
        answered = await asyncio.to_thread(scorer.predict, asked)
    else:
        answered = scorer.predict(asked)
    if answered.not_additive:
        logger.error("%s %s: an explanation does not add up", scorer.name, scorer.version)
    # Refused instances are recorded too: a monitor that never saw them could not tell of them.
    content = _envelope(scorer, answered.predictions)
    keep = None
    if answer_key and answered.refused < len(asked.instances):
        now = datetime.now(UTC)
        keep = Answer(key_hash=answer_key, body_hash=body_hash, body=content, created_at=now)
    written = await asyncio.wrap_future(
        runtime.log.submit(Entry(predictions=answered.records, answer=keep))
    )
    if isinstance(written, Replay):
        return _replayed(written.answer, body_hash)
    if answered.refused == len(asked.instances):
        return _refusal(answered.predictions)
    return Response(content, media_type="application/json")


async def outcomes(request: Request) -> Response:
    runtime: Runtime = request.app.state.runtime
    items = read_outcomes(await _json_body(request))
    rows = [
        OutcomeRow(
            outcome=item.outcome,
            observed_at=item.observed_at,
            prediction_id=item.prediction_id,
            model=item.model,
            encounter=keyed_hash(runtime.key, item.encounter_id, kind="encounter")
            if item.encounter_id
            else None,
        )
        for item in items
    ]
    report = await asyncio.to_thread(record_outcomes, runtime.engine, rows, datetime.now(UTC))
    results = [{"status": status} for status in report.statuses]
    return _json({**asdict(report.counts), "results": results})


async def list_models(request: Request) -> Response:
    runtime: Runtime = request.app.state.runtime
    return _json({"models": [_summary(scorer) for scorer in runtime.deployed.scorers.values()]})


async def describe(request: Request) -> Response:
    runtime: Runtime = request.app.state.runtime
    scorer = runtime.deployed[request.path_params["model"]]
    folder = runtime.deployed.releases / scorer.name / scorer.version
    figures = msgspec.json.decode((folder / "evaluation.json").read_bytes())
    schema = openapi.instance_schema(scorer.artifact)
    return _json(
        {
            **_summary(scorer),
            "intended_use": asdict(scorer.artifact.spec.intended_use),
            "cautions": [asdict(caution) for caution in scorer.artifact.spec.cautions],
            "provenance": asdict(scorer.artifact.manifest.provenance),
            "evaluation": figures,
            "input_schema": schema,
            "card": (folder / "card.html").read_text(encoding="utf-8"),
        }
    )


async def describe_api(request: Request) -> Response:
    runtime: Runtime = request.app.state.runtime
    return _json(openapi.document([s.artifact for s in runtime.deployed.scorers.values()]))


async def _follow(deployed: Deployed) -> None:
    """Pick up promotions without a restart."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            await asyncio.to_thread(deployed.refresh)
        except OSError as error:
            logger.error("the releases cannot be read: %s", type(error).__name__)


def _summary(scorer: Scorer) -> dict[str, Any]:
    spec = scorer.artifact.spec
    summary: dict[str, Any] = {
        "model": spec.name,
        "version": scorer.version,
        "title": asdict(spec.title),
        "outcome": asdict(spec.outcome.label),
        "use": scorer.artifact.manifest.provenance.use,
        "bands": [asdict(band) for band in spec.bands],
        "features": [feature.name for feature in scorer.artifact.features.features],
    }
    return {**summary, "notice": scorer.notice} if scorer.notice else summary


def _envelope(scorer: Scorer, predictions: list[dict[str, Any]]) -> bytes:
    content: dict[str, Any] = {
        "model": scorer.name,
        "version": scorer.version,
        "predictions": predictions,
    }
    if scorer.notice:
        content["notice"] = scorer.notice
    return msgspec.json.encode(content)


async def _json_body(request: Request) -> bytes:
    """The body. Raises MediaTypeError or TooLargeError, the latter before it is all in memory."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise MediaTypeError("the body must be application/json")
    limit = TooLargeError(f"the body is larger than {LARGEST_BODY} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > LARGEST_BODY:
        raise limit
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise limit
    return bytes(body)


def _idempotency(request: Request, key: bytes, model: str, body: bytes) -> tuple[str | None, str]:
    """Keyed hash of the Idempotency-Key, if there is one, and the hash of the body."""
    given = request.headers.get("idempotency-key")
    body_hash = hashlib.sha256(body).hexdigest()
    return (keyed_hash(key, f"{model}\n{given}", kind="idempotency") if given else None), body_hash


def _replayed(sent: Answer, body_hash: str) -> Response:
    if sent.body_hash != body_hash:
        raise ConflictError("this Idempotency-Key was used with another body")
    return Response(sent.body, media_type="application/json", headers={"Idempotency-Replayed": "true"})


def _refusal(predictions: list[dict[str, Any]]) -> Response:
    """422 where no instance could be answered; each fault with the place of its instance."""
    errors = [
        {**fault, "instance": position}
        for position, prediction in enumerate(predictions)
        for fault in prediction["errors"]
    ]
    return _problem(ContractError.status, ContractError.title, "no instance fits the contract", errors)


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Every error becomes a problem document; none becomes a traceback with a value in it."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except CaremodelsError as error:
            return _problem(error.status, error.title, str(error), [asdict(e) for e in error.errors])
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 the last line before the caller
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.error("%s in %s, line %s", type(error).__name__, place.filename, place.lineno)
            return _problem(500, "Internal error", "caremodels failed; nothing was answered", [])

    return guarded


async def _http_problem(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = {404: "no such route", 405: "this route has other methods"}.get(status, "")
    return _problem(status, detail or "error", detail, [])


def _problem(status: int, title: str, detail: str, errors: list[dict[str, Any]]) -> Response:
    """RFC 9457."""
    content = {
        "type": "about:blank", "title": title, "status": status, "detail": detail, "errors": errors,
    }  # fmt: skip
    return Response(msgspec.json.encode(content), status, media_type="application/problem+json")


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
