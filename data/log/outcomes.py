"""What happened to a patient, joined to what was predicted; what was known before is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, String, and_, insert, select, type_coerce

from data.errors import UsageError
from data.log.schema import guarded, outcome, prediction, utc, writing

_CHUNK = 2_000
"""Outcomes a transaction: few enough that predictions do not wait long behind them."""

OutcomeStatus = Literal["joined", "revised", "repeated", "superseded", "unknown"]
"""What became of one reported outcome.

joined: the first for its prediction. revised: differs from what was known, which is kept.
repeated: known already. superseded: a copy of a report corrected since; to restore its value,
report it with the time at which it was observed again. unknown: no such prediction.
"""


@dataclass(frozen=True, kw_only=True)
class OutcomeRow:
    """One reported outcome: of a prediction, or of every scored prediction of an encounter.

    ``level``: of an ordinal model the one that turned out to be right, 0 where it is not told.
    """

    outcome: int
    observed_at: datetime
    level: int = 0
    prediction_id: str | None = None
    model: str | None = None
    encounter: str | None = None  # keyed hash


@dataclass(frozen=True)
class OutcomeCounts:
    joined: int
    unknown: int
    revised: int
    repeated: int
    superseded: int


@dataclass(frozen=True)
class OutcomeReport:
    statuses: tuple[OutcomeStatus, ...]  # one for each row, in the rows' order

    @property
    def counts(self) -> OutcomeCounts:
        found = Counter[str](self.statuses)
        return OutcomeCounts(**{field.name: found[field.name] for field in fields(OutcomeCounts)})


_BY_WEIGHT: tuple[OutcomeStatus, ...] = ("revised", "joined", "superseded", "repeated")
_NAMES = (prediction.c.prediction_id, prediction.c.model, prediction.c.encounter)
_Targets = dict[tuple[str, str], list[Any]]  # rows of _NAMES and key
_Observed = tuple[int, int, datetime]


def record_outcomes(
    engine: Engine,
    rows: Sequence[OutcomeRow],
    now: datetime,
    *,
    source: str = "api",
    sites: Collection[str] | None = None,
) -> OutcomeReport:
    """Join outcomes to their predictions; what was known before is kept beside them.

    ``sites``: those that the reporter may speak for, None for every one; predictions elsewhere are
    unknown to it. Written in chunks: after an UnavailableError some may be there, and the same call
    again does the rest.

    Raises:
        UsageError: a row without a prediction or encounter, or an outcome that is neither 0 nor 1.
            Nothing is written then.
        UnavailableError: the log cannot be written.
    """
    for row in rows:
        if not row.prediction_id and not (row.model and row.encounter):
            raise UsageError("outcome: expected prediction_id, or model and encounter_id")
        if row.outcome not in {0, 1}:
            raise UsageError("outcome: expected 0 or 1")
    statuses: list[OutcomeStatus] = []
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        with guarded("written"), writing(engine) as connection:
            statuses.extend(_record(connection, chunk, utc(now), source, sites))
    return OutcomeReport(tuple(statuses))


def foremost(fates: Iterable[OutcomeStatus]) -> OutcomeStatus:
    """The most that happened of what several predictions were told of one event."""
    found = set(fates)
    return next((fate for fate in _BY_WEIGHT if fate in found), "unknown")


def models_of(
    engine: Engine, names: Collection[str], *, sites: Collection[str] | None = None
) -> dict[str, str]:
    """The model of each prediction that the log knows, by id; of those at ``sites``, None for all.

    Raises UnavailableError where the log cannot be read.
    """
    found: dict[str, str] = {}
    wanted = sorted(names)
    with guarded("read"), engine.connect() as connection:
        for first in range(0, len(wanted), _CHUNK):
            some = prediction.c.prediction_id.in_(wanted[first : first + _CHUNK])
            query = select(prediction.c.prediction_id, prediction.c.model).where(some)
            if sites is not None:
                query = query.where(prediction.c.site.in_(sites))
            found |= {name: model for name, model in connection.execute(query)}  # noqa: C416 rows
    return found


def scored_of(
    connection: Connection, encounters: Collection[str], *, model: str
) -> dict[str, tuple[str, datetime | None]]:
    """Every scored prediction of some encounters: its id -> encounter and time, whoever gave it.

    A few hundred encounters: they are named in the query. A time that is none, in a log that was
    tampered with, is None.
    """
    query = select(
        prediction.c.prediction_id,
        prediction.c.encounter,
        type_coerce(prediction.c.at, String),  # as it stands: one that is none must not raise
    ).where(
        prediction.c.model == model,
        prediction.c.encounter.in_(encounters),
        prediction.c.status == "scored",
    )
    return {name: (encounter, _moment(at)) for name, encounter, at in connection.execute(query)}


def _moment(said: Any) -> datetime | None:
    try:
        return said if isinstance(said, datetime) else datetime.fromisoformat(said)
    except (TypeError, ValueError):
        return None


def _record(
    connection: Connection,
    rows: Sequence[OutcomeRow],
    now: datetime,
    source: str,
    sites: Collection[str] | None,
) -> list[OutcomeStatus]:
    targets = _targets(connection, rows, sites)
    history = _history(connection, {t.prediction_id for found in targets.values() for t in found})
    fresh: list[dict[str, object]] = []
    statuses: list[OutcomeStatus] = []
    for row in rows:
        observed = (int(row.outcome), row.level, utc(row.observed_at))
        fates: set[OutcomeStatus] = set()
        for target in targets.get(_address(row), ()):
            past = history.setdefault(target.prediction_id, [])
            fate = _fate(past, observed)
            fates.add(fate)
            if fate in {"joined", "revised"}:
                past.append(observed)
                said = dict(zip(("outcome", "level", "observed_at"), observed, strict=True))
                named = {column.name: getattr(target, column.name) for column in _NAMES}
                fresh.append({**named, **said, "recorded_at": now, "source": source})
        # An encounter's predictions may fare differently.
        statuses.append(foremost(fates))
    if fresh:
        connection.execute(insert(outcome), fresh)
    return statuses


def _fate(past: Sequence[_Observed], observed: _Observed) -> OutcomeStatus:
    if not past:
        return "joined"
    if past[-1] == observed:
        return "repeated"
    return "superseded" if observed in past else "revised"


def _address(row: OutcomeRow) -> tuple[str, str]:
    """("", prediction_id), or (model, encounter)."""
    return ("", row.prediction_id) if row.prediction_id else (row.model or "", row.encounter or "")


def _targets(
    connection: Connection, rows: Sequence[OutcomeRow], sites: Collection[str] | None
) -> _Targets:
    """The predictions behind each address; an address without any is not there."""
    wanted: dict[str, set[str]] = {}
    for row in rows:
        model, name = _address(row)
        wanted.setdefault(model, set()).add(name)
    found: _Targets = {}
    for model, names in wanted.items():
        scored = and_(prediction.c.model == model, prediction.c.status == "scored")
        # Of one that was named, also what a challenger silently said to the same request.
        named = (prediction.c.prediction_id, prediction.c.shadow_of)
        for key in (prediction.c.encounter,) if model else named:
            query = select(*_NAMES, key.label("key")).where(key.in_(names))
            if sites is not None:
                query = query.where(prediction.c.site.in_(sites))
            for target in connection.execute(query.where(scored) if model else query):
                found.setdefault((model, target.key), []).append(target)
    return found


def _history(connection: Connection, names: Collection[str]) -> dict[str, list[_Observed]]:
    """What is known of each prediction, in the order of recording, whatever the clock said then."""
    query = (
        select(outcome.c.prediction_id, outcome.c.outcome, outcome.c.level, outcome.c.observed_at)
        .where(outcome.c.prediction_id.in_(names))
        .order_by(outcome.c.id)
    )
    past: dict[str, list[_Observed]] = {}
    for name, *observed in connection.execute(query):
        past.setdefault(name, []).append((observed[0], observed[1], observed[2]))
    return past
