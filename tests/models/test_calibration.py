"""The straight line in log-odds against scikit-learn's, and where there is no line."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from data.errors import NotEnoughDataError
from models.calibration import Calibration, fit, sigmoid
from models.linear import Logistic


def drawn(seed: int, n: int = 4_000) -> tuple[np.ndarray, np.ndarray]:
    """Margins, and outcomes whose true log-odds are 0.4 + 0.7 margin."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(-1.5, 1.3, n)
    return margin, (rng.random(n) < sigmoid(0.4 + 0.7 * margin)).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_that_of_unpenalised_logistic_regression(seed):
    margin, outcome = drawn(seed)
    line = fit(margin, outcome)

    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
    reference.fit(margin[:, None], outcome)
    assert line.slope == pytest.approx(reference.coef_[0, 0], abs=1e-6)
    assert line.intercept == pytest.approx(reference.intercept_[0], abs=1e-6)


def test_at_the_line_the_mean_risk_is_the_share_of_events_and_errors_do_not_lean():
    """The score equations of the maximum: sum(y - p) = 0 and sum((y - p) margin) = 0."""
    margin, outcome = drawn(7)
    error = outcome - sigmoid(fit(margin, outcome).log_odds(margin))
    assert abs(error.sum()) < 1e-8
    assert abs((error * margin).sum()) < 1e-8


@pytest.mark.parametrize(
    ("times", "plus"), [(0.01, 0), (10, 0), (1000, 0), (1, 50), (1, -50), (100, -300)]
)
def test_a_line_is_found_however_far_off_the_margin_is(times, plus):
    """A site whose score is far from its patients still has one answer: the margin moved back."""
    margin, outcome = drawn(3)
    plain, far = fit(margin, outcome), fit(times * margin + plus, outcome)
    assert far.slope * times == pytest.approx(plain.slope, rel=1e-8)
    assert far.intercept + far.slope * plus == pytest.approx(plain.intercept, rel=1e-8)


def test_a_score_that_ranks_backwards_gets_a_falling_line():
    margin, outcome = drawn(3)
    assert fit(-margin, outcome).slope == pytest.approx(-fit(margin, outcome).slope, rel=1e-8)


@pytest.mark.parametrize(
    ("margin", "outcome", "why"),
    [
        ([0.1, 0.2, 0.3], [0, 0, 0], "both outcomes"),
        ([0.1, 0.2, 0.3], [1, 1, 1], "both outcomes"),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], "margins that differ"),
        ([-2, -1, 1, 2], [0, 0, 1, 1], "without error"),
    ],
)
def test_where_no_line_is_determined_it_says_so(margin, outcome, why):
    with pytest.raises(NotEnoughDataError, match=why):
        fit(np.array(margin, float), np.array(outcome, float))


def test_a_line_is_a_line():
    line = Calibration(intercept=-0.5, slope=2.0)
    np.testing.assert_array_equal(line.log_odds(np.array([-1.0, 0.0, 3.0])), [-2.5, -0.5, 5.5])
    np.testing.assert_array_equal(Calibration().log_odds(np.array([0.25])), [0.25])


def test_the_sigmoid_at_both_ends_and_in_the_middle():
    log_odds = np.array([-1e308, -800.0, -np.log(3), 0.0, np.log(3), 800.0, 1e308])
    np.testing.assert_allclose(sigmoid(log_odds), [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-16)
    x = np.linspace(-30, 30, 101)
    np.testing.assert_allclose(sigmoid(x) + sigmoid(-x), 1.0, atol=1e-15)


def test_logistic_regression_from_plain_numbers_by_hand():
    """Two columns, the second with gaps: (x - median) / scale, an indicator, the sum, the sigmoid."""
    model = Logistic(
        medians=(50.0, 2.0),
        scales=(10.0, 4.0),
        indicators=(1,),
        coefficients=(0.5, 1.0, -2.0),
        intercept=0.25,
    )
    matrix = np.array([[60, 4], [50, np.nan], [np.nan, 2]], dtype=np.float32)
    log_odds = np.array([0.25 + 0.5 + 0.5, 0.25 - 2.0, 0.25])
    np.testing.assert_allclose(model.risk(matrix), 1 / (1 + np.exp(-log_odds)), rtol=1e-12)
