"""Requests a second and how long each takes: caremodels with everything on, beside others.

``make bench`` runs it and keeps the figures in ``bench/serving.json``. On one machine, with one model
and two workers each: caremodels (an API key, validation, explanation, every answer on the disk before
it is sent), BentoML that does nothing, BentoML with pandas and ``shap.TreeExplainer``, and
``mlflow models serve`` without explanation. The load comes from ``wrk``, the same for all, in rounds
that take turns, so that a machine that is busy for a while is busy for each of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import simulate

MODEL = "ed_admission"
SEED, WORKERS = 11, 2
CONNECTIONS = (1, 16)
ROUNDS, REQUESTS, LONGEST = 3, 6_000, 6
"""``REQUESTS`` of each peer, in so many rounds; of a slow one as many as ``LONGEST`` seconds hold."""
WANTED = {"mlflow": 8.0, "naive": 5.0, "noop": 0.4}
WANTED_LONGEST = 50.0
HERE = Path(__file__).resolve().parent
BENTOML = [sys.executable, "-m", "bentoml", "serve", "--working-dir", str(HERE)]

SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
{authorization}
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.stderr:write(string.format(
    '{{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p99": %.3f, "max": %.3f}}',
    summary.requests, summary.duration / 1e6, failed,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


@dataclass
class Peer:
    """A service under load. ``ready``: the path that tells; ``body``: what every request sends."""

    name: str
    command: list[str]
    port: int
    path: str
    ready: str
    body: dict[str, Any]
    settings: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    """Seconds until it was ready, and the memory of its workers in MiB."""
    process: psutil.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def ask(self) -> dict[str, Any]:
        answer = httpx.post(self.url, json=self.body, headers=self.headers, timeout=30)
        if answer.status_code != httpx.codes.OK:
            raise SystemExit(f"{self.name} answers {answer.status_code}: {answer.text[:300]}")
        result: dict[str, Any] = answer.json()
        return result


def typed(home: Path, *words: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "caremodels", *words, "--json"],
        env={**os.environ, "CAREMODELS_HOME": str(home)},
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"caremodels {words[0]} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def released(home: Path, visits: int) -> None:
    """A model of the usual size, trained and promoted as a user would."""
    shutil.rmtree(home, ignore_errors=True)
    typed(home, "mart", "simulate", "--visits", str(visits), "--seed", str(SEED))
    limits = {"--train-to": "2019-12", "--validate-to": "2020-12", "--test-to": "2021-12"}
    words = [word for pair in limits.items() for word in pair]
    trained = typed(home, "train", MODEL, "--no-ablations", *words)
    signed = ["--by", "Bench", "--reason", "to be measured"]
    typed(home, "promote", MODEL, "--version", trained["version"], *signed)


def keyed(home: Path) -> str | None:
    """An API key, so that the service is closed and asks each request for it."""
    if "key_commands" not in (HERE.parent / "caremodels.py").read_text():
        return None
    made = typed(home, "key", "create", "--name", "bench", "--scope", "predict", "--by", "Bench")
    return str(made["key"])


def instance() -> dict[str, Any]:
    """A simulated adult, as the front desk would send the visit."""
    inputs = [column.name for column in MART.columns if column.role == "input"]
    visits = simulate(visits=200, seed=SEED + 1).to_pylist()
    visit = next(v for v in visits if v["age"] >= 65 and v["acuity"])
    return {name: visit[name] for name in inputs}


def peers(home: Path, key: str | None) -> list[Peer]:
    """The five that are measured, each on a port of its own, none started."""
    visit = instance()
    version = (home / "releases" / MODEL / "champion").read_text().strip()
    at = {"patient_id": "P-1", "encounter_id": "E-1", "site": "county-03", "at": "2026-11-23T08:15:00Z"}
    plain = {"instances": [visit]}
    # MLflow knows doubles and strings.
    numbers = {n: float(v) if isinstance(v, bool | int) else v for n, v in visit.items()}
    records = {"dataframe_records": [{n: v for n, v in numbers.items() if v is not None}]}
    folder = str(home / "releases" / MODEL / version)
    own = {"CAREMODELS_HOME": str(home), "PEER_MODEL": folder, "BENTOML_HOME": str(home / "bentoml")}
    found = []

    def add(name: str, command: list[str], path: str, ready: str, body: Any, **more: Any) -> None:
        port = free_port()
        found.append(
            Peer(
                name=name,
                command=[*command, "--port", str(port)],
                port=port,
                path=path,
                ready=ready,
                body=body,
                settings={**own, **more.pop("settings", {})},
                **more,
            )
        )

    serve = [sys.executable, "-m", "caremodels", "serve", "--demo", "--workers", str(WORKERS)]
    asked = {**plain, "context": [at], "top": 5}
    add("caremodels", serve, f"/v1/{MODEL}/predict", "/readyz", asked, key=key)
    for name, service in (("native", "Native"), ("mounted", "Mounted"), ("naive", "Naive")):
        bento = [*BENTOML, f"peers:{service}", "--host", "127.0.0.1"]
        add(name, bento, "/predict", "/readyz", plain)
    mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    mlflow += ["--model-uri", f"models:/{MODEL}/{version}", "--workers", str(WORKERS)]
    # It starts uvicorn by name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "PATH": path}
    add("mlflow", mlflow, "/invocations", "/ping", records, settings=tracking)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(peer: Peer, folder: Path) -> Iterator[None]:
    """The peer, ready; it and all that it started are gone when the block ends."""
    log = folder / f"{peer.name}.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            peer.command,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **peer.settings},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    peer.process = started = psutil.Process(process.pid)
    try:
        while not _is_ready(peer):
            if process.poll() is not None or time.perf_counter() - began > 120:
                said = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"{peer.name} did not start: {said}")
            time.sleep(0.02)
        peer.about["ready_s"] = round(time.perf_counter() - began, 2)
        yield
    finally:
        family = [started, *started.children(recursive=True)] if started.is_running() else []
        process.send_signal(signal.SIGTERM)
        for left in psutil.wait_procs(family, timeout=15)[1]:
            left.kill()
        process.wait()


def _is_ready(peer: Peer) -> bool:
    try:
        address = f"http://127.0.0.1:{peer.port}{peer.ready}"
        return httpx.get(address, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def weigh(peer: Peer) -> None:
    """The memory of the largest ``WORKERS`` processes; PSS shares out what several have mapped."""
    assert peer.process
    found = [process.memory_full_info() for process in peer.process.children(recursive=True)]
    found.sort(key=lambda info: info.rss, reverse=True)
    peer.about["rss_mib"] = [round(info.rss / 2**20) for info in found[:WORKERS]]
    peer.about["pss_mib"] = [round(info.pss / 2**20) for info in found[:WORKERS]]


def load(peer: Peer, folder: Path, connections: int, seconds: int) -> dict[str, float]:
    """One round of wrk. Latencies in ms; a failed request ends the benchmark."""
    body, script = folder / f"{peer.name}.json", folder / f"{peer.name}.lua"
    body.write_text(json.dumps(peer.body), encoding="utf-8")
    asks = f'wrk.headers["Authorization"] = "Bearer {peer.key}"' if peer.key else ""
    script.write_text(SCRIPT.format(body=body, authorization=asks), encoding="utf-8")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script)]
    done = subprocess.run([*words, peer.url], capture_output=True, text=True, check=True)
    said: dict[str, float] = json.loads(done.stderr)
    if said["failed"]:
        raise SystemExit(f"{peer.name}: {said['failed']} of {said['requests']} requests failed")
    return said


def measure(found: list[Peer], folder: Path, requests: int) -> dict[str, dict[str, dict[str, float]]]:
    """Connections -> peer -> figures: medians over the rounds, and the longest of all of them."""
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for connections in CONNECTIONS:
        seconds = {}
        for peer in found:
            warm = load(peer, folder, connections, 2)
            rate = warm["requests"] / warm["seconds"]
            seconds[peer.name] = max(1, min(LONGEST, math.ceil(1.1 * requests / ROUNDS / rate)))
        rounds: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in found}
        for _ in range(ROUNDS):
            for peer in found:
                rounds[peer.name].append(load(peer, folder, connections, seconds[peer.name]))
        measured[f"c{connections}"] = {name: _summed(of) for name, of in rounds.items()}
    return measured


def _summed(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {
        "rps": round(statistics.median(r["requests"] / r["seconds"] for r in rounds), 1),
        "p50_ms": round(statistics.median(r["p50"] for r in rounds), 2),
        "p99_ms": round(statistics.median(r["p99"] for r in rounds), 2),
        "max_ms": round(max(r["max"] for r in rounds), 2),
        "requests": sum(r["requests"] for r in rounds),
    }


def agree(found: list[Peer]) -> None:
    """Each answers, and who gives a risk gives the same."""
    answers = {peer.name: peer.ask() for peer in found}
    ours = answers["caremodels"]["predictions"][0]["risk"]
    theirs = {
        "naive": answers["naive"]["risk"][0],
        "mlflow": answers["mlflow"]["predictions"][0]["risk"],
    }
    for name, risk in theirs.items():
        if abs(risk - ours) > 1e-6:
            raise SystemExit(f"{name} gives another risk than caremodels: nothing to compare")


def show(result: dict[str, Any]) -> None:
    print(f"{'':14}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'longest':>10}{'of':>8}")
    for connections in CONNECTIONS:
        figures = result[f"c{connections}"]
        print(f"{connections} connection{'s' if connections > 1 else ''}")
        for name, row in figures.items():
            print(
                f"  {name:12}{row['rps']:12.0f}{row['p50_ms']:10.2f}{row['p99_ms']:10.2f}"
                f"{row['max_ms']:10.1f}{row['requests']:8.0f}"
            )
        own = figures["caremodels"]
        ratios = {name: own["rps"] / figures[name]["rps"] for name in WANTED}
        said = [f"{of:.2f} of {name} (wanted {WANTED[name]})" for name, of in ratios.items()]
        print(
            f"  caremodels: {', '.join(said)}; longest {own['max_ms']:.0f} ms (< {WANTED_LONGEST:.0f})"
        )
    print("ready after seconds; MiB of each worker, resident and its share")
    for name, about in result["about"].items():
        print(f"  {name:12}{about['ready_s']:6.1f} s  {about['rss_mib']}  {about['pss_mib']}")


def main() -> None:
    options = argparse.ArgumentParser(description="what it costs to be asked")
    options.add_argument("--visits", type=int, default=30_000, help="to train on")
    options.add_argument("--requests", type=int, default=REQUESTS)
    options.add_argument("--keep", action="store_true", help="measure the model of the last run again")
    options.add_argument("--only", nargs="+", metavar="PEER", help="a look; nothing is written")
    asked = options.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("the load comes from wrk: apt-get install wrk")
    outer = Home.from_env()
    home = outer.path / "serving"
    if not asked.keep or not (home / "releases" / MODEL / "champion").is_file():
        released(home, asked.visits)
    found = peers(home, keyed(home))
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        if asked.only:
            found = [peer for peer in found if peer.name in asked.only]
        for peer in found:
            stack.enter_context(running(peer, folder))
        if not asked.only:
            agree(found)
        measured = measure(found, folder, asked.requests)
        for peer in found:
            weigh(peer)
    if asked.only:
        print(json.dumps({**measured, "about": {peer.name: peer.about for peer in found}}, indent=1))
        return
    for figures in measured.values():
        # The faster of both ways to do nothing.
        nothing = {name: figures.pop(name) for name in ("native", "mounted")}
        best = max(nothing, key=lambda name: nothing[name]["rps"])
        figures["noop"] = {**nothing[best], "which": best}
    result = {**measured, "about": {peer.name: peer.about for peer in found}}
    show(result)
    outer.bench.mkdir(parents=True, exist_ok=True)
    (outer.bench / "serving.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
