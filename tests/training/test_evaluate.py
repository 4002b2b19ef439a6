"""The bundle of figures: what is in it, on which rows, and that it is null where nothing is known."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

from data.contract import sample
from data.errors import NotEnoughDataError
from data.marts import ed_visit, icu_hour
from data.simulate import simulate
from models import agreement, catalog, metrics, ordinal, utility
from models.cohort import NOBODY, select
from models.manifest import Provenance
from models.series import SERIES
from models.spec import Boosting
from training import answers
from training.answers import answered, around, explained
from training.build import build
from training.evaluate import evaluate, flat, tables
from training.split import Split

MEASURED = {"n", "events", "auroc", "auprc", "brier", "brier_skill", "calibration", "at_threshold"}
BUNDLE = MEASURED | {"intervals", "groups", "sites", "net_benefit", "weighted", "comparators", "triage"}
BUNDLE |= {"utility", "conformal", "novelty", "poor_inputs", "importance", "flow"}


def built(spec, mart, table):
    """A handful of trees, and the rows that they have not seen."""
    cohort = select(spec, mart, table.append_column("load_id", [["simulated"] * len(table)]))
    test = cohort.person % 3 == 0
    split = Split(train=~test, validate=test, test=test, periods={})
    few = replace(spec, boosting=Boosting(max_depth=3, learning_rate=0.3, rounds=12))
    provenance = Provenance(use="care", flow=cohort.flow)
    fitted = build(few, mart, cohort, split, provenance=provenance, seed=0, threads=1)
    return fitted, cohort.take(test)


@pytest.fixture(scope="module")
def triage():
    """``ed_triage``; some simulated visits are moved to the first level, of which there are none."""
    visits = simulate(visits=3_000, seed=3, first="2019-01", last="2019-12")
    first = pc.and_(pc.equal(visits["acuity"], 2), pc.greater(visits["heart_rate"], 95))
    level = pc.if_else(pc.fill_null(first, fill_value=False), 1, visits["acuity"])
    place = visits.column_names.index("acuity")
    visits = visits.set_column(place, visits.schema.field(place), level)
    return built(catalog.load("ed_triage"), ed_visit.MART, visits)


@pytest.fixture(scope="module")
def sepsis():
    """``sepsis`` on four of its columns and hours that belong to nobody, some of them missing."""
    rng = np.random.default_rng(2)
    lengths = rng.integers(4, 40, 300)
    stay = np.repeat(np.arange(300), lengths)
    hour = np.concatenate([np.cumsum(rng.choice([1, 1, 1, 2], n)) for n in lengths]).astype(float)
    last = np.repeat(hour[np.cumsum(lengths) - 1], lengths)
    ill = (rng.random(300) < 0.3)[stay]
    table = sample(icu_hour.MART, len(stay), 4)
    own = {
        "stay_id": [f"stay-{k}" for k in stay],
        "patient_id": [f"patient-{k // 2}" for k in stay],
        "icu_hour": hour,
        "heart_rate": np.round(80 + rng.normal(0, 10, len(stay)) + 25 * ill),
        "sepsis_6h": ill & (last - hour < 8),
    }
    for name, values in own.items():
        place = table.column_names.index(name)
        field = table.schema.field(name)
        table = table.set_column(place, field, [pc.cast(list(values), field.type)])
    spec = replace(
        catalog.load("sepsis"), features=("icu_hour", "age", "sex", "heart_rate"), alert_by="declared"
    )
    return built(replace(spec, lookback=6, alert_at=0.1), icu_hour.MART, table)


@pytest.fixture(scope="module")
def unseen(cohort):
    return cohort.take(np.arange(len(cohort)) >= 0.75 * len(cohort))


@pytest.fixture(scope="module")
def figures(tiny, unseen):
    return evaluate(tiny, unseen, ed_visit.MART, bootstrap=99)


def risk_of(fitted, cohort):
    return fitted.risk(cohort.rows, cohort.site)


def test_the_bundle_is_whole_and_is_json(figures):
    assert set(figures) == BUNDLE
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert set(figures["comparators"]) == {"logistic_regression", *_scores(), "majority"}
    for theirs in figures["comparators"].values():
        assert set(theirs) == MEASURED | {"intervals", "net_benefit", "model_minus_this"}
    assert set(figures["groups"][0]) == {
        "group",
        "level",
        "n",
        "events",
        "suppressed",
        "auroc",
        "slope",
        "oe",
        "brier",
        "sensitivity",
        "alerts_per_100",
        "intervals",
    }
    assert figures["triage"] is figures["utility"] is figures["weighted"] is None


def _scores():
    return {"news2", "qsofa", "shock_index", "acuity"}


def test_model_and_comparators_are_measured_on_the_very_same_rows(figures, tiny, unseen):
    risks = {"model": risk_of(tiny, unseen), **tiny.rivals(unseen.rows)}
    found = {"model": figures, **figures["comparators"]}
    for name, risk in risks.items():
        expected = metrics.auroc(unseen.outcome, risk)
        assert found[name]["auroc"]["value"] == pytest.approx(expected), name
        assert found[name]["n"] == len(unseen)
        assert found[name]["calibration"]["oe"] == pytest.approx(unseen.outcome.sum() / risk.sum())
    for name in risks.keys() - {"model"}:
        gain = found[name]["model_minus_this"]["auroc"]
        difference = found["model"]["auroc"]["value"] - found[name]["auroc"]["value"]
        assert gain["value"] == pytest.approx(difference)
        assert gain["low"] <= gain["value"] <= gain["high"]


def test_intervals_resample_patients(figures, tiny, unseen):
    made = metrics.evaluate(
        unseen.outcome,
        risk_of(tiny, unseen),
        cluster=unseen.cluster,
        threshold=tiny.spec.alert_at,
        bootstrap=99,
    )
    expected = made.overall.set_index("metric").loc["auroc"]
    assert figures["auroc"]["low"] == pytest.approx(expected["low"])
    strangers = replace(unseen, patient=np.full(len(unseen), NOBODY))
    assert len(np.unique(strangers.cluster)) < 20  # sites
    by_site = evaluate(tiny, strangers, ed_visit.MART, bootstrap=99)
    assert by_site["auroc"]["value"] == pytest.approx(figures["auroc"]["value"])
    assert by_site["auroc"]["low"] != figures["auroc"]["low"]


def test_the_same_seed_gives_the_same_figures(figures, tiny, unseen):
    assert evaluate(tiny, unseen, ed_visit.MART, bootstrap=99) == figures
    other = evaluate(tiny, unseen, ed_visit.MART, bootstrap=99, seed=1)
    assert other["auroc"]["value"] == figures["auroc"]["value"]
    assert other["auroc"]["low"] != figures["auroc"]["low"]


def test_net_benefit_lies_on_fifty_thresholds_of_the_declared_range(figures, tiny):
    found = figures["net_benefit"]
    assert (found["low"], found["high"]) == tiny.spec.benefit
    at = [point["threshold"] for point in found["curve"]]
    assert (len(at), at[0], at[-1]) == (50, *tiny.spec.benefit)
    assert {point["treat_none"] for point in found["curve"]} == {0.0}
    assert [
        point["threshold"] for point in figures["comparators"]["news2"]["net_benefit"]["curve"]
    ] == at


def test_weighted_figures_are_those_of_rows_counted_so_often(tiny, unseen):
    times = 1.0 + np.arange(len(unseen)) % 3
    weighted = evaluate(tiny, replace(unseen, weight=times), ed_visit.MART, bootstrap=20)["weighted"]
    expected = metrics.auroc(unseen.outcome, risk_of(tiny, unseen), times)
    assert weighted["auroc"]["value"] == pytest.approx(expected)
    assert weighted["n"] == len(unseen)
    assert "groups" not in weighted


def sites(sizes):
    return np.array([name for name, size in sizes.items() for _ in range(size)], dtype=object)


def test_sites_are_spread_and_the_small_ones_are_not_shown(tiny, unseen):
    size = len(unseen)
    where = sites({"a": 19, "b": 25, "c": 300, "d": size - 344})
    moved = replace(unseen, site=where, patient=np.arange(size))
    outcome = np.array(unseen.outcome)
    outcome[:19], outcome[19:44] = 1.0, np.arange(25) < 9
    moved = replace(moved, outcome=outcome)
    found = evaluate(tiny, moved, ed_visit.MART, bootstrap=0)["sites"]
    assert (found["count"], found["measured"]) == (4, 2)
    assert [row["site"] for row in found["rows"]] == ["d", "c", "b"]
    # 25 people are enough to be named, nine events are not enough to be measured.
    assert found["rows"][2] == {"site": "b", "n": 25, "events": 9, "auroc": None, "oe": None}
    risk = tiny.risk(moved.rows, where)
    measured = [metrics.auroc(outcome[where == name], risk[where == name]) for name in "cd"]
    assert found["rows"][1]["auroc"] == pytest.approx(measured[0])
    assert found["auroc"]["median"] == pytest.approx(np.mean(measured))
    low, high = np.quantile(measured, [0.1, 0.9])
    assert (found["auroc"]["low"], found["auroc"]["high"]) == pytest.approx((low, high))


def test_people_are_counted_at_a_site_and_not_rows(tiny, unseen):
    size = len(unseen)
    patient = np.arange(size)
    patient[:60] = np.arange(60) % 19
    moved = replace(unseen, site=sites({"a": 60, "b": size - 60}), patient=patient)
    found = evaluate(tiny, moved, ed_visit.MART, bootstrap=0)["sites"]
    assert [row["site"] for row in found["rows"]] == ["b"]


def test_a_single_site_is_no_spread(tiny, unseen):
    alone = replace(unseen, site=sites({"a": len(unseen)}))
    assert evaluate(tiny, alone, ed_visit.MART, bootstrap=0)["sites"] is None


def test_a_group_of_few_people_keeps_its_number_and_loses_its_figures(tiny, unseen):
    ages = np.full(len(unseen), 50.0)
    ages[:12] = 90
    few = replace(unseen, rows={**unseen.rows, "age": ages})
    groups = evaluate(tiny, few, ed_visit.MART, bootstrap=99)["groups"]
    [old] = [row for row in groups if row["level"] == "80+"]
    assert (old["n"], old["suppressed"], old["events"], old["sensitivity"]) == (12, True, None, None)
    [rest] = [row for row in groups if row["level"] == "40-64"]
    assert rest["intervals"]["alerts_per_100"]["low"] <= rest["alerts_per_100"]


def test_prediction_sets_novelty_and_importance(figures, tiny, unseen):
    everybody = figures["conformal"][0]
    assert (everybody["group"], everybody["class"], everybody["n"]) == ("", None, len(unseen))
    sets = tiny.sets(unseen.rows, tiny.margin(tiny.features.matrix(unseen.rows), unseen.site))
    held = sets[np.arange(len(unseen)), unseen.outcome.astype(int)]
    assert everybody["coverage"] == pytest.approx(held.mean())
    assert {row["group"] for row in figures["conformal"]} == {
        "",
        *{g["group"] for g in figures["groups"]},
    }

    percentile = tiny.novelty.percentile(unseen.rows)
    assert figures["novelty"]["above_95"] == pytest.approx((percentile > 0.95).mean())
    assert figures["novelty"]["above_999"] <= figures["novelty"]["above_99"]

    sizes = [row["mean_abs"] for row in figures["importance"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {row["feature"] for row in figures["importance"]} == set(tiny.spec.features)
    _, scored = explained(tiny, unseen)
    assert sizes[0] == pytest.approx(np.abs(scored.contributions).mean(axis=0).max())
    assert figures["importance"][0]["label"]["zh"]


def test_answers_do_not_depend_on_the_blocks_they_come_in(tiny, unseen, monkeypatch):
    whole = answered(tiny, unseen)
    monkeypatch.setattr(answers, "BLOCK", 100)
    pieces = answered(tiny, unseen)
    assert (pieces.margin == whole.margin).all()
    assert pieces.risk == pytest.approx(risk_of(tiny, unseen), abs=0)
    for name, risk in tiny.rivals(unseen.rows).items():
        assert pieces.rivals[name] == pytest.approx(risk, abs=1e-12), name


def test_some_rows_are_explained_and_each_explanation_adds_up(tiny, unseen):
    positions, scored = explained(tiny, unseen, rows=50, seed=3)
    assert len(positions) == 50
    assert (np.diff(positions) > 0).all()
    assert scored.additive.all()
    assert scored.risk == pytest.approx(risk_of(tiny, unseen)[positions])
    assert len(explained(tiny, unseen, rows=10**6)[0]) == len(unseen)


def test_an_hour_is_explained_in_the_light_of_those_before_it(sepsis, monkeypatch):
    fitted, rows = sepsis
    monkeypatch.setattr(answers, "BLOCK", 50)
    told = answered(fitted, rows, rows=40)
    assert told.risk == pytest.approx(risk_of(fitted, rows), abs=0)
    assert told.explained.risk == pytest.approx(told.risk[told.positions])
    assert told.explained.additive.all()
    near, at = around(rows, told.positions)
    assert len(near[SERIES]) < len(rows)
    assert set(near[SERIES]) == set(rows.rows[SERIES][told.positions])
    assert (near["icu_hour"][at] == rows.order[told.positions]).all()


def test_utility_is_that_of_the_alarms_at_the_alert(sepsis):
    fitted, rows = sepsis
    figures = evaluate(fitted, rows, icu_hour.MART, bootstrap=99)
    alarm = risk_of(fitted, rows) >= fitted.spec.alert_at
    expected = utility.utility(rows.rows[SERIES], rows.order, rows.outcome, alarm).normalised
    found = figures["utility"]
    assert found["value"] == pytest.approx(expected)
    assert found["low"] < found["value"] < found["high"]
    assert found["threshold"] == figures["at_threshold"]["threshold"] == fitted.spec.alert_at
    assert flat(figures)["utility"] == found["value"]
    assert "utility" in set(tables(figures)["overall"]["metric"])
    assert figures["triage"] is None


def test_triage_is_measured_against_the_nurse_and_against_harm(triage):
    fitted, rows = triage
    figures = evaluate(fitted, rows, ed_visit.MART, bootstrap=99)
    margin = fitted.margin(fitted.features.matrix(rows.rows), rows.site)
    given = fitted.level(margin)
    found = figures["triage"]
    assert found["levels"] == [1, 2, 3, 4, 5]
    assert np.sum(found["table"]) == len(rows)
    assert found["kappa"]["value"] == pytest.approx(ordinal.kappa(rows.level, given, levels=5))
    four = np.minimum(rows.level, 4), np.minimum(given, 4)
    assert found["kappa_four"]["value"] == pytest.approx(ordinal.kappa(*four, levels=4))
    best = ordinal.assigned(margin, fitted.ordinal.kappa_cuts, levels=5)
    assert found["kappa_best"]["value"] == pytest.approx(ordinal.kappa(rows.level, best, levels=5))
    assert found["over_triage"] == pytest.approx((given < rows.level).mean())
    assert found["sensitivity_urgent"]["value"] == pytest.approx((given[rows.level <= 2] <= 2).mean())
    harmed = rows.harm == 1
    assert found["harm"]["events"] == harmed.sum() > 0
    assert found["harm"]["missed"]["value"] == pytest.approx((given[harmed] > 2).mean())
    assert found["harm"]["nurse_missed"]["value"] == pytest.approx((rows.level[harmed] > 2).mean())
    # The event is a level of the two most urgent, so that its sensitivity is the alert's.
    assert figures["at_threshold"]["sensitivity"] == pytest.approx(found["sensitivity_urgent"]["value"])
    assert figures["conformal"][0]["n"] == len(rows)
    assert {row["class"] for row in figures["conformal"]} == {None, 1, 2, 3, 4, 5}
    json.dumps(figures, allow_nan=False)

    counted = tables(figures)["triage_levels"]
    assert counted["rows"].sum() == len(rows)
    expected = agreement.confusion(rows.level, given, levels=5)
    assert counted.pivot_table(index="level", columns="given", values="rows").to_numpy().tolist() == (
        expected.tolist()
    )
    assert {"kappa", "kappa_best", "sensitivity_urgent", "over_triage"} <= flat(figures).keys()


def test_without_cut_points_for_kappa_there_is_no_best(triage):
    fitted, rows = triage
    plain = replace(fitted, ordinal=replace(fitted.ordinal, kappa_cuts=()))
    figures = evaluate(plain, rows, ed_visit.MART, bootstrap=0)
    assert figures["triage"]["kappa_best"] is None
    assert "kappa_best" not in flat(figures)


@pytest.mark.parametrize("keep", ["nobody", "no event"])
def test_without_rows_or_events_there_is_nothing_to_measure(tiny, unseen, keep):
    mask = unseen.outcome == 0 if keep == "no event" else np.zeros(len(unseen), dtype=bool)
    with pytest.raises(NotEnoughDataError, match="ed_admission"):
        evaluate(tiny, unseen.take(mask), ed_visit.MART)


def test_rows_that_all_have_the_event_are_measured_as_far_as_that_goes(tiny, unseen):
    figures = evaluate(tiny, unseen.take(unseen.outcome == 1), ed_visit.MART, bootstrap=20)
    assert figures["auroc"] == {"value": None, "low": None, "high": None}
    assert figures["calibration"]["oe"] > 1
    json.dumps(figures, allow_nan=False)
    assert "auroc" not in flat(figures)
    assert all(isinstance(frame, pd.DataFrame) for frame in tables(figures).values())


def test_flat_figures_are_numbers_with_the_comparators_under_their_names(figures):
    found = flat(figures)
    assert {type(value) for value in found.values()} == {float}
    assert found["news2_auroc"] == figures["comparators"]["news2"]["auroc"]["value"]
    assert found["calibration_slope"] == figures["calibration"]["slope"]
    assert found["sensitivity"] == figures["at_threshold"]["sensitivity"]
    gain = figures["comparators"]["logistic_regression"]["model_minus_this"]["auroc"]
    assert found["auroc_over_logistic_regression_low"] == gain["low"]


def test_tables_are_tidy_and_hold_what_the_bundle_does(figures):
    figures = {**figures, "ablations": {"without age": {"auroc": 0.7, "logistic_regression": 0.6}}}
    found = tables(figures)
    assert set(found) == {
        "overall",
        "groups",
        "sites",
        "comparators",
        "net_benefit",
        "conformal",
        "novelty",
        "poor_inputs",
        "importance",
        "flow",
        "ablations",
    }
    overall = found["overall"].set_index("metric")
    assert overall.loc["auroc", "high"] == figures["auroc"]["high"]
    assert overall.loc["slope", "value"] == figures["calibration"]["slope"]
    assert overall.loc["ppv", "value"] == figures["at_threshold"]["ppv"]
    theirs = found["comparators"].set_index(["comparator", "metric"])
    assert theirs.loc[("news2", "auroc"), "value"] == figures["comparators"]["news2"]["auroc"]["value"]
    assert {"treat_all", "treat_none", "model", "acuity"} <= set(found["net_benefit"]["by"])
    groups = found["groups"]
    assert len(groups) == 6 * len(figures["groups"])
    for name, frame in found.items():
        assert len(frame) > 0, name
        assert pd.read_csv(io.StringIO(frame.to_csv(index=False))).shape == frame.shape
