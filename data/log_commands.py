"""The commands that look after the prediction log: ``caremodels log …``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import command
from data.errors import UsageError
from data.home import Home
from data.period import Period
from data.terminal import progress, show

if TYPE_CHECKING:  # SQLAlchemy takes a while to import, and most commands need none of it
    from sqlalchemy import Engine

    from data.log.seal import Keyring


def add(commands: Any) -> None:
    """Declare ``log status``, ``migrate``, ``export``, ``purge`` and ``rotate-key``."""
    log = commands.add_parser("log", help="look after the prediction log").add_subparsers(required=True)
    command.add(log, "status", status, "what it holds, and which keys sealed it")
    command.add(log, "migrate", migrate, "bring the log of an older caremodels up to date")

    exporting = command.add_for_model(log, "export", export, "write a model's predictions into a file")
    command.period(exporting)
    exporting.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet")
    exporting.add_argument(
        "--no-inputs", dest="inputs", action="store_false", help="leave out what was sent of patients"
    )
    exporting.add_argument("--overwrite", action="store_true", help="replace a file that is there")

    purging = command.add(log, "purge", purge, "forget what is past its retention")
    purging.add_argument("--before", required=True, metavar="YYYY-MM-DD", help="received before (UTC)")
    purging.add_argument("--model", metavar="MODEL", help="default: every model")
    what = purging.add_mutually_exclusive_group()
    what.add_argument(
        "--inputs-only",
        dest="what",
        action="store_const",
        const="inputs",
        help="forget inputs and comments, and keep the rest",
    )
    what.add_argument(
        "--answers-only",
        dest="what",
        action="store_const",
        const="answers",
        help="only answers that are kept under an Idempotency-Key",
    )
    purging.set_defaults(what="rows")
    purging.add_argument("--dry-run", action="store_true", help="say how many, and change nothing")
    rotating = command.add(log, "rotate-key", rotate_key, "seal everything with a new key")
    for acting in (purging, rotating):
        command.signed(acting)


def status(options: argparse.Namespace, home: Home) -> int:
    from data.log.status import status as measured

    with _opened(home) as (engine, keyring):
        show(measured(engine, keyring), as_json=options.json)
    return 0


def migrate(options: argparse.Namespace, home: Home) -> int:
    from data.log.migrations import migrate as bring_up

    show(asdict(bring_up(home.log, now=datetime.now(UTC))), as_json=options.json)
    return 0


def export(options: argparse.Namespace, home: Home) -> int:
    from data.log.export import export as write

    period = Period.between(options.first, options.last)
    with _opened(home) as (engine, keyring), progress() as stage:
        exported = write(
            engine,
            keyring,
            options.model,
            period,
            options.out,
            inputs=options.inputs,
            overwrite=options.overwrite,
            done=lambda share: stage("writing the predictions", share),
        )
    show(asdict(exported), as_json=options.json)
    return 0


def purge(options: argparse.Namespace, home: Home) -> int:
    from data.log.purge import purge as forget

    try:
        before = datetime.strptime(options.before, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"--before: not a day (YYYY-MM-DD): {options.before!r}") from None
    with _opened(home) as (engine, _):
        purged = forget(
            engine,
            before=before,
            now=datetime.now(UTC),
            by=options.by,
            reason=options.reason,
            model=options.model,
            what=options.what,
            dry_run=options.dry_run,
        )
    show({**asdict(purged), "before": options.before}, as_json=options.json)
    return 0


def rotate_key(options: argparse.Namespace, home: Home) -> int:
    from data.log.rotate import rotate

    with _opened(home) as (engine, keyring):
        rotated = rotate(engine, keyring, now=datetime.now(UTC), by=options.by, reason=options.reason)
    show(asdict(rotated), as_json=options.json)
    if rotated.lost:
        sys.stderr.write(f"caremodels: {rotated.lost} sealed texts are opened by no key here\n")
        return 1
    return 0


@contextmanager
def _opened(home: Home) -> Iterator[tuple[Engine, Keyring]]:
    from data.log.schema import connect
    from data.log.seal import load_keyring

    engine = connect(home.log)
    try:
        yield engine, load_keyring(home.path)
    finally:
        engine.dispose()
