"""What clinicians did with the cards that they were shown, joined to the exact prediction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, insert, select

from data.errors import UnavailableError, UsageError
from data.log.schema import feedback, guarded, prediction, utc, writing
from data.log.seal import KeyReplacedError, Keyring, Seal, comment_of

FeedbackOutcome = Literal["accepted", "overridden"]
OUTCOMES: tuple[FeedbackOutcome, ...] = ("accepted", "overridden")

FeedbackStatus = Literal["joined", "repeated", "unknown"]
"""What became of one report: new; known already, word for word or not; of no such prediction."""

_CHUNK = 2_000
_TRIES = 2


@dataclass(frozen=True, kw_only=True)
class FeedbackRow:
    """One report on one card, whose uuid is the ``prediction_id``."""

    prediction_id: str
    outcome: FeedbackOutcome
    occurred_at: datetime
    reason_code: str | None = None
    reason_system: str | None = None
    comment: str | None = None  # a clinician's own words
    caller: str | None = None


def record_feedback(
    engine: Engine, rows: Sequence[FeedbackRow], now: datetime, *, keyring: Keyring
) -> tuple[FeedbackStatus, ...]:
    """Join reports to their predictions: a status for each row, in the rows' order.

    A report is known by prediction, outcome and ``occurred_at``: sent twice, it is kept once, as it
    came first. What was said before is kept beside it; the prediction counts as used in the way that
    ``occurred_at`` makes the latest. Comments are sealed. A challenger's silent prediction of the
    same request was shown to nobody, and gets no feedback.

    Written in chunks: after an UnavailableError some may be there, and the same call again does the
    rest.

    Raises:
        UsageError: an outcome that is neither accepted nor overridden. Nothing is written then.
        UnavailableError: the log cannot be written.
    """
    if any(row.outcome not in OUTCOMES for row in rows):
        raise UsageError("feedback: expected accepted or overridden")
    statuses: list[FeedbackStatus] = []
    for first in range(0, len(rows), _CHUNK):
        statuses += _chunk(engine, rows[first : first + _CHUNK], utc(now), keyring)
    return tuple(statuses)


def _chunk(
    engine: Engine, rows: Sequence[FeedbackRow], now: datetime, keyring: Keyring
) -> list[FeedbackStatus]:
    for attempt in range(_TRIES):
        # Where no file lock queues them, two may record the same at once: the second finds it there.
        with suppress(KeyReplacedError):
            try:
                with guarded("written"), writing(engine) as connection, keyring.sealing() as seal:
                    return _record(connection, rows, now, seal)
            except UnavailableError:
                if attempt + 1 == _TRIES:
                    raise
    raise UnavailableError("the prediction log cannot be written")


def _record(
    connection: Connection, rows: Sequence[FeedbackRow], now: datetime, seal: Seal
) -> list[FeedbackStatus]:
    names = {row.prediction_id for row in rows}
    query = select(prediction.c.prediction_id).where(prediction.c.prediction_id.in_(names))
    there = set(connection.scalars(query))
    known = _known(connection, names)
    fresh: list[dict[str, object]] = []
    statuses: list[FeedbackStatus] = []
    for row in rows:
        occurred_at = utc(row.occurred_at)
        report = (row.prediction_id, row.outcome, occurred_at)
        if row.prediction_id not in there:
            statuses.append("unknown")
        elif report in known:
            statuses.append("repeated")
        else:
            known.add(report)
            statuses.append("joined")
            comment = row.comment and seal(row.comment, comment_of(row.prediction_id))
            given = {name: getattr(row, name) for name in ("reason_code", "reason_system", "caller")}
            said = {"prediction_id": row.prediction_id, "outcome": row.outcome, "comment": comment}
            fresh.append({**given, **said, "occurred_at": occurred_at, "recorded_at": now})
    if fresh:
        connection.execute(insert(feedback), fresh)
    return statuses


def _known(connection: Connection, names: set[str]) -> set[tuple[Any, ...]]:
    query = select(feedback.c.prediction_id, feedback.c.outcome, feedback.c.occurred_at)
    return {tuple(row) for row in connection.execute(query.where(feedback.c.prediction_id.in_(names)))}
