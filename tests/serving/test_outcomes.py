"""Outcomes that are told with the level that turned out to be right."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select

from data.errors import ContractError
from data.log.outcomes import record_outcomes
from data.log.schema import connect, outcome, prediction, writing
from data.pseudonym import keyed_hash
from serving.outcomes import rows
from serving.schema import OutcomeItem

KEY = b"0123456789abcdef"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path):
    """A log with one prediction of a model of levels, and one of another."""
    engine = connect(tmp_path / "log.db")
    plain = {"version": "1", "at": NOON, "received_at": NOON, "status": "scored"}
    visit = keyed_hash(KEY, "E-1", kind="encounter")
    with writing(engine) as connection:
        for name, model in (("t", "ed_triage"), ("a", "ed_admission")):
            row = {"prediction_id": name, "model": model, "encounter": visit, "site": "here", **plain}
            connection.execute(insert(prediction), row)
    yield engine
    engine.dispose()


def item(value, level, **named):
    return OutcomeItem(outcome=value, level=level, observed_at=NOON, **named)


def test_a_level_is_kept_by_prediction_and_by_encounter(engine):
    told = [
        item(1, 2, prediction_id="t"),
        item(0, 4, model="ed_triage", encounter_id="E-1"),
        item(1, None, model="ed_admission", encounter_id="E-1"),
    ]
    report = record_outcomes(engine, rows(told, KEY, engine), NOON)
    assert report.statuses == ("joined", "revised", "joined")
    with engine.connect() as connection:
        told = (outcome.c.prediction_id, outcome.c.outcome, outcome.c.level)
        kept = connection.execute(select(*told).order_by(outcome.c.id))
        assert kept.all() == [("t", 1, 2), ("t", 0, 4), ("a", 1, 0)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (item(1, 1, prediction_id="a"), "the model answers no levels"),
        (item(1, 1, model="ed_admission", encounter_id="E-1"), "the model answers no levels"),
        (item(0, 6, prediction_id="t"), "at most 5"),
        (item(0, 2, prediction_id="t"), "with outcome 1 a level up to 2, with outcome 0 one after it"),
        (
            item(1, 3, model="ed_triage", encounter_id="E-1"),
            "with outcome 1 a level up to 2, with outcome 0 one after it",
        ),
    ],
)
def test_a_level_that_does_not_fit_fails_the_report(engine, said, reason):
    with pytest.raises(ContractError) as caught:
        rows([item(1, 2, prediction_id="t"), said], KEY, engine)
    [fault] = caught.value.errors
    assert (fault.field, fault.reason) == ("[1].level", reason)


def test_of_a_prediction_elsewhere_nothing_is_said(engine):
    said = [item(1, 1, prediction_id="a")]
    assert rows(said, KEY, engine, sites=["county-01"])[0].level == 1
    with pytest.raises(ContractError):
        rows(said, KEY, engine, sites=["here"])


def test_of_a_prediction_that_nobody_knows_no_level_is_wrong(engine):
    told = rows([item(1, 9, prediction_id="nobody")], KEY, engine)
    assert record_outcomes(engine, told, NOON).statuses == ("unknown",)
