"""What monitoring reads of the log: answers as of a moment, inputs of some, rows without sense."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from sqlalchemy import insert

from data.errors import UnavailableError
from data.log import read
from data.log.feedback import FeedbackRow, record_feedback
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.read import ANSWERS, OPENED, answers, busy, moment, of_encounter, opened
from data.log.schema import connect, prediction, writing
from data.log.seal import load_keyring

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
PLAIN = {"model": "m", "version": "1", "at": NOON, "received_at": NOON, "status": "scored"}
MINE = {"model": "m", "version": "1", "pointer": "champion"}

_ids = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def engine(request, tmp_path):
    """A log of its own on each database."""
    given = tmp_path / "log.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    engine = connect(given)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(tmp_path):
    """A log in a file, where any value fits into any column."""
    engine = connect(tmp_path / "log.db")
    yield engine
    engine.dispose()


@pytest.fixture
def keyring(tmp_path):
    return load_keyring(tmp_path)


def add(engine, **given):
    name = given.get("prediction_id", f"p{next(_ids):06}")
    with writing(engine) as connection:
        connection.execute(insert(prediction), {"prediction_id": name, **PLAIN, **given})
    return name


def tell(engine, name, value, *, at, now, **given):
    row = OutcomeRow(outcome=value, observed_at=at, prediction_id=name, **given)
    return record_outcomes(engine, [row], now).statuses[0]


def spoil(engine, name, **values):
    """Write what no writer would, a text as the bytes that are given."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        driver.execute("PRAGMA ignore_check_constraints = ON")
        for column, value in values.items():
            place = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
            query = f"UPDATE prediction SET {column} = {place} WHERE prediction_id = ?"
            driver.execute(query, (value, name))
        driver.execute("PRAGMA ignore_check_constraints = OFF")


def table(engine, **given):
    asked = {"start": NOON - DAY, "end": NOON + DAY, "as_of": NOON + 99 * DAY, **MINE, **given}
    with moment(engine) as connection:
        return pa.Table.from_batches(list(answers(connection, **asked)), schema=ANSWERS)


def column(engine, name, **given):
    return table(engine, **given)[name].to_pylist()


# Answers


def test_answers_are_ordered_by_time_and_then_id(engine):
    for name, at in [("b", NOON), ("c", NOON - HOUR), ("a", NOON)]:
        add(engine, prediction_id=name, at=at)
    assert column(engine, "prediction_id") == ["c", "a", "b"]


def test_an_answer_comes_back_as_it_was_written(engine):
    row = {
        "prediction_id": "a",
        "at": NOON + TICK,
        "site": "县-03",
        "patient": "f0",
        "encounter": "0f",
        "margin": -1e-300,
        "level": 3,
        "used": "card",
    }
    add(engine, risk=0.5, **row)
    found = table(engine)
    assert found.schema == ANSWERS
    nothing = {"outcome": None, "outcome_level": None, "reasons": None}
    assert found.to_pylist() == [{**row, "status": "scored", **nothing}]


def test_the_index_of_times_holds_all_but_reasons_and_outcomes():
    """Else each answer is fetched from behind its sealed inputs."""
    elsewhere = {"reasons", "outcome", "outcome_level"}
    [index] = [one for one in prediction.indexes if one.name == "prediction_model_at"]
    held = {column.name for column in index.columns}
    assert set(ANSWERS.names) - elsewhere | {"model", "version", "pointer", "received_at"} == held


def test_reasons_are_of_those_without_a_risk_or_of_nobody(engine):
    add(engine, prediction_id="a", reasons='["told beside a risk"]')
    add(engine, prediction_id="b", status="refused", reasons="[]")
    assert column(engine, "reasons") == [None, "[]"]
    assert column(engine, "reasons", reasons=False) == [None, None]


def test_a_stretch_takes_its_start_and_leaves_its_end_in_any_zone(engine):
    add(engine, at=NOON - TICK)
    inside = [add(engine, at=NOON), add(engine, at=NOON + HOUR - TICK)]
    add(engine, at=NOON + HOUR)
    beijing = timezone(8 * HOUR)
    for start in (NOON, NOON.replace(tzinfo=None), NOON.astimezone(beijing)):
        assert column(engine, "prediction_id", start=start, end=start + HOUR) == inside


def test_answers_are_of_one_model_version_and_pointer(engine):
    mine = add(engine)
    add(engine, model="other")
    add(engine, version="10")
    silent = add(engine, pointer="challenger", used="silent")
    assert column(engine, "prediction_id") == [mine]
    assert column(engine, "prediction_id", pointer="challenger") == [silent]


def test_an_outcome_is_the_last_that_was_recorded_by_then(engine):
    name, other = add(engine), add(engine)
    tell(engine, name, 1, at=NOON + 3 * HOUR, now=NOON + DAY)
    tell(engine, name, 0, at=NOON + 2 * HOUR, now=NOON + 2 * DAY)  # a correction, seen earlier
    tell(engine, other, 1, at=NOON, now=NOON + 3 * DAY)
    moments = [NOON + DAY - TICK, NOON + DAY, NOON + 2 * DAY, NOON + 3 * DAY]
    known = [column(engine, "outcome", as_of=as_of) for as_of in moments]
    assert known == [[None, None], [1, None], [0, None], [0, 1]]


def test_a_clock_that_was_set_back_does_not_undo_a_correction(engine):
    name = add(engine)
    tell(engine, name, 1, at=NOON, now=NOON + 2 * DAY)
    tell(engine, name, 0, at=NOON + HOUR, now=NOON + DAY)
    assert column(engine, "outcome") == [0]


def test_a_level_that_was_corrected_is_an_outcome_of_its_own(engine):
    name, other = add(engine), add(engine)
    assert tell(engine, name, 0, at=NOON, now=NOON + DAY) == "joined"
    told = [tell(engine, name, 0, at=NOON, now=NOON + DAY, level=level) for level in (3, 4, 4, 3)]
    assert told == ["revised", "revised", "repeated", "superseded"]
    tell(engine, other, 1, at=NOON, now=NOON + DAY)
    assert column(engine, "outcome_level", levels=True) == [4, 0]
    assert column(engine, "outcome_level", levels=True, as_of=NOON) == [None, None]
    assert column(engine, "outcome_level") == [None, None]


def test_what_was_said_of_a_card_counts_from_when_it_was_recorded(engine, keyring):
    name = add(engine, used="card")
    for said, at, now in [
        ("accepted", NOON + 2 * HOUR, NOON + DAY),
        ("overridden", NOON + HOUR, NOON + 2 * DAY),  # came later and is of before
        ("overridden", NOON + 3 * HOUR, NOON + 3 * DAY),
    ]:
        row = FeedbackRow(prediction_id=name, outcome=said, occurred_at=at)
        record_feedback(engine, [row], now, keyring=keyring)
    moments = [NOON, NOON + DAY, NOON + 2 * DAY, NOON + 3 * DAY]
    used = [column(engine, "used", as_of=as_of)[0] for as_of in moments]
    assert used == ["card", "accepted", "accepted", "overridden"]


def test_a_prediction_that_came_in_later_was_not_there_yet(engine):
    early, late = add(engine), add(engine, received_at=NOON + DAY)
    assert column(engine, "prediction_id", as_of=NOON + HOUR) == [early]
    assert column(engine, "prediction_id", as_of=NOON + DAY) == [early, late]


def test_answers_come_in_pieces_of_one_moment(engine, keyring, monkeypatch):
    monkeypatch.setattr("data.log.read._AT_ONCE", 5)
    monkeypatch.setattr("data.log.read._TOGETHER", 2)
    names = [add(engine) for _ in range(25)]
    with moment(engine) as connection:
        asked = {"start": NOON, "end": NOON + DAY, "as_of": NOON + DAY, **MINE}
        pieces = answers(connection, **asked)
        first = next(pieces)
        late = add(engine)  # too late for a moment that has begun
        found = [first, *pieces]
        assert [piece.num_rows for piece in found] == [10, 10, 5]
        assert busy(connection, model="m") == 25
        assert not list(opened(connection, [late], keyring=keyring))
    assert pa.Table.from_batches(found)["prediction_id"].to_pylist() == names
    assert len(table(engine)) == 26


def test_no_rows_have_the_types_of_many(engine):
    assert table(engine).schema == ANSWERS
    assert table(engine).num_rows == 0


# Inputs of some


def test_inputs_are_opened_of_the_rows_asked_for_and_of_no_other(engine, keyring, monkeypatch):
    monkeypatch.setattr(read, "_ASKED", 2)  # several queries, the last of one row
    wanted = {}
    for place in range(5):
        name = f"p{next(_ids):06}"
        text = f'{{"age": {place}}}'
        sealed = keyring.seal(text, bound_to=name)
        add(engine, prediction_id=name, inputs=sealed, contributions="[]", groups="{}")
        wanted[name] = text
    add(engine, inputs=keyring.seal("{}", bound_to="other"))
    with moment(engine) as connection:
        batches = list(opened(connection, [*wanted, "nobody"], keyring=keyring))
    found = pa.Table.from_batches(batches)
    assert found.schema == OPENED
    assert {row["prediction_id"]: row["inputs"] for row in found.to_pylist()} == wanted
    assert set(found["contributions"].to_pylist()) == {"[]"}


def test_inputs_that_no_key_opens_are_null(engine, keyring, tmp_path):
    mine, moved = add(engine, inputs="{}"), f"p{next(_ids):06}"
    add(engine, prediction_id=moved, inputs=keyring.seal("{}", bound_to=mine))
    other = load_keyring(tmp_path / "elsewhere")
    strange = f"p{next(_ids):06}"
    add(engine, prediction_id=strange, inputs=other.seal("{}", bound_to=strange))
    with moment(engine) as connection:
        batches = list(opened(connection, [mine, moved, strange], keyring=keyring))
    found = {row["prediction_id"]: row["inputs"] for row in pa.Table.from_batches(batches).to_pylist()}
    assert found == {mine: "{}", moved: None, strange: None}


# Encounters


def test_the_first_and_the_last_of_an_encounter_are_those_of_the_whole_log(engine, monkeypatch):
    monkeypatch.setattr(read, "_ASKED", 2)
    add(engine, encounter="e", at=NOON - 900 * DAY, status="refused")
    first = add(engine, encounter="e", at=NOON - 800 * DAY)
    add(engine, encounter="e", at=NOON)
    last = add(engine, encounter="e", at=NOON + 800 * DAY)
    add(engine, encounter="e", at=NOON + 900 * DAY, version="2")
    add(engine, prediction_id="z", encounter="f")
    add(engine, prediction_id="y", encounter="f")  # of the same time: the lower id is the first
    add(engine, prediction_id="x", encounter="g", status="abstained")
    asked = {"as_of": NOON + DAY, **MINE}
    with moment(engine) as connection:
        found = [
            of_encounter(connection, ["e", "f", "g", "h"], last=last, **asked) for last in (False, True)
        ]
    assert found == [{"e": first, "f": "y"}, {"e": last, "f": "z"}]


def test_an_encounter_that_went_on_since_has_the_last_of_then(engine):
    then = add(engine, encounter="e")
    now = add(engine, encounter="e", at=NOON + HOUR, received_at=NOON + 2 * DAY)
    with moment(engine) as connection:
        found = [
            of_encounter(connection, ["e"], last=True, as_of=as_of, **MINE)["e"]
            for as_of in (NOON + DAY, NOON + 2 * DAY)
        ]
    assert found == [then, now]


def test_busy_counts_a_model_whatever_its_version(engine):
    for given in ({}, {"version": "2"}, {"pointer": "challenger", "used": "silent"}, {"model": "o"}):
        add(engine, **given)
    add(engine, at=NOON + HOUR)
    with moment(engine) as connection:
        assert busy(connection, model="m") == 4
        assert busy(connection, model="m", start=NOON, end=NOON + HOUR) == 3
        assert busy(connection, model="m", start=NOON + TICK) == 1


# Rows that make no sense


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin", "high"),
        ("margin", b"\xff"),
        ("at", "2026-02-30 12:00:00.000000"),
        ("at", "2026-11-23 12:00:00+08:00"),
        ("at", "2026-11-23 noon"),
        ("site", b"nor\xf4h"),
        ("status", b"scor\xe5d"),
        ("patient", b"\x80\x81"),
        ("prediction_id", b"\xff"),
    ],
)
def test_a_value_that_is_none_is_null_and_all_others_are_read(sqlite, monkeypatch, name, value):
    monkeypatch.setattr("data.log.read._AT_ONCE", 7)
    whole = {"margin": -1.0, "site": "north", "patient": "f0"}
    names = [add(sqlite, **whole) for _ in range(20)]
    spoil(sqlite, names[4], **{name: value})
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found = table(sqlite, start=start).to_pylist()
    good = {**whole, "at": NOON, "status": "scored", "used": "answered", "outcome": None}
    assert len(found) == 20
    wrong = [row for row in found if row[name] is None]
    assert len(wrong) == 1
    assert {key: wrong[0][key] for key in good if key != name} == {k: good[k] for k in good if k != name}
    for row in found:
        assert row in wrong or {key: row[key] for key in good} == good


def test_an_outcome_that_is_no_number_is_unknown(sqlite):
    first, second = add(sqlite), add(sqlite)
    for name in (first, second):
        tell(sqlite, name, 1, at=NOON, now=NOON)
    with sqlite.connect() as connection:
        driver = connection.connection.driver_connection
        driver.execute("PRAGMA ignore_check_constraints = ON")
        driver.execute("UPDATE outcome SET outcome = 'yes' WHERE prediction_id = ?", (first,))
        driver.execute("PRAGMA ignore_check_constraints = OFF")
    assert column(sqlite, "outcome") == [None, 1]


@pytest.mark.parametrize("value", [5, 0.5, "no seal: a text as it is", b"\xff\xfe"])
def test_inputs_of_any_other_kind_are_null_or_as_they_are(sqlite, keyring, value):
    good, bad = add(sqlite, inputs='{"age": 4}'), add(sqlite, inputs="{}")
    spoil(sqlite, bad, inputs=value, contributions=value, groups=value)
    with moment(sqlite) as connection:
        (batch,) = opened(connection, [good, bad], keyring=keyring)
    found = {row["prediction_id"]: row for row in batch.to_pylist()}
    assert found[good]["inputs"] == '{"age": 4}'
    # SQLite makes a text of a number in a text's column.
    expected = None if isinstance(value, bytes) else str(value)
    assert [found[bad][name] for name in ("inputs", "contributions", "groups")] == [expected] * 3


def test_an_encounter_whose_text_is_none_is_asked_for_in_vain(sqlite):
    spoil(sqlite, add(sqlite, encounter="e"), encounter=b"e\xff")
    mine = add(sqlite, encounter="f")
    with moment(sqlite) as connection:
        found = of_encounter(connection, ["e\ufffd", "f"], as_of=NOON + DAY, **MINE)
    assert found == {"f": mine}


def test_the_texts_of_other_readers_stay_texts(sqlite):
    add(sqlite)
    table(sqlite)
    with moment(sqlite) as connection:
        assert connection.exec_driver_sql("SELECT model FROM prediction").scalars().all() == ["m"]


def test_a_log_that_breaks_while_it_is_read_is_unavailable_and_tells_no_value(engine):
    add(engine)
    with pytest.raises(UnavailableError) as caught, moment(engine) as connection:
        connection.exec_driver_sql("SELECT 'canary' FROM nowhere")
    assert str(caught.value) == "the prediction log cannot be read"
