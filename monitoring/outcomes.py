"""Outcomes that arrived in a mart, joined to the predictions that were made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from data.contract import Column, Mart, Rows, check
from data.home import Home
from data.log import schema
from data.log.outcomes import OutcomeRow, record_outcomes
from data.store import EVERYTHING, open_store
from data.terminal import Stage
from models import catalog
from models.spec import ModelSpec


def load(home: Home, mart: Mart, *, stage: Stage) -> dict[str, int]:
    """Join what became of each row of ``mart`` to the log, for every model on it.

    Mart and log hold the same keyed hash of an encounter. Returns how many outcomes were ``joined``,
    how many belong to no prediction (``unknown``) and how many ``revised`` an earlier one.
    """
    engine = schema.connect(home.log)
    totals = {"joined": 0, "unknown": 0, "revised": 0}
    specs = [spec for spec in map(catalog.load, catalog.names()) if spec.mart == mart.name]
    # Of a model that never answered all outcomes would count as unknown. An encounter of a series
    # has an outcome an hour, and the log's key is the encounter alone.
    with engine.connect() as connection:
        answered = set(connection.scalars(select(schema.prediction.c.model).distinct()))
    specs = [spec for spec in specs if spec.name in answered and spec.lookback is None]
    with open_store(home.marts, write=False) as store:
        for spec in specs:
            done = 0
            for table in store.batches(mart, EVERYTHING, columns=_columns(spec, mart)):
                stage(f"joining {spec.name}: {done:,} rows", 0.5)
                rows = _known(spec, mart, table)
                report = record_outcomes(engine, rows, datetime.now(UTC), source="mart")
                for name in totals:
                    totals[name] += getattr(report.counts, name)
                done += len(table)
    return totals


def _columns(spec: ModelSpec, mart: Mart) -> list[str]:
    told = [mart[name] for name in spec.outcome.columns]
    when = [mart.time, *(column.known_at for column in told if column.known_at)]
    asked = [criterion.column for criterion in spec.cohort]
    return [c.name for c in mart.select([mart.encounter, *when, *spec.outcome.columns, *asked])]


def _known(spec: ModelSpec, mart: Mart, table: Any) -> list[OutcomeRow]:
    """The rows of the model's cohort whose outcome is known, with the time at which it was."""
    columns = mart.select([name for name in table.column_names if name != "load_id"])
    rows = check(columns, table.drop_columns(["load_id"])).rows
    outcome = spec.outcome.of(mart, rows)
    within = ~np.isnan(outcome)
    for criterion in spec.cohort:
        within &= criterion.met(mart[criterion.column], rows)
    # All of its events must be known: the last of them is the time.
    when = np.max([_known_at(mart, mart[name], rows) for name in spec.outcome.columns], axis=0)
    within &= ~np.isnat(when)
    return [
        OutcomeRow(
            outcome=int(happened),
            # The site's wall clock; the log wants a zone, and a day's slip changes no month.
            observed_at=known.replace(tzinfo=UTC),
            model=spec.name,
            encounter=encounter,
        )
        for encounter, happened, known in zip(
            rows[mart.encounter][within], outcome[within], when[within].tolist(), strict=True
        )
    ]


def _known_at(mart: Mart, told: Column, rows: Rows) -> npt.NDArray[np.datetime64]:
    """When an outcome column became known; NaT where the event has no time."""
    when = rows[mart.time] + np.timedelta64(timedelta(days=told.known_within or 0))
    if told.known_at is None:
        return np.asarray(when)
    said = rows[told.known_at]
    return np.where(np.isnat(said), when, said)
