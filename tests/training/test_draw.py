"""What is drawn, of whom, and that no patient's number is in a picture as it was charted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data.marts.ed_visit import MART
from models import catalog, plots, swarm, utility
from models.series import SERIES
from training import draw as drawing
from training.answers import answered
from training.draw import draw
from training.evaluate import evaluate

ALWAYS = {"roc", "precision_recall", "calibration", "decision_curve", "beeswarm", "dependence"}


@pytest.fixture(scope="module")
def unseen(cohort):
    return cohort.take(np.arange(len(cohort)) >= 0.75 * len(cohort))


@pytest.fixture(scope="module")
def told(tiny, unseen):
    return answered(tiny, unseen, rows=300)


@pytest.fixture
def seen(monkeypatch):
    """The frames that each plot was given."""
    given = {}

    def watch(module, name):
        drawn = getattr(module, name)

        def watched(*frames, **options):
            given.setdefault(name, []).append((frames[0], options))
            return drawn(*frames, **options)

        monkeypatch.setattr(module, name, watched)

    for name in ("roc", "decision_curve", "calibration", "forest", "utility", "levels"):
        watch(plots, name)
    for name in ("beeswarm", "dependence"):
        watch(swarm, name)
    return given


@pytest.fixture
def unpainted(monkeypatch):
    """Painting takes longer than all else, and is held by one test."""
    monkeypatch.setattr(drawing, "_png", lambda _: b"")


def test_every_plot_is_a_png_and_the_subgroups_come_with_the_figures(tiny, unseen, told, seen):
    plain = draw(tiny, unseen, answers=told)
    assert set(plain) == ALWAYS
    figures = evaluate(tiny, unseen, MART, bootstrap=49, answers=told)
    drawn = draw(tiny, unseen, figures=figures, answers=told)
    assert set(drawn) == ALWAYS | {"subgroups", "subgroups_oe"}
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    (frame, options), (_, of_oe) = seen["forest"]
    assert options == {"overall": figures["auroc"]["value"], "metric": "auroc"}
    assert of_oe == {"overall": figures["calibration"]["oe"], "metric": "oe"}
    assert {"Sex", "Age"} <= set(frame["group"])
    assert len(frame) == 6 * len(figures["groups"])


def test_the_comparators_stand_beside_the_model_and_a_guess_is_no_curve(
    tiny, unseen, told, seen, unpainted
):
    draw(tiny, unseen, answers=told)
    (curves, options) = seen["roc"][0]
    assert list(curves)[:2] == ["This model", "Logistic regression"]
    assert set(curves) == set(options["values"]) == set(seen["decision_curve"][0][0])
    assert len(curves) == len(told.rivals)  # the model in, the majority out
    assert "Nurse's acuity" in curves
    low, high = seen["decision_curve"][0][0]["This model"]["threshold"].iloc[[0, -1]]
    assert (low, high) == tiny.spec.benefit
    assert list(seen["calibration"][0][0]) == ["This model", "Logistic regression"]


def test_the_answers_at_hand_are_not_asked_for_again(tiny, unseen, told, monkeypatch, unpainted):
    monkeypatch.setattr(drawing, "answered", None)
    assert draw(tiny, unseen, answers=told)


def test_without_answers_they_are_asked_for(tiny, unseen, told, monkeypatch, unpainted):
    asked = []
    monkeypatch.setattr(drawing, "answered", lambda *given: asked.append(given) or told)
    assert set(draw(tiny, unseen)) == ALWAYS
    assert len(asked) == 1


def test_the_swarm_has_the_contributions_of_the_features_that_matter_most(
    tiny, unseen, told, seen, unpainted
):
    draw(tiny, unseen, answers=told)
    frame, _ = seen["beeswarm"][0]
    sizes = np.abs(told.explained.contributions).mean(axis=0)
    order = np.argsort(-sizes, kind="stable")[: drawing.SHOWN]
    assert frame["feature"].drop_duplicates().tolist() == [
        tiny.features.features[k].label.en for k in order
    ]
    assert (frame.groupby("feature", sort=False).size() == 300).all()
    first = frame[frame["feature"] == frame["feature"].iloc[0]]
    exact = told.explained.contributions[:, order[0]]
    assert np.abs(first["contribution"] - exact).max() < 0.02
    assert (first["contribution"] != exact).all()
    assert frame["rank"].max() <= 1
    sex = frame[frame["feature"] == tiny.mart["sex"].label.en]
    assert not sex["ordered"].any()


def test_what_is_missing_in_a_row_is_missing_in_the_swarm(tiny, unseen, told, seen, unpainted):
    pulse = np.array(unseen.rows["heart_rate"])
    pulse[told.positions[:40]] = np.nan
    gaps = replace(unseen, rows={**unseen.rows, "heart_rate": pulse})
    draw(tiny, gaps, answers=told)
    frame, _ = seen["beeswarm"][0]
    rank = frame.loc[frame["feature"] == tiny.mart["heart_rate"].label.en, "rank"].to_numpy()
    assert (np.isnan(rank) == np.isnan(pulse[told.positions])).all()


def test_no_value_is_drawn_as_it_was_charted_and_the_outermost_not_at_all(
    tiny, unseen, told, seen, unpainted
):
    draw(tiny, unseen, answers=told)
    frame, _ = seen["dependence"][0]
    names = frame["feature"].drop_duplicates().tolist()
    assert len(names) == drawing.NUMBERS
    assert "age" in names
    age = unseen.rows["age"][told.positions]
    drawn = frame.loc[frame["feature"] == "age", "value"].to_numpy()
    assert not np.isin(drawn[~np.isnan(drawn)], age).any()
    low, high = np.nanquantile(age, [drawing.OUTERMOST, 1 - drawing.OUTERMOST])
    slack = drawing.JITTER * (high - low)
    assert low - slack <= np.nanmin(drawn)
    assert np.nanmax(drawn) <= high + slack
    assert np.isnan(drawn).sum() == np.isnan(age).sum()


@pytest.mark.parametrize(
    ("unit", "written"),
    [("a", "Age, years"), ("mm[Hg]", "Age, mmHg"), ("{level}", "Age"), (None, "Age"), ("1", "Age")],
)
def test_units_are_written_as_people_write_them(tiny, unit, written):
    feature = next(of for of in tiny.features.features if of.name == "age")
    assert drawing._label(replace(feature, unit=unit)) == written


def test_a_model_of_levels_gets_its_table(tiny, seen):
    ordinal = replace(tiny, spec=catalog.load("ed_triage"))
    table = np.arange(25).reshape(5, 5).tolist()
    assert drawing._png(drawing._levels(ordinal, {"table": table})).startswith(b"\x89PNG")
    frame, _ = seen["levels"][0]
    assert frame.to_numpy().tolist() == table
    assert frame.index[0] == "Level 1, resuscitation"
    assert frame.columns.tolist() == ["1", "2", "3", "4", "5"]


def test_a_model_of_a_series_gets_its_utility_at_every_threshold(tiny, unseen, told, seen):
    rows = replace(
        unseen,
        rows={**unseen.rows, SERIES: np.arange(len(unseen)) // 10},
        order=np.arange(len(unseen)) % 10 + 1.0,
    )
    hourly = replace(tiny, spec=replace(tiny.spec, lookback=6))
    drawn = drawing._utility(hourly, rows, told)
    curves, options = seen["utility"][0]
    assert drawn is not None
    assert options["chosen"] == tiny.spec.alert_at
    for name, risk in (("This model", told.risk), ("Nurse's acuity", told.rivals["acuity"])):
        curve = curves[name]
        assert curve["threshold"].is_unique
        for at in curve["threshold"].iloc[[0, len(curve) // 2, -1]]:
            expected = utility.utility(rows.rows[SERIES], rows.order, rows.outcome, risk >= at)
            reached = curve.set_index("threshold").loc[at, "utility"]
            assert reached == pytest.approx(expected.normalised, abs=1e-9)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    frame = pd.DataFrame({"x": np.arange(100_000)})
    thin = drawing._thin(frame)
    assert len(thin) == 2_000
    assert thin["x"].iloc[[0, -1]].tolist() == [0, 99_999]
    assert drawing._thin(frame.head(10)) is not None
    assert len(drawing._thin(frame.head(10))) == 10
