"""Which version answers as the pointers on disk move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import IntegrityError, NotFoundError, UnavailableError
from models import artifact, release
from serving import deployed as serving_deployed
from serving.deployed import Deployed


@pytest.fixture
def deployed(versions, tmp_path) -> Deployed:
    for version, source in versions.items():
        if version == "3":  # corrupted after it was published
            (tmp_path / "ed_admission" / "3").mkdir()
            for file in source.iterdir():
                (tmp_path / "ed_admission" / "3" / file.name).write_bytes(file.read_bytes())
        else:
            release.publish(tmp_path, source, model="ed_admission", version=version)
    release.point(tmp_path, model="ed_admission", pointer="champion", version="1")
    found = Deployed(releases=tmp_path, key=b"0123456789abcdef", demo=True)
    found.refresh()
    return found


def point(deployed: Deployed, version: str) -> None:
    release.point(deployed.releases, model="ed_admission", pointer="champion", version=version)
    deployed.refresh()


def test_a_promotion_replaces_the_version(deployed):
    before = deployed["ed_admission"]
    point(deployed, "2")
    assert (before.version, deployed["ed_admission"].version) == ("1", "2")
    assert deployed.ready


@pytest.mark.parametrize("version", ["3", "404", "", "\x00"])
def test_a_version_that_cannot_be_loaded_leaves_the_old_one(deployed, version, caplog):
    point(deployed, version)
    deployed.refresh()
    assert deployed["ed_admission"].version == "1"
    assert not deployed.ready
    assert len(caplog.records) == 1  # said once, not once a second
    point(deployed, "2")
    assert deployed["ed_admission"].version == "2"
    assert deployed.ready


def test_a_version_put_right_is_picked_up(deployed, versions, monkeypatch):
    point(deployed, "3")
    folder = deployed.releases / "ed_admission" / "3"
    (folder / "booster.ubj").write_bytes((versions["1"] / "booster.ubj").read_bytes())
    deployed.refresh()
    assert deployed["ed_admission"].version == "1"  # not tried again at once
    monkeypatch.setattr(serving_deployed, "RETRY_SECONDS", 0)
    deployed.refresh()
    assert deployed["ed_admission"].version == "3"
    assert deployed.ready


def test_what_no_version_serves_is_unavailable_and_names_no_file(deployed):
    fresh = replace(deployed, scorers={}, faults={})
    with pytest.raises(UnavailableError, match="no version of ed_admission is released"):
        fresh["ed_admission"]
    with pytest.raises(NotFoundError):
        fresh["nothing"]
    point(fresh, "3")
    with pytest.raises(UnavailableError) as caught:
        fresh["ed_admission"]
    assert str(caught.value) == "ed_admission 3 cannot be loaded"
    assert not fresh.ready


def test_a_demonstration_is_not_served_for_care(deployed):
    strict = replace(deployed, demo=False, scorers={}, faults={})
    strict.refresh()
    with pytest.raises(UnavailableError, match="not for care"):
        strict["ed_admission"]
    assert not strict.ready


def test_a_version_that_is_withdrawn_answers_nothing(deployed):
    (deployed.releases / "ed_admission" / "champion").unlink()
    deployed.refresh()
    with pytest.raises(UnavailableError, match="no version of ed_admission is released") as caught:
        deployed["ed_admission"]
    assert caught.value.status == 503
    assert not deployed.ready
    point(deployed, "2")
    assert deployed["ed_admission"].version == "2"
    assert deployed.ready


def test_a_version_withdrawn_while_the_pointers_are_read_is_no_fault(deployed, monkeypatch, caplog):
    (deployed.releases / "ed_admission" / "champion").unlink()
    monkeypatch.setattr(release, "models", lambda *_: ["ed_admission"])
    deployed.refresh()
    assert deployed.scorers == deployed.faults == {}
    assert not caplog.records


def test_one_model_withdrawn_leaves_the_others(deployed, triage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triage") / "artifact"
    artifact.write(folder, triage, evidence={})
    release.publish(deployed.releases, folder, model="ed_triage", version="1")
    release.point(deployed.releases, model="ed_triage", pointer="champion", version="1")
    deployed.refresh()
    assert deployed["ed_triage"].version == "1"
    (deployed.releases / "ed_admission" / "champion").unlink()
    deployed.refresh()
    assert set(deployed.scorers) == {"ed_triage"}
    assert deployed.ready


def test_a_model_that_fails_does_not_hold_up_the_others(deployed, monkeypatch):
    (deployed.releases / "broken").mkdir()
    (deployed.releases / "broken" / "champion").write_bytes(b"\xff\xfe")
    point(deployed, "2")
    assert deployed["ed_admission"].version == "2"
    assert not deployed.ready


def test_a_folder_that_is_no_artifact_is_an_integrity_error(versions, tmp_path):
    with pytest.raises(IntegrityError):
        release.publish(tmp_path, Path(versions["3"]), model="ed_admission", version="3")


def test_a_challenger_is_beside_the_champion_and_its_faults_are_its_own(deployed):
    release.point(deployed.releases, model="ed_admission", pointer="challenger", version="2")
    deployed.refresh()
    assert deployed["ed_admission"].version == "1"
    assert deployed.challengers["ed_admission"].version == "2"
    release.point(deployed.releases, model="ed_admission", pointer="challenger", version="3")
    deployed.refresh()
    assert deployed.challengers["ed_admission"].version == "2"
    assert set(deployed.silent_faults) == {"ed_admission"}
    assert deployed.ready
    release.unpoint(deployed.releases, model="ed_admission", pointer="challenger")
    deployed.refresh()
    assert deployed.challengers == {}


def test_a_model_that_was_withdrawn_is_unavailable_though_nobody_declares_it(deployed):
    (deployed.releases / "of_another_catalog" / "1").mkdir(parents=True)
    with pytest.raises(UnavailableError):
        deployed["of_another_catalog"]
