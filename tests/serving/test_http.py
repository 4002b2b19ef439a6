"""The wire, on a real server with two workers: what is answered to what."""

from __future__ import annotations

import json
import math
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data.contract import check, sample
from data.log.seal import load_keyring
from data.pseudonym import keyed_hash
from models import artifact
from models.feature import show_cell

pytestmark = pytest.mark.slow
PREDICT = "/v1/ed_admission/predict"
NOTICE = {"en": "Demonstration, not for care.", "zh": "仅供演示，不得用于诊疗。"}


def problem(response, status: int) -> dict:
    """The problem document, which every error is."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said = response.json()
    assert said["status"] == status
    assert {"type", "title", "detail", "errors"} <= said.keys()
    return said


def test_one_patient(served, visit):
    answer = served.predict(visit, top=3).json()
    assert (answer["model"], answer["version"], answer["notice"]) == ("ed_admission", "1", NOTICE)
    [prediction] = answer["predictions"]
    assert prediction["status"] == "scored"
    assert len(prediction["explanation"]["contributions"]) == 3
    assert prediction["band"].keys() == {"id", "label", "action"}
    assert {"feature", "label", "value", "unit", "contribution"} == prediction["explanation"][
        "contributions"
    ][0].keys()


def test_http_is_the_artifact_bit_for_bit_and_adds_up(served, versions):
    loaded = artifact.load(versions["1"])
    rows = check(loaded.mart.columns, sample(loaded.mart, 200, seed=4)).rows
    rows["age"] = np.maximum(rows["age"], 18)
    instances = [
        {c.name: show_cell(c, rows[c.name][i]) for c in loaded.mart.columns} for i in range(200)
    ]
    whole = served.predict(*instances, top=4).json()["predictions"]
    # Rows drawn at random are like no patient's, and some are given no risk.
    given = [place for place, said in enumerate(whole) if said["status"] == "scored"]
    assert len(given) > 100
    batch, risk = [whole[place] for place in given], loaded.risk(rows)[given].tolist()
    assert [p["risk"] for p in batch] == risk
    first = [served.predict(instances[place]).json()["predictions"][0] for place in given[:20]]
    assert [p["risk"] for p in first] == risk[:20]
    for prediction in batch:
        said = prediction["explanation"]
        whole = (
            said["base_value"] + said["other"] + sum(c["contribution"] for c in said["contributions"])
        )
        assert 1 / (1 + math.exp(-whole)) == pytest.approx(prediction["risk"], abs=1e-5)


def test_each_instance_has_its_own_fate(served, visit):
    answer = served.predict(visit, visit | {"age": 9}, visit | {"spo2": 0.97}, "text").json()
    assert [p["status"] for p in answer["predictions"]] == ["scored", "abstained", "refused", "refused"]
    _, child, refused, text = answer["predictions"]
    assert "risk" not in child
    assert child["reasons"][0]["field"] == "age"
    assert refused["errors"] == [{"field": "spo2", "reason": "outside 40 to 100 %"}]
    assert text["errors"] == [{"field": "instance", "reason": "not an object"}]
    assert answer["notice"] == NOTICE


def test_where_every_instance_is_refused_so_is_the_request(served, visit):
    said = problem(served.predict(visit | {"sbp": 888}, visit | {"x": 1}), 422)
    assert said["errors"] == [
        {"field": "sbp", "reason": "outside 30 to 300 mm[Hg]", "instance": 0},
        {"field": "x", "reason": "unknown field", "instance": 1},
    ]


def test_units(served, visit):
    given = served.predict(visit | {"temperature": 100.4}, units={"temperature": "[degF]"})
    plain = served.predict(visit | {"temperature": 38})
    risks = [r.json()["predictions"][0]["risk"] for r in (given, plain)]
    assert risks[0] == risks[1]
    said = problem(served.predict(visit, units={"temperature": "kPa", "nothing": "Cel"}), 422)
    assert [e["field"] for e in said["errors"]] == ["units.temperature", "units.nothing"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b'{"instances": [{"sex": "\xff"}]}', 422),
        (b'{"instances": [{"sex": "\\ud800"}]}', 422),
        (b'{"instances": [{"age": NaN}]}', 422),
        (b'{"instances": [{"age": 1e999}]}', 422),
        (b'{"instances": [{"age": 1' + b"0" * 400 + b"}]}", 422),
        (b'{"instances": [{"age": 1' + b"0" * 9_000 + b"}]}", 422),
        (b'{"instances": [{"age": 40, "age": 41}]}', 422),
        (b'{"instances": [{"age": ' + b"[" * 200_000 + b"]" * 200_000 + b"}]}", 422),
        (b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}", 422),
        (b'{"instances": [' + b"{}," * 1_000 + b"{}]}", 413),
        (b'{"instances": [{"sex": "' + b"x" * 2_100_000 + b'"}]}', 413),
        (b'{"instances": [{"' + b"x" * 1_900_000 + b'": 1}]}', 422),
        (b'{"instances": [{' + b",".join(b'"%06d": 1' % i for i in range(120_000)) + b"}]}", 422),
    ],
    ids=range(16),
)  # fmt: skip
def test_a_body_that_cannot_be(served, content, status):
    response = served.send(content)
    problem(response, status)
    assert len(response.content) < 10_000


def test_a_body_without_a_length_is_cut_off_at_the_limit(served):
    def endless():
        yield b'{"instances": [{"sex": "'
        for _ in range(100):
            yield b"x" * 100_000

    problem(served.send(endless()), 413)


def test_other_media_types(served, visit):
    body = json.dumps({"instances": [visit]}).encode()
    for kind in ("text/plain", "application/xml", "", "application/json5"):
        problem(served.send(body, **{"content-type": kind}), 415)
    assert served.send(body, **{"content-type": "Application/JSON; charset=utf-8"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/nope", "/v1", "/v1/", "/v1/nothing", "/v1/models/", "/v1/a/b/c", "/docs.json", "/%00"],
)
def test_unknown_routes_and_models(served, path):
    problem(served.client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", PREDICT, {"POST"}),
        ("PUT", PREDICT, {"POST"}),
        ("OPTIONS", PREDICT, {"POST"}),
        ("DELETE", "/v1/models", {"GET", "HEAD"}),
        ("POST", "/v1/ed_admission", {"GET", "HEAD"}),
        ("GET", "/v1/outcomes", None),
    ],
)
def test_other_methods(served, method, path, allowed):
    response = served.client.request(method, path)
    if allowed is None:  # a model could have that name
        problem(response, 404)
    else:
        problem(response, 405)
        assert set(response.headers["allow"].split(", ")) == allowed


def test_a_prediction_of_an_unknown_model(served, visit):
    problem(served.client.post("/v1/nothing/predict", json={"instances": [visit]}), 404)


def test_what_is_served(served):
    [listed] = served.client.get("/v1/models").json()["models"]
    described = served.client.get("/v1/ed_admission").json()
    assert listed.items() <= described.items()
    assert described["use"] == "demonstration"
    assert described["notice"] == NOTICE
    assert described["evaluation"] == described["metrics"] == {"auroc": 0.8}
    assert described["card"] == {"title": "A card"}
    assert served.client.get(described["card_page"]).text == "<p>A card.</p>\n"
    assert described["input_schema"]["required"] == ["age"]
    assert served.client.head("/v1/models").content == b""
    document = served.client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["ed_admission_instance"]
    assert schema == described["input_schema"]


def test_health_and_metrics(served, visit):
    assert served.client.get("/livez").status_code == 200
    assert served.client.get("/readyz").status_code == 200
    served.predict(visit)
    served.client.get("/v1/ZQ-canary-7411/x")
    shown = served.client.get("/metrics")
    assert shown.headers["content-type"].startswith("text/plain")
    assert 'caremodels_request_seconds_count{route="/v1/{model}/predict",status="200"}' in shown.text
    assert 'caremodels_request_seconds_count{route="(none)",status="404"}' in shown.text
    assert "caremodels_predictions_total{" in shown.text
    assert "canary" not in shown.text


def test_a_key_and_a_body_are_answered_once(served, visit):
    first = served.predict(visit, headers={"Idempotency-Key": "k-1"})
    again = served.predict(visit, headers={"Idempotency-Key": "k-1"})
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    name = first.json()["predictions"][0]["prediction_id"]
    assert served.rows("SELECT count(*) FROM prediction WHERE prediction_id = ?", name) == [(1,)]
    problem(served.predict(visit | {"age": 72}, headers={"Idempotency-Key": "k-1"}), 409)
    assert served.predict(visit).content != served.predict(visit).content


def test_a_key_is_answered_once_by_all_workers_at_once(served, visit):
    before = served.rows("SELECT count(*) FROM prediction")[0][0]

    def ask(_: int) -> bytes:
        # A connection of its own, so that either worker may take it.
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as wire:
            body = json.dumps({"instances": [visit]}).encode()
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += f"Idempotency-Key: k-2\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            wire.sendall(head.encode() + body)
            received = b""
            while part := wire.recv(65_536):
                received += part
        assert received.startswith(b"HTTP/1.1 200")
        return received.partition(b"\r\n\r\n")[2]

    with ThreadPoolExecutor(16) as pool:
        bodies = set(pool.map(ask, range(48)))
    assert len(bodies) == 1
    assert served.rows("SELECT count(*) FROM prediction")[0][0] == before + 1


def test_a_refused_request_leaves_its_key_free(served, visit):
    key = {"Idempotency-Key": "k-3"}
    problem(served.predict(visit | {"sbp": 888}, headers=key), 422)
    assert served.predict(visit, headers=key).status_code == 200


def report(served, *items) -> dict:
    response = served.client.post("/v1/outcomes", json=list(items))
    assert response.status_code == 200, response.text
    return response.json()


def test_outcomes(served, visit):
    context = [{"encounter_id": "E-77", "patient_id": "P-77"}]
    name = served.predict(visit, context=context).json()["predictions"][0]["prediction_id"]
    late = {"prediction_id": name, "outcome": 0, "observed_at": "2026-11-25T10:00:00+08:00"}
    corrected = {"model": "ed_admission", "encounter_id": "E-77", "outcome": 1} | {
        "observed_at": "2026-11-26T10:00:00Z"
    }
    stranger = {"prediction_id": "nobody", "outcome": 1, "observed_at": "2026-11-25T10:00:00Z"}
    said = report(served, late, stranger)
    assert [r["status"] for r in said["results"]] == ["joined", "unknown"]
    assert (said["joined"], said["unknown"]) == (1, 1)
    assert [r["status"] for r in report(served, late, corrected)["results"]] == ["repeated", "revised"]
    history = served.rows(
        "SELECT outcome, observed_at FROM outcome WHERE prediction_id = ? ORDER BY id", name
    )
    assert history == [(0, "2026-11-25 02:00:00.000000"), (1, "2026-11-26 10:00:00.000000")]
    assert report(served) == dict.fromkeys(
        ("joined", "unknown", "revised", "repeated", "superseded"), 0
    ) | {"results": []}


def test_an_outcome_that_cannot_be_fails_the_report(served):
    said = problem(served.client.post("/v1/outcomes", json=[{"outcome": 2}]), 422)
    assert said["errors"][0]["field"] == "[0].outcome"
    problem(served.send(b"{", "/v1/outcomes"), 422)
    problem(served.send(b"[]", "/v1/outcomes", **{"content-type": "text/csv"}), 415)


def test_identifiers_are_kept_as_keyed_hashes(served, visit):
    context = [{"patient_id": "MRN-55", "encounter_id": "E-55", "site": "county-03"}]
    name = served.predict(visit, context=context).json()["predictions"][0]["prediction_id"]
    key = (served.home / "key").read_bytes().strip()
    [row] = served.rows("SELECT patient, encounter, site FROM prediction WHERE prediction_id = ?", name)
    patient, encounter = (
        keyed_hash(key, of, kind=kind) for of, kind in (("MRN-55", "patient"), ("E-55", "encounter"))
    )
    assert row == (patient, encounter, "county-03")


CANARY = "ZQcanary7411"
NUMBER = 741174117411


def test_a_canary_in_every_field_reaches_no_output_and_no_log(served, visit, versions):
    columns = artifact.load(versions["1"]).mart.columns
    for column in columns:
        for value in (NUMBER, CANARY, [CANARY], {CANARY: NUMBER}, -float(NUMBER)):
            assert served.predict(visit | {column.name: value}).status_code == 422
    served.predict(visit | {CANARY: NUMBER}, visit)  # one scored, one refused
    served.predict(visit, units={CANARY: "Cel", "sbp": CANARY})
    served.predict(visit, context=[{"patient_id": CANARY, "encounter_id": CANARY}])
    served.predict(visit, context=[{CANARY: CANARY}])
    served.predict(visit, context=[{"at": CANARY, "site": NUMBER}])
    served.predict(
        visit, headers={"Idempotency-Key": CANARY, "X-Other": CANARY, "Authorization": CANARY}
    )
    served.predict(visit, top=NUMBER)
    served.predict(visit, **{CANARY: CANARY})
    served.client.get(f"/v1/{CANARY}")
    served.client.get(f"/{CANARY}?{CANARY}={CANARY}")
    served.client.post(f"/v1/{CANARY}/predict", json={CANARY: CANARY})
    served.client.request(CANARY, f"/v1/{CANARY}")
    served.send(CANARY.encode())
    served.send(f'{{"instances": [{{"{CANARY}": {NUMBER}e999}}]}}'.encode())
    served.send(b"{}", **{"content-type": CANARY})
    item = {"prediction_id": CANARY, "outcome": 1, "observed_at": "2026-01-01T00:00:00Z"}
    report(served, item, item | {"model": CANARY, "encounter_id": CANARY, "prediction_id": None})
    served.client.post("/v1/outcomes", json=[item | {"outcome": NUMBER, CANARY: CANARY}])
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as wire:
        wire.sendall(f"{CANARY} /{CANARY} {CANARY}\r\n{CANARY}\r\n\r\n".encode())
        assert CANARY.encode() not in wire.recv(65_536)

    assert CANARY not in served.said
    assert "7411" not in served.said
    assert "Traceback" not in served.said
    assert "canary" not in served.client.get("/metrics").text
    for file in served.home.rglob("*"):
        if file.is_file() and file.name != "key":
            content = file.read_bytes()
            assert CANARY.encode() not in content, file
            assert str(NUMBER).encode() not in content, file


def test_the_site_and_groups_are_kept_and_scored_inputs_too(served, visit):
    context = [{"site": "site-kept", "groups": {"ethnicity": "group-kept"}}]
    name = served.predict(visit, context=context).json()["predictions"][0]["prediction_id"]
    [(site, groups, inputs)] = served.rows(
        "SELECT site, groups, inputs FROM prediction WHERE prediction_id = ?", name
    )
    assert site == "site-kept"
    assert json.loads(groups) == {"ethnicity": "group-kept"}
    opened = load_keyring(served.home).open(inputs, bound_to=name)
    assert json.loads(opened)["sbp"] == 88
    assert inputs.startswith("s1.")


HEAVY = ("mlflow", "shap", "evidently", "sklearn", "pandas", "matplotlib", "duckdb", "ibis")


def test_a_worker_is_lean(served, visit):
    served.predict(visit)
    for worker in served.workers:
        mapped = "\n".join(region.path for region in worker.memory_maps())
        assert not [name for name in HEAVY if f"site-packages/{name}/" in mapped]
        assert worker.memory_info().rss < 350 * 2**20
