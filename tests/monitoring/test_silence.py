"""A site that stopped sending is heard; a clinic on holiday is none."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from monitoring import silence

CHANCE = 0.05 / 12 / 12 / 13
FIRST = np.datetime64("2026-01-01")


def days(rng, n, pace, *, scatter=1.0, closed=()):
    """Requests a day: negative binomial with variance ``scatter`` times the mean."""
    rows = (
        rng.poisson(pace, n)
        if scatter == 1
        else rng.negative_binomial(pace / (scatter - 1), 1 / scatter, n)
    )
    weekday = (FIRST.astype("M8[D]").astype(int) + np.arange(n)) % 7
    rows[np.isin(weekday, closed)] = 0
    return rows


def heard(rows, length=31):
    return silence.judged("county-02", FIRST, rows, chance=CHANCE, length=length)


def test_a_busy_site_is_missed_after_two_days():
    rows = days(np.random.default_rng(0), 150, 40)
    rows[-2:] = 0
    found = heard(rows)
    assert (found.what, found.site, found.value) == ("silence", "county-02", 0)
    assert found.since == str(FIRST + np.timedelta64(148, "D"))
    assert "has sent nothing for 2 days, where 8" in found.message


def test_of_a_clinic_with_two_visits_a_day_a_silence_must_be_longer():
    rows = days(np.random.default_rng(1), 150, 2)
    for gap, expected in ((3, False), (14, True)):
        quiet = rows.copy()
        quiet[-gap:] = 0
        assert (heard(quiet) is not None) is expected, gap


def test_a_weekend_that_is_always_closed_is_no_silence():
    rows = days(np.random.default_rng(2), 151, 30, closed=(2, 3))
    assert not rows[-1]
    assert heard(rows) is None


def test_a_site_that_was_as_silent_before_is_on_holiday():
    rows = days(np.random.default_rng(3), 200, 30)
    rows[60:69] = 0
    rows[-9:] = 0
    assert heard(rows) is None
    rows[-14:] = 0
    assert heard(rows) is not None


def test_days_that_scatter_need_a_longer_silence():
    rows = days(np.random.default_rng(4), 150, 6, scatter=8.0)
    rows[-3:] = 0
    assert heard(rows) is None


def test_a_fall_under_a_fifth_is_told():
    rows = days(np.random.default_rng(5), 150, 40)
    rows[-31:] = days(np.random.default_rng(6), 31, 4)
    found = heard(rows)
    assert found.value == pytest.approx(0.1, abs=0.03)
    assert "requests, where 1," in found.message


@pytest.mark.parametrize("rows", [np.zeros(60, int), np.array([5, 0, 0]), np.zeros(0, int)])
def test_a_site_without_a_history_has_no_pace(rows):
    assert heard(rows) is None


def test_quiet_years_are_quiet():
    rng = np.random.default_rng(7)
    false = sum(
        heard(days(rng, 365, pace, scatter=scatter)) is not None
        for pace in (1, 3, 10, 40)
        for scatter in (1.0, 2.0)
        for _ in range(50)
    )
    assert false == 0


def test_of_a_window_that_goes_on_the_days_to_come_are_no_silence(make, loaded):
    rng = np.random.default_rng(8)
    at = np.repeat(np.arange("2026-03-01", "2026-05-11", dtype="M8[D]"), 20 + rng.integers(0, 3, 71))
    now = at >= np.datetime64("2026-05-01")
    every = make.answers(np.full(len(at), 0.1), at=at)
    as_of = datetime(2026, 5, 10, 23, tzinfo=UTC).replace(tzinfo=None)
    early = make.window(every.take(now), every.take(~now), as_of=as_of)
    late = make.window(every.take(now), every.take(~now))
    assert silence.signals(early, loaded.spec) == []
    (found,) = silence.signals(late, loaded.spec)
    assert (found.site, found.since) == ("north", "2026-05-11")
