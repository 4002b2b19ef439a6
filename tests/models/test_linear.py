"""Logistic regression as a model of its own: its log-odds, and what each input adds to them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from data.errors import IntegrityError
from data.marts.ed_visit import MART
from models import artifact, calibration, catalog
from models.artifact import LOGISTIC, TREES
from models.calibration import sigmoid
from models.explain import Walked
from models.linear import Logistic, Weighed
from training import fit
from training.build import build
from training.split import Split

# Two columns of one feature and one of another, which alone has gaps: (60 - 50) / 10, and so on.
MODEL = Logistic(
    medians=(50.0, 2.0, 0.0),
    scales=(10.0, 4.0, 1.0),
    indicators=(1,),
    coefficients=(0.5, 1.0, 3.0, -2.0),
    intercept=0.25,
    means=(0.1, -0.2, 0.5, 0.25),
)
OUTPUT = np.array([0, 1, 0])
MATRIX = np.array([[60, 4, 1], [50, np.nan, 0]], dtype=np.float32)


def test_contributions_by_hand():
    found = Weighed(logistic=MODEL, output=OUTPUT)
    assert found.bias == pytest.approx(0.25 + 0.05 - 0.2 + 1.5 - 0.5)
    first = [0.5 * (1 - 0.1) + 3 * (1 - 0.5), 1 * (0.5 + 0.2) - 2 * (0 - 0.25)]
    second = [0.5 * (0 - 0.1) + 3 * (0 - 0.5), 1 * (0 + 0.2) - 2 * (1 - 0.25)]
    np.testing.assert_allclose(found.contributions(MATRIX), [first, second], rtol=1e-12)
    whole = found.bias + found.contributions(MATRIX).sum(axis=1)
    np.testing.assert_allclose(whole, MODEL.log_odds(MATRIX), rtol=1e-12)
    np.testing.assert_allclose(sigmoid(whole), MODEL.risk(MATRIX), rtol=1e-12)


def test_a_version_without_means_is_not_explained():
    old = Weighed(logistic=replace(MODEL, means=()), output=OUTPUT)
    with pytest.raises(IntegrityError, match="no training means"):
        old.contributions(MATRIX)
    with pytest.raises(IntegrityError, match="no training means"):
        _ = old.bias


def test_means_are_those_of_the_training_rows(tiny, cohort):
    """The explanations of the rows learned from add up to nothing, feature by feature."""
    learn = np.arange(len(cohort)) < 0.75 * len(cohort)
    matrix = tiny.features.matrix({name: values[learn] for name, values in cohort.rows.items()})
    rng = np.random.default_rng(0)
    matrix, _ = fit.with_gaps(matrix, tiny.features, rng=rng)
    found = Weighed(logistic=tiny.logistic, output=np.arange(matrix.shape[1]))
    np.testing.assert_allclose(found.contributions(matrix).mean(axis=0), 0, atol=1e-9)
    assert found.bias == pytest.approx(tiny.logistic.log_odds(matrix).mean())


@pytest.fixture(scope="module")
def linear(tiny, cohort):
    """``ed_admission`` answered by its logistic regression."""
    spec = replace(catalog.load("ed_admission"), learner="logistic", boosting=tiny.spec.boosting)
    spec = replace(spec, boosting=replace(spec.boosting, max_depth=2, rounds=5))
    learn = np.arange(len(cohort)) < 0.75 * len(cohort)
    split = Split(train=learn, validate=~learn, test=~learn, periods={}, seen_before=0)
    return build(spec, MART, cohort, split, provenance=tiny.manifest.provenance, seed=0, threads=1)


@pytest.fixture(scope="module")
def loaded(linear, tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear") / "artifact"
    artifact.write(folder, linear, evidence={})
    return artifact.load(folder)


def test_its_risk_is_the_calibrated_regression(loaded, cohort):
    matrix = loaded.features.matrix(cohort.rows)
    line = loaded.calibration
    log_odds = line.intercept + line.slope * loaded.logistic.log_odds(matrix)
    np.testing.assert_array_equal(loaded.risk(cohort.rows), sigmoid(log_odds))
    tuned = np.arange(len(cohort)) >= 0.75 * len(cohort)
    own = calibration.fit(loaded.logistic.log_odds(matrix[tuned]), cohort.outcome[tuned])
    assert (line.intercept, line.slope) == pytest.approx((own.intercept, own.slope))


def test_what_is_loaded_answers_and_explains_bit_for_bit_as_what_was_built(linear, loaded, cohort):
    before, after = linear.score(cohort.rows), loaded.score(cohort.rows)
    assert before.risk.tobytes() == after.risk.tobytes()
    assert before.contributions.tobytes() == after.contributions.tobytes()
    assert before.base_value.tobytes() == after.base_value.tobytes()
    assert after.additive.all()
    assert after.contributions.shape == (len(cohort), len(loaded.features.features))


def test_a_batch_is_scored_as_its_rows_one_by_one(loaded, cohort):
    whole = loaded.score(cohort.rows)
    for i in range(30):
        alone = loaded.score({name: values[i : i + 1] for name, values in cohort.rows.items()})
        assert alone.risk.tobytes() == whole.risk[i : i + 1].tobytes()
        assert alone.contributions.tobytes() == whole.contributions[i : i + 1].tobytes()


def test_the_trees_are_its_rival(linear, tiny, cohort):
    assert set(linear.rivals(cohort.rows)) == {TREES, *(c.name for c in linear.comparators)}
    assert set(tiny.rivals(cohort.rows)) == {LOGISTIC, *(c.name for c in tiny.comparators)}
    matrix = linear.features.matrix(cohort.rows)
    walked = Walked(booster=linear.booster, output=np.arange(matrix.shape[1]))
    margin = walked.contributions(matrix).sum(axis=1) + walked.bias
    np.testing.assert_allclose(linear.rival_risk(matrix), sigmoid(margin), atol=1e-5)


@pytest.mark.slow
def test_the_contributions_are_those_of_shap(linear, cohort):
    """shap's own LinearExplainer, of the design's columns one by one, on the margin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its colour maps use what Matplotlib means to remove
        import shap

    fitted = linear.logistic
    rows = {name: values[:200] for name, values in cohort.rows.items()}
    matrix = linear.features.matrix(rows)
    design = fitted.design(matrix, fitted.medians, fitted.scales, fitted.indicators)
    masker = shap.maskers.Independent(np.array([fitted.means]), max_samples=1)
    explainer = shap.LinearExplainer((np.array(fitted.coefficients), fitted.intercept), masker)
    values = explainer.shap_values(design)
    columns = matrix.shape[1]
    parts = values[:, :columns].copy()
    for place, column in enumerate(fitted.indicators):
        parts[:, column] += values[:, columns + place]
    np.testing.assert_allclose(
        linear.score(rows).contributions,
        linear.features.by_feature(parts) * linear.calibration.slope,
        atol=1e-9,
    )
