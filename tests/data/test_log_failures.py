"""A server that restarts, a disk that fills up, a clock that jumps: what was answered is there, once."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, make_url, text

from data.errors import UnavailableError
from data.log import append
from data.log.append import Answer, Entry, LogWriter, Replay, Stored, find_answer
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.purge import forget_answers
from data.log.read import count, window
from data.log.schema import answer, connect, writing

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAIN = {"model": "m", "version": "1", "at": NOON, "received_at": NOON, "status": "scored"}

FULL_DISK = """
import json, resource, signal, sys
from datetime import datetime
from pathlib import Path
from data.errors import UnavailableError
from data.log.append import Entry, LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, noon = Path(sys.argv[1]), datetime(2026, 11, 23, 12)
writer = LogWriter(connect(path), load_keyring(path.parent))
fates = {}

def write(name):
    row = {"prediction_id": name, "model": "m", "version": "1", "at": noon, "received_at": noon,
           "status": "scored", "inputs": "x" * 3000}
    try:
        writer.submit(Entry(predictions=(row,))).result()
        fates[name] = "answered"
    except UnavailableError as error:
        fates[name] = str(error)

for number in range(20):
    write(f"a{number:02}")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
# Room for a few rows more: the disk is full in the middle of a transaction's pages.
size = path.with_name("log.db-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30_000, hard))
for number in range(20):
    write(f"b{number:02}")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for number in range(20):
    write(f"c{number:02}")
writer.close()
print(json.dumps(fates))
"""

_ids = itertools.count()


def row(**given):
    return {"prediction_id": f"p{next(_ids):06}", **PLAIN, **given}


def entry(*rows, key=None):
    kept = key and Answer(key_hash=key, body_hash="h", body=b"{}", created_at=NOON.replace(tzinfo=None))
    return Entry(predictions=rows, answer=kept)


def ids(engine):
    found = window(engine, keyring=None, model="m", start=NOON, end=NOON + HOUR)
    return found["prediction_id"].to_pylist()


# PostgreSQL restarts


class Load:
    """Four clients that submit without pause, and what each was told."""

    def __init__(self, writer):
        self.answered, self.refused = [], []
        self._writer, self._stop = writer, threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(4)]

    def _client(self):
        while not self._stop.is_set():
            mine = row()
            try:
                assert self._writer.submit(entry(mine)).result() == Stored()
                self.answered.append(mine["prediction_id"])
            except UnavailableError:
                self.refused.append(mine["prediction_id"])
                time.sleep(0.01)

    def until(self, more):
        """Wait until so many more were answered."""
        aim, deadline = len(self.answered) + more, time.monotonic() + 30
        while len(self.answered) < aim:
            assert time.monotonic() < deadline, "nothing is answered any more"
            time.sleep(0.01)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_a_server_that_restarts_costs_refusals_and_nothing_that_was_answered(
    postgres_of_ones_own, keyring
):
    engine = connect(postgres_of_ones_own.url)
    with LogWriter(engine, keyring) as writer, Load(writer) as load:
        load.until(50)
        for how in (signal.SIGINT, signal.SIGQUIT):  # in an orderly way, and by a crash
            postgres_of_ones_own.stop(how)
            assert not writer.ready()
            postgres_of_ones_own.start()
            load.until(50)
    kept = ids(engine)
    assert load.refused
    assert set(load.answered) <= set(kept)
    assert len(kept) == len(set(kept))
    assert set(kept) <= set(load.answered) | set(load.refused)
    engine.dispose()


CUT = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
"""Ends every other session on the database, and says of how many it asked for that."""


@pytest.mark.slow
def test_a_connection_that_is_cut_costs_no_refusal(postgres_url, keyring):
    engine, other = connect(postgres_url), connect(postgres_url)
    with LogWriter(engine, keyring) as writer, Load(writer) as load:
        for _ in range(20):
            load.until(5)
            with other.connect() as connection:
                connection.execute(CUT)
    assert load.refused == []
    assert sorted(ids(engine)) == sorted(load.answered)
    engine.dispose()
    other.dispose()


SYNC, FLUSH = b"S\0\0\0\x04", b"H\0\0\0\x04"
"""Messages of PostgreSQL's protocol: the end of a batch, and a wish for the replies until now."""


class LastWord:
    """A way to the server on which ``cut`` is called once, as soon as two inserts are done, before Sync.

    What the server then says is passed on, and the end of the stream is not: it comes late.
    """

    def __init__(self, port, cut):
        self.cut = False
        self._cut, self._port, self._lines = cut, port, []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._doorman = threading.Thread(target=self._accept)

    def _accept(self):
        with suppress(OSError):  # the door was closed
            while True:
                ends = self._door.accept()[0], socket.create_connection(("127.0.0.1", self._port))
                waiting = threading.Event()
                for way in (self._up, self._down):
                    self._lines.append(threading.Thread(target=way, args=(*ends, waiting)))
                    self._lines[-1].start()

    def _up(self, client, server, waiting):
        inserting = False
        with client, server, suppress(OSError):
            while said := client.recv(65_536):
                inserting |= b"INSERT INTO prediction" in said
                before, sync, _ = said.rpartition(SYNC)  # sometimes psycopg asks for the replies too
                if inserting and sync and not self.cut:
                    self.cut = True
                    waiting.set()
                    said = before + FLUSH
                server.sendall(said)

    def _down(self, client, server, waiting):
        heard = b""
        with suppress(OSError):
            while said := server.recv(65_536):
                client.sendall(said)
                heard += said
                if waiting.is_set() and heard.count(b"INSERT 0 1") == 2:
                    waiting.clear()
                    self._cut()

    def __enter__(self):
        self._doorman.start()
        return self

    def __exit__(self, *_):
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for thread in (self._doorman, *self._lines):
            thread.join()


@pytest.mark.slow
def test_a_session_that_is_over_before_its_line_is_costs_no_refusal(postgres_url, keyring, caplog):
    address, other = make_url(postgres_url), connect(postgres_url)

    def cut():
        with other.connect() as connection:
            return connection.scalar(CUT)

    with LastWord(address.port, cut) as way:
        engine = connect(str(address.set(port=way.port)))
        with LogWriter(engine, keyring) as writer:
            both = entry(row(prediction_id="a"), row(prediction_id="b"))
            assert writer.submit(both).result() == Stored()
            assert way.cut
            assert writer.submit(entry(row(prediction_id="c"))).result() == Stored()
        engine.dispose()
    assert ids(other) == ["a", "b", "c"]
    assert "Exception during reset" not in caplog.text  # nothing more was sent on it
    other.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_which_no_word_came_back_is_neither_lost_nor_doubled(
    postgres_url, keyring, monkeypatch, committed
):
    import psycopg

    engine = connect(postgres_url)
    commit, lost = engine.dialect.do_commit, []

    def lossy(connection):
        if lost:
            return commit(connection)
        lost.append(1)
        if committed:
            commit(connection)
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with LogWriter(engine, keyring) as writer:
        assert writer.ready()
        monkeypatch.setattr(engine.dialect, "do_commit", lossy)
        keyed = entry(row(prediction_id="a"), row(prediction_id="b"), key="k")
        assert writer.submit(keyed).result() == Stored()
        assert lost
        assert writer.submit(entry(row(prediction_id="c"))).result() == Stored()
        again = writer.submit(entry(row(prediction_id="d"), key="k")).result()
    assert isinstance(again, Replay)
    assert ids(engine) == ["a", "b", "c"]
    engine.dispose()


@pytest.mark.slow
def test_of_racing_requests_with_one_key_one_is_stored_without_a_file_lock(postgres_url, keyring):
    engines = [connect(postgres_url) for _ in range(4)]
    writers = [LogWriter(engine, keyring) for engine in engines]
    for attempt in range(10):
        together = threading.Barrier(4)

        def request(number, together=together, attempt=attempt):
            together.wait()
            return writers[number].submit(entry(row(), key=f"k{attempt}")).result()

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(request, range(4)))
        assert [type(result) for result in results].count(Stored) == 1
        assert [type(result) for result in results].count(Replay) == 3
    assert count(engines[0], model="m") == 10
    for writer, engine in zip(writers, engines, strict=True):
        writer.close()
        engine.dispose()


@pytest.mark.slow
def test_an_answer_waits_for_the_disk_though_the_server_would_not(postgres_url):
    name = make_url(postgres_url).database
    first, second = connect(postgres_url), connect(postgres_url)
    with first.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    first.dispose()
    second.dispose()
    with second.connect() as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"
        assert connection.scalar(text("SHOW lock_timeout")) == "5s"
    second.dispose()


# The disk is full


def test_a_full_disk_refuses_and_tears_nothing(tmp_path, pytestconfig):
    path = tmp_path / "log.db"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path],
        cwd=pytestconfig.rootpath,
        text=True,
        capture_output=True,
        check=True,
    )
    fates = json.loads(done.stdout)
    answered = [name for name, fate in fates.items() if fate == "answered"]
    refused = [fate for fate in fates.values() if fate != "answered"]
    assert {name[0] for name in answered} >= {"a", "c"}
    assert sum(name[0] in "ac" for name in answered) == 40
    assert refused
    assert set(refused) == {"the prediction log cannot be written"}
    engine = connect(path)
    assert ids(engine) == answered
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    engine.dispose()


def test_a_full_database_refuses_every_request_until_there_is_room(tmp_path, keyring, caplog):
    engine = connect(tmp_path / "log.db")
    room = [1_000_000]

    @event.listens_for(engine, "checkout")
    def limit(connection, *_):
        connection.execute(f"PRAGMA max_page_count = {room[0]}")

    with LogWriter(engine, keyring) as writer:
        assert writer.submit(entry(row(prediction_id="a"))).result() == Stored()
        with engine.connect() as connection:
            room[0] = connection.exec_driver_sql("PRAGMA page_count").scalar()
        futures = [writer.submit(entry(row(inputs="secret" * 9_999))) for _ in range(5)]
        assert {type(future.exception()) for future in futures} == {UnavailableError}
        room[0] = 1_000_000
        assert writer.submit(entry(row(prediction_id="b"))).result() == Stored()
    assert ids(engine) == ["a", "b"]
    assert "SQLITE_FULL" in caplog.text
    assert "secret" not in caplog.text
    engine.dispose()


# A clock that jumps


def test_the_outcome_that_was_recorded_last_counts_though_the_clock_went_back(log, keyring):
    with LogWriter(log, keyring) as writer:
        writer.submit(entry(row(prediction_id="a"))).result()

    def report(value, now, at=NOON):
        rows = [OutcomeRow(outcome=value, observed_at=at, prediction_id="a")]
        return record_outcomes(log, rows, now).statuses[0]

    def known():
        return window(log, keyring=None, model="m", start=NOON, end=NOON + HOUR)["outcome"][0].as_py()

    assert (report(1, NOON), known()) == ("joined", 1)
    assert (report(0, NOON - HOUR), known()) == ("revised", 0)
    assert (report(0, NOON + 9 * HOUR), known()) == ("repeated", 0)
    assert (report(1, NOON - HOUR), known()) == ("superseded", 0)
    assert (report(1, NOON - HOUR, at=NOON + HOUR), known()) == ("revised", 1)


def test_rows_keep_the_time_that_the_clock_said_and_are_found_by_it(log, keyring):
    said = [NOON, NOON + 2 * HOUR, NOON - HOUR, NOON + timedelta(seconds=1)]
    with LogWriter(log, keyring) as writer:
        for number, moment in enumerate(said):
            jumped = row(prediction_id=f"p{number}", at=moment, received_at=moment)
            assert writer.submit(entry(jumped)).result() == Stored()
    found = window(log, keyring=None, model="m", start=NOON - HOUR, end=NOON + 3 * HOUR)
    assert found["prediction_id"].to_pylist() == ["p2", "p0", "p3", "p1"]
    assert found["received_at"].to_pylist() == sorted(said)


@pytest.mark.parametrize("jump", [-HOUR, HOUR, timedelta(days=400)])
def test_a_key_is_honoured_whatever_the_clock_says_then(log, keyring, jump):
    with LogWriter(log, keyring) as writer:
        assert writer.submit(entry(row(), key="k")).result() == Stored()
        body = Answer(
            key_hash="k", body_hash="h", body=b"[]", created_at=(NOON + jump).replace(tzinfo=None)
        )
        assert isinstance(writer.submit(Entry(predictions=(row(),), answer=body)).result(), Replay)
    assert find_answer(log, "k", keyring).body == b"{}"
    assert count(log, model="m") == 1


# Stored answers


def test_answers_are_forgotten_after_a_day_and_not_before(log, keyring, monkeypatch):
    now = datetime.now(UTC)
    ages = {"old": timedelta(hours=25), "young": timedelta(hours=23), "future": -HOUR}
    with writing(log) as connection:
        for name, age in ages.items():
            kept = {"key_hash": name, "body_hash": "h", "body": b"{}", "created_at": now - age}
            connection.execute(insert(answer), kept)
    with LogWriter(log, keyring) as writer:
        assert writer.ready()
        assert find_answer(log, "old", keyring)
    monkeypatch.setattr(append, "_SWEEP", 0.0)
    monkeypatch.setattr(append, "_TIDY", 0.01)
    with LogWriter(log, keyring):
        deadline = time.monotonic() + 30
        while find_answer(log, "old", keyring) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [name for name in ages if find_answer(log, name, keyring)] == ["young", "future"]
    assert forget_answers(log, before=now) == 1


def test_the_journal_of_sqlite_is_brought_in_while_answers_are_written(tmp_path, keyring, monkeypatch):
    monkeypatch.setattr(append, "_TIDY", 0.01)
    engine = connect(tmp_path / "log.db")
    try:
        with LogWriter(engine, keyring) as writer:
            before = (tmp_path / "log.db").stat().st_size
            for number in range(200):
                writer.submit(entry(row(prediction_id=f"tidied-{number}"))).result()
            deadline = time.monotonic() + 30
            while (tmp_path / "log.db").stat().st_size == before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert (tmp_path / "log.db").stat().st_size > before
        assert count(engine, model="m") == 200
    finally:
        engine.dispose()
