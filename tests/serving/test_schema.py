"""What a body may hold, and that what is said of a bad one never repeats a value."""

from __future__ import annotations

import json

import pytest

from data.errors import CaremodelsError, ContractError, FieldError, TooLargeError
from serving.schema import (
    LONGEST_NAME,
    MOST_INSTANCES,
    MOST_OUTCOMES,
    read_instance,
    read_outcomes,
    read_predict,
)

CANARY = "ZQ-canary-7411"


def faults(body: bytes, read=read_predict) -> list[tuple[str, str]]:
    with pytest.raises(ContractError) as caught:
        read(body)
    assert CANARY not in str(caught.value)
    return [(fault.field, fault.reason) for fault in caught.value.errors]


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (b"null", "body", "Expected `object`, got `null`"),
        (b"[]", "body", "Expected `object`, got `array`"),
        (b"{}", "instances", "required"),
        (b'{"instances": []}', "instances", "Expected `array` of length >= 1"),
        (b'{"instances": {}}', "instances", "Expected `array`, got `object`"),
        (b'{"instances": [{}], "top": -1}', "top", "Expected `int` >= 0"),
        (b'{"instances": [{}], "top": true}', "top", "Expected `int | null`, got `bool`"),
        (b'{"instances": [{}], "units": {"a": 7}}', "units[...]", "Expected `str`, got `int`"),
        (b'{"instances": [{}], "x": 7}', "x", "unknown field"),
        (b'{"instances": [{}], "a`b - at `$.c": 7}', "a`b - at `$.c", "unknown field"),
        (b'{"instances": [{}], "context": [{"x": 7}]}', "context[0].x", "unknown field"),
        (b'{"instances": [{}], "context": []}', "context", "one entry an instance, in their order"),
        (b'{"instances": [{}], "instances": [{}]}', "instances", "stands twice in one object"),
        (b'{"instances": [{"sbp": 88, "sbp": 188}]}', "sbp", "stands twice in one object"),
    ],
)
def test_a_request_that_does_not_fit_is_told_field_and_rule(body, field, reason):
    assert faults(body) == [(field, reason)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
        b'{"instances": [{"age": NaN}]}',
        b'{"instances": [{"age": Infinity}]}',
        b'{"instances": [{"age": 071}]}',
        b'{"instances": [{"sex": "\xff"}]}',
        b'{"instances": [{"sex": "\xed\xa0\x80"}]}',
        b'{"instances": [{"sex": "\\ud800"}]}',
        b'{"instances": [{"sex": "a\nb"}]}',
        b'{"instances": [{"age": 71}]} trailing',
        b'{"instances": [{"age": 71',
        '{"instances": [{"age": 71}]}'.encode("utf-16"),
        b'{"instances": [{"age": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    ],
    ids=range(14),
)
def test_what_is_not_json_is_told_so(body):
    assert faults(body) == [("body", "not valid JSON")]


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"at": f"{CANARY}"}, "context[0].at"),
        ({"at": "2026-11-23T08:15:00"}, "context[0].at"),  # no zone
        ({"at": 1_700_000_000}, "context[0].at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "context[0]"),  # year 0 in UTC
        ({"at": "9999-12-31T23:59:59-14:00"}, "context[0]"),
        ({"site": ""}, "context[0].site"),
        ({"patient_id": CANARY * 20}, "context[0].patient_id"),
        ({"encounter_id": 7411}, "context[0].encounter_id"),
        ({"groups": {"ethnicity": 7411}}, "context[0].groups[...]"),
        ({"groups": {CANARY * 20: "x"}}, "context[0].groups"),
        ({"groups": [CANARY]}, "context[0].groups"),
    ],
)
def test_a_context_is_held_to_its_types(context, field):
    body = json.dumps({"instances": [{}], "context": [context]}).encode()
    [(named, rule)] = faults(body)
    assert named == field
    assert CANARY not in rule
    assert "7411" not in rule


def test_a_null_context_and_nulls_in_it_are_no_context():
    request = read_predict(b'{"instances": [{}], "context": [{"site": null, "at": null}], "top": null}')
    assert request.context is not None
    assert request.context[0].site is None


def test_the_name_of_an_unknown_field_is_said_back_cut_short():
    [(field, _)] = faults(b'{"instances": [{}], "' + b"x" * 1_000_000 + b'": 1}')
    assert len(field) == LONGEST_NAME


def test_too_many_instances_or_outcomes_are_too_large():
    assert len(read_predict(b'{"instances": [' + b"{}," * 999 + b"{}]}").instances) == MOST_INSTANCES
    with pytest.raises(TooLargeError):
        read_predict(b'{"instances": [' + b"{}," * 1000 + b"{}]}")
    item = b'{"outcome": 1, "observed_at": "2026-01-01T00:00:00Z", "prediction_id": "x"}'
    with pytest.raises(TooLargeError):
        read_outcomes(b"[" + (item + b",") * MOST_OUTCOMES + item + b"]")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"7", "not an object"),
        (b"null", "not an object"),
        (b'"text"', "not an object"),
        (b"[{}]", "not an object"),
        (b'{"age": 1e999}', "a number too large for any use"),
        (b'{"age": 1' + b"0" * 5_000 + b"}", "a number too large for any use"),
    ],
)
def test_an_instance_that_cannot_be_read_is_at_fault_alone(raw, reason):
    bad, good = read_predict(b'{"instances": [' + raw + b', {"age": 71}]}').instances
    assert read_instance(bad) == FieldError(field="instance", reason=reason)
    assert read_instance(good) == {"age": 71}


def outcome(**changes) -> bytes:
    item = {"prediction_id": "p", "outcome": 1, "observed_at": "2026-01-01T00:00:00Z"} | changes
    return json.dumps([{name: value for name, value in item.items() if value is not None}]).encode()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"outcome": 2}, "[0].outcome"),
        ({"outcome": True}, "[0].outcome"),
        ({"outcome": "1"}, "[0].outcome"),
        ({"outcome": 0.5}, "[0].outcome"),
        ({"observed_at": "2026-01-01"}, "[0].observed_at"),
        ({"observed_at": "0001-01-01T00:00:00+14:00"}, "[0]"),
        ({"prediction_id": None}, "[0]"),
        ({"prediction_id": None, "model": "ed_admission"}, "[0]"),
        ({"prediction_id": None, "encounter_id": CANARY}, "[0]"),
        ({"prediction_id": CANARY * 20}, "[0].prediction_id"),
        ({"patient": 7411}, "[0].patient"),
    ],
)
def test_an_outcome_is_held_to_its_types(changes, field):
    [(named, rule)] = faults(outcome(**changes), read_outcomes)
    assert named == field
    assert "7411" not in rule


def test_an_outcome_names_a_prediction_or_an_encounter():
    [item] = read_outcomes(outcome(prediction_id=None, model="ed_admission", encounter_id="E-1"))
    assert (item.prediction_id, item.encounter_id) == (None, "E-1")
    assert read_outcomes(b"[]") == []


def test_every_error_is_one_of_ours():
    for body in (b"\x00", b"{" * 50_000, b"\xff" * 10, b'"' * 3, b"-", b"1e5", b"tru"):
        with pytest.raises(CaremodelsError):
            read_predict(body)


def test_null_is_nothing_wherever_a_field_may_be_left_out():
    body = b'{"instances": [{}], "context": [{"groups": {"a": null}}], "units": null, "top": null}'
    request = read_predict(body)
    assert (request.units, request.top) == (None, None)
    assert request.context[0].groups == {"a": None}
    assert read_predict(b'{"instances": [{}], "context": [{"groups": null}]}').context[0].groups is None
