"""The simulated network: coherent, seasonal, uneven between sites, and quiet until it drifts."""

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from data.contract import check_mart
from data.errors import UsageError
from data.marts.ed_visit import HISTORY, MART, VITALS
from data.simulate import DRIFTS, simulate

TURN = "2021-07"
BED = ("admitted", "observation", "transferred")
NOT_ASKED = ("dead_on_arrival", "left_before_triage", "left_after_triage", "left_against_advice")
LUNGS = ("cough", "common_cold", "dyspnoea", "wheezing", "copd", "asthma", "pneumonia")
INJURY = (
    "sprain",
    "contusion",
    "laceration_body",
    "laceration_head",
    "bite",
    "burn",
    "injury_leg",
    "injury_arm",
)


@pytest.fixture(scope="module")
def table():
    return simulate(visits=30_000, seed=11)


@pytest.fixture(scope="module")
def visits(table):
    return table.to_pandas()


def drifted(kind, n=12_000):
    frame = simulate(visits=n, seed=3, drift=kind).to_pandas()
    late = frame["arrived_at"] >= TURN
    return frame[~late], frame[late]


def adults(frame):
    kept = frame[(frame["age"] >= 18) & ~frame["disposition"].isin(NOT_ASKED)]
    return kept, kept["disposition"].isin(BED).to_numpy()


def test_the_same_arguments_give_the_same_table_and_another_seed_another():
    again = simulate(visits=2_000, seed=5)
    assert simulate(visits=2_000, seed=5).equals(again)
    assert not simulate(visits=2_000, seed=6).equals(again)


@pytest.mark.parametrize("n", [1, 17, 2_000])
def test_any_number_of_visits_fits_the_contract(n):
    table = simulate(visits=n, seed=n)
    assert table.num_rows == n
    assert table.schema == MART.arrow_schema
    assert not check_mart(MART, table).refused


def test_the_months_are_inclusive_and_the_rows_in_order_of_arrival():
    arrived = simulate(visits=3_000, seed=1, first="2020-02", last="2020-03")["arrived_at"].to_numpy()
    assert arrived.min().astype("M8[D]") == np.datetime64("2020-02-01")
    assert arrived.max().astype("M8[D]") == np.datetime64("2020-03-31")
    assert (np.diff(arrived) >= np.timedelta64(0)).all()


def test_the_hour_and_weekday_are_those_of_the_arrival(visits):
    assert (visits["arrival_hour"] == visits["arrived_at"].dt.hour).all()
    assert (visits["arrival_weekday"] == visits["arrived_at"].dt.isocalendar().day).all()


def test_a_septic_patient_is_shocked_as_a_body_is(visits):
    septic = visits[visits["reason_1"].isin(["sepsis", "fever"]) & (visits["age"] >= 18)]
    low, other = septic[septic["sbp"] < 95], septic[septic["sbp"] >= 110]
    assert low["heart_rate"].mean() > other["heart_rate"].mean() + 12
    assert low["respiratory_rate"].mean() > other["respiratory_rate"].mean() + 3
    assert (low["temperature"] < 36).mean() > (other["temperature"] < 36).mean()
    assert (low["disposition"] == "discharged").mean() < (
        other["disposition"] == "discharged"
    ).mean() - 0.3


def test_hypertension_raises_pressure_and_age_raises_disease(visits):
    adult = visits[visits["age"].between(50, 80)]
    pressure = adult.groupby(adult["hypertension"].eq(other=True))["sbp"].mean()
    assert pressure[True] > pressure[False] + 6
    old, young = visits[visits["age"] >= 70], visits[visits["age"].between(18, 40)]
    for name in ("heart_failure", "dementia", "hypertension", "copd", "cancer"):
        assert old[name].eq(other=True).mean() > 2 * young[name].eq(other=True).mean()
    assert (visits["age"] < 18).mean() == pytest.approx(0.12, abs=0.02)


def test_a_patient_comes_back_with_the_same_history_and_never_after_death(visits):
    known = visits[visits["hypertension"].notna()].groupby("patient_id")
    assert (known.size() > 1).sum() > 1_500
    for name in ("sex", *(column.name for column in HISTORY)):
        assert (known[name].nunique().eq(1)).all()
    ordered = visits.assign(dead=visits["died"].eq(other=True)).groupby("patient_id")["dead"]
    assert ordered.sum().max() == 1
    assert not (ordered.cumsum() - visits["died"].eq(other=True)).any()


def test_a_clinic_measures_less_and_admits_nobody(visits):
    missing = visits[[column.name for column in VITALS] + ["pain", "acuity"]].isna()
    share = missing.groupby(visits["site_tier"]).mean().mean(axis=1)
    assert share["tertiary"] < share["county"] < share["grassroots"]
    by_site = missing["respiratory_rate"].groupby(visits["site"]).mean()
    assert by_site.filter(like="county").max() > 1.2 * by_site.filter(like="county").min()
    minor, serious = visits["acuity"] >= 4, visits["acuity"] <= 2
    assert missing.loc[minor, "spo2"].mean() > 1.5 * missing.loc[serious, "spo2"].mean()
    clinic = visits[visits["site_tier"] == "grassroots"]["disposition"]
    assert not clinic.isin(["admitted", "observation"]).any()
    assert (clinic == "transferred").mean() > 0.05


def test_winter_brings_coughs_and_summer_injuries(visits):
    month = visits["arrived_at"].dt.month
    winter, summer = visits[month.isin([12, 1, 2])], visits[month.isin([6, 7, 8])]
    assert winter["reason_1"].isin(LUNGS).mean() > 1.25 * summer["reason_1"].isin(LUNGS).mean()
    assert summer["reason_1"].isin(INJURY).mean() > 1.15 * winter["reason_1"].isin(INJURY).mean()


def test_one_year_is_like_another(visits):
    year = visits["arrived_at"].dt.year
    for name, slack in {"age": 3.0, "heart_rate": 2.0, "sbp": 2.2, "temperature": 0.05}.items():
        by_year = visits.groupby(year)[name].mean()
        assert by_year.max() - by_year.min() < slack
    rate = visits["disposition"].isin(BED).groupby(year).mean()
    assert rate.max() - rate.min() < 0.03


def test_the_outcome_is_no_formula_that_a_line_reads_off(visits):
    frame, y = adults(visits)
    names = [
        c.name for c in MART.columns if c.role == "input" and c.kind in ("number", "integer", "flag")
    ]
    numbers = frame[names].astype(float)
    told = pd.get_dummies(frame["reason_1"]).astype(float)
    gaps = numbers.isna().astype(float).add_suffix("_missing")
    early = (frame["arrived_at"] < "2020-01").to_numpy()
    trees = pd.concat([numbers, told], axis=1).to_numpy()
    line = pd.concat([numbers.fillna(numbers[early].median()), told, gaps], axis=1).to_numpy()
    line = StandardScaler().fit(line[early]).transform(line)
    boosted = XGBClassifier(
        n_estimators=90, max_depth=4, learning_rate=0.12, min_child_weight=8, n_jobs=1
    )
    boosted.fit(trees[early], y[early])
    linear = LogisticRegression(C=0.1, max_iter=500).fit(line[early], y[early])
    above = roc_auc_score(y[~early], boosted.predict_proba(trees[~early])[:, 1])
    below = roc_auc_score(y[~early], linear.predict_proba(line[~early])[:, 1])
    assert 0.15 < y.mean() < 0.22
    assert 0.8 < above < 0.9
    assert above > below + 0.01


@pytest.mark.parametrize("kind", DRIFTS)
def test_rows_before_the_drift_are_the_same_and_later_ones_are_not(kind):
    plain, changed = simulate(visits=3_000, seed=8), simulate(visits=3_000, seed=8, drift=kind)
    before = int(pc.sum(pc.less(plain["arrived_at"], np.datetime64(TURN, "us"))).as_py())
    assert 0 < before < 3_000
    assert changed.slice(0, before).equals(plain.slice(0, before))
    assert not changed.slice(before).equals(plain.slice(before))


# Half of a slow pulse is one that nobody has, and the contract says so.
@pytest.mark.parametrize("kind", sorted(set(DRIFTS) - {"fahrenheit", "half_pulse"}))
def test_a_drift_of_patients_or_practice_breaks_no_rule(kind):
    assert not check_mart(MART, simulate(visits=5_000, seed=2, drift=kind)).refused


def test_fahrenheit_breaks_the_contract_at_one_site_only():
    table = simulate(visits=8_000, seed=2, drift="fahrenheit", drift_from="2021-01")
    (refusal,) = check_mart(MART, table).refused
    broken = table.take(refusal.positions)
    assert refusal.column == "temperature"
    assert set(broken["site"].to_pylist()) == {"county-02"}
    measured = pc.and_(pc.equal(table["site"], "county-02"), pc.is_valid(table["temperature"]))
    late = pc.greater_equal(table["arrived_at"], np.datetime64("2021-01-01", "us"))
    assert broken.num_rows == pc.sum(pc.and_(measured, late)).as_py()


def test_a_new_site_is_older_and_measures_otherwise():
    before, after = drifted("new_site")
    new = after[after["site"] == "county-05"]
    assert "county-05" not in set(before["site"])
    assert 0.2 < len(new) / len(after) < 0.3
    assert new["age"].mean() > before["age"].mean() + 10
    assert new["respiratory_rate"].isna().mean() > before["respiratory_rate"].isna().mean() + 0.3
    assert not set(new["patient_id"]) & set(before["patient_id"])


def test_a_winter_surge_is_fever_cough_low_saturation_and_age():
    before, after = drifted("winter_surge")
    assert after["reason_1"].isin(LUNGS).mean() > before["reason_1"].isin(LUNGS).mean() + 0.1
    assert after["age"].mean() > before["age"].mean() + 4
    assert after["spo2"].mean() < before["spo2"].mean() - 0.5
    assert (after["temperature"] >= 38).mean() > 1.3 * (before["temperature"] >= 38).mean()


def test_admission_practice_changes_outcomes_and_no_input():
    plain = simulate(visits=12_000, seed=3)
    changed = simulate(visits=12_000, seed=3, drift="admission_practice")
    inputs = [column.name for column in MART.columns if column.available != "after"]
    late = plain["arrived_at"].to_numpy() >= np.datetime64(TURN)
    assert changed.select(inputs).equals(plain.select(inputs))
    rates = [adults(table.to_pandas()[late])[1].mean() for table in (plain, changed)]
    assert rates[1] < 0.75 * rates[0]


def test_the_pulse_of_half_a_minute_is_sent_by_one_site():
    plain, changed = (simulate(visits=8_000, seed=2, drift=kind) for kind in (None, "half_pulse"))
    late = plain["arrived_at"].to_numpy() >= np.datetime64(TURN)
    there = late & (plain["site"].to_numpy(zero_copy_only=False) == "county-01")
    before, after = (table["heart_rate"].to_numpy() for table in (plain, changed))
    assert np.array_equal(after[there], np.rint(before[there] / 2), equal_nan=True)
    assert np.array_equal(after[~there], before[~there], equal_nan=True)


def test_a_column_is_no_longer_recorded_at_one_site():
    plain, changed = (simulate(visits=8_000, seed=2, drift=kind) for kind in (None, "missingness"))
    late = plain["arrived_at"].to_numpy() >= np.datetime64(TURN)
    there = late & (plain["site"].to_numpy(zero_copy_only=False) == "county-03")
    assert np.isnan(changed["spo2"].to_numpy()[there]).all()
    others = [table["spo2"].to_numpy()[~there] for table in (plain, changed)]
    assert np.array_equal(*others, equal_nan=True)


def test_a_silent_site_s_visits_are_not_there_and_all_others_are():
    plain, changed = (simulate(visits=8_000, seed=2, drift=kind) for kind in (None, "silent_site"))
    late = pc.greater_equal(plain["arrived_at"], np.datetime64(TURN, "us"))
    gone = pc.and_(late, pc.equal(plain["site"], "county-04"))
    assert 0 < pc.sum(gone).as_py() < 1_000
    assert changed.equals(plain.filter(pc.invert(gone)))


def test_more_of_the_severely_ill_are_admitted_by_the_same_rule():
    """A line on risk and drift: who looks alike is admitted as often, there are more who look ill."""
    before, after = drifted("prevalence")
    ill = [(table["spo2"] < 90).mean() for table in (before, after)]
    assert ill[1] > 1.3 * ill[0]
    rates = [adults(table)[1].mean() for table in (before, after)]
    assert 1.2 * rates[0] < rates[1] < 2 * rates[0]


def test_beds_by_turn_admit_as_many_and_not_the_same():
    plain, changed = (simulate(visits=30_000, seed=3, drift=kind) for kind in (None, "label_shift"))
    inputs = [column.name for column in MART.columns if column.available != "after"]
    assert changed.select(inputs).equals(plain.select(inputs))
    late = plain["arrived_at"].to_numpy() >= np.datetime64(TURN)
    tables = [table.to_pandas()[late] for table in (plain, changed)]
    rates = [adults(table)[1].mean() for table in tables]
    assert rates[1] == pytest.approx(rates[0], rel=0.1)
    # Of the old, who are admitted most, fewer are; of the young more.
    old, young = ([adults(t[part(t["age"])])[1].mean() for t in tables] for part in (
        lambda age: age >= 75, lambda age: age < 40,
    ))  # fmt: skip
    assert old[1] < 0.9 * old[0]
    assert young[1] > 1.1 * young[0]


def test_years_of_one_network_keep_what_its_sites_leave_out():
    """The shares not recorded at each site, of two seeds: alike within a network, not without one."""

    def left_out(seed, network):
        table = simulate(visits=20_000, seed=seed, network=network).to_pandas()
        return table.groupby("site")["respiratory_rate"].apply(lambda column: column.isna().mean())

    same = (left_out(5, 1) - left_out(6, 1)).abs()
    other = (left_out(5, None) - left_out(6, None)).abs()
    assert same.mean() < 0.5 * other.mean()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"visits": 0}, "visits"),
        ({"drift": "flood"}, "drift"),
        ({"first": "2015-13"}, "2015-13"),
        ({"last": "2015-1"}, "last"),
        ({"first": "2021-02", "last": "2021-01"}, "2021-02"),
        ({"drift": "new_site", "drift_from": "2022-01"}, "drift_from"),
        ({"drift": "new_site", "drift_from": "July"}, "drift_from"),
    ],
)
def test_what_makes_no_sense_is_named(options, named):
    with pytest.raises(UsageError, match=named):
        simulate(**({"visits": 10, "seed": 1} | options))
