"""Reads the prediction log: one row a prediction, beside the outcome and the use known by now."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
from sqlalchemy import ColumnElement, Engine, Row, Select, and_, func, select

from data.log.schema import feedback, guarded, outcome, prediction
from data.log.seal import Keyring

_TIME = pa.timestamp("us", tz="UTC")
_JSON = pa.large_string()  # a million rows of text pass the 2 GiB that a string array can hold
_CHUNK = 20_000
_LATER = 2
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
        ("outcome_observed_at", _TIME),
    ]
)
"""What :func:`window` returns, rows or none."""
_INPUTS, _ID = SCHEMA.names.index("inputs"), SCHEMA.names.index("prediction_id")


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

    ``outcome`` is the one recorded last, null where none is known. ``used`` is what a clinician said
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


def _query(within: ColumnElement[bool]) -> Select[Any]:
    # One look-up a row through the index of outcome_once, and of feedback_once: it streams, where a
    # ranking of all outcomes would first sort those of every other window.
    latest = (
        select(outcome.c.id)
        .where(outcome.c.prediction_id == prediction.c.prediction_id)
        # The order of recording, and not of a clock that may have been set back.
        .order_by(outcome.c.id.desc())
        .limit(1)
        .correlate(prediction)
        .scalar_subquery()
    )
    said = (
        select(feedback.c.outcome)
        .where(feedback.c.prediction_id == prediction.c.prediction_id)
        .order_by(feedback.c.occurred_at.desc(), feedback.c.id.desc())
        .limit(1)
        .correlate(prediction)
        .scalar_subquery()
    )
    columns: list[ColumnElement[Any]] = [
        func.coalesce(said, prediction.c.used) if name == "used" else prediction.c[name]
        for name in SCHEMA.names[:-_LATER]
    ]
    return (
        select(*columns, outcome.c.outcome, outcome.c.observed_at)
        .select_from(prediction.outerjoin(outcome, outcome.c.id == latest))
        .where(within)
        .order_by(prediction.c.at, prediction.c.prediction_id)
    )


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
