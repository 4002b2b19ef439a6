"""How fast a mart is loaded, checked and scored, in how much memory, and how that grows.

``make bench`` runs it and keeps the figures in ``bench/marts.json``. Visits are simulated into Parquet
files first, which is not counted; then the commands are typed as a data engineer would, each in a
process of its own, whose peak of memory the system tells. ``--rows`` picks other sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data.contract import Column, check
from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import BLOCK, blocks

MODEL = "ed_admission"
SIZES = (1_000_000, 3_000_000, 10_000_000)
CHECKED = 1_000_000
SEED = 1


@dataclass
class Spent:
    """What a command took."""

    seconds: float
    peak_mib: float


def run(home: Path, *words: str) -> Spent:
    """Type a command; its seconds and its peak of memory."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "caremodels", *words, "--json"],
        env={**os.environ, "CAREMODELS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"caremodels {' '.join(words)} ended with {code}")
    return Spent(round(time.perf_counter() - began, 1), round(usage.ru_maxrss / 1024))


def rows_per_second() -> dict[str, float]:
    """The contract's check on one core, and DuckDB on one core counting what breaks the same rules."""
    pa.set_cpu_count(1)
    table = pa.concat_tables(blocks(visits=CHECKED, seed=SEED))
    batches = [table.slice(start, 65_536) for start in range(0, CHECKED, 65_536)]
    ours = min(_timed(lambda: [check(MART.columns, batch) for batch in batches]) for _ in range(3))
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("simulated", table)
        connection.execute("CREATE TABLE visits AS SELECT * FROM simulated")
        counts = ", ".join(f"count(*) FILTER ({rule})" for c in MART.columns for rule in _rules(c))
        query = f"SELECT {counts} FROM visits"  # noqa: S608 our own columns
        theirs = min(_timed(lambda: connection.execute(query).fetchall()) for _ in range(3))
    return {
        "check_rows_per_second": round(CHECKED / ours),
        "duckdb_rows_per_second": round(CHECKED / theirs),
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _apart(work: Callable[..., Any], *arguments: object) -> Any:
    """Do it in another process: a child's peak of memory begins with what its parent held."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _rules(column: Column) -> list[str]:
    rules = []
    if column.low is not None:
        rules.append(f"{column.name} < {column.low} OR {column.name} > {column.high}")
    if column.kind == "integer":
        rules.append(f"{column.name} <> round({column.name})")
    if column.categories:
        names = ", ".join(f"'{category.id}'" for category in column.categories)
        rules.append(f"{column.name} NOT IN ({names})")
    if column.required:
        rules.append(f"{column.name} IS NULL")
    return rules


def simulate(folder: Path, rows: int) -> None:
    """``rows`` visits as Parquet files, one a block."""
    folder.mkdir(parents=True)
    for number, table in enumerate(blocks(visits=rows, seed=SEED)):
        pq.write_table(table, folder / f"visits-{number:03}.parquet")


def train(home: Path) -> None:
    """A small released version to score with."""
    run(home, "mart", "simulate", "--visits", "60000", "--seed", str(SEED))
    run(home, "train", MODEL)
    run(home, "promote", MODEL, "--version", "1", "--by", "Benchmark", "--reason", "to score with")


def measure(place: Path, rows: int, releases: Path) -> dict[str, object]:
    """Load, check and score ``rows`` visits in a home of their own."""
    shutil.rmtree(place, ignore_errors=True)
    _apart(simulate, place / "visits", rows)
    home = place / "home"
    shutil.copytree(releases, home / "releases", symlinks=True)
    query = place / "all.sql"
    query.write_text("-- use: demonstration\nSELECT * FROM source\n", encoding="utf-8")
    files = ["--files", str(place / "visits" / "*.parquet")]
    steps = {
        "load": run(home, "mart", "load", MART.name, "--sql", str(query), *files),
        "check": run(home, "mart", "check", MART.name),
        "score": run(home, "score", MODEL, "--out", str(place / "scores.parquet")),
    }
    shutil.rmtree(place)
    return {
        "rows": rows,
        "seconds": round(sum(step.seconds for step in steps.values()), 1),
        "peak_mib": max(step.peak_mib for step in steps.values()),
        **{name: {"seconds": step.seconds, "peak_mib": step.peak_mib} for name, step in steps.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help=f"multiples of {BLOCK:,}")
    options = parser.parse_args()
    home = Home.from_env()
    scratch = home.path / "bench-marts"
    shutil.rmtree(scratch, ignore_errors=True)
    found: dict[str, object] = _apart(rows_per_second)
    print(json.dumps(found), flush=True)
    train(scratch / "model")
    sizes = []
    for rows in options.rows:
        sizes.append(measure(scratch / str(rows), rows, scratch / "model" / "releases"))
        print(json.dumps(sizes[-1]), flush=True)
    shutil.rmtree(scratch)
    home.bench.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**found, "sizes": sizes}, indent=1)
    (home.bench / "marts.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
