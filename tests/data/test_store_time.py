"""What of a mart is asked by time: as of a day, by period, and where there is an order and no date."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pytest

from data.contract import Column, Mart, Text
from data.errors import UsageError
from data.period import Period
from data.source import Origin
from data.store import Slice, open_store

KEY = b"0123456789abcdef"


def origin(load_id: str) -> Origin:
    return Origin(load_id=load_id, source="own", use="care")


@pytest.fixture
def store(tmp_path):
    with open_store(f"duckdb://{tmp_path / 'marts.duckdb'}") as opened:
        yield opened


def column(name: str, kind: str, role: str = "input", **more: object) -> Column:
    return Column(name=name, kind=kind, role=role, available="arrival", label=Text("", ""), **more)


HOURS = Mart(
    name="hour",
    row=Text("Hour", "小时"),
    key=("stay", "number"),
    encounter="stay",
    patient="patient",
    site="site",
    time="at",
    order="number",
    columns=(
        column("stay", "text", "id", identity="encounter", required=True),
        column("patient", "text", "id", identity="patient"),
        column("site", "text", "id"),
        column("at", "time", "id"),
        column("number", "integer"),
        column("told_at", "time", "audit"),
        column("ill", "flag", "outcome", known_at="told_at", known_within=2),
        column("died", "flag", "outcome", known_within=30),
    ),
)


def hour(number: int, at: str | None = None, told_at: str | None = None) -> dict[str, object]:
    def time(text: str | None) -> datetime | None:
        return text and datetime.fromisoformat(text)

    row = {"stay": "s1", "patient": "p1", "site": "a", "number": number, "ill": True, "died": False}
    return {**row, "at": time(at), "told_at": time(told_at)}


def hours(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=HOURS.arrow_schema)


def test_as_of_a_day_nothing_of_the_future_is_known(marts_url):
    rows = hours(
        hour(1, "2021-01-01T10:00", "2021-01-02T10:00"),  # told in time
        hour(2, "2021-01-01T11:00", "2021-03-01T00:00"),  # told on the day itself: too late
        hour(3, "2021-01-01T12:00"),  # untold, but two days have passed
        hour(4, "2021-02-27T00:00"),  # untold, and exactly two days have passed
        hour(5, "2021-02-28T23:00"),  # untold, and they have not
        hour(6, "2021-03-01T00:00", "2021-01-01T00:00"),  # the event itself lies ahead
    )
    with open_store(marts_url) as store:
        store.load(HOURS, [rows], origin("one"), key=KEY)
        now = store.read(HOURS)
        then = store.read(HOURS, Slice(as_of=datetime(2021, 3, 1)))  # noqa: DTZ001

    assert now["number"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert now["ill"].to_pylist() == [True] * 6
    assert then["number"].to_pylist() == [1, 2, 3, 4, 5]
    assert then["ill"].to_pylist() == [True, None, True, None, None]
    assert then["died"].to_pylist() == [False, False, False, None, None]


def test_a_mart_with_an_order_and_no_dates_refuses_questions_of_time(marts_url):
    march = Slice(period=Period.between("2021-03", None))
    with open_store(marts_url) as store:
        store.load(HOURS, [hours(hour(2), hour(1), hour(3))], origin("one"), key=KEY)
        assert store.read(HOURS)["number"].to_pylist() == [1, 2, 3]
        for asked in (march, Slice(as_of=datetime(2021, 3, 1))):  # noqa: DTZ001
            with pytest.raises(UsageError, match="mart hour holds no dates, only number"):
                store.read(HOURS, asked)


def test_a_row_needs_a_time_or_its_place_in_the_order(store):
    nowhere = hours({**hour(1), "number": None}, hour(2, "2021-01-01T10:00"), hour(3))
    report = store.load(HOURS, [nowhere], origin("one"), key=KEY)

    assert report.reasons == {"at: required, or number": 1}
    assert len(store.read(HOURS)) == 2


def test_a_key_of_several_columns_is_held_as_a_whole(store):
    rows = hours(hour(1), {**hour(1), "stay": "s2"}, hour(2), hour(1))
    report = store.load(HOURS, [rows], origin("one"), key=KEY)

    assert report.reasons == {"stay, number: duplicate": 1}
    assert report.kept == 3
