"""What clinicians did with their cards, joined to the exact predictions behind them.

The answer says of each report, in their order, whether it was ``joined``, ``repeated`` (clients send
again what they are unsure of) or ``unknown``. 404 where every card is unknown.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import Engine, select
from starlette.requests import Request
from starlette.responses import Response

from data.errors import ContractError, FieldError, NotFoundError
from data.log.feedback import OUTCOMES, FeedbackRow, record_feedback
from data.log.schema import guarded, prediction
from models import catalog
from serving.cds.hooks import split
from serving.routing import Answering, body
from serving.runtime import asking, of
from serving.schema import read

MOST = 1_000
# PostgreSQL cannot hold a NUL character, and no text of a person's has it.
Short = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
Comment = Annotated[str, Meta(max_length=4000, pattern=r"^[^\x00]*$")]


class Accepted(Struct, frozen=True):
    id: Short


class Coding(Struct, frozen=True):
    code: Short
    system: Short | None = None


class OverrideReason(Struct, frozen=True):
    """Why a card was not followed, by code, in the clinician's words, or both."""

    reason: Coding | None = None
    userComment: Comment | None = None  # noqa: N815 the standard's name


class Report(Struct, frozen=True):
    card: uuid.UUID
    outcome: str
    outcomeTimestamp: Annotated[datetime, Meta(tz=True)]  # noqa: N815 the standard's, as below
    acceptedSuggestions: list[Accepted] | None = None  # noqa: N815
    overrideReason: OverrideReason | None = None  # noqa: N815


class Feedback(Struct, frozen=True):
    feedback: Annotated[list[Report], Meta(min_length=1, max_length=MOST)]


_feedback = msgspec.json.Decoder(Feedback).decode


async def feedback(request: Request) -> Response:
    runtime, caller = of(request), asking(request)
    model, _ = split(request)
    if model not in catalog.names():
        runtime.deployed[model]  # raises where there is none
    now = datetime.now(UTC)
    reports = _read(await body(request, "application/json"), now)
    if caller.sites is not None:
        cards = {str(report.card) for report in reports}
        for site in await asyncio.to_thread(_sites, runtime.engine, cards):
            caller.hold(site)
    rows = [_row(report, caller.name) for report in reports]
    statuses = await asyncio.to_thread(
        lambda: record_feedback(runtime.engine, rows, now, keyring=runtime.keyring)
    )
    if all(status == "unknown" for status in statuses):
        raise NotFoundError("no such card")
    said = [
        {"card": row.prediction_id, "status": status} for row, status in zip(rows, statuses, strict=True)
    ]
    return Response(msgspec.json.encode({"feedback": said}), media_type="application/json")


def _read(content: bytes, now: datetime) -> list[Report]:
    """The reports. Raises ContractError naming each field that cannot be."""
    reports = read(content, _feedback).feedback
    faults = []
    for position, report in enumerate(reports):
        place = f"feedback[{position}]"
        if report.outcome not in OUTCOMES:
            faults.append(FieldError(field=f"{place}.outcome", reason=f"one of {', '.join(OUTCOMES)}"))
        if report.outcome == "accepted" and not report.acceptedSuggestions:
            rule = "required: the suggestions that were accepted"
            faults.append(FieldError(field=f"{place}.acceptedSuggestions", reason=rule))
        if not _possible(report.outcomeTimestamp, now):
            faults.append(FieldError(field=f"{place}.outcomeTimestamp", reason="not a past time"))
    if faults:
        raise ContractError("feedback that cannot be", errors=tuple(faults))
    return reports


def _possible(when: datetime, now: datetime) -> bool:
    try:
        return (when.astimezone(UTC) - now).total_seconds() < 600  # clocks differ
    except OverflowError:
        return False


def _row(report: Report, caller: str | None) -> FeedbackRow:
    why = report.overrideReason or OverrideReason()
    return FeedbackRow(
        prediction_id=str(report.card),
        outcome="accepted" if report.outcome == "accepted" else "overridden",
        occurred_at=report.outcomeTimestamp.astimezone(UTC),
        reason_code=why.reason.code if why.reason else None,
        reason_system=why.reason.system if why.reason else None,
        comment=why.userComment or None,
        caller=caller,
    )


def _sites(engine: Engine, cards: set[str]) -> set[str | None]:
    """Where the patients of these cards were. Raises UnavailableError."""
    query = select(prediction.c.site).where(prediction.c.prediction_id.in_(cards)).distinct()
    with guarded("read"), engine.connect() as connection:
        return set(connection.scalars(query))


ROUTES = (
    Answering(method="POST", path="/cds-services/{id}/feedback", endpoint=feedback, needs="predict"),
)
