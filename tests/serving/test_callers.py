"""Callers of a real server: over TLS, beyond loopback, with a key that is made and revoked."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from data.log import access
from data.log.schema import connect
from data.pseudonym import load_key
from models import release

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def home(versions, tmp_path_factory) -> Path:
    """With a release and a log, in which the first key is."""
    home = tmp_path_factory.mktemp("callers") / "home"
    release.publish(home / "releases", versions["1"], model="ed_admission", version="1")
    release.point(home / "releases", model="ed_admission", pointer="champion", version="1")
    return home


@pytest.fixture(scope="module")
def engine(home):
    engine = connect(home / "log.db")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def make(engine, home):
    def key(*scopes: str, sites=None) -> str:
        how = {"name": "ward", "scopes": scopes, "sites": sites, "by": "Dr Chen"}
        return access.create_key(engine, load_key(home), **how, now=datetime.now(UTC))[0]

    return key


@pytest.fixture(scope="module")
def server(home, make, certificate, listen, waiting):
    """Two workers, TLS, every address of this machine."""
    make("read")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    certfile, keyfile = map(str, certificate)
    tls = ["--certfile", certfile, "--keyfile", keyfile]
    where = ["--host", "0.0.0.0", "--port", str(port), "--workers", "2"]
    command = [sys.executable, "-m", "caremodels", "serve", "--demo", *where, *tls]
    started = listen(command, home, port, cwd=home.parent, CAREMODELS_HOME=str(home))
    started.client = httpx.Client(
        base_url=f"https://127.0.0.1:{port}",
        verify=ssl.create_default_context(cafile=certfile),
        headers={"connection": "close"},  # so that either worker may answer
        timeout=30,
    )

    def ready() -> bool:
        assert started.process.poll() is None, started.said
        try:
            return started.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    waiting(ready)
    return started


def models(server, key: str | None = None) -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return server.client.get("/v1/models", headers=headers).status_code


def test_it_says_that_it_is_closed_and_speaks_tls_only(server):
    assert "https://0.0.0.0" in server.said
    assert "closed but to API keys" in server.said
    assert server.client.get("/livez").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/livez")
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with context.wrap_socket(plain) as wire:
            assert wire.cipher()[0].startswith("ECDHE-")


def test_a_head_without_end_is_not_read_to_its_end(server, certificate):
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
    ):
        wire.sendall(b"GET /livez HTTP/1.1\r\nx-large: " + b"x" * 500_000)
        assert wire.recv(100).startswith(b"HTTP/1.1 431")


def test_a_caller_without_a_key_is_told_how_and_nothing_else(server):
    said = server.client.get("/v1/models")
    assert said.status_code == 401
    assert said.headers["www-authenticate"] == "Bearer"
    assert said.json()["detail"] == "no key and no token"
    assert server.client.get("/openapi.json").status_code == 200
    assert server.client.get("/metrics").status_code == 401


def test_a_new_key_works_at_once_in_every_worker_and_a_revoked_one_soon_in_none(
    server, make, engine, waiting
):
    key = make("read")
    assert {models(server, key) for _ in range(20)} == {200}
    access.revoke_key(engine, access.split(key)[0], by="x", reason="lost", now=datetime.now(UTC))
    waiting(lambda: {models(server, key) for _ in range(10)} == {401}, seconds=5)


def test_a_key_of_one_site_asks_for_it_alone(server, make, visit):
    key = make("predict", sites=["county-01"])
    headers = {"authorization": f"Bearer {key}"}

    def ask(**context) -> httpx.Response:
        return server.predict(visit, context=[context], headers=headers)

    assert ask(site="county-01").status_code == 200
    assert ask(site="county-02").status_code == 403
    # Who may ask for one site alone need not name it.
    unnamed = ask().json()["predictions"][0]["prediction_id"]
    query = "SELECT site FROM prediction WHERE prediction_id = ?"
    assert server.rows(query, unnamed) == [("county-01",)]
    assert server.client.get("/v1/models", headers=headers).status_code == 403


def test_the_log_knows_who_asked_and_who_was_refused(server, make, visit, waiting):
    key = make("predict")
    said = server.predict(visit, headers={"authorization": f"Bearer {key}"}).json()
    [(caller,)] = server.rows(
        "SELECT caller FROM prediction WHERE prediction_id = ?", said["predictions"][0]["prediction_id"]
    )
    assert caller == f"ward ({access.split(key)[0]})"
    server.predict(visit, headers={"authorization": f"Bearer {key[:-1]}"})
    query = "SELECT count(*) FROM refused_call WHERE route = ? AND status = 401 AND peer = '127.0.0.1'"
    waiting(lambda: server.rows(query, "/v1/{model}/predict") > [(0,)], seconds=10)


def test_no_secret_reaches_an_output_or_a_file(server, make, visit):
    key = make("read")
    secret = access.split(key)[1]
    for text in (key, key[:-1], f"cm_nobody_{secret}", f"cma_{secret}.{secret}", f"{secret}.e30.e30"):
        headers = {"authorization": f"Bearer {text}"}
        server.predict(visit, headers=headers)
        server.client.get("/v1/models", headers=headers)
        server.client.post("/cds-services/ed_admission", headers=headers, json={})
        server.client.post("/auth/token", data={"client_assertion": text})
    assert secret[:20] not in server.said
    for file in server.home.rglob("*"):
        if file.is_file():
            assert secret[:20].encode() not in file.read_bytes(), file
    assert "Traceback" not in server.said


def test_without_a_key_nothing_listens_beyond_loopback(versions, tmp_path):
    home = tmp_path / "home"
    release.publish(home / "releases", versions["1"], model="ed_admission", version="1")
    release.point(home / "releases", model="ed_admission", pointer="champion", version="1")
    ours = ["caremodels", "serve", "--demo"]
    theirs = ["bentoml", "serve", "serving.service:CareModels", "--working-dir", str(ROOT)]
    for command in (ours, theirs):
        done = subprocess.run(
            [sys.executable, "-m", *command, "--host", "0.0.0.0", "--port", "39999"],
            cwd=tmp_path,
            env=os.environ
            | {"CAREMODELS_HOME": str(home), "BENTOML_HOME": str(home), "CAREMODELS_DEMO": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == (2 if command is ours else 1)
        assert "no API key exists yet, so that only loopback may be listened on" in (
            done.stderr + done.stdout
        )
