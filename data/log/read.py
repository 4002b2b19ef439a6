"""Reads the prediction log: one row a prediction, beside the outcome that is known by now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pyarrow as pa
from sqlalchemy import ColumnElement, Engine, and_, func, select

from data.log.schema import guarded, outcome, prediction

_TIME = pa.timestamp("us", tz="UTC")
_JSON = pa.large_string()  # a million rows of text pass the 2 GiB that a string array can hold
_CHUNK = 20_000

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
        ("outcome", pa.int8()),
        ("outcome_observed_at", _TIME),
    ]
)
"""What :func:`window` returns, rows or none."""


def window(
    engine: Engine, *, model: str, start: datetime, end: datetime, version: str | None = None
) -> pa.Table:
    """Predictions with ``start <= at < end``, ordered by (at, prediction_id), as :data:`SCHEMA`.

    ``outcome`` is the one recorded last, null where none is known. Times are UTC, and a naive
    ``start`` or ``end`` is taken as such.

    Raises:
        UnavailableError: the log cannot be read.
    """
    chunks = batches(engine, model=model, start=start, end=end, version=version)
    return pa.Table.from_batches(list(chunks), schema=SCHEMA)


def batches(
    engine: Engine, *, model: str, start: datetime, end: datetime, version: str | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of :func:`window` piece by piece, all from one moment of the log.

    Raises:
        UnavailableError: the log cannot be read.
    """
    # One look-up a row through the index of outcome_once: it streams, where a ranking of all
    # outcomes would first sort those of every other window.
    latest = (
        select(outcome.c.id)
        .where(outcome.c.prediction_id == prediction.c.prediction_id)
        .order_by(outcome.c.recorded_at.desc(), outcome.c.id.desc())
        .limit(1)
        .correlate(prediction)
        .scalar_subquery()
    )
    query = (
        select(
            *(prediction.c[name] for name in SCHEMA.names[:-2]),
            outcome.c.outcome,
            outcome.c.observed_at,
        )
        .select_from(prediction.outerjoin(outcome, outcome.c.id == latest))
        .where(_within(model, start, end, version))
        .order_by(prediction.c.at, prediction.c.prediction_id)
    )
    with guarded("read"), engine.connect() as connection:
        result = connection.execution_options(yield_per=_CHUNK).execute(query)
        for rows in result.partitions():
            columns = zip(*rows, strict=True)
            arrays = [
                pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)
            ]
            yield pa.record_batch(arrays, schema=SCHEMA)


def count(
    engine: Engine,
    *,
    model: str,
    start: datetime | None = None,
    end: datetime | None = None,
    version: str | None = None,
) -> int:
    """How many predictions :func:`window` would give; a bound left out does not bind.

    Raises:
        UnavailableError: the log cannot be read.
    """
    query = select(func.count()).select_from(prediction).where(_within(model, start, end, version))
    with guarded("read"), engine.connect() as connection:
        return connection.execute(query).scalar_one()


def versions(engine: Engine, model: str) -> list[str]:
    """The versions that have answered for ``model``, the first to answer first.

    Raises:
        UnavailableError: the log cannot be read.
    """
    query = (
        select(prediction.c.version)
        .where(prediction.c.model == model)
        .group_by(prediction.c.version)
        .order_by(func.min(prediction.c.received_at), prediction.c.version)
    )
    with guarded("read"), engine.connect() as connection:
        return list(connection.scalars(query))


def _within(
    model: str, start: datetime | None, end: datetime | None, version: str | None
) -> ColumnElement[bool]:
    terms = [prediction.c.model == model]
    if start is not None:
        terms.append(prediction.c.at >= start)
    if end is not None:
        terms.append(prediction.c.at < end)
    if version is not None:
        terms.append(prediction.c.version == version)
    return and_(*terms)
