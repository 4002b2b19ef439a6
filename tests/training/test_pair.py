"""A matrix that lies in a file is the matrix, and trees that read it in pages are the trees."""

import numpy as np
import pytest
import xgboost as xgb

from data.marts.ed_visit import MART
from models import catalog
from models.calibration import sigmoid
from models.features import FeatureMap
from models.metrics import auroc
from models.spec import Boosting
from training import fit, pair
from training.pair import Masked, Pair

FEATURES = FeatureMap.of(MART, catalog.load("ed_admission").features)


@pytest.fixture
def halves(cohort):
    first = np.arange(len(cohort)) < 0.6 * len(cohort)
    return first, ~first


@pytest.mark.parametrize("block", [37, 1_000_000])
def test_the_rows_of_a_mask_whatever_the_size_of_a_block(cohort, halves, tmp_path, monkeypatch, block):
    monkeypatch.setattr(pair, "BLOCK", block)
    found = Pair.of(cohort, halves[1], FEATURES, tmp_path / "part")

    expected = FEATURES.matrix({name: values[halves[1]] for name, values in cohort.rows.items()})
    assert found.matrix.tobytes() == expected.tobytes()
    assert found.outcome.tolist() == cohort.outcome[halves[1]].tolist()
    assert np.vstack([matrix for matrix, _ in found.blocks()]).tobytes() == expected.tobytes()


def test_no_rows_make_an_empty_matrix(cohort, tmp_path):
    found = Pair.of(cohort, np.zeros(len(cohort), dtype=bool), FEATURES, tmp_path / "none")

    assert found.matrix.shape == (0, len(FEATURES.parts))
    assert list(found.blocks()) == []


def test_a_sample_is_drawn_from_the_seed_and_is_all_where_there_is_no_more(cohort, halves, tmp_path):
    found = Pair.of(cohort, halves[0], FEATURES, tmp_path / "part")
    draws = [found.sample(50, seed=seed) for seed in (1, 1, 2)]

    assert draws[0][0].tobytes() == draws[1][0].tobytes() != draws[2][0].tobytes()
    assert len(found.sample(10**9, seed=1)[1]) == len(found)


def test_past_the_budget_trees_read_pages_and_are_as_good(cohort, halves, tmp_path, monkeypatch):
    monkeypatch.setattr(pair, "BLOCK", 500)
    train = Pair.of(cohort, halves[0], FEATURES, tmp_path / "train")
    tune = Pair.of(cohort, halves[1], FEATURES, tmp_path / "tune")
    quick = Boosting(rounds=60, learning_rate=0.2, max_depth=3)

    def grown(budget):
        booster = fit.boosted(train, tune, settings=quick, seed=0, budget=budget)
        return booster, auroc(tune.outcome, sigmoid(fit.margins(booster, tune)))

    assert isinstance(train.dmatrix(budget=0), xgb.ExtMemQuantileDMatrix)
    assert not isinstance(train.dmatrix(budget=1 << 30), xgb.ExtMemQuantileDMatrix)
    (paged, value), (again, _), (_, held) = grown(0), grown(0), grown(1 << 30)
    assert bytes(paged.save_raw("ubj")) == bytes(again.save_raw("ubj"))
    assert value == pytest.approx(held, abs=0.02)
    assert list(tmp_path.glob("*.pages*")) == []  # XGBoost cleared its pages away


def test_masked_columns_are_made_when_asked_for(cohort, halves):
    found = Masked(cohort.rows, halves[0])

    assert found["age"].tolist() == cohort.rows["age"][halves[0]].tolist()
    assert set(found) == set(cohort.rows)
    assert len(found) == len(cohort.rows)
