"""What drives the scores: shares with their intervals, by group, month and value; nothing of a few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from monitoring.explain import draw, drivers, page
from monitoring.explain.drivers import Driven, Explained


@pytest.fixture
def make(loaded):
    """Explanations of ``n`` patients drawn from a seed; the first feature is age."""

    def make(n, *, seed=0, rows=1, **given):
        rng = np.random.default_rng(seed)
        people = np.repeat(np.arange(n), rows)
        size = rng.gamma(2, 1, (n, 6)) * (6, 5, 4, 3, 2, 1)
        contributions = np.repeat(size * rng.choice((-1, 1), (n, 6)), rows, axis=0)
        inputs = {
            "age": rng.uniform(18, 95, n).repeat(rows),
            "sex": rng.integers(0, 2, n).astype(np.int16).repeat(rows),
            "ambulance": np.zeros(n * rows),
            "temperature": np.full(n * rows, np.nan),
            "heart_rate": rng.normal(85, 15, n).repeat(rows),
            "pain": np.full(n * rows, 3.0),
        }
        known = {
            "contributions": contributions,
            "risk": rng.random(n).repeat(rows),
            "patient": people,
            "month": np.repeat(np.datetime64("2026-05", "M"), n * rows),
            "inputs": inputs,
            "groups": {},
        }
        return Explained(**known | given)

    return make


NAMES = ("age", "sex", "ambulance", "temperature", "heart_rate", "pain")


def test_a_share_is_that_of_the_absolute_contributions():
    """By hand: 3 + 1 + 2 of 12, and the delta method over three patients."""
    size = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    value, low, high = drivers.shares(size, np.arange(3))[0]
    assert value == 0.5
    assert high - value == pytest.approx(1.959964 * np.sqrt((1 + 1) * 3 / 2) / 12)
    assert value - low == pytest.approx(high - value)


@pytest.mark.parametrize("rows", [1, 8])
def test_its_interval_is_the_bootstrap_s_by_patient(make, rows):
    """scipy resamples patients; with eight rows each it must not become narrower by them."""
    explained = make(400, rows=rows)
    size = np.abs(explained.contributions)
    found = drivers.shares(size, explained.patient)[0]
    sums = np.stack([size[explained.patient == one].sum(axis=0) for one in range(400)])

    def share(first, total, axis):
        return first.sum(axis=axis) / total.sum(axis=axis)

    resampled = stats.bootstrap(
        (sums[:, 0], sums.sum(axis=1)),
        share,
        paired=True,
        n_resamples=2000,
        method="basic",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found[1:] == pytest.approx([resampled.low, resampled.high], abs=0.004)


def test_features_are_told_beside_training_and_for_alerts(make, loaded):
    explained = make(300)
    explained.contributions[explained.risk >= 0.5, 4] += 9.0
    training = dict(zip(NAMES, (6, 5, 4, 3, 2, 1), strict=True))
    rows = drivers.overall(
        explained, loaded.features.features, training=training, alert_at=loaded.spec.alert_at
    )
    assert [row["share"]["value"] for row in rows] == sorted(
        (row["share"]["value"] for row in rows), reverse=True
    )
    assert sum(row["share"]["value"] for row in rows) == pytest.approx(1)
    found = {row["feature"]: row for row in rows}
    assert found["age"]["training"] == pytest.approx(6 / 21)
    assert found["heart_rate"]["mean"] == pytest.approx(explained.contributions[:, 4].mean())
    alerts = explained.risk >= loaded.spec.alert_at
    assert found["heart_rate"]["alerts"] == pytest.approx(explained.contributions[alerts, 4].mean())


def test_nothing_is_told_of_fewer_than_twenty_people(make):
    """Forty rows of nineteen patients are nineteen patients."""
    few = np.arange(420) % 21 == 0
    level = np.where(few, "few", "many").astype(object)
    explained = make(420, groups={"sex": level})
    one = replace(explained, patient=np.where(few, explained.patient % 19, explained.patient))
    rows = {row["level"]: row for row in drivers.by_group(one, NAMES)}
    assert (rows["few"]["n"], rows["few"]["shares"], rows["few"]["means"]) == (20, None, None)
    assert rows["many"]["shares"].keys() == set(NAMES)
    twenty = {row["level"]: row for row in drivers.by_group(explained, NAMES)}
    assert twenty["few"]["shares"] is not None


def test_months_are_told_in_their_order(make):
    month = np.array(["2026-06", "2026-04"], "datetime64[M]")[np.arange(100) % 2]
    explained = make(100, month=month)
    rows = drivers.by_month(explained, NAMES)
    assert [row["month"] for row in rows] == ["2026-04", "2026-06"]
    april = np.abs(explained.contributions[month == np.datetime64("2026-04")])
    assert rows[0]["shares"]["age"]["value"] == pytest.approx(april[:, 0].sum() / april.sum())


def test_a_value_s_effect_is_the_mean_of_its_cell(make, loaded):
    explained = make(2000)
    explained.contributions[:, 0] = explained.inputs["age"] - 50
    rows = drivers.by_value(
        explained, loaded.features.features, loaded.mart, loaded.reference, ("age", "temperature")
    )
    age, temperature = rows
    binned = next(one for one in loaded.reference.columns if one.column == "age")
    there = explained.inputs["age"] < binned.edges[0]
    assert age["cells"][0] == {
        "label": binned.labels[0],
        "n": int(there.sum()),
        "mean": pytest.approx((explained.inputs["age"][there] - 50).mean()),
    }
    assert [cell["mean"] for cell in age["cells"]] == sorted(cell["mean"] for cell in age["cells"])
    assert [cell["label"] for cell in temperature["cells"]] == ["missing"]


def driven(explained, loaded, **given):
    features = loaded.features.features
    known = {
        "model": "ed_admission",
        "version": "3",
        "pointer": "champion",
        "window": {"from": "2026-05-01", "to": "2026-06-30"},
        "zone": "UTC",
        "n": len(explained),
        "explained": len(explained),
        "reason": None,
        "features": tuple(
            drivers.overall(explained, features, training={"age": 2.0, "sex": 1.0}, alert_at=0.5)
        ),
        "groups": tuple(drivers.by_group(explained, NAMES)),
        "months": tuple(drivers.by_month(explained, NAMES)),
        "values": tuple(drivers.by_value(explained, features, loaded.mart, loaded.reference, NAMES)),
        "report": "index.html",
    }
    return Driven(**known | given)


def test_the_page_has_every_number_and_no_script(make, loaded):
    levels = np.array(["<script>", "county-02"], dtype=object)[np.arange(300) % 2]
    month = np.array(["2026-05", "2026-06"], "datetime64[M]")[np.arange(300) % 2]
    found = driven(make(300, groups={"site": levels}, month=month), loaded)
    shown = page.window(found, loaded).decode()
    assert "Demonstration, not for care." in shown
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "http" not in shown
    assert shown.count("<svg") == 1 + 6 + sum(len(row["cells"]) > 1 for row in found.values)
    for row in found.features:
        assert f"{row['share']['value']:.0%}" in shown or f"{row['share']['value']:.1%}" in shown
    for bad in ("None", "nan", "inf"):
        assert f">{bad}" not in shown


def test_a_window_of_too_few_shows_training_alone(make, loaded):
    nobody = make(0)
    found = driven(
        nobody, loaded, reason="0 explanations in the window", groups=(), months=(), values=()
    )
    shown = page.window(found, loaded).decode()
    assert "Not enough data" in shown
    assert "67%" in shown  # age at training: 2 of 3
    assert "<svg" not in shown


def test_a_waterfall_ends_where_its_steps_lead():
    """Two steps from even odds: +1 and -2 end at -1, a risk of 26.9 %."""
    drawn = draw.waterfall([("a", 1.0), ("b", -2.0)], base=0.0, title="t")
    assert ">50.0%<" in drawn
    assert ">26.9%<" in drawn
    assert ">+1.00<" in drawn
    assert ">-2.00<" in drawn
    assert "<title>t</title>" in drawn
