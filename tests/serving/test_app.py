"""The application in this process: what a fault inside it shows."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from data.errors import UnavailableError
from data.log.append import LogWriter
from data.log.schema import connect
from data.log.seal import load_keyring
from models import artifact, release
from serving import batching
from serving.access.guard import Guard
from serving.app import make_app
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.runtime import Runtime
from serving.scorer import Scorer

CANARY = "ZQcanary7411"
PREDICT = "/v1/ed_admission/predict"


@pytest.fixture
def ask(versions, triage, sepsis, tmp_path):
    """One request to a running application with a model of each kind."""
    releases = tmp_path / "releases"
    folders = {"ed_admission": versions["1"]}
    for kind in (triage, sepsis):
        folders[kind.spec.name] = tmp_path / kind.spec.name
        artifact.write(tmp_path / kind.spec.name, kind, evidence={})
    for model, folder in folders.items():
        release.publish(releases, folder, model=model, version="1")
        release.point(releases, model=model, pointer="champion", version="1")
    deployed = Deployed(releases=releases, key=b"0123456789abcdef", demo=True)
    deployed.refresh()
    engine = connect(tmp_path / "log.db")
    keyring = load_keyring(tmp_path)
    runtime = Runtime(
        deployed=deployed,
        engine=engine,
        log=LogWriter(engine, keyring),
        keyring=keyring,
        metrics=Metrics(),
        guard=Guard(),
    )
    app = make_app(lambda: runtime)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")

    async def request(method: str, path: str, **more) -> httpx.Response:
        return await client.request(method, path, **more)

    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        yield lambda *of, **more: runner.run(request(*of, **more))
        runner.run(lifespan.__aexit__(None, None, None))
        runner.run(client.aclose())
    engine.dispose()


def test_an_error_that_nobody_foresaw_shows_no_value(ask, visit, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(Scorer, "predict_all", fail)
    response = ask("POST", PREDICT, json={"instances": [visit]})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert CANARY not in response.text
    assert "ValueError in " in caplog.text
    assert CANARY not in caplog.text


def test_nothing_is_answered_that_is_not_written_down(ask, visit, monkeypatch):
    def closed(*_: object) -> None:
        raise UnavailableError("the prediction log is closed")

    monkeypatch.setattr(LogWriter, "submit", closed)
    response = ask("POST", PREDICT, json={"instances": [visit]})
    assert response.status_code == 503
    assert "risk" not in response.text


def test_many_instances_are_scored_in_a_thread(ask, visit):
    answered = ask("POST", PREDICT, json={"instances": [visit] * (batching.MANY + 1)}).json()
    assert len({p["risk"] for p in answered["predictions"]}) == 1
    assert len({p["prediction_id"] for p in answered["predictions"]}) == batching.MANY + 1


def test_the_figures_of_one_process_are_shown_without_a_folder_for_several(ask, monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    ask("GET", "/v1/models")
    assert 'route="/v1/models",status="200"} 1.0' in ask("GET", "/metrics").text


def test_an_answer_holds_the_set_and_the_novelty(ask, visit):
    [answer] = ask("POST", PREDICT, json={"instances": [visit]}).json()["predictions"]
    assert answer.keys() == {
        "prediction_id", "status", "risk", "conformal", "novelty", "band", "explanation", "warnings",
    }  # fmt: skip
    assert answer["conformal"]["coverage"] == 0.9
    assert set(answer["conformal"]["set"]) <= {0, 1}
    assert 0 <= answer["novelty"] <= 1


def test_an_ordinal_model_answers_a_level(ask, visit):
    del visit["acuity"]
    [answer] = ask("POST", "/v1/ed_triage/predict", json={"instances": [visit]}).json()["predictions"]
    assert answer["band"]["id"] == str(answer["level"])
    assert answer["risk"] == pytest.approx(sum(answer["probabilities"][: answer["level"]]))


def test_the_rows_of_a_series_have_one_answer(ask):
    rows = [{"icu_hour": number, "heart_rate": 80 + number} for number in range(1, 30)]
    body = {"instances": rows, "context": [{"series_id": "S-1"}], "top": 2}
    answered = ask("POST", "/v1/sepsis/predict", json=body)
    assert answered.status_code == 200
    [answer] = answered.json()["predictions"]
    assert answer["status"] == "scored"
    assert len(answer["explanation"]["contributions"]) == 2


def test_a_bad_row_of_a_series_refuses_the_request_and_names_the_row(ask):
    rows = [{"icu_hour": 1}, {"icu_hour": 2, "heart_rate": 9}, {"icu_hour": 2}]
    body = {"instances": rows, "context": [{"series_id": "S-1"}]}
    answered = ask("POST", "/v1/sepsis/predict", json=body)
    assert answered.status_code == 422
    assert answered.json()["errors"] == [
        {"field": "heart_rate", "reason": "outside 10 to 300 /min", "instance": 1}
    ]
    del body["context"]
    missing = ask("POST", "/v1/sepsis/predict", json=body)
    assert missing.status_code == 422
    assert [fault["field"] for fault in missing.json()["errors"]] == ["context[0].series_id"]
