"""The server over time: promotions, faults, signals, and a log that is never behind the answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from models import release

pytestmark = pytest.mark.slow


class Load:
    """Clients that ask one after the other; ``got`` holds (status, prediction_id, version)."""

    def __init__(self, server, visit, clients: int = 4) -> None:
        self.got: list[tuple[int, str, str]] = []
        self.broken = 0
        self._body = json.dumps({"instances": [visit]})
        self._server = server
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        headers = {"content-type": "application/json"}
        with httpx.Client(base_url=self._server.url, timeout=20) as client:
            while not self._over.is_set():
                try:
                    said = client.post("/v1/ed_admission/predict", content=self._body, headers=headers)
                except httpx.TransportError:
                    self.broken += 1
                    time.sleep(0.05)
                    continue
                body = said.json()
                first = body["predictions"][0]["prediction_id"] if said.status_code == 200 else ""
                self.got.append((said.status_code, first, body.get("version", "")))

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for status, _, _ in self.got)

    @property
    def versions(self) -> set[str]:
        return {version for _, _, version in self.got}


def missing_from_log(server, load: Load) -> set[str]:
    logged = {name for (name,) in server.rows("SELECT prediction_id FROM prediction")}
    return {name for status, name, _ in load.got if status == 200} - logged


@pytest.fixture(scope="module")
def server(serve):
    return serve("--demo", "--workers", "2")


def test_a_promotion_is_picked_up_without_a_failed_request(server, visit, waiting):
    with Load(server, visit).running() as load:
        waiting(lambda: "1" in load.versions)
        server.point("2")
        assert waiting(lambda: "2" in load.versions) < 4
        waiting(lambda: {v for _, _, v in load.got[-40:]} == {"2"}, seconds=10)
    assert load.broken == 0
    assert set(load.statuses) == {200}
    server.point("1")
    waiting(lambda: all(server.version() == "1" for _ in range(4)), seconds=10)


def test_a_corrupted_version_leaves_the_old_one_serving(server, visit, versions, waiting):
    shutil.copytree(versions["3"], server.releases / "ed_admission" / "3")
    server.point("3")
    waiting(lambda: server.client.get("/readyz").status_code == 503, seconds=10)
    assert server.client.get("/livez").status_code == 200
    assert server.predict(visit).json()["version"] == "1"
    server.point("1")
    waiting(lambda: [server.client.get("/readyz").status_code for _ in range(4)] == [200] * 4)
    assert "ed_admission 3 is not served" in server.said


def test_a_withdrawn_version_answers_no_more_within_seconds(server, visit, waiting):
    pointer = server.releases / "ed_admission" / "champion"
    pointer.unlink()
    waiting(lambda: [server.predict(visit).status_code for _ in range(6)] == [503] * 6, seconds=10)
    said = server.predict(visit)
    assert said.headers["content-type"] == "application/problem+json"
    assert said.json()["detail"] == "no version of ed_admission is released"
    assert server.client.get("/v1/models").json() == {"models": []}
    assert server.client.get("/readyz").status_code == 503
    server.point("1")
    waiting(lambda: [server.predict(visit).status_code for _ in range(6)] == [200] * 6, seconds=10)


def test_without_its_log_the_server_answers_nothing_and_then_recovers(server, visit, waiting):
    log, away = server.home / "log.db", server.home / "log.moved"
    outcome = {"prediction_id": "x", "outcome": 1, "observed_at": "2026-01-01T00:00:00Z"}
    log.rename(away)
    for response in (
        server.predict(visit),
        server.predict(visit, headers={"Idempotency-Key": "lost"}),
        server.client.post("/v1/outcomes", json=[outcome]),
    ):
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert "risk" not in response.text
    assert server.client.get("/readyz").status_code == 503
    assert server.client.get("/livez").status_code == 200
    assert not log.exists()
    away.rename(log)
    assert waiting(lambda: server.client.get("/readyz").status_code == 200) < 5
    assert server.predict(visit, headers={"Idempotency-Key": "lost"}).status_code == 200


def test_every_answer_is_in_the_log_though_a_worker_is_killed(server, visit, waiting):
    with Load(server, visit, clients=6).running() as load:
        for _ in range(2):
            before = len(load.got)
            waiting(lambda seen=before: len(load.got) > seen + 30)
            os.kill(server.workers[0].pid, signal.SIGKILL)
        waiting(lambda: len(server.workers) == 2)
        after = len(load.got)
        waiting(lambda: len(load.got) > after + 30)
    assert load.broken > 0  # it was hit
    assert set(load.statuses) == {200}
    assert not missing_from_log(server, load)


def test_sigterm_lets_answers_in_flight_complete_and_leaves_no_process(serve, visit, members):
    server = serve("--demo", "--workers", "2")
    with Load(server, visit).running() as load:
        while len(load.got) < 30:
            time.sleep(0.05)
        assert server.stop() < 10
    assert set(load.statuses) == {200}
    assert not missing_from_log(server, load)
    assert members(server) == []
    assert "Traceback" not in server.said


def test_workers_do_not_outlive_the_process_that_started_them(serve, waiting, members):
    server = serve("--demo")
    server.process.kill()
    server.process.wait()
    waiting(lambda: members(server) == [], seconds=10)


def test_a_demonstration_is_not_served_for_care(serve):
    server = serve(ready=False)
    assert server.process.wait(20) == 1
    assert "for demonstration, not for care: serve it with --demo" in server.said
    assert "Traceback" not in server.said


def test_a_worker_imports_nothing_heavy():
    heavy = {"mlflow", "shap", "evidently", "sklearn", "pandas", "matplotlib", "duckdb", "ibis"}
    heavy |= {"alembic", "sqlglot", "optuna", "opentelemetry.exporter", "training", "monitoring"}
    code = (
        "import sys, serving.service as s; early = set(sys.modules); s._prepare_xgboost();"
        "import serving.app, serving.deployed; print(*early); print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early, late = (set(line.split()) for line in ran.stdout.splitlines())
    assert not heavy & late
    assert not {"xgboost", "numpy", "pyarrow"} & early  # the process that starts the workers
    assert "xgboost" in late


def test_a_worker_carries_no_process_manager(server):
    for worker in server.workers:
        mapped = "\n".join(region.path for region in worker.memory_maps())
        assert "site-packages/msgspec/" in mapped
        assert not [name for name in ("zmq", "tornado") if f"site-packages/{name}/" in mapped]


def test_every_line_that_the_server_says_is_an_object_of_json(server, visit, waiting):
    server.predict(visit, visit | {"sbp": 888})
    waiting(lambda: server.said.count("ready: ed_admission 1") >= 2)
    lines = [line for line in server.said.splitlines() if not line.startswith("caremodels: ")]
    events = [json.loads(line) for line in lines]
    assert {"time", "level", "logger", "process", "event"} <= set.intersection(*map(set, events))
    assert "ready: ed_admission 1" in {event["event"] for event in events}


def test_a_challenger_that_cannot_be_loaded_is_shown_and_makes_nothing_unready(
    server, visit, versions, waiting
):
    shutil.copytree(versions["3"], server.releases / "ed_admission" / "3", dirs_exist_ok=True)
    release.point(server.releases, model="ed_admission", pointer="challenger", version="3")
    broken = 'caremodels_version_faults{model="ed_admission",pointer="challenger"} 2.0'
    waiting(lambda: broken in server.client.get("/metrics").text)
    assert [server.client.get("/readyz").status_code for _ in range(4)] == [200] * 4
    assert server.predict(visit).status_code == 200
    (server.releases / "ed_admission" / "challenger").unlink()
    waiting(lambda: broken.replace("2.0", "0.0") in server.client.get("/metrics").text)


def test_the_metrics_say_what_is_served_and_what_a_request_does(server, visit):
    server.predict(visit)
    shown = server.client.get("/metrics").text
    served = 'caremodels_version_served{model="ed_admission",pointer="champion",version="1"} 2.0'
    assert served in shown
    assert "caremodels_log_waiting 0.0" in shown


def test_a_challenger_answers_out_of_sight_in_every_worker(server, visit, waiting):
    release.point(server.releases, model="ed_admission", pointer="challenger", version="2")
    seen = []

    def shadowed():
        said = server.predict(visit).json()
        seen.append(said["version"])
        query = "SELECT version, used FROM prediction WHERE shadow_of = ?"
        name = said["predictions"][0]["prediction_id"]
        for _ in range(20):
            if found := server.rows(query, name):
                return found == [("2", "silent")]
            time.sleep(0.05)
        return False

    try:
        waiting(lambda: all(shadowed() for _ in range(6)), seconds=20)
    finally:
        release.unpoint(server.releases, model="ed_admission", pointer="challenger")
    assert set(seen) == {"1"}
