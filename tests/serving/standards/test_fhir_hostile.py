"""What no client ought to send: each is refused in the standard's way, and none of it comes back."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

EVALUATE = "/fhir/RiskAssessment/$evaluate"
CANARY = "ZQcanary7411"
FHIR = {"content-type": "application/fhir+json"}


def refused(talk, content, caplog=None):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    answered = talk.ask("POST", EVALUATE, content=body, headers=FHIR)
    assert answered.status_code == 422, answered.text
    assert answered.json()["resourceType"] == "OperationOutcome"
    assert CANARY not in answered.text
    return answered.json()["issue"][0]["details"]["text"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"NaN", b"\xff\xfe{}", b'"Parameters"', b"{}",
        b'{"resourceType": "Bundle"}',
        b'{"resourceType": "Parameters", "resourceType": "Parameters"}',
        b'{"resourceType": "Parameters", "parameter": {}}',
        b'{"resourceType": "Parameters", "parameter": [null]}',
        b'{"resourceType": "Parameters", "parameter": [{"name": 3}]}',
        b'{"resourceType": "Parameters", "parameter": ' + b"[" * 100_000,
        b'{"resourceType": "Parameters", "extra": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_what_are_no_parameters_is_refused(talk, content):
    refused(talk, content)


def test_each_parameter_is_held_to_its_place(talk, chart):
    visit = chart.visit()
    cases = {
        "model: required": chart.parameters("ed_admission", *visit, model=None),
        "subject: names nobody": chart.parameters(
            "ed_admission", *visit, subject={"valueReference": {"display": CANARY}}
        ),
        "Parameters.parameter[2].resource: required": chart.parameters(
            "ed_admission", *visit, data={"valueString": CANARY}
        ),
        "Parameters.parameter[3].name: no such parameter": chart.parameters(
            "ed_admission", *visit, encuonter={"valueReference": {"reference": CANARY}}
        ),
        "at: not a date and time": chart.parameters(
            "ed_admission", *visit, at={"valueDateTime": CANARY}
        ),
        "subject: another patient": chart.parameters(
            "ed_admission", *visit, subject={"valueReference": {"reference": f"Patient/{CANARY}"}}
        ),
        "site: longer": chart.parameters("sepsis", *visit, site={"valueString": "x" * 129}),
    }
    for begins, body in cases.items():
        assert refused(talk, body).startswith(begins)
    twice = chart.parameters("ed_admission", *visit)
    twice["parameter"].append({"name": "model", "valueCode": "sepsis"})
    assert refused(talk, twice) == "model: given twice"


WEIRD = [
    {"code": CANARY},
    {"code": {"coding": CANARY}},
    {"code": {"coding": [CANARY]}},
    {"status": None},
    {"status": ["final"]},
    {"subject": CANARY},
    {"subject": {"reference": f"Patient/{CANARY}"}},
    {"subject": {"reference": 3}},
    {"effectiveDateTime": CANARY},
    {"effectiveDateTime": 20261123},
    {"effectiveDateTime": "2026-11-23T08:15:00"},
    {"effectivePeriod": CANARY, "effectiveDateTime": None},
    {"valueQuantity": CANARY},
    {"valueQuantity": [1]},
    {"valueQuantity": {"value": CANARY, "code": "/min"}},
    {"valueQuantity": {"value": "NaN", "code": "/min"}},
    {"valueQuantity": {"value": "124", "code": "/min"}},
    {"valueQuantity": {"value": True, "code": "/min"}},
    {"valueQuantity": {"value": 124, "code": CANARY}},
    {"valueQuantity": {"value": 124, "unit": CANARY}},
    {"valueQuantity": {"value": 124, "code": "/min", "comparator": CANARY}},
    {"valueQuantity": {"value": 1e300, "code": "/min"}},
    {"valueQuantity": {"value": -124, "code": "/min"}},
    {"valueQuantity": {"value": 10**400, "code": "/min"}},
    {"valueQuantity": None, "valueString": CANARY},
    {"valueQuantity": None, "valueCodeableConcept": {"text": CANARY}},
    {"component": CANARY},
    {"component": [3]},
]


@pytest.mark.parametrize("own", WEIRD)
def test_an_observation_of_a_weird_shape_is_refused_without_its_values(talk, chart, own, caplog):
    caplog.set_level(logging.DEBUG)
    weird = chart.observation("8867-4", 124, "/min", **own)
    refused(talk, chart.parameters("ed_admission", chart.patient(), weird))
    assert CANARY not in caplog.text


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 5000])
def test_a_number_that_no_double_holds_is_refused(talk, chart, number):
    body = chart.parameters("ed_admission", chart.patient(), chart.observation("8867-4", 0.5, "/min"))
    refused(talk, json.dumps(body).replace("0.5", number).encode())


def test_a_bundle_may_hold_entries_without_a_resource_and_kinds_that_nobody_reads(talk, chart):
    bundle = chart.bundle(*chart.visit(), {"resourceType": "Basic", "id": CANARY})
    bundle["entry"] += [{}, {"fullUrl": "urn:uuid:1"}, {"resource": None}, {"search": {"mode": "match"}}]
    body = chart.parameters("ed_admission", data={"resource": bundle})
    assert talk.ask("POST", EVALUATE, json=body).status_code == 200


@pytest.mark.parametrize(
    "bundle",
    [
        {"resourceType": "Bundle", "entry": {}},
        {"resourceType": "Bundle", "entry": [CANARY]},
        {"resourceType": "Bundle", "entry": [{"resource": CANARY}]},
        {"resourceType": "Bundle", "entry": [{"resource": {}}]},
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Bundle"}}]},
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": 3}}]},
        {"entry": []},
        CANARY,
        [],
    ],
)
def test_a_bundle_of_a_weird_shape_is_refused(talk, chart, bundle):
    refused(talk, chart.parameters("ed_admission", data={"resource": bundle}))


def test_several_patients_in_one_bundle_are_refused(talk, chart):
    others = [chart.patient(), chart.patient(id=CANARY)]
    assert refused(talk, chart.parameters("ed_admission", *others)).endswith("a second patient")
    theirs = chart.observation("8867-4", 124, "/min", subject={"reference": f"Patient/{CANARY}"})
    body = chart.parameters("ed_admission", chart.patient(), theirs)
    assert refused(talk, body).endswith("of another patient than the one asked about")


def test_nothing_refused_as_a_request_is_in_the_log(talk, chart):
    before = talk.rows("SELECT count(*) AS n FROM prediction")
    refused(talk, chart.parameters("ed_admission", chart.patient(), chart.patient(id="p2")))
    assert talk.rows("SELECT count(*) AS n FROM prediction") == before


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resourceType", "entry", "resource", "code", "coding", "status", "value", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(junk=JSON, place=st.sampled_from(["resource", "entry", "parameter", "code", "valueQuantity"]))
@settings(max_examples=60)
def test_whatever_stands_in_a_record_nothing_breaks(talk, chart, junk, place):
    body = chart.parameters("ed_admission", *chart.visit())
    bundle = body["parameter"][2]["resource"]
    match place:
        case "resource":
            bundle["entry"].append({"resource": junk})
        case "entry":
            bundle["entry"].append(junk)
        case "parameter":
            body["parameter"].append(junk)
        case _:
            bundle["entry"][3]["resource"][place] = junk
    answered = talk.ask("POST", EVALUATE, json=body)
    assert answered.status_code in (200, 422), answered.text
    assert answered.json()["resourceType"] in ("RiskAssessment", "OperationOutcome")
