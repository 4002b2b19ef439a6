"""Shared by all rooms: a home of its own for every test that asks, and one tiny real model."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import simulate
from models import artifact as artifacts
from models import catalog
from models.artifact import Artifact
from models.cohort import Cohort, select
from models.manifest import Provenance
from models.spec import Boosting
from training.build import build
from training.split import Split

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("duckdb", "postgresql", "spark")
# Which must be there: CI names all three, and then a missing one fails instead of being passed over.
REQUIRED = os.environ.get("CAREMODELS_TEST_ENGINES", "duckdb").split(",")
SETTINGS = (
    "CAREMODELS_HOME",
    "CAREMODELS_MARTS",
    "CAREMODELS_LOG",
    "CAREMODELS_LOG_KEYS",
    "CAREMODELS_RATE",
    "CAREMODELS_TIMEZONE",
    "CAREMODELS_ISSUERS",
    "MLFLOW_TRACKING_URI",
)
# No test judges a time, Hypothesis's own included: the same examples everywhere, however slow.
hypothesis.settings.register_profile(
    "caremodels",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("caremodels")

LONGEST = ("test_real_models.py", "test_killed.py")
FEW_TREES = Boosting(max_depth=3, learning_rate=0.3, rounds=25, early_stopping_rounds=5)


def pytest_collection_modifyitems(items):
    """The longest files first: of two processes neither is left with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """What is set on this machine is no business of a test's."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    """An empty home in a folder that pytest clears away."""
    monkeypatch.setenv("CAREMODELS_HOME", str(tmp_path / "home"))
    return Home.from_env()


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name != "duckdb" else ()) for name in ENGINES]
)
def marts_url(request, tmp_path) -> Iterator[str]:
    """An empty database of marts on each engine in turn."""
    match request.param:
        case "duckdb":
            yield f"duckdb://{tmp_path / 'marts.duckdb'}"
        case "postgresql":
            yield request.getfixturevalue("postgres_url")
        case "spark":
            yield f"{request.getfixturevalue('spark_master')}{tmp_path}/marts"


@pytest.fixture
def postgres_url(postgres_server) -> Iterator[str]:
    """A database of its own on a real PostgreSQL server."""
    import psycopg

    name = f"test_{time.monotonic_ns()}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"{postgres_server}/{name}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """PostgreSQL from the system's package, on a free port."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path("/usr/bin")]
    if not (programs[-1] / "initdb").exists() or not find_spec("psycopg"):
        _absent("postgresql", "no PostgreSQL server or no psycopg here")
    # Not in pytest's own folder, which is closed to others: PostgreSQL refuses to run as root.
    with tempfile.TemporaryDirectory(prefix="caremodels-postgres-") as place:
        yield from _postgres(programs[-1], Path(place))


def _postgres(programs: Path, folder: Path) -> Iterator[str]:
    user = None
    if os.geteuid() == 0:
        user = "postgres"
        shutil.chown(folder, user)
    port = _free_port()
    data = str(folder / "data")
    initdb = [programs / "initdb", "-D", data, "-A", "trust", "-U", "tester", "--locale=en_US.UTF-8"]
    if subprocess.run(initdb, capture_output=True, user=user, cwd=folder, check=False).returncode:
        initdb[-1] = "--locale=C.UTF-8"
        subprocess.run(initdb, capture_output=True, user=user, cwd=folder, check=True)
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = [programs / "postgres", "-D", data, "-k", str(folder), *options]
    with _running(server, folder / "log", port, user=user, cwd=folder):
        yield f"postgresql://tester@127.0.0.1:{port}"


@pytest.fixture(scope="session")
def spark_master(tmp_path_factory) -> Iterator[str]:
    """A standalone Spark cluster on loopback: a master process and a worker process."""
    if not find_spec("pyspark") or not shutil.which("java"):
        _absent("spark", "no pyspark or no Java here")
    home = Path(find_spec("pyspark").submodule_search_locations[0])
    folder = tmp_path_factory.mktemp("spark")
    port, worker_port = _free_port(), _free_port()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # The tests' own session leaves a core to the commands that they start.
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--conf spark.cores.max=1 pyspark-shell"
    started = [home / "bin" / "spark-class"]
    here = ["--host", "127.0.0.1", "--webui-port", "0"]
    master = [*started, "org.apache.spark.deploy.master.Master", *here, "--port", str(port)]
    worker = [*started, "org.apache.spark.deploy.worker.Worker", *here, "--port", str(worker_port)]
    size = ["--cores", "2", "--memory", "2g", "--work-dir", str(folder / "work")]
    url = f"spark://127.0.0.1:{port}"
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1"}
    with (
        _running(master, folder / "master.log", port, env=environment),
        _running([*worker, *size, url], folder / "worker.log", worker_port, env=environment),
    ):
        from data.engine import spark

        # One session for all tests: each would take ten seconds to start.
        session = spark.session(url)
        session.conf.set("spark.sql.shuffle.partitions", 2)  # of 200: there are a few hundred rows
        yield url
        session.stop()


def _absent(engine: str, why: str) -> None:
    if engine in REQUIRED:
        pytest.fail(f"CAREMODELS_TEST_ENGINES names {engine}: {why}")
    pytest.skip(why)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(command, log: Path, port: int, **settings) -> Iterator[None]:
    """A server that listens on ``port``; it and its children are gone when the block ends."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, **settings
        )
        try:
            for _ in range(600):
                if process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended: {log.read_text()[-2000:]}")
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            else:
                raise RuntimeError(f"{command[0]} does not listen: {log.read_text()[-2000:]}")
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


@pytest.fixture(scope="session")
def cohort() -> Cohort:
    """Some thousand simulated adults, in order of arrival."""
    visits = simulate(visits=4_000, seed=5, first="2019-01", last="2021-12")
    visits = visits.append_column("load_id", [["simulated"] * len(visits)])
    return select(catalog.load("ed_admission"), MART, visits)


@pytest.fixture(scope="session")
def tiny(cohort) -> Artifact:
    """``ed_admission`` with a handful of trees, made the way ``training.run`` makes one.

    Frozen, and shared by the whole session: what changes it takes a copy.
    """
    spec = catalog.load("ed_admission")
    learn = np.arange(len(cohort)) < 0.75 * len(cohort)
    split = Split(train=learn, validate=~learn, test=~learn, periods={}, seen_before=0)
    provenance = Provenance(
        use="care",
        load_ids=("simulated",),
        periods={
            "train": ("2019-01-01", "2020-12-31"),
            "validate": ("2021-01-01", "2021-06-30"),
            "test": ("2021-07-01", "2021-12-31"),
        },
        rows={"train": int(learn.sum()), "validate": int((~learn).sum())},
        flow=cohort.flow,
    )
    few = replace(spec, boosting=FEW_TREES)
    fitted = build(few, MART, cohort, split, provenance=provenance, seed=0, threads=1)
    return replace(fitted, spec=spec)


@pytest.fixture(scope="session")
def written(tiny, tmp_path_factory) -> Path:
    """The tiny model as a folder of files. Read it; what changes it takes a copy."""
    folder = tmp_path_factory.mktemp("written") / "artifact"
    artifacts.write(folder, tiny, evidence={"card.html": b"<p>A card.</p>\n"})
    return folder
