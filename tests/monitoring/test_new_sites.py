"""A site that the version hardly knows is named, once, with the columns that moved because of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.reference import SMALLEST_SITE
from monitoring import attribution, drift, new_sites
from monitoring.window import count

SITES = ("north", "south", "west")


@pytest.fixture
def read(make, loaded, visits):
    """The window of visits, the last ``share`` of them at a site of which nothing is known."""

    def read(share, *, older=0.0, n=3000, elsewhere=0.0):
        made = visits(n, 5)
        new = np.arange(n) >= n * (1 - share)
        made.rows["age"] = np.clip(made.rows["age"] + older * new + elsewhere, 18, 110)
        site = np.where(new, 2, (made.site == "south").astype(np.intp))
        at = np.datetime64("2026-05-01", "s") + np.arange(n) * (31 * 86_400 // n)
        answers = make.answers(
            loaded.risk(made.rows), at=at, site=site, sites=SITES, drawn=np.ones(n, dtype=bool)
        )
        window = count(loaded, make.window(answers).period, answers, inputs=made.rows)
        cells, findings = drift.findings(window, loaded)
        findings += new_sites.findings(window, loaded)
        return window, attribution.signals(window, loaded, cells, findings), findings

    return read


def of(findings):
    return next(row for row in findings if row.statistic == "unknown_share")


def test_a_new_site_is_one_alarm_with_what_moved_because_of_it(read):
    window, signals, findings = read(0.3, older=35)
    (signal,) = signals
    assert (signal.what, signal.column, signal.site) == ("input_drift", "site", "west")
    assert signal.value == pytest.approx(0.3)
    assert signal.since == "2026-05-22"  # 0.7 of 31 days
    assert "With it moved, and elsewhere did not: Age" in signal.message
    assert any(row.column == "age" and row.drifted for row in findings)
    assert window.sites["west"].cells["age"].sum() == 900


def test_what_moved_elsewhere_too_is_an_alarm_of_its_own(read):
    _, signals, _ = read(0.3, elsewhere=20)
    assert {(signal.column, signal.site) for signal in signals} >= {("site", "west"), ("age", None)}


def test_a_small_one_is_told_and_no_alarm(read):
    _, signals, findings = read(0.02)
    assert signals == []
    assert of(findings).value == pytest.approx(0.02)
    assert not of(findings).drifted


def test_what_a_small_clinic_may_have_had_at_training_is_tolerated(loaded):
    """By hand: under 200 of 6,000 training rows have no reference: a thirtieth, and twice that."""
    assert loaded.reference.rows == 6000
    assert new_sites.tolerated(loaded.reference) == pytest.approx(2 * SMALLEST_SITE / 6000)
    large = replace(loaded.reference, rows=100_000)
    assert new_sites.tolerated(large) == 0.02
    many = {f"site-{place}": replace(loaded.reference, rows=900) for place in range(30)}
    assert new_sites.tolerated(replace(loaded.reference, rows=60_000, sites=many)) == pytest.approx(0.03)


def test_a_version_without_references_of_sites_knows_no_new_one(read, loaded):
    window, _, _ = read(0.3)
    bare = replace(loaded, reference=replace(loaded.reference, sites={}))
    assert new_sites.findings(window, bare) == []
