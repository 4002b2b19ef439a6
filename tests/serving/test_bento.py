"""The built Bento: it serves from another folder and keeps its log outside itself."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from models import release

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TREE = ("data", "models", "serving", "caremodels.py", "bentofile.yaml", "requirements.lock")
BENTOML = [sys.executable, "-m", "bentoml"]


@pytest.fixture(scope="module")
def bento(versions, tmp_path_factory) -> Path:
    """Built from a copy of the tree, with one release in its var."""
    source = tmp_path_factory.mktemp("source")
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    releases = source / "var" / "releases"
    release.publish(releases, versions["1"], model="ed_admission", version="1")
    release.point(releases, model="ed_admission", pointer="champion", version="1")
    (source / "var" / "log.db").write_text("a log of this machine's")
    home = tmp_path_factory.mktemp("bentos")
    subprocess.run(
        [*BENTOML, "build", "--output", "tag"],
        cwd=source,
        env=os.environ | {"BENTOML_HOME": str(home)},
        check=True,
        capture_output=True,
    )
    [built] = (path.parent for path in home.glob("bentos/caremodels/*/bento.yaml"))
    moved = tmp_path_factory.mktemp("elsewhere") / "bento"
    shutil.move(built, moved)
    shutil.rmtree(source)
    return moved


@pytest.fixture(scope="module")
def run(bento, listen, tmp_path_factory):
    def start(**settings: str):
        place = tmp_path_factory.mktemp("place")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [*BENTOML, "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)]
        settings = {"BENTOML_HOME": str(place / "bentoml")} | settings
        return listen(
            command, Path(settings.get("CAREMODELS_HOME", place / "x")), port, cwd=place, **settings
        )

    return start


def status(server, path: str = "/readyz") -> int:
    assert server.process.poll() is None, server.said
    try:
        return server.client.get(path).status_code
    except httpx.TransportError:
        return 0


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)) for path in found}


def test_the_bento_holds_the_release_and_nothing_else_of_the_home(bento):
    held = files(bento / "src")
    assert "var/releases/ed_admission/1/manifest.json" in held
    assert "var/releases/ed_admission/champion" in held
    assert "var/log.db" not in held
    assert not {name for name in held if name.startswith(("tests/", "training/", "monitoring/"))}


def test_it_answers_and_keeps_its_log_outside(bento, run, visit, waiting, members, tmp_path):
    before = files(bento)
    server = run(CAREMODELS_HOME=str(tmp_path / "home"), CAREMODELS_DEMO="1")
    waiting(lambda: status(server) == 200)
    answer = server.predict(visit).json()
    name = answer["predictions"][0]["prediction_id"]
    assert server.rows("SELECT status FROM prediction WHERE prediction_id = ?", name) == [("scored",)]
    assert files(bento) == before
    server.stop()
    assert members(server) == []


def test_a_demonstration_is_not_answered_for_care(run, visit, waiting, tmp_path):
    server = run(CAREMODELS_HOME=str(tmp_path / "home"))
    waiting(lambda: status(server, "/livez") == 200)
    assert status(server) == 503
    response = server.predict(visit)
    assert response.status_code == 503
    assert "not for care" in response.json()["detail"]
    server.stop()


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (False, "CAREMODELS_HOME must name a folder outside the Bento"),
        (True, "CAREMODELS_HOME lies inside the Bento"),
    ],
)
def test_without_a_home_outside_it_refuses_to_start(bento, run, inside, said):
    server = run(**({"CAREMODELS_HOME": str(bento / "var")} if inside else {}))
    assert server.process.wait(30) != 0
    assert said in server.said
    assert not (bento / "var").exists()
