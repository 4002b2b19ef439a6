"""The commands of who answers for alarms: ``caremodels alarms …``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from data import command
from data.home import Home
from data.terminal import show


def add(commands: Any) -> None:
    """Declare ``alarms list``, ``acknowledge``, ``close`` and ``rules``."""
    alarms = commands.add_parser(
        "alarms", help="what stands open, and who looks into it"
    ).add_subparsers(required=True)
    listing = command.add(
        alarms, "list", list_, "the alarms that stand, with those that stopped by themselves"
    )
    listing.add_argument("model", metavar="MODEL", nargs="?")
    listing.add_argument("--all", action="store_true", help="closed ones as well")
    for name, run, text in (
        ("acknowledge", acknowledge, "say that somebody looks into an alarm"),
        ("close", close, "say that an alarm is dealt with; a later window may open it again"),
    ):
        acting = command.add(alarms, name, run, text)
        acting.add_argument(
            "number", type=command.positive, metavar="N", help="of caremodels alarms list"
        )
        command.signed(acting)
    ruling = alarms.add_parser("rules", help="print alerting rules for Prometheus")
    ruling.set_defaults(run=rules)


def list_(options: argparse.Namespace, home: Home) -> int:
    from models import catalog
    from monitoring import states

    model = catalog.load(options.model).name if options.model else None
    found = [_told(one) for one in states.listed(home, model=model, closed=options.all)]
    show({"alarms": found}, as_json=options.json, short=_short)
    return 0


def acknowledge(options: argparse.Namespace, home: Home) -> int:
    from monitoring import states

    done = states.acknowledge(home, options.number, by=options.by, reason=options.reason)
    show(_told(done), as_json=options.json, short=_line)
    _refresh(home)
    return 0


def close(options: argparse.Namespace, home: Home) -> int:
    from monitoring import states

    done = states.close(home, options.number, by=options.by, reason=options.reason)
    show(_told(done), as_json=options.json, short=_line)
    _refresh(home)
    if done.quiet_from is None:
        sys.stderr.write(
            f"caremodels: it was raised to {done.seen_to}; a later window may open it again\n"
        )
    return 0


def rules(options: argparse.Namespace, home: Home) -> int:
    from monitoring import prometheus

    del options, home
    sys.stdout.write(prometheus.rules())
    return 0


def _refresh(home: Home) -> None:
    """What Prometheus reads, so that an alert ends with the alarm."""
    from monitoring import sinks

    for lost in sinks.refresh(home):
        sys.stderr.write(f"caremodels: {lost}\n")


def _told(one: Any) -> dict[str, Any]:
    """An alarm as JSON: what was raised, and what became of it."""
    from dataclasses import asdict

    named = ("number", "model", "version", "pointer", "state")
    raised = {name: value for name, value in one.alarm.items() if name not in named}
    rest = asdict(one)
    return {
        **{name: rest[name] for name in named},
        **raised,
        "opened_at": one.at,
        "window": dict(one.window),
        "seen_to": one.seen_to,
        "quiet_from": one.quiet_from,
        "acknowledged": rest["acknowledged"],
        "closed": rest["closed"],
        "answered": list(one.answered),
    }


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"alarms": [_line(row) for row in result["alarms"]]}


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    from monitoring.alarms import where

    act = row["closed"] or row["acknowledged"]
    return {
        "number": row["number"],
        "model": f"{row['model']} {row['version']} ({row['pointer']})",
        "what": where(row),
        "since": row["since"] or row["window"]["from"],
        "last seen": row["seen_to"],
        "not raised since": row["quiet_from"],
        "state": f"{row['state']} by {act['by']}" if act else row["state"],
        "calls for": row["response"],
        "says": row["message"],
    }
