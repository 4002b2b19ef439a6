"""From a gate to a pointer and back, in a real home with a real MLflow; each act is written down."""

import shutil
from dataclasses import replace

import msgspec
import pytest

from data.errors import ConflictError, IntegrityError, NotFoundError, UnavailableError, UsageError
from data.pseudonym import load_key
from models import catalog, ledger, manifest, registry, release
from models.spec import Limits
from serving.deployed import Deployed
from training import promotion

pytestmark = pytest.mark.slow
MODEL = "ed_admission"
SPEC = replace(
    catalog.load(MODEL),
    limits=Limits(intercept=(-0.25, 0.25), logistic_margin=0.0, champion_margin=0.02),
)
SIGNED = {"by": "Dr Chen", "reason": "pilot"}
SECOND = {"override_by": "Dr Wang", "override_reason": "a small year"}


def promote(home, version, pointer="champion", **more):
    return promotion.promote(home, SPEC, version, pointer=pointer, **{**SIGNED, **more})


def entries(home):
    return ledger.verify(home.ledger, load_key(home.path))


def pointed(home, pointer="champion"):
    return release.pointed(home.releases, model=MODEL, pointer=pointer)


def state(home):
    """Every file of the home, but for what only looking at it writes."""
    looked = {"scratch", "key", "mlflow.db", ".mlflow.lock"}
    files = (file for file in home.path.rglob("*") if file.is_file())
    return {file: file.read_bytes() for file in files if not looked & set(file.parts)}


def tags(home, version):
    with registry._mlflow(home) as mlflow:
        return mlflow.MlflowClient().get_model_version(MODEL, version).tags


def test_a_version_that_passes_is_released_and_written_down(own):
    done = promote(own, "1")

    assert (done.promoted, done.pointer, done.entry, done.mlflow) == (True, "champion", 1, None)
    assert (done.champion, done.override) == (None, None)
    assert all(finding.passed for finding in done.gate)
    assert pointed(own) == "1"
    (entry,) = entries(own)
    assert (entry.act, entry.version, entry.by) == ("promote to champion", "1", "Dr Chen")
    released = own.releases / MODEL / "1"
    assert entry.evidence["files"] == manifest.verify(released).files
    assert entry.evidence["gate"] == msgspec.to_builtins(done.gate)
    anchored = msgspec.json.decode((released / "ledger.json").read_bytes())
    assert anchored == {"number": 1, "mac": entry.mac}
    assert tags(own, "1") == {"ledger.number": "1", "ledger.mac": entry.mac}
    assert registry.aliases(own, MODEL) == {"champion": "1"}


def test_a_version_that_fails_changes_nothing(own):
    before = state(own)
    done = promote(own, "3")

    failed = [finding.criterion for finding in done.gate if not finding.passed]
    assert failed == ["events in the test period"]
    assert (done.promoted, done.entry) == (False, None)
    assert state(own) == before
    assert (tags(own, "3"), registry.aliases(own, MODEL)) == ({}, {})


def test_a_second_person_overrides_and_it_is_written_down(own):
    done = promote(own, "3", **SECOND)

    assert (done.promoted, pointed(own)) == (True, "3")
    (entry,) = entries(own)
    assert entry.act == "override to champion"
    assert (entry.by, entry.reason) == ("Dr Chen", "pilot")
    assert entry.evidence["override"] == {
        "by": "Dr Wang",
        "reason": "a small year",
        "used": True,
        "failed": ["events in the test period"],
    }


@pytest.mark.parametrize(
    "more",
    [
        {"override_by": "dr  chen", "override_reason": "a small year"},
        {"override_by": "Dr Wang"},
        {"override_reason": "a small year"},
        {"by": " "},
        {"reason": ""},
    ],
)
def test_without_two_names_and_two_reasons_nothing_is_overridden(own, more):
    before = state(own)
    with pytest.raises(UsageError):
        promote(own, "3", **more)
    assert state(own) == before


def test_an_override_that_was_not_needed_is_not_used(own):
    done = promote(own, "1", **SECOND)

    assert done.override["used"] is False
    (entry,) = entries(own)
    assert entry.act == "promote to champion"
    assert entry.evidence["override"] == {**done.override, "failed": []}


def test_the_challenger_is_a_pointer_of_its_own_behind_the_same_gate(own):
    promote(own, "1")
    assert not promote(own, "3", pointer="challenger").promoted
    done = promote(own, "2", pointer="challenger")

    assert done.champion["version"] == "1"
    assert (pointed(own), pointed(own, "challenger")) == ("1", "2")
    assert registry.aliases(own, MODEL) == {"champion": "1", "challenger": "2"}
    assert entries(own)[-1].act == "promote to challenger"


def test_beside_the_champion_a_worse_version_fails(own):
    promote(own, "1")
    better, worse = promote(own, "2"), promote(own, "4")

    assert better.promoted
    assert better.champion["auroc"]["low"] > -0.02
    failed = [finding.criterion for finding in worse.gate if not finding.passed]
    assert failed == ["AUROC over the champion, version 2, lower 95 % bound"]
    assert worse.champion["auroc"]["high"] < -0.3
    assert pointed(own) == "2"
    assert entries(own)[-1].evidence["champion"] == better.champion


def test_where_the_rows_are_gone_only_an_override_passes(own):
    promote(own, "1")
    (own.path / "marts.duckdb").unlink()

    refused = promote(own, "2")
    (finding,) = [finding for finding in refused.gate if not finding.passed]
    assert finding.value is None
    assert "it cannot be told: there are no marts" in finding.limit
    assert promote(own, "2", **SECOND).promoted


def test_a_champion_that_changed_while_a_version_was_judged_is_a_conflict(own, monkeypatch):
    promote(own, "1")
    judged = promotion.gate.judge

    def meanwhile(*given):
        release.point(own.releases, model=MODEL, pointer="champion", version="9")
        return judged(*given)

    monkeypatch.setattr(promotion.gate, "judge", meanwhile)
    with pytest.raises(ConflictError, match="another version became champion meanwhile"):
        promote(own, "2")
    assert len(entries(own)) == 1
    assert pointed(own) == "9"


def test_a_rollback_makes_the_champion_before_champion_again(own):
    for version in "12":
        promote(own, version)
    done = promotion.rollback(own, MODEL, by="Dr Li", reason="alarm")

    assert (done.version, done.was, done.pointed, done.mlflow) == ("1", "2", "1", None)
    assert pointed(own) == "1"
    entry = entries(own)[-1]
    assert (entry.act, entry.version, entry.by) == ("roll back", "1", "Dr Li")
    assert (entry.evidence["from"], entry.evidence["promoted_in"]) == ("2", 1)
    assert registry.aliases(own, MODEL) == {"champion": "1"}
    with pytest.raises(ConflictError, match="no champion before version 1 to go back to"):
        promotion.rollback(own, MODEL, by="Dr Li", reason="alarm")
    assert len(entries(own)) == 3


def test_where_nothing_was_promoted_nothing_is_rolled_back_to(own):
    with pytest.raises(ConflictError, match="names no champion to go back to"):
        promotion.rollback(own, MODEL, by="Dr Li", reason="alarm")


@pytest.mark.parametrize("spoilt", ["file", "manifest", "folder"])
def test_a_release_that_is_not_the_one_promoted_is_not_rolled_back_to(own, spoilt):
    for version in "12":
        promote(own, version)
    place = own.releases / MODEL / "1"
    if spoilt == "file":
        (place / "card.html").write_text("another card")
    elif spoilt == "manifest":  # whole in itself, and not what was signed
        anchored = (place / "ledger.json").read_bytes()
        shutil.rmtree(place)
        shutil.copytree(own.releases / MODEL / "2", place)
        (place / "ledger.json").write_bytes(anchored)
    else:
        shutil.rmtree(place)
    with pytest.raises((IntegrityError, NotFoundError)):
        promotion.rollback(own, MODEL, by="Dr Li", reason="alarm")
    assert pointed(own) == "2"
    assert len(entries(own)) == 2


def served(home):
    found = Deployed(releases=home.releases, key=b"0123456789abcdef", demo=True)
    found.refresh()
    return found


def test_a_withdrawn_model_is_not_served_any_more(own):
    promote(own, "1")
    deployed = served(own)
    assert deployed[MODEL].version == "1"

    done = promotion.withdraw(own, MODEL, by="Dr Li", reason="recall")
    deployed.refresh()

    assert (done.version, done.pointed, done.pointer) == ("1", None, "champion")
    with pytest.raises(UnavailableError, match="no version of ed_admission is released"):
        deployed[MODEL]
    assert entries(own)[-1].act == "withdraw champion"
    assert registry.aliases(own, MODEL) == {}
    with pytest.raises(NotFoundError, match="no version is champion"):
        promotion.withdraw(own, MODEL, by="Dr Li", reason="recall")


def test_after_a_withdrawal_a_rollback_finds_the_version_before(own):
    for version in "12":
        promote(own, version)
    promotion.withdraw(own, MODEL, by="Dr Li", reason="recall")
    done = promotion.rollback(own, MODEL, by="Dr Li", reason="the old one")

    assert (done.version, done.was) == ("1", None)
    assert served(own)[MODEL].version == "1"


def test_the_challenger_is_withdrawn_alone(own):
    promote(own, "1")
    promote(own, "2", pointer="challenger")
    promotion.withdraw(own, MODEL, pointer="challenger", by="Dr Li", reason="enough")

    assert (pointed(own), pointed(own, "challenger")) == ("1", None)
    assert registry.aliases(own, MODEL) == {"champion": "1"}


def test_a_withdrawal_takes_effect_where_it_cannot_be_written_down(own):
    promote(own, "1")
    own.ledger.write_bytes(own.ledger.read_bytes().replace(b"Dr Chen", b"Dr Wang"))

    with pytest.raises(IntegrityError, match="1 is withdrawn, and that could not be written down"):
        promotion.withdraw(own, MODEL, by="Dr Li", reason="recall")
    assert pointed(own) is None


def test_a_withdrawal_that_was_cut_short_is_written_down_by_the_next(own):
    promote(own, "1")
    release.unpoint(own.releases, model=MODEL, pointer="champion")

    assert promotion.withdraw(own, MODEL, by="Dr Li", reason="recall").version == "1"
    assert ledger.standing(entries(own), MODEL).withdrawn == "1"


@pytest.mark.parametrize("model", ["sepsis", "..", "", "ed_admission/1"])
def test_what_was_never_released_is_not_withdrawn(own, model):
    promote(own, "1")
    before = state(own)
    with pytest.raises(NotFoundError, match="no version is released"):
        promotion.withdraw(own, model, by="Dr Li", reason="recall")
    assert state(own) == before


def test_acts_go_on_while_mlflow_is_down(own, monkeypatch):
    for version in "12":
        promote(own, version)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        back = promotion.rollback(own, MODEL, by="Dr Li", reason="alarm")
        gone = promotion.withdraw(own, MODEL, by="Dr Li", reason="recall")

    assert back.mlflow.startswith("MLflow: ")
    assert gone.mlflow.startswith("MLflow: ")
    assert pointed(own) is None
    assert [entry.act for entry in entries(own)][2:] == ["roll back", "withdraw champion"]
    assert registry.aliases(own, MODEL) == {"champion": "2"}  # as MLflow was left


@pytest.mark.parametrize("after", ["append", "anchor", "point"])
def test_a_process_that_is_killed_on_the_way_leaves_a_home_that_verifies(own, monkeypatch, after):
    promote(own, "1")

    def killed(real):
        def then(*given, **named):
            real(*given, **named)
            raise KeyboardInterrupt

        return then

    place, name = {
        "append": (ledger.Book, "append"),
        "anchor": (ledger, "anchor"),
        "point": (release, "point"),
    }[after]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed(getattr(place, name)))
        with pytest.raises(KeyboardInterrupt):
            promote(own, "2")

    signed = entries(own)
    assert [entry.version for entry in signed] == ["1", "2"]
    ledger.hold(signed, [*ledger.anchors(own.releases), *registry.anchors(own)])
    assert pointed(own) == ("2" if after == "point" else "1")
    assert promote(own, "2").promoted


def test_nothing_is_promoted_on_a_ledger_that_lost_its_end(own):
    for version in "12":
        promote(own, version)
    own.ledger.write_bytes(own.ledger.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(IntegrityError, match="entries were removed"):
        promote(own, "1")
    assert pointed(own) == "2"
