"""Levels from one margin: calibrated in the large, cut at the least cost, agreeing as they can."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from data.errors import NotEnoughDataError
from models import ordinal
from models.calibration import sigmoid


def drawn(n=6000, seed=0):
    """A margin, and levels that follow it by a proportional-odds model of slope 0.8."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 1.3, n)
    felt = 0.8 * margin + rng.logistic(size=n)
    return margin, 5.0 - np.searchsorted([-3.0, -1.0, 1.2, 3.2], felt)


def test_the_line_and_offsets_of_a_proportional_odds_model_are_found_again():
    margin, level = drawn(60_000)
    line, found = ordinal.fit(margin, level, levels=5, urgent=2)

    assert (line.intercept, line.slope) == (pytest.approx(-1.2, abs=0.05), pytest.approx(0.8, abs=0.03))
    assert found.offsets == pytest.approx((-2.0, 0.0, 2.2, 4.2), abs=0.1)


def test_each_level_is_expected_as_often_as_it_was_observed():
    margin, level = drawn()
    line, found = ordinal.fit(margin, level, levels=5, urgent=2)
    shares = found.probabilities(line.log_odds(margin))

    assert shares.sum(axis=1) == pytest.approx(np.ones(len(level)))
    assert (shares >= 0).all()
    observed = [(level == k).mean() for k in range(1, 6)]
    assert shares.mean(axis=0) == pytest.approx(observed, abs=1e-6)
    event = sigmoid(line.log_odds(margin))
    assert found.at_most(line.log_odds(margin))[:, 1] == pytest.approx(event)


def test_a_level_that_hardly_occurs_is_said():
    margin, level = drawn(400)
    level[level == 1] = 2
    with pytest.raises(NotEnoughDataError, match=r"level 1 or more urgent: .* there are 0"):
        ordinal.fit(margin, level, levels=5, urgent=2)


def mean_cost(log_odds, level, cuts, costs):
    given = ordinal.assigned(log_odds, cuts, levels=len(costs))
    return costs[level.astype(int) - 1, given - 1].mean()


@pytest.mark.parametrize("weight", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_other_cut_points_cost_less(weight, seed):
    """Every rising pair of cut-points between the rows is tried."""
    rng = np.random.default_rng(seed)
    log_odds = rng.integers(0, 14, 40) / 2.0  # with ties
    level = np.clip(np.round(3.2 - log_odds / 3 + rng.normal(0, 0.7, 40)), 1, 3)
    costs = ordinal.cost(3, weight, urgent=2)
    found = ordinal.cuts(log_odds, level, costs)

    places = np.arange(-0.25, 7.5, 0.5)
    least = min(mean_cost(log_odds, level, pair, costs) for pair in combinations(places, 2))
    assert (np.diff(found) > 0).all()
    assert mean_cost(log_odds, level, found, costs) == pytest.approx(least)


def test_the_more_under_triage_weighs_the_more_urgent_the_levels():
    margin, level = drawn()
    given = [
        ordinal.assigned(
            margin, ordinal.cuts(margin, level, ordinal.cost(5, weight, urgent=2)), levels=5
        )
        for weight in (1.0, 4.0, 16.0)
    ]
    under = [(levels > level).mean() for levels in given]
    assert under[0] > under[1] > under[2]
    assert given[0].mean() > given[1].mean() > given[2].mean()


def test_no_other_cut_points_agree_better():
    margin, level = drawn(3000)
    found = ordinal.kappa_cuts(margin, level, levels=5)
    best = ordinal.kappa(level, ordinal.assigned(margin, found, levels=5), levels=5)

    rng = np.random.default_rng(1)
    for _ in range(300):
        other = np.sort(found + rng.normal(0, rng.choice([0.02, 0.2]), 4))
        assert ordinal.kappa(level, ordinal.assigned(margin, other, levels=5), levels=5) <= best + 1e-12


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(2)
    level, given = rng.integers(1, 6, 500), rng.integers(1, 6, 500)
    expected = cohen_kappa_score(level, given, weights="quadratic")
    assert ordinal.kappa(level.astype(float), given, levels=5) == pytest.approx(expected)
    assert np.isnan(ordinal.kappa(np.ones(9), np.ones(9), levels=5))
