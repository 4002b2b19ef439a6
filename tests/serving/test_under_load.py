"""kill -9 and promotions, while clients ask as fast as they are answered."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from data.contract import check
from models import artifact, release

pytestmark = pytest.mark.slow
SAID = re.compile(rb'"version":"(\w+)".*?"prediction_id":"([\w-]+)".*?"risk":([\d.e-]+)', re.DOTALL)
WORKERS = 4
LIVES = (3, 3, 2, 2, 2, 2)
"""Workers killed in each life of the service, which then is killed itself: 14 and 6."""


class Load:
    """Clients on bare sockets, which cost next to nothing beside what they ask.

    ``got`` holds (status, prediction_id, version, risk) of each answer that came whole.
    """

    def __init__(self, port: int, visit, clients: int = 6) -> None:
        body = json.dumps({"instances": [visit], "top": 0}).encode()
        self._asks = (
            b"POST /v1/ed_admission/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.got: list[tuple[int, str, str, float]] = []
        self.broken = 0
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def _client(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=20) as wire:
                    while not self._over.is_set():
                        self._ask(wire)
            except OSError:
                self.broken += 1
                time.sleep(0.02)

    def _ask(self, wire: socket.socket) -> None:
        wire.sendall(self._asks)
        received = b""
        while True:
            head, found, rest = received.partition(b"\r\n\r\n")
            if found:
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
                if len(rest) == length:
                    break
            part = wire.recv(65_536)
            if not part:
                raise ConnectionResetError
            received += part
        said = SAID.search(rest)
        answer = (said[2].decode(), said[1].decode(), float(said[3])) if said else ("", "", 0.0)
        self.got.append((int(head.split(b" ", 2)[1]), *answer))

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

    def more(self, count: int) -> int:
        """How many answers there are once ``count`` more have come."""
        return len(self.got) + count


def killed(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def lives(listen, versions, tmp_path):
    """Start the service, again and again, on one home."""
    home = tmp_path / "home"
    release.publish(home / "releases", versions["1"], model="ed_admission", version="1")
    release.point(home / "releases", model="ed_admission", pointer="champion", version="1")

    def start():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = ["serve", "--demo", "--workers", str(WORKERS), "--port", str(port)]
        command = [sys.executable, "-m", "caremodels", *words]
        return listen(command, home, port, cwd=tmp_path, CAREMODELS_HOME=str(home))

    return start


def test_what_a_client_got_is_in_the_log_once_however_often_the_service_is_killed(
    lives, visit, waiting, members
):
    got = []
    for kills in LIVES:
        server = lives()
        waiting(lambda served=server: served.said.count("ready: ed_admission 1") == WORKERS)
        with Load(server.port, visit).running() as load:
            for _ in range(kills):
                wanted = load.more(25)
                waiting(lambda load=load, wanted=wanted: len(load.got) >= wanted)
                killed(server.workers[0].pid)
            wanted = load.more(25)
            waiting(lambda load=load, wanted=wanted: len(load.got) >= wanted)
            for pid in members(server):
                killed(pid)
            server.process.wait()
            waiting(lambda served=server: members(served) == [])
        assert load.broken > 0  # it was hit
        got += load.got
    assert {status for status, *_ in got} == {200}
    answered = Counter(name for _, name, *_ in got)
    logged = Counter(name for (name,) in server.rows("SELECT prediction_id FROM prediction"))
    assert len(got) >= 25 * (len(LIVES) + sum(LIVES))
    assert not answered - logged
    assert set(answered.values()) == set(logged.values()) == {1}
    assert server.rows("PRAGMA integrity_check") == [("ok",)]


def test_promotions_and_rollbacks_under_load_fail_no_request_and_mix_no_versions(
    serve, versions, visit, waiting
):
    risks = {}
    for version in ("1", "2"):
        loaded = artifact.load(versions[version])
        [risk] = loaded.risk(check(loaded.mart.columns, [visit]).rows)
        risks[version] = float(risk)
    assert risks["1"] != risks["2"]
    server = serve("--demo", "--workers", "2")
    with Load(server.port, visit).running() as load:
        for version in "21" * 5:
            server.point(version)
            waiting(lambda load=load, v=version: {of[2] for of in load.got[-40:]} == {v})
    assert load.broken == 0
    assert {status for status, *_ in load.got} == {200}
    assert {(version, risk) for _, _, version, risk in load.got} == set(risks.items())
    turns = [b for a, b in zip(load.got, load.got[1:], strict=False) if a[2] != b[2]]
    assert len(turns) >= 9
    logged = dict(server.rows("SELECT prediction_id, version FROM prediction"))
    assert {name: version for _, name, version, _ in load.got}.items() <= logged.items()
