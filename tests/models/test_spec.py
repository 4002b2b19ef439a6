"""Every model of the catalog holds what the house promises; a spec that does not is refused."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from data import marts
from data.contract import Text
from data.errors import ContractError, NotFoundError
from data.marts.ed_visit import MART
from models import catalog
from models.features import FeatureMap
from models.spec import Band, Criterion, Event, ModelSpec, Outcome, to_json

SPECS = [pytest.param(catalog.load(name), id=name) for name in catalog.names()]
NEVER = ("race", "ethnicity", "payer", "region")
ED = catalog.load("ed_admission")
LABEL = Text("A label", "标签")


def inputs(spec: ModelSpec) -> tuple[str, ...]:
    return FeatureMap.of(marts.load(spec.mart), spec.features, spec.lookback).inputs


def hold(spec: ModelSpec) -> None:
    """As training does before it reads a row."""
    spec.hold(marts.load(spec.mart), inputs(spec))


def band(at_least: float) -> Band:
    return Band(id="b", at_least=at_least, label=LABEL, action=LABEL)


def outcome(column: str, *positive: str) -> Outcome:
    return Outcome(any_of=(Event(column=column, positive=positive),), label=LABEL, horizon=LABEL)


@pytest.mark.parametrize("spec", SPECS)
def test_a_model_reads_inputs_known_in_time_and_nothing_else(spec):
    mart = marts.load(spec.mart)
    read = inputs(spec)
    assert read
    for name in read:
        assert mart[name].role == "input", name
        assert mart[name].available != "after", name
        assert not any(word in name for word in NEVER), name
    hold(spec)


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_is_true_of_each_of_its_ablations(spec):
    for ablation in spec.ablations:
        assert set(ablation.without) <= set(spec.features)
        kept = [name for name in spec.features if name not in ablation.without]
        assert kept
        hold(replace(spec, features=tuple(kept)))


@pytest.mark.parametrize("spec", SPECS)
def test_a_model_says_what_it_is_for_in_both_languages(spec):
    texts = [spec.title, spec.intended_use, spec.outcome.label, spec.outcome.horizon, *spec.cautions]
    texts += [text for band in spec.bands for text in (band.label, band.action)]
    texts += [criterion.reason for criterion in spec.cohort]
    assert all(text.en.strip() and text.zh.strip() for text in texts)
    assert spec.cautions
    ids = [band.id for band in spec.bands]
    assert len(set(ids)) == len(ids)
    if spec.triage is None:
        assert any(band.at_least == spec.alert_at for band in spec.bands), "alerts start at a band"


@pytest.mark.parametrize("spec", SPECS)
def test_a_stored_spec_is_the_one_that_was_written(spec):
    assert msgspec.json.decode(to_json(spec), type=ModelSpec) == spec


def test_the_catalog_names_its_models_and_refuses_others():
    assert "ed_admission" in catalog.names()
    with pytest.raises(NotFoundError, match=r"no model 'ed_admision'; known: .*ed_admission"):
        catalog.load("ed_admision")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ("age", "lactate")}, "no column lactate"),
        ({"features": ("age", "race")}, "race: a text column cannot be a feature"),
        ({"features": ("age", "ethnicity")}, "ethnicity"),
        ({"features": ("age", "payer")}, "payer"),
        ({"features": ("age", "region")}, "region"),
        ({"features": ("age", "weight")}, "weight has role audit"),
        ({"features": ("age", "site_tier")}, "site_tier has role id"),
        ({"features": ("age", "visit_id")}, "visit_id: a text column cannot be a feature"),
        ({"features": ("age", "arrived_at")}, "arrived_at: a time column cannot be a feature"),
        ({"features": ("age", "died")}, "died has role outcome"),
        ({"features": ("age", "disposition")}, "disposition has role outcome"),
        ({"features": ("age", "age")}, "twice: age"),
        ({"subgroups": ("sex", "tribe")}, "no column tribe"),
        ({"cohort": (Criterion(column="triage", at_least=1, reason=LABEL),)}, "no column triage"),
        (
            {"cohort": (Criterion(column="disposition", not_in=("gone",), reason=LABEL),)},
            "disposition has no category gone",
        ),
        (
            {"outcome": outcome("bed", "yes")},
            "no column bed",
        ),
        (
            {"outcome": outcome("site_tier", "county")},
            "site_tier is not an outcome",
        ),
        (
            {"outcome": outcome("disposition", "bed")},
            "disposition has no category bed",
        ),
        ({"outcome": outcome("disposition")}, "disposition needs the categories that count"),
        ({"benefit": (0.5, 0.1)}, "benefit is a range"),
        ({"bands": ()}, "bands start at 0 and rise"),
        ({"bands": (band(0.1), band(0.3))}, "bands start at 0 and rise"),
        ({"bands": (band(0.0), band(0.3), band(0.2))}, "bands start at 0 and rise"),
        ({"bands": (band(0.0), band(0.3), band(0.3))}, "bands start at 0 and rise"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_by_the_columns_name(change, message):
    with pytest.raises(ContractError, match=message):
        hold(replace(ED, **change))


@pytest.mark.parametrize("name", NEVER)
def test_what_is_kept_for_the_audit_is_never_an_input_whatever_its_type(name):
    with pytest.raises(ContractError, match=f"{name} has role audit and is never a feature"):
        ED.hold(MART, ("age", name))


def test_an_input_that_is_known_only_afterwards_is_refused():
    late = replace(MART["spo2"], available="after")
    mart = replace(MART, columns=tuple(late if c.name == "spo2" else c for c in MART.columns))
    with pytest.raises(ContractError, match="ed_admission: spo2 is known only afterwards"):
        ED.hold(mart, ("age", "spo2"))


@pytest.mark.parametrize(
    ("risk", "name"),
    [
        (0.0, "low"),
        (0.0999, "low"),
        (0.1, "moderate"),
        (0.2999, "moderate"),
        (0.3, "high"),
        (0.5999, "high"),
        (0.6, "very_high"),
        (1.0, "very_high"),
    ],
)
def test_a_risk_on_an_edge_belongs_to_the_upper_band(risk, name):
    assert ED.band(risk).id == name


def test_the_cohort_is_asked_and_a_missing_value_meets_no_least():
    adult, *_ = ED.cohort
    ages = {"age": np.array([17.9, 18.0, np.nan])}
    assert adult.met(MART["age"], ages).tolist() == [False, True, False]
    codes = MART["disposition"].codes
    dispositions = {"disposition": np.array([codes["dead_on_arrival"], codes["died"], -1], np.int16)}
    assert ED.cohort[1].met(MART["disposition"], dispositions).tolist() == [False, True, True]


def test_only_criteria_known_in_time_are_asked_of_a_request():
    assert [criterion.column for criterion in ED.at_request(MART)] == ["age"]


def test_an_outcome_that_is_not_known_is_no_outcome():
    codes = MART["disposition"].codes
    names = ("admitted", "observation", "transferred", "discharged", "died")
    column = np.array([*(codes[name] for name in names), -1], np.int16)
    found = ED.outcome.of(MART, {"disposition": column})
    np.testing.assert_array_equal(found, [1, 1, 1, 0, 0, np.nan])


def test_any_event_is_enough_and_all_must_be_ruled_out():
    either = Outcome(
        any_of=(Event(column="critical_care"), Event(column="died")), label=LABEL, horizon=LABEL
    )
    nan = np.nan
    rows = {
        "critical_care": np.array([1.0, 0.0, 0.0, nan, nan, nan]),
        "died": np.array([nan, 1.0, 0.0, 1.0, 0.0, nan]),
    }
    np.testing.assert_array_equal(either.of(MART, rows), [1, 1, 0, 1, nan, nan])


def test_a_level_counts_up_to_the_one_named():
    urgent = Event(column="acuity", at_most=2)
    found = urgent.of(MART["acuity"], {"acuity": np.array([1.0, 2.0, 3.0, np.nan])})
    np.testing.assert_array_equal(found, [1, 1, 0, np.nan])


def test_what_is_predicted_is_never_read():
    predicted = replace(
        catalog.load("ed_triage"), features=("age", "acuity"), monotone={}, comparators=()
    )
    with pytest.raises(ContractError, match="acuity is what it predicts and never a feature"):
        hold(predicted)


@pytest.mark.parametrize("spec", SPECS)
def test_a_monotone_feature_is_one_of_the_models(spec):
    features = FeatureMap.of(marts.load(spec.mart), spec.features, spec.lookback)
    assert sum(map(abs, features.constraints(spec.monotone))) == len(spec.monotone)
    with pytest.raises(ContractError, match="monotone names no_such"):
        features.constraints({"no_such": 1})


def test_an_alert_that_moves_takes_its_band_along():
    moved = ED.alerting_at(0.05)
    assert moved.alert_at == 0.05
    assert [(band.id, band.at_least) for band in moved.bands] == [
        ("low", 0.0), ("high", 0.05), ("very_high", 0.6),
    ]  # fmt: skip
    assert [band.id for band in ED.alerting_at(0.7).bands] == ["low", "moderate", "high"]
