"""Alarms over the windows of a year, in a real ledger with anchors in real folders."""

import threading

import msgspec
import pytest

from data.errors import ConflictError, IntegrityError, NotFoundError, UsageError
from data.home import Home
from data.pseudonym import load_key
from models import ledger
from monitoring import states

MODEL = "ed_admission"
MARCH = {"from": "2021-03-01", "to": "2021-03-31"}
APRIL = {"from": "2021-04-01", "to": "2021-04-30"}
MAY = {"from": "2021-05-01", "to": "2021-05-31"}
SIGNED = {"by": "Dr Chen", "reason": "a new ward"}


def alarm(what="calibration", **place):
    return {
        "what": what,
        "column": None,
        "site": None,
        "group": None,
        "message": f"{what} is off",
        "value": 1.4,
        "limits": [0.8, 1.25],
        "since": None,
        "response": "recalibrate",
        **place,
    }


@pytest.fixture
def home(tmp_path):
    """With a release of the model, and one of another."""
    for name in (f"{MODEL}/3", "sepsis/1"):
        folder = tmp_path / "home" / "releases" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return Home(tmp_path / "home")


def record(home, window, *alarms, version="3", pointer="champion", **more):
    return states.record(home, MODEL, version, pointer, alarms, window, **more)


def numbers(found):
    return [(one["number"], one["state"]) for one in found]


def entries(home):
    return ledger.verify(home.ledger, load_key(home.path))


def acts(home):
    return [entry.act for entry in entries(home)]


def test_an_alarm_is_opened_with_what_was_seen_and_anchored(home):
    (told,) = record(home, MARCH, alarm(site="county-01"))

    assert (told["number"], told["state"], told["acknowledged"], told["closed"]) == (
        1,
        "open",
        None,
        None,
    )
    assert told["site"] == "county-01"
    (entry,) = entries(home)
    assert (entry.act, entry.model, entry.version) == ("alarm opened", MODEL, "3")
    assert (entry.by, entry.reason) == ("caremodels monitor", "calibration is off")
    assert entry.evidence == {
        "pointer": "champion",
        "alarm": alarm(site="county-01"),
        "window": MARCH,
    }
    anchored = home.releases / MODEL / "3" / "ledger.json"
    assert msgspec.json.decode(anchored.read_bytes()) == {"number": 1, "mac": entry.mac}
    assert not (home.releases / "sepsis" / "1" / "ledger.json").exists()


def test_a_window_that_is_judged_again_opens_nothing_again(home):
    first = record(home, MARCH, alarm(), alarm("slope"))
    before = home.ledger.read_bytes()
    assert record(home, MARCH, alarm(), alarm("slope")) == first
    assert home.ledger.read_bytes() == before


def test_what_goes_on_in_later_windows_is_the_same_alarm(home):
    record(home, MARCH, alarm())
    assert numbers(record(home, APRIL, alarm())) == [(1, "open")]
    assert acts(home) == ["alarm opened", "alarms seen"]
    record(home, APRIL, alarm())
    assert len(entries(home)) == 2


def test_an_earlier_window_that_is_judged_later_changes_nothing(home):
    record(home, MAY, alarm())
    assert numbers(record(home, MARCH, alarm())) == [(1, "open")]
    record(home, APRIL)
    assert acts(home) == ["alarm opened"]


def test_what_is_not_raised_any_more_is_said_once_and_stays_open(home):
    record(home, MARCH, alarm())
    record(home, APRIL)
    record(home, MAY)
    assert acts(home) == ["alarm opened", "alarms seen"]
    (one,) = states.listed(home)
    assert (one.state, one.seen_to, one.quiet_from) == ("open", "2021-03-31", "2021-04-01")


def test_a_window_too_small_to_judge_calls_nothing_quiet(home):
    record(home, MARCH, alarm())
    record(home, APRIL, alarm("silence"), judged=False)
    assert [one.quiet_from for one in states.listed(home)] == [None, None]


def test_a_closed_alarm_opens_again_only_in_a_later_window(home):
    record(home, MARCH, alarm())
    record(home, APRIL, alarm())
    states.close(home, 1, **SIGNED)
    for window in (MARCH, APRIL):
        (told,) = record(home, window, alarm())
        assert (told["number"], told["state"]) == (1, "closed")
        assert told["closed"]["by"] == "Dr Chen"
    (again,) = record(home, MAY, alarm())
    assert (again["number"], again["state"]) == (4, "open")
    assert acts(home) == ["alarm opened", "alarms seen", "alarm closed", "alarm opened"]


def test_an_acknowledged_alarm_stays_acknowledged(home):
    record(home, MARCH, alarm())
    states.acknowledge(home, 1, **SIGNED)
    (told,) = record(home, APRIL, alarm())
    assert (told["number"], told["state"]) == (1, "acknowledged")
    assert told["acknowledged"]["reason"] == "a new ward"


@pytest.mark.parametrize(
    "other", [{"version": "4"}, {"pointer": "challenger"}], ids=["version", "pointer"]
)
def test_another_version_or_pointer_has_its_own_alarms(home, other):
    record(home, MARCH, alarm())
    assert numbers(record(home, MARCH, alarm(), **other)) == [(2, "open")]
    record(home, APRIL, alarm())
    assert [one.quiet_from for one in states.listed(home)] == [None, None]


def test_a_quiet_home_writes_no_ledger_and_makes_no_key(tmp_path):
    home = Home(tmp_path / "home")
    assert record(home, MARCH) == []
    assert states.listed(home) == []
    with pytest.raises(NotFoundError, match="no alarm has the number 1"):
        states.close(home, 1, **SIGNED)
    assert not home.path.exists()


def test_a_window_without_an_end_ends_today(home):
    record(home, {"from": "2021-03-01", "to": "9998-12-31"}, alarm())
    (one,) = states.listed(home)
    assert one.seen_to < "9000"


def test_a_ledger_that_was_tampered_with_is_not_written_to(home):
    record(home, MARCH, alarm())
    broken = home.ledger.read_bytes().replace(b"calibration is off", b"calibration is fit")
    home.ledger.write_bytes(broken)
    with pytest.raises(IntegrityError, match="ledger: entry 1"):
        record(home, APRIL, alarm("slope"))
    assert home.ledger.read_bytes() == broken
    (told,) = states.unrecorded([alarm("slope")])
    assert (told["number"], told["state"], told["what"]) == (None, "open", "slope")


def test_a_cut_tail_shows_by_the_anchor_of_an_alarm(home):
    record(home, MARCH, alarm(), alarm("slope"))
    home.ledger.write_bytes(home.ledger.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(IntegrityError, match="entries were removed"):
        record(home, APRIL)


def test_acts_are_signed_and_anchored(home):
    record(home, MARCH, alarm(site="county-01"))
    states.acknowledge(home, 1, **SIGNED)
    entry = entries(home)[-1]
    assert (entry.act, entry.by, entry.reason) == ("alarm acknowledged", "Dr Chen", "a new ward")
    assert entry.evidence == {
        "alarm": 1,
        "pointer": "champion",
        "what": "calibration, at county-01",
    }
    assert ledger.anchors(home.releases)[0].number == 2
    with pytest.raises(UsageError, match="--by"):
        states.close(home, 1, by=" ", reason="x")


def test_nothing_is_acknowledged_or_closed_twice(home):
    record(home, MARCH, alarm())
    states.acknowledge(home, 1, **SIGNED)
    with pytest.raises(ConflictError, match=r"alarm 1 \(calibration\) was acknowledged by Dr Chen"):
        states.acknowledge(home, 1, by="Dr Wu", reason="x")
    assert states.close(home, 1, by="Dr Wu", reason="x").state == "closed"
    for act in (states.acknowledge, states.close):
        with pytest.raises(ConflictError, match="was closed by Dr Wu"):
            act(home, 1, **SIGNED)
    with pytest.raises(NotFoundError, match="no alarm has the number 2; known: 1"):
        states.close(home, 2, **SIGNED)


def test_the_list_leaves_out_what_is_closed_and_other_models(home):
    record(home, MARCH, alarm(), alarm("slope"))
    states.close(home, 1, **SIGNED)
    assert [one.number for one in states.listed(home)] == [2]
    assert [one.number for one in states.listed(home, closed=True)] == [1, 2]
    assert states.listed(home, model="sepsis") == []


def test_several_processes_open_an_alarm_once(home):
    threads = [threading.Thread(target=record, args=(home, MARCH, alarm())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert acts(home) == ["alarm opened"]
