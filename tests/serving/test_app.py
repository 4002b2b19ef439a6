"""The application in this process: what a fault inside it shows."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from data.errors import UnavailableError
from data.log.append import LogWriter
from data.log.schema import connect
from models import release
from serving import routes
from serving.app import make_app
from serving.deployed import Deployed
from serving.metrics import Metrics
from serving.routes import Runtime
from serving.scorer import Scorer

CANARY = "ZQcanary7411"
PREDICT = "/v1/ed_admission/predict"


@pytest.fixture
def ask(versions, tmp_path):
    """One request to a running application."""
    releases = tmp_path / "releases"
    release.publish(releases, versions["1"], model="ed_admission", version="1")
    release.point(releases, model="ed_admission", pointer="champion", version="1")
    deployed = Deployed(releases=releases, key=b"0123456789abcdef", demo=True)
    deployed.refresh()
    engine = connect(tmp_path / "log.db")
    runtime = Runtime(deployed=deployed, engine=engine, log=LogWriter(engine), metrics=Metrics())
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

    monkeypatch.setattr(Scorer, "predict", fail)
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
    answered = ask("POST", PREDICT, json={"instances": [visit] * (routes.MANY + 1)}).json()
    assert len({p["risk"] for p in answered["predictions"]}) == 1
    assert len({p["prediction_id"] for p in answered["predictions"]}) == routes.MANY + 1


def test_the_figures_of_one_process_are_shown_without_a_folder_for_several(ask, monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    ask("GET", "/v1/models")
    assert 'route="/v1/models",status="200"} 1.0' in ask("GET", "/metrics").text
