"""Expected numbers are worked by hand from Reyna 2020, or come from a plain reading of its text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import NotEnoughDataError
from models.utility import (
    PerPatient,
    best_threshold,
    interval,
    per_patient,
    rewards,
    utility,
)

ONSET = 20
HOURS = range(1, 31)


def patient(onset, hours=HOURS):
    """(hour, label) of each row: labelled from six hours before the onset."""
    return [(hour, int(onset is not None and hour >= onset - 6)) for hour in hours]


def arrays(patients):
    rows = [(code, hour, label) for code, one in enumerate(patients) for hour, label in one]
    return [np.array(column, dtype=int) for column in zip(*rows, strict=True)]


def reference(rows, alarms):
    """One patient's utility, hour by hour, from the published definition."""
    labelled = [hour for hour, label in rows if label]
    total = 0.0
    for (hour, _), alarm in zip(rows, alarms, strict=True):
        if not labelled:
            total += -0.05 if alarm else 0.0
            continue
        before = labelled[0] + 6 - hour
        if before < -3:
            continue
        if alarm and before > 12:
            total -= 0.05
        elif alarm and before >= 6:
            total += (12 - before) / 6
        elif alarm:
            total += (before + 3) / 9
        elif before < 6:
            total -= 2 * (6 - before) / 9
    return total


def ideal(rows):
    """The best of the patient: alarms from twelve hours before the onset to three after it."""
    labelled = [hour for hour, label in rows if label]
    return [bool(labelled) and -12 <= hour - labelled[0] - 6 <= 3 for hour, _ in rows]


@pytest.mark.parametrize(
    ("since", "alarm", "silence"),
    [
        (-13, -0.05, 0),
        (-12, 0, 0),
        (-9, 1 / 2, 0),
        (-6, 1, 0),
        (-3, 2 / 3, -2 / 3),
        (0, 1 / 3, -4 / 3),
        (3, 0, -2),
        (4, 0, 0),
        (10, 0, 0),
    ],
)
def test_an_hour_is_worth_what_its_distance_from_the_onset_says(since, alarm, silence):
    found = rewards(*arrays([patient(ONSET)]))
    assert [of[ONSET + since - 1] for of in found] == pytest.approx([alarm, silence])


def test_an_hour_without_sepsis_costs_a_twentieth_if_it_alarms_and_nothing_else():
    alarm, silence = rewards(*arrays([patient(None)]))
    assert set(alarm) == {-0.05}
    assert set(silence) == {0}


# Of silence from five hours before the onset to three after it: -2/9 (1 + 2 + … + 9).
NEVER = -10.0
# Alarms from -12 to -6: (0 + 1 + … + 6)/6; from -5 to 3: (8 + 7 + … + 0)/9.
BEST = 3.5 + 4.0


@pytest.mark.parametrize(
    ("since", "raw"),
    [
        (range(-12, 4), BEST),
        (range(-6, -5), NEVER + 1),
        (range(1), NEVER + 1 / 3 + 4 / 3),
        (range(-15, -12), NEVER - 3 * 0.05),
        (range(4, 11), NEVER),
        (range(0), NEVER),
    ],
    ids=["in the whole window", "six hours ahead", "at the onset", "too early", "too late", "never"],
)
def test_alarms_for_one_patient_with_sepsis_reach_the_sum_worked_by_hand(since, raw):
    series, hour, label = arrays([patient(ONSET)])
    found = utility(series, hour, label, np.isin(hour - ONSET, since))
    assert (found.raw, found.best, found.inaction) == pytest.approx((raw, BEST, NEVER))
    assert found.normalised == pytest.approx((raw - NEVER) / (BEST - NEVER))


def test_alarms_without_sepsis_are_set_against_the_one_who_has_it():
    series, hour, label = arrays([patient(ONSET), patient(None)])
    found = utility(series, hour, label, series == 1)
    assert found.normalised == pytest.approx(-30 * 0.05 / (BEST - NEVER))


def test_utility_without_any_sepsis_has_no_scale():
    found = utility(*arrays([patient(None)]), [True] * len(HOURS))
    assert found.raw == pytest.approx(-1.5)
    assert np.isnan(found.normalised)
    assert np.isnan(best_threshold(*arrays([patient(None)]), [0.5] * len(HOURS)).normalised)


def test_a_stay_that_opens_with_a_label_has_its_onset_six_hours_later():
    series, hour, label = arrays([patient(3)])
    alarm, _ = rewards(series, hour, label)
    assert alarm[:4] == pytest.approx([1, 8 / 9, 7 / 9, 6 / 9])


def test_a_missing_hour_moves_no_other():
    whole, gap = (arrays([patient(ONSET, hours)]) for hours in (HOURS, [*range(1, 16), *range(18, 31)]))
    kept = np.isin(whole[1], gap[1])
    for of, expected in zip(rewards(*gap), rewards(*whole), strict=True):
        assert of.tolist() == expected[kept].tolist()


def test_one_row_and_none():
    assert utility([3], [1], [1], [True]).normalised == 1
    assert np.isnan(utility(*np.empty((3, 0), dtype=int), []).normalised)
    with pytest.raises(NotEnoughDataError):
        interval(per_patient(*np.empty((3, 0), dtype=int), []))


patients = st.lists(
    st.tuples(st.integers(1, 30), st.one_of(st.none(), st.integers(1, 40)), st.integers(1, 9)).map(
        lambda of: patient(of[1], range(of[2], of[2] + of[0]))
    ),
    min_size=1,
    max_size=6,
)


@given(patients, st.integers(0, 2**32 - 1))
def test_any_alarms_agree_with_the_published_definition(several, seed):
    rng = np.random.default_rng(seed)
    series, hour, label = arrays(several)
    alarm = rng.random(len(series)) < 0.5
    raw, best, inaction = (
        [reference(one, made[series == code]) for code, one in enumerate(several)]
        for made in (alarm, np.concatenate([ideal(one) for one in several]), np.zeros(len(series), bool))
    )
    found = utility(series, hour, label, alarm)
    assert (found.raw, found.best, found.inaction) == pytest.approx((sum(raw), sum(best), sum(inaction)))
    by_patient = per_patient(series, hour, label, alarm)
    assert by_patient.gained == pytest.approx(np.subtract(raw, inaction))
    assert by_patient.possible == pytest.approx(np.subtract(best, inaction))
    assert by_patient.normalised == pytest.approx(found.normalised, nan_ok=True)


@given(patients, st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 8]))
def test_the_best_threshold_is_that_of_trying_each(several, seed, decimals):
    series, hour, label = arrays(several)
    risk = np.random.default_rng(seed).random(len(series)).round(decimals)
    tried = {t: utility(series, hour, label, risk >= t) for t in [np.inf, *np.unique(risk)]}
    best = max(found.raw for found in tried.values())
    chosen = best_threshold(series, hour, label, risk)
    assert tried[chosen.threshold].raw == pytest.approx(best)
    assert chosen.normalised == pytest.approx(tried[chosen.threshold].normalised, nan_ok=True)


def test_the_best_threshold_may_be_never_to_alarm():
    assert best_threshold(*arrays([patient(None)]), [0.5] * len(HOURS)).threshold == np.inf


def test_the_order_of_the_rows_is_irrelevant():
    series, hour, label = arrays([patient(ONSET), patient(None), patient(9)])
    alarm, mixed = hour % 3 == 0, np.random.default_rng(0).permutation(len(hour))
    found = utility(series[mixed], hour[mixed], label[mixed], alarm[mixed])
    assert found.raw == pytest.approx(utility(series, hour, label, alarm).raw)


def test_stays_of_one_patient_are_summed():
    series, hour, label = arrays([patient(ONSET), patient(None), patient(9)])
    found = per_patient(series, hour, label, hour > 5, patient=np.array([7, 4, 7])[series])
    apart = per_patient(series, hour, label, hour > 5)
    assert found.gained == pytest.approx([apart.gained[1], apart.gained[0] + apart.gained[2]])
    assert found.possible == pytest.approx([0, apart.possible[0] + apart.possible[2]])


def test_the_interval_is_as_wide_as_the_delta_method_says():
    rng = np.random.default_rng(0)
    possible = rng.random(2_000) * 10
    gained = possible * 0.4 + rng.normal(0, 2, 2_000)
    found = interval(PerPatient(gained=gained, possible=possible))
    ratio = gained.sum() / possible.sum()
    error = np.sqrt(((gained - ratio * possible) ** 2).sum()) / possible.sum()
    assert found.value == pytest.approx(ratio)
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.08)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"label": [0, np.nan]}, "label"),
        ({"label": [0, 2]}, "label"),
        ({"series": [0.5, 0.5]}, "whole numbers"),
        ({"hour": [1]}, "equal length"),
        ({"alarm": [True]}, "alarm"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, named):
    given = {"series": [0, 0], "hour": [1, 2], "label": [0, 1], "alarm": [True, False]}
    with pytest.raises(ValueError, match=named):
        utility(**(given | changed))


@pytest.mark.parametrize("risk", [[0.1], [0.1, np.nan]])
def test_a_risk_that_is_missing_is_refused(risk):
    with pytest.raises(ValueError, match="risk"):
        best_threshold([0, 0], [1, 2], [0, 1], risk)


def test_a_patient_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="patient"):
        per_patient([0, 0], [1, 2], [0, 1], [True, False], patient=[1])


def cohort(n, seed):
    """Stays of 40 hours, one in eight with sepsis, and a risk that rises towards it."""
    rng = np.random.default_rng(seed)
    onsets = [int(rng.integers(12, 40)) if rng.random() < 1 / 8 else None for _ in range(n)]
    series, hour, label = arrays([patient(onset, range(1, 41)) for onset in onsets])
    return series, hour, label, 1 / (1 + np.exp(3 - 1.5 * label - rng.normal(0, 1, len(label))))
