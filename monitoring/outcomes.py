"""Outcomes that arrived in a mart, joined to the predictions that were made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from data.contract import Mart, check
from data.home import Home
from data.log import schema
from data.log.append import OutcomeRow, record_outcomes
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
    outcome = mart[spec.outcome.column]
    when = [mart.time, *([outcome.known_at] if outcome.known_at else [])]
    asked = [criterion.column for criterion in spec.cohort]
    return [c.name for c in mart.select([mart.encounter, *when, outcome.name, *asked])]


def _known(spec: ModelSpec, mart: Mart, table: Any) -> list[OutcomeRow]:
    """The rows of the model's cohort whose outcome is known, with the time at which it was."""
    columns = mart.select([name for name in table.column_names if name != "load_id"])
    rows = check(columns, table.drop_columns(["load_id"])).rows
    outcome = spec.outcome.of(mart[spec.outcome.column], rows)
    within = ~np.isnan(outcome)
    for criterion in spec.cohort:
        within &= criterion.met(mart[criterion.column], rows)
    declared = mart[spec.outcome.column]
    when = rows[mart.time] + np.timedelta64(timedelta(days=declared.known_within or 0))
    if declared.known_at is not None:
        told = rows[declared.known_at]
        when = np.where(np.isnat(told), when, told)
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
