"""What stands after some entries of the ledger, by hand."""

import pytest

from data.errors import NotFoundError
from models import alarms, ledger
from models.ledger import Entry

ALARM = {"what": "calibration", "column": None, "site": "a", "group": None, "response": "recalibrate"}


def entry(number, act, evidence, *, by="caremodels monitor", version="3"):
    return Entry(
        number=number,
        at=f"2021-0{number}-01T00:00:00+00:00",
        act=act,
        model="m",
        version=version,
        by=by,
        reason=f"because {number}",
        evidence=evidence,
    )


def opened(number, *, alarm=ALARM, to="2021-03-31", **more):
    window = {"from": "2021-03-01", "to": to}
    evidence = {"pointer": "champion", "alarm": alarm, "window": window}
    return entry(number, ledger.ALARM_OPENED, evidence, **more)


def seen(number, *, raised=(), quiet=(), to):
    window = {"from": to[:8] + "01", "to": to}
    evidence = {"window": window, "raised": list(raised), "quiet": list(quiet)}
    return entry(number, ledger.ALARM_SEEN, evidence)


def test_without_entries_nothing_stands():
    assert alarms.standing([]) == {}
    promoted = entry(1, "promote to champion", {"gate": []})
    assert alarms.standing([promoted]) == {}


def test_an_alarm_is_open_until_somebody_says_otherwise():
    book = [
        opened(1),
        entry(2, ledger.ALARM_ACKNOWLEDGED, {"alarm": 1}, by="Dr Wu"),
        entry(3, ledger.ALARM_CLOSED, {"alarm": 1}, by="Dr Chen"),
    ]
    states = [alarms.standing(book[:end])[1].state for end in (1, 2, 3)]
    assert states == ["open", "acknowledged", "closed"]
    found = alarms.standing(book)[1]
    assert (found.acknowledged.by, found.acknowledged.reason) == ("Dr Wu", "because 2")
    assert (found.closed.by, found.closed.at) == ("Dr Chen", "2021-03-01T00:00:00+00:00")


def test_it_goes_on_comes_to_rest_and_begins_again():
    book = [
        opened(1),
        seen(2, raised=[1], to="2021-04-30"),
        seen(3, quiet=[1], to="2021-05-31"),
        seen(4, quiet=[1], to="2021-06-30"),
        seen(5, raised=[1], to="2021-07-31"),
    ]
    told = [
        (one.seen_to, one.quiet_from) for one in (alarms.standing(book[:end])[1] for end in range(1, 6))
    ]
    assert told == [
        ("2021-03-31", None),
        ("2021-04-30", None),
        ("2021-04-30", "2021-05-01"),
        ("2021-04-30", "2021-05-01"),
        ("2021-07-31", None),
    ]


def test_of_one_condition_the_latest_counts():
    book = [opened(1), entry(2, ledger.ALARM_CLOSED, {"alarm": 1}), opened(3, to="2021-05-31")]
    found = alarms.standing(book)
    assert list(found) == [1, 3]
    (latest,) = alarms.latest(found).values()
    assert latest.number == 3


@pytest.mark.parametrize(
    "other",
    [
        opened(2, version="4"),
        opened(2, alarm={**ALARM, "site": "b"}),
        opened(2, alarm={**ALARM, "group": "sex: male"}),
    ],
)
def test_another_version_site_or_group_is_another_condition(other):
    assert len(alarms.latest(alarms.standing([opened(1), other]))) == 2


def test_what_was_done_about_it_is_told():
    book = [opened(1), entry(2, ledger.ALARM_ANSWERED, {"alarms": [1]})]
    assert alarms.standing(book)[1].answered == (2,)


def test_a_number_that_opened_no_alarm_is_not_found():
    found = alarms.standing([opened(1)])
    assert alarms.named(found, 1).number == 1
    with pytest.raises(NotFoundError, match="no alarm has the number 2; known: 1"):
        alarms.named(found, 2)
    with pytest.raises(NotFoundError, match="known: none"):
        alarms.named({}, 2)


def test_no_act_on_an_alarm_moves_a_pointer():
    promoted = entry(1, "promote to champion", {})
    book = [
        promoted,
        opened(2),
        seen(3, raised=[2], to="2021-04-30"),
        entry(4, ledger.ALARM_ACKNOWLEDGED, {"alarm": 2}),
        entry(5, ledger.ALARM_ANSWERED, {"alarms": [2]}),
        entry(6, ledger.ALARM_CLOSED, {"alarm": 2}),
    ]
    assert ledger.standing(book, "m").present == promoted
    assert {one.act for one in book[1:]} < ledger.POINTS_NOWHERE
