"""What the log forgets: predictions past their retention, their inputs alone, or stored answers.

Each purge leaves a row in the table ``maintenance``: what was asked, by whom and why, and how many
rows went. It is brought up to date with every batch, so that one that was interrupted is told of too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from data.log.schema import (
    answer,
    feedback,
    guarded,
    maintenance,
    outcome,
    prediction,
    refused_call,
    used_token,
    utc,
    writing,
)

ANSWERS_KEPT = timedelta(hours=24)
"""How long an Idempotency-Key is honoured at least: an answer repeats what a caller sent."""
_BATCH = 1_000
"""Rows a transaction: few enough that predictions do not wait long behind them."""

What = Literal["rows", "inputs", "answers"]


@dataclass(frozen=True, kw_only=True)
class Purged:
    """How many rows went. With ``what`` = inputs, ``predictions`` were emptied and stay."""

    what: What
    before: datetime
    model: str | None
    dry_run: bool
    predictions: int = 0
    outcomes: int = 0
    feedback: int = 0
    answers: int = 0
    tokens: int = 0
    refused_calls: int = 0


def purge(
    engine: Engine,
    *,
    before: datetime,
    now: datetime,
    by: str,
    reason: str,
    model: str | None = None,
    what: What = "rows",
    dry_run: bool = False,
) -> Purged:
    """Forget what was received before ``before`` (UTC).

    ``what``: ``rows``, predictions with their outcomes and feedback; ``inputs``, of these only
    inputs and comments, so that performance can still be told; ``answers``, neither. Stored answers
    received before it go in any case (they hold inputs, and belong to no model), and so do tokens
    that have expired, and, unless a ``model`` is named, records of refused calls. Goes by
    ``received_at``, which is the log's own clock, and not by ``at``, which a caller may set.

    Written in batches while a service runs. After an UnavailableError some may be gone, and the same
    call again does the rest. ``dry_run``: count, and change nothing.

    Raises:
        UnavailableError: the log cannot be read or written.
    """
    asked = Purged(what=what, before=utc(before), model=model, dry_run=dry_run)
    if dry_run:
        with guarded("read"), engine.connect() as connection:
            return _counted(connection, asked, utc(now))
    with guarded("written"):
        return _Purge(engine, asked, now=utc(now), by=by, reason=reason).run()


def forget_answers(engine: Engine, *, before: datetime) -> int:
    """Forget stored answers made before ``before``; how many. Raises the database's own errors."""
    gone = 0
    while True:
        with writing(engine) as connection:
            batch = _delete_some(connection, answer, answer.c.created_at < utc(before))
        gone += batch
        if batch < _BATCH:
            return gone


class _Purge:
    """One purge, and the row that tells of it."""

    def __init__(self, engine: Engine, asked: Purged, *, now: datetime, by: str, reason: str) -> None:
        self._engine, self._asked, self._now = engine, asked, now
        self._signed = {"by": by, "reason": reason}
        self._gone: dict[str, int] = {}
        self._record: int | None = None

    def run(self) -> Purged:
        with writing(self._engine) as connection:
            self._told(connection)
        if self._asked.what != "answers":
            self._predictions()
        for name, table, condition in _others(self._asked, self._now):
            more = True
            while more:
                with writing(self._engine) as connection:
                    batch = _delete_some(connection, table, condition)
                    self._told(connection, **{name: batch})
                more = batch == _BATCH
        return Purged(**{**asdict(self._asked), **self._gone})

    def _predictions(self) -> None:
        """Batch by batch in the order of the ids: one walk through the table, whatever stays."""
        last = ""
        while True:
            with writing(self._engine) as connection:
                found = list(connection.scalars(_old(self._asked, after=last).limit(_BATCH)))
                if not found:
                    return
                last = found[-1]
                self._told(connection, **_forget(connection, found, what=self._asked.what))

    def _told(self, connection: Connection, **more: int) -> None:
        """Bring the record up to date, in the transaction that it tells of."""
        for name, rows in more.items():
            self._gone[name] = self._gone.get(name, 0) + rows
        asked = self._asked
        details = {"what": asked.what, "before": f"{asked.before:%Y-%m-%dT%H:%M:%SZ}"}
        text = json.dumps({**details, "model": asked.model, **self._gone})
        if self._record is None:
            row = {"at": self._now, "act": "purge", "details": text, **self._signed}
            added = connection.execute(insert(maintenance).values(row))
            self._record = int((added.inserted_primary_key or (0,))[0])
        elif any(more.values()):
            own = update(maintenance).where(maintenance.c.id == self._record)
            connection.execute(own.values(details=text))


def _old(asked: Purged, *, after: str) -> Select[Any]:
    """Ids of the predictions that are asked for, in order."""
    terms = [prediction.c.received_at < asked.before, prediction.c.prediction_id > after]
    if asked.model is not None:
        terms.append(prediction.c.model == asked.model)
    if asked.what == "inputs":
        commented = (
            select(feedback.c.id)
            .where(feedback.c.prediction_id == prediction.c.prediction_id)
            .where(feedback.c.comment.is_not(None))
            .exists()
        )
        terms.append(or_(prediction.c.inputs.is_not(None), commented))
    return select(prediction.c.prediction_id).where(and_(*terms)).order_by(prediction.c.prediction_id)


def _forget(connection: Connection, names: list[str], *, what: What) -> dict[str, int]:
    of = {table.name: table.c.prediction_id.in_(names) for table in (prediction, outcome, feedback)}
    if what == "inputs":
        connection.execute(update(feedback).where(of["feedback"]).values(comment=None))
        connection.execute(update(prediction).where(of["prediction"]).values(inputs=None))
        return {"predictions": len(names)}
    # A prediction goes last: the others refer to it.
    outcomes = connection.execute(delete(outcome).where(of["outcome"])).rowcount
    said = connection.execute(delete(feedback).where(of["feedback"])).rowcount
    connection.execute(delete(prediction).where(of["prediction"]))
    return {"predictions": len(names), "outcomes": outcomes, "feedback": said}


def _others(asked: Purged, now: datetime) -> list[tuple[str, Table, ColumnElement[bool]]]:
    """What else goes: name of the count, table, condition."""
    others = [("answers", answer, answer.c.created_at < asked.before)]
    if asked.what != "answers":
        others.append(("tokens", used_token, used_token.c.expires_at < now))
    if asked.what == "rows" and asked.model is None:
        others.append(("refused_calls", refused_call, refused_call.c.at < asked.before))
    return others


def _delete_some(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    key = next(iter(table.primary_key))
    some = select(key).where(condition).limit(_BATCH)
    return connection.execute(delete(table).where(key.in_(some))).rowcount


def _counted(connection: Connection, asked: Purged, now: datetime) -> Purged:
    counts: dict[str, int] = {}
    if asked.what != "answers":
        old = _old(asked, after="").order_by(None).subquery()
        counts["predictions"] = _count(connection, select(func.count()).select_from(old))
    if asked.what == "rows":
        for name, table in (("outcomes", outcome), ("feedback", feedback)):
            belongs = table.c.prediction_id == old.c.prediction_id
            joined = select(func.count()).select_from(table.join(old, belongs))
            counts[name] = _count(connection, joined)
    for name, table, condition in _others(asked, now):
        counts[name] = _count(connection, select(func.count()).select_from(table).where(condition))
    return Purged(**{**asdict(asked), **counts})


def _count(connection: Connection, query: Select[Any]) -> int:
    return int(connection.execute(query).scalar_one())
