"""Columns to matrix, worked by hand; and the sums back from its parts to features."""

from __future__ import annotations

import numpy as np
import pytest

from data import marts
from data.contract import check, sample
from data.errors import ContractError
from data.marts.ed_visit import MART
from models import catalog
from models.derived import DERIVED
from models.feature import show_cell
from models.features import FeatureMap

NAN = np.nan
COMPLAINT = MART["reason_1"].codes
VISITS = [
    {
        "age": 71,
        "sex": "male",
        "ambulance": True,
        "heart_rate": 120,
        "sbp": 80,
        "reason_1": "chest_pain",
        "reason_3": "dyspnoea",
        "reason_5": "chest_pain",
    },
    {"age": 34.5, "sex": "female", "ambulance": False, "heart_rate": 70, "sbp": 140},
    {"age": 20, "heart_rate": 70, "reason_4": "fever"},
]
NAMES = ("shock_index", "sex", "age", "reasons", "ambulance")
READ = ("age", "sex", "ambulance", "heart_rate", "sbp", *(f"reason_{n}" for n in range(1, 6)))


@pytest.fixture(scope="module")
def features():
    return FeatureMap.of(MART, NAMES)


@pytest.fixture(scope="module")
def rows():
    checked = check(MART.select(READ), VISITS)
    assert checked.reasons == {}
    return checked.rows


def test_a_matrix_worked_by_hand(features, rows):
    matrix = features.matrix(rows)

    assert matrix.dtype == np.float32
    parts = {name: matrix[:, index] for index, name in enumerate(features.parts)}
    assert features.parts[:4] == ("shock_index", "sex=female", "sex=male", "age")
    assert features.parts[-1] == "ambulance"
    np.testing.assert_array_equal(parts["shock_index"], np.float32([1.5, 0.5, NAN]))  # 120/80, 70/140
    np.testing.assert_array_equal(parts["sex=female"], np.float32([0, 1, NAN]))
    np.testing.assert_array_equal(parts["sex=male"], np.float32([1, 0, NAN]))
    np.testing.assert_array_equal(parts["age"], np.float32([71, 34.5, 20]))
    np.testing.assert_array_equal(parts["ambulance"], np.float32([1, 0, NAN]))
    # Several reasons at once, in any place and however often; with none given all is unknown.
    for complaint in COMPLAINT:
        wanted = [float(complaint in ("chest_pain", "dyspnoea")), NAN, float(complaint == "fever")]
        np.testing.assert_array_equal(parts[f"reasons={complaint}"], np.float32(wanted))


def test_what_an_explanation_shows(features, rows):
    shown = [{f.name: f.show(rows, i) for f in features.features} for i in range(3)]
    assert shown == [
        {
            "shock_index": 1.5,
            "sex": "male",
            "age": 71,
            "reasons": ["chest_pain", "dyspnoea"],
            "ambulance": True,
        },
        {"shock_index": 0.5, "sex": "female", "age": 34.5, "reasons": None, "ambulance": False},
        {"shock_index": None, "sex": None, "age": 20, "reasons": ["fever"], "ambulance": None},
    ]
    assert [type(row["age"]) for row in shown] == [int, float, int]


def test_inputs_are_the_columns_read_in_the_order_of_the_mart(features):
    assert features.inputs == tuple(column.name for column in MART.select(READ))


@pytest.fixture(scope="module")
def drawn():
    """Rows of a sample, and the features of a whole model."""
    spec = catalog.load("ed_admission")
    return check(MART.columns, sample(MART, 64, seed=11)).rows, FeatureMap.of(MART, spec.features)


def test_a_batch_is_its_rows_one_by_one_bit_for_bit(drawn):
    rows, features = drawn
    one_by_one = [features.matrix({n: v[i : i + 1] for n, v in rows.items()}) for i in range(64)]
    assert features.matrix(rows).tobytes() == np.vstack(one_by_one).tobytes()


def test_the_order_of_the_columns_and_columns_beside_them_are_irrelevant(drawn):
    rows, features = drawn
    needed = {name: rows[name] for name in reversed(features.inputs)}
    assert features.matrix(rows).tobytes() == features.matrix(needed).tobytes()


def test_no_rows_give_an_empty_matrix(drawn):
    rows, features = drawn
    empty = {name: values[:0] for name, values in rows.items()}
    assert features.matrix(empty).shape == (0, len(features.parts))


def test_the_order_of_the_reasons_is_a_habit_of_the_desk(features, rows):
    turned = {
        **rows,
        "reason_1": rows["reason_5"],
        "reason_5": rows["reason_3"],
        "reason_3": rows["reason_1"],
    }
    turned = {**turned, "reason_2": rows["reason_4"], "reason_4": rows["reason_2"]}
    assert features.matrix(turned).tobytes() == features.matrix(rows).tobytes()


def test_contributions_are_summed_to_features_exactly(features):
    """Eighths add without rounding, so the sums are exact and no part is lost or counted twice."""
    rng = np.random.default_rng(1)
    parts = rng.integers(-80, 80, (5, len(features.parts))) / 8
    grouped = features.by_feature(parts)

    width = len(COMPLAINT)
    assert grouped.shape == (5, len(NAMES))
    np.testing.assert_array_equal(grouped[:, 0], parts[:, 0])
    np.testing.assert_array_equal(grouped[:, 1], parts[:, 1] + parts[:, 2])
    np.testing.assert_array_equal(grouped[:, 2], parts[:, 3])
    np.testing.assert_array_equal(grouped[:, 3], parts[:, 4 : 4 + width].sum(axis=1))
    np.testing.assert_array_equal(grouped[:, 4], parts[:, 4 + width])
    np.testing.assert_array_equal(grouped.sum(axis=1), parts.sum(axis=1))


@pytest.mark.parametrize("name", sorted(DERIVED))
def test_a_derived_feature_reads_columns_of_its_mart_and_no_others(name):
    mart = marts.load("inpatient_stay" if name == "diagnosis_groups" else "ed_visit")
    rows = check(mart.columns, sample(mart, 64, seed=3)).rows
    feature = DERIVED[name](mart)
    assert feature.name == name
    assert feature.label.en
    assert feature.label.zh
    assert set(feature.reads) <= {column.name for column in mart.columns}
    assert all(mart[column].role == "input" for column in feature.reads)
    # What it does not declare it does not get: a feature that peeked would fail here.
    filled = feature.fill({column: rows[column] for column in feature.reads})
    assert filled.shape == (64, len(feature.parts))
    assert name not in mart.by_name, "a derived feature would hide a column"


def test_parts_of_all_features_have_names_of_their_own(drawn):
    _, features = drawn
    assert len(set(features.parts)) == len(features.parts)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("age", "lactate"), "no column lactate"),
        (("age", "sex", "age"), "a feature stands twice"),
        (("visit_id",), "visit_id: a text column"),
        (("arrived_at",), "arrived_at: a time column"),
    ],
)
def test_what_cannot_be_a_feature_is_named(names, message):
    with pytest.raises(ContractError, match=message):
        FeatureMap.of(MART, names)


@pytest.mark.parametrize(
    ("name", "cell", "shown"),
    [
        ("age", np.float64(71.0), 71),
        ("temperature", np.float64(36.6), 36.6),
        ("pain", np.float64(3.0), 3),
        ("pain", np.nan, None),
        ("asthma", np.float64(0.0), False),
        ("asthma", np.nan, None),
        ("sex", np.int16(1), "male"),
        ("sex", np.int16(-1), None),
        ("site", "county-01", "county-01"),
        ("site", None, None),
        ("arrived_at", np.datetime64("2024-01-02T03:04", "us"), "2024-01-02T03:04:00.000000"),
        ("arrived_at", np.datetime64("NaT", "us"), None),
    ],
)
def test_a_cell_as_json_shows_it(name, cell, shown):
    found = show_cell(MART[name], cell)
    assert found == shown
    assert type(found) is type(shown)


def test_what_is_shown_is_read_back_the_same(drawn):
    rows, _ = drawn
    shown = [{c.name: show_cell(c, rows[c.name][i]) for c in MART.columns} for i in range(64)]
    again = check(MART.columns, shown).rows
    for name, values in rows.items():
        same = values.tolist() == again[name].tolist() or values.tobytes() == again[name].tobytes()
        assert same, name
