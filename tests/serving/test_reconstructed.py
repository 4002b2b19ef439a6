"""What was answered can be told again from the log alone: the same risk and reasons, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from data.errors import IntegrityError, NotEnoughDataError, NotFoundError
from data.log import one
from data.log.append import Entry, LogWriter
from data.log.schema import connect
from data.log.seal import SealedError, load_keyring
from monitoring.explain import page
from monitoring.explain.waterfall import waterfall
from serving.schema import read_predict
from serving.scorer import Receipt, Scorer

KEY = b"0123456789abcdef"
SITE = "county-01"


@pytest.fixture
def logged(home):
    """Answer one request into a log, and find it again."""

    def logged(artifact, rows, **context):
        scorer = Scorer(artifact=artifact, version="7", key=KEY)
        context = {"site": SITE, "at": "2026-05-04T08:15:00Z", **context}
        body = json.dumps({"instances": rows, "context": [context]}).encode()
        asked = read_predict(body, series=scorer.series)
        answered = scorer.predict(asked, Receipt.now())
        engine = connect(home.log)
        with LogWriter(engine, load_keyring(home.path)) as writer:
            writer.submit(Entry(predictions=answered.records)).result()
        found = one.find(engine, answered.predictions[-1].prediction_id, keyring=load_keyring(home.path))
        engine.dispose()
        return answered.predictions[-1], found

    return logged


def hour(number, **values):
    return {"icu_hour": number, "age": 64, "sex": "male", **values}


def same(answer, found):
    """The waterfall is the answer's own explanation."""
    assert found.exact
    assert found.apart == 0
    assert found.risk == answer.risk
    assert found.base_value == answer.explanation.base_value
    told = [(row.feature, row.value, row.contribution) for row in found.reasons]
    assert told == [
        (row.feature, row.value, row.contribution) for row in answer.explanation.contributions
    ]


def test_a_visit_is_told_again(demonstration, logged, visit):
    answer, told = logged(demonstration, [visit])
    found = waterfall(demonstration, told)
    same(answer, found)
    assert (found.site, found.at, found.used) == (SITE, "2026-05-04T08:15:00Z", "answered")
    assert found.band == {"en": answer.band.label.en, "zh": answer.band.label.zh}


def test_a_level_of_triage_is_told_again_with_its_site(triage, logged, visit):
    visit = {name: value for name, value in visit.items() if name != "acuity"}
    answer, told = logged(triage, [visit])
    found = waterfall(triage, told)
    same(answer, found)
    assert found.level == answer.level
    elsewhere = waterfall(triage, replace(told, site="nowhere"))
    assert not elsewhere.exact
    assert elsewhere.apart > 0


def test_the_last_hour_of_a_series_is_told_again(sepsis, logged):
    rows = [hour(n, heart_rate=80 + 3 * n, **({"lactate": 1.0 + n} if n % 3 else {})) for n in (1, 2, 4)]
    answer, told = logged(sepsis, rows, series_id="S-1")
    same(answer, waterfall(sepsis, told))


def test_a_value_stands_beside_the_training_patients(demonstration, logged, visit):
    """By the reference's own counts: the cell of 71 years, and those before it."""
    _, told = logged(demonstration, [visit])
    reasons = {row.feature: row for row in waterfall(demonstration, told).reasons}
    age = next(one for one in demonstration.reference.columns if one.column == "age")
    cell = sum(edge <= 71 for edge in age.edges)
    below, known = sum(age.counts[:cell]), sum(age.counts[:-1])
    low, high = reasons["age"].percentile
    assert low == pytest.approx(100 * below / known)
    assert high == pytest.approx(100 * (below + age.counts[cell]) / known)
    sex = next(one for one in demonstration.reference.columns if one.column == "sex")
    women = sex.counts[sex.labels.index("female")]
    assert reasons["sex"].percentile is None
    assert reasons["sex"].share == pytest.approx(women / sum(sex.counts))
    assert reasons["shock_index"].share is None


def test_another_version_s_numbers_are_not_called_the_same(demonstration, logged, visit):
    _, told = logged(demonstration, [visit])
    line = replace(demonstration.calibration, intercept=demonstration.calibration.intercept + 0.5)
    found = waterfall(replace(demonstration, calibration=line), told)
    assert not found.exact
    assert found.apart > 0.01


def test_who_was_given_no_risk_has_none_here_either(demonstration, logged, visit):
    _, told = logged(demonstration, [visit | {"age": 9}])
    found = waterfall(demonstration, told)
    assert (found.status, found.risk, found.reasons) == ("abstained", None, ())
    assert [row["rule"] for row in found.withheld] == ["cohort"]
    shown = page.prediction(found, demonstration).decode()
    assert "No risk was given" in shown
    _, told = logged(demonstration, [visit | {"heart_rate": 9000}])
    refused = waterfall(demonstration, told)
    assert refused.withheld[0]["field"] == "heart_rate"
    assert "9000" not in page.prediction(refused, demonstration).decode()


def test_what_the_log_no_longer_tells_is_an_error(demonstration, logged, visit, home, tmp_path):
    _, told = logged(demonstration, [visit])
    with pytest.raises(NotEnoughDataError, match="purged"):
        waterfall(demonstration, replace(told, inputs=None))
    with pytest.raises(IntegrityError, match="cannot be read"):
        waterfall(demonstration, replace(told, inputs="{"))
    with pytest.raises(IntegrityError, match=r"no row of ed_admission: heart_rate$"):
        waterfall(demonstration, replace(told, inputs='{"age": 50, "heart_rate": "canary"}'))
    with pytest.raises(IntegrityError, match=r"an unknown field$"):
        waterfall(demonstration, replace(told, inputs='{"age": 50, "canary": 1}'))
    engine = connect(home.log)
    with pytest.raises(NotFoundError, match="no prediction of this id"):
        one.find(engine, "nobody's", keyring=load_keyring(home.path))
    with pytest.raises(SealedError):
        one.find(engine, told.prediction_id, keyring=load_keyring(tmp_path))
    engine.dispose()


def test_the_page_shows_the_steps_and_no_script(demonstration, logged, visit):
    _, told = logged(demonstration, [visit])
    shown = page.prediction(waterfall(demonstration, told), demonstration).decode()
    assert "This page holds a patient" in shown
    assert "Heart rate: 124 /min" in shown
    assert "others together" in shown
    assert "bit for bit" in shown
    assert "<script" not in shown
    assert "http" not in shown
