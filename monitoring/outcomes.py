"""Outcomes that arrived in a mart, joined to the predictions that were made of them.

Mart and log hold the same keyed hash of an encounter, and under it they meet. Of a series that is not
enough: each of its hours has an outcome of its own. Which hour a prediction was of stands among its
inputs, so that those of the encounters that the mart knows are opened, some at a time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine, select

from data.contract import Column, Mart, Rows, check
from data.home import Home
from data.log import schema
from data.log.outcomes import OutcomeRow, OutcomeStatus, foremost, record_outcomes, scored_of
from data.log.read import moment, opened
from data.log.seal import Keyring, load_keyring
from data.store import EVERYTHING, open_store
from data.terminal import Stage
from models import catalog
from models.spec import ModelSpec
from monitoring.answers import delay

TOLD = ("joined", "unknown", "revised", "unopened")
_ASKED = 500
"""Encounters whose predictions are asked for at once: of a series some ten thousand."""

_log = logging.getLogger(__name__)
_INPUTS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Known:
    """Rows of the model's cohort whose outcome is known, (n,): where, what, and when it was known.

    ``level``: of an ordinal model, 0 of any other. ``order``: which hour of its series a row is, None of
    a mart without. ``at``: naive wall clock of the site, NaT where the mart does not tell it.
    """

    encounter: npt.NDArray[np.object_]
    order: npt.NDArray[np.int64] | None
    outcome: npt.NDArray[np.int64]
    level: npt.NDArray[np.int64]
    at: npt.NDArray[np.datetime64]

    def __len__(self) -> int:
        return len(self.outcome)


def load(home: Home, mart: Mart, *, stage: Stage) -> dict[str, int]:
    """Join what became of each row of ``mart`` to the log, for every model on it.

    A row has one outcome: of an encounter, or of one hour of a series, and every prediction of that is
    told it. Returns how many outcomes were ``joined``, how many belong to no prediction (``unknown``,
    as are the hours about which nobody asked) and how many ``revised`` an earlier one; loaded again
    the same mart joins and revises none. ``unopened`` are predictions of a series whose hour cannot be
    read, as their inputs were purged or no key here opens them; they get no outcome.
    """
    engine = schema.connect(home.log)
    totals: Counter[str] = Counter()
    specs = [spec for spec in map(catalog.load, catalog.names()) if spec.mart == mart.name]
    # Of a model that never answered all outcomes would count as unknown.
    with engine.connect() as connection:
        answered = set(connection.scalars(select(schema.prediction.c.model).distinct()))
    with open_store(home.marts, write=False) as store:
        for spec in specs:
            if spec.name not in answered:
                continue
            done, found = 0, Counter[str]()
            tables = store.batches(mart, EVERYTHING, columns=_columns(spec, mart))
            keyring = None
            if spec.lookback is not None:
                keyring, tables = load_keyring(home.path), _whole(tables, mart.encounter)
            for table in tables:
                stage(f"joining {spec.name}: {done:,} rows", 0.5)
                known = _known(spec, mart, table)
                if keyring is None:
                    found += _by_encounter(engine, spec, known)
                else:
                    found += _by_hour(engine, spec, known, keyring=keyring, hour=mart.order or "")
                done += len(table)
            if found["unopened"]:
                _log.error("%d predictions of %s do not tell their hour", found["unopened"], spec.name)
            totals += found
    return {name: totals[name] for name in TOLD}


def _columns(spec: ModelSpec, mart: Mart) -> list[str]:
    told = [mart[name] for name in spec.outcome.columns]
    when = [mart.time, *(column.known_at for column in told if column.known_at)]
    asked = [criterion.column for criterion in spec.cohort]
    order = [mart.order] if mart.order else []
    level = [spec.triage.column] if spec.triage else []
    names = [mart.encounter, *order, *when, *spec.outcome.columns, *level, *asked]
    return [c.name for c in mart.select(names)]


def _whole(tables: Iterable[pa.Table], encounter: str) -> Iterator[pa.Table]:
    """The same rows, no encounter in two tables; those of one follow each other."""
    rest: pa.Table | None = None
    for table in tables:
        rows = table if rest is None else pa.concat_tables([rest, table])
        column = rows[encounter]
        last = pc.index(column, column[-1]).as_py() if len(rows) else 0
        if last:
            yield rows.slice(0, last)
        rest = rows.slice(last)
    if rest is not None:
        yield rest


def _known(spec: ModelSpec, mart: Mart, table: pa.Table) -> _Known:
    columns = mart.select([name for name in table.column_names if name != "load_id"])
    rows = check(columns, table.drop_columns(["load_id"])).rows
    outcome = spec.outcome.of(mart, rows)
    within = ~np.isnan(outcome)
    for criterion in spec.cohort:
        within &= criterion.met(mart[criterion.column], rows)
    # All of its events must be known: the last of them is the time.
    at = np.max([_known_at(mart, mart[name], rows) for name in spec.outcome.columns], axis=0)
    if spec.lookback is None:
        within &= ~np.isnat(at)
    level = rows[spec.triage.column] if spec.triage else np.zeros(len(outcome))
    return _Known(
        encounter=rows[mart.encounter][within],
        order=rows[mart.order][within].astype(np.int64) if mart.order else None,
        outcome=outcome[within].astype(np.int64),
        level=np.nan_to_num(level[within]).astype(np.int64),
        at=at[within],
    )


def _known_at(mart: Mart, told: Column, rows: Rows) -> npt.NDArray[np.datetime64]:
    """When an outcome column became known; NaT where the event has no time."""
    when = rows[mart.time] + np.timedelta64(timedelta(days=told.known_within or 0))
    if told.known_at is None:
        return np.asarray(when)
    said = rows[told.known_at]
    return np.where(np.isnat(said), when, said)


def _by_encounter(engine: Engine, spec: ModelSpec, known: _Known) -> Counter[str]:
    rows = [
        OutcomeRow(
            outcome=happened,
            level=level,
            # The site's wall clock; the log wants a zone, and a day's slip changes no month.
            observed_at=at.replace(tzinfo=UTC),
            model=spec.name,
            encounter=encounter,
        )
        for encounter, happened, level, at in zip(
            known.encounter,
            known.outcome.tolist(),
            known.level.tolist(),
            known.at.tolist(),
            strict=True,
        )
    ]
    return Counter(record_outcomes(engine, rows, datetime.now(UTC), source="mart").statuses)


def _by_hour(
    engine: Engine, spec: ModelSpec, known: _Known, *, keyring: Keyring, hour: str
) -> Counter[str]:
    """The same of a series, whose encounters ``known`` has whole: their predictions are met once.

    A mart without dates does not say when an outcome was known. It then counts as known when it could
    no longer come, by the time of the hour that was asked about: from then on monitoring takes it for
    mature, too. The time of this run would not do, since every run would revise the one before.
    """
    assert known.order is not None  # a mart of series has one
    keys = zip(known.encounter.tolist(), known.order.tolist(), strict=True)
    place = {key: row for row, key in enumerate(keys)}
    outcomes, times, late = known.outcome.tolist(), known.at.tolist(), delay(spec)
    encounters = list(dict.fromkeys(known.encounter.tolist()))
    found = Counter[str](unknown=len(known))
    for first in range(0, len(encounters), _ASKED):
        with moment(engine) as connection:
            asked = scored_of(connection, encounters[first : first + _ASKED], model=spec.name)
            hours = _hours(opened(connection, list(asked), keyring=keyring), hour)
        found["unopened"] += len(asked) - len(hours)
        rows, places = [], []
        for name, of in hours.items():
            encounter, at = asked[name]
            row = place.get((encounter, of))
            if row is None:  # what became of it is not known yet
                continue
            when = times[row] or (at and at + late)
            if when is None:
                found["unopened"] += 1
                continue
            observed = when.replace(tzinfo=UTC)
            rows.append(OutcomeRow(outcome=outcomes[row], observed_at=observed, prediction_id=name))
            places.append(row)
        statuses = record_outcomes(engine, rows, datetime.now(UTC), source="mart").statuses
        fates: dict[int, list[OutcomeStatus]] = {}
        for row, status in zip(places, statuses, strict=True):
            fates.setdefault(row, []).append(status)
        found.update(foremost(of_hour) for of_hour in fates.values())
        found["unknown"] -= len(fates)
    return found


def _hours(batches: Iterable[pa.RecordBatch], hour: str) -> dict[str, int]:
    """Prediction -> its hour; without those that do not tell it."""
    found: dict[str, int] = {}
    for batch in batches:
        texts = batch["inputs"].to_pylist()
        for name, text in zip(batch["prediction_id"].to_pylist(), texts, strict=True):
            if text is not None:
                with suppress(msgspec.MsgspecError, KeyError):
                    found[name] = msgspec.json.decode(_INPUTS.decode(text)[hour], type=int)
    return found
