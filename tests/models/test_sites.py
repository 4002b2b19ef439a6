"""A site's intercept: what its outcomes say, drawn towards the others by how little they say."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from data.errors import NotEnoughDataError
from models import sites
from models.calibration import Calibration, sigmoid


def site(shift, n, seed):
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1.5, 1.0, n)
    return log_odds, (rng.random(n) < sigmoid(log_odds + shift)).astype(float)


def test_as_many_events_are_expected_as_were_observed():
    log_odds, outcome = site(0.7, 900, 0)
    found = sites.intercept(log_odds, outcome)

    assert sigmoid(log_odds + found.value).sum() == pytest.approx(outcome.sum())
    assert (found.rows, found.events) == (900, outcome.sum())


def test_the_error_is_that_of_a_regression_with_the_slope_held():
    """Observed information at the maximum: 1 / sqrt(sum p (1 - p))."""
    log_odds, outcome = site(0.3, 500, 1)
    found = sites.intercept(log_odds, outcome)
    grid = np.array([-1e-4, 0, 1e-4]) + found.value
    likelihood = [
        (
            outcome * np.log(sigmoid(log_odds + at)) + (1 - outcome) * np.log(1 - sigmoid(log_odds + at))
        ).sum()
        for at in grid
    ]
    curvature = (likelihood[0] - 2 * likelihood[1] + likelihood[2]) / 1e-8
    assert found.error == pytest.approx(1 / np.sqrt(-curvature), rel=1e-3)


def test_a_far_start_is_reached_without_overshooting():
    outcome = np.repeat([0.0, 1.0], 50)
    assert sites.intercept(np.full(100, 12.0), outcome).value == pytest.approx(-12.0)


def test_too_few_outcomes_say_nothing_of_a_site():
    with pytest.raises(NotEnoughDataError, match="needs 10 of the rarer outcome; there are 9"):
        sites.intercept(np.zeros(500), (np.arange(500) < 9).astype(float))


def test_the_spread_between_sites_is_found_again():
    rng = np.random.default_rng(3)
    found = {
        f"s{k}": sites.intercept(*site(shift, 1500, k)) for k, shift in enumerate(rng.normal(0, 0.5, 60))
    }
    assert sites.spread(found) == pytest.approx(0.5, abs=0.1)


def test_sites_that_differ_by_chance_alone_are_left_alone():
    parts = [site(0.0, 300, k) for k in range(8)]
    log_odds, outcome = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    shifts, between = sites.fit(
        log_odds, outcome, np.repeat([f"s{k}" for k in range(8)], 300).astype(object)
    )
    assert between < 0.15
    assert all(abs(shift) < 0.1 for shift in shifts.values())


def test_shrunken_intercepts_predict_new_patients_better_than_none_and_than_raw_ones():
    """The promise of it: by the log-likelihood on patients of the same sites that come later."""
    rng = np.random.default_rng(4)
    names = [f"s{k}" for k in range(40)]
    true = dict(zip(names, rng.normal(0, 0.5, 40), strict=True))
    sizes = rng.integers(60, 400, 40)

    def seen(seed):
        drawn = [
            site(true[name], size, seed + k)
            for k, (name, size) in enumerate(zip(names, sizes, strict=True))
        ]
        where = np.repeat(names, sizes).astype(object)
        return *(np.concatenate([part[i] for part in drawn]) for i in (0, 1)), where

    log_odds, outcome, where = seen(1000)
    shifts, between = sites.fit(log_odds, outcome, where)
    raw = {
        name: sites.intercept(log_odds[where == name], outcome[where == name]).value for name in shifts
    }
    later, came, place = seen(9000)

    def loss(by_site):
        line = Calibration(sites=by_site)
        risk = sigmoid(line.log_odds(later, place))
        return -(came * np.log(risk) + (1 - came) * np.log(1 - risk)).mean()

    assert loss(shifts) < loss(raw) < loss({})
    assert all(abs(shifts[name]) < abs(raw[name]) for name in shifts)
    assert between == pytest.approx(0.5, abs=0.2)


def test_an_unknown_site_gets_the_overall_line():
    line = Calibration(intercept=-1.0, slope=2.0, sites={"a": 0.5})
    where = np.array(["a", "b", None], dtype=object)
    assert line.log_odds(np.zeros(3), where).tolist() == [-0.5, -1.0, -1.0]
    assert line.log_odds(np.zeros(3)).tolist() == [-1.0] * 3


def test_the_intercept_is_scikit_learns_where_the_slope_is_free_to_be_one():
    log_odds, outcome = site(0.4, 40_000, 7)
    model = LogisticRegression(C=np.inf).fit(log_odds[:, None], outcome)
    assert sites.intercept(log_odds, outcome).value == pytest.approx(model.intercept_[0], abs=0.05)


def test_a_risk_that_is_off_is_measured_as_such():
    outcome = (np.arange(400) % 2).astype(float)
    found = sites.measured(outcome, np.full(400, -1.0))
    assert found.oe == pytest.approx(0.5 * (1 + np.e))
    assert found.intercept == pytest.approx(1.0)
    assert found.slope is None  # risks that are all alike have none


def test_the_shift_of_a_patient_comes_from_the_others():
    """Each of five parts is scored with what the other four say, by hand."""
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(100), 5)
    outcome = (rng.random(500) < 0.4).astype(float)
    shifted = sites.crossed(np.full(500, -1.0), outcome, person, between=0.5)

    of_person = shifted.reshape(100, 5)
    assert (of_person == of_person[:, :1]).all()
    parts = np.unique(of_person[:, 0])
    assert len(parts) == 5
    for part in parts:
        taught = shifted != part
        own = sites.intercept(np.full(taught.sum(), -1.0), outcome[taught])
        assert part == pytest.approx(-1.0 + sites.shrunk(own, 0.5))


def test_the_estimate_after_is_not_that_of_the_rows_that_taught():
    """On its own rows an intercept is always right; on others' it is as right as it is."""
    rng = np.random.default_rng(1)
    outcome = (rng.random(120) < 0.3).astype(float)
    log_odds = np.zeros(120)
    own = log_odds + sites.intercept(log_odds, outcome).value
    assert sites.measured(outcome, own).oe == pytest.approx(1.0)
    after = sites.measured(outcome, sites.crossed(log_odds, outcome, np.arange(120), between=0.5))
    assert abs(after.oe - 1.0) > 1e-3


def test_too_few_outcomes_among_the_others_are_too_few():
    outcome = (np.arange(200) < 11).astype(float)  # 11 in all, 9 or less in some four parts
    with pytest.raises(NotEnoughDataError, match="needs 10 of the rarer outcome"):
        sites.crossed(np.zeros(200), outcome, np.arange(200), between=0.5)


def test_how_patients_are_numbered_decides_nothing():
    """13 patients with an event: any four of five parts hold ten of them, however they are numbered."""
    outcome = (np.arange(200) < 13).astype(float)
    for seed in range(30):
        person = np.random.default_rng(seed).permutation(200)
        assert len(sites.crossed(np.zeros(200), outcome, person, between=0.5)) == 200
