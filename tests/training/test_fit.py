from pathlib import Path

import numpy as np
import pytest

from data.contract import check, sample
from data.errors import NotEnoughDataError
from data.marts.ed_visit import HISTORY, MART
from data.simulate import simulate
from models.calibration import fit as fit_calibration
from models.calibration import sigmoid
from models.catalog import load
from models.features import FeatureMap
from models.spec import Boosting
from training import fit
from training.pair import Pair

SPEC = load("ed_admission")
FEATURES = FeatureMap.of(MART, SPEC.features)
QUICK = Boosting(rounds=80, learning_rate=0.2)


def pair(matrix, outcome):
    return Pair(matrix=matrix, outcome=outcome, target=outcome, path=Path("nowhere"))


def grown(train, tune, **settings):
    """Trees and the calibrated risk that they give to any rows."""
    booster = fit.boosted(train, tune, **{"settings": QUICK, "seed": 0, **settings})
    line = fit_calibration(fit.margins(booster, tune), tune.outcome)
    return booster, lambda rows: sigmoid(line.log_odds(fit.margins(booster, rows)))


@pytest.fixture(scope="module")
def visits():
    table = simulate(visits=8000, seed=5)
    rows = check(MART.columns, table).rows
    outcome = SPEC.outcome.of(MART, rows)
    known = ~np.isnan(outcome) & (rows["age"] >= 18)
    matrix = FEATURES.matrix({name: values[known] for name, values in rows.items()})
    half = len(matrix) // 2
    return pair(matrix[:half], outcome[known][:half]), pair(matrix[half:], outcome[known][half:])


def withhold(matrix, names):
    gaps = matrix.copy()
    for feature, start in zip(FEATURES.features, FEATURES.starts, strict=True):
        if feature.name in names:
            gaps[:, start : start + len(feature.parts)] = np.nan
    return gaps


def test_copies_lose_the_history_whole_and_features_whole():
    rows = check(MART.columns, sample(MART, 400, seed=1)).rows
    matrix = FEATURES.matrix(rows)

    filled, source = fit.with_gaps(matrix, FEATURES, rng=np.random.default_rng(0))

    assert len(filled) == len(source) == 400 + int(0.3 * 400)
    assert np.array_equal(filled[:400], matrix, equal_nan=True)
    left = ~np.isnan(filled)
    assert np.array_equal(filled[left], matrix[source][left])
    history = [FEATURES.parts.index(column.name) for column in HISTORY]
    lost = np.isnan(filled[400:, history]).all(axis=1).mean()
    assert 0.35 < lost < 0.65


def test_a_withheld_history_does_not_read_as_disease(visits):
    """Trees that never saw a gap inflate the risk several times over; see decision 4."""
    train, test = visits
    names = {column.name for column in HISTORY}
    gaps = withhold(test.matrix, names)

    def oe(rows):
        _, risk = grown(rows, test)
        return test.outcome.sum() / risk(pair(gaps, test.outcome)).sum()

    matrix, source = fit.with_gaps(train.matrix, FEATURES, rng=np.random.default_rng(0))
    assert 0.85 < oe(pair(matrix, train.outcome[source])) < 1.15


def test_the_same_seed_gives_the_same_trees(visits):
    train, tune = visits

    first, second = (
        bytes(fit.boosted(train, tune, settings=QUICK, seed=3).save_raw("ubj")) for _ in range(2)
    )

    assert first == second


def test_shuffled_outcomes_teach_nothing(visits):
    from sklearn.metrics import roc_auc_score

    learn, test = visits
    matrix, outcome = learn.matrix, learn.outcome
    third = len(matrix) // 3

    def by_chance(seed):
        # Early stopping looks at outcomes too: the tuning rows are shuffled with the others.
        shuffled = np.random.default_rng(seed).permutation(outcome)
        train, tune = pair(matrix[third:], shuffled[third:]), pair(matrix[:third], shuffled[:third])
        booster = fit.boosted(train, tune, settings=QUICK, seed=seed)
        return roc_auc_score(test.outcome, booster.inplace_predict(test.matrix))

    assert np.mean([by_chance(seed) for seed in range(8)]) == pytest.approx(0.5, abs=0.07)


def test_calibration_makes_the_tuning_rows_agree(visits):
    train, tune = visits

    _, risk = grown(train, tune)

    assert risk(tune).mean() == pytest.approx(tune.outcome.mean(), abs=1e-6)


def test_the_regression_as_plain_numbers_is_scikit_learns(visits):
    from sklearn.metrics import roc_auc_score

    train, test = visits
    regression = fit.logistic(train, seed=0)

    risk = regression.risk(test.matrix)

    assert roc_auc_score(test.outcome, risk) > 0.75
    assert risk.mean() == pytest.approx(test.outcome.mean(), abs=0.03)


def test_a_feature_that_is_missing_everywhere_or_constant_does_no_harm(visits):
    train, tune = visits
    outcome = train.outcome
    odd = train.matrix.copy()
    odd[:, 0] = np.nan
    odd[:, 1] = 1

    assert np.isfinite(fit.logistic(pair(odd, outcome), seed=0).risk(odd)).all()
    booster = fit.boosted(pair(odd, outcome), tune, settings=QUICK, seed=0)
    assert booster.num_boosted_rounds() > 0


def test_one_class_or_few_events_are_said(visits):
    train, tune = visits
    healthy = pair(train.matrix, np.zeros_like(train.outcome))

    with pytest.raises(NotEnoughDataError, match="the training rows hold 0 of the rarer outcome"):
        fit.boosted(healthy, tune, settings=QUICK, seed=0)
    with pytest.raises(NotEnoughDataError, match="the tuning rows hold"):
        fit.boosted(train, pair(tune.matrix[:30], tune.outcome[:30]), settings=QUICK, seed=0)


def test_a_declared_direction_holds_whatever_the_rows_say(visits):
    train, tune = visits
    place = FEATURES.parts.index("age")
    inverted = FEATURES.constraints({"age": -1})
    booster = fit.boosted(train, tune, settings=QUICK, seed=0, monotone=inverted)

    rising = np.repeat(train.matrix[:1], 40, axis=0)
    rising[:, place] = np.linspace(18, 100, 40)
    margins = booster.inplace_predict(rising, predict_type="margin")
    assert (np.diff(margins) <= 1e-6).all()
    free = fit.boosted(train, tune, settings=QUICK, seed=0)
    assert (np.diff(free.inplace_predict(rising, predict_type="margin")) > 0.1).any()
