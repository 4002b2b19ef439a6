"""What production reads is whole, verified, and changed in one step."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import msgspec
import pytest

from data.errors import ConflictError, IntegrityError, NotFoundError
from models import artifact, release
from models.calibration import Calibration

MODEL = "ed_admission"


@pytest.fixture
def releases(home):
    return home.releases


@pytest.fixture
def source(written, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(written, tmp_path / "source")


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_release_is_the_artifact_file_by_file(releases, source):
    place = release.publish(releases, source, model=MODEL, version="1")
    assert place == releases / MODEL / "1"
    assert files(place) == files(source)
    assert [p.name for p in (releases / MODEL).iterdir()] == ["1"]


def test_a_second_time_is_the_same(releases, source):
    place = release.publish(releases, source, model=MODEL, version="1")
    before = {p: p.stat().st_mtime_ns for p in place.iterdir()}
    assert release.publish(releases, source, model=MODEL, version="1") == place
    assert {p: p.stat().st_mtime_ns for p in place.iterdir()} == before


def test_other_files_under_the_same_version_are_a_conflict(releases, source, tiny, tmp_path):
    place = release.publish(releases, source, model=MODEL, version="1")
    before = files(place)
    other = tmp_path / "other"
    artifact.write(other, replace(tiny, calibration=Calibration(slope=0.5)), evidence={})
    with pytest.raises(ConflictError, match="ed_admission 1 was released before with other files"):
        release.publish(releases, other, model=MODEL, version="1")
    assert files(place) == before


def test_a_corrupted_source_is_refused_and_leaves_nothing(releases, source):
    (source / "booster.ubj").write_bytes((source / "booster.ubj").read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError, match=r"booster\.ubj is not the file that was written"):
        release.publish(releases, source, model=MODEL, version="1")
    assert not releases.exists()


def test_a_model_that_answers_differently_is_refused_time_and_again(releases, source):
    """Its files verify; its golden rows do not. No draft is left to stumble over."""
    spoil_golden(source)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="golden rows are answered differently"):
            release.publish(releases, source, model=MODEL, version="1")
    assert files(releases) == {}
    assert list((releases / MODEL).iterdir()) == []


def test_a_release_that_was_spoilt_in_its_place_is_not_taken_for_the_same(releases, source):
    place = release.publish(releases, source, model=MODEL, version="1")
    (place / "card.html").write_text("another card")
    with pytest.raises(IntegrityError, match=r"card\.html"):
        release.publish(releases, source, model=MODEL, version="1")


def test_nothing_to_publish(releases, tmp_path):
    with pytest.raises(NotFoundError, match="no model at"):
        release.publish(releases, tmp_path / "none", model=MODEL, version="1")


def test_pointers_are_set_read_and_moved(releases, source):
    release.publish(releases, source, model=MODEL, version="1")
    assert release.pointed(releases, model=MODEL) is None
    assert release.models(releases) == []

    release.point(releases, model=MODEL, pointer="champion", version="1")
    release.point(releases, model=MODEL, pointer="challenger", version="2")
    assert release.pointed(releases, model=MODEL) == "1"
    assert release.pointed(releases, model=MODEL, pointer="challenger") == "2"
    assert release.models(releases) == [MODEL]

    release.point(releases, model=MODEL, pointer="champion", version="2")
    assert release.pointed(releases, model=MODEL) == "2"
    names = {p.name for p in (releases / MODEL).iterdir()}
    assert names == {"1", "champion", "challenger"}


def test_a_pointer_that_is_taken_away_names_nothing(releases, source):
    release.publish(releases, source, model=MODEL, version="1")
    for pointer in release.POINTERS:
        release.point(releases, model=MODEL, pointer=pointer, version="1")
    release.unpoint(releases, model=MODEL, pointer="champion")
    release.unpoint(releases, model=MODEL, pointer="champion")
    assert release.pointed(releases, model=MODEL) is None
    assert release.pointed(releases, model=MODEL, pointer="challenger") == "1"
    assert release.models(releases) == []
    assert release.known(releases) == [MODEL]
    assert (releases / MODEL / "1" / "manifest.json").exists()


def test_a_pointer_that_is_no_text_names_a_version_that_is_not_there(releases, source):
    release.publish(releases, source, model=MODEL, version="1")
    (releases / MODEL / "champion").write_bytes(b"\xff\xfe")
    assert not (releases / MODEL / release.pointed(releases, model=MODEL)).exists()


def test_a_release_beside_its_anchor_still_verifies(releases, source):
    """``ledger.json`` comes after the manifest, which lists what was published."""
    place = release.publish(releases, source, model=MODEL, version="1")
    (place / "ledger.json").write_text('{"number": 1, "mac": "ab"}')
    artifact.load(place)
    assert release.publish(releases, source, model=MODEL, version="1") == place


def test_a_reader_never_sees_half_a_pointer(releases, source):
    release.publish(releases, source, model=MODEL, version="1")
    versions = ["1" * 50, "2" * 50]
    release.point(releases, model=MODEL, pointer="champion", version=versions[0])
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(release.pointed(releases, model=MODEL))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(300):
        release.point(releases, model=MODEL, pointer="champion", version=versions[turn % 2])
    stop.set()
    reader.join()
    assert seen <= set(versions)


def test_no_releases_are_no_models(releases):
    assert release.models(releases) == []
    assert release.known(releases) == []
    assert release.pointed(releases, model=MODEL) is None


def spoil_golden(folder):
    """Another answer to a golden row, under a manifest that vouches for it."""
    import hashlib

    golden = msgspec.json.decode((folder / "golden.json").read_bytes())
    golden[0]["risk"] += 1e-6
    (folder / "golden.json").write_bytes(msgspec.json.encode(golden))
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    content = (folder / "golden.json").read_bytes()
    manifest["files"]["golden.json"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
