"""What goes wrong on our side of the wire, said in the standards' way and without a patient's value."""

from __future__ import annotations

import logging

import pytest

from data.errors import (
    ForbiddenError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from data.log.append import LogWriter
from serving.access.caller import Caller
from serving.scorer import Scorer

CANARY = "ZQcanary7411"
INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"


@pytest.fixture(params=["fhir", "cds-hooks"])
def visit(request, talk, chart):
    """The same visit, asked about in either standard."""
    if request.param == "fhir":
        body = chart.parameters("ed_admission", *chart.visit())
        return lambda: talk.ask("POST", "/fhir/RiskAssessment/$evaluate", json=body)
    prefetch = {
        "patient": chart.patient(),
        "encounter": chart.encounter(),
        "observations": chart.bundle(*chart.vitals()),
        "conditions": None,
    }
    context = {"patientId": "p1", "encounterId": "e1"}
    body = {"hook": "patient-view", "hookInstance": INSTANCE, "context": context, "prefetch": prefetch}
    return lambda: talk.ask("POST", "/cds-services/ed_admission-patient-view", json=body)


@pytest.mark.parametrize(
    ("error", "code", "header"),
    [
        (UnauthorizedError("no key and no token"), "login", "www-authenticate"),
        (ForbiddenError("this needs the scope predict"), "forbidden", None),
        (RateLimitedError("too many", retry_after=7), "throttled", "retry-after"),
    ],
)
def test_who_may_not_ask_is_told_so(talk, visit, monkeypatch, error, code, header):
    async def admit(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(talk.runtime.guard), "admit", admit)
    answered = visit()
    assert answered.status_code == error.status
    assert answered.json()["issue"][0]["code"] == code
    assert header is None or header in answered.headers


def test_nothing_is_answered_that_is_not_written_down(visit, monkeypatch):
    def closed(*_: object) -> None:
        raise UnavailableError("the prediction log is closed")

    monkeypatch.setattr(LogWriter, "submit", closed)
    answered = visit()
    assert answered.status_code == 503
    assert answered.json()["resourceType"] == "OperationOutcome"
    assert not {"prediction", "cards"} & answered.json().keys()


def test_a_fault_that_nobody_foresaw_shows_no_value(visit, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)

    def fail(*_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(Scorer, "predict_all", fail)
    answered = visit()
    assert answered.status_code == 500
    assert answered.json()["issue"][0]["code"] == "exception"
    assert CANARY not in answered.text + caplog.text


def test_a_caller_bound_to_sites_speaks_for_those_alone(talk, visit, monkeypatch):
    def admitted(*sites):
        async def admit(*_: object) -> Caller:
            return Caller(name="ward", scopes=frozenset({"predict"}), sites=frozenset(sites))

        monkeypatch.setattr(type(talk.runtime.guard), "admit", admit)

    admitted("county-03", "county-04")
    assert visit().status_code == 200
    [row] = talk.rows("SELECT caller, site FROM prediction ORDER BY prediction_id DESC LIMIT 1")
    assert row == {"caller": "ward", "site": "county-03"}
    admitted("county-07")
    assert visit().status_code == 403
