"""Feedback on cards, joined to the predictions behind them."""

from __future__ import annotations

import uuid

import pytest

from data.log.seal import comment_of
from serving.access.caller import Caller

INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
PATH = "/cds-services/ed_admission-patient-view/feedback"
COMMENT = "ZQcanary7411 was palliative"


@pytest.fixture
def card(talk, chart):
    prefetch = {
        "patient": chart.patient(),
        "encounter": chart.encounter(),
        "observations": chart.bundle(*chart.vitals()),
        "conditions": None,
    }
    body = {
        "hook": "patient-view",
        "hookInstance": INSTANCE,
        "context": {"patientId": "p1", "encounterId": "e1"},
        "prefetch": prefetch,
    }
    [shown] = talk.ask("POST", PATH.removesuffix("/feedback"), json=body).json()["cards"]
    return shown


def report(card, /, **more):
    own = {"card": card["uuid"], "outcome": "accepted", "outcomeTimestamp": "2026-11-24T01:15:00Z"}
    own["acceptedSuggestions"] = [{"id": card["suggestions"][0]["uuid"]}]
    return own | more


def tell(talk, *reports):
    return talk.ask("POST", PATH, json={"feedback": list(reports)})


def kept(talk, card):
    return talk.rows("SELECT * FROM feedback WHERE prediction_id = :id", id=card["uuid"])


def test_an_accepted_card_is_joined_once_however_often_it_is_told(talk, card):
    for status in ("joined", "repeated"):
        answered = tell(talk, report(card))
        assert answered.status_code == 200
        assert answered.json() == {"feedback": [{"card": card["uuid"], "status": status}]}
    [row] = kept(talk, card)
    assert (row["outcome"], str(row["occurred_at"])[:19]) == ("accepted", "2026-11-24 01:15:00")


def test_an_override_keeps_its_reason_and_seals_the_clinician_s_words(talk, card):
    [reason, *_] = card["overrideReasons"]
    told = report(card, outcome="overridden", acceptedSuggestions=None)
    told["overrideReason"] = {"reason": reason, "userComment": COMMENT}
    told["outcomeTimestamp"] = "2026-11-24T09:15:00+08:00"
    assert tell(talk, told).status_code == 200
    [row] = kept(talk, card)
    assert (row["reason_code"], row["reason_system"]) == (reason["code"], reason["system"])
    assert str(row["occurred_at"])[:19] == "2026-11-24 01:15:00"
    assert COMMENT not in row["comment"]
    opened = talk.runtime.keyring.open(row["comment"], bound_to=comment_of(card["uuid"]))
    assert opened == COMMENT


def test_a_card_that_nobody_was_shown_is_unknown_and_fails_no_other(talk, card):
    strange = str(uuid.uuid4())
    answered = tell(talk, report(card), report(card, card=strange))
    assert answered.status_code == 200
    assert [one["status"] for one in answered.json()["feedback"]] == ["joined", "unknown"]
    alone = tell(talk, report(card, card=strange))
    assert alone.status_code == 404
    assert alone.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"card": "x"}, "feedback[0].card"),
        ({"outcome": "ignored"}, "feedback[0].outcome"),
        ({"acceptedSuggestions": None}, "feedback[0].acceptedSuggestions"),
        ({"acceptedSuggestions": []}, "feedback[0].acceptedSuggestions"),
        ({"outcomeTimestamp": "2026-11-24T01:15:00"}, "feedback[0].outcomeTimestamp"),
        ({"outcomeTimestamp": "yesterday"}, "feedback[0].outcomeTimestamp"),
        ({"outcomeTimestamp": "2999-01-01T00:00:00Z"}, "feedback[0].outcomeTimestamp"),
        ({"outcomeTimestamp": "0001-01-01T00:00:00+14:00"}, "feedback[0].outcomeTimestamp"),
        ({"overrideReason": {"reason": {"code": ""}}}, "feedback[0].overrideReason.reason.code"),
        ({"overrideReason": {"userComment": "\0"}}, "feedback[0].overrideReason.userComment"),
        ({"overrideReason": {"userComment": "x" * 4001}}, "feedback[0].overrideReason.userComment"),
    ],
)
def test_each_report_is_held_to_the_specification(talk, card, change, field):
    answered = tell(talk, report(card) | change)
    assert answered.status_code == 422, answered.text
    assert [error["field"] for error in answered.json()["errors"]] == [field]
    assert kept(talk, card) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"feedback": []}', b'{"feedback": {}}'])
def test_what_is_no_feedback_is_refused(talk, content):
    headers = {"content-type": "application/json"}
    assert talk.ask("POST", PATH, content=content, headers=headers).status_code == 422


def test_feedback_outlives_the_release_and_not_the_model(talk, card):
    other = "/cds-services/readmission_30d-encounter-start/feedback"
    assert talk.ask("POST", other, json={"feedback": [report(card)]}).status_code == 200
    nowhere = "/cds-services/weather-patient-view/feedback"
    assert talk.ask("POST", nowhere, json={"feedback": [report(card)]}).status_code == 404


def test_a_caller_of_another_site_may_not_report(talk, card, monkeypatch):
    def admitted(*sites):
        async def admit(*_: object) -> Caller:
            return Caller(name="ward", scopes=frozenset({"predict"}), sites=frozenset(sites))

        monkeypatch.setattr(type(talk.runtime.guard), "admit", admit)

    admitted("county-07")
    assert tell(talk, report(card)).status_code == 403
    assert kept(talk, card) == []
    admitted("county-03")
    assert tell(talk, report(card)).status_code == 200
    assert kept(talk, card)[0]["caller"] == "ward"
