"""A prediction log on each database in turn, and a PostgreSQL that a test may stop and start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from data.log.schema import connect
from data.log.seal import load_keyring


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def log_url(request, tmp_path):
    """An empty place for a log on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def log(log_url):
    """A new log on each database."""
    engine = connect(log_url)
    yield engine
    engine.dispose()


@pytest.fixture
def keyring(tmp_path):
    return load_keyring(tmp_path)


class Postgres:
    """A server of its own, which a test may stop and start; durable, so that a restart is one."""

    def __init__(self, programs, folder):
        self._folder, self._programs = folder, programs
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql://tester@127.0.0.1:{self._port}/postgres"
        self._data = str(folder / "data")
        made = [programs / "initdb", "-D", self._data, "-A", "trust", "-U", "tester", "--locale=C.UTF-8"]
        subprocess.run(made, capture_output=True, user=self._user, cwd=folder, check=True)
        self._server = None

    def start(self):
        options = ["-c", f"port={self._port}", "-c", "listen_addresses=127.0.0.1"]
        with (self._folder / "log").open("a") as output:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-k", str(self._folder), *options],
                stdout=output,
                stderr=output,
                user=self._user,
                cwd=self._folder,
                start_new_session=True,
            )
        for _ in range(600):
            ready = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError((self._folder / "log").read_text()[-2000:])

    def stop(self, how=signal.SIGINT):
        """SIGINT ends connections in an orderly way; SIGQUIT is a crash."""
        self._server.send_signal(how)
        self._server.wait(timeout=30)


@pytest.fixture(scope="module")
def postgres_of_ones_own():
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path("/usr/bin")]
    if not (programs[-1] / "initdb").exists() or not find_spec("psycopg"):
        if "postgresql" in os.environ.get("CAREMODELS_TEST_ENGINES", "duckdb").split(","):
            pytest.fail("CAREMODELS_TEST_ENGINES names postgresql: no PostgreSQL server or no psycopg")
        pytest.skip("no PostgreSQL server or no psycopg here")
    with tempfile.TemporaryDirectory(prefix="caremodels-postgres-") as place:
        server = Postgres(programs[-1], Path(place))
        server.start()
        yield server
        server.stop()
