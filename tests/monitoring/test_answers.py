"""What a version answered, read from a real log: which rows, as of when, and which of them count."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.log import read as log_read
from data.log.feedback import FeedbackRow, record_feedback
from data.log.outcomes import OutcomeRow, record_outcomes
from models import catalog
from monitoring import answers
from monitoring.answers import STATUS, USED, Answers, Lost

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
LATER = datetime(2026, 7, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
READMISSION = catalog.load("readmission_30d")


@pytest.fixture
def add(log):
    """Writes a scored prediction, or another; returns its id."""

    def add(at=MAY, **given):
        record = log.record(**{"at": at, "received_at": at, "margin": -1.0, "risk": 0.27, **given})
        if record["status"] != "scored":
            record = record | {"margin": None, "risk": None}
        log.write([record])
        return record["prediction_id"]

    return add


@pytest.fixture
def read(log, loaded):
    """The stretch of May as of July, counted as ``counts`` says."""

    def read(spec=loaded.spec, *, counts="first", start=MAY, end=JUNE, zone="UTC", **given):
        spec = replace(spec, watch=replace(spec.watch, counts=counts))
        asked = {"version": "3", "pointer": "champion", "as_of": LATER, **given}
        with log_read.moment(log.engine) as connection:
            return answers.read(
                connection,
                spec,
                start=start.replace(tzinfo=None),
                end=end.replace(tzinfo=None),
                zone=ZoneInfo(zone),
                **asked,
            )

    return read


@pytest.fixture
def tell(log):
    """Reports the outcome of a prediction."""

    def tell(name, value, now=MAY + DAY):
        record_outcomes(
            log.engine, [OutcomeRow(outcome=value, observed_at=now, prediction_id=name)], now
        )

    return tell


def counted(stretch):
    """Ids of the answers of the window that count."""
    return [
        name
        for name, counts in zip(stretch.names.to_pylist(), stretch.answers.counts, strict=True)
        if counts
    ]


def test_answers_come_in_order_with_all_that_judging_takes(read, add, tell):
    late = add(MAY + HOUR, site="south", patient="b", margin=math.log(3))
    early = add(MAY, site="north", patient="a", margin=0.0)
    add(MAY + 2 * HOUR, status="refused", reasons='[{"field": "age", "reason": "not a number"}]')
    add(MAY + 3 * HOUR, site="north", patient="a", status="abstained")
    tell(late, 1)
    found = read()
    mine = found.answers
    assert found.names.to_pylist()[:2] == [early, late]
    assert mine.sites == ("north", "south")
    assert mine.site.tolist() == [0, 1, -1, 0]
    assert [STATUS[place] for place in mine.status] == ["scored", "scored", "refused", "abstained"]
    assert mine.risk[:2].tolist() == pytest.approx([0.5, 0.75])  # odds of 1 and of 3
    assert np.isnan(mine.risk[2:]).all()
    assert np.array_equal(mine.outcome, [np.nan, 1, np.nan, np.nan], equal_nan=True)
    assert mine.patient.tolist() == [0, 1, 2, 0]  # who names none is somebody else
    assert mine.labelled.tolist() == [False, True, False, False]
    assert found.reasons == {2: '[{"field": "age", "reason": "not a number"}]', 3: None}


def test_a_log_without_any_is_no_answer(read):
    found = read()
    assert len(found.answers) == len(found.past) == len(found.names) == 0
    assert (found.share, found.lost) == (1.0, ())


def test_what_was_before_is_the_past_and_no_more_than_a_year_of_it(read, add):
    add(MAY - 365 * DAY - HOUR)
    add(MAY - 365 * DAY)
    add(MAY - HOUR)
    inside = add(MAY)
    add(JUNE)
    found = read()
    assert found.names.to_pylist() == [inside]
    assert found.past.at.tolist() == [datetime(2025, 5, 1), datetime(2026, 4, 30, 23)]  # noqa: DTZ001


# Which prediction of an encounter counts


@pytest.mark.parametrize(
    ("counts", "expected"), [("first", [0, 4]), ("last", [2, 4]), ("every", [0, 1, 2, 4])]
)
def test_of_an_encounter_scored_several_times_the_declared_one_counts(read, add, counts, expected):
    add(MAY, encounter="e", status="abstained")  # no risk, so that it can be neither
    names = [add(MAY + hour * HOUR, encounter="e") for hour in (1, 2, 3)]
    names.append(add(MAY + 4 * HOUR, encounter="e", status="refused"))
    names.append(add(MAY + 5 * HOUR))  # of no encounter: it stands for itself
    assert counted(read(counts=counts)) == [names[place] for place in expected]


@pytest.mark.parametrize("before", [HOUR, 400 * DAY], ids=["in the past year", "before it"])
def test_where_the_encounter_began_before_the_window_its_first_answer_was_there(read, add, before):
    add(MAY - before, encounter="e")
    again = add(MAY + HOUR, encounter="e")
    assert counted(read()) == []
    assert counted(read(counts="last")) == [again]


def test_where_the_encounter_goes_on_after_the_window_its_last_answer_is_there(read, add):
    first = add(JUNE - HOUR, encounter="e")
    add(JUNE + HOUR, encounter="e")
    assert counted(read(counts="last")) == []
    assert counted(read()) == [first]


def test_another_version_or_pointer_takes_no_encounter_away(read, add):
    add(MAY - 400 * DAY, encounter="e", version="2")
    add(MAY - 400 * DAY, encounter="e", pointer="challenger", used="silent")
    mine = add(MAY, encounter="e")
    assert counted(read()) == [mine]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12),
    st.sampled_from(["first", "last", "every"]),
)
def test_counting_is_what_one_would_do_by_hand(rows, rule):
    encounter = np.array([name for name, _ in rows], dtype=np.int64)
    able = np.array([scored for _, scored in rows], dtype=bool)
    expected = []
    for place, (name, scored) in enumerate(rows):
        others = [at for at, row in enumerate(rows) if row == (name, True)]
        one = {"first": others[:1], "last": others[-1:], "every": others}[rule]
        expected.append(scored and (name == 0 or place in one))
    assert answers.counting(encounter, able, rule).tolist() == expected


# As of when


def test_the_same_moment_gives_the_same_whatever_was_recorded_since(read, add, tell, log):
    first = add(MAY, encounter="e", used="card")
    second = add(MAY + HOUR)
    tell(first, 1, now=MAY + DAY)
    moment = MAY + 2 * DAY

    def seen(as_of):
        found = read(counts="last", as_of=as_of)
        mine = found.answers
        return [
            found.names.to_pylist(),
            mine.outcome.tolist(),
            mine.counts.tolist(),
            [USED[place] for place in mine.used],
        ]

    before = seen(moment)
    assert before == [
        [first, second],
        [1.0, pytest.approx(np.nan, nan_ok=True)],
        [True, True],
        ["card", "answered"],
    ]
    tell(first, 0, now=MAY + 5 * DAY)
    tell(second, 1, now=MAY + 5 * DAY)
    said = FeedbackRow(prediction_id=first, outcome="overridden", occurred_at=MAY + HOUR)
    record_feedback(log.engine, [said], MAY + 5 * DAY, keyring=log.keyring)
    third = add(MAY + 3 * HOUR, encounter="e", received_at=MAY + 5 * DAY)
    assert seen(moment) == [before[0], [1.0, pytest.approx(np.nan, nan_ok=True)], *before[2:]]
    assert seen(LATER) == [
        [first, second, third],
        [0.0, 1.0, pytest.approx(np.nan, nan_ok=True)],
        [False, True, True],
        ["overridden", "answered", "answered"],
    ]


def test_an_event_that_came_early_waits_until_its_absence_could_be_known(read, log, tell):
    """A readmission within 30 days: those who came back are known before those who did not."""
    plain = {"model": "readmission_30d", "at": MAY, "margin": 0.0, "risk": 0.5}
    rows = [log.record(**plain), log.record(**plain | {"at": MAY + DAY})]
    log.write(rows)
    for row in rows:
        tell(row["prediction_id"], 1, now=MAY + 9 * DAY)
    assert answers.delay(READMISSION) == 30 * DAY
    moments = [MAY + 9 * DAY, MAY + 30 * DAY - timedelta(seconds=1), MAY + 30 * DAY, MAY + 31 * DAY]
    found = [read(READMISSION, as_of=moment).answers for moment in moments]
    assert all(mine.outcome.tolist() == [1.0, 1.0] for mine in found)
    assert [mine.labelled.tolist() for mine in found] == [
        [False, False],
        [False, False],
        [True, False],
        [True, True],
    ]


# How it was used


@pytest.mark.parametrize(
    ("used", "shown"), [("answered", False), ("card", True), ("accepted", True), ("overridden", True)]
)
def test_what_a_clinician_saw_as_a_card_was_shown(read, add, log, used, shown):
    said = used in ("accepted", "overridden")
    name = add(MAY, used="card" if said else used)
    if said:
        row = FeedbackRow(prediction_id=name, outcome=used, occurred_at=MAY + HOUR)
        record_feedback(log.engine, [row], MAY + HOUR, keyring=log.keyring)
    mine = read().answers
    assert ([USED[place] for place in mine.used], mine.shown.tolist()) == ([used], [shown])


def test_what_a_challenger_said_silently_is_apart_and_was_shown_to_nobody(read, add):
    spoken = add(MAY)
    silent = add(MAY, pointer="challenger", used="silent")
    assert read().names.to_pylist() == [spoken]
    found = read(pointer="challenger")
    assert found.names.to_pylist() == [silent]
    assert found.answers.shown.tolist() == [False]


# Whose clock


def test_times_are_the_wall_clock_of_the_zone_also_where_clocks_change(read, add):
    berlin = ZoneInfo("Europe/Berlin")
    for hour in (0, 1):  # 2026-03-29 at 01:00 UTC it becomes three o'clock there
        add(datetime(2026, 3, 29, hour, 30, tzinfo=UTC))
    start, end = datetime(2026, 3, 1, tzinfo=berlin), datetime(2026, 4, 1, tzinfo=berlin)
    found = read(start=start.astimezone(UTC), end=end.astimezone(UTC), zone="Europe/Berlin")
    assert found.answers.at.tolist() == [
        datetime(2026, 3, 29, 1, 30),  # noqa: DTZ001
        datetime(2026, 3, 29, 3, 30),  # noqa: DTZ001
    ]


# Rows that make no sense


@pytest.mark.parametrize(
    ("column", "value", "status"),
    [
        ("status", "maybe", None),
        ("margin", "high", "scored"),
        ("margin", None, "scored"),
        ("margin", math.inf, "scored"),
        ("at", "2026-05-31 25:00:00", "scored"),
        ("at", "2026-05-3x", "scored"),
        ("used", "shouted", "scored"),
        ("prediction_id", b"\xff\xfe", "scored"),
    ],
)
def test_a_row_that_makes_no_sense_is_told_and_harms_no_other(read, add, spoil, column, value, status):
    good = add(MAY, site="north")
    spoil(add(MAY + HOUR, site="south"), **{column: value})
    found = read()
    assert found.names.to_pylist() == [good]
    assert found.answers.sites == ("north",)
    assert found.lost == (Lost(site="south", status=status),)


def test_a_text_that_is_none_costs_its_row_a_name_and_no_more(read, add, spoil):
    """One byte turned on a disk: no UTF-8, on which the driver would give up on the whole log."""
    spoil(add(MAY, site="north"), site=b"nor\xf4h", patient=b"\x80")
    good = add(MAY + HOUR, site="north")
    found = read()
    assert (len(found.answers), found.names.to_pylist()[1]) == (2, good)
    assert found.answers.site.tolist() == [-1, 0]
    assert found.lost == ()


def test_an_outcome_that_is_none_is_unknown(read, add, tell, spoil):
    name = add(MAY)
    tell(name, 1)
    spoil(name, table="outcome", outcome="yes")
    assert np.isnan(read().answers.outcome).all()


def test_lost_rows_of_the_past_are_left_out(read, add, spoil):
    spoil(add(MAY - DAY), status="maybe")
    add(MAY - HOUR)
    found = read()
    assert (len(found.past), found.lost) == (1, ())


@pytest.fixture
def spoil(log):
    """Writes into a row what no writer would, as a bad disk or a hand does."""

    def spoil(name, table="prediction", **values):
        with log.engine.connect() as connection:
            driver = connection.connection.driver_connection
            driver.execute("PRAGMA ignore_check_constraints = ON")
            driver.execute("PRAGMA foreign_keys = OFF")
            for column, value in values.items():
                text = isinstance(value, bytes)
                place = "CAST(? AS TEXT)" if text else "?"
                driver.execute(
                    f"UPDATE {table} SET {column} = {place} WHERE prediction_id = ?", (value, name)
                )
            driver.execute("PRAGMA ignore_check_constraints = OFF")
            driver.execute("PRAGMA foreign_keys = ON")

    return spoil


# More of a past than is held


def test_of_a_past_too_long_whole_days_are_taken(read, add, monkeypatch):
    monkeypatch.setattr(answers, "MOST_PAST", 4)
    names = [add(MAY - day * DAY + HOUR) for day in range(1, 11)]
    found = read()
    days = [at.date() for at in found.past.at.tolist()]
    # Ten rows where four are held: every third day, counted back from the window.
    assert days == [(MAY - day * DAY).date() for day in (9, 6, 3)]
    assert found.share == pytest.approx(1 / 3)
    again = read()
    assert again.past.at.tolist() == found.past.at.tolist()
    # What was not read may hold the first of an encounter; the whole log is asked.
    assert len(names) == 10
    add(MAY - DAY + 2 * HOUR, encounter="e")
    add(MAY, encounter="e")
    assert counted(read()) == []


def test_days_that_are_taken_are_of_every_weekday():
    start = datetime(2026, 5, 1)  # noqa: DTZ001
    every, days = answers._days(7 * answers.MOST_PAST, start - answers.PAST, start)
    assert every == 8
    assert {first.weekday() for first, _ in days} == set(range(7))
    assert all(last - first == DAY for first, last in days)
    assert days[-1] == (start - 8 * DAY, start - 7 * DAY)


# Arrays


def test_a_part_of_answers_is_theirs_in_every_array(make):
    whole = make.answers(np.linspace(0.1, 0.9, 9), at=np.datetime64("2026-05-01") + np.arange(9))
    part = whole.between(datetime(2026, 5, 3), datetime(2026, 5, 5))  # noqa: DTZ001
    assert part.risk.tolist() == pytest.approx([0.3, 0.4])
    assert part.patient.tolist() == [2, 3]
    assert part.sites == whole.sites
    assert len(Answers.none(("north",))) == 0
