"""A million predictions of which some have drifted, for ``drift.py`` to measure.

A version is trained on simulated visits and promoted. Later visits of the same network are answered as
the service would answer them, into a log of their own, with explanations, outcomes, refusals and
abstentions. At every site, and at all together, some columns have drifted, by effects on both sides of
the thresholds. It takes about 1 ms a prediction, and 4.5 GB.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.contract import Column, check
from data.home import Home
from data.log.append import Entry, LogWriter
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.schema import connect
from data.log.seal import load_keyring
from data.marts.ed_visit import MART
from data.period import Period
from data.pseudonym import load_key
from data.simulate import SITES, simulate
from models import artifact
from monitoring.drift import psi
from serving.schema import Context, PredictRequest
from serving.scorer import Receipt, Scorer

MODEL = "ed_admission"
NETWORK = 1
"""The seed of the training years, whose sites the window keeps."""
TRAINED, VISITS, LIMITS = ("2018-01", "2021-12"), 160_000, ("2020-12", "2021-06", "2021-12")
MONTHS = ("2022-01", "2022-02", "2022-03", "2022-04", "2022-05")
ROWS = 1_000_000
SOME = ("2022-01-01", "2022-01-18")
"""Days in which some 100,000 of the million are scored: also in a log of their own."""
REQUEST = 1000
CHANGED, LEAST, MOST = 0.3, 0.03, 0.3
"""Of a site's columns that share drifts, by a PSI between the two (in a straight line of logarithms)."""
WRONG = 0.003
"""The share of temperatures that come in Fahrenheit, and are refused."""

Texts = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Change:
    """A drift: ``moved`` (its distribution) or ``lost`` (no longer recorded), at one site or at all."""

    column: Column
    site: str | None
    kind: str
    size: float


def changes(seed: int = NETWORK) -> list[Change]:
    """What drifts in the window: of each site and of all together some columns, by sizes drawn."""
    rng = np.random.default_rng(seed)
    able = [c for c in MART.columns if c.role == "input" and c.name not in ("age", "arrival_hour")]
    found = []
    for site in (None, *(place.name for place in SITES if place.share)):
        for column in able:
            drawn, kind, size = rng.random(3)
            if drawn < CHANGED:
                lost = kind < 0.3 and not column.required
                size = LEAST * (MOST / LEAST) ** size
                found.append(Change(column, site, "lost" if lost else "moved", float(size)))
    return found


def changed(table: pa.Table, seed: int) -> pa.Table:
    """``table`` with the drifts, and with the slips that are refused."""
    rng = np.random.default_rng(seed)
    site = np.array(table["site"].to_pylist(), dtype=object)
    for change in changes():
        place = table.schema.get_field_index(change.column.name)
        values = np.array(table.column(place).to_pylist(), dtype=object)
        there = np.flatnonzero(site == change.site) if change.site else np.arange(len(site))
        values[there] = _drifted(change, values[there], rng)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, field.type))
    place = table.schema.get_field_index("temperature")
    slips = pa.array(rng.random(len(site)) < WRONG)
    wrong = pc.if_else(slips, pc.add(pc.multiply(table["temperature"], 1.8), 32), table["temperature"])
    return table.set_column(place, table.schema.field(place), wrong)


def _drifted(change: Change, values: Texts, rng: np.random.Generator) -> Texts:
    """A number moves by the root of the size in standard deviations, as of a normal one PSI is d².

    Of another kind some values are written over by one that is common or, of a flag, by true.
    """
    column, luck = change.column, rng.random(len(values))
    missing = np.array([value is None for value in values])
    if missing.all():
        return values
    if change.kind == "lost":
        # The loss worth a look is a tenth, as the PSI worth a look is.
        values[luck < change.size] = None
    elif column.kind in ("number", "integer"):
        known = values[~missing].astype(float)
        unit = 10.0 if column.name == "temperature" else 1.0
        moved = np.floor((known + np.sqrt(change.size) * known.std()) * unit + luck[~missing]) / unit
        values[~missing] = np.clip(moved, known.min(), known.max())
    else:
        names, counts = np.unique(values[~missing].astype(str), return_counts=True)
        into = True if column.kind == "flag" else str(names[np.argmax(counts)])
        rows = values[~missing] == into
        values[~missing & (luck < _share(float(rows.mean()), change.size))] = into
    return values


def _share(p: float, size: float) -> float:
    """The share of rows that must get a value which ``p`` have, for a PSI of ``size``."""
    low, high = 0.0, 1.0
    p = min(max(p, 1e-3), 1 - 1e-3)
    for _ in range(40):
        share = (low + high) / 2
        now = np.array([p + share * (1 - p), (1 - p) * (1 - share)])
        then = np.array([p, 1 - p])
        low, high = (share, high) if psi(now, then) < size else (low, share)
    return low


def run(home: Path, *words: str) -> None:
    """Type a command."""
    print("$ caremodels", *words, file=sys.stderr, flush=True)
    environment = {**os.environ, "CAREMODELS_HOME": str(home)}
    command = [sys.executable, "-m", "caremodels", *words, "--json"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def prepare(home: Path) -> None:
    """A version trained on the years before, and its promotion."""
    first, last = TRAINED
    run(
        home, "mart", "simulate", "--visits", str(VISITS), "--seed", str(NETWORK),
        "--from", first, "--to", last,
    )  # fmt: skip
    train, tune, test = LIMITS
    words = ("--train-to", train, "--validate-to", tune, "--test-to", test, "--no-ablations")
    run(home, "train", MODEL, *words)
    run(home, "promote", MODEL, "--version", "1", "--by", "Bench", "--reason", "to be watched")


def fill(home: Path, rows: int) -> None:
    """Answer ``rows`` visits, a month after the other, and write down what then happened."""
    loaded = artifact.load(home / "releases" / MODEL / "1")
    scorer = Scorer(artifact=loaded, version="1", key=load_key(home))
    draft = home / "draft.db"
    draft.unlink(missing_ok=True)
    engine = connect(draft)
    with LogWriter(engine, load_keyring(home)) as writer:
        for number, month in enumerate(MONTHS):
            table = simulate(
                visits=rows // len(MONTHS), seed=1 + NETWORK, first=month, last=month, block=number,
                network=NETWORK,
            )  # fmt: skip
            told = list(_answered(scorer, writer, changed(table, number)))
            record_outcomes(engine, told, datetime.now(UTC), source="bench")
            print(f"{month}: {len(told):,} outcomes", file=sys.stderr, flush=True)
    engine.dispose()
    draft.rename(home / "log.db")


def part(home: Path, first: str, last: str) -> None:
    """Copy the days ``first`` to ``last`` of the log into one of their own, ``some.db``."""
    draft = home / "draft.db"
    draft.unlink(missing_ok=True)
    connect(draft).dispose()
    with closing(sqlite3.connect(draft)) as connection:
        connection.execute("ATTACH ? AS whole", [str(home / "log.db")])
        period = Period.between(first, last)
        days = [f"{moment:%Y-%m-%d}" for moment in (period.start, period.end)]
        connection.execute(
            "INSERT INTO prediction SELECT * FROM whole.prediction WHERE at >= ? AND at < ?", days
        )
        connection.execute(
            "INSERT INTO outcome SELECT * FROM whole.outcome"
            " WHERE prediction_id IN (SELECT prediction_id FROM main.prediction)"
        )
        connection.commit()
    draft.rename(home / "some.db")


def _answered(scorer: Scorer, writer: LogWriter, table: pa.Table) -> Iterator[OutcomeRow]:
    spec = scorer.artifact.spec
    names = {*spec.outcome.columns, *(criterion.column for criterion in spec.cohort)}
    columns = MART.select([MART.encounter, MART.time, *names])
    typed = check(columns, table.select([column.name for column in columns])).rows
    found = spec.outcome.of(MART, typed)
    for criterion in spec.cohort:
        found[~criterion.met(MART[criterion.column], typed)] = np.nan
    inputs = [column.name for column in MART.columns if column.role == "input"]
    for start in range(0, len(table), REQUEST):
        block = table.slice(start, REQUEST).to_pylist()
        asked = PredictRequest(
            instances=[msgspec.Raw(msgspec.json.encode({n: row[n] for n in inputs})) for row in block],
            context=[_context(row) for row in block],
        )
        records = scorer.predict(asked, Receipt.now()).records
        shown = [
            record | {"channel": "rest", "used": "answered" if place % 4 else "card"}
            for place, record in enumerate(records)
        ]
        writer.submit(Entry(predictions=tuple(shown))).result()
        for row, record, outcome in zip(block, records, found[start : start + REQUEST], strict=True):
            if record["status"] == "scored" and not np.isnan(outcome):
                yield OutcomeRow(
                    outcome=int(outcome),
                    observed_at=row["departed_at"].replace(tzinfo=UTC),
                    prediction_id=str(record["prediction_id"]),
                )


def _context(row: Mapping[str, Any]) -> Context:
    groups = {name: row[name] for name in ("site_tier", "region", "race") if row[name]}
    return Context(
        patient_id=row["patient_id"],
        encounter_id=row["visit_id"],
        site=row["site"],
        at=row["arrived_at"].replace(tzinfo=UTC),
        groups=groups or None,
    )


def training(home: Path) -> None:
    """Adults of the training years, for who compares rows with rows, ``training.parquet``."""
    first, last = TRAINED
    table = simulate(visits=VISITS, seed=NETWORK, first=first, last=last)
    adults = table.filter(pc.greater_equal(table["age"], 18))
    pq.write_table(adults, home / "training.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Home.from_env().path / "drift")
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    home = options.home.resolve()
    if not (home / "releases").exists():
        prepare(home)
    if not (home / "log.db").exists():
        fill(home, options.rows)
    if not (home / "some.db").exists():
        part(home, *SOME)
    if not (home / "training.parquet").exists():
        training(home)


if __name__ == "__main__":
    main()
