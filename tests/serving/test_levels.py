"""An ordinal model: which level, how likely each, and what the risk is of."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from pyarrow import parquet

from data.contract import check, sample
from data.marts.ed_visit import MART
from data.period import Period
from data.simulate import simulate
from data.source import Origin
from data.store import open_store
from models import artifact, release
from models.feature import show_cell
from serving.answers import Scored
from serving.batch import run as batch
from serving.batch import tables
from serving.schema import Context, PredictRequest, read_predict
from serving.scorer import Receipt, Scorer

KEY = b"0123456789abcdef"
ALWAYS = Period.between(None, None)


@pytest.fixture
def scorer(triage) -> Scorer:
    return Scorer(artifact=triage, version="1", key=KEY)


def ask(scorer: Scorer, instances, **more):
    body = json.dumps({"instances": instances, **more}).encode()
    return scorer.predict(read_predict(body), Receipt.now())


@pytest.fixture
def instances(triage) -> list[dict]:
    """Patients from a fast track to the resuscitation room."""
    visits = simulate(visits=80, seed=6, first="2020-01", last="2020-01")
    own = triage.mart.columns
    rows = check(own, visits.select([column.name for column in own])).rows
    shown = [{c.name: show_cell(c, rows[c.name][i]) for c in own} for i in range(80)]
    ill = {"sbp": 70, "spo2": 80, "heart_rate": 150, "age": 80, "ambulance": True}
    return [*shown, shown[0] | ill]


def sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def test_the_risk_is_of_the_level_answered_or_a_more_urgent_one(scorer, instances):
    answered = ask(scorer, instances)
    levels = set()
    for answer in answered.predictions:
        assert isinstance(answer, Scored)
        assert len(answer.probabilities) == 5
        assert sum(answer.probabilities) == pytest.approx(1)
        assert answer.risk == pytest.approx(sum(answer.probabilities[: answer.level]))
        assert answer.band.id == str(answer.level)
        said = answer.explanation
        explained = said.base_value + sum(c.contribution for c in said.contributions) + said.other
        assert sigmoid(explained) == pytest.approx(answer.risk, abs=1e-5)
        levels.add(answer.level)
    assert len(levels) > 2
    assert answered.not_additive == 0


def test_the_log_keeps_the_events_log_odds_beside_what_was_answered(scorer, instances):
    answered = ask(scorer, instances)
    for record, answer in zip(answered.records, answered.predictions, strict=True):
        urgent = sum(answer.probabilities[:2])
        assert sigmoid(record["margin"]) == pytest.approx(urgent)
        assert record["risk"] == answer.risk
        assert record["band"] == str(answer.level)
        assert record["base_value"] == answer.explanation.base_value


def test_the_set_is_a_run_of_levels(scorer, instances):
    for answer in ask(scorer, instances).predictions:
        levels = answer.conformal.classes
        assert set(levels) <= {1, 2, 3, 4, 5}
        assert list(levels) == list(range(levels[0], levels[-1] + 1))
        assert answer.conformal.coverage == 0.9


def test_level_and_probabilities_are_of_ordinal_models_alone(scorer, demonstration, instances, visit):
    [ordinal] = msgspec.to_builtins(ask(scorer, instances[:1]).predictions)
    binary = Scorer(artifact=demonstration, version="1", key=KEY)
    [other] = msgspec.to_builtins(ask(binary, [visit]).predictions)
    assert set(ordinal) - set(other) == {"level", "probabilities"}
    assert set(other) < set(ordinal)


def test_the_nurses_level_is_no_input(scorer, instances):
    [refused] = ask(scorer, [instances[0] | {"acuity": 1}]).predictions
    assert [(fault.field, fault.reason) for fault in refused.errors] == [("acuity", "unknown field")]


@pytest.mark.parametrize("explain", [True, False])
def test_a_mart_is_answered_as_the_service_answers(scorer, triage, home, tmp_path, explain):
    out = tmp_path / "out.parquet"
    artifact.write(tmp_path / "artifact", triage, evidence={})
    release.publish(home.releases, tmp_path / "artifact", model="ed_triage", version="1")
    visits = simulate(visits=300, seed=9, first="2020-01", last="2020-01")
    with open_store(home.marts) as store:
        store.load(MART, [visits], Origin(load_id="x", source="own", use="care"), key=KEY)
        stored = store.read(MART)
    batch.score(home, "ed_triage", version="1", period=ALWAYS, out=out, explain=explain)
    own = triage.mart.columns
    rows = check(own, stored.select([column.name for column in own])).rows
    shown = [{c.name: show_cell(c, rows[c.name][i]) for c in own} for i in range(300)]
    raw = [msgspec.Raw(msgspec.json.encode(instance)) for instance in shown]
    sites = [Context(site=site) for site in stored["site"].to_pylist()]
    online = scorer.predict(PredictRequest(instances=raw, context=sites), Receipt.now())
    found = parquet.read_table(out).to_pylist()
    assert {row["site"] for row in found} > set(triage.calibration.sites)
    for row, answer, record in zip(found, online.predictions, online.records, strict=True):
        assert (row["level"], row["risk"], row["band"]) == (answer.level, answer.risk, answer.band.id)
        assert row["margin"] == record["margin"]
        assert row["base_value"] == answer.explanation.base_value
        assert tuple(row[f"p{level}"] for level in range(1, 6)) == answer.probabilities


def test_of_a_binary_model_the_file_has_no_level(written):
    answers = tables.Answers.of(written, version="1", mart=MART, explain=False, threads=1)
    assert not {"level", "p1"} & set(answers.schema(MART).names)


def test_where_no_row_is_scored_the_levels_are_null(triage, tmp_path):
    artifact.write(tmp_path / "artifact", triage, evidence={})
    answers = tables.Answers.of(tmp_path / "artifact", version="1", mart=MART, explain=True, threads=1)
    rows = sample(MART, 3, seed=1).select(answers.columns)
    rows = rows.set_column(rows.column_names.index("age"), "age", [[999.0] * 3])
    answered = answers(rows).to_pydict()
    assert answered["status"] == ["refused"] * 3
    assert answered["level"] == answered["p5"] == [None] * 3
    assert np.all([reason == ["age: outside 0 to 120 a"] for reason in answered["reasons"]])
