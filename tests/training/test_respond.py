"""What alarms call for is carried out once, by who may, and nobody is answered by what comes of it."""

import fcntl
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from data.errors import (
    CaremodelsError,
    ConflictError,
    GateRefusedError,
    IntegrityError,
    NotEnoughDataError,
    NotFoundError,
)
from data.home import Home
from data.marts.ed_visit import MART
from data.period import Period
from data.pseudonym import load_key
from data.simulate import simulate
from data.source import Origin
from data.store import Slice, open_store
from models import alarms, artifact, catalog, ledger, registry, release
from models.spec import Boosting
from training import audit, promotion, recalibrate, respond
from training.called import called

pytestmark = pytest.mark.slow
KEY = b"0123456789abcdef"
MODEL = "ed_admission"
SITE = "county-new"
FEW_TREES = Boosting(max_depth=3, learning_rate=0.3, rounds=25, early_stopping_rounds=5)
YEAR = ("2020-09-01", "2021-09-30")
"""The days that monitoring looks at for a proposal about September: the month and 365 days before it."""
SIGNED = {"by": "Dr Chen", "reason": "as proposed"}


RETRAIN = """
[ed_admission.retrain]
without_signature = true
fewest_events = 100000
auroc_loss = 0.1
most_a_year = 9
description = "It is trained anew."
protocol = "p"
impact = "i"
"""


def visits(site, *, more, seed, first="2021-03", last="2021-09"):
    """900 visits to one hospital, which admits a share ``more`` of those whom others send home."""
    table = simulate(visits=900, seed=seed, first=first, last=last)
    rng = np.random.default_rng(seed)
    cells = {
        "site": [site] * len(table),
        "visit_id": [f"{site}-{place}" for place in range(len(table))],
        "disposition": [
            "admitted" if name == "discharged" and rng.random() < more else name
            for name in table["disposition"].to_pylist()
        ],
    }
    for name, values in cells.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(place).type))
    return table


@pytest.fixture(scope="module")
def released(tracked, tmp_path_factory):
    """Version 1 is champion; since then two hospitals came that admit more than any it knows."""
    home = Home(tmp_path_factory.mktemp("released"))
    for name in ("marts.duckdb", "mlflow.db"):
        shutil.copy(tracked.path / name, home.path / name)
    with open_store(home.marts) as store:
        for site, more, seed in ((SITE, 0.25, 8), ("clinic-new", 0.2, 10)):
            origin = Origin(load_id=site, source="own", use="care")
            store.load(MART, [visits(site, more=more, seed=seed)], origin, key=KEY)
    promotion.promote(home, catalog.load(MODEL), "1", pointer="champion", by="Dr Wu", reason="pilot")
    return home


@pytest.fixture
def home(released, tmp_path):
    return Home(shutil.copytree(released.path, tmp_path / "home"))


def entries(home):
    return ledger.verify(home.ledger, load_key(home.path))


def pointed(home, pointer="champion"):
    return release.pointed(home.releases, model=MODEL, pointer=pointer)


def left_alone(home):
    """Nothing was registered, written down or pointed to: entries of the ledger, newest version."""
    return entries(home), registry.latest(home, MODEL), pointed(home), pointed(home, "challenger")


def test_a_signed_response_enters_as_challenger_and_is_written_down(home, watch):
    number = watch.raised("recalibrate", site=SITE)
    done = respond.respond(home, [number], **SIGNED)

    assert (done.version, done.pointed, done.from_version) == ("5", "challenger", "1")
    assert (done.refused, done.change_control, done.mlflow) == ([], None, None)
    assert (pointed(home), pointed(home, "challenger")) == ("1", "5")
    assert all(finding["passed"] for finding in done.gate)
    (detail,) = done.details
    assert detail["site"] == SITE
    assert detail["before"]["oe"] > 1.4
    assert abs(detail["after"]["oe"] - 1) < 0.15
    new = artifact.load(registry.fetch(home, MODEL, "5"))
    assert new.calibration.sites[SITE] == pytest.approx(detail["shift"])

    _, _, learned, promoted, answer = entries(home)
    assert [one.act for one in (learned, promoted, answer)] == [
        "recalibrate",
        "promote to challenger",
        "alarm answered",
    ]
    assert {(one.by, one.reason) for one in (learned, promoted, answer)} == {
        ("Dr Chen", f"alarm {number}: as proposed")
    }
    assert learned.evidence["period"] == [*YEAR]
    assert (answer.number, answer.version) == (done.entry, "1")
    assert answer.evidence == {
        "alarms": [number],
        "action": "recalibrate",
        "change_control": None,
        "version": "5",
        "pointed": "challenger",
        "refused": [],
        "acts": [learned.number, promoted.number],
    }
    assert alarms.standing(entries(home))[number].answered == (answer.number,)
    assert audit.verify(home).last == answer
    assert registry.aliases(home, MODEL) == {"champion": "1", "challenger": "5"}

    before = left_alone(home)
    with pytest.raises(ConflictError, match=f"{number} was answered in entry {answer.number} of"):
        respond.respond(home, [number], **SIGNED)
    assert left_alone(home) == before


def test_a_plan_signs_within_its_bounds_until_its_year_is_used_up(home, watch):
    """A challenger that it placed it replaces; one answer more in a year is a person's."""
    watch.plan()
    number = watch.raised("recalibrate", site=SITE)
    first = respond.respond(home, [number])
    watch.seen(raised=[number], to="2021-10-31")
    second = respond.respond(home, [number])

    assert (first.refused, second.refused) == ([], [])
    assert (first.version, second.version, pointed(home, "challenger")) == ("5", "6", "6")
    assert first.by == "change control (Dr Chen, 2026-11-24)"
    said = second.change_control
    assert (said["file"], said["largest_shift"], said["most_a_year"]) == ("change-control.toml", 2.0, 2)
    again = entries(home)[-3]
    assert again.reason == (
        f"alarm {number}: A site's intercept is learned anew. (sha256 {said['sha256']})"
    )
    assert again.evidence["period"][1] == "2021-10-31"
    watch.seen(raised=[number], to="2021-11-30")
    before = left_alone(home)
    with pytest.raises(GateRefusedError, match="2 within a year without a signature, most_a_year"):
        respond.respond(home, [number])
    assert left_alone(home) == before
    assert called(home, [number], **SIGNED, now=datetime.now(UTC)).plan is None


def test_what_breaks_a_bound_is_registered_and_pointed_to_by_nothing(home, watch):
    watch.plan("largest_shift = 2.0", "largest_shift = 0.1")
    number = watch.raised("recalibrate", site=SITE)
    done = respond.respond(home, [number])

    (shift,) = (row["shift"] for row in done.details)
    assert done.refused == [f"{SITE}: a shift of {shift:+.2f}, largest_shift is 0.1"]
    assert (done.version, done.pointed, done.gate) == ("5", None, [])
    assert registry.latest(home, MODEL) == "5"
    assert (pointed(home), pointed(home, "challenger")) == ("1", None)
    learned, answer = entries(home)[-2:]
    assert (learned.act, answer.evidence["acts"]) == ("recalibrate", [learned.number])
    assert answer.evidence["refused"] == done.refused

    with pytest.raises(ConflictError, match=f"alarm {number} was answered"):
        respond.respond(home, [number])  # it would be refused again
    assert respond.respond(home, [number], **SIGNED).pointed == "challenger"


def test_too_few_events_for_the_plan_are_too_few_and_nothing_is_registered(home, watch):
    watch.plan("fewest_events = 100", "fewest_events = 100000")
    number = watch.raised("recalibrate", site=SITE)
    before = left_alone(home)
    with pytest.raises(NotEnoughDataError, match=f"under 100000 events at {SITE}"):
        respond.respond(home, [number])
    assert left_alone(home) == before


def test_two_sites_are_answered_in_one_version_and_all_sites_where_none_is_named(home, watch):
    """``known`` are the simulated sites with outcomes enough in the year; small clinics stay."""
    one, other = watch.raised("recalibrate", site=SITE), watch.raised("recalibrate", site="clinic-new")
    both = respond.respond(home, [one, other, one], **SIGNED)
    everywhere = respond.respond(home, [watch.raised("recalibrate")], **SIGNED)

    assert both.alarms == [one, other]
    assert [row["site"] for row in both.details] == ["clinic-new", SITE]
    assert {*alarms.standing(entries(home))[other].answered} == {both.entry}
    named = [row["site"] for row in everywhere.details]
    assert {"clinic-new", SITE, "tertiary-01"} < {*named}
    assert named == sorted(named)
    assert "clinic-08" not in named
    told = {row["site"]: row["shift"] for row in both.details}
    assert {row["site"]: row["shift"] for row in everywhere.details}.items() >= told.items()
    learned = next(one for one in entries(home) if one.number == everywhere.acts[0])
    assert {*learned.evidence["sites"]} == {*named}


def test_without_a_signature_a_model_is_withdrawn_where_the_plan_says_so(home, watch, monkeypatch):
    """Also while MLflow is down, which is told."""
    watch.plan()
    number = watch.raised("withdraw")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = respond.respond(home, [number])

    assert (done.action, done.version, done.pointed) == ("withdraw", None, None)
    assert done.mlflow.startswith("MLflow: ")
    assert pointed(home) is None
    withdrawn, answer = entries(home)[-2:]
    assert (withdrawn.act, answer.evidence["acts"]) == ("withdraw champion", [withdrawn.number])
    with pytest.raises(ConflictError, match="and champion is now none: close it"):
        respond.respond(home, [number], **SIGNED)


def test_an_alarm_of_the_challenger_is_about_the_challenger_alone(home, watch):
    promotion.promote(home, catalog.load(MODEL), "2", pointer="challenger", by="Dr Wu", reason="trial")
    silent = {"pointer": "challenger", "version": "2"}
    better = respond.respond(home, [watch.raised("recalibrate", site=SITE, **silent)], **SIGNED)
    assert (better.from_version, pointed(home, "challenger")) == ("2", "5")

    gone = watch.raised("withdraw", pointer="challenger", version="5")
    assert respond.respond(home, [gone], **SIGNED).from_version == "5"
    assert (pointed(home), pointed(home, "challenger")) == ("1", None)


def test_a_challenger_that_a_person_made_meanwhile_is_not_replaced(home, watch):
    watch.plan()
    number = watch.raised("recalibrate", site=SITE)

    def meanwhile(name, _):
        if name == "registering":
            promotion.promote(
                home, catalog.load(MODEL), "2", pointer="challenger", by="Dr Wu", reason="trial"
            )

    done = respond.respond(home, [number], stage=meanwhile)

    assert done.refused == ["version 2 became challenger, and not by change-control.toml"]
    assert (done.version, pointed(home, "challenger")) == ("5", "2")
    assert entries(home)[-1].evidence["pointed"] is None


def test_a_process_that_is_killed_before_it_answers_leaves_a_home_that_verifies(
    home, watch, monkeypatch
):
    """The alarm counts as not answered, and the year as used."""
    watch.plan()
    number = watch.raised("recalibrate", site=SITE)
    append_one = ledger.Book.append

    def killed(book, **given):
        if given["act"] == ledger.ALARM_ANSWERED:
            raise KeyboardInterrupt
        return append_one(book, **given)

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Book, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            respond.respond(home, [number])

    assert audit.verify(home).last.act == "promote to challenger"
    assert (pointed(home), pointed(home, "challenger")) == ("1", "5")
    assert alarms.standing(entries(home))[number].answered == ()
    done = respond.respond(home, [number])
    assert (done.version, pointed(home, "challenger")) == ("6", "6")
    watch.seen(raised=[number], to="2021-10-31")
    with pytest.raises(GateRefusedError, match="2 within a year"):
        respond.respond(home, [number])


def test_while_mlflow_is_down_nothing_is_recalibrated_and_the_alarm_stands(home, watch, monkeypatch):
    number = watch.raised("recalibrate", site=SITE)
    before = left_alone(home)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(CaremodelsError, match="MLflow: "):
            respond.respond(home, [number], **SIGNED)
    assert left_alone(home) == before
    assert called(home, [number], **SIGNED, now=datetime.now(UTC)).about.number == number


@pytest.mark.parametrize("spoilt", ["changed", "cut", "gone"])
def test_on_a_ledger_that_was_tampered_with_nothing_is_begun(home, watch, spoilt):
    number = watch.raised("recalibrate", site=SITE)
    watch.raised("recalibrate")
    book = home.ledger.read_bytes()
    if spoilt == "changed":
        home.ledger.write_bytes(book.replace(b"Dr Wu", b"Dr Li"))
    elif spoilt == "cut":
        home.ledger.write_bytes(b"".join(book.splitlines(keepends=True)[:-1]))
    else:
        home.ledger.unlink()
    with pytest.raises(IntegrityError, match="ledger: "):
        respond.respond(home, [number], **SIGNED)
    assert registry.latest(home, MODEL) == "4"
    assert pointed(home, "challenger") is None


def test_of_two_responses_at_once_one_is_refused(home, watch):
    number = watch.raised("recalibrate", site=SITE)
    with (home.path / "respond.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another response is under way in this home"):
            respond.respond(home, [number], **SIGNED)
    assert entries(home)[-1].number == number


def test_no_home_is_made_for_a_wrong_number(tmp_path):
    with pytest.raises(NotFoundError, match="no alarm has the number 3; known: none"):
        respond.respond(Home(tmp_path / "home"), [3], **SIGNED)
    assert not (tmp_path / "home").exists()


def test_only_what_was_known_today_teaches(home, watch):
    """A window that was given no end ends today, when some who came are still being treated."""
    with open_store(home.marts, write=False) as store:
        there = store.read(MART, Slice(period=Period.between("2021-08", None)), columns=["departed_at"])
    today = min(moment for moment in there["departed_at"].to_pylist() if moment)
    number = watch.raised("recalibrate", site=SITE, first="1-01-01", to="9998-12-31")
    done = respond.respond(home, [number], **SIGNED, now=today.replace(tzinfo=UTC))

    learned = next(one for one in entries(home) if one.number == done.acts[0])
    assert learned.evidence["period"][1] == f"{today:%Y-%m-%d}"
    assert learned.evidence["as_of"] == str(today)
    fitted = artifact.load(registry.fetch(home, MODEL, "1"))
    that_day = Slice(period=Period.between(None, f"{today:%Y-%m-%d}"))
    with recalibrate._rows(home, fitted, MART, SITE, that_day) as (cohort, _, _):
        assert 0 < len(cohort) - done.details[0]["n"] < 10


@pytest.fixture
def easy(monkeypatch):
    """The model with a handful of trees, and a gate that they pass."""
    spec = catalog.load(MODEL)
    wide = replace(
        spec.limits, events=50, slope=(0.1, 10.0), intercept=(-5.0, 5.0), oe=(0.1, 10.0),
        logistic_margin=0.5, champion_margin=0.5, subgroup_auroc=0.1, subgroup_oe=(0.01, 100.0),
    )  # fmt: skip
    spec = replace(spec, boosting=FEW_TREES, ablations=(), limits=wide, benefit=(0.25, 0.4))
    monkeypatch.setattr(catalog, "load", lambda _: spec)


def test_a_new_training_is_held_to_the_plan_and_then_to_the_gate(home, watch, easy):
    """It learns from all that is known today, and is held against the version that alarms."""
    watch.plan(more=RETRAIN)
    number = watch.raised("retrain")
    refused = respond.respond(home, [number])

    (events,) = (row["events"] for row in refused.details)
    assert refused.refused == [f"test period: {events} events, fewest_events is 100000"]
    assert refused.details[0]["beside"]["version"] == "1"
    assert (refused.version, refused.pointed, pointed(home, "challenger")) == ("5", None, None)
    done = respond.respond(home, [number], **SIGNED)
    assert done.refused == [], done.gate
    assert (done.version, done.pointed, pointed(home)) == ("6", "challenger", "1")
    provenance = artifact.load(registry.fetch(home, MODEL, "6")).manifest.provenance
    assert {*provenance.load_ids} == {"one", SITE, "clinic-new"}
    assert abs(provenance.as_of - datetime.now(UTC).replace(tzinfo=None)).days == 0
    assert [one.act for one in entries(home)[-2:]] == ["promote to challenger", "alarm answered"]
