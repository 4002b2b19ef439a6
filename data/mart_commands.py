"""The commands that bring rows into a mart and look at them: ``caremodels mart …``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data import command, marts, source
from data.contract import Mart
from data.home import Home
from data.pseudonym import load_key
from data.terminal import progress, show


def add(commands: Any) -> None:
    """Declare ``mart load``, ``mart simulate`` and ``mart check``."""
    mart = commands.add_parser("mart", help="bring rows in").add_subparsers(required=True)
    loading = command.add(mart, "load", load, "load files through a query and hold them to the contract")
    loading.add_argument("mart", metavar="MART")
    which = loading.add_mutually_exclusive_group(required=True)
    which.add_argument("--source", metavar="NAME", help=f"one of: {', '.join(source.known())}")
    which.add_argument("--sql", type=Path, metavar="FILE", help="your own query over the view 'source'")
    where = loading.add_mutually_exclusive_group(required=True)
    where.add_argument("--files", metavar="GLOB", help="Parquet, CSV, PSV, Stata or SAS, zipped or not")
    where.add_argument("--from", dest="database", metavar="URL", help="a database: postgresql://…")
    simulating = command.add(mart, "simulate", simulate, "simulate visits to a hospital network")
    simulating.add_argument("--visits", type=command.positive, default=200_000)
    simulating.add_argument("--seed", type=int, default=0)
    simulating.add_argument("--from", dest="first", default="2015-01", metavar="YYYY-MM")
    simulating.add_argument("--to", dest="last", default="2021-12", metavar="YYYY-MM")
    simulating.add_argument("--drift", metavar="KIND", help="new_site, fahrenheit, winter_surge, …")
    simulating.add_argument("--drift-from", metavar="YYYY-MM")

    looking = command.add(mart, "check", check, "what was refused, what is missing, by column and site")
    looking.add_argument("mart", metavar="MART")
    looking.add_argument(
        "--max-refused", type=command.share, default=0.05, metavar="SHARE", help="ends with 3 past it"
    )


def load(options: argparse.Namespace, home: Home) -> int:
    from data.engine import open_engine

    mart = marts.load(options.mart)
    query = source.from_file(options.sql) if options.sql else source.load(options.source)
    if options.files is not None:
        files = source.find(options.files)
        load_id = source.fingerprint(query, files)[:16]
        return _loaded(options, home, mart, source.batches(query, files), query.origin(load_id))
    # What a database holds has no fingerprint: its rows are told apart by their keys.
    load_id = f"{query.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    with open_engine(options.database, write=False) as database:
        return _loaded(options, home, mart, database.rows(query.sql), query.origin(load_id))


def simulate(options: argparse.Namespace, home: Home) -> int:
    from data.simulate import blocks
    from data.source import Origin

    given = {
        name: getattr(options, name)
        for name in ("visits", "seed", "first", "last", "drift", "drift_from")
    }
    origin = Origin(
        load_id="-".join(str(value) for value in given.values() if value is not None),
        source="simulated network",
        use="demonstration",
        terms="Simulated visits: no patient stands behind them.",
    )
    return _loaded(options, home, marts.load("ed_visit"), blocks(**given), origin)


def _loaded(
    options: argparse.Namespace, home: Home, mart: Mart, tables: Iterable[Any], origin: source.Origin
) -> int:
    from data.store import KNOWN, open_store

    with progress() as stage, open_store(home.marts) as store:
        stage("reading", 0.0)
        report = store.load(
            mart,
            tables,
            origin,
            key=load_key(home.path),
            heard=lambda rows: stage(f"checked and stored: {rows:,} rows", 0.5),
        )
    show(asdict(report), as_json=options.json)
    known = sum(count for reason, count in report.reasons.items() if reason.endswith(KNOWN))
    if report.kept == 0 and report.read > known:
        sys.stderr.write("caremodels: every row was refused\n")
        return 1
    return 0


def check(options: argparse.Namespace, home: Home) -> int:
    from data import quality
    from data.store import open_store

    with progress() as stage, open_store(home.marts, write=False) as store:
        found = quality.measure(store, marts.load(options.mart), stage=stage)
    show(found, as_json=options.json, short=quality.short)
    if found["refused"] > options.max_refused * found["read"]:
        share = f"{found['refused'] / found['read']:.1%}"
        sys.stderr.write(f"caremodels: {share} of the rows were refused\n")
        return 3
    return 0
