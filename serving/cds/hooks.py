"""CDS Hooks 3.0: discovery and the services themselves.

The record is read as of now. What is wrong in it (a unit, a range, two patients) is 422, what is missing
412, each with an OperationOutcome: a card is never shown on numbers that cannot be right.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from data.errors import NotFoundError, PreconditionError
from serving.access.address import base_url
from serving.answering import Used, answer
from serving.answers import Prediction, Refused
from serving.cds.cards import card, indicator
from serving.cds.prefetch import complete
from serving.cds.request import read_hook
from serving.cds.services import discovery, named, prefetch
from serving.fhir import outcome as fhir_outcome
from serving.fhir.inputs import inputs
from serving.fhir.record import gather, record
from serving.fhir.setting import fits, present
from serving.fhir.types import Reference
from serving.routing import Answering, body
from serving.runtime import asking, of
from serving.scorer import Answered, Receipt

PAGE = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "x-content-type-options": "nosniff",
}


async def discover(request: Request) -> Response:
    return _json(discovery(of(request).deployed.scorers))


async def call(request: Request) -> Response:
    runtime, caller = of(request), asking(request)
    receipt = Receipt.now(caller=caller.name)
    model, hook = split(request)
    scorer = runtime.deployed[model]
    spec = scorer.artifact.spec
    asked = read_hook(await body(request, "application/json"), hook)
    wanted = prefetch(scorer)
    sent = await complete(asked, wanted, runtime.guard.fhir_servers)
    with runtime.stages("read", scorer.name, scorer.version):
        gathered = gather(sent, receipt.at)
        about = record(
            gathered,
            subject=Reference(reference=f"Patient/{asked.context.patientId}"),
            encounter=(
                Reference(reference=f"Encounter/{asked.context.encounterId}")
                if asked.context.encounterId
                else None
            ),
            # Who was asked for all diagnoses and sent what there is: the others are not there.
            whole_history="conditions" in wanted and "prefetch.conditions" not in gathered.paged,
        )
        if not fits(scorer.artifact.mart, about) or not present(about):
            return _json({"cards": []})  # not a patient of this model's: no risk is worked out
        found = inputs(scorer.artifact, about, receipt.at, site=caller.placed(about.site))

    def used(prediction: Prediction) -> Used:
        return "silent" if indicator(spec, prediction) is None else "card"

    answered = await answer(runtime, scorer, found.request, receipt, channel="cds-hooks", used=used)
    assert isinstance(answered, Answered)  # without an Idempotency-Key nothing is replayed
    [prediction] = answered.predictions
    if isinstance(prediction, Refused):
        return _refusal(prediction)
    page = f"{base_url(request)}{request.url.path}/model-card"
    shown = card(scorer, prediction, warnings=(*found.warnings, *gathered.unread), page=page)
    return _json({"cards": [] if shown is None else [shown]})


async def model_card(request: Request) -> Response:
    """The model's own card, for whoever follows a card's link: it is about no patient."""
    deployed = of(request).deployed
    scorer = deployed[split(request)[0]]
    path = deployed.releases / scorer.name / scorer.version / "card.html"
    if not await asyncio.to_thread(path.is_file):
        raise NotFoundError("this version has no card")
    page = await asyncio.to_thread(path.read_bytes)
    return Response(page, headers=PAGE, media_type="text/html; charset=utf-8")


def split(request: Request) -> tuple[str, str]:
    """Model and hook of the service that is asked. Raises NotFoundError."""
    parts = named(request.path_params["id"])
    if parts is None:
        raise NotFoundError("no such service")
    return parts


def _refusal(prediction: Refused) -> Response:
    if all(fault.reason == "required" for fault in prediction.errors):
        lacking = PreconditionError.status, "the record lacks what the model needs"
        return fhir_outcome.response(*lacking, prediction.errors)
    return fhir_outcome.refused(prediction)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


ROUTES = (
    Answering(method="GET", path="/cds-services", endpoint=discover, needs=None),
    Answering(
        method="POST",
        path="/cds-services/{id}",
        endpoint=call,
        needs="predict",
        problem=fhir_outcome.problem,
    ),
    Answering(method="GET", path="/cds-services/{id}/model-card", endpoint=model_card, needs=None),
)
