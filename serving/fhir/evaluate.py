"""FHIR in and out: ``RiskAssessment/$evaluate`` and what the server says that it can do.

``at``, the moment as of which the record is read, is the parameter of that name; else when the data's
Bundle says that it was put together; else the end of a visit that is over; else when the newest of the
measurements was true; else now. So the same record has the same answer whenever it is sent, and what is
older than it may be is so beside the rest of the record; ``occurrenceDateTime`` says the moment, and a
note how long ago it was. (A CDS card is for the patient of now: there it is always now.) The site is the
parameter of that name, else what the record tells (see ``serving.fhir.record``), else the one
that the caller is bound to.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Raw, Struct
from starlette.requests import Request
from starlette.responses import Response

from data.errors import FieldError
from serving.access.address import base_url
from serving.answering import answer
from serving.answers import Refused
from serving.fhir import outcome as fhir_outcome
from serving.fhir.answers import risk_assessment
from serving.fhir.capability import EVALUATE, capability, operation
from serving.fhir.inputs import inputs, newest
from serving.fhir.record import Gathered, Record, gather, record, refused, short
from serving.fhir.release import TAKEN, spoken
from serving.fhir.setting import ENDED, fits
from serving.fhir.types import NONE, Reference, moment, there
from serving.fhir.values import SKEW
from serving.routing import Answering, body
from serving.runtime import asking, of
from serving.schema import read
from serving.scorer import Answered, Receipt

ONCE = ("model", "subject", "encounter", "at", "site")


class Parameter(Struct, frozen=True):
    name: str
    valueString: str | None = None  # noqa: N815 the standard's names
    valueCode: str | None = None  # noqa: N815
    valueReference: Reference | None = None  # noqa: N815
    valueDateTime: str | None = None  # noqa: N815
    valueInstant: str | None = None  # noqa: N815
    resource: Raw = NONE

    @property
    def text(self) -> str | None:
        return self.valueString or self.valueCode


class Parameters(Struct, frozen=True):
    resourceType: str  # noqa: N815
    parameter: list[Parameter] = []


_parameters = msgspec.json.Decoder(Parameters).decode


async def evaluate(request: Request) -> Response:
    runtime, caller = of(request), asking(request)
    receipt = Receipt.now(caller=caller.name)
    answered_as = spoken(request)
    given, sent = _asked(await body(request, *TAKEN))
    model = given["model"].text if "model" in given else None
    if model is None:
        raise refused("model", "required, as valueString or valueCode")
    scorer = runtime.deployed[model]
    with runtime.stages("read", scorer.name, scorer.version):
        gathered = gather(sent, receipt.at)
        about = record(
            gathered,
            subject=_reference(given, "subject"),
            encounter=_reference(given, "encounter"),
        )
        if not fits(scorer.artifact.mart, about):
            raise refused("Encounter.class", f"{model} is for {', '.join(scorer.artifact.mart.classes)}")
        at = (
            _as_of(given.get("at"), gathered, about, receipt.at)
            or newest(scorer.artifact, about, receipt.at)
            or receipt.at
        )
        site = short(given["site"].text, "site") if "site" in given else about.site
        asked = inputs(scorer.artifact, about, at, site=caller.placed(site))
    answered = await answer(runtime, scorer, asked.request, receipt, channel="fhir")
    assert isinstance(answered, Answered)  # without an Idempotency-Key nothing is replayed
    [prediction] = answered.predictions
    if isinstance(prediction, Refused):
        return fhir_outcome.refused(prediction)
    assessment = risk_assessment(
        scorer,
        prediction,
        subject=about.subject,
        encounter=about.encounter_reference,
        at=at,
        basis=asked.basis,
        warnings=(*asked.warnings, *gathered.unread, *_past(at, receipt.at)),
    )
    return _said(assessment, answered_as.content_type)


async def metadata(request: Request) -> Response:
    answered_as = spoken(request)
    models = [scorer.artifact.spec for scorer in of(request).deployed.scorers.values()]
    said = capability(base_url(request), answered_as.release, models)
    return _said(said, answered_as.content_type)


async def definition(request: Request) -> Response:
    answered_as = spoken(request)
    return _said(operation(base_url(request)), answered_as.content_type)


def _asked(content: bytes) -> tuple[dict[str, Parameter], list[tuple[str, Raw]]]:
    """The parameters by name, and the resources among them with their places."""
    asked = read(content, _parameters)
    if asked.resourceType != "Parameters":
        raise refused("resourceType", "must be Parameters")
    given: dict[str, Parameter] = {}
    sent = []
    for position, one in enumerate(asked.parameter):
        place = f"Parameters.parameter[{position}]"
        if one.name not in (*ONCE, "data"):
            known = f"no such parameter; there are {', '.join(ONCE)} and data"
            raise refused(f"{place}.name", known)
        if one.name in given:
            raise refused(one.name, "given twice")
        if one.name != "data":
            given[one.name] = one
        if there(one.resource):
            sent.append((f"{place}.resource", one.resource))
        elif one.name == "data":
            raise refused(f"{place}.resource", "required: a Bundle or a resource")
    return given, sent


def _reference(given: dict[str, Parameter], name: str) -> Reference | None:
    """Whom a parameter names. One that holds the resource itself names nobody else."""
    one = given.get(name)
    if one is None or there(one.resource):
        return None
    reference = one.valueReference or Reference(reference=one.text)
    if not reference.reference and reference.identifier is None:
        raise refused(name, "names nobody: a valueReference is wanted")
    return reference


def _as_of(at: Parameter | None, gathered: Gathered, about: Record, now: datetime) -> datetime | None:
    """The moment that the request tells, if it does."""
    if at is not None:
        asked = moment(at.valueDateTime or at.valueInstant or at.text or "", now)
        if asked is None:
            raise refused("at", "not a date and time with an offset")
        if asked > now + SKEW:
            raise refused("at", "in the future")
        return asked
    taken = [when for when in gathered.taken_at if when <= now + SKEW]
    if taken:
        return max(taken)
    visit = about.encounter
    ended = visit.when.end if visit is not None and visit.status in ENDED else None
    over = moment(ended, now) if ended else None
    return over if over is not None and over <= now else None


def _past(at: datetime, now: datetime) -> tuple[FieldError, ...]:
    hours = (now - at).total_seconds() / 3600
    if hours < 1:
        return ()
    return (FieldError(field="at", reason=f"the record is read as of {hours:.0f} h ago"),)


def _said(resource: object, content_type: str) -> Response:
    content = msgspec.json.encode(resource)
    return Response(content, headers={"content-type": content_type})


ROUTES = (
    Answering(
        method="POST",
        path=f"/fhir/RiskAssessment/${EVALUATE}",
        endpoint=evaluate,
        needs="predict",
        problem=fhir_outcome.problem,
    ),
    Answering(
        method="GET",
        path="/fhir/metadata",
        endpoint=metadata,
        needs=None,
        problem=fhir_outcome.problem,
    ),
    Answering(
        method="GET",
        path=f"/fhir/OperationDefinition/RiskAssessment-{EVALUATE}",
        endpoint=definition,
        needs=None,
        problem=fhir_outcome.problem,
    ),
)
