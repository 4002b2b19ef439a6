"""The command line: parses, wires the rooms together, prints. Nothing imports it.

Results go to standard output, as a short text or with ``--json`` as one JSON object; progress goes
to standard error and only to a terminal. Exit codes: 0 done or quiet, 1 failure, 2 usage,
3 alarm or gate refused, 4 not enough data.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data import command, key_commands, log_commands, mart_commands, marts, telemetry
from data.errors import CaremodelsError, GateRefusedError
from data.home import Home
from data.period import Period
from data.terminal import progress, show
from monitoring import commands as watching
from training import respond_commands

ROOT = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    telemetry.off()
    # XGBoost's threads spin while they wait, which is ruinous beside another busy process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options, Home.from_env())
    except CaremodelsError as error:
        print(f"caremodels: {error}", file=sys.stderr)
        for fault in error.errors:
            print(f"  {fault.field}: {fault.reason}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"caremodels: {error.strerror or type(error).__name__}{where}", file=sys.stderr)
        return 1
    return code


def train(options: argparse.Namespace, home: Home) -> int:
    from models import catalog
    from training import run

    with progress() as stage:
        trained = run.train(
            home,
            catalog.load(options.model),
            train_to=options.train_to,
            validate_to=options.validate_to,
            test_to=options.test_to,
            as_of=Period.between(options.as_of, None).start if options.as_of else None,
            effort=run.Effort(
                budget=int(options.memory * (1 << 30)),
                trials=options.trials,
                minutes=options.minutes,
                ablations=options.ablations,
            ),
            seed=options.seed,
            stage=stage,
        )
    show(asdict(trained), as_json=options.json, short=_headline)
    return 0


def evaluate(options: argparse.Namespace, home: Home) -> int:
    from models import artifact, catalog, registry
    from training import run

    spec = catalog.load(options.model)
    period = Period.between(options.first, options.last)
    with progress() as stage:
        stage("fetching the version", 0.0)
        version = options.version or registry.latest(home, spec.name)
        fitted = artifact.load(registry.fetch(home, spec.name, version), threads=2)
        tested = fitted.manifest.provenance.periods.get("test")
        if tested and not (options.first or options.last):
            period = Period.between(*tested)
        stage("evaluating", 0.3)
        figures = run.reevaluate(home, fitted, period, mart=marts.load(spec.mart))
    if figures["seen"]:
        print(
            f"caremodels: {figures['seen']} of these rows are of the period that the version learned "
            "from; the figures flatter it",
            file=sys.stderr,
        )
    show({"model": spec.name, "version": version, **figures}, as_json=options.json, short=_headline)
    return 0


def promote(options: argparse.Namespace, home: Home) -> int:
    from models import catalog
    from training import promotion

    with progress() as stage:
        result = promotion.promote(
            home,
            catalog.load(options.model),
            options.version,
            pointer=options.pointer,
            by=options.by,
            reason=options.reason,
            override_by=options.override_by,
            override_reason=options.override_reason,
            stage=stage,
        )
    show(_acted(result), as_json=options.json)
    return 0 if result.promoted else GateRefusedError.exit_code


def rollback(options: argparse.Namespace, home: Home) -> int:
    from training import promotion

    with progress() as stage:
        result = promotion.rollback(
            home, options.model, by=options.by, reason=options.reason, stage=stage
        )
    show(_acted(result), as_json=options.json)
    return 0


def withdraw(options: argparse.Namespace, home: Home) -> int:
    from training import promotion

    with progress() as stage:
        result = promotion.withdraw(
            home,
            options.model,
            pointer=options.pointer,
            by=options.by,
            reason=options.reason,
            stage=stage,
        )
    show(_acted(result), as_json=options.json)
    return 0


def recalibrate(options: argparse.Namespace, home: Home) -> int:
    from models import catalog
    from training import recalibrate as site

    dated = options.first or options.last
    with progress() as stage:
        result = site.recalibrate(
            home,
            catalog.load(options.model).name,
            site=options.site,
            version=options.version,
            period=Period.between(options.first, options.last) if dated else None,
            by=options.by,
            reason=options.reason,
            stage=stage,
        )
    show(_acted(result), as_json=options.json)
    return 0


def serve(options: argparse.Namespace, home: Home) -> int:
    from models import manifest, release
    from serving.access import listening

    host = listening.place(home, options.host)
    secure = listening.certificate(options.certfile, options.keyfile)
    models = release.models(home.releases)
    if not models:
        raise CaremodelsError(
            f"no model is released in {home.releases}: train one and promote it (caremodels promote)"
        )
    for model in models:
        version = release.pointed(home.releases, model=model)
        released = manifest.verify(home.releases / model / str(version))
        if released.provenance.use == "demonstration" and not options.demo:
            raise CaremodelsError(
                f"{model} {version} is for demonstration, not for care: serve it with --demo"
            )
    _free(host, options.port)
    scheme = "https" if secure else "http"
    print(f"caremodels: {scheme}://{host}:{options.port}/v1/models", file=sys.stderr)
    os.environ |= {
        "CAREMODELS_HOME": str(home.path),
        "CAREMODELS_DEMO": "1" if options.demo else "0",
        "CAREMODELS_WORKERS": str(options.workers),
        "BENTOML_HOME": str(home.path / "bentoml"),
    }
    words = ["bentoml", "serve", "serving.service:CareModels", "--working-dir", str(ROOT)]
    place = ["--host", host, "--port", str(options.port)]
    # The server takes this process over, so that a signal to it is a signal to the server.
    os.execv(sys.executable, [sys.executable, "-m", *words, *place, *secure])  # noqa: S606 no shell


def score(options: argparse.Namespace, home: Home) -> int:
    from serving.batch import run as batch

    with progress() as stage:
        counts = batch.score(
            home,
            options.model,
            version=options.version,
            period=Period.between(options.first, options.last),
            out=options.out,
            explain=options.explain,
            stage=stage,
        )
    show(asdict(counts), as_json=options.json)
    return 0


def card(options: argparse.Namespace, home: Home) -> int:
    from data.pseudonym import load_key
    from models import artifact, catalog, ledger, registry
    from training import card as cards

    spec = catalog.load(options.model)
    version = options.version or registry.latest(home, spec.name)
    folder = registry.fetch(home, spec.name, version)
    entries = ledger.verify(home.ledger, load_key(home.path))
    # Made anew: people may have written, and signed, since the version was trained.
    documents = cards.again(
        folder,
        artifact.load(folder),
        version=version,
        ledger=[e for e in entries if (e.model, e.version) == (spec.name, version)],
    )
    options.out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in documents.items():
        target = options.out / name
        target.write_bytes(content)
        written.append(str(target))
    show({"model": spec.name, "version": version, "files": written}, as_json=options.json)
    return 0


def ledger_verify(options: argparse.Namespace, home: Home) -> int:
    from training import audit

    verified = audit.verify(home, mlflow=options.mlflow)
    if not options.mlflow:
        print("caremodels: what MLflow knows of the ledger was not checked", file=sys.stderr)
    show(asdict(verified), as_json=options.json, short=_signed)
    return 0


def releases(options: argparse.Namespace, home: Home) -> int:
    from training import audit

    show({"releases": audit.releases(home, mlflow=options.mlflow)}, as_json=options.json)
    return 0


def demo(options: argparse.Namespace, home: Home) -> int:
    del home  # the demo keeps its own, under it
    script = ROOT / "benchmarks" / "demo.py"
    if not script.is_file():
        raise CaremodelsError("the demo runs from a checkout of the repository")
    outcome: int = runpy.run_path(str(script))["walk"](files=options.files, visits=options.visits)
    return outcome


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="caremodels", description="Clinical risk models: trained, explained, recorded, watched."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    mart_commands.add(commands)
    log_commands.add(commands)
    key_commands.add(commands)
    fitting = command.add_for_model(commands, "train", train, "fit, calibrate, evaluate, register")
    for limit in ("train", "validate", "test"):
        fitting.add_argument(f"--{limit}-to", metavar="YYYY-MM", help="inclusive")
    fitting.add_argument(
        "--as-of", metavar="YYYY-MM-DD", help="learn only from what was known before that day"
    )
    fitting.add_argument(
        "--memory",
        type=float,
        default=1.0,
        metavar="GIB",
        help="a matrix up to this size is held in memory, a larger one on disk",
    )
    fitting.add_argument("--seed", type=int, default=0)

    fitting.add_argument(
        "--trials", type=command.positive, default=0, metavar="N", help="search settings, so many times"
    )
    fitting.add_argument(
        "--minutes", type=float, metavar="M", help="start no trial after so many minutes"
    )
    fitting.add_argument(
        "--no-ablations", dest="ablations", action="store_false", help="leave out what they cost"
    )

    judging = command.add_for_model(
        commands, "evaluate", evaluate, "measure a version on a period of the mart"
    )
    command.version(judging, default="the newest")
    command.period(judging)
    _acts(commands)

    serving = command.add(commands, "serve", serve, "answer over HTTP")
    serving.add_argument("--port", type=int, default=3000)
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--workers", type=command.positive, default=1)
    serving.add_argument("--certfile", type=Path, metavar="FILE", help="TLS: the certificate chain, PEM")
    serving.add_argument("--keyfile", type=Path, metavar="FILE", help="TLS: its private key, PEM")
    serving.add_argument("--demo", action="store_true", help="also models that are not for care")

    scoring = command.add_for_model(commands, "score", score, "score rows of the mart into a file")
    command.version(scoring, default="the champion")
    command.period(scoring)
    scoring.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet")
    scoring.add_argument("--explain", action="store_true", help="with each feature's contribution")

    watching.add(commands)
    respond_commands.add(commands)

    showing = command.add_for_model(commands, "card", card, "write a version's card")
    command.version(showing, default="the newest")
    showing.add_argument("--out", type=Path, required=True, metavar="DIR")

    book = commands.add_parser("ledger", help="who did what").add_subparsers(required=True)
    for asking in (
        command.add(book, "verify", ledger_verify, "find any change, removal or reordering"),
        command.add(commands, "releases", releases, "which versions are released"),
    ):
        command.without_mlflow(asking)

    walking = command.add(commands, "demo", demo, "walk the whole journey, over a real server")
    walking.add_argument("--files", metavar="GLOB", help="NHAMCS files; default: simulated visits")
    walking.add_argument("--visits", type=command.positive, default=60_000, help="how many to simulate")
    return parser


def _acts(commands: Any) -> None:
    """What a person signs, and the ledger keeps."""
    promoting = command.add_for_model(
        commands, "promote", promote, "release a version that passes its gate"
    )
    promoting.add_argument("--version", required=True, metavar="N")
    promoting.add_argument(
        "--override-by", type=command.person, metavar="WHO", help="a second person, if the gate refuses"
    )
    promoting.add_argument("--override-reason", metavar="TEXT")
    returning = command.add_for_model(
        commands, "rollback", rollback, "make the champion before the present one champion again"
    )
    stopping = command.add_for_model(
        commands, "withdraw", withdraw, "take a pointer away: the service answers 503"
    )
    adapting = command.add_for_model(
        commands, "recalibrate", recalibrate, "a new version with the intercept of one site"
    )
    adapting.add_argument("--site", required=True, metavar="SITE")
    command.version(adapting, default="the champion, or else the newest")
    command.period(adapting)
    for acting in (promoting, stopping):
        command.pointer(acting)
    for acting in (promoting, returning, stopping, adapting):
        command.signed(acting)


def _free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            raise CaremodelsError(f"port {port} of {host} is taken or not to be had") from None


def _headline(result: Mapping[str, Any]) -> dict[str, Any]:
    """What fits on a screen of an evaluation; the rest is in the card."""
    figures = result.get("metrics", result)
    named = {name: figures[name] for name in ("n", "events", "auroc", "auprc", "brier", "calibration")}
    others = {
        name: {"auroc": row["auroc"], "calibration": row["calibration"]}
        for name, row in figures["comparators"].items()
    }
    head = {name: result[name] for name in ("model", "version", "run_id") if name in result}
    return {**head, **named, "comparators": others}


def _acted(result: Any) -> dict[str, Any]:
    """An act's result; that MLflow could not be told is said to a person as well."""
    if result.mlflow:
        print(f"caremodels: it is done, but MLflow does not show it: {result.mlflow}", file=sys.stderr)
    return asdict(result)


def _signed(result: Mapping[str, Any]) -> dict[str, Any]:
    """The ledger's last entry without its evidence."""
    last = {name: value for name, value in (result["last"] or {}).items() if name != "evidence"}
    return {**result, "last": last}


if __name__ == "__main__":
    sys.exit(main())
