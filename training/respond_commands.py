"""The command that carries out what alarms call for: ``caremodels respond``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from data import command
from data.errors import GateRefusedError
from data.home import Home
from data.terminal import progress, show


def add(commands: Any) -> None:
    """Declare ``respond``."""
    answering = command.add(
        commands, "respond", respond, "carry out what alarms call for: recalibrate, retrain or withdraw"
    )
    answering.add_argument(
        "alarms", type=command.positive, nargs="+", metavar="N", help="numbers of caremodels alarms list"
    )
    answering.add_argument(
        "--by", type=command.person, metavar="WHO", help="needed unless change-control.toml allows it"
    )
    answering.add_argument("--reason", metavar="TEXT")


def respond(options: argparse.Namespace, home: Home) -> int:
    from training import respond as response

    with progress() as stage:
        done = response.respond(home, options.alarms, by=options.by, reason=options.reason, stage=stage)
    show(asdict(done), as_json=options.json, short=_short)
    if done.mlflow:
        sys.stderr.write(f"caremodels: it is done, but MLflow does not show it: {done.mlflow}\n")
    if done.refused:
        sys.stderr.write(
            f"caremodels: {done.model} {done.version} is registered and not pointed to: "
            f"{'; '.join(done.refused)}\n"
        )
        return GateRefusedError.exit_code
    return 0


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
    names = ("alarms", "model", "action", "from_version", "version", "pointed", "by", "entry")
    rows = [
        {
            "site": row["site"],
            "events": row["events"],
            "shift": row["shift"],
            "O/E before": row["before"]["oe"],
            "after": row["after"]["oe"],
        }
        for row in result["details"]
        if "site" in row
    ]
    return {**{name: result[name] for name in names}, **({"sites": rows} if rows else {})}
