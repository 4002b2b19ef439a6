"""``caremodels log …``: what the log holds, what is taken from it and what it forgets."""

from __future__ import annotations

import argparse
import getpass
import json
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, insert, select

from data import log_commands
from data.errors import CaremodelsError, ConflictError, NotEnoughDataError, UsageError
from data.home import Home
from data.log import purge as module
from data.log.append import Answer, Entry, LogWriter
from data.log.feedback import FeedbackRow, record_feedback
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.purge import purge
from data.log.read import SCHEMA, window
from data.log.schema import (
    answer,
    connect,
    feedback,
    maintenance,
    outcome,
    prediction,
    refused_call,
    used_token,
    writing,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
OLD, YOUNG = 25, 15
"""Predictions of model m received before NOON and after; as many again of another model."""
SIGNED = {"by": "records office", "reason": "retention of ten years"}
SIGN = ["--by", SIGNED["by"], "--reason", SIGNED["reason"]]


def fill(engine, keyring):
    """Old and young predictions of two models with outcomes, feedback, answers, tokens and refusals."""
    rows, said, outcomes = [], [], []
    for model in ("m", "other"):
        for number in range(OLD + YOUNG):
            received = NOON - DAY if number < OLD else NOON + DAY
            name = f"{model}{number * 7919 % 1000:03}"
            plain = {"model": model, "version": "1", "at": NOON, "received_at": received}
            inputs = {"status": "scored", "risk": 0.5, "inputs": f"[{number}]"}
            rows.append({"prediction_id": name, **plain, **inputs})
            outcomes.append(OutcomeRow(outcome=number % 2, observed_at=NOON, prediction_id=name))
            if number % 5 == 0:
                said.append(
                    FeedbackRow(
                        prediction_id=name, outcome="accepted", occurred_at=NOON, comment="words"
                    )
                )
    with LogWriter(engine, keyring) as writer:
        writer.submit(Entry(predictions=tuple(rows))).result()
        for name, at in (("old", NOON - DAY), ("young", NOON + DAY)):
            kept = Answer(key_hash=name, body_hash="h", body=b"{}", created_at=at.replace(tzinfo=None))
            writer.submit(Entry(predictions=(), answer=kept)).result()
    record_outcomes(engine, outcomes, NOON)
    record_feedback(engine, said, NOON, keyring=keyring)
    with writing(engine) as connection:
        for at in (NOON - DAY, NOON + DAY):
            connection.execute(insert(used_token), {"token_hash": str(at), "expires_at": at})
            connection.execute(
                insert(refused_call), {"at": at, "route": "/", "status": 401, "reason": "no key"}
            )


@pytest.fixture
def filled(log, keyring, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 7)
    fill(log, keyring)
    return log


def rows(engine):
    tables = (prediction, outcome, feedback, answer, used_token, refused_call)
    with engine.connect() as connection:
        return [connection.scalar(select(func.count()).select_from(table)) for table in tables]


def told(engine):
    with engine.connect() as connection:
        return [
            (row.act, row.by, row.reason, json.loads(row.details))
            for row in connection.execute(select(maintenance).order_by(maintenance.c.id))
        ]


def forget(engine, **given):
    return purge(engine, **{"before": NOON, "now": NOON, **SIGNED, **given})


# Purging


def test_what_is_past_its_retention_goes_with_all_that_refers_to_it(filled):
    assert rows(filled) == [80, 80, 16, 2, 2, 2]
    done = forget(filled)
    assert (done.predictions, done.outcomes, done.feedback, done.answers) == (50, 50, 10, 1)
    assert (done.tokens, done.refused_calls) == (1, 1)
    assert rows(filled) == [30, 30, 6, 1, 1, 1]
    assert told(filled) == [
        (
            "purge",
            *SIGNED.values(),
            {
                "what": "rows",
                "before": "2026-11-23T12:00:00Z",
                "model": None,
                "predictions": 50,
                "outcomes": 50,
                "feedback": 10,
                "answers": 1,
                "tokens": 1,
                "refused_calls": 1,
            },
        )
    ]
    assert forget(filled).predictions == 0
    assert len(told(filled)) == 2


def test_a_dry_run_says_the_same_and_changes_nothing(filled):
    before = rows(filled)
    would = forget(filled, dry_run=True)
    assert rows(filled) == before
    assert told(filled) == []
    done = forget(filled)
    assert (would.dry_run, done.dry_run) == (True, False)
    assert [would.predictions, would.outcomes, would.feedback, would.answers] == [50, 50, 10, 1]
    assert (would.tokens, would.refused_calls) == (done.tokens, done.refused_calls)


@pytest.mark.parametrize("dry_run", [True, False])
def test_of_one_model_nothing_of_another_goes(filled, dry_run):
    done = forget(filled, model="m", dry_run=dry_run)
    assert (done.predictions, done.outcomes, done.feedback, done.refused_calls) == (25, 25, 5, 0)
    assert rows(filled)[:3] == ([80, 80, 16] if dry_run else [55, 55, 11])


def test_inputs_can_go_and_the_rest_stay(filled, keyring):
    done = forget(filled, what="inputs", model="m")
    assert (done.predictions, done.outcomes, done.answers) == (25, 0, 1)
    found = window(filled, keyring=keyring, model="m", start=NOON, end=NOON + DAY)
    assert found["inputs"].null_count == OLD
    assert found["risk"].null_count == found["outcome"].null_count == 0
    assert set(found["used"].to_pylist()) == {"answered", "accepted"}
    with filled.connect() as connection:
        words = connection.execute(select(feedback.c.comment).where(feedback.c.comment.is_not(None)))
        assert len(words.all()) == 16 - 5
    assert forget(filled, what="inputs", model="m").predictions == 0


def test_answers_can_go_alone(filled):
    done = forget(filled, what="answers")
    assert (done.predictions, done.answers) == (0, 1)
    assert rows(filled) == [80, 80, 16, 1, 2, 2]


def test_a_purge_that_is_cut_short_is_told_of_and_goes_on(filled, monkeypatch):
    batches, some = [], module._forget

    def die(connection, *given, **more):
        batches.append(1)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return some(connection, *given, **more)

    monkeypatch.setattr(module, "_forget", die)
    with pytest.raises(KeyboardInterrupt):
        forget(filled)
    monkeypatch.setattr(module, "_forget", some)
    assert rows(filled)[0] == 80 - 14
    assert told(filled)[0][3]["predictions"] == 14
    assert forget(filled).predictions == 36


def test_a_purge_leaves_room_for_the_predictions_of_a_service(filled, keyring):
    with LogWriter(filled, keyring) as writer:
        forget(filled)
        plain = {"model": "m", "version": "1", "at": NOON, "received_at": NOON, "status": "abstained"}
        writer.submit(Entry(predictions=({"prediction_id": "new", **plain},))).result()
    assert rows(filled)[0] == 31


# Commands


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The command's exit code and its JSON, in a home with a filled log."""
    monkeypatch.setenv("CAREMODELS_HOME", str(tmp_path))
    home = Home.from_env()
    parser = argparse.ArgumentParser()
    log_commands.add(parser.add_subparsers())

    def run(*words):
        options = parser.parse_args(["log", *words, "--json"])
        code = options.run(options, home)
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def home_log(tmp_path, keyring):
    engine = connect(tmp_path / "log.db")
    fill(engine, keyring)
    yield engine
    engine.dispose()


def test_status_tells_what_the_log_holds(run, home_log, keyring):
    code, found = run("status")
    assert code == 0
    assert found["schema_version"] == 3
    assert found["bytes"] > 0
    assert (found["rows"], found["outcomes"], found["feedback"], found["answers"]) == (80, 80, 16, 2)
    assert (found["first"], found["last"]) == ("2026-11-22T12:00:00Z", "2026-11-24T12:00:00Z")
    assert found["predictions"][0] == {
        "model": "m",
        "version": "1",
        "pointer": "champion",
        "status": "scored",
        "used": "answered",
        "rows": 40,
    }
    assert found["key"] == keyring.newest
    assert found["sealed"] == {keyring.newest: 98}
    assert (found["opened"], found["maintenance"]) == (0, [])


def test_status_of_an_empty_log_is_one(run):
    code, found = run("status")
    assert (code, found["rows"], found["first"], found["predictions"]) == (0, 0, None, [])


def test_a_purge_and_a_rotation_are_signed_and_shown(run, home_log):
    code, purged = run("purge", "--before", "2026-11-23", "--inputs-only", *SIGN)
    assert (code, purged["what"], purged["predictions"], purged["dry_run"]) == (0, "inputs", 50, False)
    code, rotated = run("rotate-key", *SIGN)
    assert (code, rotated["lost"], len(rotated["retired"])) == (0, 0, 1)
    acts = run("status")[1]["maintenance"]
    assert [(act["act"], act["by"]) for act in acts] == [
        ("rotate-key", SIGNED["by"]),
        ("purge", SIGNED["by"]),
    ]


def test_a_day_that_is_none_is_refused(run, home_log):
    with pytest.raises(UsageError, match="--before: not a day"):
        run("purge", "--before", "2026-13-01", *SIGN)


def test_a_rotation_that_loses_a_text_says_so(run, home_log, tmp_path, capsys):
    (tmp_path / "log-keys.json").unlink()
    code, rotated = run("rotate-key", *SIGN)
    assert (code, rotated["lost"], rotated["resealed"]) == (1, 98, 0)


def test_an_export_holds_every_row_with_its_inputs_opened(run, home_log, tmp_path):
    out = tmp_path / "m.parquet"
    code, found = run("export", "m", "--from", "2026-11", "--to", "2026-11", "--out", str(out))
    assert (code, found) == (0, {"model": "m", "rows": 40, "out": str(out)})
    table = pq.read_table(out)
    assert table.schema.equals(SCHEMA)
    assert sorted(table["inputs"].to_pylist()) == sorted(f"[{number}]" for number in range(40))
    assert out.stat().st_mode & 0o777 == 0o600
    [act] = run("status")[1]["maintenance"]
    assert (act["act"], act["by"]) == ("export", getpass.getuser())
    assert act["details"] == {"model": "m", "period": "2026-11-01 to 2026-11-30", "inputs": True}
    assert sorted(path.name for path in tmp_path.iterdir() if "parquet" in path.name) == ["m.parquet"]


def test_an_export_without_inputs_has_no_such_column(run, home_log, tmp_path):
    out = tmp_path / "m.parquet"
    run("export", "m", "--no-inputs", "--out", str(out))
    assert pq.read_schema(out).names == [name for name in SCHEMA.names if name != "inputs"]


def test_an_export_replaces_a_file_only_if_told(run, home_log, tmp_path):
    out = tmp_path / "m.parquet"
    out.write_text("mine")
    with pytest.raises(ConflictError, match="is there already"):
        run("export", "m", "--out", str(out))
    assert out.read_text() == "mine"
    assert run("export", "m", "--out", str(out), "--overwrite")[1]["rows"] == 40
    assert pq.read_table(out).num_rows == 40


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["export", "m", "--from", "2031-01", "--out", "{0}/m.parquet"], NotEnoughDataError),
        (["export", "nothing", "--out", "{0}/m.parquet"], NotEnoughDataError),
        (["export", "m", "--out", "{0}/nowhere/m.parquet"], UsageError),
    ],
)
def test_an_export_of_nothing_or_to_nowhere_leaves_no_file(run, home_log, tmp_path, words, error):
    before = set(tmp_path.iterdir())
    with pytest.raises(CaremodelsError) as caught:
        run(*(word.format(tmp_path) for word in words))
    assert type(caught.value) is error
    assert set(tmp_path.iterdir()) == before


def test_migrate_on_a_log_of_today_does_nothing(run, home_log):
    assert run("migrate") == (0, {"before": 3, "after": 3})
