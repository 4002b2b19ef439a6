"""Which promises are broken, where, since when; and what is no breach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.calibration import sigmoid
from models.watch import Alarm, Watch
from monitoring import breaches

SOUTH = 1
MONTHS = ("2025-12", "2026-01", "2026-02", "2026-03", "2026-04", "2026-05")


@pytest.fixture
def year(make, loaded):
    """What is found of six months of answers; from month ``since`` on the true log-odds are moved."""

    def year(
        shift=0.0,
        *,
        since=0,
        only=None,
        monthly=1200,
        used="answered",
        slope=1.0,
        spec=loaded.spec,
        groups=None,
    ):
        rng = np.random.default_rng(11)
        parts = []
        for place, month in enumerate(MONTHS):
            margin, site = rng.normal(-1.6, 1.3, monthly), rng.integers(0, 2, monthly)
            there = (site == only) if only is not None else np.ones(monthly, dtype=bool)
            moved = shift * there * (place >= since)
            outcome = (rng.random(monthly) < sigmoid(slope * margin + moved)).astype(float)
            at = np.full(monthly, np.datetime64(f"{month}-10"))
            parts.append({"risk": sigmoid(margin), "outcome": outcome, "site": site, "at": at})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        every = make.answers(
            joined["risk"], joined["outcome"], at=joined["at"], site=joined["site"], used=used
        )
        now = every.at >= np.datetime64("2026-05-01")
        window = make.window(every.take(now), every.take(~now), groups=groups or {})
        return breaches.signals(window, spec)

    return year


def of(found, what):
    return [signal for signal in found if signal.what == what]


def test_a_quiet_year_breaks_nothing_and_every_bet_is_told(year):
    found, bets = year()
    assert found == []
    assert {(bet["what"], bet["site"], bet["side"]) for bet in bets} == {
        *(
            ("calibration", site, side)
            for site in (None, "north", "south")
            for side in ("more", "fewer")
        ),
        ("net_benefit", None, "all"),
        ("net_benefit", None, "none"),
    }
    assert not any(bet["raised"] for bet in bets)


def test_more_events_since_march_at_one_site(year):
    found, bets = year(1.1, since=3, only=SOUTH)
    south = next(signal for signal in of(found, "calibration") if signal.site == "south")
    assert south.since == "2026-03-01"
    assert south.value == pytest.approx(1.8, abs=0.25)
    assert "at south, outside 0.8 to 1.25" in south.message
    assert not any(signal.site == "north" for signal in found)
    raised = {(bet["site"], bet["side"]) for bet in bets if bet["raised"]}
    assert ("south", "more") in raised
    assert ("south", "fewer") not in raised


def test_fewer_events_everywhere(year):
    found, _ = year(-1.0, since=4)
    whole = next(signal for signal in of(found, "calibration") if signal.site is None)
    assert whole.since == "2026-04-01"
    assert whole.value < 0.6


def test_fewer_events_than_expected_of_shown_answers_are_no_alarm_and_more_are(year):
    fewer, _ = year(-1.0, used="card")
    assert of(fewer, "calibration") == []
    more, _ = year(1.0, used="card")
    assert of(more, "calibration")


def test_a_fall_in_the_shown_alone_is_none(make, loaded):
    rng = np.random.default_rng(3)
    risk = sigmoid(rng.normal(-1.6, 1.3, 6000))
    shown = np.arange(6000) % 2 == 0
    outcome = (rng.random(6000) < np.where(shown, risk * 0.4, risk)).astype(float)
    now = make.answers(risk, outcome, used="answered")
    now = replace(now, used=np.where(shown, 2, 1).astype(np.int8))
    found, _ = breaches.signals(make.window(now), loaded.spec)
    assert of(found, "calibration") == []


def test_risks_too_extreme_are_a_slope(year):
    found, _ = year(-0.8, slope=0.5)
    slope = of(found, "slope")[0]
    assert slope.value == pytest.approx(0.5, abs=0.15)
    assert "too extreme" in slope.message


def test_a_model_that_ranks_nobody_is_discrimination_and_harm(year):
    found, _ = year(-1.5, slope=0.0)
    assert of(found, "discrimination")
    harm = of(found, "net_benefit")
    assert {"less than alerting on nobody" in signal.message for signal in harm} == {True}


def test_a_subgroup_beyond_its_bounds_is_named(make, loaded):
    rng = np.random.default_rng(5)
    risk = sigmoid(rng.normal(-1.6, 1.3, 6000))
    sex = np.where(np.arange(6000) % 3 == 0, "male", "female").astype(object)
    outcome = (rng.random(6000) < np.where(sex == "male", np.minimum(1, risk * 2.4), risk)).astype(float)
    window = make.window(make.answers(risk, outcome), groups={"sex": sex})
    found, _ = breaches.signals(window, loaded.spec)
    assert [signal.group for signal in of(found, "subgroup")] == ["sex: male"]


def test_the_spec_s_own_bounds_are_held_to(year, loaded):
    wide = Watch(alarms=(Alarm(what="calibration", response="watch", low=0.2, high=5.0),))
    found, _ = year(1.0, spec=replace(loaded.spec, watch=wide))
    assert of(found, "calibration") == []


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_anybody_breaks_nothing(make, loaded, n):
    window = make.window(make.answers(np.full(n, 0.2), np.zeros(n)))
    found, _ = breaches.signals(window, loaded.spec)
    assert found == []


def test_a_subgroup_is_held_to_the_others_and_not_to_a_model_that_is_off(make, loaded):
    """Half of what was expected everywhere is no subgroup's fault, nor is who was not asked for it."""
    rng = np.random.default_rng(5)
    risk = sigmoid(rng.normal(-1.6, 1.3, 6000))
    sex = np.where(np.arange(6000) % 3 == 0, "male", "not recorded").astype(object)
    outcome = (rng.random(6000) < risk * 0.5).astype(float)
    window = make.window(make.answers(risk, outcome), groups={"sex": sex})
    found, _ = breaches.signals(window, loaded.spec)
    assert of(found, "subgroup") == []
    assert of(found, "calibration")


def test_no_event_at_all_is_said_without_an_interval(make, loaded):
    window = make.window(make.answers(np.full(3000, 0.3), np.zeros(3000)))
    found, _ = breaches.signals(window, loaded.spec)
    whole = next(signal for signal in of(found, "calibration") if signal.site is None)
    assert whole.message.startswith("Observed/expected is 0.00, outside 0.8 to 1.25")
    assert "0 events where 900 were expected" in whole.message


def test_forty_rows_of_a_patient_are_no_forty_patients(make, loaded):
    """30 patients whose outcomes are chance's: as so many single rows they would be certain."""
    alarms = {"patients": 0, "rows": 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        risk = np.repeat(sigmoid(rng.normal(-1.0, 1.0, 30)), 40)
        outcome = np.repeat((rng.random(30) < risk[::40]).astype(float), 40)
        for name, patient in (("patients", np.repeat(np.arange(30), 40)), ("rows", np.arange(1200))):
            window = make.window(make.answers(risk, outcome, patient=patient))
            found, _ = breaches.signals(window, loaded.spec)
            alarms[name] += bool(of(found, "calibration"))
    assert alarms["patients"] == 0
    assert alarms["rows"] > 0


def test_half_of_the_chance_is_for_all_sites_together(year, loaded):
    """By hand: two sides of half of alpha, and two sites with two sides each of the other half."""
    _, bets = year()
    alpha = loaded.spec.watch.alpha
    limits = {
        (bet["site"], bet["side"]): 10 ** -bet["limit"] for bet in bets if bet["what"] == "calibration"
    }
    assert limits[None, "more"] == pytest.approx(alpha / 4)
    assert limits["north", "fewer"] == pytest.approx(alpha / 8)
    assert sum(limits.values()) == pytest.approx(alpha)
