"""A signal is an alarm where the spec declares its kind, and one condition is one alarm."""

from dataclasses import replace

import pytest

from models import catalog
from models.watch import Alarm, Watch
from monitoring.alarms import raised, where
from monitoring.signal import Signal

SPEC = catalog.load("ed_admission")


def watching(*alarms):
    return replace(SPEC, watch=Watch(alarms=alarms))


def test_an_alarm_tells_what_where_and_the_declared_response():
    signal = Signal(
        what="calibration",
        message="At county-01 more are admitted than predicted",
        site="county-01",
        value=1.4,
        limits=(0.8, 1.25),
        since="2021-03-01",
    )
    assert raised([signal], SPEC) == [
        {
            "what": "calibration",
            "column": None,
            "site": "county-01",
            "group": None,
            "message": "At county-01 more are admitted than predicted",
            "value": 1.4,
            "limits": [0.8, 1.25],
            "since": "2021-03-01",
            "response": "recalibrate",
        }
    ]


def test_a_kind_that_is_not_declared_is_no_alarm():
    spec = watching(Alarm(what="silence", response="watch"))
    signals = [Signal(what="calibration", message="m"), Signal(what="silence", message="m")]
    assert [alarm["what"] for alarm in raised(signals, spec)] == ["silence"]
    assert raised(signals, watching()) == []


@pytest.mark.parametrize("name", ["column", "site", "group"])
def test_another_place_is_another_alarm(name):
    signals = [Signal(what="subgroup", message="m", **{name: place}) for place in ("a", "b", None)]
    assert [alarm[name] for alarm in raised(signals, SPEC)] == ["a", "b", None]


def test_two_signals_of_one_condition_are_one_alarm_since_the_earlier():
    signals = [
        Signal(what="slope", message="too flat", value=0.6, since="2021-03-05"),
        Signal(what="slope", message="too flat", value=0.7),
        Signal(what="slope", message="and falling", value=0.8, since="2021-03-01"),
    ]
    (alarm,) = raised(signals, SPEC)
    assert alarm["message"] == "too flat; and falling"
    assert (alarm["value"], alarm["since"]) == (0.6, "2021-03-01")


def test_alarms_stand_in_the_order_of_the_declaration():
    kinds = [alarm.what for alarm in SPEC.watch.alarms]
    signals = [Signal(what=what, message="m") for what in reversed(kinds)]
    assert [alarm["what"] for alarm in raised(signals, SPEC)] == kinds


def test_a_figure_that_is_none_is_null():
    signal = Signal(what="slope", message="m", value=float("nan"), limits=(0.8, float("inf")))
    (alarm,) = raised([signal], SPEC)
    assert (alarm["value"], alarm["limits"]) == (None, [0.8, None])


def test_a_place_in_words():
    assert where({"what": "subgroup", "group": "sex: female", "column": None, "site": None}) == (
        "subgroup, sex: female"
    )
