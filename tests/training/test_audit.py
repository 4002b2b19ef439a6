"""What stands on disk and in MLflow agrees with what was signed, or it shows."""

from dataclasses import replace

import pytest

from data.errors import CaremodelsError, IntegrityError
from data.home import Home
from models import catalog, registry, release
from training import audit, promotion

pytestmark = pytest.mark.slow
MODEL = "ed_admission"
DOWN = "http://127.0.0.1:9"


@pytest.fixture
def home(own):
    """Version 1 promoted, then 2; 1 is challenger as well."""
    spec = catalog.load(MODEL)
    spec = replace(spec, limits=replace(spec.limits, champion_margin=0.02))
    for version, pointer in (("1", "champion"), ("2", "champion"), ("1", "challenger")):
        done = promotion.promote(own, spec, version, pointer=pointer, by="Dr Chen", reason="pilot")
        assert done.promoted, done.gate
    return own


def test_a_home_that_nobody_touched_verifies(home):
    found = audit.verify(home)
    assert (found.entries, found.intact, found.last.act) == (3, True, "promote to challenger")
    assert found.anchors == {"releases": 2, "mlflow": 2}
    assert found.unanchored == []


def test_a_home_without_a_ledger_is_intact_and_made_no_fuller(tmp_path):
    found = audit.verify(Home(tmp_path / "home"))
    assert (found.entries, found.last) == (0, None)
    assert not (tmp_path / "home" / "mlflow.db").exists()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_cut_tail_shows_in_a_release_and_in_mlflow(home, left):
    lines = home.ledger.read_bytes().splitlines(keepends=True)
    home.ledger.write_bytes(b"".join(lines[:left]))
    with pytest.raises(IntegrityError, match="release ed_admission 1 knows of entry 3"):
        audit.verify(home)
    for version in "12":
        (home.releases / MODEL / version / "ledger.json").unlink()
    says = "MLflow's version ed_admission [12] knows of entry [23]"
    with pytest.raises(IntegrityError, match=says):
        audit.verify(home)
    assert audit.verify(home, mlflow=False).unanchored == [
        "release ed_admission 1",
        "release ed_admission 2",
    ]


def test_a_ledger_that_is_gone_shows(home):
    home.ledger.unlink()
    with pytest.raises(IntegrityError, match="is empty or gone"):
        audit.verify(home)


def test_a_tag_that_was_changed_shows(home):
    with registry._mlflow(home) as mlflow:
        mlflow.MlflowClient().set_model_version_tag(MODEL, "2", "ledger.mac", "0" * 64)
    with pytest.raises(
        IntegrityError, match="entry 2 is not the one that MLflow's version ed_admission 2"
    ):
        audit.verify(home)
    with registry._mlflow(home) as mlflow:
        mlflow.MlflowClient().delete_model_version_tag(MODEL, "2", "ledger.mac")
    with pytest.raises(IntegrityError, match="MLflow's version ed_admission 2"):
        audit.verify(home)


def test_a_server_that_is_down_is_said_and_can_be_left_out(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DOWN)
    with pytest.raises(CaremodelsError, match="MLflow: "):
        audit.verify(home)
    assert audit.verify(home, mlflow=False).anchors == {"releases": 2, "mlflow": None}
    assert audit.releases(home)[MODEL]["mlflow"] is None


def test_a_store_that_is_broken_is_said(home):
    (home.path / "mlflow.db").write_bytes(b"nothing that SQLite knows" * 100)
    with pytest.raises(CaremodelsError, match="MLflow: "):
        audit.verify(home)
    assert audit.releases(home)[MODEL]["mlflow"] is None


def test_releases_show_what_each_pointer_names(home):
    both = {"champion": "2", "challenger": "1"}
    assert audit.releases(home) == {
        MODEL: {**both, "withdrawn": {}, "ledger": both, "mlflow": both, "differs": []}
    }


def test_a_withdrawn_model_is_shown_as_such(home):
    promotion.withdraw(home, MODEL, by="Dr Li", reason="recall")
    found = audit.releases(home)[MODEL]
    assert (found["champion"], found["withdrawn"]) == (None, {"champion": "2"})
    assert found["differs"] == []


def test_an_alias_and_a_pointer_that_were_moved_by_hand_show(home):
    registry.set_alias(home, MODEL, "champion", "3")
    release.point(home.releases, model=MODEL, pointer="challenger", version="2")
    assert audit.releases(home)[MODEL]["differs"] == [
        "challenger: 2 here, 1 in the ledger",
        "champion: 2 here, 3 in MLflow",
        "challenger: 2 here, 1 in MLflow",
    ]


def test_where_the_ledger_does_not_verify_the_pointers_are_still_shown(home):
    home.ledger.write_bytes(home.ledger.read_bytes().replace(b"Dr Chen", b"Dr Wang"))
    found = audit.releases(home, mlflow=False)[MODEL]
    assert (found["champion"], found["ledger"], found["mlflow"]) == ("2", None, None)
