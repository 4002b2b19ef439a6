"""A site with few answers in the window is judged with its last ones before it."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring import drift
from monitoring.counting import MIN_ROWS, completing
from monitoring.window import quality, read

NOW, BEFORE = 40, 90
"""Answers of the south in May, and in April; the north has enough."""


def spread(month, rows):
    """Times of a month, in order, for so many rows."""
    return np.datetime64(f"{month}-01T00:00:00") + np.arange(rows) * np.timedelta64(40, "m")


@pytest.fixture
def april_and_may(log, visits):
    """Fills the log: ``south`` answers come from there in May, of hearts that beat ``faster`` now."""

    def fill(south=NOW, faster=0):
        made = visits(600 + BEFORE + south, 5)
        made.site = np.array(["north"] * 600 + ["south"] * (BEFORE + south), dtype=object)
        months = (("2026-05", 600), ("2026-04", BEFORE), ("2026-05", south))
        made.rows["heart_rate"][600 + BEFORE :] += faster
        log.add(made, times=np.concatenate([spread(month, rows) for month, rows in months]))

    return fill


def judged(found, loaded):
    _, findings = drift.findings(found, loaded)
    return {(one.column, one.statistic): one for one in findings if one.site == "south"}


def test_it_is_completed_by_the_last_before(log, loaded, may, april_and_may):
    april_and_may()
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    south = found.sites["south"]
    assert (south.rows, south.scored, south.earlier) == (NOW, NOW, MIN_ROWS - NOW)
    assert all(cells.sum() == MIN_ROWS for cells in south.cells.values())
    assert south.patients == MIN_ROWS
    assert found.sites["north"].earlier == 0
    assert found.whole.rows == 600 + NOW
    assert found.whole.cells["heart_rate"].sum() == 600 + NOW
    past = found.past
    assert past.drawn.sum() == MIN_ROWS - NOW
    assert past.at[past.drawn].min() >= past.at[past.scored & ~past.drawn].max()
    assert not any(one.drifted for one in judged(found, loaded).values())
    [row] = [row for row in quality(found)["sites"] if row["site"] == "south"]
    assert (row["rows"], row["earlier"]) == (NOW, MIN_ROWS - NOW)


def test_a_shift_at_a_small_site_is_found(log, loaded, may, april_and_may):
    april_and_may(faster=80)
    found = judged(read(log.engine, loaded, "3", may, keyring=log.keyring), loaded)
    assert found["heart_rate", "psi"].drifted
    assert not found["age", "psi"].drifted


@pytest.mark.parametrize("south", [0, MIN_ROWS])
def test_a_silent_site_and_one_with_enough_are_not_completed(log, loaded, may, april_and_may, south):
    april_and_may(south=south)
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert not found.past.drawn.any()
    assert ("south" in found.sites) == bool(south)


def test_a_site_without_enough_in_a_year_is_not_judged(log, loaded, may, april_and_may):
    april_and_may(south=5)
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert found.sites["south"].earlier == BEFORE
    assert judged(found, loaded) == {}


def test_inputs_that_were_purged_complete_nothing(log, loaded, may, april_and_may):
    april_and_may()
    with log.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prediction SET inputs = NULL WHERE at < '2026-05-01'")
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert found.sites["south"].earlier == 0
    assert judged(found, loaded) == {}


def test_where_all_is_refused_now_that_is_judged_and_no_input(make):
    now = make.answers(np.full(20, np.nan), site=np.ones(20, int), status=np.full(20, 2, np.int8))
    past = make.answers(np.full(300, 0.2), site=np.ones(300, int))
    mask = completing(now, past, ["south"])
    assert mask.sum() == MIN_ROWS
    assert mask[-MIN_ROWS:].all()
    assert not completing(now, past, ["north"]).any()
