"""The commands that say who may call: ``caremodels key …``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data import command
from data.errors import UsageError
from data.home import Home
from data.pseudonym import load_key
from data.terminal import show

if TYPE_CHECKING:  # SQLAlchemy takes a while to import, and only these commands need it
    from sqlalchemy import Engine

    from data.log.access import ApiKey

LONGEST_DAYS = 3650


def add(commands: Any) -> None:
    """Declare ``key create``, ``key list`` and ``key revoke``."""
    key = commands.add_parser("key", help="who may call").add_subparsers(required=True)
    making = command.add(key, "create", create, "make an API key, which is shown once")
    making.add_argument("--name", required=True, help="of the application; the log keeps it")
    making.add_argument(
        "--scope",
        required=True,
        action="append",
        metavar="SCOPE[,…]",
        help="predict, outcome, read, admin; none implies another",
    )
    making.add_argument(
        "--site", action="append", metavar="SITE", help="may ask for this site only; may be repeated"
    )
    making.add_argument(
        "--expires", metavar="DAYS|DATE", help="after so many days, or at the end of a day (UTC)"
    )
    making.add_argument("--by", required=True, type=command.person, metavar="WHO")

    command.add(key, "list", listed, "every key ever made, without its secret")

    ending = command.add(key, "revoke", revoke, "end a key, in every worker within seconds")
    ending.add_argument("key_id", metavar="ID", help="as `key list` shows it")
    command.signed(ending)


def create(options: argparse.Namespace, home: Home) -> int:
    from data.log import access

    now = datetime.now(UTC)
    text, made = access.create_key(
        _log(home),
        load_key(home.path),
        name=options.name,
        scopes=[scope for given in options.scope for scope in given.split(",")],
        sites=options.site,
        expires_at=_end(options.expires, now),
        by=options.by,
        now=now,
    )
    show({"key": text, **_shown(made, now)}, as_json=options.json)
    sys.stderr.write("caremodels: keep it now: only a hash of it is stored\n")
    return 0


def listed(options: argparse.Namespace, home: Home) -> int:
    from data.log import access

    now = datetime.now(UTC)
    found = [_shown(key, now) for key in access.keys(_log(home))]
    show({"keys": found}, as_json=options.json)
    return 0


def revoke(options: argparse.Namespace, home: Home) -> int:
    from data.log import access

    now = datetime.now(UTC)
    ended = access.revoke_key(_log(home), options.key_id, by=options.by, reason=options.reason, now=now)
    show(_shown(ended, now), as_json=options.json)
    return 0


def _log(home: Home) -> Engine:
    from data.log.schema import connect

    return connect(home.log)


def _end(given: str | None, now: datetime) -> datetime | None:
    """When a key ends.

    >>> _end("7", datetime(2026, 11, 23, 12, tzinfo=UTC)).isoformat()
    '2026-11-30T12:00:00+00:00'
    >>> _end("2026-12-31", datetime(2026, 11, 23, 12, tzinfo=UTC)).isoformat()
    '2027-01-01T00:00:00+00:00'
    """
    if given is None:
        return None
    if given.isdecimal() and 1 <= int(given) <= LONGEST_DAYS:
        return now + timedelta(days=int(given))
    try:
        day = datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--expires: expected 1 to {LONGEST_DAYS} days, or a day as YYYY-MM-DD"
        ) from None
    return day


def _shown(key: ApiKey, now: datetime) -> Mapping[str, Any]:
    """Never its digest."""
    shown: dict[str, Any] = {
        "id": key.key_id,
        "name": key.name,
        "state": key.ended(now) or "active",
        "scopes": sorted(key.scopes),
        "sites": None if key.sites is None else sorted(key.sites),
        "created_at": _time(key.created_at),
        "created_by": key.created_by,
        "expires_at": _time(key.expires_at),
    }
    if key.revoked_at is not None:
        shown |= {
            "revoked_at": _time(key.revoked_at),
            "revoked_by": key.revoked_by,
            "revoked_for": key.revoked_for,
        }
    return shown


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat(timespec='seconds')}Z"
