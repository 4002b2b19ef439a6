"""The past year, window by window."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from data.period import Period
from models.calibration import sigmoid
from monitoring import analytic, looks
from monitoring.estimate import estimate
from monitoring.trend import trend


@pytest.fixture
def window(make):
    """Three months of answers, April missing; the outcomes of May are not known."""
    rng = np.random.default_rng(0)
    at, parts = [], []
    for month, n in (("2026-02", 800), ("2026-03", 900), ("2026-05", 700)):
        margin = rng.normal(-1.5, 1.2, n)
        at.append(np.full(n, np.datetime64(f"{month}-05")))
        parts.append((margin, (rng.random(n) < sigmoid(margin)).astype(float)))
    margin, outcome = (np.concatenate(part) for part in zip(*parts, strict=True))
    when = np.concatenate(at)
    outcome[when >= np.datetime64("2026-05-01")] = np.nan
    every = make.answers(sigmoid(margin), outcome, at=when, site=np.arange(len(when)) % 2)
    now = when >= np.datetime64("2026-05-01")
    return make.window(every.take(now), every.take(~now))


def test_each_month_has_its_row_and_the_silent_one_a_gap(window, loaded):
    rows = trend(window, loaded.spec)
    assert [row["from"] for row in rows] == ["2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01"]
    assert [row["n"] for row in rows] == [800, 900, 0, 700]
    april = rows[2]
    assert (april["truth"], april["estimate"], april["alerts_per_100"]) == (None, None, None)


def test_truth_comes_later_and_the_estimate_is_there_before(window, loaded):
    rows = trend(window, loaded.spec)
    march, may = rows[1], rows[3]
    there = window.past.at >= np.datetime64("2026-03-01")
    y, risk = window.past.outcome[there], window.past.risk[there]
    assert march["truth"]["oe"]["value"] == pytest.approx(analytic.oe(y, risk)[0])
    assert may["truth"] is None
    assert may["outcomes"] == 0
    assert may["estimate"]["oe"]["low"] < 1 < may["estimate"]["oe"]["high"]


def test_rows_are_json_and_undefined_is_null(window, make, loaded):
    for read in (window, make.window(make.answers(np.zeros(30), np.zeros(30)))):
        for row in trend(read, loaded.spec):
            assert b"NaN" not in msgspec.json.encode(row)


def test_sites_stand_beside_each_other_in_every_window(window, loaded):
    for row in trend(window, loaded.spec):
        assert [site["site"] for site in row["sites"]] == ["north", "south"]
        assert sum(site["n"] for site in row["sites"]) == row["n"]


def test_what_is_foreseen_then_is_what_is_foreseen_now_of_the_same_past(window, loaded):
    row = trend(window, loaded.spec)[-1]["estimate"]
    found = estimate(window.answers, window.past, loaded.spec)
    assert {name: found[name] for name in row} == row


def test_an_outcome_that_came_later_is_not_foreseen_by(window, loaded):
    """The estimate of March knows February; had March or May gone otherwise, it were the same."""
    past = window.past
    march = past.at >= np.datetime64("2026-03-01")
    other = replace(past, outcome=np.where(march, 1 - past.outcome, past.outcome))
    was, were = (trend(replace(window, past=one), loaded.spec) for one in (past, other))
    assert was[1]["estimate"] == were[1]["estimate"]
    assert was[1]["truth"] != were[1]["truth"]
    assert was[3]["estimate"] != were[3]["estimate"]


def test_under_twenty_patients_have_no_figure(make, loaded):
    few = make.answers(np.full(15, 0.4), np.arange(15) % 2)
    (row,) = trend(make.window(few), loaded.spec)
    assert row["sites"][0]["oe"] is None


def test_a_window_of_another_length_is_cut_back_by_its_days():
    week = Period.between("2026-05-04", "2026-05-10")
    found = looks.before(week, looks=3)
    assert [str(period.start.date()) for period in found] == ["2026-04-20", "2026-04-27", "2026-05-04"]


def test_a_year_or_all_time_is_looked_at_once():
    for period in (Period.between("2025-01", "2025-12"), Period.between(None, None)):
        assert looks.before(period, looks=12) == [period]


def test_windows_reach_a_year_back_and_no_further():
    assert len(looks.before(Period.between("2026-05", "2026-05"), looks=40)) == 13


def test_nothing_at_all_is_one_empty_row(make, loaded):
    (row,) = trend(make.window(make.answers(np.zeros(0))), loaded.spec)
    assert (row["n"], row["mature"]) == (0, None)
