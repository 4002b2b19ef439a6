"""FHIR on the wire: what is answered is a resource of the standard, in both releases, and on disk."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from data.contract import Text
from data.errors import FieldError
from serving.access.caller import Caller
from serving.answers import (
    Abstained,
    Contribution,
    Explanation,
    Fault,
    NamedBand,
    PredictionSet,
    Reason,
    Scored,
)
from serving.fhir.answers import risk_assessment
from serving.fhir.outcome import outcome
from serving.fhir.release import TAKEN

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "fhir"
EVALUATE = "/fhir/RiskAssessment/$evaluate"
ACCEPT = {
    "4.0": "application/fhir+json; fhirVersion=4.0",
    "5.0": "application/fhir+json; fhirVersion=5.0",
}


def valid(resource, release="4.0"):
    """What an independent implementation of the standard reads; R4B stands for R4 (they do not differ
    in these resources)."""
    from fhir.resources import get_fhir_model_class
    from fhir.resources.R4B import get_fhir_model_class as get_r4b

    kind = (get_r4b if release == "4.0" else get_fhir_model_class)(resource["resourceType"])
    return kind.model_validate(resource)


def part(extension, *names):
    """The value of an extension within extensions."""
    for name in names:
        [extension] = [inner for inner in extension["extension"] if inner["url"] == name]
    return next(value for name, value in extension.items() if name.startswith("value"))


@pytest.mark.parametrize("release", ["4.0", "5.0"])
@pytest.mark.parametrize("model", ["ed_admission", "ed_triage", "sepsis"])
def test_a_risk_is_a_valid_assessment_in_both_releases(talk, chart, model, release):
    answered = talk.ask(
        "POST",
        EVALUATE,
        json=chart.parameters(model, *chart.visit()),
        headers={"accept": ACCEPT[release]},
    )
    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"] == ACCEPT[release]
    said = answered.json()
    read = valid(said, release)
    assert said["status"] == "final"
    assert said["subject"] == {"reference": "Patient/p1"}
    assert said["encounter"] == {"reference": "Encounter/e1"}
    assert said["method"]["text"] == f"{model} 1"
    assert {"reference": "Observation/o-8867-4"} in said["basis"]
    [identifier] = said["identifier"]
    row = talk.logged(identifier["value"].removeprefix("urn:uuid:"))
    assert (row["model"], row["channel"], row["used"], row["site"]) == (
        model, "fhir", "answered", "county-03",
    )  # fmt: skip
    first = said["prediction"][0]
    assert first["probabilityDecimal"] == pytest.approx(row["risk"] * 100, abs=1e-6)
    assert float(read.prediction[0].probabilityDecimal) <= 100
    assert first["qualitativeRisk"]["coding"][0]["code"] == row["band"]
    assert "raises the risk" in first["rationale"]


def test_the_answer_is_that_of_rest_for_the_same_patient(talk, chart):
    said = talk.ask("POST", EVALUATE, json=chart.parameters("ed_admission", *chart.visit())).json()
    arrived = chart.encounter()["period"]["start"]
    visit = {
        "age": 71, "sex": "female", "temperature": 38.4, "heart_rate": 124, "respiratory_rate": 24,
        "sbp": 88, "dbp": 50, "spo2": 91, "arrival_hour": int(arrived[11:13]),
        "arrival_weekday": datetime.fromisoformat(arrived).isoweekday(),
    }  # fmt: skip
    body = {"instances": [visit], "context": [{"site": "county-03"}]}
    [other] = talk.ask("POST", "/v1/ed_admission/predict", json=body).json()["predictions"]
    assert said["prediction"][0]["probabilityDecimal"] == pytest.approx(other["risk"] * 100, abs=1e-6)


def test_the_explanation_in_the_extension_adds_up_to_the_risk(talk, chart):
    said = talk.ask("POST", EVALUATE, json=chart.parameters("ed_triage", *chart.visit())).json()
    [whole] = [one for one in said["extension"] if one["url"] == "urn:caremodels:explanation"]
    parts = [one for one in whole["extension"] if one["url"] == "contribution"]
    total = part(whole, "base-value") + part(whole, "other")
    total += sum(part(one, "log-odds") for one in parts)
    chance = 100 / (1 + math.exp(-total))
    assert chance == pytest.approx(said["prediction"][0]["probabilityDecimal"], abs=1e-3)


def test_an_ordinal_model_gives_the_chance_of_each_level(talk, chart):
    said = talk.ask("POST", EVALUATE, json=chart.parameters("ed_triage", *chart.visit())).json()
    levels = said["prediction"][1:]
    assert [one["outcome"]["coding"][0]["code"] for one in levels] == ["1", "2", "3", "4", "5"]
    assert sum(one["probabilityDecimal"] for one in levels) == pytest.approx(100, abs=1e-4)


@pytest.mark.parametrize("release", ["4.0", "5.0"])
def test_an_abstention_is_an_assessment_that_was_not_made(talk, chart, release):
    child = chart.patient(birthDate=f"{chart.now.year - 9}-01-01")
    answered = talk.ask(
        "POST",
        EVALUATE,
        json=chart.parameters("ed_admission", child, *chart.visit()[1:]),
        headers={"accept": ACCEPT[release]},
    )
    assert answered.status_code == 200
    said = answered.json()
    valid(said, release)
    assert said["status"] == "cancelled"
    assert "prediction" not in said
    assert said["note"][0]["text"] == "No risk is given: under 18 years."
    [why] = [one for one in said["extension"] if one["url"] == "urn:caremodels:abstained"]
    assert (part(why, "field"), part(why, "rule")) == ("age", "cohort")


def test_a_value_out_of_range_is_refused_recorded_and_named(talk, chart):
    wild = chart.observation("8867-4", 1240, "/min")
    answered = talk.ask("POST", EVALUATE, json=chart.parameters("ed_admission", chart.patient(), wild))
    assert answered.status_code == 422
    valid(answered.json())
    [issue] = answered.json()["issue"]
    assert issue["expression"] == ["heart_rate"]
    assert issue["details"]["text"] == "heart_rate: outside 20 to 300 /min"
    assert "1240" not in answered.text
    [row] = talk.rows("SELECT status, channel FROM prediction ORDER BY prediction_id DESC LIMIT 1")
    assert row == {"status": "refused", "channel": "fhir"}


def test_a_birth_that_nobody_knows_is_required(talk, chart):
    unborn = chart.patient(birthDate=None)
    answered = talk.ask("POST", EVALUATE, json=chart.parameters("ed_admission", unborn))
    assert answered.status_code == 422
    assert answered.json()["issue"][0]["expression"] == ["age"]
    assert answered.json()["issue"][0]["code"] == "required"


def test_warnings_stand_in_the_notes(talk, chart):
    old = chart.observation("8867-4", 124, "/min", effectiveDateTime=chart.ago(hours=30))
    visit = [chart.patient(), chart.pressure(88, 50), chart.observation("2708-6", 91, "%"), old]
    said = talk.ask("POST", EVALUATE, json=chart.parameters("ed_admission", *visit)).json()
    notes = [note["text"] for note in said["note"]]
    assert "heart_rate: older than 24 h" in notes
    assert "temperature: missing" in notes
    assert "Demonstration, not for care." in notes


def asked_as_of(talk, chart, **named):
    data = named.pop("data", chart.bundle(*chart.visit()))
    body = chart.parameters("ed_admission", **named, data={"resource": data})
    answered = talk.ask("POST", EVALUATE, json=body)
    assert answered.status_code == 200, answered.text
    return datetime.fromisoformat(answered.json()["occurrenceDateTime"])


def test_the_record_is_read_as_of_a_moment_that_is_told(talk, chart):
    then = chart.now - timedelta(minutes=5)
    assert asked_as_of(talk, chart, at={"valueDateTime": then.isoformat()}) == then
    taken = chart.bundle(*chart.visit(), timestamp=then.isoformat())
    assert asked_as_of(talk, chart, data=taken) == then
    over = chart.encounter(status="finished")
    over["period"] |= {"end": then.isoformat()}
    ended = chart.bundle(chart.patient(), over, *chart.vitals())
    assert asked_as_of(talk, chart, data=ended) == then
    newest = datetime.fromisoformat(chart.vitals()[0]["effectiveDateTime"])
    assert asked_as_of(talk, chart) == newest
    now = asked_as_of(talk, chart, data=chart.bundle(chart.patient()))
    assert chart.now <= now <= chart.now + timedelta(minutes=5)


def test_a_record_of_last_month_is_answered_for_last_month_and_says_so(talk, chart):
    def at(**ago):
        return {"effectiveDateTime": chart.ago(**ago)}

    then = {"days": 30}
    old = [chart.pressure(88, 50, **at(**then)), chart.observation("2708-6", 91, "%", **at(**then))]
    older = chart.observation("8867-4", 124, "/min", **at(days=32))
    said = talk.ask(
        "POST", EVALUATE, json=chart.parameters("ed_admission", chart.patient(), *old, older)
    ).json()
    occurred = datetime.fromisoformat(said["occurrenceDateTime"])
    assert occurred == chart.now - timedelta(**then)
    notes = [note["text"] for note in said["note"]]
    assert {"heart_rate: older than 24 h", "at: the record is read as of 720 h ago"} <= set(notes)


def test_a_time_to_come_cannot_be_asked_about(talk, chart):
    body = chart.parameters("ed_admission", *chart.visit(), at={"valueDateTime": chart.ago(hours=-2)})
    answered = talk.ask("POST", EVALUATE, json=body)
    assert (answered.status_code, answered.json()["issue"][0]["expression"]) == (422, ["at"])


def test_the_answer_names_the_patient_as_the_request_did(talk, chart):
    absolute = "https://fhir.hospital.example/r4/Patient/p1"
    named = {"subject": {"valueReference": {"reference": absolute}}}
    body = chart.parameters("ed_admission", *chart.visit(), **named)
    assert talk.ask("POST", EVALUATE, json=body).json()["subject"] == {"reference": absolute}


def test_the_subject_may_be_the_resource_itself(talk, chart):
    body = chart.parameters("ed_admission", *chart.vitals(), subject={"resource": chart.patient()})
    assert talk.ask("POST", EVALUATE, json=body).status_code == 200
    body = chart.parameters("ed_admission", *chart.visit(), subject=None)
    assert talk.ask("POST", EVALUATE, json=body).status_code == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/fhir+json; fhirVersion=4.0"),
        ("*/*", "application/fhir+json; fhirVersion=4.0"),
        ("application/json", "application/json; fhirVersion=4.0"),
        ('application/fhir+json; fhirVersion="5.0"', "application/fhir+json; fhirVersion=5.0"),
        ("application/json;q=0.2, application/fhir+json;fhirVersion=5.0;q=0.9",
         "application/fhir+json; fhirVersion=5.0"),
        ("text/html, application/fhir+json;fhirVersion=4.0.1", "application/fhir+json; fhirVersion=4.0"),
    ],
)  # fmt: skip
def test_the_release_is_the_one_accepted(talk, accept, content_type):
    headers = {"accept": accept} if accept else {"accept": ""}
    answered = talk.ask("GET", "/fhir/metadata", headers=headers)
    assert answered.headers["content-type"] == content_type
    release = content_type[-3:]
    assert answered.json()["fhirVersion"].startswith(release)
    valid(answered.json(), release)


@pytest.mark.parametrize(
    "accept",
    [
        "application/fhir+json; fhirVersion=3.0",
        "application/fhir+json; fhirVersion=4.3",
        "application/fhir+xml",
        "text/html",
        "application/fhir+json;q=0",
    ],
)
def test_what_is_not_spoken_is_not_acceptable(talk, chart, accept):
    for method, path, more in (
        ("GET", "/fhir/metadata", {}),
        ("POST", EVALUATE, {"json": chart.parameters("ed_admission", *chart.visit())}),
    ):
        answered = talk.ask(method, path, headers={"accept": accept}, **more)
        assert answered.status_code == 406
        valid(answered.json())


def test_what_the_operation_is_stands_where_the_capabilities_say(talk):
    said = talk.ask("GET", "/fhir/metadata").json()
    [resource] = said["rest"][0]["resource"]
    [operation] = resource["operation"]
    found = talk.ask("GET", operation["definition"].removeprefix("http://here"))
    for release in ("4.0", "5.0"):
        valid(found.json(), release)
    assert found.json()["url"] == operation["definition"]


def problem(talk, status, *asked, **more):
    answered = talk.ask(*asked, **more)
    assert answered.status_code == status, answered.text
    assert answered.headers["content-type"] == "application/fhir+json"
    for release in ("4.0", "5.0"):
        valid(answered.json(), release)
    return answered


def test_every_error_is_an_operation_outcome(talk, chart, monkeypatch):
    good = chart.parameters("ed_admission", *chart.visit())
    unknown = chart.parameters("weather", *chart.visit())
    problem(talk, 404, "POST", EVALUATE, json=unknown)
    problem(talk, 503, "POST", EVALUATE, json=chart.parameters("readmission_30d", *chart.visit()))
    problem(talk, 404, "GET", "/fhir/Patient/p1")
    assert problem(talk, 405, "GET", EVALUATE).headers["allow"] == "POST"
    problem(talk, 415, "POST", EVALUATE, content=b"{}", headers={"content-type": "text/plain"})
    large = b" " * (2 * 1024 * 1024 + 1)
    problem(talk, 413, "POST", EVALUATE, content=large, headers={"content-type": TAKEN[0]})

    async def nobody(*_: object) -> Caller:
        return Caller(name="x", scopes=frozenset({"predict"}), sites=frozenset({"a", "b"}))

    monkeypatch.setattr(type(talk.runtime.guard), "admit", nobody)
    problem(talk, 403, "POST", EVALUATE, json=good)


def test_a_caller_of_one_site_need_not_name_it():
    one = Caller(name="x", scopes=frozenset(), sites=frozenset({"county-03"}))
    assert one.placed(None) == one.placed("county-03") == "county-03"
    anywhere = Caller(name="y", scopes=frozenset())
    assert anywhere.placed(None) is None


BAND = NamedBand("high", Text("High", "高"), Text("Tell the bed manager.", "通知床位管理。"))
SCORED = Scored(
    prediction_id="019a0000-0000-7000-8000-000000000001",
    risk=0.6312,
    conformal=PredictionSet((0, 1), 0.9),
    novelty=0.25,
    band=BAND,
    explanation=Explanation(
        space="log-odds",
        base_value=-1.84,
        contributions=(
            Contribution("sbp", Text("Systolic blood pressure", "收缩压"), 88, "mm[Hg]", 0.61),
            Contribution("ambulance", Text("Arrived by ambulance", "救护车送达"), True, None, 0.4),
            Contribution("age", Text("Age", "年龄"), None, "a", -0.2),
        ),
        other=1.567,
    ),
    warnings=(FieldError(field="age", reason="missing"),),
)
ABSTAINED = Abstained(
    "019a0000-0000-7000-8000-000000000002",
    (Reason("cohort", "age", "under 18 years", "未满18岁"),),
)


@pytest.mark.parametrize(("name", "prediction"), [("scored", SCORED), ("abstained", ABSTAINED)])
def test_an_assessment_reads_as_it_did(scorer, name, prediction):
    said = risk_assessment(
        scorer,
        prediction,
        subject="Patient/p1",
        encounter="Encounter/e1",
        at=datetime.fromisoformat("2026-11-23T08:15:00+08:00"),
        basis=("Observation/o1",),
        warnings=(FieldError(field="spo2", reason="older than 24 h"),),
    )
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert msgspec.to_builtins(said) == golden
    for release in ("4.0", "5.0"):
        valid(golden, release)


def test_an_error_reads_as_it_did():
    faults = (Fault("sbp", "outside 30 to 300 mm[Hg]"), Fault("age", "required"))
    golden = json.loads((GOLDEN / "outcome.json").read_text(encoding="utf-8"))
    assert outcome(422, "the record does not fit the contract", faults) == golden
    for release in ("4.0", "5.0"):
        valid(golden, release)


def test_a_visit_of_another_class_is_refused_and_one_that_is_over_is_not(talk, chart):
    stay = chart.encounter(**{"class": {"code": "AMB"}})
    body = chart.parameters("ed_admission", chart.patient(), stay, *chart.vitals())
    refused = talk.ask("POST", EVALUATE, json=body)
    assert refused.status_code == 422
    assert refused.json()["issue"][0]["expression"] == ["Encounter.class"]
    over = chart.encounter(status="finished")
    body = chart.parameters("ed_admission", chart.patient(), over, *chart.vitals())
    assert talk.ask("POST", EVALUATE, json=body).status_code == 200
