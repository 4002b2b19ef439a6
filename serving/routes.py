"""HTTP in, HTTP out. What is answered is decided in ``scorer`` and ``deployed``."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from data.errors import ConflictError, MediaTypeError, TooLargeError
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
from serving.answers import OutcomeResult, OutcomesAnswer, PredictAnswer
from serving.deployed import Deployed
from serving.metrics import CONTENT_TYPE, Metrics
from serving.problems import refusal
from serving.schema import LARGEST_BODY, OutcomeItem, read_outcomes, read_predict
from serving.scorer import Receipt, Scorer

logger = logging.getLogger(__name__)
MANY = 8
"""From here on a request is scored in a thread, so that it does not hold up the others."""


@dataclass(frozen=True)
class Runtime:
    """What the routes work on; made when the server starts, not when the module is imported."""

    deployed: Deployed
    engine: Engine
    log: LogWriter
    metrics: Metrics

    @property
    def key(self) -> bytes:
        return self.deployed.key


async def predict(request: Request) -> Response:
    runtime = _runtime(request)
    receipt = Receipt.now()
    scorer = runtime.deployed[request.path_params["model"]]
    body = await _json_body(request)
    answer_key, body_hash = _idempotency(request, runtime.key, scorer.name, body)
    if answer_key and (sent := await asyncio.to_thread(find_answer, runtime.engine, answer_key)):
        return _replayed(sent, body_hash)
    asked = read_predict(body, series=scorer.series)
    if len(asked.instances) > MANY:
        answered = await asyncio.to_thread(scorer.predict, asked, receipt)
    else:
        answered = scorer.predict(asked, receipt)
    if answered.not_additive:
        logger.error("%s %s: an explanation does not add up", scorer.name, scorer.version)
    content = msgspec.json.encode(
        PredictAnswer(scorer.name, scorer.version, answered.predictions, scorer.notice)
    )
    nothing = answered.refused == len(answered.predictions)
    keep = None
    if answer_key and not nothing:
        now = datetime.now(UTC)
        keep = Answer(key_hash=answer_key, body_hash=body_hash, body=content, created_at=now)
    # Refused instances are recorded too: a monitor that never saw them could not tell of them.
    entry = Entry(predictions=answered.records, answer=keep)
    written = await asyncio.wrap_future(runtime.log.submit(entry))
    if isinstance(written, Replay):
        return _replayed(written.answer, body_hash)
    for record in answered.records:
        runtime.metrics.prediction(scorer.name, scorer.version, str(record["status"]))
    if nothing:
        return refusal(answered.predictions)
    return Response(content, media_type="application/json")


async def outcomes(request: Request) -> Response:
    runtime = _runtime(request)
    rows = [_outcome(item, runtime.key) for item in read_outcomes(await _json_body(request))]
    report = await asyncio.to_thread(record_outcomes, runtime.engine, rows, datetime.now(UTC))
    results = [OutcomeResult(status) for status in report.statuses]
    return _json(OutcomesAnswer(**asdict(report.counts), results=results))


async def list_models(request: Request) -> Response:
    scorers = _runtime(request).deployed.scorers.values()
    return _json({"models": [_summary(scorer) for scorer in scorers]})


async def describe(request: Request) -> Response:
    deployed = _runtime(request).deployed
    scorer = deployed[request.path_params["model"]]
    return _json(await asyncio.to_thread(_description, deployed, scorer))


async def describe_api(request: Request) -> Response:
    scorers = _runtime(request).deployed.scorers.values()
    return _json(openapi.document([scorer.artifact for scorer in scorers]))


async def metrics(request: Request) -> Response:
    shown = await asyncio.to_thread(_runtime(request).metrics.show)
    return Response(shown, headers={"content-type": CONTENT_TYPE})


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def _outcome(item: OutcomeItem, key: bytes) -> OutcomeRow:
    return OutcomeRow(
        outcome=item.outcome,
        observed_at=item.observed_at,
        prediction_id=item.prediction_id,
        model=item.model,
        encounter=keyed_hash(key, item.encounter_id, kind="encounter") if item.encounter_id else None,
    )


def _summary(scorer: Scorer) -> dict[str, Any]:
    spec = scorer.artifact.spec
    summary: dict[str, Any] = {
        "model": spec.name,
        "version": scorer.version,
        "title": spec.title,
        "outcome": spec.outcome.label,
        "use": scorer.artifact.manifest.provenance.use,
        "bands": spec.bands,
        "features": spec.features,
    }
    return {**summary, "notice": scorer.notice} if scorer.notice else summary


def _description(deployed: Deployed, scorer: Scorer) -> dict[str, Any]:
    folder = deployed.releases / scorer.name / scorer.version
    spec = scorer.artifact.spec
    return {
        **_summary(scorer),
        "intended_use": spec.intended_use,
        "cautions": spec.cautions,
        "provenance": scorer.artifact.manifest.provenance,
        "evaluation": msgspec.Raw((folder / "evaluation.json").read_bytes()),
        "input_schema": openapi.instance_schema(scorer.artifact),
        "card": (folder / "card.html").read_text(encoding="utf-8"),
    }


async def _json_body(request: Request) -> bytes:
    """The body. Raises MediaTypeError or TooLargeError, the latter before it is all in memory."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise MediaTypeError("the body must be application/json")
    limit = TooLargeError(f"the body is larger than {LARGEST_BODY} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > LARGEST_BODY:
        raise limit
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise limit
    return bytes(body)


def _idempotency(request: Request, key: bytes, model: str, body: bytes) -> tuple[str | None, str]:
    """Keyed hashes of the Idempotency-Key and of the body under it; None and "" where there is none."""
    given = request.headers.get("idempotency-key")
    if not given:
        return None, ""
    body_hash = keyed_hash(key, hashlib.sha256(body).hexdigest(), kind="body")
    return keyed_hash(key, f"{model}\n{given}", kind="idempotency"), body_hash


def _replayed(sent: Answer, body_hash: str) -> Response:
    if sent.body_hash != body_hash:
        raise ConflictError("this Idempotency-Key was used with another body")
    return Response(sent.body, media_type="application/json", headers={"Idempotency-Replayed": "true"})


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
