"""Expected numbers are worked by hand or come from statsmodels and dcurves."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from models import curves, metrics

# Ten patients, three with the outcome. At 0.3: alerts 0.9 0.8 0.6 0.3, of which 0.9 and 0.6 are right.
TEN_Y = [1, 0, 1, 0, 0, 0, 1, 0, 0, 0]
TEN_RISK = [0.9, 0.8, 0.6, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.01]


def cohort(n):
    rng = np.random.default_rng(0)
    logit = rng.normal(-1.5, 1.2, n)
    risk = 1 / (1 + np.exp(-logit))
    return (rng.random(n) < risk).astype(float), risk


def sixty():
    """Sixty rows by a rule that any language repeats to the last bit."""
    i = np.arange(60)
    risk = ((37 * i + 11) % 97 + 1) / 100
    return ((7 * i * i + i) % 10 < 10 * risk).astype(float), risk


def test_net_benefit_by_hand():
    found = curves.net_benefit(TEN_Y, TEN_RISK, [0.0, 0.3, 0.5])
    # 0: everyone treated, no cost. 0.3: 2/10 - 2/10 3/7. 0.5: alerts 0.9 0.8 0.6, 2/10 - 1/10.
    assert found["model"].tolist() == pytest.approx([0.3, 0.2 - 0.2 * 3 / 7, 0.1])
    assert found["treat_all"].tolist() == pytest.approx([0.3, 0.3 - 0.7 * 3 / 7, 0.3 - 0.7])
    assert found["treat_none"].tolist() == [0, 0, 0]


def test_net_benefit_agrees_with_dcurves():
    # dcurves 1.1.7, dca(data, outcome, modelnames, thresholds)
    reference = {
        0.05: (0.563157894737, 0.578947368421),
        0.15: (0.457843137255, 0.529411764706),
        0.25: (0.394444444444, 0.466666666667),
        0.35: (0.342307692308, 0.384615384615),
        0.505: (0.281313131313, 0.191919191919),
        0.65: (0.238095238095, -0.142857142857),
        0.8: (0.183333333333, -1.0),
    }
    found = curves.net_benefit(*sixty(), list(reference))
    assert found["model"].tolist() == pytest.approx([of[0] for of in reference.values()], abs=1e-11)
    assert found["treat_all"].tolist() == pytest.approx([of[1] for of in reference.values()], abs=1e-11)


def test_net_benefit_weighs_rows():
    w = [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    found = curves.net_benefit(TEN_Y, TEN_RISK, [0.5], w)
    assert found["model"][0] == pytest.approx((3 - 1) / 11)


@pytest.mark.parametrize("thresholds", [[1.0], [-0.1], [[0.2]], [np.nan]])
def test_a_threshold_that_is_none_is_refused(thresholds):
    with pytest.raises(ValueError, match="thresholds"):
        curves.net_benefit(TEN_Y, TEN_RISK, thresholds)


def test_calibration_curve_by_hand():
    y, risk = [0] * 9 + [1] + [0] * 4 + [1] * 6, [0.1] * 10 + [0.5] * 10
    found = curves.calibration_curve(y, risk, bins=2)
    assert found["risk"].tolist() == pytest.approx([0.1, 0.5])
    assert found["observed"].tolist() == pytest.approx([0.1, 0.6])
    assert found["n"].tolist() == [10, 10]
    # statsmodels' Wilson interval of 1 and 6 of 10.
    expected = [sm.stats.proportion_confint(k, 10, method="wilson") for k in (1, 6)]
    assert found[["low", "high"]].to_numpy() == pytest.approx(np.array(expected))


def test_calibration_curve_keeps_ties_together():
    y, risk = cohort(1_000)
    found = curves.calibration_curve(y, risk.round(1))
    assert found["n"].sum() == 1_000
    assert found["risk"].is_monotonic_increasing
    assert len(curves.calibration_curve([0, 1, 1], [0.5] * 3)) == 1


def test_curves_start_end_and_hold_their_areas():
    y, risk = cohort(800)
    roc, pr = curves.roc_curve(y, risk.round(2)), curves.pr_curve(y, risk.round(2))
    assert roc[["fpr", "tpr"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(metrics.auroc(y, risk.round(2)))
    area = (np.diff(pr["recall"], prepend=0) * pr["precision"]).sum()
    assert area == pytest.approx(metrics.auprc(y, risk.round(2)))
    assert pr["precision"].iloc[-1] == pytest.approx(y.mean())


def test_histogram_counts_everyone():
    found = curves.risk_histogram([0, 1, 1, 0], [0.0, 0.05, 0.97, 1.0], bins=10)
    assert found["events"].tolist() == [1, *[0] * 8, 1]
    assert found["non_events"].tolist() == [1, *[0] * 8, 1]
