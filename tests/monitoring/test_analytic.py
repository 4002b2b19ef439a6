"""Intervals in closed form, held against other sources."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from models import metrics
from monitoring import analytic


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(4)
    risk = 1 / (1 + np.exp(-rng.normal(-1.5, 1.2, 4000)))
    return (rng.random(4000) < risk).astype(float), risk


def test_the_auroc_is_that_of_mann_and_whitney(rows):
    y, risk = rows
    u = stats.mannwhitneyu(risk[y == 1], risk[y == 0]).statistic
    assert analytic.auroc(y, risk)[0] == pytest.approx(u / (y.sum() * (1 - y).sum()))


def test_the_error_of_hanley_and_mcneil_by_hand():
    """A = 0.8 of 20 and 30: Q1 = 2/3, Q2 = 0.7111, so that the variance is 0.00455."""
    a, events, others = 0.8, 20, 30
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    spread = (a * (1 - a) + 19 * (q1 - a**2) + 29 * (q2 - a**2)) / (events * others)
    assert spread == pytest.approx(0.00455, abs=5e-5)
    # Ranks that make the area 0.8 exactly: each event stands over 24 of 30.
    y = np.repeat([1.0, 0.0], [events, others])
    risk = np.concatenate([np.full(events, 23.5), np.arange(others)]) / 100
    value, low, high = analytic.auroc(y, risk, z=1.0)
    assert value == pytest.approx(a)
    assert (high - low) / 2 == pytest.approx(np.sqrt(spread))


def test_the_slope_and_its_error_are_those_of_maximum_likelihood(rows):
    y, risk = rows
    x = np.log(risk / (1 - risk))

    def loss(line):
        return np.logaddexp(0, -(2 * y - 1) * (line[0] + line[1] * x)).sum()

    best = optimize.minimize(loss, [0.0, 1.0], method="BFGS", options={"gtol": 1e-8})
    value, low, high = analytic.slope(y, risk, z=1.0)
    assert value == pytest.approx(best.x[1], abs=1e-5)
    weight = stats.logistic.pdf(best.x[0] + best.x[1] * x)
    information = np.array([[weight.sum(), weight @ x], [weight @ x, weight @ x**2]])
    assert (high - low) / 2 == pytest.approx(np.sqrt(np.linalg.inv(information)[1, 1]), rel=1e-3)


def test_intervals_agree_with_the_bootstrap(rows):
    y, risk = rows
    drawn = metrics.as_dict(metrics.evaluate(y, risk, threshold=0.3, bootstrap=300))["intervals"]
    for name, found in (
        ("auroc", analytic.auroc(y, risk)),
        ("oe", analytic.oe(y, risk)),
        ("slope", analytic.slope(y, risk)),
        ("net_benefit", analytic.net_benefit(y, risk, threshold=0.3)),
    ):
        width = drawn[name]["high"] - drawn[name]["low"]
        assert found[2] - found[1] == pytest.approx(width, rel=0.25), name
        assert found[0] == pytest.approx((drawn[name]["high"] + drawn[name]["low"]) / 2, abs=width / 3)


def test_net_benefit_is_the_one_of_the_metrics(rows):
    y, risk = rows
    found = metrics.evaluate(y, risk, threshold=0.3, bootstrap=50).overall.set_index("metric")
    assert analytic.net_benefit(y, risk, threshold=0.3)[0] == pytest.approx(
        found.loc["net_benefit", "value"]
    )


@pytest.mark.parametrize("y", [np.zeros(5), np.ones(5)])
def test_one_class_has_no_area_and_no_slope(y):
    risk = np.linspace(0.1, 0.5, 5)
    assert np.isnan(analytic.auroc(y, risk)).all()
    assert np.isnan(analytic.slope(y, risk)).all()
    assert np.isnan(analytic.oe(np.zeros(5), risk)).all()
