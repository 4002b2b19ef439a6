"""Releases of the tiny model, and the real server on loopback."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from data.contract import sample
from data.marts import ed_visit, icu_hour
from data.simulate import simulate
from models import artifact, catalog, release
from models.artifact import Artifact
from models.calibration import Calibration
from models.cohort import select
from models.manifest import Provenance
from models.spec import Boosting, Support
from serving.scorer import Scorer
from training.build import build
from training.split import Split

EVIDENCE = {
    "evaluation.json": b'{"auroc": 0.8}',
    "card.html": b"<p>A card.</p>\n",
    "card.json": b'{"title": "A card"}',
}
PATIENCE = 30.0
MARK = "STARTED_BY_TEST"


@pytest.fixture
def visit() -> dict[str, Any]:
    """An ill adult, without any history."""
    return {
        "age": 71,
        "sex": "female",
        "temperature": 38.4,
        "heart_rate": 124,
        "respiratory_rate": 24,
        "sbp": 88,
        "dbp": 50,
        "spo2": 91,
        "acuity": 2,
        "ambulance": True,
        "reason_1": "dyspnoea",
    }


@pytest.fixture(scope="session")
def demonstration(tiny) -> Artifact:
    """The tiny model, as if it had been trained on the survey."""
    provenance = replace(tiny.manifest.provenance, use="demonstration")
    return replace(tiny, manifest=replace(tiny.manifest, provenance=provenance))


@pytest.fixture
def scorer(demonstration) -> Scorer:
    return Scorer(artifact=demonstration, version="1", key=b"0123456789abcdef")


@pytest.fixture
def undemanding(demonstration) -> Scorer:
    """One that answers anybody of its cohort: rows drawn at random are like no patient's."""
    spec = replace(demonstration.spec, support=Support())
    return Scorer(artifact=replace(demonstration, spec=spec), version="1", key=b"0123456789abcdef")


def built(spec, mart, table, **about) -> Artifact:
    """A handful of trees on ``table``, made the way ``training.run`` makes them."""
    table = table.append_column("load_id", [["simulated"] * len(table)])
    cohort = select(spec, mart, table)
    learn = cohort.person % 4 > 0
    split = Split(train=learn, validate=~learn, test=~learn, periods={})
    few = replace(spec, boosting=Boosting(max_depth=3, learning_rate=0.3, rounds=15))
    about = {"use": "demonstration", "rows": {"train": int(learn.sum())}, "flow": cohort.flow} | about
    return build(few, mart, cohort, split, provenance=Provenance(**about), seed=0, threads=1)


@pytest.fixture(scope="session")
def triage() -> Artifact:
    """``ed_triage``, ordinal, with a shift for one site."""
    visits = simulate(visits=3_000, seed=3, first="2019-01", last="2019-12")
    place = visits.column_names.index("acuity")
    # Hardly any simulated visit is of the first level.
    first = pc.and_(pc.equal(visits["acuity"], 2), pc.greater(visits["heart_rate"], 95))
    level = pc.if_else(pc.fill_null(first, fill_value=False), 1, visits["acuity"])
    visits = visits.set_column(place, visits.schema.field(place), level)
    fitted = built(catalog.load("ed_triage"), ed_visit.MART, visits)
    line = replace(fitted.calibration, sites={"county-01": 0.4})
    # Rows drawn at random are like no patient's.
    return replace(fitted, calibration=line, spec=replace(fitted.spec, support=Support()))


def stays(count: int, seed: int) -> pa.Table:
    """Hours in intensive care that belong to nobody; some hours of each stay are missing."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, count)
    stay = np.repeat(np.arange(count), lengths)
    hours = np.concatenate([np.cumsum(rng.choice([1, 1, 1, 2, 9], length)) for length in lengths])
    drawn = sample(icu_hour.MART, len(stay), seed)
    ill = rng.random(count)[stay] < 0.3
    lactate = np.where(rng.random(len(stay)) < 0.5, np.round(rng.gamma(2, 1 + 2 * ill), 1), np.nan)
    own = {
        "stay_id": pa.array([f"stay-{number}" for number in stay]),
        "patient_id": pa.array([f"patient-{number}" for number in stay]),
        "icu_hour": pa.array(hours),
        # Some come in each of the first days of a year, and stay for up to three days.
        "charted_at": pa.array(np.datetime64("2024-01-01", "us") + (stay * 7 + hours) * 3_600_000_000),
        "lactate": pa.array(lactate, from_pandas=True),
        "sepsis_6h": pa.array(rng.random(len(stay)) < np.where(ill, 0.5, 0.1)),
    }
    for name, values in own.items():
        place = drawn.column_names.index(name)
        drawn = drawn.set_column(place, drawn.schema.field(name), values)
    return drawn


@pytest.fixture(scope="session")
def hours() -> Callable[[int, int], pa.Table]:
    return stays


LOOKBACK = 6


@pytest.fixture(scope="session")
def sepsis() -> Artifact:
    """``sepsis`` on a few of its columns, with a short lookback."""
    spec = replace(
        catalog.load("sepsis"),
        features=("icu_hour", "age", "sex", "lactate", "heart_rate", "shock_index", "hours_before_icu"),
        comparators=(),
        support=Support(),
        alert_by="declared",
        lookback=LOOKBACK,
    )
    return built(spec, icu_hour.MART, stays(150, 4))


@pytest.fixture(scope="session")
def versions(demonstration, tmp_path_factory) -> dict[str, Path]:
    """Version -> its artifact: 1 and 2 differ in their calibration, 3 does not verify."""
    folder = tmp_path_factory.mktemp("versions")
    for version, intercept in (("1", 0.0), ("2", 0.5), ("3", 1.0)):
        line = Calibration(intercept=intercept, slope=demonstration.calibration.slope)
        artifact.write(folder / version, replace(demonstration, calibration=line), evidence=EVIDENCE)
    booster = folder / "3" / "booster.ubj"
    booster.write_bytes(booster.read_bytes()[:-1] + b"!")
    return {version: folder / version for version in ("1", "2", "3")}


@dataclass
class Server:
    """A running ``caremodels serve``, or another command that listens."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]
    output: Path
    client: httpx.Client
    mark: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        """Standard output and standard error so far."""
        return self.output.read_text(errors="replace")

    @property
    def releases(self) -> Path:
        return self.home / "releases"

    @property
    def workers(self) -> list[psutil.Process]:
        living = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # a zombie counts as one
                if any("worker.service" in part for part in process.cmdline()):
                    living.append(process)
        return living

    def predict(self, *instances: Any, **more: Any) -> httpx.Response:
        headers = more.pop("headers", None)
        body = {"instances": list(instances), **more}
        return self.client.post("/v1/ed_admission/predict", json=body, headers=headers)

    def send(
        self, content: Any, path: str = "/v1/ed_admission/predict", **headers: str
    ) -> httpx.Response:
        kind = {"content-type": "application/json"}
        return self.client.post(path, content=content, headers=kind | headers)

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What the prediction log holds."""
        log = sqlite3.connect(f"file:{self.home / 'log.db'}?mode=ro", uri=True, timeout=10)
        try:
            return log.execute(query, values).fetchall()
        finally:
            log.close()

    def point(self, version: str) -> None:
        release.point(self.releases, model="ed_admission", pointer="champion", version=version)

    def version(self) -> str:
        return self.client.get("/v1/ed_admission").json()["version"]

    def stop(self) -> float:
        """SIGTERM; seconds until the last process of the group is gone."""
        began = time.monotonic()
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        until(lambda: not left(self))
        return time.monotonic() - began


def left(server: Server) -> list[int]:
    """Living processes that the server's command started, by the mark in their environment.

    Neither the process group nor the session tells: BentoML's workers have their own.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(MARK) == server.mark:
                found.append(process.pid)
    return found


def until(met: Callable[[], Any], seconds: float = PATIENCE) -> float:
    """Wait until ``met``; the seconds it took."""
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds, f"not met in {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def waiting() -> Callable[..., float]:
    return until


@pytest.fixture(scope="session")
def members() -> Callable[[Server], list[int]]:
    return left


@pytest.fixture(scope="session")
def listen() -> Iterator[Callable[..., Server]]:
    """Run a command that serves; what still runs in the end is ended."""
    started: list[Server] = []

    def start(command: list[str], home: Path, port: int, *, cwd: Path, **settings: str) -> Server:
        mark = uuid.uuid4().hex
        output = home.parent / f"{home.name}.{port}.out"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CAREMODELS_", "BENTOML_"))}
        with output.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                cwd=cwd,
                env=kept | settings | {MARK: mark},
                start_new_session=True,
            )
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
        started.append(Server(home, port, process, output, client, mark))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1; and its key."""
    place = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "caremodels test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (place / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (place / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return place / "cert.pem", place / "key.pem"


@pytest.fixture(scope="session")
def serve(listen, versions, tmp_path_factory) -> Callable[..., Server]:
    """A server on a home of its own, with version 1 released; ready when it is returned."""

    def start(*options: str, ready: bool = True) -> Server:
        home = tmp_path_factory.mktemp("served") / "home"
        for version in ("1", "2"):
            release.publish(home / "releases", versions[version], model="ed_admission", version=version)
        release.point(home / "releases", model="ed_admission", pointer="champion", version="1")
        port = free_port()
        command = [sys.executable, "-m", "caremodels", "serve", "--port", str(port), *options]
        server = listen(command, home, port, cwd=home.parent, CAREMODELS_HOME=str(home))
        if ready:
            until(lambda: answers(server))
        return server

    return start


def answers(server: Server) -> bool:
    """Whether it is ready. Fails at once where the process has ended."""
    assert server.process.poll() is None, server.said
    try:
        return server.client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def served(serve) -> Server:
    """The server that most tests share: two workers."""
    return serve("--demo", "--workers", "2")
