"""Frames in, frames out, with the risks of the artifact."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data.contract import check, sample
from data.errors import ContractError
from models.pyfunc import _load_pyfunc

CANARY = "canary-8c41"


@pytest.fixture(scope="module")
def model(written):
    return _load_pyfunc(str(written))


@pytest.fixture(scope="module")
def frame(tiny):
    return sample(tiny.mart, 50, seed=9).to_pandas()


@pytest.fixture(scope="module")
def risk(tiny):
    return tiny.risk(check(tiny.mart.columns, sample(tiny.mart, 50, seed=9)).rows)


def test_the_risk_of_each_row_under_the_frames_own_index(model, frame, risk):
    indexed = frame.set_index(pd.Index([f"bed-{n}" for n in range(50)]))
    answer = model.predict(indexed)
    assert list(answer.columns) == ["risk"]
    assert answer.index.equals(indexed.index)
    np.testing.assert_array_equal(answer["risk"], risk)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f[f.columns[::-1]],
        lambda f: f.convert_dtypes(),
        lambda f: f.astype({"sex": "category", "reason_1": "category"}),
        lambda f: f.astype({"asthma": "float64", "pain": "float64"}),
        lambda f: f.astype(object).where(f.notna(), None),
    ],
    ids=["reversed", "nullable", "categorical", "doubles", "objects"],
)
def test_however_a_frame_holds_its_columns(model, frame, risk, change):
    np.testing.assert_array_equal(model.predict(change(frame))["risk"], risk)


def test_a_column_that_is_absent_is_missing_in_every_row(model, frame):
    without = model.predict(frame.drop(columns=["spo2", "sex"]))
    missing = model.predict(frame.assign(spo2=np.nan, sex=None))
    np.testing.assert_array_equal(without["risk"], missing["risk"])


def test_no_rows_give_no_risks(model, frame):
    assert model.predict(frame.iloc[:0]).shape == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hart_rate": 80}, "unknown field: hart_rate"),
        ({"heart_rate": 980.0}, "heart_rate: outside 20 to 300 /min"),
        ({"heart_rate": CANARY}, "column heart_rate: expected number, found"),
        ({"sex": CANARY}, "sex: not an allowed value"),
        ({"age": None}, "age: required"),
        ({"asthma": 0.5}, "asthma: not a flag"),
        ({"heart_rate": [*range(60, 109), CANARY]}, "column heart_rate: values of several types"),
    ],
)
def test_rows_that_do_not_fit_are_refused_without_their_values(model, frame, change, message):
    with pytest.raises(ContractError, match=message) as caught:
        model.predict(frame.assign(**change))
    assert CANARY not in str(caught.value)
