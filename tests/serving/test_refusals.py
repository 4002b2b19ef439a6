"""What is kept of refused calls, and how much of a flood."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from data.log.schema import connect, refused_call
from serving.access import refusals
from serving.access.refusals import MOST, Refusals

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def engine(tmp_path):
    engine = connect(tmp_path / "log.db")
    yield engine
    engine.dispose()


def add(kept: Refusals, count: int) -> None:
    for _ in range(count):
        kept.add(route="/v1/{model}", status=401, reason="no key", caller=None, peer="10.0.0.7")


def rows(engine, *columns):
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*columns or (refused_call,)))]


def test_of_a_flood_a_part_is_kept_and_the_rest_counted(engine):
    clock = Clock()
    kept = Refusals(engine, clock=clock)
    add(kept, MOST + 250)
    kept.write()
    assert rows(engine, func.count(refused_call.c.id)) == [(MOST,)]
    clock.now += timedelta(minutes=1)
    add(kept, 1)
    kept.write()
    *_, several, one = rows(engine, refused_call.c.route, refused_call.c.reason, refused_call.c.status)
    assert several == ("(several)", "250 more in the minute of 12:00 UTC", 0)
    assert one == ("/v1/{model}", "no key", 401)


def test_the_rest_is_counted_when_the_server_stops(engine):
    kept = Refusals(engine, clock=Clock())
    add(kept, MOST + 1)
    kept.write(last=True)
    assert rows(engine, func.count(refused_call.c.id)) == [(MOST + 1,)]


def test_what_cannot_be_written_waits_and_no_more_than_fits(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(refusals, "WAITING", 3)
    clock = Clock()
    kept = Refusals(engine, clock=clock)
    (tmp_path / "log.db").rename(tmp_path / "away.db")
    add(kept, 5)
    kept.write()
    (tmp_path / "away.db").rename(tmp_path / "log.db")
    kept.write(last=True)
    assert [row[0] for row in rows(engine, refused_call.c.reason)] == [
        "no key", "no key", "no key", "2 more in the minute of 12:00 UTC",
    ]  # fmt: skip
