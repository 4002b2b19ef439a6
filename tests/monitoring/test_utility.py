"""What hourly alerts were worth, by whole stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models import catalog, utility
from monitoring.utility import measure

SPEC = catalog.load("sepsis")
HOUR = np.timedelta64(1, "h")
MAY = np.datetime64("2026-05-01T00:00:00")
JUNE = np.datetime64("2026-06-01T00:00:00")


@pytest.fixture
def stay(make):
    """Hours of stays that begin at ``starts``; of every other one the sepsis begins at hour 20."""

    def stay(starts, *, hours=30, first=0, alert=True, **given):
        n, of = len(starts), np.arange(hours)
        label = np.tile((of >= 14).astype(float), (n, 1)) * (np.arange(n) % 2)[:, None]
        at = np.asarray(starts, dtype="datetime64[s]")[:, None] + of * HOUR
        risk = np.where((of >= 14) & (of < 20) & (label > 0) & alert, 0.5, 0.001)
        order = np.argsort(at.ravel(), kind="stable")
        number = np.repeat(first + np.arange(n), hours)[order]
        return make.answers(
            risk.ravel()[order],
            label.ravel()[order],
            at=at.ravel()[order],
            **{"encounter": number, "patient": number, **given},
        )

    return stay


def within(n):
    """Times of the first days of May."""
    return MAY + 3 * HOUR * np.arange(n)


def test_it_is_the_utility_of_the_same_hours(make, stay):
    now = stay(within(60))
    found = measure(make.window(now), SPEC)
    series, hour = now.encounter, ((now.at - within(60)[now.encounter]) / HOUR).astype(int)
    direct = utility.utility(series, hour, now.outcome, now.risk >= SPEC.alert_at)
    assert found["value"] == pytest.approx(direct.normalised)
    assert found["low"] <= found["value"] <= found["high"]
    assert (found["stays"], found["events"], found["hours"]) == (60, 30, 1800)
    assert found["threshold"] == SPEC.alert_at


def test_to_stay_silent_is_worth_nothing_and_to_be_early_something(make, stay):
    assert measure(make.window(stay(within(60), alert=False)), SPEC)["value"] == pytest.approx(0)
    assert measure(make.window(stay(within(60))), SPEC)["value"] > 0.4


def test_a_stay_that_began_before_the_window_is_taken_whole(make, stay):
    every = stay(MAY - 20 * HOUR + HOUR * np.arange(60) // 3)
    before = every.at < MAY
    read = make.window(every.take(~before), every.take(before))
    assert before.any()
    found = measure(read, SPEC)
    assert (found["stays"], found["hours"]) == (60, 1800)


def test_each_stay_is_measured_in_one_window_alone(make, stay):
    starts = MAY + HOUR * (np.arange(80) * 17 - 30)
    every = stay(starts)
    counted = 0
    for start, end in [(MAY - 31 * 24 * HOUR, MAY), (MAY, JUNE), (JUNE, JUNE + 30 * 24 * HOUR)]:
        read = make.window(
            every.take((every.at >= start) & (every.at < end)), every.take(every.at < start)
        )
        period = replace(read.period, start=start.item(), end=end.item())
        counted += measure(replace(read, period=period), SPEC)["stays"]
    assert counted == 80


def test_a_stay_that_goes_on_waits_for_the_next_window(make, stay):
    found = measure(make.window(stay([*within(60), JUNE - 35 * HOUR])), SPEC)
    assert found["stays"] == 60


def test_a_stay_of_which_an_hour_is_not_known_is_left_out(make, stay):
    now = stay(within(60))
    now.outcome[now.encounter == 7] = np.where(np.arange(30) == 3, np.nan, 0)
    now.mature[np.flatnonzero(now.encounter == 9)[-1]] = False
    assert measure(make.window(now), SPEC)["stays"] == 58


def test_an_hour_answered_twice_counts_once_as_it_was_answered_last(make, stay):
    once = stay(within(60))
    twice = once.take(np.repeat(np.arange(len(once)), 2))
    twice.risk[::2] = 0.9
    found = measure(make.window(twice), SPEC)
    assert found["hours"] == 1800
    assert found["value"] == measure(make.window(once), SPEC)["value"]


def test_sites_and_subgroups_are_told_apart(make, stay):
    now = stay(within(120))
    site = now.encounter // 2 % 2
    now.risk[site == 1] = 0.001  # the south never alerts
    now = replace(now, site=site.astype(np.intp))
    sex = np.where(now.encounter < 60, "female", "male").astype(object)
    sex[np.arange(len(now)) % 3 > 0] = None  # not opened: the stay's other hours tell it
    found = measure(replace(make.window(now), groups={"sex": sex}), SPEC)
    rows = {(row["group"], row["level"]): row for row in found["groups"]}
    assert rows["site", "north"]["value"] > 0.4
    assert rows["site", "south"]["value"] == pytest.approx(0)
    assert {key: row["stays"] for key, row in rows.items()} == {
        ("site", "north"): 60, ("site", "south"): 60, ("sex", "female"): 60, ("sex", "male"): 60,
    }  # fmt: skip


def test_few_stays_with_sepsis_are_a_reason(make, stay):
    found = measure(make.window(stay(within(18))), SPEC)
    assert found["value"] is None
    said = "of 18 stays that are over, with the outcome of every hour known, 9 had it; at least 10"
    assert found["reason"].startswith(said)
    nothing = measure(make.window(stay(within(0))), SPEC)
    assert (nothing["stays"], nothing["hours"]) == (0, 0)


def test_a_year_that_was_read_in_part_holds_no_whole_stays(make, stay):
    read = replace(make.window(stay(within(60))), past_share=0.5)
    assert measure(read, SPEC)["reason"] == "of the year before not every day is read"


def test_another_model_has_no_hours(make, stay):
    assert measure(make.window(stay(within(60))), catalog.load("ed_admission")) is None
