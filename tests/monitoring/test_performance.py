"""Measures of the answers whose outcome is known."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.performance import MEASURES, breaches, measure
from monitoring.window import Counts, Window


@pytest.fixture
def known(may):
    """A window of outcomes that are true of ``risk`` after ``bend`` in log-odds."""

    def known(n=3000, bend=lambda margin: margin):
        rng = np.random.default_rng(0)
        margin = rng.normal(-1, 1.3, n)
        outcome = (rng.random(n) < 1 / (1 + np.exp(-bend(margin)))).astype(float)
        return Window(
            period=may,
            whole=Counts(reference=None),
            sites={},
            outcome=outcome,
            risk=1 / (1 + np.exp(-margin)),
            patient=np.arange(n) // 2,
        )

    return known


def test_risks_that_are_true_raise_nothing(known, loaded):
    found = measure(known(), loaded.spec)
    assert found["reason"] is None
    assert found["calibration"]["oe"] == pytest.approx(1, abs=0.06)
    assert found["auroc"]["low"] < found["auroc"]["value"] < found["auroc"]["high"]
    assert set(found["intervals"]) == {"oe", "slope"}
    assert breaches(found, loaded.spec) == []


@pytest.mark.parametrize(
    ("bend", "measures"),
    [
        (lambda margin: margin - 0.8, {"oe"}),
        (lambda margin: margin + 0.9, {"oe"}),
        (lambda margin: -1 + 0.5 * (margin + 1), {"slope"}),
    ],
)
def test_risks_that_no_longer_hold_are_named(known, loaded, bend, measures):
    found = breaches(measure(known(bend=bend), loaded.spec), loaded.spec)
    assert {breach.measure for breach in found} == measures
    assert "outside 0.8 to 1.25" in str(found[0])


def test_a_small_window_raises_no_alarm_over_what_may_be_chance(known, loaded):
    found = measure(known(n=150, bend=lambda margin: margin - 0.3), loaded.spec)
    assert found["reason"] is None
    assert breaches(found, loaded.spec) == []


@pytest.mark.parametrize("n", [0, 49])
def test_too_few_outcomes_have_no_measures_but_a_reason(known, loaded, n):
    found = measure(known(n=n), loaded.spec)
    assert found["n"] == n
    assert "at least 50 and 10 are needed" in found["reason"]
    assert all(found[name] is None for name in MEASURES)
    assert breaches(found, loaded.spec) == []


def test_too_few_events(known, loaded):
    found = measure(known(n=500, bend=lambda margin: margin - 9), loaded.spec)
    assert found["events"] < 10
    assert found["auroc"] is None


def test_the_figures_at_promotion_stand_beside(known, loaded):
    then = measure(known(), loaded.spec)
    found = measure(known(n=10), loaded.spec, at_promotion={**then, "groups": [1, 2]})
    assert found["at_promotion"]["auroc"] == then["auroc"]
    assert set(found["at_promotion"]) == {"n", "events", *MEASURES}


def test_the_same_window_measures_the_same(known, loaded):
    assert measure(known(n=400), loaded.spec) == measure(known(n=400), loaded.spec)
