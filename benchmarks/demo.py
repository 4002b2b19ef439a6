"""The whole journey, typed as a user would: visits to a model, a service, drift, a report.

``caremodels demo`` runs it, and so does ``make bench``, which keeps the seconds of each stage in
``bench/demo.json``. Everything it makes lies in ``demo`` under the home and is made anew each time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from data import source
from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import simulate

MODEL = "ed_admission"
CLIENTS = 4
QUIET, DRIFTED = ("2021-03", "2021-04"), ("2021-05", "2021-06")
SEED = 7
BROKEN_THERMOMETER = {"drift": "fahrenheit", "drift_from": DRIFTED[0]}


@dataclass
class Walk:
    """Where the demo is: its home, and the seconds that each stage took."""

    home: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        spent = self.seconds.get(name, 0.0) + time.perf_counter() - began
        self.seconds[name] = round(spent, 2)

    def type(self, *words: str, stage: str, expect: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run ``caremodels`` with ``words`` and return what ``--json`` printed."""
        shown = " ".join(f'"{word}"' if " " in word or "*" in word else word for word in words)
        print(f"\n$ caremodels {shown}", flush=True)
        with self.stage(stage):
            done = subprocess.run(
                [sys.executable, "-m", "caremodels", *words, "--json"],
                env=self.environment,
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
        if done.returncode not in expect:
            raise SystemExit(f"caremodels {words[0]} ended with {done.returncode}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CAREMODELS_HOME": str(self.home)}


def walk(*, files: str | None = None, visits: int = 60_000) -> int:
    """Run the journey; returns an exit code. ``files``: NHAMCS visits instead of simulated ones."""
    outer = Home.from_env()
    home = outer.path / "demo"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    steps = Walk(home)
    began = time.perf_counter()
    loaded = _load(steps, files, visits)
    print(f"  {loaded['kept']} visits kept, {loaded['refused']} refused")

    limits = ("2019-12", "2020-12", "2021-12") if files else ("2018-12", "2019-12", "2020-12")
    names = ("--train-to", "--validate-to", "--test-to")
    words = [word for pair in zip(names, limits, strict=True) for word in pair]
    trained = steps.type("train", MODEL, *words, stage="train")
    figures = trained["metrics"]
    logistic = figures["comparators"]["logistic_regression"]["auroc"]["value"]
    print(
        f"  version {trained['version']}: AUROC {_interval(figures['auroc'])}, "
        f"logistic regression {logistic:.3f}, observed/expected {figures['calibration']['oe']:.2f}"
    )
    why = ["--by", "Demo", "--reason", "first version"]
    steps.type("promote", MODEL, "--version", trained["version"], *why, stage="promote")

    quiet, drifted = _live(files, visits)
    with _server(steps) as url:
        answers = _replay(steps, url, quiet, "replay")
        example = next(answer for answer in answers if answer["status"] == "scored")
        _explain(example)
        _join_outcomes(steps)
        before = _monitor(steps, QUIET, "monitor before")

        site = _thermometer_site(drifted)
        print(f"\nFrom {DRIFTED[0]} on the thermometer of {site} reports degrees Fahrenheit.")
        _replay(steps, url, drifted, "replay drifted")
        _join_outcomes(steps)
        after = _monitor(steps, DRIFTED, "monitor after")
    steps.seconds["total"] = round(time.perf_counter() - began, 2)
    _summary(steps, before, after)
    outer.bench.mkdir(parents=True, exist_ok=True)
    (outer.bench / "demo.json").write_text(json.dumps(steps.seconds, indent=1), encoding="utf-8")
    # Real visits are what they are: the survey's first year, for one, lacks the hour of arrival.
    as_told = (bool(files) or before["verdict"] == "quiet") and after["verdict"] == "alarm"
    return 0 if as_told else 1


def _load(steps: Walk, files: str | None, visits: int) -> dict[str, Any]:
    if files:
        return steps.type(
            "mart", "load", MART.name, "--source", "nhamcs_ed", "--files", files, stage="load"
        )
    numbers = ["--visits", str(visits), "--seed", str(SEED)]
    return steps.type("mart", "simulate", *numbers, "--to", DRIFTED[1], stage="load")


def _live(files: str | None, visits: int) -> tuple[pa.Table, pa.Table]:
    """Visits of the quiet and of the drifted window, as the front desk would send them.

    No model has learned from them: training ends before they begin, or in the survey's case tests
    on them.
    """
    if files:
        table = source.read(source.load("nhamcs_ed"), source.find(files))
        return _months(table, QUIET), _in_fahrenheit(_months(table, DRIFTED))
    network = {"visits": visits, "seed": SEED, "last": DRIFTED[1]}
    return (
        _months(simulate(**network), QUIET),
        _months(simulate(**network, **BROKEN_THERMOMETER), DRIFTED),
    )


def _in_fahrenheit(table: pa.Table) -> pa.Table:
    """The busiest site's temperatures in the other unit, as ``simulate`` does for its network."""
    sites = table["site"].value_counts()
    busiest = sites.field("values")[int(pc.index(sites.field("counts"), pc.max(sites.field("counts"))))]
    there = pc.equal(table["site"], busiest)
    celsius = table["temperature"]
    mixed = pc.if_else(there, pc.add(pc.multiply(celsius, 1.8), 32), celsius)
    return table.set_column(table.column_names.index("temperature"), "temperature", mixed)


def _months(table: pa.Table, months: tuple[str, str]) -> pa.Table:
    month = pc.strftime(table["arrived_at"], format="%Y-%m")
    within = pc.and_(pc.greater_equal(month, months[0]), pc.less_equal(month, months[1]))
    return table.filter(within)


def _thermometer_site(table: pa.Table) -> str:
    return str(table.filter(pc.greater(table["temperature"], 60))["site"][0])


@contextmanager
def _server(steps: Walk) -> Iterator[str]:
    """A real server on a free port; gone when the block ends, however it ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"\n$ caremodels serve --demo --port {port} &", flush=True)
    log = (steps.home / "serve.log").open("w", encoding="utf-8")
    with log, steps.stage("start the service"):
        process = subprocess.Popen(
            [sys.executable, "-m", "caremodels", "serve", "--demo", "--port", str(port)],
            env=steps.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _await_ready(url, process, log.name)
        except BaseException:
            _stop(process)
            raise
    try:
        yield url
    finally:
        _stop(process)


def _await_ready(url: str, process: subprocess.Popen[bytes], log: str) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"the service did not start; see {log}")
        try:
            if httpx.get(f"{url}/readyz", timeout=1).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the service was not ready within 30 s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _replay(steps: Walk, url: str, visits: pa.Table, stage: str) -> list[dict[str, Any]]:
    """Send each visit as a request of its own, as if it were happening."""
    inputs = [column.name for column in MART.columns if column.role == "input"]
    address = f"{url}/v1/{MODEL}/predict"

    def send(client: httpx.Client, visit: dict[str, Any]) -> dict[str, Any]:
        context = {
            "encounter_id": visit["visit_id"],
            "patient_id": visit["patient_id"],
            "site": visit["site"],
            "at": visit["arrived_at"].isoformat() + "+00:00",
        }
        body = {"instances": [{name: visit[name] for name in inputs}], "context": [context]}
        answer = client.post(address, json=body)
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            return {"status": "refused"}
        answer.raise_for_status()
        prediction: dict[str, Any] = answer.json()["predictions"][0]
        return prediction

    with (
        steps.stage(stage),
        httpx.Client(timeout=30) as client,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        answers = list(pool.map(lambda visit: send(client, visit), visits.to_pylist()))
    counts = {s: sum(a["status"] == s for a in answers) for s in ("scored", "abstained", "refused")}
    rate = len(answers) / steps.seconds[stage]
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"  {len(answers)} live requests ({rate:.0f} a second): {said}")
    return answers


def _explain(answer: dict[str, Any]) -> None:
    reasons = answer["explanation"]["contributions"][:3]
    said = "; ".join(
        f"{row['label']['en']} {row['value']} {row['contribution']:+.2f}" for row in reasons
    )
    print(f"  for example: risk {answer['risk']:.1%} ({answer['band']['label']['en']}), because {said}")


def _join_outcomes(steps: Walk) -> None:
    joined = steps.type("outcomes", "load", MART.name, stage="join outcomes")
    print(f"  {joined['joined']} outcomes came in late and were joined to their predictions")


def _monitor(steps: Walk, months: tuple[str, str], stage: str) -> dict[str, Any]:
    words = ["monitor", MODEL, "--from", months[0], "--to", months[1]]
    found = steps.type(*words, stage=stage, expect=(0, 3))
    print(f"  {found['verdict']}: {_drifted(found)}")
    return found


def _drifted(found: dict[str, Any]) -> str:
    rows = [row for row in found["columns"] if row["drifted"]]
    named = [row["column"] + (f" at {row['site']}" if row["site"] else "") for row in rows]
    return ", ".join(dict.fromkeys(named)) or "no column drifted"


def _interval(row: dict[str, float]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _summary(steps: Walk, before: dict[str, Any], after: dict[str, Any]) -> None:
    rows: list[tuple[str, str]] = []
    for name, found in (("before", before), ("after", after)):
        window = " to ".join(found["window"].values())
        rows += [(f"{name}, {window}", f"{found['verdict']}: {_drifted(found)}")]
        rows += [("  report", os.path.relpath(found["report"]))]
    card = steps.home / "card"
    subprocess.run(
        [sys.executable, "-m", "caremodels", "card", MODEL, "--out", str(card)],
        env=steps.environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    rows += [("the model's card", os.path.relpath(card / "card.html"))]
    rows += [("time", f"{steps.seconds['total']:.0f} s in all, from mart to report")]
    print("\nWhat was found")
    for name, text in rows:
        print(f"  {name:<36} {text}")
    home = os.path.relpath(steps.home)
    tracking = f"mlflow ui --backend-store-uri sqlite:///{home}/mlflow.db"
    print("\nWhat to type next")
    print(f"  export CAREMODELS_HOME={home}        what the demo made")
    print("  caremodels serve --demo               then open http://127.0.0.1:3000/v1/models")
    print(f"  {tracking}")


if __name__ == "__main__":
    ended = walk()
    figures = json.loads((Home.from_env().bench / "demo.json").read_text(encoding="utf-8"))
    print("\nSeconds")
    for stage_name, spent in figures.items():
        print(f"  {stage_name:<24} {spent:>7.1f}")
    raise SystemExit(ended)
