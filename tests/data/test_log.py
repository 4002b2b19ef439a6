"""The prediction log is opened and appended to: real files, real processes, a disk that is full."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from data.errors import IntegrityError, UnavailableError, UsageError
from data.log import schema
from data.log.append import Entry, LogWriter, Stored
from data.log.outcomes import OutcomeRow, record_outcomes, scored_of
from data.log.read import count, window
from data.log.schema import connect, metadata, writing
from data.log.seal import load_keyring

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

WORKER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from data.log.append import Entry, LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring

path, name, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("here", flush=True)
sys.stdin.readline()
noon = datetime(2026, 11, 23, 12)
writer = LogWriter(connect(path), load_keyring(Path(path).parent))

def write(number):
    key = f"{name}-{number}"
    row = {"prediction_id": key, "model": "m", "version": "1", "at": noon, "received_at": noon,
           "status": "scored", "risk": 0.5}
    writer.submit(Entry(predictions=(row,))).result()
    sys.stdout.write(key + "\\n")
    sys.stdout.flush()

with ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(most)))
writer.close()
"""

FULL_DISK = """
import resource, signal, sys
from data.errors import UnavailableError
from pathlib import Path
from data.log.append import Entry, LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = LogWriter(connect(sys.argv[1]), load_keyring(Path(sys.argv[1]).parent))
assert writer.ready()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # no file may grow: a full disk
assert not writer.ready()
try:
    writer.submit(Entry(predictions=())).result()
except UnavailableError as exc:
    print(exc)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(writer.ready())
"""

_ids = itertools.count()


def row(**given):
    plain = {"model": "m", "version": "1", "at": NOON, "received_at": NOON, "status": "scored"}
    return {"prediction_id": f"p{next(_ids)}", **plain, "risk": 0.5, **given}


def entry(*rows):
    return Entry(predictions=rows)


def start(root, *arguments):
    command = [sys.executable, "-c", WORKER, *map(str, arguments)]
    pipe = subprocess.PIPE
    worker = subprocess.Popen(command, cwd=root, text=True, bufsize=1, stdin=pipe, stdout=pipe)
    assert worker.stdout.readline() == "here\n"
    return worker


@pytest.fixture
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def engine(path):
    engine = connect(path)
    yield engine
    engine.dispose()


@pytest.fixture
def keyring(tmp_path):
    return load_keyring(tmp_path)


@pytest.fixture
def writer(engine, keyring):
    with LogWriter(engine, keyring) as writer:
        yield writer


@pytest.fixture
def store(writer):
    return lambda *rows: writer.submit(entry(*rows)).result()


def ids(engine):
    day = timedelta(days=1)
    return window(engine, keyring=None, model="m", start=NOON - day, end=NOON + day)[
        "prediction_id"
    ].to_pylist()


# Opening


def test_a_new_log_belongs_to_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        engine = connect(tmp_path / "new" / "log.db")
    finally:
        os.umask(before)
    with writing(engine):
        modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "new").iterdir()}
    engine.dispose()
    assert modes == dict.fromkeys(["log.db", "log.db-wal", "log.db-shm", "log.db.lock"], 0o600)


def test_every_connection_is_durable_and_checks_references(engine):
    with engine.connect() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert found == ["wal", 2, 1, 5000]


def test_a_log_opens_again_by_path_text_and_url(engine, path, store):
    store(row(prediction_id="a"))
    for target in (path, str(path), f"sqlite:///{path}"):
        again = connect(target)
        assert ids(again) == ["a"]
        again.dispose()


def test_a_newer_log_is_refused(engine, path):
    with writing(engine) as connection:
        connection.execute(
            update(schema.meta).where(schema.meta.c.key == "schema_version").values(value="4")
        )
    with pytest.raises(IntegrityError, match="schema version 4; this caremodels knows 3"):
        connect(path)


@pytest.mark.parametrize("target", ["sqlite://", "sqlite:///:memory:", "://", "nosuch://host/db"])
def test_a_log_that_is_no_shared_file_or_known_database_is_refused(target):
    with pytest.raises(UsageError, match="prediction log"):
        connect(target)


def test_a_file_of_something_else_is_left_alone(path):
    path.write_text("not a database, but long enough to be read as a header of one" * 20)
    before = path.read_bytes()
    with pytest.raises(UnavailableError, match="cannot be opened"):
        connect(path)
    assert path.read_bytes() == before


def test_the_tables_exist_in_postgresql_too():
    dialect = postgresql.dialect()
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert "CREATE INDEX" in str(CreateIndex(index).compile(dialect=dialect))


# Appending


def test_many_threads_share_few_transactions(engine, writer):
    commits = []
    event.listen(engine, "commit", commits.append)
    with ThreadPoolExecutor(32) as pool:
        done = pool.map(lambda _: writer.submit(entry(row())).result(), range(640))
        assert set(done) == {Stored()}
    assert len(commits) < 640 / 4
    assert count(engine, model="m") == 640


def test_what_waits_is_written_in_one_transaction(engine, writer, path):
    commits = []
    event.listen(engine, "commit", commits.append)
    other = connect(path)
    with writing(other):
        futures = [writer.submit(entry(row(), row())) for _ in range(100)]
        assert not any(future.done() for future in futures)
    assert {future.result() for future in futures} == {Stored()}
    other.dispose()
    assert len(commits) <= 2  # the first may have been taken alone
    assert count(engine, model="m") == 200


def test_closing_writes_what_was_submitted(engine, keyring):
    writer = LogWriter(engine, keyring)
    futures = [writer.submit(entry(row())) for _ in range(200)]
    writer.close()
    assert all(future.done() for future in futures)
    assert count(engine, model="m") == 200
    with pytest.raises(UnavailableError, match="closed"):
        writer.submit(entry(row()))
    assert not writer.ready()
    writer.close()


def test_a_bad_row_fails_alone_and_its_values_stay_out_of_sight(engine, writer, path, caplog):
    caplog.set_level(logging.DEBUG)
    bad = [
        row(prediction_id="secret-1", status="secret-2"),
        row(prediction_id="secret-3", at="secret-4"),
        row(prediction_id="secret-5", caller=object()),
        row(prediction_id="secret-6", risk=None, version=None),
        row(prediction_id="secret-7", status="refused", risk=None, inputs="secret-8"),
    ]
    good = [row() for _ in range(20)]
    rows = [*good[:7], *bad, *good[7:]]
    other = connect(path)
    with writing(other):
        futures = [writer.submit(entry(each)) for each in rows]
    other.dispose()
    failures = [future.exception() for future in futures]
    assert [failure is not None for failure in failures] == [each in bad for each in rows]
    assert {type(failure) for failure in failures} == {type(None), UnavailableError}
    assert "secret" not in caplog.text + " ".join(map(str, failures))
    assert sorted(ids(engine)) == sorted(each["prediction_id"] for each in good)


def test_an_unknown_column_is_refused_at_once(writer):
    with pytest.raises(UsageError, match="no such column: diagnosis"):
        writer.submit(entry(row(diagnosis="x")))


def test_a_cancelled_entry_is_not_written_and_harms_no_other(engine, writer, path):
    other = connect(path)
    with writing(other):
        first = writer.submit(entry(row(prediction_id="a")))
        while not first.running():
            pass
        second = writer.submit(entry(row(prediction_id="b")))
        assert second.cancel()
        assert not first.cancel()
    other.dispose()
    assert first.result() == Stored()
    assert writer.ready()
    assert ids(engine) == ["a"]


def test_a_log_that_went_away_is_reported_and_used_again_once_back(engine, writer, path, store):
    store(row(prediction_id="a"))
    path.rename(path.with_suffix(".away"))  # the old handle would still take writes, and lose them
    with pytest.raises(UnavailableError, match="the prediction log cannot be written"):
        store(row(prediction_id="b"))
    assert not writer.ready()
    assert not path.exists()
    with pytest.raises(UnavailableError, match="cannot be read"):
        ids(engine)
    path.with_suffix(".away").rename(path)
    assert writer.ready()
    store(row(prediction_id="c"))
    assert ids(engine) == ["a", "c"]


def test_a_disk_that_takes_no_more_is_noticed_and_recovered_from(root, path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], cwd=root, text=True, capture_output=True, check=True
    )
    assert done.stdout == "the prediction log cannot be written\nTrue\n"


def test_a_writer_that_never_lets_go_costs_an_error_and_not_a_hang(writer, path, monkeypatch, store):
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    other = connect(path)
    with writing(other), pytest.raises(UnavailableError):
        store(row())
    other.dispose()
    assert store(row()) == Stored()


def test_what_was_acknowledged_outlives_a_kill(root, path):
    worker = start(root, path, "w", 20_000)
    worker.stdin.write("go\n")
    acknowledged = [worker.stdout.readline() for _ in range(200)]
    worker.send_signal(signal.SIGKILL)
    rest, _ = worker.communicate()
    acknowledged += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    engine = connect(path)
    kept = ids(engine)
    engine.dispose()
    assert {line.strip() for line in acknowledged} <= set(kept)
    assert len(kept) == len(set(kept))


def test_processes_may_create_and_write_one_log_at_once(root, path):
    workers = [start(root, path, name, 100) for name in "ab"]
    for worker in workers:
        worker.stdin.write("go\n")
    acknowledged = [line for worker in workers for line in worker.communicate()[0].split()]
    assert [worker.returncode for worker in workers] == [0, 0]
    engine = connect(path)
    assert sorted(ids(engine)) == sorted(acknowledged)
    engine.dispose()
    assert len(acknowledged) == 200


def test_an_outcome_from_another_site_is_of_an_unknown_prediction(engine, store):
    store(row(prediction_id="here", site="a"), row(prediction_id="there", site="b"))
    said = [OutcomeRow(prediction_id=name, outcome=1, observed_at=NOON) for name in ("here", "there")]
    assert record_outcomes(engine, said, NOON, sites={"a"}).statuses == ("joined", "unknown")
    assert record_outcomes(engine, said, NOON).statuses == ("repeated", "joined")


def test_the_scored_predictions_of_an_encounter_are_found_on_each_database(log, keyring):
    rows = [
        row(prediction_id="a", encounter="e"),
        row(prediction_id="b", encounter="e", pointer="challenger", at=NOON + timedelta(hours=1)),
        row(prediction_id="c", encounter="e", status="abstained", risk=None),
        row(prediction_id="d", encounter="e", model="other"),
        row(prediction_id="e", encounter="f"),
    ]
    with LogWriter(log, keyring) as writer:
        assert writer.submit(entry(*rows)).result() == Stored()
    noon = NOON.replace(tzinfo=None)
    with log.connect() as connection:
        found = scored_of(connection, ["e", "nobody"], model="m")
    assert found == {"a": ("e", noon), "b": ("e", noon + timedelta(hours=1))}
