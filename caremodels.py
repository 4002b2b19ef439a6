"""The command line: parses, wires the rooms together, prints. Nothing imports it.

Results go to standard output, as a short text or with ``--json`` as one JSON object; progress goes
to standard error and only to a terminal. Exit codes: 0 done or quiet, 1 failure, 2 usage,
3 alarm or gate refused, 4 not enough data.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data import marts, source, telemetry
from data.contract import Mart
from data.errors import CaremodelsError, GateRefusedError, UsageError
from data.home import Home
from data.period import Period
from data.pseudonym import load_key
from data.terminal import progress, show

ROOT = Path(__file__).resolve().parent
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    telemetry.off()
    # XGBoost's threads spin while they wait, which is ruinous beside another busy process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parser().parse_args(arguments)
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


def mart_load(options: argparse.Namespace, home: Home) -> int:
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


def mart_simulate(options: argparse.Namespace, home: Home) -> int:
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
        print("caremodels: every row was refused", file=sys.stderr)
        return 1
    return 0


def mart_check(options: argparse.Namespace, home: Home) -> int:
    from data import quality
    from data.store import open_store

    with progress() as stage, open_store(home.marts, write=False) as store:
        found = quality.measure(store, marts.load(options.mart), stage=stage)
    show(found, as_json=options.json, short=quality.short)
    if found["refused"] > options.max_refused * found["read"]:
        share = f"{found['refused'] / found['read']:.1%}"
        print(f"caremodels: {share} of the rows were refused", file=sys.stderr)
        return 3
    return 0


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
            budget=int(options.memory * (1 << 30)),
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
        if not (options.first or options.last):
            period = Period.between(*fitted.manifest.provenance.periods["test"])
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
            stage=stage,
        )
    show(asdict(result), as_json=options.json)
    return 0 if result.promoted else GateRefusedError.exit_code


def serve(options: argparse.Namespace, home: Home) -> int:
    from models import manifest, release

    if options.host not in LOOPBACK:
        raise UsageError("--host: there are no API keys yet, so that only loopback may be listened on")
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
    _free(options.host, options.port)
    print(
        f"caremodels: http://{options.host}:{options.port}/v1/models, open to this machine only "
        "(no API key exists)",
        file=sys.stderr,
    )
    os.environ |= {
        "CAREMODELS_HOME": str(home.path),
        "CAREMODELS_DEMO": "1" if options.demo else "0",
        "CAREMODELS_WORKERS": str(options.workers),
        "BENTOML_HOME": str(home.path / "bentoml"),
    }
    command = ["bentoml", "serve", "serving.service:CareModels", "--working-dir", str(ROOT)]
    place = ["--host", options.host, "--port", str(options.port)]
    # The server takes this process over, so that a signal to it is a signal to the server.
    os.execv(sys.executable, [sys.executable, "-m", *command, *place])  # noqa: S606 no shell


def score(options: argparse.Namespace, home: Home) -> int:
    from serving import batch

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


def outcomes_load(options: argparse.Namespace, home: Home) -> int:
    from monitoring import outcomes

    with progress() as stage:
        totals = outcomes.load(home, marts.load(options.mart), stage=stage)
    show(totals, as_json=options.json)
    return 0


def monitor(options: argparse.Namespace, home: Home) -> int:
    from models import artifact, catalog, release
    from monitoring import run

    spec = catalog.load(options.model)
    period = Period.between(options.first, options.last)
    version = options.version or release.pointed(home.releases, model=spec.name)
    if version is None:
        raise CaremodelsError(f"{spec.name}: no version is released, so that nothing is to be watched")
    folder = home.releases / spec.name / version
    loaded = artifact.load(folder)
    with progress() as stage:
        found = run.monitor(
            home,
            loaded,
            version,
            period,
            at_promotion=json.loads((folder / "evaluation.json").read_text(encoding="utf-8")),
            stage=stage,
        )
    result = asdict(found)
    show(result, as_json=options.json, short=_verdict)
    return {"quiet": 0, "alarm": 3, "insufficient": 4}[result["verdict"]]


def card(options: argparse.Namespace, home: Home) -> int:
    from models import catalog, registry

    spec = catalog.load(options.model)
    version = options.version or registry.latest(home, spec.name)
    folder = registry.fetch(home, spec.name, version)
    options.out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in ("card.html", "evaluation.json"):
        target = options.out / name
        target.write_bytes((folder / name).read_bytes())
        written.append(str(target))
    show({"model": spec.name, "version": version, "files": written}, as_json=options.json)
    return 0


def ledger_verify(options: argparse.Namespace, home: Home) -> int:
    from models import ledger

    entries = ledger.verify(home.ledger, load_key(home.path))
    last = asdict(entries[-1]) if entries else None
    show({"entries": len(entries), "intact": True, "last": last}, as_json=options.json)
    return 0


def releases(options: argparse.Namespace, home: Home) -> int:
    from models import release

    found = {
        model: {
            pointer: release.pointed(home.releases, model=model, pointer=pointer)
            for pointer in ("champion", "challenger")
        }
        for model in release.models(home.releases)
    }
    show({"releases": found}, as_json=options.json)
    return 0


def demo(options: argparse.Namespace, home: Home) -> int:
    del home  # the demo keeps its own, under it
    script = ROOT / "benchmarks" / "demo.py"
    if not script.is_file():
        raise CaremodelsError("the demo runs from a checkout of the repository")
    outcome: int = runpy.run_path(str(script))["walk"](files=options.files, visits=options.visits)
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="caremodels", description="Clinical risk models: trained, explained, recorded, watched."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _mart_commands(commands)
    fitting = _model_command(commands, "train", train, "fit, calibrate, evaluate, register")
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

    judging = _model_command(commands, "evaluate", evaluate, "measure a version on a period of the mart")
    judging.add_argument("--version", metavar="N", help="default: the newest")
    _period(judging)

    promoting = _model_command(commands, "promote", promote, "release a version that passes its gate")
    promoting.add_argument("--version", required=True, metavar="N")
    promoting.add_argument(
        "--as", dest="pointer", choices=("champion", "challenger"), default="champion"
    )
    promoting.add_argument("--by", required=True, metavar="WHO")
    promoting.add_argument("--reason", required=True, metavar="TEXT")

    serving = _command(commands, "serve", serve, "answer over HTTP")
    serving.add_argument("--port", type=int, default=3000)
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--workers", type=_positive, default=1)
    serving.add_argument("--demo", action="store_true", help="also models that are not for care")

    scoring = _model_command(commands, "score", score, "score rows of the mart into a file")
    scoring.add_argument("--version", metavar="N", help="default: the champion")
    _period(scoring)
    scoring.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet")
    scoring.add_argument("--explain", action="store_true", help="with each feature's contribution")

    arrived = commands.add_parser("outcomes", help="what happened").add_subparsers(required=True)
    joining = _command(arrived, "load", outcomes_load, "join outcomes in the mart to the prediction log")
    joining.add_argument("mart", metavar="MART")

    watching = _model_command(commands, "monitor", monitor, "drift and outcomes of a window")
    watching.add_argument("--version", metavar="N", help="default: the champion")
    _period(watching)

    showing = _model_command(commands, "card", card, "write a version's card")
    showing.add_argument("--version", metavar="N", help="default: the newest")
    showing.add_argument("--out", type=Path, required=True, metavar="DIR")

    book = commands.add_parser("ledger", help="who promoted what").add_subparsers(required=True)
    _command(book, "verify", ledger_verify, "find any change, removal or reordering")
    _command(commands, "releases", releases, "which versions are released")

    walking = _command(commands, "demo", demo, "walk the whole journey, over a real server")
    walking.add_argument("--files", metavar="GLOB", help="NHAMCS files; default: simulated visits")
    walking.add_argument("--visits", type=_positive, default=60_000, help="how many to simulate")
    return parser


def _mart_commands(commands: Any) -> None:
    mart = commands.add_parser("mart", help="bring rows in").add_subparsers(required=True)
    load = _command(mart, "load", mart_load, "load files through a query and hold them to the contract")
    load.add_argument("mart", metavar="MART")
    which = load.add_mutually_exclusive_group(required=True)
    which.add_argument("--source", metavar="NAME", help=f"one of: {', '.join(source.known())}")
    which.add_argument("--sql", type=Path, metavar="FILE", help="your own query over the view 'source'")
    where = load.add_mutually_exclusive_group(required=True)
    where.add_argument("--files", metavar="GLOB", help="Parquet, CSV, PSV, Stata or SAS, zipped or not")
    where.add_argument("--from", dest="database", metavar="URL", help="a database: postgresql://…")
    simulate = _command(mart, "simulate", mart_simulate, "simulate visits to a hospital network")
    simulate.add_argument("--visits", type=_positive, default=200_000)
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument("--from", dest="first", default="2015-01", metavar="YYYY-MM")
    simulate.add_argument("--to", dest="last", default="2021-12", metavar="YYYY-MM")
    simulate.add_argument("--drift", metavar="KIND", help="new_site, fahrenheit, winter_surge, …")
    simulate.add_argument("--drift-from", metavar="YYYY-MM")

    looking = _command(
        mart, "check", mart_check, "what was refused, what is missing, by column and site"
    )
    looking.add_argument("mart", metavar="MART")
    looking.add_argument(
        "--max-refused", type=_share, default=0.05, metavar="SHARE", help="ends with 3 past it"
    )


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace, Home], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def _model_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace, Home], int], text: str
) -> argparse.ArgumentParser:
    parser = _command(commands, name, run, text)
    parser.add_argument("model", metavar="MODEL")
    return parser


def _period(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="first", metavar="YYYY-MM", help="month or day, inclusive")
    parser.add_argument("--to", dest="last", metavar="YYYY-MM", help="month or day, inclusive")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


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


def _verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict, what drifted, and where to read on."""
    names = ("model", "version", "n", "outcomes", "verdict")
    drifted = [row for row in result["columns"] if row["drifted"]]
    rest = {"drifted": drifted, "alarms": result["alarms"], "report": result["report"]}
    return {**{name: result[name] for name in names}, **rest}


if __name__ == "__main__":
    sys.exit(main())
