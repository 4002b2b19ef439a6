"""Answers and records, without a server."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.contract import check, sample
from data.errors import ContractError
from data.pseudonym import keyed_hash
from models.feature import show_cell
from serving.answers import Abstained, Refused, Scored
from serving.reading import MOST_UNKNOWN
from serving.schema import read_predict
from serving.scorer import UNKNOWN, Receipt, Scorer

CANARY = "ZQ-canary-7411"


def ask(scorer: Scorer, *instances, **more):
    body = json.dumps({"instances": list(instances), **more}).encode()
    return scorer.predict(read_predict(body), Receipt.now())


def faults(scorer: Scorer, instance) -> list[tuple[str, str]]:
    [refused] = ask(scorer, instance).predictions
    assert isinstance(refused, Refused)
    return [(fault.field, fault.reason) for fault in refused.errors]


def risk_of(answer: Scored) -> float:
    """The risk that the explanation alone gives."""
    said = answer.explanation
    log_odds = said.base_value + sum(c.contribution for c in said.contributions) + said.other
    return 1 / (1 + math.exp(-log_odds))


@pytest.fixture
def instances(tiny) -> list[dict]:
    """Rows that belong to nobody, all adults, with gaps."""
    rows = check(tiny.mart.columns, sample(tiny.mart, 60, seed=9)).rows
    rows["age"] = np.maximum(rows["age"], 18)
    return [{c.name: show_cell(c, rows[c.name][i]) for c in tiny.mart.columns} for i in range(60)]


@pytest.fixture
def sample_and_risk(tiny, instances):
    return instances, tiny.risk(check(tiny.mart.columns, instances).rows)


@pytest.mark.parametrize("top", [None, 0, 1, 5, 1000])
def test_every_explanation_adds_up_whatever_is_listed(undemanding, instances, tiny, top):
    for answer in ask(undemanding, *instances, top=top).predictions:
        assert isinstance(answer, Scored)
        assert risk_of(answer) == pytest.approx(answer.risk, abs=1e-5)
        listed = len(tiny.features.features) if top is None else min(top, len(tiny.features.features))
        assert len(answer.explanation.contributions) == listed
        sizes = [abs(c.contribution) for c in answer.explanation.contributions]
        assert sizes == sorted(sizes, reverse=True)


def test_other_is_the_sum_of_what_is_not_listed(scorer, visit):
    [whole] = ask(scorer, visit).predictions
    [short] = ask(scorer, visit, top=3).predictions
    rest = [c.contribution for c in whole.explanation.contributions[3:]]
    assert whole.explanation.other == 0
    assert short.explanation.other == pytest.approx(math.fsum(rest), abs=1e-12)
    assert short.explanation.contributions == whole.explanation.contributions[:3]


def test_a_batch_is_its_rows_one_by_one_bit_for_bit(undemanding, sample_and_risk):
    instances, risk = sample_and_risk
    batch = ask(undemanding, *instances).predictions
    single = [ask(undemanding, instance).predictions[0] for instance in instances]
    assert [a.risk for a in batch] == [a.risk for a in single] == risk.tolist()
    assert [a.explanation for a in batch] == [a.explanation for a in single]
    sent = msgspec.json.decode(msgspec.json.encode(batch))
    assert [a["risk"] for a in sent] == risk.tolist()


def test_the_order_of_the_fields_is_irrelevant(scorer, visit):
    [one] = ask(scorer, visit).predictions
    [other] = ask(scorer, dict(reversed(visit.items()))).predictions
    assert one.risk == other.risk


def test_absent_and_null_both_mean_not_measured(scorer, visit):
    [absent] = ask(scorer, {k: v for k, v in visit.items() if k != "spo2"}).predictions
    [null] = ask(scorer, visit | {"spo2": None}).predictions
    assert absent.risk == null.risk
    assert ("spo2", "missing") in [(w.field, w.reason) for w in null.warnings]


def test_each_instance_has_its_own_fate_in_its_own_place(scorer, visit):
    asked = [visit, visit | {"age": 17}, visit | {"sbp": 888}, 7, visit | {"x": 1}, visit]
    answered = ask(scorer, *asked)
    kinds = [type(p) for p in answered.predictions]
    assert kinds == [Scored, Abstained, Refused, Refused, Refused, Scored]
    assert answered.refused == 3
    first, child, *_, last = answered.predictions
    assert first.risk == last.risk
    assert [(r.field, r.reason, r.reason_zh) for r in child.reasons] == [
        ("age", "under 18 years", "未满18岁")
    ]
    assert [r["status"] for r in answered.records] == [
        "scored", "abstained", "refused", "refused", "refused", "scored",
    ]  # fmt: skip
    assert [r.get("risk") for r in answered.records] == [first.risk, *[None] * 4, first.risk]
    assert len({r["prediction_id"] for r in answered.records}) == 6


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"temperature": 98.6}, ("temperature", "outside 25 to 45 Cel")),
        ({"temperature": "38"}, ("temperature", "not a number")),
        ({"temperature": True}, ("temperature", "not a number")),
        ({"temperature": [38]}, ("temperature", "not a number")),
        ({"temperature": {"value": 38}}, ("temperature", "not a number")),
        ({"heart_rate": 10**400}, ("heart_rate", "not a number")),
        ({"heart_rate": -(10**30)}, ("heart_rate", "outside 20 to 300 /min")),
        ({"heart_rate": 1e308}, ("heart_rate", "outside 20 to 300 /min")),
        ({"pain": 3.5}, ("pain", "not a whole number")),
        ({"age": None}, ("age", "required")),
        ({"age": -1}, ("age", "outside 0 to 120 a")),
        ({"ambulance": 2}, ("ambulance", "not a flag")),
        ({"ambulance": 10**400}, ("ambulance", "not a flag")),
        ({"ambulance": "true"}, ("ambulance", "not a flag")),
        ({"sex": "Female"}, ("sex", "not an allowed value")),
        ({"sex": ""}, ("sex", "not an allowed value")),
        ({"sex": 1}, ("sex", "not an allowed value")),
        ({"sex": "female\u0000"}, ("sex", "not an allowed value")),
        ({"体温": 38}, ("体温", "unknown field")),
        ({"race": "x"}, ("race", "unknown field")),
        ({"disposition": "admitted"}, ("disposition", "unknown field")),
        ({"": 1}, ("", "unknown field")),
    ],
)
def test_a_bad_value_is_refused_with_field_and_rule(scorer, visit, change, fault):
    assert faults(scorer, visit | change) == [fault]


def test_negative_zero_is_zero(scorer, visit):
    [minus] = ask(scorer, visit | {"pain": -0.0}).predictions
    [zero] = ask(scorer, visit | {"pain": 0}).predictions
    assert minus.risk == zero.risk


def test_unknown_fields_are_named_up_to_a_number(scorer, visit):
    strangers = {f"x{i:04}": 1 for i in range(1000)}
    found = faults(scorer, visit | strangers)
    assert len(found) == MOST_UNKNOWN + 1
    assert found[-1] == ("instance", "980 more unknown fields")


def test_unknown_fields_do_not_hide_other_faults(scorer, visit):
    assert faults(scorer, visit | {"x": 1, "sbp": 888}) == [
        ("sbp", "outside 30 to 300 mm[Hg]"),
        ("x", "unknown field"),
    ]


def test_units_are_converted(scorer, visit):
    plain = visit | {"temperature": 38, "sbp": 90.007401924}
    [want] = ask(scorer, plain).predictions
    [got] = ask(
        scorer,
        visit | {"temperature": 100.4, "sbp": 12},
        units={"temperature": "[degF]", "sbp": "kPa"},
    ).predictions
    assert got.risk == want.risk
    shown = {c.feature: (c.value, c.unit) for c in got.explanation.contributions}
    assert shown["temperature"] == (pytest.approx(38, abs=1e-9), "Cel")


def test_a_unit_without_its_number_changes_nothing(scorer, visit):
    [plain] = ask(scorer, visit | {"temperature": None}).predictions
    [given] = ask(scorer, visit | {"temperature": None}, units={"temperature": "[degF]"}).predictions
    assert given.risk == plain.risk


@pytest.mark.parametrize("value", ["98.6", True, [98.6], {}])
def test_a_unit_makes_no_number_of_what_is_none(scorer, visit, value):
    [answer] = ask(scorer, visit | {"temperature": value}, units={"temperature": "[degF]"}).predictions
    assert [f.reason for f in answer.errors] == ["not a number"]


@pytest.mark.parametrize(
    ("value", "reason"), [(10**400, "not a number"), (1e308, "not a number"), (999, "outside")]
)
def test_a_huge_number_in_another_unit_is_refused(scorer, visit, value, reason):
    [answer] = ask(scorer, visit | {"sbp": value}, units={"sbp": "kPa"}).predictions
    assert [fault.reason[: len(reason)] for fault in answer.errors] == [reason]


@pytest.mark.parametrize(
    ("units", "fault"),
    [
        ({"temperature": "kPa"}, ("units.temperature", "cannot be converted to Cel")),
        ({"temperature": CANARY}, ("units.temperature", "cannot be converted to Cel")),
        ({"sex": "[degF]"}, ("units.sex", "has no unit")),
        ({"nothing": "Cel"}, ("units.nothing", "unknown field")),
    ],
)
def test_a_unit_that_cannot_be_fails_the_request(scorer, visit, units, fault):
    with pytest.raises(ContractError) as caught:
        ask(scorer, visit, units=units)
    assert [(e.field, e.reason) for e in caught.value.errors] == [fault]


def test_the_record_holds_hashes_and_no_names(scorer, visit):
    context = {
        "patient_id": "MRN-1",
        "encounter_id": "E-1",
        "site": "county-03",
        "at": "2026-11-23T08:15:00+08:00",
        "groups": {"ethnicity": "x"},
    }
    answered = ask(scorer, visit, context=[context])
    [record] = answered.records
    assert record["patient"] == keyed_hash(scorer.key, "MRN-1", kind="patient")
    assert record["encounter"] == keyed_hash(scorer.key, "E-1", kind="encounter")
    assert "MRN-1" not in str(record)
    assert record["site"] == "county-03"
    assert record["at"].isoformat() == "2026-11-23T08:15:00+08:00"
    assert json.loads(record["inputs"])["sbp"] == 88
    assert json.loads(record["groups"]) == {"ethnicity": "x"}
    assert record["latency_ms"] > 0
    assert uuid.UUID(record["prediction_id"]).version == 7
    [answer] = answered.predictions
    whole = sum(json.loads(record["contributions"]).values()) + record["base_value"]
    assert whole == pytest.approx(record["margin"], abs=1e-5)
    assert record["risk"] == answer.risk


def test_without_a_context_the_time_of_receipt_counts(scorer, visit):
    [record] = ask(scorer, visit).records
    assert record["at"] == record["received_at"]
    assert record["patient"] is None


def test_latency_is_of_the_whole_request_for_each_instance(scorer, visit):
    body = json.dumps({"instances": [visit] * 3}).encode()
    receipt = replace(Receipt.now(), began=Receipt.now().began - 5.0)
    latencies = {r["latency_ms"] for r in scorer.predict(read_predict(body), receipt).records}
    assert len(latencies) == 1
    assert latencies.pop() >= 5_000


@pytest.mark.parametrize(
    "bad",
    [
        {"sbp": 741174117411},
        {"sbp": CANARY},
        {"sex": CANARY},
        {CANARY: 1},
        {"ambulance": CANARY},
        {"reason_2": CANARY, CANARY: CANARY},
    ],
)
def test_nothing_of_a_refused_instance_is_recorded(scorer, visit, bad):
    [record] = ask(scorer, visit | bad).records
    assert record.get("inputs") is None
    assert "7411" not in str({k: v for k, v in record.items() if k != "prediction_id"})
    reasons = json.loads(record["reasons"])
    assert (CANARY in bad) == (UNKNOWN in [r["field"] for r in reasons])


def test_a_model_that_is_not_for_care_says_so(scorer, tiny):
    assert scorer.notice.en == "Demonstration, not for care."
    assert replace(scorer, artifact=tiny).notice is None


def test_a_site_with_an_intercept_of_its_own_moves_risk_and_base_value(scorer, visit):
    line = replace(scorer.artifact.calibration, sites={"county-03": 0.75})
    local = replace(scorer, artifact=replace(scorer.artifact, calibration=line))
    sites = [{"site": "county-03"}, {"site": "elsewhere"}, {}]
    known, unknown, nowhere = ask(local, visit, visit, visit, context=sites).predictions
    [plain] = ask(scorer, visit).predictions
    assert plain.risk == unknown.risk == nowhere.risk
    assert plain.explanation == unknown.explanation == nowhere.explanation
    assert known.explanation.base_value == pytest.approx(plain.explanation.base_value + 0.75)
    assert known.explanation.contributions == plain.explanation.contributions
    assert risk_of(known) == pytest.approx(known.risk, abs=1e-5)
    assert known.risk > plain.risk
    abstained, shifted = ask(local, visit | {"age": 3}, visit, context=sites[1::-1]).predictions
    assert isinstance(abstained, Abstained)
    assert shifted.risk == known.risk


def test_the_set_is_of_the_outcomes_that_the_risk_does_not_rule_out(undemanding, sample_and_risk):
    instances, risk = sample_and_risk
    rows = check(undemanding.artifact.mart.columns, instances).rows
    sets = undemanding.artifact.sets(rows, np.log(risk / (1 - risk)))
    answers = ask(undemanding, *instances).predictions
    assert [answer.conformal.classes for answer in answers] == [
        tuple(np.flatnonzero(row).tolist()) for row in sets
    ]
    assert {answer.conformal.coverage for answer in answers} == {0.9}
    sent = msgspec.json.decode(msgspec.json.encode(answers[0]))
    assert sent["conformal"] == {"set": list(answers[0].conformal.classes), "coverage": 0.9}


def test_the_novelty_is_the_share_of_training_rows_that_are_less_strange(undemanding, instances, visit):
    rows = check(undemanding.artifact.mart.columns, instances).rows
    answers = ask(undemanding, *instances).predictions
    assert [answer.novelty for answer in answers] == undemanding.artifact.novelty.percentile(
        rows
    ).tolist()
    [usual, odd] = ask(
        undemanding, visit, visit | {"temperature": 25, "sbp": 300, "dbp": 20}
    ).predictions
    assert usual.novelty < 0.99 < odd.novelty <= 1


def test_an_explanation_that_does_not_add_up_is_warned_of(scorer, visit, monkeypatch):
    scores = scorer.artifact.score_matrix

    def skewed(_, *of):
        scored = scores(*of)
        return replace(scored, contributions=scored.contributions + 0.01)

    monkeypatch.setattr(type(scorer.artifact), "score_matrix", skewed)
    answered = ask(scorer, visit)
    assert answered.not_additive == 1
    assert answered.predictions[0].warnings[-1].field == "explanation"
    assert "does not add up" in answered.records[0]["warnings"]


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5).filter(lambda text: text.isprintable()),
    st.lists(st.integers(), max_size=2),
)


@given(data=st.data())
def test_whatever_a_field_holds_it_is_answered_or_refused(demonstration, data):
    names = [column.name for column in demonstration.mart.columns]
    instance = data.draw(st.dictionaries(st.sampled_from(names), CELLS, max_size=8))
    scorer = Scorer(artifact=demonstration, version="1", key=b"0123456789abcdef")
    [answer] = ask(scorer, instance).predictions
    assert isinstance(answer, Scored | Abstained | Refused)
    if isinstance(answer, Scored):
        assert risk_of(answer) == pytest.approx(answer.risk, abs=1e-5)


def test_too_little_measured_or_too_strange_is_no_risk_and_says_why(scorer, visit):
    odd = visit | {"temperature": 44.9, "spo2": 41, "sbp": 31, "dbp": 11}
    answered = ask(scorer, visit, {"age": 50, "sex": "male"}, odd, {"age": 3})
    scored, little, strange, child = answered.predictions
    assert isinstance(scored, Scored)
    assert {reason.rule for reason in little.reasons} == {"missing"}
    assert {reason.rule for reason in strange.reasons} == {"novelty"}
    assert "temperature" in {reason.field for reason in strange.reasons}
    assert {reason.rule for reason in child.reasons} == {"cohort"}
    for record in answered.records[1:]:
        assert record["status"] == "abstained"
        assert record.get("risk") is None
        assert record["inputs"]
    assert answered.records[2]["novelty"] > 0.9999
    assert "novelty" not in answered.records[3]
