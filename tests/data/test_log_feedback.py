"""What clinicians did with their cards: joined once, kept, sealed, and read as the use made of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select

from data.errors import UnavailableError, UsageError
from data.log.append import Entry, LogWriter
from data.log.feedback import FeedbackRow, record_feedback
from data.log.read import window
from data.log.schema import feedback, prediction, writing
from data.log.seal import comment_of

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAIN = {"model": "m", "version": "1", "at": NOON, "received_at": NOON, "status": "scored"}


def said(outcome, name="a", *, at=NOON, **given):
    return FeedbackRow(prediction_id=name, outcome=outcome, occurred_at=at, **given)


@pytest.fixture
def report(log, keyring):
    with LogWriter(log, keyring) as writer:
        shown = [{"prediction_id": name, **PLAIN, "used": "card"} for name in "ab"]
        silent = {"prediction_id": "c", **PLAIN, "used": "silent", "pointer": "challenger"}
        writer.submit(Entry(predictions=(*shown, {**silent, "shadow_of": "a"}))).result()
    return lambda *rows, now=NOON: record_feedback(log, rows, now, keyring=keyring)


def used(log):
    found = window(log, keyring=None, model="m", start=NOON, end=NOON + HOUR, pointer=None)
    return dict(zip(found["prediction_id"].to_pylist(), found["used"].to_pylist(), strict=True))


def kept(log):
    with log.connect() as connection:
        return connection.execute(select(feedback).order_by(feedback.c.id)).all()


def test_a_card_that_was_overridden_is_told_of_with_its_reason(log, report, keyring):
    row = said(
        "overridden",
        reason_code="contraindicated",
        reason_system="http://example.org/reasons",
        comment="病人已拒绝",
        caller="ehr",
    )
    assert report(row, now=NOON + HOUR) == ("joined",)
    assert used(log) == {"a": "overridden", "b": "card", "c": "silent"}
    [stored] = kept(log)
    assert (stored.reason_code, stored.reason_system) == (
        "contraindicated",
        "http://example.org/reasons",
    )
    assert stored.caller == "ehr"
    assert stored.recorded_at == (NOON + HOUR).replace(tzinfo=None)
    assert "病人" not in stored.comment
    assert keyring.open(stored.comment, bound_to=comment_of("a")) == "病人已拒绝"


def test_a_repeat_is_kept_once_as_it_came_first(log, report):
    in_beijing = NOON.astimezone(timezone(8 * HOUR))
    first = said("accepted", comment="first")
    assert report(first, said("accepted", at=in_beijing)) == ("joined", "repeated")
    assert report(said("accepted", comment="second")) == ("repeated",)
    assert len(kept(log)) == 1


def test_the_latest_word_counts_and_the_earlier_is_kept(log, report):
    assert report(said("overridden"), said("accepted", at=NOON + HOUR)) == ("joined", "joined")
    assert report(said("overridden", at=NOON - HOUR)) == ("joined",)
    assert used(log)["a"] == "accepted"
    assert [row.outcome for row in kept(log)] == ["overridden", "accepted", "overridden"]


def test_of_one_moment_the_last_word_counts(log, report):
    report(said("overridden"), said("accepted"))
    assert used(log)["a"] == "accepted"


def test_an_unknown_card_is_reported_and_fails_no_other(log, report):
    assert report(said("accepted", "nobody"), said("accepted", "b")) == ("unknown", "joined")
    assert used(log)["b"] == "accepted"
    assert report() == ()


def test_another_word_is_refused_before_anything_is_written(log, report):
    with pytest.raises(UsageError, match="feedback: expected"):
        report(said("accepted"), said("ignored"))
    assert kept(log) == []


def test_a_key_that_comes_in_the_middle_seals_the_comment(log, report, keyring, monkeypatch):
    from data.log import feedback as module

    former, record = keyring.newest, module._record

    def meanwhile(*given):
        monkeypatch.setattr(module, "_record", record)
        keyring.add()
        return record(*given)

    monkeypatch.setattr(module, "_record", meanwhile)
    assert report(said("accepted", comment="words")) == ("joined",)
    assert not kept(log)[0].comment.startswith(f"s1.{former}.")


def test_a_log_that_cannot_be_written_is_told_of(log, report):
    with writing(log) as connection:
        feedback.drop(connection)
    with pytest.raises(UnavailableError):
        report(said("accepted"))
    with log.connect() as connection:
        assert len(connection.execute(select(prediction.c.prediction_id)).all()) == 3
