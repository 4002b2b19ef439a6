"""The command of who asks why: ``caremodels explain``, of a window or of one prediction."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from data import command
from data.errors import CaremodelsError, NotEnoughDataError, NotFoundError, UsageError
from data.home import Home
from data.period import Period
from data.terminal import progress, show

SHOWN = 10
"""Features and steps that a terminal shows; ``--json`` has them all."""


def add(commands: Any) -> None:
    """Declare ``explain``."""
    asking = command.add_for_model(
        commands, "explain", explain, "what drives the scores of a window, or of one prediction"
    )
    command.version(asking, default="the champion, or the challenger")
    command.pointer(asking)
    command.period(asking)
    asking.add_argument("--prediction", metavar="ID", help="of one answer: its waterfall")
    asking.add_argument(
        "--out", type=Path, metavar="FILE", help="with --prediction: a page, which holds its values"
    )


def explain(options: argparse.Namespace, home: Home) -> int:
    if options.prediction:
        return _prediction(options, home)
    if options.out:
        raise UsageError("explain: --out goes with --prediction; the page of a window lies in the home")
    return _window(options, home)


def _window(options: argparse.Namespace, home: Home) -> int:
    from models import catalog, release
    from monitoring import every
    from monitoring.explain import run

    spec = catalog.load(options.model)
    version = options.version or release.pointed(home.releases, model=spec.name, pointer=options.pointer)
    if version is None:
        raise CaremodelsError(f"{spec.name}: no version is released, so that nothing is to be explained")
    loaded, figures = every.released(home, spec.name, version)
    with progress() as stage:
        found = run.explain(
            home,
            loaded,
            version,
            _period(options, home),
            pointer=options.pointer,
            at_promotion=figures,
            stage=stage,
        )
    show(asdict(found), as_json=options.json, short=_short)
    if found.reason:
        sys.stderr.write(f"caremodels: {found.reason}; what is told is from training\n")
        return NotEnoughDataError.exit_code
    return 0


def _period(options: argparse.Namespace, home: Home) -> Period:
    """Without dates the twelve whole months before this one."""
    if options.first or options.last:
        return Period.between(options.first, options.last)
    from monitoring import every

    last = every.last_month(datetime.now(home.zone).replace(tzinfo=None))
    first = last.end.replace(year=last.end.year - 1)
    return Period(first, last.end)


def _prediction(options: argparse.Namespace, home: Home) -> int:
    from data.log import one
    from data.log.schema import connect
    from data.log.seal import load_keyring
    from monitoring import every
    from monitoring.explain import page
    from monitoring.explain.waterfall import waterfall

    if options.first or options.last or options.version:
        raise UsageError("explain: a prediction has its own time and version; leave out the others")
    engine = connect(home.log)
    try:
        told = one.find(engine, options.prediction, keyring=load_keyring(home.path))
    finally:
        engine.dispose()
    if told.model != options.model:
        raise NotFoundError(f"this prediction is of {told.model}, not of {options.model}")
    loaded, _ = every.released(home, told.model, told.version)
    found = waterfall(loaded, told)
    if options.out:
        _write(options.out, page.prediction(found, loaded))
    show(asdict(found), as_json=options.json, short=_steps)
    if found.exact is False:
        sys.stderr.write(
            f"caremodels: computed again the risk differs by {found.apart:.2g} from what was answered\n"
        )
        return CaremodelsError.exit_code
    return 0


def _write(file: Path, content: bytes) -> None:
    """For this user's eyes alone; what stands there already is not written over."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"--out {file}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
    names = ("model", "version", "window", "n", "explained")
    rows = [
        {
            "feature": row["feature"],
            "share": None if row["share"] is None else row["share"]["value"],
            "at training": row["training"],
            "adds": row["mean"],
        }
        for row in result["features"][:SHOWN]
    ]
    return {**{name: result[name] for name in names}, "features": rows, "report": result["report"]}


def _steps(result: Mapping[str, Any]) -> dict[str, Any]:
    from monitoring.explain.page import said, stood

    names = ("prediction_id", "model", "version", "at", "site", "status")
    told = {name: result[name] for name in names}
    if result["status"] != "scored":
        return {**told, "withheld": [dict(row) for row in result["withheld"]]}
    reasons = [
        {
            "feature": row["feature"],
            "value": said(row["value"], row["unit"]),
            "adds": row["contribution"],
            "among training": stood(row) or None,
        }
        for row in result["reasons"][:SHOWN]
    ]
    rest = sum(row["contribution"] for row in result["reasons"][SHOWN:])
    return {
        **told,
        "risk": result["risk"],
        "base_value": result["base_value"],
        "reasons": reasons,
        "others together": rest,
        "exact": result["exact"],
    }
