"""A series: its last row is scored in the light of the hours before it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from data.contract import check
from data.errors import ContractError
from data.pseudonym import keyed_hash
from models.feature import show_cell
from models.series import SERIES
from models.spec import Support
from serving.answers import Refused, Scored
from serving.problems import refusal
from serving.reading import RISES
from serving.schema import read_predict
from serving.scorer import Receipt, Scorer

KEY = b"0123456789abcdef"
CANARY = "ZQ-canary-7411"


@pytest.fixture
def scorer(sepsis) -> Scorer:
    return Scorer(artifact=sepsis, version="1", key=KEY)


def hour(number: int, **values) -> dict:
    return {"icu_hour": number, "age": 64, "sex": "male", **values}


@pytest.fixture
def course() -> list[dict]:
    """Ten hours of one stay, of which one is missing."""
    lactate = {2: 1.1, 5: 2.4, 9: 4.8}
    measured = ({"lactate": lactate[n]} if n in lactate else {} for n in range(1, 12))
    whole = [hour(n, heart_rate=80 + 3 * n, sbp=130 - 4 * n) | next(measured) for n in range(1, 12)]
    return [row for row in whole if row["icu_hour"] != 7]


def ask(scorer: Scorer, rows, context=None, **more):
    context = {"series_id": "S-1"} if context is None else context
    body = json.dumps({"instances": rows, "context": [context], **more}).encode()
    return scorer.predict(read_predict(body, series=True), Receipt.now())


def one(scorer: Scorer, rows, **more):
    [prediction] = ask(scorer, rows, **more).predictions
    return prediction


def said(answer: Scored):
    """Everything but the answer's name."""
    return msgspec.to_builtins(answer) | {"prediction_id": None}


def test_the_last_row_alone_is_answered(scorer, course):
    answer = one(scorer, course)
    assert isinstance(answer, Scored)
    values = {c.feature: c.value for c in answer.explanation.contributions}
    assert (values["icu_hour"], values["heart_rate"], values["lactate"]) == (11, 113, 4.8)
    explained = answer.explanation.base_value + sum(
        c.contribution for c in answer.explanation.contributions
    )
    assert 1 / (1 + math.exp(-explained)) == pytest.approx(answer.risk, abs=1e-5)


def test_each_hour_of_many_stays_is_scored_as_in_training_bit_for_bit(scorer, hours):
    table = hours(12, 21)
    own = scorer.artifact.mart.columns
    rows = check(own, table.select([column.name for column in own])).rows
    stay = np.unique(table["stay_id"].to_pylist(), return_inverse=True)[1]
    order = np.lexsort([rows["icu_hour"], stay])
    rows = {name: values[order] for name, values in rows.items()} | {SERIES: stay[order]}
    whole = scorer.artifact.score(rows)
    for i in range(0, len(stay), 3):
        first = int(np.flatnonzero(rows[SERIES] == rows[SERIES][i])[0])
        sent = [{c.name: show_cell(c, rows[c.name][of]) for c in own} for of in range(first, i + 1)]
        answer = one(scorer, sent)
        assert answer.risk == whole.risk[i]
        found = {c.feature: c.contribution for c in answer.explanation.contributions}
        names = [feature.name for feature in scorer.artifact.features.features]
        assert [found[name] for name in names] == whole.contributions[i].tolist()


def test_hours_before_the_lookback_change_nothing(scorer, course):
    recent = [row for row in course if row["icu_hour"] > 11 - scorer.artifact.spec.lookback]
    assert [row["icu_hour"] for row in recent] == [6, 8, 9, 10, 11]
    whole, short = one(scorer, course), one(scorer, recent)
    assert said(whole) == said(short)
    other = [hour(1, heart_rate=200, lactate=12.0), hour(5, sbp=60), *recent]
    assert said(one(scorer, other)) == said(short)
    assert said(one(scorer, recent[3:])) != said(short)  # without the lactate of hour 9


def test_an_hour_that_is_not_sent_is_one_in_which_nothing_was_measured(scorer, course):
    empty = [*course[:6], hour(7), *course[6:]]
    assert one(scorer, empty).risk == one(scorer, course).risk


def test_one_row_needs_no_context(scorer):
    body = json.dumps({"instances": [hour(3, heart_rate=99)]}).encode()
    [answer] = scorer.predict(read_predict(body, series=True), Receipt.now()).predictions
    assert isinstance(answer, Scored)


def at(rows, position: int, **change) -> list[dict]:
    return [row | change if i == position else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("position", "change", "faults"),
    [
        (3, {"heart_rate": 900}, [("heart_rate", "outside 10 to 300 /min", 3)]),
        (0, {"lactate": "high"}, [("lactate", "not a number", 0)]),
        (4, {"temprature": 38}, [("temprature", "unknown field", 4)]),
        (2, {"icu_hour": None}, [("icu_hour", "required", 2)]),
        (2, {"icu_hour": 3.5}, [("icu_hour", "not a whole number", 2)]),
        (2, {"icu_hour": 0}, [("icu_hour", "outside 1 to 100000 h", 2)]),
        (2, {"icu_hour": 2}, [("icu_hour", RISES, 2)]),
        (9, {"icu_hour": 1}, [("icu_hour", RISES, 9)]),
        (2, {"icu_hour": 7}, [("icu_hour", RISES, 3)]),
        (5, {"icu_hour": 99, "sbp": 1}, [("sbp", "outside 10 to 320 mm[Hg]", 5)]),
    ],
)  # fmt: skip
def test_a_bad_row_refuses_the_series_and_is_named(scorer, course, position, change, faults):
    [refused] = ask(scorer, at(course, position, **change)).predictions
    assert isinstance(refused, Refused)
    assert sorted((f.field, f.reason, f.instance) for f in refused.errors) == faults


def test_two_bad_rows_are_both_named(scorer, course):
    rows = at(at(course, 1, sbp=1), 8, age=-1)
    assert [(f.field, f.instance) for f in one(scorer, rows).errors] == [("sbp", 1), ("age", 8)]


def test_a_row_that_is_no_object_is_named(scorer, course):
    assert [(f.field, f.instance) for f in one(scorer, [*course, 7]).errors] == [("instance", 10)]


def test_the_problem_document_names_the_row(scorer, course):
    answered = ask(scorer, at(course, 3, sbp=1))
    assert answered.refused == len(answered.predictions) == 1
    response = refusal(answered.predictions)
    assert response.status_code == 422
    assert json.loads(response.body)["errors"] == [
        {"field": "sbp", "reason": "outside 10 to 320 mm[Hg]", "instance": 3}
    ]


@pytest.mark.parametrize(
    ("request_", "series", "field"),
    [
        ({"instances": [{}, {}]}, True, "context[0].series_id"),
        ({"instances": [{}, {}], "context": [{"site": "x"}]}, True, "context[0].series_id"),
        ({"instances": [{}, {}], "context": [{"series_id": "a"}] * 2}, True, "context"),
        ({"instances": [{}], "context": []}, True, "context"),
        ({"instances": [{}, {}], "context": [{}, {"series_id": "a"}]}, False, "context[1].series_id"),
        ({"instances": [{}, {}], "context": [{"series_id": "a"}]}, False, "context"),
    ],
)
def test_a_request_says_whose_rows_it_sends(request_, series, field):
    with pytest.raises(ContractError) as caught:
        read_predict(json.dumps(request_).encode(), series=series)
    assert [fault.field for fault in caught.value.errors] == [field]


def test_units_are_converted_in_every_row(scorer, course):
    measured = [row | {"sbp": row["sbp"] / 7.500616827} for row in course]
    assert one(scorer, measured, units={"sbp": "kPa"}).risk == pytest.approx(
        one(scorer, course).risk, abs=1e-12
    )


def test_the_site_moves_the_risk_and_the_base_value(scorer, course):
    line = replace(scorer.artifact.calibration, sites={"county-02": 0.75})
    local = replace(scorer, artifact=replace(scorer.artifact, calibration=line))
    known, unknown = (
        one(local, course, context={"series_id": "S-1", "site": site})
        for site in ("county-02", "county-03")
    )
    assert unknown.risk == one(scorer, course).risk
    shift = known.explanation.base_value - unknown.explanation.base_value
    assert shift == pytest.approx(0.75)
    odds = [answer.risk / (1 - answer.risk) for answer in (known, unknown)]
    assert math.log(odds[0] / odds[1]) == pytest.approx(0.75)


def test_the_log_keeps_what_the_explanation_was_made_of(scorer, course):
    answered = ask(scorer, course, {"series_id": CANARY, "site": "county-02"})
    [record] = answered.records
    assert CANARY not in str(record)
    assert record["encounter"] == keyed_hash(KEY, CANARY, kind="encounter")
    inputs = json.loads(record["inputs"])
    assert inputs["icu_hour"] == 11
    before = inputs.pop("series")
    assert [row["icu_hour"] for row in before] == [6, 8, 9, 10]
    again = ask(scorer, [*before, inputs])
    assert said(again.predictions[0]) == said(answered.predictions[0])
    assert again.records[0]["contributions"] == record["contributions"]
    assert again.records[0]["inputs"] == record["inputs"]


def test_an_encounter_is_the_series_where_it_is_given(scorer, course):
    [record] = ask(scorer, course, {"series_id": "S-1", "encounter_id": "E-1"}).records
    assert record["encounter"] == keyed_hash(KEY, "E-1", kind="encounter")


def test_the_log_keeps_of_a_refused_series_each_rule_once_and_no_value(scorer, course):
    rows = [row | {"heart_rate": 7411, CANARY: 1} for row in course]
    [record] = ask(scorer, rows).records
    assert record.get("inputs") is None
    assert json.loads(record["reasons"]) == [
        {"field": "heart_rate", "reason": "outside 10 to 300 /min"},
        {"field": "(unknown)", "reason": "unknown field"},
    ]


def test_a_request_of_a_thousand_rows_is_answered_by_its_last(scorer):
    rows = [hour(number, heart_rate=60 + number % 90) for number in range(1, 1001)]
    assert said(one(scorer, rows)) == said(one(scorer, rows[-6:]))


def test_what_was_measured_within_the_lookback_counts(sepsis):
    spec = replace(sepsis.spec, support=Support(measured=("heart_rate", "lactate"), at_least=1))
    scorer = Scorer(artifact=replace(sepsis, spec=spec), version="1", key=KEY)
    rows = [hour(1, heart_rate=90), *(hour(1 + later) for later in range(1, spec.lookback + 1))]
    # The hour itself is the first of the lookback: the last row but one still sees the heart rate.
    assert isinstance(one(scorer, rows[:-1]), Scored)
    [reason] = one(scorer, rows).reasons
    assert reason.rule == "missing"
