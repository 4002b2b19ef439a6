"""A log that the release before wrote is brought up to date: no row lost, at once or not at all."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError as ConstraintError

from data.errors import IntegrityError, UnavailableError
from data.log import migrations
from data.log.append import Entry, LogWriter, Stored, find_answer
from data.log.migrations import Migrated, migrate
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.read import window
from data.log.schema import SCHEMA_VERSION, connect, maintenance, metadata, open_any

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ROWS = 300

VERSION_1 = """
CREATE TABLE answer (
    key_hash VARCHAR NOT NULL, body_hash VARCHAR NOT NULL, body {bytes} NOT NULL,
    created_at {time} NOT NULL, PRIMARY KEY (key_hash));
CREATE TABLE meta ("key" VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE prediction (
    prediction_id VARCHAR NOT NULL, model VARCHAR NOT NULL, version VARCHAR NOT NULL,
    at {time} NOT NULL, received_at {time} NOT NULL, site VARCHAR, patient VARCHAR,
    encounter VARCHAR, status VARCHAR NOT NULL, risk {double}, margin {double}, band VARCHAR,
    base_value {double}, contributions TEXT, inputs TEXT, groups TEXT, warnings TEXT, reasons TEXT,
    latency_ms {double}, caller VARCHAR, PRIMARY KEY (prediction_id),
    CONSTRAINT prediction_status CHECK (status IN ('scored', 'abstained', 'refused')),
    CONSTRAINT prediction_risk CHECK (status = 'scored' OR risk IS NULL),
    CONSTRAINT prediction_inputs CHECK (status <> 'refused' OR inputs IS NULL));
CREATE INDEX prediction_model_at ON prediction (model, at);
CREATE INDEX prediction_model_encounter ON prediction (model, encounter);
CREATE TABLE outcome (
    id {id}, prediction_id VARCHAR NOT NULL, model VARCHAR NOT NULL, encounter VARCHAR,
    outcome INTEGER NOT NULL, observed_at {time} NOT NULL, recorded_at {time} NOT NULL,
    source VARCHAR NOT NULL, PRIMARY KEY (id), CONSTRAINT outcome_binary CHECK (outcome IN (0, 1)),
    CONSTRAINT outcome_once UNIQUE (prediction_id, outcome, observed_at),
    FOREIGN KEY(prediction_id) REFERENCES prediction (prediction_id));
INSERT INTO meta VALUES ('schema_version', '1');
INSERT INTO meta VALUES ('probe', '')
"""
"""As the release before created it."""

WORDS = {
    "sqlite": {"bytes": "BLOB", "time": "DATETIME", "double": "DOUBLE", "id": "INTEGER NOT NULL"},
    "postgresql": {
        "bytes": "BYTEA",
        "time": "TIMESTAMP WITHOUT TIME ZONE",
        "double": "DOUBLE PRECISION",
        "id": "SERIAL NOT NULL",
    },
}

WRITTEN = """
INSERT INTO prediction (prediction_id, model, version, at, received_at, status, risk, inputs)
VALUES (:name, 'm', '1', '2026-11-23 12:00:00.000000', '2026-11-23 12:00:00.000000', 'scored', 0.5,
        :inputs)
"""

MIGRATE = """
import sys
from datetime import UTC, datetime
from data.log.migrations import migrate
print("here", flush=True)
sys.stdin.readline()
print(migrate(sys.argv[1], now=datetime.now(UTC)).before)
"""


@pytest.fixture
def old(log_url):
    """A log of version 1 with rows in it; the engine is the old service's."""
    engine = create_engine(log_url)
    with engine.begin() as connection:
        for statement in VERSION_1.format(**WORDS[engine.dialect.name]).split(";"):
            connection.execute(text(statement))
        rows = [{"name": f"p{number:03}", "inputs": f'{{"sbp": {number}}}'} for number in range(ROWS)]
        connection.execute(text(WRITTEN), rows)
        connection.execute(
            text(
                "INSERT INTO outcome (prediction_id, model, outcome, observed_at, recorded_at, source)"
                " VALUES ('p007', 'm', 1, '2026-11-23 13:00:00', '2026-11-23 13:00:00', 'api')"
            )
        )
        connection.execute(
            text("INSERT INTO answer VALUES ('k', 'h', :body, '2026-11-23 12:00:00.000000')"),
            {"body": b'{"risk": 0.5}'},
        )
    yield engine
    engine.dispose()


def described(engine):
    """Tables, columns, constraints and indexes, as the database tells of them."""
    found = inspect(engine)
    return {
        name: {
            "columns": {
                c["name"]: (str(c["type"]), c["nullable"], c.get("default"))
                for c in found.get_columns(name)
            },
            "indexes": sorted((i["name"], *i["column_names"]) for i in found.get_indexes(name)),
            "checks": sorted(c["name"] for c in found.get_check_constraints(name)),
            "unique": sorted(c["name"] for c in found.get_unique_constraints(name)),
            "foreign": [
                (f["referred_table"], f["constrained_columns"]) for f in found.get_foreign_keys(name)
            ],
            "key": found.get_pk_constraint(name)["constrained_columns"],
        }
        for name in found.get_table_names()
    }


def test_an_older_log_is_refused_with_the_command_that_helps(old, log_url):
    with pytest.raises(IntegrityError, match=r"schema version 1.*caremodels log migrate"):
        connect(log_url)


def test_no_row_is_lost_and_each_is_read_as_it_was(old, log_url, keyring):
    assert migrate(log_url, now=NOON, by="dba") == Migrated(before=1, after=SCHEMA_VERSION)
    engine = connect(log_url)
    found = window(engine, keyring=keyring, model="m", start=NOON, end=NOON.replace(hour=13))
    assert found["prediction_id"].to_pylist() == [f"p{number:03}" for number in range(ROWS)]
    assert found["inputs"].to_pylist() == [f'{{"sbp": {number}}}' for number in range(ROWS)]
    assert found["outcome"].to_pylist()[7] == 1
    assert found["outcome"].null_count == ROWS - 1
    assert set(
        zip(*(found[name].to_pylist() for name in ("pointer", "channel", "used")), strict=True)
    ) == {("champion", "rest", "answered")}
    assert find_answer(engine, "k", keyring).body == b'{"risk": 0.5}'
    with engine.connect() as connection:
        [done] = connection.execute(select(maintenance)).all()
    assert (done.act, done.by, done.details) == ("migrate", "dba", '{"before": 1, "after": 3}')
    engine.dispose()


def test_a_migrated_log_is_a_new_one(old, log_url, keyring, tmp_path):
    migrate(log_url, now=NOON)
    engine = connect(log_url)
    migrated = described(engine)
    with engine.begin() as connection:
        metadata.drop_all(connection)
    engine.dispose()
    anew = connect(log_url)
    assert migrated == described(anew)
    anew.dispose()


def test_a_migrated_log_is_written_and_its_rules_hold(old, log_url, keyring):
    migrate(log_url, now=NOON)
    engine = connect(log_url)
    row = {"prediction_id": "new", "model": "m", "version": "2", "at": NOON, "received_at": NOON}
    with LogWriter(engine, keyring) as writer:
        kept = writer.submit(Entry(predictions=({**row, "status": "scored", "used": "card"},)))
        assert kept.result() == Stored()
        wrong = writer.submit(Entry(predictions=({**row, "prediction_id": "x", "used": "burnt"},)))
        assert isinstance(wrong.exception(), UnavailableError)
    said = OutcomeRow(outcome=0, observed_at=NOON, prediction_id="p001")
    assert record_outcomes(engine, [said], NOON).statuses == ("joined",)
    engine.dispose()


def test_a_second_time_does_nothing(old, log_url):
    migrate(log_url, now=NOON)
    assert migrate(log_url, now=NOON) == Migrated(before=SCHEMA_VERSION, after=SCHEMA_VERSION)
    engine = connect(log_url)
    with engine.connect() as connection:
        assert len(connection.execute(select(maintenance)).all()) == 1
    engine.dispose()


def test_a_migration_that_fails_changes_nothing(old, log_url, monkeypatch):
    before = described(old)
    step = migrations._STEPS[2]

    def fail(op):
        step(op)
        op.execute("INSERT INTO nowhere VALUES (1)")

    monkeypatch.setitem(migrations._STEPS, 2, fail)
    with pytest.raises(UnavailableError, match="cannot be migrated"):
        migrate(log_url, now=NOON)
    assert described(old) == before
    with old.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM prediction")) == ROWS
        assert connection.scalar(text("SELECT value FROM meta WHERE key = 'schema_version'")) == "1"
    monkeypatch.undo()
    assert migrate(log_url, now=NOON).before == 1


def test_two_at_once_migrate_once(old, log_url, pytestconfig):
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, log_url],
            cwd=pytestconfig.rootpath,
            text=True,
            stdin=pipe,
            stdout=pipe,
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "here\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert sorted(worker.communicate(timeout=60)[0] for worker in workers) == [
        "1\n",
        f"{SCHEMA_VERSION}\n",
    ]
    engine, version = open_any(log_url)
    assert version == SCHEMA_VERSION
    engine.dispose()


def test_a_running_service_of_the_version_before_goes_on_writing(old, log_url):
    names = (f"q{number}" for number in itertools.count())
    with old.connect() as service:  # one connection throughout
        service.execute(text(WRITTEN), {"name": next(names), "inputs": None})
        service.commit()
        migrate(log_url, now=NOON)
        service.execute(text(WRITTEN), {"name": next(names), "inputs": None})
        service.commit()
    engine = connect(log_url)
    found = window(engine, keyring=None, model="m", start=NOON, end=NOON.replace(hour=13))
    assert found["prediction_id"].to_pylist()[-2:] == ["q0", "q1"]
    assert found["used"].to_pylist()[-1] == "answered"
    engine.dispose()


def test_a_log_of_version_2_holds_to_its_rules(log):
    wrong = WRITTEN.replace("status, risk", "pointer, status, risk").replace(
        "'scored'", "'other', 'scored'"
    )
    with pytest.raises(ConstraintError), log.begin() as connection:
        connection.execute(text(wrong), {"name": "p", "inputs": None})
