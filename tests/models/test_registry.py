"""A real MLflow in a folder of its own: versions come and go out as they were put in."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from data import telemetry
from data.contract import check, sample
from data.errors import CaremodelsError, NotFoundError
from models import artifact, registry

pytestmark = pytest.mark.slow
MODEL = "ed_admission"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home for the module: migrating MLflow's database takes seconds."""
    telemetry.off()
    with warnings.catch_warnings():
        # As they are imported, MLflow's modules warn of themselves and of SQLAlchemy's next version.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc.model
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    patch = pytest.MonkeyPatch()
    patch.setenv("CAREMODELS_HOME", str(tmp_path_factory.mktemp("registry")))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield registry.Home.from_env()
    patch.undo()


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "card.html").write_text("<p>A card.</p>")
    return folder


@pytest.fixture(scope="module")
def versions(home, tiny, written, evidence):
    """The same model registered twice."""
    return [
        registry.register(
            home,
            tiny,
            written,
            params={"seed": seed, "trees": 24},
            metrics={"test.auroc": 0.85},
            evidence=evidence,
        )
        for seed in (0, 1)
    ]


def test_versions_count_up(home, versions):
    assert [(version.model, version.version) for version in versions] == [(MODEL, "1"), (MODEL, "2")]
    assert versions[0].run_id != versions[1].run_id
    assert registry.latest(home, MODEL) == "2"


def test_what_is_fetched_is_what_was_registered(home, versions, written):
    for version in versions:
        folder = registry.fetch(home, MODEL, version.version)
        for file in written.iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name


def test_what_is_fetched_loads_and_answers(home, versions, tiny, cohort):
    loaded = artifact.load(registry.fetch(home, MODEL, versions[0].version))
    np.testing.assert_array_equal(loaded.risk(cohort.rows), tiny.risk(cohort.rows))


def test_parameters_figures_and_evidence_are_logged(home, versions):
    with registry._mlflow(home) as mlflow:
        client = mlflow.MlflowClient()
        run = client.get_run(versions[1].run_id)
        files = [file.path for file in client.list_artifacts(run.info.run_id, "evaluation")]
    assert run.data.params == {"seed": "1", "trees": "24"}
    assert run.data.metrics == {"test.auroc": 0.85}
    assert {"use": "care", "mart": "ed_visit"}.items() <= run.data.tags.items()
    assert files == ["evaluation/card.html"]


def test_an_alias_shows_what_was_released_and_moves(home, versions):
    for version in versions:
        registry.set_alias(home, MODEL, "champion", version.version)
        with registry._mlflow(home) as mlflow:
            found = mlflow.MlflowClient().get_model_version_by_alias(MODEL, "champion")
        assert str(found.version) == version.version


@pytest.mark.parametrize("version", ["3", "0", "latest", "1; DROP TABLE"])
def test_a_version_that_is_not_registered(home, versions, version):
    with pytest.raises(NotFoundError, match=f"ed_admission: version {version} is not registered"):
        registry.fetch(home, MODEL, version)


def test_a_model_that_is_not_registered(home, versions):
    with pytest.raises(NotFoundError, match="sepsis: no version is registered; train one"):
        registry.latest(home, "sepsis")
    with pytest.raises(NotFoundError, match="sepsis: version 1 is not registered"):
        registry.fetch(home, "sepsis", "1")
    with pytest.raises(NotFoundError):
        registry.set_alias(home, "sepsis", "champion", "1")


def test_a_version_that_another_tool_registered_is_not_ours(home, versions, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    with registry._mlflow(home) as mlflow:
        client = mlflow.MlflowClient()
        client.create_registered_model("foreign")
        client.create_model_version("foreign", source=tmp_path.as_uri())
    with pytest.raises(CaremodelsError, match="foreign: version 1 holds no model of caremodels"):
        registry.fetch(home, "foreign", "1")


def test_mlflow_loads_it_and_gives_the_same_risk(home, versions, tiny):
    table = sample(tiny.mart, 100, seed=21)
    risk = tiny.risk(check(tiny.mart.columns, table).rows)
    frame = table.to_pandas()
    for column in tiny.mart.columns:
        if column.kind in ("number", "integer", "flag"):
            frame[column.name] = frame[column.name].astype("float64")
    with registry._mlflow(home) as mlflow:
        model = mlflow.pyfunc.load_model(f"models:/{MODEL}/1")
        answer = model.predict(frame)
        sparse = model.predict(frame[["age"]])
    np.testing.assert_allclose(answer["risk"], risk, atol=1e-6, rtol=0)
    alone = [{"age": age} for age in frame["age"]]
    np.testing.assert_allclose(
        sparse["risk"], tiny.risk(check(tiny.mart.columns, alone).rows), atol=1e-6, rtol=0
    )


def test_mlflow_serves_it_and_gives_the_same_risk(home, versions, tiny, tmp_path):
    """``mlflow models serve``, a real process, in this environment."""
    rows = [{"age": 71.0, "sex": "female", "sbp": 88.0, "acuity": 2.0}, {"age": 50.0}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = ["models", "serve", "--model-uri", f"models:/{MODEL}/1", "--env-manager", "local"]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "--port", port],
            # It starts uvicorn by name.
            env={**os.environ, "MLFLOW_TRACKING_URI": home.tracking_uri, "PATH": path},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            answer = asked(f"http://127.0.0.1:{port}/invocations", rows, server)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    given = [{**row, "acuity": int(row["acuity"])} if "acuity" in row else row for row in rows]
    risk = tiny.risk(check(tiny.mart.columns, given).rows)
    served = [row["risk"] for row in answer["predictions"]]
    np.testing.assert_allclose(served, risk, rtol=0, atol=1e-6)


def asked(url, rows, server):
    for _ in range(300):
        assert server.poll() is None, "mlflow models serve ended by itself"
        try:
            return httpx.post(url, json={"dataframe_records": rows}, timeout=30).json()
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("mlflow models serve did not answer")


def test_mlflow_keeps_no_row_of_a_person(home, versions, cohort):
    """No input example, no logged data set: a visit's id stands nowhere under the home."""
    files = [file for file in home.path.rglob("*") if file.is_file()]
    assert not [file for file in files if "input_example" in file.name]
    assert not [file for file in files if b"sim-5-0000" in file.read_bytes()]
    with sqlite3.connect(home.path / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM datasets").fetchone() == (0,)
    database.close()


def test_everything_lies_under_the_home(home, versions):
    assert {path.name for path in home.path.iterdir()} <= {"mlflow.db", "mlartifacts"}
