"""What is foreseen without outcomes, and how often the truth then lies within."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models import metrics
from models.calibration import sigmoid
from monitoring import analytic, foreseen
from monitoring.estimate import estimate, learned, logistic, tallies
from monitoring.foreseen import MEASURES, measured


@pytest.fixture
def drawn(make):
    """Answers and outcomes whose true log-odds are ``shift`` + ``slope`` times what was answered."""

    def drawn(n, seed, *, shift=0.0, slope=1.0, mean=-1.5, told=True, at="2026-05-01", **given):
        rng = np.random.default_rng(seed)
        log_odds = rng.normal(mean, 1.2, n)
        outcome = (rng.random(n) < sigmoid(shift + slope * log_odds)).astype(float)
        when = np.full(n, np.datetime64(at))
        return make.answers(sigmoid(log_odds), outcome if told else None, at=when, **given)

    return drawn


def truth(answers, threshold):
    y, risk = answers.outcome, answers.risk
    return {
        "auroc": metrics.auroc(y, risk),
        "oe": y.sum() / risk.sum(),
        "slope": analytic.slope(y, risk)[0],
        "brier": metrics.brier(y, risk),
        "net_benefit": analytic.net_benefit(y, risk, threshold=threshold)[0],
        "sensitivity": y[risk >= threshold].sum() / y.sum(),
        "ppv": y[risk >= threshold].mean(),
        "alerts_per_100": 100 * (risk >= threshold).mean(),
    }


def test_the_measures_of_drawn_outcomes_are_those_of_the_metrics(drawn):
    made = drawn(500, 1)
    order = np.argsort(made.risk)
    found = measured(made.risk[order], np.ones(500), made.outcome[order][None, :], threshold=0.3)
    for name, value in truth(made, 0.3).items():
        assert found[name][0] == pytest.approx(value, abs=1e-6), name


def test_cells_of_many_patients_say_the_same_as_the_patients(drawn, loaded, monkeypatch):
    made = drawn(6000, 2, told=False, site=np.arange(6000) % 2)
    few = estimate(made, drawn(0, 0), loaded.spec)
    monkeypatch.setattr(foreseen, "CELLS", 10_000)
    each = estimate(made, drawn(0, 0), loaded.spec)
    for name in MEASURES:
        spread = each[name]["high"] - each[name]["low"]
        assert few[name]["value"] == pytest.approx(each[name]["value"], abs=0.15 * spread + 1e-3), name


def test_the_truth_lies_within_as_often_as_is_said(drawn, loaded):
    """Of windows after a miscalibrated year, 95 % each; seven of a hundred is the 99.5 % bound's."""
    within = dict.fromkeys(MEASURES, 0)
    windows = 60
    for seed in range(windows):
        past = drawn(3000, 1000 + seed, shift=0.3, slope=0.9, at="2026-03-01")
        now = drawn(800, 2000 + seed, shift=0.3, slope=0.9, mean=-1.2)
        found = estimate(replace(now, outcome=np.full(800, np.nan)), past, loaded.spec)
        for name, value in truth(now, loaded.spec.alert_at).items():
            within[name] += found[name]["low"] - 1e-9 <= value <= found[name]["high"] + 1e-9
    assert min(within.values()) / windows >= 0.88, within


def test_a_line_that_is_sure_leaves_the_chance_of_the_patients_alone():
    """Sum and variance of independent events in closed form; the AUROC over all pairs."""
    risk = sigmoid(np.random.default_rng(9).normal(-1.5, 1.2, 1500))
    sure = foreseen.Line(
        mean=np.array([0.0, 1.0]), covariance=np.zeros((2, 2)), between=np.zeros(2), centre=0.0,
        sites={}, unknown=0.0, spread=1.0, basis="",
    )  # fmt: skip
    nowhere, rng = np.full(1500, -1), np.random.default_rng(0)
    found = foreseen.foreseen(risk, nowhere, (), sure, threshold=0.3, rng=rng, samples=4000)
    error = np.sqrt((risk * (1 - risk)).sum()) / risk.sum()
    assert found["oe"]["low"] == pytest.approx(1 - 1.96 * error, abs=0.1 * error)
    assert found["oe"]["high"] == pytest.approx(1 + 1.96 * error, abs=0.1 * error)
    pairs = risk[:, None] * (1 - risk)[None, :]
    higher = np.sign(risk[:, None] - risk[None, :]) / 2 + 0.5
    np.fill_diagonal(pairs, 0)
    assert found["auroc"]["value"] == pytest.approx((pairs * higher).sum() / pairs.sum(), abs=1e-3)
    alert = risk >= 0.3
    gain = (risk[alert] - (1 - risk[alert]) * 0.3 / 0.7).sum() / 1500
    assert found["net_benefit"]["value"] == pytest.approx(gain, abs=1e-3)


def test_a_miscalibrated_past_is_foreseen_in_the_calibration(drawn, loaded):
    past, now = drawn(8000, 5, shift=0.7, at="2026-02-01"), drawn(1500, 6, told=False)
    found = estimate(now, past, loaded.spec)
    assert found["oe"]["low"] > 1.2
    assert "8,000 answers of the past year" in found["basis"]


def test_without_a_past_the_promotion_says_how_sure_one_is(drawn, loaded):
    spans = {"intercept": {"low": -0.4, "high": 0.4}, "slope": {"low": 0.9, "high": 1.1}}
    now = drawn(1500, 6, told=False)
    wide = estimate(now, drawn(0, 0), loaded.spec, {"intervals": spans})
    narrow = estimate(now, drawn(0, 0), loaded.spec)
    assert wide["oe"]["high"] - wide["oe"]["low"] > narrow["oe"]["high"] - narrow["oe"]["low"]
    assert "at promotion" in wide["basis"]


def test_the_promotion_s_own_line_is_the_start(drawn, loaded):
    """O/E of 1.2 at promotion: the intercept that makes it is what the next window is expected by."""
    now = drawn(4000, 6, told=False)
    level = {"intercept": 0.25, "slope": 1.0}
    found = estimate(now, drawn(0, 0), loaded.spec, {"calibration": level})
    expected = sigmoid(np.log(now.risk / (1 - now.risk)) + 0.25).sum() / now.risk.sum()
    assert found["oe"]["value"] == pytest.approx(expected, abs=0.02)


def test_what_was_shown_teaches_nothing(drawn):
    past = drawn(3000, 5, shift=-1, at="2026-02-01")
    shown = replace(past, used=np.full(3000, 2, dtype=np.int8))
    assert learned(tallies(shown, shown), None).mean.tolist() == [0, 1]
    assert learned(tallies(past, past), None).mean[0] < -0.7


def test_what_is_learned_of_cells_is_learned_of_patients(drawn):
    past = drawn(5000, 8, shift=0.4, slope=0.8, at="2026-02-01")
    line = learned(tallies(past, past), None)
    mean, covariance = logistic(np.log(past.risk / (1 - past.risk)), past.outcome)
    assert line.mean == pytest.approx(mean, abs=1e-3)
    # What one month tells of all months is as unsure as months differ; the slope alone is compared.
    assert line.covariance[1, 1] - line.between[1] ** 2 == pytest.approx(covariance[1, 1], rel=0.02)


def months(drawn, make, moved, *, n=2000, site=None):
    """A year, month by month, with an intercept of its own each."""
    parts = [
        drawn(n, 50 + k, shift=shift, at=f"2025-{k + 1:02}-10", site=site)
        for k, shift in enumerate(moved)
    ]
    names = ("at", "site", "risk", "outcome")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return make.answers(
        joined["risk"], joined["outcome"], at=joined["at"], site=joined["site"], sites=("a", "b", "c")
    )


def test_months_that_differ_make_the_next_one_less_sure(drawn, make, loaded):
    now = drawn(2000, 3, told=False)
    quiet, restless = (
        estimate(now, months(drawn, make, np.array(moved) * 0.4), loaded.spec)["oe"]
        for moved in ([0.0] * 12, [1, -1] * 6)
    )
    assert restless["high"] - restless["low"] > 2 * (quiet["high"] - quiet["low"])


def test_the_spread_between_months_is_that_of_the_method_of_moments(drawn, make):
    """By hand: 0.4 up and down is a variance of 0.16 * 12 / 11, beside four months of 0.01."""
    past = months(drawn, make, [0.4, -0.4] * 6, n=20_000)
    line = learned(tallies(past, past), None)
    assert line.between[0] ** 2 == pytest.approx((4 * 0.01 + 11 * 0.1745) / 15, rel=0.1)


def test_a_site_s_own_past_is_what_its_patients_are_expected_by(drawn, make, loaded):
    rng = np.random.default_rng(0)
    n = 6000
    site = np.arange(n) % 3
    log_odds = rng.normal(-1.5, 1.2, n)
    outcome = (rng.random(n) < sigmoid(log_odds + np.array([0.6, 0.0, -0.6])[site])).astype(float)
    at = np.full(n, np.datetime64("2026-03-01"))
    sites = ("a", "b", "c")
    past = make.answers(sigmoid(log_odds), outcome, at=at, site=site, sites=sites)
    found = [
        estimate(
            make.answers(sigmoid(log_odds[:1000]), site=np.full(1000, of), sites=sites),
            past,
            loaded.spec,
        )["oe"]
        for of in (0, 1, 2, -1)
    ]
    assert found[0]["low"] > found[1]["value"] > found[2]["high"]
    # A site of which nothing is known may be any of them.
    width = [one["high"] - one["low"] for one in found]
    assert width[3] > 1.5 * max(width[:3])


def test_many_hours_of_one_patient_are_less_sure_than_as_many_patients(make, loaded):
    rng = np.random.default_rng(1)
    risk = np.repeat(sigmoid(rng.normal(-2, 1, 300)), 20)
    outcome = np.repeat((rng.random(300) < risk[::20]).astype(float), 20)
    whose = np.repeat(np.arange(300), 20)
    past = make.answers(risk, outcome, at=np.full(6000, np.datetime64("2026-03-01")), patient=whose)
    hours, alone = (
        estimate(make.answers(risk[:2000], patient=of), past, loaded.spec)["oe"]
        for of in (whose[:2000], np.arange(2000))
    )
    assert hours["high"] - hours["low"] > 2 * (alone["high"] - alone["low"])


def test_a_past_that_was_told_without_error_is_no_exception(make, loaded):
    risk = np.repeat([0.1, 0.9], 300)
    past = make.answers(risk, (risk > 0.5).astype(float))
    alike = make.answers(np.full(600, 0.3), np.arange(600) % 3 == 0)
    for taught in (past, alike):
        found = estimate(make.answers(risk), taught, loaded.spec)
        assert found["oe"]["low"] <= found["oe"]["value"] <= found["oe"]["high"]


def test_outcomes_of_this_window_are_not_looked_at(drawn, loaded):
    now = drawn(900, 6)
    blind = replace(now, outcome=np.full(900, np.nan))
    assert estimate(now, drawn(0, 0), loaded.spec) == estimate(blind, drawn(0, 0), loaded.spec)


@pytest.mark.parametrize("n", [0, 1, 99])
def test_too_few_are_said(drawn, loaded, n):
    found = estimate(drawn(n, 1), drawn(0, 0), loaded.spec)
    assert "at least 100 are needed" in found["reason"]
    assert all(found[name] is None for name in MEASURES)


def test_nobody_over_the_threshold_has_no_predictive_value(make, loaded):
    now = make.answers(np.full(200, 0.01))
    found = estimate(now, make.answers(np.zeros(0)), loaded.spec)
    assert found["ppv"]["value"] is None
    assert found["alerts_per_100"]["value"] == 0
