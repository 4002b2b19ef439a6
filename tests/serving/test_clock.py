"""A clock that jumps changes no id and no latency."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from serving import scorer
from serving.scorer import Receipt

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_ids_are_unique_though_the_clock_stands_or_goes_back():
    moments = [NOON, NOON - timedelta(hours=1), NOON + timedelta(days=9), NOON] * 5_000
    ids = {scorer._new_id(moment) for moment in moments}
    assert len(ids) == len(moments)
    assert {uuid.UUID(name).version for name in ids} == {7}


def test_a_request_is_timed_by_a_clock_that_nobody_sets(monkeypatch):
    class SetBack(datetime):
        @classmethod
        def now(cls, tz=None):  # noqa: ARG003 - as it is called
            return NOON - timedelta(hours=1)

    before = Receipt.now()
    monkeypatch.setattr(scorer, "datetime", SetBack)
    after = Receipt.now()
    assert after.at == NOON - timedelta(hours=1)
    assert after.began > before.began
