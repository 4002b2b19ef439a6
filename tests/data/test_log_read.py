"""What is read back from the log: kept answers, and predictions beside their outcomes."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from sqlalchemy import func, insert, select

from data.errors import UsageError
from data.log.append import Answer, Entry, LogWriter, Replay, Stored, find_answer
from data.log.outcomes import OutcomeCounts, OutcomeRow, record_outcomes
from data.log.read import SCHEMA, batches, count, versions, window
from data.log.schema import connect, outcome, prediction, writing
from data.log.seal import load_keyring

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

PLAIN = {"model": "m", "version": "1", "at": NOON, "received_at": NOON, "status": "scored"}

_ids = itertools.count()


@pytest.fixture
def engine(tmp_path):
    engine = connect(tmp_path / "log.db")
    yield engine
    engine.dispose()


@pytest.fixture
def keyring(tmp_path):
    return load_keyring(tmp_path)


@pytest.fixture
def add(engine):
    def add(**given):
        name = f"p{next(_ids):06}"
        with writing(engine) as connection:
            connection.execute(insert(prediction), {"prediction_id": name, **PLAIN, **given})
        return given.get("prediction_id", name)

    return add


@pytest.fixture
def report(engine):
    def report(*rows, now=NOON + DAY):
        return record_outcomes(engine, rows, now).statuses

    return report


def keyed(body=b"{}", *, body_hash="h"):
    at = NOON.replace(tzinfo=None)
    return Answer(key_hash="k", body_hash=body_hash, body=body, created_at=at)


def entry(name, answer):
    return Entry(predictions=({"prediction_id": name, **PLAIN},), answer=answer)


def said(value, name=None, *, at=NOON + HOUR, **given):
    return OutcomeRow(outcome=value, observed_at=at, prediction_id=name, **given)


def read(engine, *, start=NOON - DAY, end=NOON + DAY, **given):
    return window(engine, **{"model": "m", "keyring": None, **given}, start=start, end=end)


def known(engine):
    return dict(
        zip(*read(engine).select(["prediction_id", "outcome"]).to_pydict().values(), strict=True)
    )


def kept(engine):
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(outcome))


# Idempotency


def test_a_key_is_answered_as_it_was_the_first_time(engine, keyring):
    first, other = keyed(b"first"), keyed(b"second", body_hash="other")
    assert find_answer(engine, "k", keyring) is None
    with LogWriter(engine, keyring) as writer:
        assert writer.submit(entry("a", first)).result() == Stored()
        assert writer.submit(entry("b", other)).result() == Replay(first)
    assert find_answer(engine, "k", keyring) == first
    assert read(engine)["prediction_id"].to_pylist() == ["a"]


def test_of_racing_requests_with_one_key_one_is_stored(tmp_path, keyring):
    engines = [connect(tmp_path / "log.db") for _ in range(4)]
    writers = [LogWriter(engine, keyring) for engine in engines]
    together = threading.Barrier(16)

    def request(number):
        mine = entry(f"p{number}", keyed(str(number).encode()))
        together.wait()
        return writers[number % 4].submit(mine).result()

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(request, range(16)))
    for writer in writers:
        writer.close()
    winner = results.index(Stored())
    assert results.count(Stored()) == 1
    assert results.count(Replay(keyed(str(winner).encode()))) == 15
    assert read(engines[0])["prediction_id"].to_pylist() == [f"p{winner}"]
    for engine in engines:
        engine.dispose()


# Outcomes


def test_a_missing_outcome_stays_missing_and_a_late_one_joins(engine, add, report):
    a, b = add(), add()
    assert known(engine) == {a: None, b: None}
    assert report(said(0, a), now=NOON + 90 * DAY) == ("joined",)
    assert known(engine) == {a: 0, b: None}
    assert read(engine)["outcome_observed_at"].to_pylist() == [NOON + HOUR, None]


def test_a_repeat_changes_nothing(engine, add, report):
    a = add()
    in_beijing = (NOON + HOUR).astimezone(timezone(8 * HOUR))
    assert report(said(1, a), said(1, a, at=in_beijing)) == ("joined", "repeated")
    assert report(said(1, a), now=NOON + 2 * DAY) == ("repeated",)
    assert kept(engine) == 1


def test_a_correction_counts_and_the_first_report_is_kept(engine, add, report):
    a = add()
    assert report(said(1, a)) == ("joined",)
    assert report(said(0, a), now=NOON + 2 * DAY) == ("revised",)
    assert report(said(0, a, at=NOON + 2 * HOUR), now=NOON + 3 * DAY) == ("revised",)
    assert known(engine) == {a: 0}
    assert kept(engine) == 3


def test_a_copy_of_a_corrected_report_does_not_undo_the_correction(engine, add, report):
    a = add()
    assert report(said(1, a), said(0, a), said(1, a)) == ("joined", "revised", "superseded")
    assert known(engine) == {a: 0}
    assert report(said(1, a, at=NOON + 2 * HOUR)) == ("revised",)
    assert known(engine) == {a: 1}


def test_an_unknown_prediction_is_reported_and_fails_no_other(engine, add, report):
    a = add()
    rows = [said(1, "nobody"), said(1, a), said(0, model="m", encounter="none")]
    assert report(*rows) == ("unknown", "joined", "unknown")
    assert known(engine) == {a: 1}


def test_an_encounter_means_its_scored_predictions_of_that_model(engine, add, report):
    a, b = add(encounter="e"), add(encounter="e")
    add(encounter="e", status="abstained")
    add(encounter="e", model="other")
    add(encounter="f")
    refused = add(encounter="g", status="refused")
    assert report(said(1, model="m", encounter="e")) == ("joined",)
    assert {name for name, value in known(engine).items() if value == 1} == {a, b}
    assert report(said(0, b), said(0, model="m", encounter="e")) == ("revised", "revised")
    assert kept(engine) == 4
    assert report(said(1, model="m", encounter="g"), said(1, refused)) == ("unknown", "joined")


def test_what_a_challenger_silently_said_gets_the_same_outcome(engine, add, report):
    shown = add(encounter="e")
    silent = add(encounter="e", pointer="challenger", version="2", shadow_of=shown, used="silent")
    assert report(said(1, shown)) == ("joined",)
    both = read(engine, pointer=None).select(["prediction_id", "outcome"]).to_pydict()
    assert both == {"prediction_id": [shown, silent], "outcome": [1, 1]}
    assert report(said(0, model="m", encounter="e")) == ("revised",)
    assert read(engine, pointer=None)["outcome"].to_pylist() == [0, 0]
    # A caller does not know the challenger's id; a reviewer does.
    assert report(said(1, silent, at=NOON + 2 * HOUR)) == ("revised",)
    assert read(engine, pointer=None)["outcome"].to_pylist() == [0, 1]


def test_a_report_counts_its_rows(engine, add):
    a = add()
    rows = [said(1, a), said(1, a), said(0, a), said(1, a), said(1, "nobody")]
    found = record_outcomes(engine, rows, NOON, source="mart")
    assert found.counts == OutcomeCounts(joined=1, unknown=1, revised=1, repeated=1, superseded=1)
    with engine.connect() as connection:
        stored = connection.execute(select(outcome.c.model, outcome.c.source)).all()
    assert stored == [("m", "mart"), ("m", "mart")]


@pytest.mark.parametrize("bad", [said(2, "a"), said(1), said(1, model="m"), said(1, encounter="e")])
def test_a_malformed_row_is_refused_before_anything_is_written(engine, add, report, bad):
    a = add()
    with pytest.raises(UsageError, match="outcome: expected"):
        report(said(1, a), bad)
    assert kept(engine) == 0


def test_a_marts_outcomes_take_seconds(engine):
    names = [f"p{number}" for number in range(20_000)]
    with writing(engine) as connection:
        rows = [{"prediction_id": name, "encounter": f"e{name}", **PLAIN} for name in names]
        connection.execute(insert(prediction), rows)
    began = time.perf_counter()
    by_id = [said(1, name) for name in names[:10_000]]
    by_encounter = [said(0, model="m", encounter=f"e{name}") for name in names[10_000:]]
    counts = record_outcomes(engine, by_id + by_encounter, NOON).counts
    assert counts.joined == 20_000
    assert time.perf_counter() - began < 10


# Windows


def test_a_window_takes_its_start_and_leaves_its_end(engine, add):
    moment = timedelta(microseconds=1)
    add(at=NOON - moment)
    inside = [add(at=NOON), add(at=NOON + HOUR - moment)]
    add(at=NOON + HOUR)
    found = read(engine, start=NOON, end=NOON + HOUR)
    assert found["prediction_id"].to_pylist() == inside
    assert count(engine, model="m", start=NOON, end=NOON + HOUR) == 2
    assert count(engine, model="m") == 4


def test_a_time_is_the_same_in_every_zone(engine, add):
    beijing = timezone(8 * HOUR)
    naive = NOON.replace(tzinfo=None)
    names = [add(at=NOON), add(at=naive), add(at=NOON.astimezone(beijing))]
    for start in (NOON, naive, NOON.astimezone(beijing)):
        found = read(engine, start=start, end=start + HOUR)
        assert found["prediction_id"].to_pylist() == names
        assert found["at"].to_pylist() == [NOON] * 3
    assert read(engine, start=datetime(2026, 11, 23, 12, tzinfo=beijing), end=NOON).num_rows == 0


def test_rows_are_ordered_by_time_and_then_id(engine, add):
    for name, at in [("b", NOON), ("c", NOON - HOUR), ("a", NOON)]:
        add(prediction_id=name, at=at)
    assert read(engine)["prediction_id"].to_pylist() == ["c", "a", "b"]


def test_a_window_is_of_one_model_and_if_asked_of_one_version(engine, add):
    add(model="other")
    late, early = add(version="2", received_at=NOON + HOUR), add(version="10")
    assert read(engine)["prediction_id"].to_pylist() == [late, early]
    assert read(engine, version="10")["prediction_id"].to_pylist() == [early]
    assert count(engine, model="m", version="2") == 1
    assert versions(engine, "m") == ["10", "2"]
    assert versions(engine, "nothing") == []


def test_a_window_holds_what_was_answered_and_if_asked_what_was_silently_said(engine, add):
    answered, silent = add(version="1"), add(version="2", pointer="challenger", used="silent")
    assert read(engine)["prediction_id"].to_pylist() == [answered]
    assert read(engine, pointer="challenger")["prediction_id"].to_pylist() == [silent]
    assert read(engine, pointer=None)["used"].to_pylist() == ["answered", "silent"]
    assert [count(engine, model="m", pointer=p) for p in ("champion", "challenger", None)] == [1, 1, 2]
    assert versions(engine, "m") == ["1"]
    assert versions(engine, "m", pointer="challenger") == ["2"]


def test_an_empty_window_has_the_types_of_a_full_one(engine, add):
    empty = read(engine)
    add()
    full = read(engine)
    assert empty.num_rows == 0
    assert full.num_rows == 1
    assert empty.schema == full.schema == SCHEMA
    assert SCHEMA.field("at").type == pa.timestamp("us", tz="UTC")


def test_what_was_logged_comes_back_as_it_was(engine, add):
    row = {
        "prediction_id": "a",
        "received_at": NOON + HOUR,
        "site": "县-03",
        "patient": "f0",
        "encounter": "0f",
        "risk": 0.1 + 0.2,
        "margin": -1e-300,
        "band": "high",
        "base_value": -1.84,
        "contributions": '[{"feature": "sbp", "contribution": 0.61}]',
        "inputs": '{"sbp": 88}',
        "groups": '{"ethnicity": "汉"}',
        "warnings": "[]",
        "reasons": None,
        "latency_ms": 3.5,
        "caller": "ehr",
        "pointer": "challenger",
        "shadow_of": "b",
        "channel": "cds-hooks",
        "used": "silent",
        "level": 3,
        "novelty": 99.5,
        "conformal": '["1", "2"]',
    }
    add(**row)
    (found,) = read(engine, pointer=None).to_pylist()
    plain = {"model": "m", "version": "1", "at": NOON, "status": "scored"}
    nothing = dict.fromkeys(("outcome", "outcome_level", "outcome_observed_at"))
    assert found == {**row, **plain, **nothing}


def test_a_long_window_comes_in_pieces_of_one_moment(engine, add, monkeypatch):
    monkeypatch.setattr("data.log.read._CHUNK", 10)
    names = [add() for _ in range(25)]
    pieces = batches(engine, keyring=None, model="m", start=NOON, end=NOON + DAY)
    first = next(pieces)
    add()  # too late for a window that has begun
    sizes = [first.num_rows, *(piece.num_rows for piece in pieces)]
    assert sizes == [10, 10, 5]
    assert read(engine)["prediction_id"].to_pylist()[:25] == names
