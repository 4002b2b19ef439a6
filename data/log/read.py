"""Reads the prediction log: one row a prediction, beside the outcome and the use known by now."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    String,
    and_,
    case,
    func,
    null,
    select,
    type_coerce,
)

from data.log.schema import feedback, guarded, is_sqlite, outcome, prediction, utc
from data.log.seal import Keyring

_TIME = pa.timestamp("us", tz="UTC")
_JSON = pa.large_string()  # a million rows of text pass the 2 GiB that a string array can hold
_CHUNK = 20_000
_AT_ONCE, _TOGETHER = 500, 40
"""Rows that are Python's objects at once, of more its collector of garbage takes a third of the time;
and how many such parts are handed on as one piece."""
_LATER = 3
"""How many columns of :data:`SCHEMA` are the outcome's and not the prediction's."""

_log = logging.getLogger(__name__)

Pointer = Literal["champion", "challenger"]

SCHEMA = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("at", _TIME),
        ("received_at", _TIME),
        ("site", pa.string()),
        ("patient", pa.string()),
        ("encounter", pa.string()),
        ("status", pa.string()),
        ("risk", pa.float64()),
        ("margin", pa.float64()),
        ("band", pa.string()),
        ("base_value", pa.float64()),
        ("contributions", _JSON),
        ("inputs", _JSON),
        ("groups", _JSON),
        ("warnings", _JSON),
        ("reasons", _JSON),
        ("latency_ms", pa.float64()),
        ("caller", pa.string()),
        ("pointer", pa.string()),
        ("shadow_of", pa.string()),
        ("channel", pa.string()),
        ("used", pa.string()),
        ("level", pa.int32()),
        ("novelty", pa.float64()),
        ("conformal", _JSON),
        ("outcome", pa.int8()),
        ("outcome_level", pa.int32()),
        ("outcome_observed_at", _TIME),
    ]
)
"""What :func:`window` returns, rows or none."""
_INPUTS, _ID = SCHEMA.names.index("inputs"), SCHEMA.names.index("prediction_id")

ANSWERS = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("at", _TIME),
        ("site", pa.string()),
        ("patient", pa.string()),
        ("encounter", pa.string()),
        ("status", pa.string()),
        ("margin", pa.float64()),
        ("level", pa.int32()),
        ("used", pa.string()),
        ("outcome", pa.int8()),
        ("outcome_level", pa.int32()),
        ("reasons", pa.string()),
    ]
)
"""What :func:`answers` returns. A value that is not of its column's type is null."""

OPENED = pa.schema(
    [("prediction_id", pa.string()), ("inputs", _JSON), ("contributions", _JSON), ("groups", _JSON)]
)
"""What :func:`opened` returns."""
_ASKED = 1_000
"""Rows asked for by name in one query."""


def window(
    engine: Engine,
    *,
    keyring: Keyring | None,
    model: str,
    start: datetime,
    end: datetime,
    version: str | None = None,
    pointer: Pointer | None = "champion",
) -> pa.Table:
    """Predictions with ``start <= at < end``, ordered by (at, prediction_id), as :data:`SCHEMA`.

    ``outcome`` is the one recorded last, null where none is known, ``outcome_level`` its level of an
    ordinal model, else 0. ``used`` is what a clinician said
    of the card, ``accepted`` or ``overridden``, the latest if more than once; else how the answer was
    handed over, ``silent``, ``answered`` or ``card``. ``inputs`` are opened with ``keyring``, and
    null where they cannot be, which is counted and logged; without a keyring they stay as the log
    has them. ``pointer``: None for what the version said as champion and as silent challenger
    together, which are different patients' answers of the same or other times. Times are UTC, and a
    naive ``start`` or ``end`` is taken as such.

    Raises:
        UnavailableError: the log cannot be read.
    """
    chunks = batches(
        engine,
        keyring=keyring,
        model=model,
        start=start,
        end=end,
        version=version,
        pointer=pointer,
    )
    return pa.Table.from_batches(list(chunks), schema=SCHEMA)


def batches(
    engine: Engine,
    *,
    keyring: Keyring | None,
    model: str,
    start: datetime,
    end: datetime,
    version: str | None = None,
    pointer: Pointer | None = "champion",
) -> Iterator[pa.RecordBatch]:
    """The rows of :func:`window` piece by piece, all from one moment of the log.

    Raises:
        UnavailableError: the log cannot be read.
    """
    query = _query(_within(model, start, end, version, pointer))
    lost = 0
    with guarded("read"), engine.connect() as connection:
        result = connection.execution_options(yield_per=_CHUNK).execute(query)
        for rows in result.partitions():
            batch, unopened = _batch(rows, keyring)
            lost += unopened
            yield batch
    if lost:
        _log.error("%d predictions of %s have inputs that no key here opens", lost, model)


def count(
    engine: Engine,
    *,
    model: str,
    start: datetime | None = None,
    end: datetime | None = None,
    version: str | None = None,
    pointer: Pointer | None = "champion",
) -> int:
    """How many predictions :func:`window` would give; a bound left out does not bind.

    Raises:
        UnavailableError: the log cannot be read.
    """
    within = _within(model, start, end, version, pointer)
    query = select(func.count()).select_from(prediction).where(within)
    with guarded("read"), engine.connect() as connection:
        return connection.execute(query).scalar_one()


def opens(engine: Engine, keyring: Keyring) -> bool:
    """Whether ``keyring`` opens the inputs that were written last; True of a log without any.

    False tells of a host that has another home, and so another key, than those which wrote before.

    Raises:
        UnavailableError: the log cannot be read.
    """
    query = (
        select(prediction.c.prediction_id, prediction.c.inputs)
        .where(prediction.c.inputs.is_not(None))
        .order_by(prediction.c.prediction_id.desc())  # ids are ordered by time
        .limit(1)
    )
    with guarded("read"), engine.connect() as connection:
        last = connection.execute(query).first()
    return last is None or keyring.open_all([last.inputs], [last.prediction_id])[1] == 0


def versions(engine: Engine, model: str, *, pointer: Pointer | None = "champion") -> list[str]:
    """The versions that have answered for ``model``, the first to answer first.

    Raises:
        UnavailableError: the log cannot be read.
    """
    query = (
        select(prediction.c.version)
        .where(_within(model, None, None, None, pointer))
        .group_by(prediction.c.version)
        .order_by(func.min(prediction.c.received_at), prediction.c.version)
    )
    with guarded("read"), engine.connect() as connection:
        return list(connection.scalars(query))


@contextmanager
def moment(engine: Engine) -> Iterator[Connection]:
    """All that is read within is of one moment of the log. Raises UnavailableError."""
    with guarded("read"), engine.connect() as connection:
        if is_sqlite(engine.url):  # which gives every reader a snapshot
            yield connection
        else:
            yield connection.execution_options(isolation_level="REPEATABLE READ")


def answers(
    connection: Connection,
    *,
    model: str,
    start: datetime,
    end: datetime,
    version: str,
    pointer: Pointer,
    as_of: datetime,
    levels: bool = False,
    reasons: bool = True,
) -> Iterator[pa.RecordBatch]:
    """Predictions with ``start <= at < end``, ordered by (at, prediction_id), as :data:`ANSWERS`.

    Of each only what it takes to judge it: neither inputs nor explanation, which are nearly all of a
    row. What was recorded after ``as_of`` is not there: a prediction, an outcome, a word on a card;
    ``outcome`` is the last until then, ``outcome_level`` its level where ``levels`` are asked for.
    ``reasons`` are of the rows without a risk, or of none. A naive time is taken as UTC.
    """
    known = utc(as_of)
    given: dict[str, ColumnElement[Any]] = {
        "at": type_coerce(prediction.c.at, String),  # as it stands: one that is none must not raise
        "used": func.coalesce(_said(feedback.c.recorded_at <= known), prediction.c.used),
        "outcome": _latest(outcome.c.outcome, outcome.c.recorded_at <= known),
        "outcome_level": _latest(outcome.c.level, outcome.c.recorded_at <= known) if levels else null(),
        "reasons": case((prediction.c.status != "scored", prediction.c.reasons)) if reasons else null(),
    }
    asked = [given[name] if name in given else prediction.c[name] for name in ANSWERS.names]
    query = (
        select(*asked)
        .where(_within(model, utc(start), utc(end), version, pointer), prediction.c.received_at <= known)
        .order_by(prediction.c.at, prediction.c.prediction_id)
    )
    with _as_bytes(connection):
        result = connection.execute(query, execution_options={"yield_per": _AT_ONCE})
        parts = map(_answers, result.partitions())
        while some := list(itertools.islice(parts, _TOGETHER)):
            yield from pa.Table.from_batches(some).combine_chunks().to_batches()


def opened(
    connection: Connection, names: Sequence[str], *, keyring: Keyring
) -> Iterator[pa.RecordBatch]:
    """Inputs, contributions and groups of the predictions ``names``, as :data:`OPENED`, in some order.

    Inputs that ``keyring`` does not open are null.
    """
    columns = [prediction.c[name] for name in OPENED.names]
    for first in range(0, len(names), _ASKED):
        some = names[first : first + _ASKED]
        with _as_bytes(connection):
            query = select(*columns).where(prediction.c.prediction_id.in_(some))
            rows = connection.execute(query).all()
        if not rows:
            continue
        found: list[Sequence[Any]] = list(zip(*rows, strict=True))
        ids, sealed = (_typed(values, pa.string()).to_pylist() for values in found[:2])
        texts, _ = keyring.open_all(sealed, ids)
        given = [ids, texts, *found[2:]]
        arrays = [_typed(values, field.type) for values, field in zip(given, OPENED, strict=True)]
        yield pa.record_batch(arrays, schema=OPENED)


def warned_of(engine: Engine, *, model: str, site: str) -> list[str]:
    """Encounters at ``site`` of which a clinician was shown a card, whichever version warned.

    Raises UnavailableError where the log cannot be read.
    """
    query = select(prediction.c.encounter).where(
        prediction.c.model == model,
        prediction.c.site == site,
        prediction.c.used == "card",
        prediction.c.encounter.is_not(None),
    )
    with guarded("read"), engine.connect() as connection:
        return list(connection.scalars(query.distinct()))


def of_encounter(
    connection: Connection,
    encounters: Sequence[str],
    *,
    model: str,
    version: str,
    pointer: Pointer,
    as_of: datetime,
    last: bool = False,
) -> dict[str, str]:
    """Encounter -> its first prediction with a risk, or its last, of the whole log as of then.

    By (at, prediction_id), of that version and pointer.
    """
    scored = and_(
        _within(model, None, None, version, pointer),
        prediction.c.status == "scored",
        prediction.c.received_at <= utc(as_of),
    )
    # An expression: by the column itself SQLite would walk the index of all times, the whole log
    # for each thousand encounters, instead of looking these up.
    moment = func.coalesce(prediction.c.at, prediction.c.at)
    order: list[ColumnElement[Any]] = [moment, prediction.c.prediction_id.expression]
    found: dict[str, str] = {}
    for first in range(0, len(encounters), _ASKED):
        some = prediction.c.encounter.in_(encounters[first : first + _ASKED])
        query = select(prediction.c.encounter, prediction.c.prediction_id).where(some, scored)
        # Of a key that comes again a dict keeps the later.
        query = query.order_by(*(order if last else [column.desc() for column in order]))
        with _as_bytes(connection):
            rows = connection.execute(query).all()
        found |= {_text(encounter): _text(name) for encounter, name in rows}
    return found


def held(connection: Connection, encounters: Sequence[str], *, model: str) -> dict[str, int]:
    """Encounter -> how many predictions of ``model`` it has, whatever they are: from the index alone."""
    found: dict[str, int] = {}
    for first in range(0, len(encounters), _ASKED):
        query = (
            select(prediction.c.encounter, func.count())
            .where(
                prediction.c.model == model,
                prediction.c.encounter.in_(encounters[first : first + _ASKED]),
            )
            .group_by(prediction.c.encounter)
        )
        with _as_bytes(connection):
            rows = connection.execute(query).all()
        found |= {_text(encounter): count for encounter, count in rows}
    return found


def busy(
    connection: Connection, *, model: str, start: datetime | None = None, end: datetime | None = None
) -> int:
    """How many predictions of ``model``, whatever its version: told from the index alone."""
    query = select(func.count()).select_from(prediction)
    return connection.execute(query.where(_within(model, start, end, None, None))).scalar_one()


def _query(within: ColumnElement[bool]) -> Select[Any]:
    columns: list[ColumnElement[Any]] = [
        func.coalesce(_said(), prediction.c.used) if name == "used" else prediction.c[name]
        for name in SCHEMA.names[:-_LATER]
    ]
    return (
        select(*columns, outcome.c.outcome, outcome.c.level, outcome.c.observed_at)
        .select_from(prediction.outerjoin(outcome, outcome.c.id == _latest(outcome.c.id)))
        .where(within)
        .order_by(prediction.c.at, prediction.c.prediction_id)
    )


def _latest(column: ColumnElement[Any], *terms: ColumnElement[bool]) -> ColumnElement[Any]:
    """``column`` of the prediction's outcome that was recorded last."""
    # One look-up a row through the index of outcome_once, and of feedback_once: it streams, where a
    # ranking of all outcomes would first sort those of every other window.
    return (
        select(column)
        .where(outcome.c.prediction_id == prediction.c.prediction_id, *terms)
        # The order of recording, and not of a clock that may have been set back.
        .order_by(outcome.c.id.desc())
        .limit(1)
        .correlate(prediction)
        .scalar_subquery()
    )


def _said(*terms: ColumnElement[bool]) -> ColumnElement[Any]:
    """What a clinician said of the prediction's card, the latest."""
    return (
        select(feedback.c.outcome)
        .where(feedback.c.prediction_id == prediction.c.prediction_id, *terms)
        .order_by(feedback.c.occurred_at.desc(), feedback.c.id.desc())
        .limit(1)
        .correlate(prediction)
        .scalar_subquery()
    )


@contextmanager
def _as_bytes(connection: Connection) -> Iterator[None]:
    """SQLite's texts as bytes: of one row that is no UTF-8 the driver would read no other either."""
    if not is_sqlite(connection.engine.url):
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.text_factory = bytes
    try:
        yield
    finally:
        driver.text_factory = str


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _answers(rows: Sequence[Row[Any]]) -> pa.RecordBatch:
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    arrays = [_typed(values, field.type) for values, field in zip(columns, ANSWERS, strict=True)]
    return pa.record_batch(arrays, schema=ANSWERS)


def _typed(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An array of ``kind``, null where a value is not of it: SQLite holds any value in any column."""
    try:
        # SQLite's times are text, and have no zone.
        if pa.types.is_timestamp(kind) and any(isinstance(value, str | bytes) for value in values):
            return pa.array(values, pa.string()).cast(pa.timestamp("us")).cast(kind)
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if len(values) > 1:
            half = len(values) // 2
            return pa.concat_arrays([_typed(values[:half], kind), _typed(values[half:], kind)])
        return pa.nulls(len(values), kind)


def _batch(rows: Sequence[Row[Any]], keyring: Keyring | None) -> tuple[pa.RecordBatch, int]:
    """The rows as columns, and how many inputs could not be opened."""
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    lost = 0
    if keyring is not None:
        columns[_INPUTS], lost = keyring.open_all(columns[_INPUTS], columns[_ID])
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA), lost


def _within(
    model: str,
    start: datetime | None,
    end: datetime | None,
    version: str | None,
    pointer: Pointer | None,
) -> ColumnElement[bool]:
    terms = [prediction.c.model == model]
    if start is not None:
        terms.append(prediction.c.at >= start)
    if end is not None:
        terms.append(prediction.c.at < end)
    if version is not None:
        terms.append(prediction.c.version == version)
    if pointer is not None:
        terms.append(prediction.c.pointer == pointer)
    return and_(*terms)
