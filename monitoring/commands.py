"""The commands of who watches: outcomes in, verdicts and reports out. Exit codes: see caremodels.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from data import command, marts
from data.errors import CaremodelsError, NotFoundError, UsageError
from data.home import Home
from data.period import Period
from data.terminal import progress, show
from monitoring import alarm_commands
from monitoring.explain import commands as explaining

CODES = {"quiet": 0, "failed": 1, "alarm": 3, "insufficient": 4}


def add(commands: Any) -> None:
    """Declare them below ``commands``."""
    arrived = commands.add_parser("outcomes", help="what happened").add_subparsers(required=True)
    joining = command.add(
        arrived, "load", outcomes_load, "join outcomes in the mart to the prediction log"
    )
    joining.add_argument("mart", metavar="MART")

    watching = command.add(
        commands, "monitor", monitor, "drift, performance and alarms of a window; by default last month"
    )
    watching.add_argument("model", metavar="MODEL", nargs="?")
    watching.add_argument("--all", action="store_true", help="every champion and challenger")
    command.version(watching, default="the champion, or the challenger")
    command.pointer(watching)
    command.period(watching)
    watching.add_argument(
        "--every", choices=("month",), help="judge each month of the period in its turn"
    )
    watching.add_argument("--as-of", metavar="YYYY-MM-DD", help="with what the log held before that day")
    alarm_commands.add(commands)
    explaining.add(commands)


def outcomes_load(options: argparse.Namespace, home: Home) -> int:
    from monitoring import outcomes

    with progress() as stage:
        totals = outcomes.load(home, marts.load(options.mart), stage=stage)
    show(totals, as_json=options.json)
    return 0


def monitor(options: argparse.Namespace, home: Home) -> int:
    from monitoring import every, index, sinks

    if bool(options.model) == options.all:
        raise UsageError("monitor: name one model, or --all")
    if options.all and options.version:
        raise UsageError("monitor: --version belongs to one model, not to --all")
    asked = Period.between(options.as_of, None) if options.as_of else None
    now = asked.start if asked else datetime.now(home.zone).replace(tzinfo=None)
    as_of = asked.utc(home.zone)[0] if asked else None
    periods = _periods(options, now)
    targets = every.targets(home) if options.all else [_target(options, home)]
    if not targets:
        raise CaremodelsError("no version is released, so that nothing is to be watched")
    with every.alone(home), progress() as stage:
        run = every.watch(home, targets, periods, as_of=as_of, stage=stage)
        for missed in run.failed:
            _complain(f"{missed['model']}, {missed['window']}: {missed['error']}")
        for lost in sinks.deliver(home, run.results, run.failed):
            _complain(lost)
        page, code = None, CODES[run.verdict]
        try:
            page = str(index.publish(home, run.results, run.failed))
        except OSError as error:  # what was found is told all the same
            _complain(f"{home.reports / index.NAME}: {error.strerror or type(error).__name__}")
            code = code if run.verdict == "alarm" else CODES["failed"]
    if not options.all and len(periods) == 1:
        if run.results:
            show(asdict(run.results[0]), as_json=options.json, short=_verdict)
        return code
    show(
        {
            "verdict": run.verdict,
            "results": [asdict(found) for found in run.results],
            "failed": list(run.failed),
            "index": page,
        },
        as_json=options.json,
        short=_verdicts,
    )
    return code


def _complain(about: str) -> None:
    sys.stderr.write(f"caremodels: {about}\n")


def _target(options: argparse.Namespace, home: Home) -> Any:
    from models import catalog, release
    from monitoring.every import Target

    spec = catalog.load(options.model)
    version = options.version or release.pointed(home.releases, model=spec.name, pointer=options.pointer)
    if version is None:
        raise CaremodelsError(f"{spec.name}: no version is released, so that nothing is to be watched")
    if not (home.releases / spec.name / version).is_dir():
        raise NotFoundError(f"{spec.name}: version {version} was never released")
    return Target(model=spec.name, version=version, pointer=options.pointer)


def _periods(options: argparse.Namespace, now: datetime) -> list[Period]:
    from monitoring import every

    if not options.first and not options.last:
        if options.every:
            raise UsageError("monitor: --every wants --from and --to")
        return [every.last_month(now)]
    period = Period.between(options.first, options.last)
    if not options.every:
        return [period]
    if not (options.first and options.last):
        raise UsageError("monitor: --every wants --from and --to")
    return every.months(period)


def _verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict, what drifted, and where to read on."""
    names = ("model", "version", "n", "outcomes", "verdict")
    drifted = [row for row in result["columns"] if row["drifted"]]
    rest = {
        "drifted": drifted,
        "alarms": [_said(alarm) for alarm in result["alarms"]],
        "proposed": [_proposal(row) for row in result["proposed"]],
        "report": result["report"],
    }
    return {**{name: result[name] for name in names}, **rest}


def _said(alarm: Mapping[str, Any]) -> dict[str, Any]:
    return {name: alarm.get(name) for name in ("number", "state", "what", "message")}


def _proposal(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ("action", "why", "command")}


def _verdicts(result: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "model": f"{found['model']} {found['version']} ({found['pointer']})",
            "window": " to ".join(found["window"].values()),
            "n": found["n"],
            "outcomes": found["outcomes"],
            "verdict": found["verdict"],
            "alarms": len(found["alarms"]),
        }
        for found in result["results"]
    ]
    return {"verdict": result["verdict"], "results": rows, "index": result["index"]}
