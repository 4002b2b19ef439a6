"""Measures of the answers whose outcome is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.metrics import auroc
from monitoring import performance
from monitoring.performance import MEASURES, measure


@pytest.fixture
def known(make):
    """A window of outcomes that are true of their risks."""

    def known(n=3000, **given):
        rng = np.random.default_rng(0)
        risk = 1 / (1 + np.exp(-rng.normal(-1, 1.3, n)))
        outcome = (rng.random(n) < risk).astype(float)
        site = rng.integers(0, 2, n)
        now = make.answers(risk, outcome, site=site, patient=np.arange(n) // 2)
        return make.window(replace(now, **given))

    return known


def test_every_measure_has_its_value_and_interval(known, loaded):
    found = measure(known(), loaded.spec)
    assert found["reason"] is None
    assert found["calibration"]["oe"] == pytest.approx(1, abs=0.06)
    assert found["auroc"]["low"] < found["auroc"]["value"] < found["auroc"]["high"]
    assert {"oe", "slope", "sensitivity", "ppv", "net_benefit"} <= set(found["intervals"])
    assert found["counted"] == "first"


def test_the_net_benefit_of_treating_all_is_the_prevalence_less_the_harm(known, loaded):
    window = known()
    found = measure(window, loaded.spec)
    prevalence, odds = window.outcome.mean(), loaded.spec.alert_at / (1 - loaded.spec.alert_at)
    assert found["at_threshold"]["treat_all"] == pytest.approx(prevalence - (1 - prevalence) * odds)


def test_sites_and_subgroups_are_measured_and_small_ones_suppressed(known, loaded):
    window = known(n=600)
    sex = np.array(["female"] * 585 + ["male"] * 15, dtype=object)
    found = measure(replace(window, groups={"sex": sex}), loaded.spec)
    rows = {(row["group"], row["level"]): row for row in found["groups"]}
    assert set(rows) == {
        ("site", "north"), ("site", "south"), ("sex", "female"), ("sex", "male"),
    }  # fmt: skip
    assert rows["sex", "male"]["suppressed"]
    assert rows["sex", "male"]["oe"] is None
    there = window.answers.site == 0
    assert rows["site", "north"]["n"] == there.sum()
    assert rows["site", "north"]["auroc"]["value"] == pytest.approx(
        auroc(window.outcome[there], window.risk[there])
    )


def test_a_row_whose_inputs_were_not_opened_is_in_no_subgroup(known, loaded):
    window = known(n=600)
    sex = np.array(["female"] * 300 + [None] * 300, dtype=object)
    found = measure(replace(window, groups={"sex": sex}), loaded.spec)
    assert [(r["level"], r["n"]) for r in found["groups"] if r["group"] == "sex"] == [("female", 300)]


def test_what_was_shown_stands_apart(known, make, loaded):
    window = known(n=2000)
    used = np.where(np.arange(2000) < 1000, 1, 2).astype(np.int8)
    outcome = np.where((used == 2) & (np.arange(2000) % 2 == 0), 0.0, window.answers.outcome)
    found = measure(make.window(replace(window.answers, used=used, outcome=outcome)), loaded.spec)
    apart = found["apart"]
    assert apart["unshown"]["n"] == apart["shown"]["n"] == 1000
    assert apart["unshown"]["oe"]["low"] < 1 < apart["unshown"]["oe"]["high"]
    assert apart["shown"]["oe"]["high"] < 0.75


def test_nobody_is_compared_with_nobody(known, loaded):
    assert measure(known(), loaded.spec)["apart"]["shown"] is None


@pytest.mark.parametrize("n", [0, 1, 49])
def test_too_few_outcomes_have_no_measures_but_a_reason(known, loaded, n):
    found = measure(known(n=n), loaded.spec)
    assert found["n"] == n
    assert "at least 50 and 10 are needed" in found["reason"]
    assert all(found[name] is None for name in MEASURES)
    assert found["groups"] == []


def test_one_class_has_a_reason(known, loaded):
    found = measure(known(n=500, outcome=np.zeros(500)), loaded.spec)
    assert found["events"] == 0
    assert found["auroc"] is None


def test_an_outcome_that_may_still_come_or_does_not_count_is_left_out(known, loaded):
    half = np.arange(1000) < 500
    assert measure(known(n=1000, mature=half), loaded.spec)["n"] == 500
    assert measure(known(n=1000, counts=half), loaded.spec)["n"] == 500


def test_of_very_many_a_sample_is_measured(known, loaded, monkeypatch):
    whole = measure(known(n=4000), loaded.spec)
    monkeypatch.setattr(performance, "MOST", 2000)
    found = measure(known(n=4000), loaded.spec)
    assert found["n"] == 4000
    assert found["auroc"]["value"] == pytest.approx(whole["auroc"]["value"], abs=0.03)
    assert found["auroc"]["high"] - found["auroc"]["low"] > 1.2 * (
        whole["auroc"]["high"] - whole["auroc"]["low"]
    )
    counted = [(row["n"], row["events"]) for row in found["groups"]]
    assert counted == [(row["n"], row["events"]) for row in whole["groups"]]


def test_hours_of_the_same_patients_have_the_wider_intervals(known, loaded):
    window = known(n=2000)
    risk, outcome = np.repeat(window.risk[:200], 10), np.repeat(window.outcome[:200], 10)
    patient = np.repeat(np.arange(200), 10)
    own = replace(window.answers, risk=risk, outcome=outcome, patient=np.arange(2000))
    alone = performance.summary(own, threshold=0.3)
    hours = performance.summary(replace(own, patient=patient), threshold=0.3)
    for name in ("auroc", "slope", "net_benefit"):
        width = [found[name]["high"] - found[name]["low"] for found in (alone, hours)]
        assert width[1] == pytest.approx(width[0] * 10**0.5, rel=0.15), name


def test_the_figures_at_promotion_stand_beside(known, loaded):
    then = measure(known(), loaded.spec)
    found = measure(known(n=10), loaded.spec, at_promotion=then)
    assert found["at_promotion"]["auroc"] == then["auroc"]
    assert set(found["at_promotion"]) == {"n", "events", *MEASURES, "groups", "triage", "utility"}


def test_the_same_window_measures_the_same(known, loaded):
    assert measure(known(n=400), loaded.spec) == measure(known(n=400), loaded.spec)


def test_the_curves_are_those_of_models_curves_and_none_of_a_few(make, loaded):
    """By hand: of 60 patients with a risk of 0.2, 15 events are observed at 0.25."""
    outcome, risk = np.repeat([1.0, 0.0, 1.0, 0.0], [15, 45, 36, 24]), np.repeat([0.2, 0.6], 60)
    found = measure(make.window(make.answers(risk, outcome)), loaded.spec)["curves"]
    assert [(row["risk"], row["observed"], row["n"]) for row in found["calibration"]] == [
        (pytest.approx(0.2), 0.25, 60), (pytest.approx(0.6), 0.6, 60),
    ]  # fmt: skip
    low, high = loaded.spec.benefit
    assert [found["net_benefit"][place]["threshold"] for place in (0, -1)] == [low, high]
    last = found["net_benefit"][-1]
    odds = high / (1 - high)
    assert last["model"] == pytest.approx((36 - 24 * odds) / 120)
    assert last["treat_all"] == pytest.approx((51 - 69 * odds) / 120)
    few = measure(make.window(make.answers(np.append(risk, 0.99), np.append(outcome, 1.0))), loaded.spec)
    assert all(row["n"] >= 20 for row in few["curves"]["calibration"])
