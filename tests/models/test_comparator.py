"""Bedside scores and the majority, as the risks that they are worth."""

import numpy as np
import pytest

from data.contract import check, sample
from data.marts.ed_visit import MART
from data.marts.icu_hour import MART as ICU
from models import comparator
from models.calibration import sigmoid
from models.comparator import MAJORITY
from models.scores import SCORES
from models.series import SERIES

ROWS = check(MART.columns, sample(MART, 500, seed=4)).rows


def test_a_score_becomes_the_share_of_those_who_have_it():
    score = np.repeat([0.0, 4.0], 500)
    outcome = np.concatenate([np.arange(500) < 50, np.arange(500) < 300]).astype(float)
    found = comparator.fit("news2", score, outcome)

    assert found.risk(np.array([0.0, 4.0])) == pytest.approx([0.1, 0.6], abs=1e-6)


def test_rows_without_a_score_have_a_risk_of_their_own():
    score = np.concatenate([np.tile([0.0, 1.0, 2.0], 100), np.full(200, np.nan)])
    outcome = np.concatenate([np.arange(300) % 7 == 0, np.arange(200) < 150]).astype(float)
    found = comparator.fit("acuity", score, outcome)

    assert found.risk(np.array([np.nan]))[0] == pytest.approx(0.75, abs=0.01)
    assert (found.risk(np.array([0.0, 1.0, 2.0])) < 0.3).all()


@pytest.mark.parametrize("score", [np.full(400, np.nan), np.full(400, 3.0)])
def test_what_tells_nobody_apart_gives_everybody_the_share(score):
    outcome = (np.arange(400) < 100).astype(float)
    found = comparator.fit(MAJORITY, score, outcome)

    risk = found.risk(np.array([np.nan, 3.0]))
    assert risk == pytest.approx([0.25, 0.25], abs=0.002)


def test_the_majority_has_no_score_and_the_others_are_the_bedsides():
    assert np.isnan(comparator.score(MAJORITY, ROWS, MART, None)).all()
    np.testing.assert_array_equal(comparator.score("news2", ROWS, MART, None), SCORES["news2"].of(ROWS))


def test_in_a_series_the_value_last_known_counts_for_as_long_as_the_lookback():
    hours = 6
    rows = {
        name: np.full(hours, np.nan)
        for name in ("respiratory_rate", "sbp", "spo2", "heart_rate", "temperature", "fio2")
    }
    rows |= {"icu_hour": np.arange(1.0, hours + 1), SERIES: np.zeros(hours, dtype=np.int64)}
    rows["respiratory_rate"][0], rows["sbp"][1] = 30.0, 90.0

    found = comparator.score("qsofa", rows, ICU, 4)
    np.testing.assert_array_equal(found, [1, 2, 2, 2, 1, np.nan])


def test_a_risk_is_one_even_at_the_ends_of_a_score():
    found = comparator.fit("news2", np.arange(200.0), (np.arange(200) % 3 == 0).astype(float))
    risk = found.risk(np.array([-1e6, 1e6]))
    assert ((risk >= 0) & (risk <= 1)).all()
    assert sigmoid(np.array([found.missing]))[0] == pytest.approx(0.335, abs=0.01)
