"""Contributions from tables are those of XGBoost, of shap's own code and of Shapley's definition."""

from __future__ import annotations

import json
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from data import marts
from data.contract import check, sample
from models import catalog, explain, tables
from models.explain import Looked, Walked, explainer
from models.features import FeatureMap
from models.series import SERIES

COLUMNS = 6
ROWS = 120
ATOL = 1e-5
GROWING = {
    "depth": st.integers(1, 7),
    "trees": st.integers(1, 3),
    "rounds": st.integers(1, 8),
    "missing": st.sampled_from([0.0, 0.2, 0.7]),
    "base": st.sampled_from([None, 0.02, 0.9]),
    "monotone": st.booleans(),
    "ordinal": st.booleans(),
    "seed": st.integers(0, 10_000),
}


def learned(rng, missing=0.2):
    """Few values, so that a path asks one column again and again; the last column says nothing."""
    X = rng.integers(-2, 9, (ROWS, COLUMNS)).astype(np.float32) / 2
    X[:, -2] = rng.random(ROWS) < 0.5
    X[rng.random(X.shape) < missing] = np.nan
    X[:, -1] = 1.5
    return X


def grow(X, *, depth=5, trees=1, rounds=8, base=None, monotone=False, ordinal=False, seed=0, **more):
    rng = np.random.default_rng(seed)
    felt = np.nan_to_num(X[:, 0]) * np.nan_to_num(X[:, 1]) + rng.normal(size=len(X))
    described = {
        "objective": "reg:squarederror" if ordinal else "binary:logistic",
        "max_depth": depth,
        "num_parallel_tree": trees,
        "min_child_weight": 0.1,
        "learning_rate": 0.5,
        "subsample": 0.8,
        "seed": seed,
        "nthread": 1,
        **({} if base is None else {"base_score": base}),
        **({"monotone_constraints": (1, -1) + (0,) * (X.shape[1] - 2)} if monotone else {}),
        **more,
    }
    label = felt if ordinal else felt > np.median(felt)
    return xgb.train(described, xgb.DMatrix(X, label=label, nthread=1), rounds)


def cuts(booster):
    """Column -> the conditions of its splits."""
    found = {}
    for tree in saved(booster)["learner"]["gradient_booster"]["model"]["trees"]:
        for node, left in enumerate(tree["left_children"]):
            if left >= 0:
                found.setdefault(tree["split_indices"][node], []).append(tree["split_conditions"][node])
    return found


def saved(booster):
    return json.loads(bytes(booster.save_raw("json")))


def asked(booster, columns, rng, rows=40):
    """Rows on the splits, just beside them, far from them, and without values."""
    X = rng.normal(0, 3, (rows, columns)).astype(np.float32)
    for column, of in cuts(booster).items():
        at = np.array(of, dtype=np.float32)
        near = np.concatenate([at, np.nextafter(at, np.float32(-np.inf)), at + 1])
        X[:, column] = rng.choice(near, rows)
    X[rng.random(X.shape) < 0.2] = np.nan
    X[0] = np.nan
    return X


def alone(booster, columns):
    """Each column by itself."""
    found = explainer(booster, np.arange(columns))
    assert isinstance(found, Looked)
    return found


def walked(booster, X):
    return booster.predict(xgb.DMatrix(X, nthread=1), pred_contribs=True).astype(np.float64)


@settings(max_examples=100)
@given(**GROWING)
def test_of_any_trees_they_are_those_of_xgboost(**how):
    rng = np.random.default_rng(how["seed"])
    learn = learned(rng, how.pop("missing"))
    booster = grow(learn, **how)
    found = alone(booster, COLUMNS)
    X = np.vstack([learn, asked(booster, COLUMNS, rng)])
    reference = walked(booster, X)
    said = found.contributions(X)
    np.testing.assert_allclose(said, reference[:, :-1], rtol=0, atol=ATOL)
    assert found.bias == pytest.approx(reference[0, -1], abs=ATOL)
    assert not said[:, -1].any(), "the column that says nothing"
    margin = booster.inplace_predict(X, predict_type="margin")
    np.testing.assert_allclose(said.sum(axis=1) + found.bias, margin, rtol=0, atol=ATOL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_of_any_trees_they_are_those_of_shaps_own_code(seed):
    """By its own C, in doubles: left to itself it asks XGBoost. Infinities too, which XGBoost refuses.

    One tree a round: of several it makes several outputs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its colour maps use what Matplotlib means to remove
        import shap

    rng = np.random.default_rng(seed)
    learn = learned(rng)
    booster = grow(learn, depth=1 + seed, monotone=seed % 2 == 0, base=0.9, seed=seed)
    X = np.vstack([learn, asked(booster, COLUMNS, rng)])
    X[5], X[6] = np.inf, -np.inf
    explained = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    explained.model.model_type = "internal"
    found = alone(booster, COLUMNS)
    values = explained.shap_values(X, check_additivity=False)
    np.testing.assert_allclose(found.contributions(X), values, rtol=0, atol=ATOL)


def expected(tree, x, known, node=0):
    """What a tree says when some columns are ``known``: Lundberg 2018, arXiv 1802.03888, algorithm 1."""
    left, right = tree["left_children"][node], tree["right_children"][node]
    if left < 0:
        return tree["split_conditions"][node]
    column, cut = tree["split_indices"][node], np.float32(tree["split_conditions"][node])
    if column in known:
        goes_left = tree["default_left"][node] if math.isnan(x[column]) else x[column] < cut
        return expected(tree, x, known, left if goes_left else right)
    rows = tree["sum_hessian"]
    both = (rows[side] * expected(tree, x, known, side) for side in (left, right))
    return sum(both) / rows[node]


def defined(booster, x):
    """Shapley's own sum over all sets of columns."""
    trees = saved(booster)["learner"]["gradient_booster"]["model"]["trees"]
    columns = range(len(x))
    worth = {
        known: sum(expected(tree, x, known) for tree in trees)
        for size in range(len(x) + 1)
        for known in combinations(columns, size)
    }

    def joins(column, known):
        weight = math.factorial(len(known)) * math.factorial(len(x) - len(known) - 1)
        return weight * (worth[tuple(sorted((*known, column)))] - worth[known])

    return [
        sum(joins(c, known) for known in worth if c not in known) / math.factorial(len(x))
        for c in columns
    ]


def test_they_are_shapleys_own_sum():
    learn = learned(np.random.default_rng(3))
    booster = grow(learn, depth=4, rounds=3, trees=2)
    X = asked(booster, COLUMNS, np.random.default_rng(4), rows=12)
    X[1], X[2] = np.inf, -np.inf
    found = alone(booster, COLUMNS).contributions(X)
    np.testing.assert_allclose(found, [defined(booster, x) for x in X], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", catalog.names())
def test_of_every_model_in_the_catalog_they_are_those_of_xgboost_feature_by_feature(name):
    spec = catalog.load(name)
    mart = marts.load(spec.mart)
    features = FeatureMap.of(mart, spec.features, spec.lookback)
    inputs = mart.select(features.inputs)
    rows = check(inputs, sample(mart, 300, 1).select([c.name for c in inputs])).rows
    if spec.lookback:
        rows = {**rows, SERIES: np.arange(300) // 10, mart.order: np.arange(300.0) % 10}
    X = features.matrix(rows)
    booster = grow(
        X,
        depth=spec.boosting.max_depth,
        rounds=6,
        trees=spec.boosting.trees_a_round,
        ordinal=spec.triage is not None,
        colsample_bytree=0.3,
        monotone_constraints=features.constraints(spec.monotone),
    )
    widths = [len(feature.parts) for feature in features.features]
    found = explainer(booster, np.repeat(np.arange(len(widths)), widths))
    assert isinstance(found, Looked)
    reference = walked(booster, X)
    said = found.contributions(X)
    assert said.shape == (300, len(features.features))
    np.testing.assert_allclose(said, features.by_feature(reference[:, :-1]), rtol=0, atol=ATOL)
    assert found.bias == pytest.approx(reference[0, -1], abs=ATOL)


@pytest.fixture(scope="module")
def found():
    """What explains trees of several depths."""
    return alone(grow(learned(np.random.default_rng(0)), depth=6, rounds=12), COLUMNS)


@pytest.fixture
def rows():
    rng = np.random.default_rng(8)
    return np.vstack([learned(rng) for _ in range(5)])


def test_a_row_is_explained_bit_for_bit_alike_in_whatever_company(found, rows, monkeypatch):
    one_by_one = np.vstack([found.contributions(rows[i : i + 1]) for i in range(len(rows))])
    assert len(rows) > explain.FEW
    assert found.contributions(rows).tobytes() == one_by_one.tobytes()
    assert found.contributions(rows[::-1])[::-1].tobytes() == one_by_one.tobytes()
    assert found.contributions(np.asfortranarray(rows)).tobytes() == one_by_one.tobytes()
    monkeypatch.setattr(explain, "FEW", 0)
    for size in (1, 7, 64):
        monkeypatch.setattr(explain, "BLOCK", size)
        assert found.contributions(rows).tobytes() == one_by_one.tobytes()


def test_threads_do_not_disturb_each_other(found, rows):
    expected_ = found.contributions(rows).tobytes()
    parts = [rows[:3], rows] * 20
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(found.contributions, parts))
    assert all(of.tobytes() == expected_[: of.nbytes] for of in said)


def test_no_rows_and_no_trees_of_more_than_a_leaf(found):
    assert found.contributions(np.empty((0, COLUMNS), np.float32)).shape == (0, COLUMNS)
    X = learned(np.random.default_rng(0))
    leaves = alone(grow(X, depth=5, rounds=3, min_child_weight=1e6), COLUMNS)
    assert not leaves.contributions(X).any()
    assert leaves.bias == pytest.approx(walked(grow(X, rounds=3, min_child_weight=1e6), X)[0, -1])


def test_the_same_trees_give_the_same_tables(found):
    again = alone(grow(learned(np.random.default_rng(0)), depth=6, rounds=12), COLUMNS)
    for name in ("column", "low", "high", "gap", "asked", "asks", "into", "intos", "start", "numbers"):
        assert getattr(found.tables, name).tobytes() == getattr(again.tables, name).tobytes()
    assert found.bias == again.bias


@pytest.mark.parametrize(
    "more",
    [{"booster": "dart", "rate_drop": 0.5}, {"objective": "count:poisson"}, {"base_score": 0.5}],
    ids=["weighted trees", "another scale", "too large"],
)
def test_what_has_no_tables_is_explained_by_xgboost(more, rows, monkeypatch):
    if "base_score" in more:
        monkeypatch.setattr(tables, "LARGEST", 50)
    booster = grow(rows, rounds=4, **more)
    output = np.array([0, 0, 1, 2, 2, 2])
    found = explainer(booster, output)
    assert isinstance(found, Walked)
    reference = walked(booster, rows)
    summed = np.add.reduceat(reference[:, :-1], [0, 2, 3], axis=1)
    np.testing.assert_allclose(found.contributions(rows), summed, rtol=0, atol=1e-12)
    assert found.bias == reference[0, -1]


def test_tables_and_xgboost_agree_on_the_same_trees(found, rows, monkeypatch):
    monkeypatch.setattr(tables, "LARGEST", 0)
    booster = grow(learned(np.random.default_rng(0)), depth=6, rounds=12)
    native = explainer(booster, np.arange(COLUMNS))
    assert isinstance(native, Walked)
    np.testing.assert_allclose(found.contributions(rows), native.contributions(rows), rtol=0, atol=ATOL)
    assert found.bias == pytest.approx(native.bias, abs=ATOL)


@pytest.mark.parametrize("change", ["a split that no row came to", "a split on categories"])
def test_trees_that_are_not_understood_are_left_to_xgboost(change, rows):
    model = saved(grow(rows, rounds=2))
    tree = model["learner"]["gradient_booster"]["model"]["trees"][1]
    if change == "a split on categories":
        tree["split_type"][0] = 1
    else:
        tree["sum_hessian"][tree["left_children"][0]] = 0.0
    assert tree["left_children"][tree["left_children"][0]] >= 0
    learner = explain.msgspec.convert(model, explain._Model).learner
    assert not learner.gradient_booster.model.trees[1].known
    assert learner.gradient_booster.model.trees[0].known


def test_two_columns_worked_by_hand():
    """Three splits and no gaps: one table for the whole tree."""
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    settings_ = {"max_depth": 2, "objective": "reg:squarederror", "base_score": 0.0, "lambda": 0}
    label = [0.0, 1.0, 2.0, 7.0]
    booster = xgb.train({**settings_, "eta": 1, "nthread": 1}, xgb.DMatrix(X, label=label), 1)
    found = alone(booster, 2)
    # Means by column: 2.5; 0.5 and 4.5 of the first, 1 and 4 of the second.
    assert found.bias == pytest.approx(2.5)
    # Row (1, 1): 1/2 (4.5 - 2.5) + 1/2 (7 - 4) for the first column.
    np.testing.assert_allclose(found.contributions(X)[3], [2.5, 2.0], atol=1e-6)
    np.testing.assert_allclose(found.contributions(X)[0], [-1.5, -1.0], atol=1e-6)
    assert len(found.tables.start) == 2
