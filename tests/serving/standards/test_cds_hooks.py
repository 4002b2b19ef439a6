"""CDS Hooks on the wire: what is asked for, what is answered, and what becomes of what is missing."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from serving.access.trust import Trust
from serving.cds import prefetch as cds_prefetch
from serving.cds.cards import EXTENSION
from serving.cds.services import HOOKS, named

MODELS = ("ed_admission", "ed_triage", "sepsis")
CANARY = "ZQcanary7411"
SERVER = {"fhirServer": "https://fhir.hospital.example/r4"}
INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"


def hook(chart, *, of="patient-view", kind="EMER", **more):
    prefetch = {
        "patient": chart.patient(),
        "encounter": chart.encounter(**{"class": {"code": kind}}),
        "observations": chart.bundle(*chart.vitals(), type="searchset"),
        "conditions": chart.bundle(type="searchset"),
    }
    return {
        "hook": of,
        "hookInstance": INSTANCE,
        "context": {"userId": "Practitioner/1", "patientId": "p1", "encounterId": "e1"},
        "prefetch": prefetch,
    } | more


def without(body, key):
    return body | {"prefetch": {k: v for k, v in body["prefetch"].items() if k != key}}


def call(talk, body, model="ed_admission", of="patient-view"):
    return talk.ask("POST", f"/cds-services/{model}-{of}", json=body)


def empties(value, path=""):
    """The places of nulls and of empty texts, lists and objects."""
    if value in (None, "", [], {}):
        return [path]
    if not isinstance(value, dict | list):
        return []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [place for key, one in inner for place in empties(one, f"{path}.{key}")]


def test_discovery_names_a_service_for_each_model_and_hook(talk):
    services = talk.ask("GET", "/cds-services").json()["services"]
    assert {(one["id"], one["hook"]) for one in services} == {
        (f"{model}-{of}", of) for model in MODELS for of in HOOKS
    }
    assert empties(services) == []
    for one in services:
        assert {"hook", "title", "description", "id", "prefetch", "version"} <= one.keys()
        assert one["prefetch"]["patient"] == "Patient/{{context.patientId}}"


def test_prefetch_asks_for_the_codes_of_the_model_s_own_inputs(talk):
    services = {one["id"]: one for one in talk.ask("GET", "/cds-services").json()["services"]}

    def codes(model):
        template = services[f"{model}-patient-view"]["prefetch"]["observations"]
        [query] = parse_qs(urlsplit(template).query)["code"]
        return {token.removeprefix("http://loinc.org|") for token in query.split(",")}

    assert {"8867-4", "8480-6", "85354-9", "2708-6", "59408-5"} <= codes("ed_admission")
    assert {"urn:caremodels:ed_visit|acuity", "urn:caremodels:ed_visit|reason_1"} <= codes(
        "ed_admission"
    )
    assert not {"urn:caremodels:ed_visit|sex", "urn:caremodels:ed_visit|dementia"} & codes(
        "ed_admission"
    )
    assert "urn:caremodels:icu_hour|icu_hour" not in codes("sepsis")
    assert "2524-7" in codes("sepsis")
    assert "2524-7" not in codes("ed_admission")
    assert "conditions" not in services["sepsis-patient-view"]["prefetch"]


@pytest.mark.parametrize("of", HOOKS)
@pytest.mark.parametrize("model", MODELS)
def test_a_card_is_what_the_specification_asks_for_and_what_the_log_holds(talk, chart, model, of):
    kind = "IMP" if model == "sepsis" else "EMER"
    answered = call(talk, hook(chart, of=of, kind=kind), model, of)
    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"] == "application/json"
    [card] = answered.json()["cards"]
    assert empties(card) == []
    assert len(card["summary"]) < 140
    assert card["indicator"] in ("info", "warning", "critical")
    assert card["source"]["label"]
    assert card["selectionBehavior"] == "at-most-one"
    assert all(reason["display"] for reason in card["overrideReasons"])
    row = talk.logged(card["uuid"])
    assert (row["model"], row["channel"], row["used"], row["site"]) == (
        model, "cds-hooks", "card", "county-03",
    )  # fmt: skip
    whole = card["extension"][EXTENSION]
    assert (whole["risk"], whole["version"]) == (pytest.approx(row["risk"]), "1")
    assert "Demonstration, not for care." in card["detail"]
    assert f"`{model}` version 1, prediction {card['uuid']}" in card["detail"]


def test_a_card_leads_to_the_model_s_own_card(talk, chart):
    [card] = call(talk, hook(chart)).json()["cards"]
    [link] = card["links"]
    assert link["type"] == "absolute"
    found = talk.ask("GET", link["url"].removeprefix("http://here"))
    assert (found.status_code, found.text) == (200, "<p>A card.</p>\n")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in found.headers["content-security-policy"]


def test_a_model_shows_no_card_to_whom_it_is_not_for(talk, chart):
    body = hook(chart)
    body["prefetch"]["patient"] = chart.patient(birthDate=f"{chart.now.year - 9}-01-01")
    before = talk.rows("SELECT count(*) AS n FROM prediction")[0]["n"]
    answered = call(talk, body)
    assert (answered.status_code, answered.json()) == (200, {"cards": []})
    [last] = talk.rows("SELECT status, used FROM prediction ORDER BY prediction_id DESC LIMIT 1")
    assert last == {"status": "abstained", "used": "silent"}
    assert talk.rows("SELECT count(*) AS n FROM prediction")[0]["n"] == before + 1


def test_too_little_of_a_patient_gives_a_card_without_a_risk(talk, chart):
    body = hook(chart)
    body["prefetch"]["observations"] = None
    [card] = call(talk, body).json()["cards"]
    assert card["indicator"] == "info"
    assert card["summary"].endswith("no risk is given")
    assert "suggestions" not in card
    assert "risk" not in card["extension"][EXTENSION]
    assert talk.logged(card["uuid"])["status"] == "abstained"


def test_a_unit_or_a_value_that_cannot_be_is_refused(talk, chart):
    for value, unit, why in (
        (38.4, "kg", "temperature: unit cannot be converted to Cel"),
        (384, "Cel", "temperature: outside 25 to 45 Cel"),
    ):
        body = hook(chart)
        body["prefetch"]["observations"] = chart.bundle(chart.observation("8310-5", value, unit))
        answered = call(talk, body)
        assert answered.status_code == 422
        assert answered.json()["issue"][0]["details"]["text"] == why


@pytest.mark.parametrize("key", ["patient", "encounter", "observations", "conditions"])
def test_what_was_not_sent_and_cannot_be_fetched_is_a_failed_precondition(talk, chart, key):
    failed = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "timeout"}]}
    whole = hook(chart)
    for body in (without(whole, key), whole | {"prefetch": whole["prefetch"] | {key: failed}}):
        answered = call(talk, body)
        assert answered.status_code == 412, answered.text
        [issue] = answered.json()["issue"]
        assert issue["expression"] == [f"prefetch.{key}"]
    no_prefetch = {name: value for name, value in whole.items() if name != "prefetch"}
    assert len(call(talk, no_prefetch).json()["issue"]) == 4


def test_a_key_that_is_null_has_nothing(talk, chart):
    body = hook(chart)
    body["prefetch"] |= {"conditions": None, "encounter": None}
    assert call(talk, body).status_code == 200
    nobody = call(talk, body | {"prefetch": body["prefetch"] | {"patient": None}})
    assert nobody.status_code == 412  # without an age the model cannot be asked
    assert nobody.json()["issue"][0]["expression"] == ["age"]


def test_without_an_encounter_there_is_none_to_fetch(talk, chart):
    body = without(hook(chart, context={"patientId": "p1"}), "encounter")
    assert call(talk, body).status_code == 200
    assert call(talk, body, "sepsis").status_code == 422


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hook": "order-sign"}, "hook"),
        ({"hook": "encounter-start"}, "hook"),
        ({"hookInstance": "not-a-uuid"}, "hookInstance"),
        ({"hookInstance": None}, "hookInstance"),
        ({"context": {}}, "context.patientId"),
        ({"context": {"patientId": ""}}, "context.patientId"),
        ({"context": {"patientId": "p1/../../x"}}, "context.patientId"),
        ({"context": {"patientId": "p1?x=1"}}, "context.patientId"),
        ({"fhirAuthorization": {"access_token": "t", "token_type": "Bearer"}}, "fhirServer"),
        (SERVER | {"fhirAuthorization": {"access_token": "t", "token_type": "MAC"}},
         "fhirAuthorization.token_type"),
        (SERVER | {"fhirAuthorization": {"access_token": "a\nb", "token_type": "Bearer"}},
         "fhirAuthorization.access_token"),
        (SERVER | {"fhirAuthorization": {"access_token": "t", "token_type": "Bearer", "patient": "p2"}},
         "fhirAuthorization.patient"),
        ({"prefetch": []}, "prefetch"),
    ],
)  # fmt: skip
def test_a_request_is_held_to_the_specification(talk, chart, change, field):
    answered = call(talk, hook(chart) | change)
    assert answered.status_code == 422, answered.text
    assert answered.json()["resourceType"] == "OperationOutcome"
    assert answered.json()["issue"][0]["expression"] == [field]


def test_an_encounter_that_starts_must_be_named(talk, chart):
    body = hook(chart, of="encounter-start", context={"patientId": "p1"})
    answered = call(talk, body, of="encounter-start")
    assert answered.json()["issue"][0]["expression"] == ["context.encounterId"]


def test_extensions_of_the_specification_are_let_through(talk, chart):
    body = hook(chart, extension={"org.example.x": 1})
    body["context"]["department"] = "ED"
    body["prefetch"]["more"] = {"resourceType": "Basic"}
    assert call(talk, body).status_code == 200


def test_services_that_are_not_there(talk, chart):
    for name, status in (
        ("weather-patient-view", 404),
        ("ed_admission-order-sign", 404),
        ("ed_admission", 404),
        ("-patient-view", 404),
        ("readmission_30d-patient-view", 503),
    ):
        assert talk.ask("POST", f"/cds-services/{name}", json=hook(chart)).status_code == status
    assert named("a-patient-view-patient-view") == ("a-patient-view", "patient-view")


def test_another_patient_than_the_one_of_the_context_is_refused(talk, chart, caplog):
    caplog.set_level(logging.DEBUG)
    for key, value in (
        ("patient", chart.patient(id=CANARY)),
        ("encounter", chart.encounter(subject={"reference": f"Patient/{CANARY}"})),
        ("observations", chart.observation("8867-4", 80, "/min", subject={"reference": f"P/{CANARY}"})),
    ):
        body = hook(chart)
        body["prefetch"][key] = value
        answered = call(talk, body)
        assert answered.status_code == 422
        assert CANARY not in answered.text
    assert CANARY not in caplog.text


# Fetching what was not sent.


@contextmanager
def fhir_server(answers, certificate=None):
    """A FHIR server on loopback: path -> (status, body, seconds). Its base, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("authorization")))
            path = urlsplit(self.path).path.removeprefix("/r4/")
            status, body, seconds = answers.get(path, (404, {"resourceType": "OperationOutcome"}, 0))
            time.sleep(seconds)
            content = json.dumps(body).encode()
            with suppress(BrokenPipeError):  # nobody waited
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                if status == 302:
                    self.send_header("location", "/r4/Elsewhere/p1")
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http{'' if certificate is None else 's'}://127.0.0.1:{server.server_port}/r4", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def trusting(talk, monkeypatch):
    def trust(*servers, seconds=30.0):
        monkeypatch.setattr(cds_prefetch, "SECONDS", seconds)
        trusted = Trust(fhir_servers=frozenset(servers))
        monkeypatch.setattr(talk.runtime.guard._reviewed, "trust", trusted)

    return trust


def token():
    return {"access_token": "t0ken", "token_type": "Bearer", "expires_in": 300, "scope": "patient/*.rs"}


def test_what_is_missing_is_fetched_from_a_server_that_is_trusted(talk, chart, trusting, caplog):
    caplog.set_level(logging.INFO)
    answers = {"Patient/p1": (200, chart.patient(), 0), "Observation": (200, chart.bundle(), 0)}
    with fhir_server(answers) as (base, asked):
        trusting(base)
        body = without(hook(chart, fhirServer=base, fhirAuthorization=token()), "patient")
        answered = call(talk, body)
        assert answered.status_code == 200, answered.text
        assert asked == [("/r4/Patient/p1", "Bearer t0ken")]
        call(talk, without(body, "observations"))
        assert {urlsplit(path).path for path, _ in asked[1:]} == {"/r4/Patient/p1", "/r4/Observation"}
        [query] = [urlsplit(path).query for path, _ in asked[1:] if "Observation" in path]
        assert parse_qs(query)["patient"] == ["p1"]
    assert "p1" not in caplog.text


def test_the_systems_own_authorities_vouch_for_a_server(talk, chart, trusting, certificate, monkeypatch):
    cds_prefetch._authorities.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    try:
        with fhir_server({"Patient/p1": (200, chart.patient(), 0)}, certificate) as (base, asked):
            trusting(base)
            body = without(hook(chart, fhirServer=base), "patient")
            assert call(talk, body).status_code == 200
            assert len(asked) == 1
    finally:
        cds_prefetch._authorities.cache_clear()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, {"resourceType": "OperationOutcome"}, 0), "an error"),
        ((500, {"resourceType": "Patient", "id": "p1"}, 0), "a failure"),
        ((302, {"resourceType": "Patient", "id": "p1"}, 0), "a redirect"),
        ((200, ["no", "resource"], 0), "no resource"),
        ((200, None, 0), "nothing"),
    ],
)
def test_what_a_trusted_server_does_not_give_is_missing(talk, chart, trusting, answer, why):
    elsewhere = (200, chart.patient(), 0)
    with fhir_server({"Patient/p1": answer, "Elsewhere/p1": elsewhere}) as (base, asked):
        trusting(base)
        answered = call(talk, without(hook(chart, fhirServer=base), "patient"))
        assert answered.status_code == 412, why
        assert [path for path, _ in asked] == ["/r4/Patient/p1"]


def test_a_server_that_takes_too_long_is_not_waited_for(talk, chart, trusting):
    with fhir_server({"Patient/p1": (200, chart.patient(), 1.0)}) as (base, _):
        trusting(base, seconds=0.05)
        assert call(talk, without(hook(chart, fhirServer=base), "patient")).status_code == 412


def test_nothing_is_fetched_from_a_server_that_nobody_named(talk, chart, trusting):
    with fhir_server({"Patient/p1": (200, chart.patient(), 0)}) as (base, asked):
        for trusted in ((), (f"{base}/other",), (base.replace("/r4", ""),), ("http://127.0.0.1",)):
            trusting(*trusted)
            answered = call(talk, without(hook(chart, fhirServer=base), "patient"))
            assert answered.status_code == 412
        trusting(base)
        for spoofed in (f"{base}@evil.example", f"{base}/../x", f"{base}?x=", base.upper()):
            answered = call(talk, without(hook(chart, fhirServer=spoofed), "patient"))
            assert answered.status_code == 412
        assert asked == []


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("encounter", {"class": {"system": "http://x", "code": "AMB"}}),
        ("encounter", {"class": [{"coding": [{"code": "IMP"}]}]}),  # as in R5
        ("encounter", {"status": "finished"}),
        ("encounter", {"status": "cancelled"}),
        ("patient", {"deceasedBoolean": True}),
        ("patient", {"deceasedDateTime": "2026-01-01"}),
    ],
)
def test_who_is_no_patient_of_this_model_gets_no_card_and_no_risk(talk, chart, key, change):
    body = hook(chart)
    body["prefetch"][key] |= change
    before = talk.count()
    assert call(talk, body).json() == {"cards": []}
    assert talk.count() == before


@pytest.mark.parametrize("conditions", [None, {"resourceType": "Bundle", "type": "searchset"}])
def test_a_history_that_was_asked_for_and_is_empty_is_none(talk, chart, conditions):
    body = hook(chart)
    body["prefetch"]["conditions"] = conditions
    [card] = call(talk, body).json()["cards"]
    inputs = talk.inputs(card["uuid"])
    assert {inputs[name] for name in ("dementia", "copd", "cancer")} == {False}
    body["prefetch"]["conditions"] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "next", "url": "https://fhir.hospital.example/r4?page=2"}],
    }
    [card] = call(talk, body).json()["cards"]
    assert {talk.inputs(card["uuid"])[name] for name in ("dementia", "copd")} == {None}
    assert "further pages were not read" in card["detail"]


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("observations", {"resourceType": "Patient", "id": "p1"}),
        ("patient", {"resourceType": "Bundle", "type": "searchset"}),
        ("encounter", {"resourceType": "Canary"}),
    ],
)
def test_a_prefetch_of_another_kind_is_refused(talk, chart, key, sent):
    body = hook(chart)
    body["prefetch"][key] = sent
    answered = call(talk, body)
    assert answered.status_code == 422
    assert answered.json()["issue"][0]["expression"] == [f"prefetch.{key}"]


def test_another_encounter_than_the_one_in_context_is_refused(talk, chart):
    body = hook(chart, context={"patientId": "p1", "encounterId": "e2"})
    answered = call(talk, body)
    assert answered.status_code == 422
    assert "another encounter" in answered.text
