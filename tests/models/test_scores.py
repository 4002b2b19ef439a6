"""The bedside scores, case by case in tests/spec/scores.txt, and on the marts they are asked of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.contract import check, sample
from data.errors import ContractError
from data.marts import ed_visit, icu_hour, inpatient_stay
from models.scores import NEWS2, SCORES

TABLE = Path(__file__).resolve().parents[1] / "spec" / "scores.txt"
COLUMNS = {name for score in SCORES.values() for name in (*score.reads, *score.optional)}
NORMAL = {"respiratory_rate": 16, "spo2": 98, "sbp": 120, "heart_rate": 70, "temperature": 36.8}
MARTS = {
    "news2": (ed_visit.MART, icu_hour.MART),
    "qsofa": (ed_visit.MART, icu_hour.MART),
    "shock_index": (ed_visit.MART, icu_hour.MART),
    "sirs": (ed_visit.MART, icu_hour.MART),
    "acuity": (ed_visit.MART,),
    "prior_stays": (inpatient_stay.MART,),
}


def numbers(cells):
    parted = (cell.split("=") for cell in cells.split())
    return {name: np.nan if value == "missing" else float(value) for name, value in parted}


def cases():
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    parted = [line.partition("|") for line in lines]
    return [(numbers(left), numbers(right)) for left, bar, right in parted if bar and "=" in left]


def patient(known, without=()):
    return {name: np.array([known.get(name, np.nan)]) for name in COLUMNS if name not in without}


CASES = cases()


@pytest.mark.parametrize(("known", "scores"), CASES, ids=[str(known) for known, _ in CASES])
def test_the_table_of_cases_holds(known, scores):
    assert set(known) <= COLUMNS
    found = {name: SCORES[name].of(patient(known)).item() for name in scores}
    assert found == pytest.approx(scores, nan_ok=True)


def test_every_boundary_of_news2_stands_in_the_table():
    for name, (starts, _) in NEWS2.items():
        given = {known[name] for known, scores in CASES if "news2" in scores and set(known) == {name}}
        step = 0.1 if name == "temperature" else 1
        assert {round(float(start) - back, 1) for start in starts for back in (0, step)} <= given


@pytest.mark.parametrize("name", ["news2", "qsofa", "sirs"])
def test_what_was_not_measured_counts_as_normal(name):
    score = SCORES[name]
    for known, scores in CASES:
        if name in scores:
            wanted = np.nan_to_num(scores[name])
            assert score.of(patient(NORMAL | known)).item() == wanted


@pytest.mark.parametrize("name", ["news2", "sirs"])
def test_a_mart_without_the_optional_columns_counts_them_as_normal(name):
    score = SCORES[name]
    known = {"respiratory_rate": 30, "spo2": 85, "heart_rate": 140}
    assert score.of(patient(known, without=score.optional)) == score.of(patient(known))


@pytest.mark.parametrize("name", SCORES)
def test_it_reads_what_the_mart_has_and_gives_one_number_a_row(name):
    for mart in MARTS[name]:
        inputs = SCORES[name].inputs(mart)
        rows = check(mart.columns, sample(mart, 300, seed=2)).rows
        found = SCORES[name].of({column: rows[column] for column in inputs})
        assert found.shape == (300,)
        assert found.dtype == np.float64
        assert np.isfinite(found).any()
    assert SCORES[name].name == name


def test_supplemental_oxygen_is_read_where_the_mart_has_it():
    assert "fio2" in SCORES["news2"].inputs(icu_hour.MART)
    assert "fio2" not in SCORES["news2"].inputs(ed_visit.MART)


def test_a_mart_that_lacks_an_input_is_refused_by_name():
    with pytest.raises(ContractError, match="inpatient_stay has no column respiratory_rate"):
        SCORES["news2"].inputs(inpatient_stay.MART)
    with pytest.raises(ContractError, match="icu_hour has no column acuity"):
        SCORES["acuity"].inputs(icu_hour.MART)


def test_rows_are_scored_one_by_one_and_none_is_no_row():
    rows = check(icu_hour.MART.columns, sample(icu_hour.MART, 50, seed=3)).rows
    for score in (SCORES["news2"], SCORES["sirs"]):
        together = score.of(rows)
        alone = [score.of({n: v[i : i + 1] for n, v in rows.items()}).item() for i in range(50)]
        assert np.array_equal(together, alone, equal_nan=True)
        assert score.of({name: values[:0] for name, values in rows.items()}).shape == (0,)
