"""HTTP in, HTTP out. What is answered is decided in ``scorer`` and ``deployed``."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from data.errors import ConflictError
from data.log.append import Answer, Replay, find_answer
from data.log.outcomes import OutcomeReport, record_outcomes
from data.pseudonym import keyed_hash
from serving import openapi
from serving import outcomes as reported
from serving.access.caller import Caller
from serving.answering import answer
from serving.answers import OutcomeResult, OutcomesAnswer, PredictAnswer
from serving.cds.services import HOOKS, service_id
from serving.deployed import Deployed
from serving.metrics import CONTENT_TYPE
from serving.problems import refusal
from serving.reading import NOBODY
from serving.routing import Answering, body
from serving.runtime import asking, of
from serving.schema import PredictRequest, read_outcomes, read_predict
from serving.scorer import Answered, Receipt, Scorer


async def predict(request: Request) -> Response:
    runtime, caller = of(request), asking(request)
    receipt = Receipt.now(caller=caller.name)
    scorer = runtime.deployed[request.path_params["model"]]
    content = await body(request, "application/json")
    with runtime.stages("read", scorer.name, scorer.version):
        asked = read_predict(content, series=scorer.series)
    if caller.sites is not None:
        asked = _placed(asked, caller, 1 if scorer.series else len(asked.instances))
    answer_key, body_hash = _idempotency(request, runtime.key, caller, scorer.name, content)
    if answer_key and (
        sent := await asyncio.to_thread(find_answer, runtime.engine, answer_key, runtime.keyring)
    ):
        return _replayed(sent, body_hash)

    def keep(answered: Answered) -> Answer | None:
        if not answer_key or answered.refused == len(answered.predictions):
            return None
        said, now = _said(scorer, answered), datetime.now(UTC)
        return Answer(key_hash=answer_key, body_hash=body_hash, body=said, created_at=now)

    answered = await answer(runtime, scorer, asked, receipt, keep=keep)
    if isinstance(answered, Replay):
        return _replayed(answered.answer, body_hash)
    if answered.refused == len(answered.predictions):
        return refusal(answered.predictions)
    return Response(_said(scorer, answered), media_type="application/json")


def _placed(asked: PredictRequest, caller: Caller, count: int) -> PredictRequest:
    """The request with its sites, which must be the caller's. Raises ForbiddenError."""
    contexts = asked.context or [NOBODY] * count
    named = [msgspec.structs.replace(one, site=caller.placed(one.site)) for one in contexts]
    return msgspec.structs.replace(asked, context=named)


def _said(scorer: Scorer, answered: Answered) -> bytes:
    return msgspec.json.encode(
        PredictAnswer(scorer.name, scorer.version, answered.predictions, scorer.notice)
    )


async def outcomes(request: Request) -> Response:
    runtime = of(request)
    items = read_outcomes(await body(request, "application/json"))
    sites, now = asking(request).sites, datetime.now(UTC)

    def record() -> OutcomeReport:
        rows = reported.rows(items, runtime.key, runtime.engine, sites=sites)
        return record_outcomes(runtime.engine, rows, now, sites=sites)

    report = await asyncio.to_thread(record)
    results = [OutcomeResult(status) for status in report.statuses]
    return _json(OutcomesAnswer(**asdict(report.counts), results=results))


async def list_models(request: Request) -> Response:
    scorers = of(request).deployed.scorers.values()
    return _json({"models": [_summary(scorer) for scorer in scorers]})


async def describe(request: Request) -> Response:
    deployed = of(request).deployed
    scorer = deployed[request.path_params["model"]]
    return _json(await asyncio.to_thread(_description, deployed, scorer))


async def describe_api(request: Request) -> Response:
    scorers = of(request).deployed.scorers.values()
    return _json(openapi.document([scorer.artifact for scorer in scorers]))


async def metrics(request: Request) -> Response:
    shown = await asyncio.to_thread(of(request).metrics.show)
    return Response(shown, headers={"content-type": CONTENT_TYPE})


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
        "metrics": scorer.metrics,
        "input_schema": openapi.instance_schema(scorer.artifact),
        "card_page": f"/cds-services/{service_id(spec.name, HOOKS[0])}/model-card",
    }
    return {**summary, "notice": scorer.notice} if scorer.notice else summary


def _description(deployed: Deployed, scorer: Scorer) -> dict[str, Any]:
    folder = deployed.releases / scorer.name / scorer.version
    spec = scorer.artifact.spec
    return {
        **_summary(scorer),
        "intended_use": spec.intended_use,
        "cautions": spec.cautions,
        "support": spec.support,
        "lookback_hours": spec.lookback,
        "provenance": scorer.artifact.manifest.provenance,
        "evaluation": _file(folder / "evaluation.json"),
        "card": _file(folder / "card.json"),
    }


def _file(path: Path) -> msgspec.Raw:
    return msgspec.Raw(path.read_bytes() if path.is_file() else b"null")


def _idempotency(
    request: Request, key: bytes, caller: Caller, model: str, body: bytes
) -> tuple[str | None, str]:
    """Keyed hashes of the caller's Idempotency-Key and of the body under it.

    None and "" where there is none. Two callers may happen on the same key: each has its own answers.
    """
    given = request.headers.get("idempotency-key")
    if not given:
        return None, ""
    body_hash = keyed_hash(key, hashlib.sha256(body).hexdigest(), kind="body")
    return keyed_hash(key, f"{caller.name or ''}\n{model}\n{given}", kind="idempotency"), body_hash


def _replayed(sent: Answer, body_hash: str) -> Response:
    if sent.body_hash != body_hash:
        raise ConflictError("this Idempotency-Key was used with another body")
    return Response(sent.body, media_type="application/json", headers={"Idempotency-Replayed": "true"})


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


ROUTES = (
    Answering(method="GET", path="/v1/models", endpoint=list_models, needs="read"),
    Answering(method="POST", path="/v1/outcomes", endpoint=outcomes, needs="outcome"),
    Answering(method="POST", path="/v1/{model}/predict", endpoint=predict, needs="predict"),
    Answering(method="GET", path="/v1/{model}", endpoint=describe, needs="read"),
    Answering(method="GET", path="/openapi.json", endpoint=describe_api, needs=None),
    Answering(method="GET", path="/metrics", endpoint=metrics, needs="read"),
)
