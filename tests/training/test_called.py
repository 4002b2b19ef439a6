"""Who may act on which alarm, and when: told from a real ledger, before anything is begun."""

from datetime import UTC, datetime

import pytest

from data.errors import ConflictError, GateRefusedError, NotFoundError, UsageError
from data.home import Home
from models import ledger
from training.called import called

MODEL = "ed_admission"
NOW = datetime.now(UTC)
SIGNED = ("Dr Chen", "as proposed")
UNSIGNED = (None, None)
PLANNED = {"change_control": {"sha256": "ab"}}
OURS = "change control (Dr Chen, 2026-11-24)"


@pytest.fixture
def home(tmp_path):
    """Version 1 is champion; version 2 was released as well."""
    home = Home(tmp_path / "home")
    for version in "12":
        folder = home.releases / MODEL / version
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    point(home, "1")
    return home


def point(home, version, pointer="champion"):
    (home.releases / MODEL / pointer).write_text(f"{version}\n")


def answered(watch, *numbers, action="recalibrate", refused=(), acts=(), **more):
    evidence = {"alarms": [*numbers], "action": action, "refused": [*refused], "acts": [*acts]}
    return watch.append(ledger.ALARM_ANSWERED, {**evidence, "change_control": None, **more})


def test_a_person_may_whatever_the_plan_says(home, watch):
    (home.path / "change-control.toml").write_text("no = plan")
    found = called(home, [watch.raised("retrain")], *SIGNED, now=NOW)
    assert (found.action, found.pointer, found.plan, found.evidence) == (
        "retrain",
        "champion",
        None,
        None,
    )
    assert found.because == "alarm 1: as proposed"
    assert found.rule.broken(shifts={"a": 9.0}, events={"a": 0}, auroc_loss=1.0) == []


def test_a_plan_may_what_it_allows_and_says_on_what_it_rests(home, watch):
    watch.plan()
    found = called(home, [watch.raised("recalibrate")], *UNSIGNED, now=NOW)
    assert found.signed.by == OURS
    assert found.because.startswith("alarm 1: A site's intercept is learned anew. (sha256 ")
    assert found.evidence["largest_shift"] == 2.0
    assert found.rule.fewest_events == 100


@pytest.mark.parametrize("signature", [("Dr Chen", None), (None, "why"), ("", "why"), ("Dr Chen", " ")])
def test_half_a_signature_is_none(home, watch, signature):
    watch.plan()
    with pytest.raises(UsageError, match="it may not be empty"):
        called(home, [watch.raised("recalibrate")], *signature, now=NOW)


@pytest.mark.parametrize("plan", [None, "other"])
def test_what_no_plan_allows_is_a_persons(home, watch, plan):
    if plan:
        watch.plan()
    with pytest.raises(UsageError, match=r"retrain of ed_admission: change-control\.toml .* --by and"):
        called(home, [watch.raised("retrain")], *UNSIGNED, now=NOW)


@pytest.mark.parametrize("response", ["watch", "inspect_inputs"])
def test_what_a_person_does_by_looking_no_command_does(home, watch, response):
    with pytest.raises(UsageError, match=f"alarm 1 calls for {response}: a person looks"):
        called(home, [watch.raised(response)], *SIGNED, now=NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"response": "retrain"},
        {"response": "recalibrate", "version": "2"},
        {"response": "recalibrate", "pointer": "challenger"},
        {"response": "recalibrate", "model": "sepsis"},
    ],
)
def test_alarms_of_two_kinds_are_answered_one_after_the_other(home, watch, other):
    numbers = [watch.raised("recalibrate"), watch.raised(**other)]
    with pytest.raises(UsageError, match="alarms 1 and 2 are of two versions or call for two things"):
        called(home, numbers, *SIGNED, now=NOW)


def test_a_number_that_opened_no_alarm_is_not_found(home, watch):
    watch.raised("recalibrate")
    seen = watch.seen(raised=[1], to="2021-10-31")
    for number in (seen, 99):
        with pytest.raises(NotFoundError, match=f"no alarm has the number {number}; known: 1"):
            called(home, [1, number], *SIGNED, now=NOW)


def test_a_closed_alarm_is_not_answered_and_an_acknowledged_one_is(home, watch):
    one, other = watch.raised("recalibrate", site="a"), watch.raised("recalibrate", site="b")
    watch.append(ledger.ALARM_ACKNOWLEDGED, {"alarm": one}, by="Dr Wu")
    watch.append(ledger.ALARM_CLOSED, {"alarm": other}, by="Dr Wu")
    assert called(home, [one], *SIGNED, now=NOW).about.state == "acknowledged"
    with pytest.raises(ConflictError, match=f"alarm {other} was closed by Dr Wu: seen"):
        called(home, [one, other], *SIGNED, now=NOW)


@pytest.mark.parametrize("now", ["2", None])
def test_an_alarm_of_a_version_that_is_not_pointed_to_any_more_is_to_be_closed(home, watch, now):
    number = watch.raised("recalibrate")
    point(home, now) if now else (home.releases / MODEL / "champion").unlink()
    with pytest.raises(ConflictError, match=f"and champion is now {now or 'none'}: close it"):
        called(home, [number], *SIGNED, now=NOW)


def test_an_alarm_is_answered_once_until_it_is_raised_again(home, watch):
    number = watch.raised("recalibrate")
    answer = answered(watch, number)
    with pytest.raises(ConflictError, match=f"alarm {number} was answered in entry {answer} of"):
        called(home, [number], *SIGNED, now=NOW)
    watch.seen(raised=[number], to="2021-10-31")
    assert called(home, [number], *SIGNED, now=NOW).window["to"] == "2021-10-31"


def test_of_two_alarms_each_is_answered_once(home, watch):
    """That one was raised again makes the other no news."""
    one, other = watch.raised("recalibrate", site="a"), watch.raised("recalibrate", site="b")
    answer = answered(watch, one, other)
    watch.seen(raised=[other], quiet=[one], to="2021-10-31")
    for numbers in ([one, other], [other, one]):
        with pytest.raises(ConflictError, match=f"alarm {one} was answered in entry {answer} of"):
            called(home, numbers, *SIGNED, now=NOW)
    assert called(home, [other], *SIGNED, now=NOW).about.number == other


def test_what_was_refused_a_person_may_try_again_and_a_plan_may_not(home, watch):
    watch.plan()
    number = watch.raised("recalibrate")
    answered(watch, number, refused=["a: a shift"], **PLANNED)
    assert called(home, [number], *SIGNED, now=NOW).about.number == number
    with pytest.raises(ConflictError, match=f"alarm {number} was answered"):
        called(home, [number], *UNSIGNED, now=NOW)


def test_the_window_is_the_latest_that_raised_one_of_the_alarms(home, watch):
    numbers = [watch.raised("recalibrate", site="a"), watch.raised("recalibrate", site="b")]
    other = watch.raised("recalibrate", site="c")
    watch.seen(raised=[numbers[0]], to="2021-10-31")
    watch.seen(raised=[other], quiet=numbers, to="2021-11-30")
    found = called(home, numbers, *SIGNED, now=NOW)
    assert found.window == {"from": "2021-10-01", "to": "2021-10-31"}


def test_on_an_alarm_that_came_to_rest_only_a_person_acts(home, watch):
    watch.plan()
    number = watch.raised("withdraw")
    watch.seen(quiet=[number], to="2021-10-31")
    with pytest.raises(ConflictError, match=f"alarm {number} was not raised again from 2021-10-01 on"):
        called(home, [number], *UNSIGNED, now=NOW)
    assert called(home, [number], *SIGNED, now=NOW).action == "withdraw"
    watch.seen(raised=[number], to="2021-11-30")
    assert called(home, [number], *UNSIGNED, now=NOW).action == "withdraw"


def test_a_year_that_is_used_up_leaves_the_rest_to_people(home, watch):
    """The plan acted twice: once to the end, and once in a process that was ended before it answered."""
    watch.plan()
    number = watch.raised("recalibrate")
    learned = watch.append(ledger.RECALIBRATE, {}, version="2", by=OURS)
    answered(watch, number, acts=[learned], **PLANNED)
    answered(watch, number)  # a person's
    watch.seen(raised=[number], to="2021-10-31")
    assert called(home, [number], *UNSIGNED, now=NOW).plan

    for act in (ledger.RECALIBRATE, "promote to challenger"):
        watch.append(act, {}, version="3", by=OURS)
    point(home, "3", "challenger")
    with pytest.raises(GateRefusedError, match="recalibrate of ed_admission: 2 within a year"):
        called(home, [number], *UNSIGNED, now=NOW)
    assert called(home, [number], *SIGNED, now=NOW).plan is None
    assert called(home, [watch.raised("withdraw")], *UNSIGNED, now=NOW).plan


@pytest.mark.parametrize(
    ("by", "pointed"),
    [
        ("Dr Wu", "2"),
        ("change control board", "2"),  # people, whatever they are called
        (OURS, "1"),  # the pointer was moved by hand since
        (None, "2"),  # and here nothing was ever written down
    ],
)
def test_a_challenger_that_no_plan_placed_is_not_replaced_without_a_person(home, watch, by, pointed):
    watch.plan()
    number = watch.raised("recalibrate")
    if by:
        watch.append("promote to challenger", {}, version="2", by=by)
    point(home, pointed, "challenger")
    with pytest.raises(GateRefusedError, match=f"version {pointed} is challenger, and not by change"):
        called(home, [number], *UNSIGNED, now=NOW)
    assert called(home, [number], *SIGNED, now=NOW).action == "recalibrate"


def test_a_challenger_that_a_plan_placed_is_replaced(home, watch):
    watch.plan()
    number = watch.raised("recalibrate")
    watch.append("promote to challenger", {}, version="2", by=OURS)
    point(home, "2", "challenger")
    assert called(home, [number], *UNSIGNED, now=NOW).plan
