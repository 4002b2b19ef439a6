"""Expected numbers are worked by hand or come from scikit-learn, statsmodels and R."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from data.errors import NotEnoughDataError
from models import curves, metrics, resample

POINTS = ("auroc", "auprc", "brier", "brier_skill", "calibration")


def cohort(n=2_000, seed=0, *, slope=1.0, intercept=0.0):
    """Outcomes from a known recalibration of the log-odds of the risk."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.5, 1.2, n)
    y = rng.random(n) < 1 / (1 + np.exp(-(intercept + slope * logit)))
    return y.astype(float), 1 / (1 + np.exp(-logit))


def logit(risk):
    return np.log(risk / (1 - risk))


def row(evaluation, metric):
    return evaluation.overall.set_index("metric").loc[metric]


@pytest.mark.parametrize("decimals", [1, 2, 16], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("weighted", [False, True])
def test_point_measures_agree_with_scikit_learn(decimals, weighted):
    y, risk = cohort(1_000)
    risk = risk.round(decimals)
    w = np.random.default_rng(1).exponential(size=len(y)) if weighted else None
    assert metrics.auroc(y, risk, w) == pytest.approx(roc_auc_score(y, risk, sample_weight=w), abs=1e-12)
    assert metrics.auprc(y, risk, w) == pytest.approx(
        average_precision_score(y, risk, sample_weight=w), abs=1e-12
    )
    assert metrics.brier(y, risk, w) == pytest.approx(
        brier_score_loss(y, risk, sample_weight=w), abs=1e-12
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_calibration_agrees_with_statsmodels(weighted):
    y, risk = cohort(1_500, slope=0.6, intercept=0.4)
    w = np.random.default_rng(1).exponential(size=len(y)) if weighted else np.ones(len(y))
    x, family = logit(risk), sm.families.Binomial()
    level = sm.GLM(y, np.ones(len(y)), family=family, offset=x, freq_weights=w).fit(tol=1e-12)
    both = sm.GLM(y, sm.add_constant(x), family=family, freq_weights=w).fit(tol=1e-12)
    found = metrics.calibration(y, risk, w)
    assert found.intercept == pytest.approx(level.params[0], abs=1e-7)
    assert found.slope == pytest.approx(both.params[1], abs=1e-7)
    assert found.oe == pytest.approx((w @ y) / (w @ risk))


def sixty():
    """Sixty rows by a rule that any language repeats to the last bit."""
    i = np.arange(60)
    risk = ((37 * i + 11) % 97 + 1) / 100
    return ((7 * i * i + i) % 10 < 10 * risk).astype(float), risk


def test_measures_agree_with_r():
    # R 4.2.2: glm(y ~ offset(qlogis(risk))), glm(y ~ qlogis(risk)), wilcox.test's W over the pairs.
    y, risk = sixty()
    found = metrics.calibration(y, risk)
    assert found.intercept == pytest.approx(0.619565010557, abs=1e-9)
    assert found.slope == pytest.approx(0.573515940034, abs=1e-9)
    assert found.oe == pytest.approx(1.2137559002, abs=1e-9)
    assert metrics.brier(y, risk) == pytest.approx(0.216836666667, abs=1e-11)
    assert metrics.auroc(y, risk) == pytest.approx(0.741898148148, abs=1e-11)
    assert metrics.auroc(y, np.floor(4 * risk) / 4) == pytest.approx(0.739583333333, abs=1e-11)


def test_auroc_of_the_readings_that_defined_it():
    # Hanley & McNeil 1982, table I: 58 normal and 51 abnormal images in five ratings; W = 0.893.
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    rating = np.arange(1, 6) / 10
    y = np.repeat([0.0, 1.0], (sum(normal), sum(abnormal)))
    risk = np.r_[rating.repeat(normal), rating.repeat(abnormal)]
    assert metrics.auroc(y, risk) == pytest.approx(0.893, abs=5e-4)


def test_ici_is_the_known_distance_of_a_distorted_risk():
    y, risk = cohort(60_000, slope=0.6, intercept=0.4)
    truth = 1 / (1 + np.exp(-(0.4 + 0.6 * logit(risk))))
    assert metrics.calibration(y, risk).ici == pytest.approx(np.abs(truth - risk).mean(), abs=0.004)
    smooth = curves.smoothed_calibration(y, risk)
    expected = 1 / (1 + np.exp(-(0.4 + 0.6 * logit(smooth["risk"]))))
    assert np.abs(smooth["observed"] - expected).max() < 0.02


def test_ici_of_a_true_risk_is_near_nothing():
    assert metrics.calibration(*cohort(60_000)).ici < 0.006


def test_saturated_risks_are_measured():
    y, risk = cohort(500)
    risk[:20], risk[20:40] = 0.0, 1.0
    found = metrics.calibration(y, risk)
    assert np.isfinite([found.intercept, found.slope, found.oe, found.ici]).all()


@pytest.mark.parametrize(
    ("y", "risk"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]),
        ([1, 1, 0, 0], [0.1, 0.2, 0.7, 0.9]),
        ([0, 0, 0, 1, 1], [0.1, 0.2, 0.5, 0.5, 0.9]),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]),
    ],
    ids=["parted", "parted the wrong way", "parted but for a tie", "one risk"],
)
def test_a_slope_without_a_finite_value_is_nan(y, risk):
    found = metrics.calibration(y, risk)
    assert np.isnan(found.slope)
    assert np.isfinite(found.intercept)


# Ten patients, three with the outcome. At 0.3: alerts 0.9 0.8 0.6 0.3, of which 0.9 and 0.6 are right.
TEN_Y = [1, 0, 1, 0, 0, 0, 1, 0, 0, 0]
TEN_RISK = [0.9, 0.8, 0.6, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.01]


def test_at_threshold_by_hand():
    found = metrics.at_threshold(TEN_Y, TEN_RISK, 0.3)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.specificity == pytest.approx(5 / 7)
    assert found.ppv == pytest.approx(2 / 4)
    assert found.npv == pytest.approx(5 / 6)
    assert found.nne == pytest.approx(2)
    assert found.alerts_per_100 == pytest.approx(40)


def test_at_threshold_without_alerts_or_without_hits():
    none = metrics.at_threshold(TEN_Y, TEN_RISK, 0.95)
    assert np.isnan(none.ppv)
    assert np.isnan(none.nne)
    assert none.npv == pytest.approx(0.7)
    missed = metrics.at_threshold([0, 1], [0.9, 0.1], 0.5)
    assert missed.ppv == 0
    assert missed.nne == np.inf


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_one_class_is_nan_and_never_an_exception(outcome):
    y, risk = np.full(50, outcome), np.linspace(0.1, 0.9, 50)
    found = metrics.calibration(y, risk)
    assert np.isnan([metrics.auroc(y, risk), metrics.auprc(y, risk), metrics.brier_skill(y, risk)]).all()
    assert np.isnan([found.intercept, found.slope, found.ici]).all()
    assert np.isfinite([found.oe, metrics.brier(y, risk)]).all()
    assert np.isnan(curves.smoothed_calibration(y, risk)["observed"]).all()
    for frame in (
        curves.roc_curve(y, risk),
        curves.pr_curve(y, risk),
        curves.calibration_curve(y, risk),
    ):
        assert len(frame)
    made = metrics.evaluate(y, risk, threshold=0.5, bootstrap=50, groups={"half": np.arange(50) < 25})
    assert row(made, "auroc")[["value", "low", "high"]].isna().all()
    assert row(made, "brier")[["value", "low", "high"]].notna().all()
    assert np.isnan(metrics.paired_difference(y, risk, risk, bootstrap=50).value)


def test_weights_that_sum_to_nothing_are_nan():
    y, risk, w = [0, 1], [0.2, 0.8], [0, 0]
    assert np.isnan([metrics.auroc(y, risk, w), metrics.brier(y, risk, w)]).all()
    assert np.isnan(metrics.calibration(y, risk, w).slope)


@pytest.mark.parametrize("name", POINTS)
def test_no_rows_is_not_enough_data(name):
    with pytest.raises(NotEnoughDataError):
        getattr(metrics, name)([], [])


@pytest.mark.parametrize(
    ("y", "risk", "weight", "words"),
    [
        ([0, np.nan], [0.1, 0.2], None, "missing"),
        ([0, 2], [0.1, 0.2], None, "0 or 1"),
        ([0, 1], [0.1, 1.2], None, "risk"),
        ([0, 1], [0.1, np.nan], None, "risk"),
        ([0, 1], [0.1], None, "length"),
        ([0, 1], [0.1, 0.2], [1, -1], "weight"),
    ],
)
def test_what_is_no_outcome_risk_or_weight_is_refused(y, risk, weight, words):
    with pytest.raises(ValueError, match=words):
        metrics.auroc(y, risk, weight)


def test_options_of_evaluate_are_checked():
    y, risk = cohort(50)
    with pytest.raises(ValueError, match="threshold"):
        metrics.evaluate(y, risk, threshold=1.0)
    with pytest.raises(ValueError, match="group sex"):
        metrics.evaluate(y, risk, threshold=0.5, groups={"sex": ["f"]})
    with pytest.raises(ValueError, match="cluster"):
        metrics.evaluate(y, risk, threshold=0.5, cluster=[np.nan] * 50)


def naive(y, risk, cluster, weight, threshold, bootstrap, seed):
    """The same draws by copying rows, measured by the point functions."""
    rng, ids = np.random.default_rng(seed), np.unique(cluster)
    members = [np.flatnonzero(cluster == of) for of in ids]
    found = []
    for _ in range(bootstrap):
        rows = np.concatenate([members[k] for k in rng.integers(0, len(ids), len(ids))])
        y_, risk_, w_ = y[rows], risk[rows], weight[rows]
        calibration = metrics.calibration(y_, risk_, w_)
        found.append(
            {
                "auroc": roc_auc_score(y_, risk_, sample_weight=w_),
                "auprc": average_precision_score(y_, risk_, sample_weight=w_),
                "brier": brier_score_loss(y_, risk_, sample_weight=w_),
                "intercept": calibration.intercept,
                "slope": calibration.slope,
                "oe": calibration.oe,
                "nne": metrics.at_threshold(y_, risk_, threshold, w_).nne,
            }
        )
    return pd.DataFrame(found)


def test_intervals_are_those_of_a_loop_that_copies_rows():
    y, risk = cohort(900, slope=0.8)
    rng = np.random.default_rng(2)
    cluster, weight = rng.integers(0, 300, 900), rng.uniform(0.5, 2, 900)
    options = {"cluster": cluster, "weight": weight, "threshold": 0.3, "bootstrap": 79, "seed": 5}
    made = metrics.evaluate(y, risk.round(2), **options)
    expected = naive(y, risk.round(2), **options)
    for metric in expected:
        ordered = np.sort(expected[metric])
        # k = floor(0.025 * 80) = 2. Recalibration is not refitted in full: see resample.refit.
        tolerance = 0.05 * ordered.std() if metric in ("slope", "intercept") else 1e-9
        assert row(made, metric)["low"] == pytest.approx(ordered[1], abs=tolerance), metric
        assert row(made, metric)["high"] == pytest.approx(ordered[-2], abs=tolerance), metric


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    big = metrics.calibration(*cohort(200_000, 99, slope=0.8)).oe
    truth = {"auroc": metrics.auroc(*cohort(200_000, 99, slope=0.8)), "slope": 0.8, "oe": big}
    covered = dict.fromkeys(truth, 0)
    for seed in range(60):
        made = metrics.evaluate(*cohort(400, seed, slope=0.8), threshold=0.3, bootstrap=199, seed=seed)
        for metric, value in truth.items():
            covered[metric] += row(made, metric)["low"] <= value <= row(made, metric)["high"]
    # 60 intervals of 95 %: under 52 has a chance of 0.4 %, and the seeds are fixed.
    assert min(covered.values()) >= 52, covered


def test_rows_that_repeat_within_a_cluster_widen_the_interval():
    y, risk = cohort(300)
    patient = np.repeat(np.arange(300), 4)
    y, risk = y.repeat(4), risk.repeat(4)

    def width(cluster):
        made = row(metrics.evaluate(y, risk, threshold=0.3, cluster=cluster, bootstrap=300), "auroc")
        return made["high"] - made["low"]

    # Four copies of a row carry the information of one: the standard error is sqrt(4) times as large.
    assert width(patient) / width(None) == pytest.approx(2, rel=0.2)


def test_the_same_seed_gives_the_same_intervals_and_batches_do_not_matter(monkeypatch):
    y, risk = cohort(200)
    first = metrics.evaluate(y, risk, threshold=0.3, bootstrap=60)
    monkeypatch.setattr(resample, "BATCH", 1_000)
    pd.testing.assert_frame_equal(
        first.overall, metrics.evaluate(y, risk, threshold=0.3, bootstrap=60).overall
    )
    other = metrics.evaluate(y, risk, threshold=0.3, bootstrap=60, seed=1)
    assert row(first, "auroc")["low"] != row(other, "auroc")["low"]


def test_without_samples_there_are_figures_and_no_intervals():
    made = metrics.evaluate(*cohort(100), threshold=0.3, bootstrap=0).overall
    assert made["value"].notna().all()
    assert made[["low", "high"]].isna().all(axis=None)


def test_groups_have_the_figures_of_their_rows():
    y, risk = cohort(600)
    sex, w = np.array(["f", "m"])[np.arange(600) % 2], np.linspace(0.5, 2, 600)
    made = metrics.evaluate(y, risk, threshold=0.3, weight=w, groups={"sex": sex}, bootstrap=50).by_group
    of = made.set_index(["level", "metric"])
    for level in ("f", "m"):
        rows = sex == level
        assert of.loc[(level, "auroc"), "value"] == pytest.approx(
            metrics.auroc(y[rows], risk[rows], w[rows])
        )
        assert of.loc[(level, "slope"), "value"] == pytest.approx(
            metrics.calibration(y[rows], risk[rows], w[rows]).slope
        )
        assert of.loc[(level, "auroc"), "n"] == 300
        assert of.loc[(level, "auroc"), "events"] == y[rows].sum()
        assert of.loc[(level, "auroc"), "low"] < of.loc[(level, "auroc"), "value"]


def test_a_group_under_twenty_people_keeps_its_count_and_loses_its_figures():
    y, risk = cohort(200)
    site = np.array(["small"] * 19 + ["just"] * 20 + ["large"] * 161)
    made = metrics.evaluate(y, risk, threshold=0.3, groups={"site": site}, bootstrap=50).by_group
    small = made[made["level"] == "small"]
    assert small["suppressed"].all()
    assert small[["value", "low", "high", "events"]].isna().all(axis=None)
    assert (small["n"] == 19).all()
    assert not made.loc[made["level"] != "small", "suppressed"].any()


def test_people_are_counted_not_rows():
    y, risk = cohort(200)
    unit, patient = np.array(["a", "b"]).repeat(100), np.r_[np.arange(100) // 10, np.arange(100, 200)]
    options = {"threshold": 0.3, "groups": {"unit": unit}, "person": patient, "bootstrap": 20}
    made = metrics.evaluate(y, risk, **options).by_group
    assert set(made.loc[made["suppressed"], "level"]) == {"a"}


def test_a_missing_level_is_a_level_and_categories_keep_their_order():
    y, risk = cohort(120)
    band = pd.Categorical(
        ["5-17", "18-64", None] * 40, categories=["5-17", "18-64", "65+"], ordered=True
    )
    groups = {"age": band, "flag": np.array([1.0, 0.0, np.nan] * 40)}
    made = metrics.evaluate(y, risk, threshold=0.3, groups=groups, bootstrap=20).by_group
    assert made.loc[made["group"] == "age", "level"].unique().tolist() == ["5-17", "18-64", "missing"]
    assert made.loc[made["group"] == "flag", "level"].unique().tolist() == ["0.0", "1.0", "missing"]


def test_a_measure_that_few_samples_have_gets_no_interval():
    y, risk = np.r_[1.0, np.zeros(29)], np.linspace(0.9, 0.1, 30)
    made = metrics.evaluate(y, risk, threshold=0.5, bootstrap=100)
    # One patient in thirty: 36 % of the samples hold none.
    assert np.isfinite(row(made, "auroc")["value"])
    assert np.isnan(row(made, "auroc")["low"])
    assert np.isfinite(row(made, "brier")["low"])


def test_paired_difference_is_narrower_than_two_samples_would_be():
    y, risk = cohort(800)
    noisy = 1 / (1 + np.exp(-(logit(risk) + np.random.default_rng(1).normal(0, 0.3, 800))))
    found = metrics.paired_difference(y, risk, noisy, bootstrap=200)
    assert found.value == pytest.approx(metrics.auroc(y, risk) - metrics.auroc(y, noisy))
    assert found.low < found.value < found.high
    alone = row(metrics.evaluate(y, risk, threshold=0.3, bootstrap=200), "auroc")
    assert found.high - found.low < 0.5 * (alone["high"] - alone["low"])
    same = metrics.paired_difference(y, risk, risk, bootstrap=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_auroc_of_many_groups_at_once_is_that_of_each():
    y, risk = cohort(900)
    code = np.random.default_rng(1).integers(0, 30, 900)
    y[code == 7], y[code == 8] = 0, 1
    found = metrics.auroc_by(code, y, risk.round(1))
    expected = [metrics.auroc(y[code == k], risk[code == k].round(1)) for k in range(30)]
    assert found == pytest.approx(np.array(expected), nan_ok=True)
    assert np.isnan(found[[7, 8]]).all()
    assert np.isnan(found).sum() == 2


def test_a_group_number_for_each_row_is_asked_for():
    with pytest.raises(ValueError, match="code"):
        metrics.auroc_by([0], [0, 1], [0.1, 0.2])


def test_comparators_are_measured_in_the_same_samples():
    y, risk = cohort(700)
    rival, cluster = risk.round(1), np.arange(700) // 2
    options = {"threshold": 0.3, "cluster": cluster, "bootstrap": 199, "seed": 4}
    made = metrics.evaluate(y, risk, comparators={"score": rival}, **options)
    of = made.by_comparator.set_index(["comparator", "metric"]).loc["score"]
    alone = metrics.evaluate(y, rival, **options).overall.set_index("metric")
    assert of["value"].drop("model_minus_this").to_dict() == pytest.approx(alone["value"].to_dict())
    for metric in ("auroc", "auprc"):
        assert of.loc[metric].tolist() == pytest.approx(alone.loc[metric, ["value", "low", "high"]])
    gain = metrics.paired_difference(y, risk, rival, cluster=cluster, bootstrap=199, seed=4)
    assert of.loc["model_minus_this"].tolist() == pytest.approx([gain.value, gain.low, gain.high])
    assert of.loc[["slope", "oe", "brier"], ["low", "high"]].isna().all(axis=None)
    # Nothing about the model itself changes.
    pd.testing.assert_frame_equal(made.overall, metrics.evaluate(y, risk, **options).overall)


def test_comparators_as_dict_have_the_shape_of_the_model():
    y, risk = cohort(300)
    made = metrics.evaluate(
        y, risk, threshold=0.3, comparators={"news2": risk.round(1), "none": risk * 0}, bootstrap=60
    )
    found = metrics.comparators_as_dict(made)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == ["news2", "none"]
    assert set(found["news2"]) == set(metrics.as_dict(made)) - {"groups"} | {"model_minus_this"}
    assert found["none"]["auroc"]["value"] == 0.5
    assert found["none"]["calibration"]["slope"] is None
    gain = found["news2"]["model_minus_this"]["auroc"]
    assert gain["low"] <= gain["value"] <= gain["high"]


def test_as_dict_is_json_with_null_for_what_is_not_known():
    y, risk = cohort(200)
    site = np.array(["small"] * 5 + ["large"] * 195)
    made = metrics.evaluate(y, risk, threshold=0.999, groups={"site": site}, bootstrap=50)
    found = metrics.as_dict(made)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    keys = "n events auroc auprc brier brier_skill calibration at_threshold intervals groups"
    assert set(found) == set(keys.split())
    assert (found["n"], found["events"]) == (200, int(y.sum()))
    assert found["auroc"]["value"] == pytest.approx(metrics.auroc(y, risk))
    assert found["calibration"]["slope"] == pytest.approx(metrics.calibration(y, risk).slope)
    assert found["at_threshold"]["ppv"] is None
    assert found["intervals"]["ici"] == {"low": None, "high": None}
    large, small = found["groups"]
    assert isinstance(large["events"], int)
    assert small == {
        "group": "site",
        "level": "small",
        "n": 5,
        "events": None,
        "suppressed": True,
        "auroc": {"value": None, "low": None, "high": None},
        "slope": None,
        "oe": None,
        "brier": None,
        "sensitivity": None,
        "alerts_per_100": None,
        "intervals": {
            metric: {"low": None, "high": None}
            for metric in ("slope", "oe", "brier", "sensitivity", "alerts_per_100")
        },
    }
    assert large["intervals"]["oe"]["low"] < large["oe"] < large["intervals"]["oe"]["high"]
    assert metrics.as_dict(metrics.evaluate(y, risk, threshold=0.5, bootstrap=20))["groups"] == []


rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 99), st.integers(0, 3)), min_size=1, max_size=40
).map(lambda some: tuple(np.array(of, dtype=float) for of in zip(*some, strict=True)))


@settings(max_examples=40, deadline=None)
@given(rows)
def test_auroc_knows_only_the_order_of_the_risks(case):
    y, hundredths, w = case
    risk = hundredths / 100
    first = metrics.auroc(y, risk, w)
    assert metrics.auroc(y, risk**3, w) == pytest.approx(first, nan_ok=True)
    assert metrics.auroc(y, 1 - risk, w) == pytest.approx(1 - first, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(rows)
def test_a_weight_is_a_number_of_equal_rows(case):
    y, hundredths, w = case
    risk, times = hundredths / 100, w.astype(int)
    if times.sum() == 0:
        return
    many = y.repeat(times), risk.repeat(times)
    for name in ("auroc", "auprc", "brier", "brier_skill"):
        of = getattr(metrics, name)
        assert of(y, risk, w) == pytest.approx(of(*many), nan_ok=True, abs=1e-9), name
    weighted, copied = metrics.calibration(y, risk, w), metrics.calibration(*many)
    for name in ("intercept", "slope", "oe"):
        assert getattr(weighted, name) == pytest.approx(getattr(copied, name), nan_ok=True, abs=1e-6), (
            name
        )
    assert metrics.at_threshold(y, risk, 0.5, w).ppv == pytest.approx(
        metrics.at_threshold(*many, 0.5).ppv, nan_ok=True
    )


@settings(max_examples=25, deadline=None)
@given(rows)
def test_evaluate_takes_any_cohort_without_a_warning(case):
    y, hundredths, w = case
    made = metrics.evaluate(
        y, hundredths / 100, threshold=0.3, weight=w, groups={"g": hundredths > 50}, bootstrap=5
    )
    json.dumps(metrics.as_dict(made), allow_nan=False)
