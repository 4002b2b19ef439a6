"""Sicker patients than at promotion, told before any outcome is; and a seventh more that is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.calibration import sigmoid
from models.watch import Alarm, Watch
from monitoring import case_mix

MONTHS = ("2026-01", "2026-02", "2026-03", "2026-04", "2026-05")


@pytest.fixture
def found(make, loaded):
    """What is said of five months of risks, whose log-odds are ``moved`` from month ``since`` on."""

    def found(moved=0.0, *, since=3, n=2000, then=None, spec=loaded.spec, repeat=1, seed=1):
        rng = np.random.default_rng(seed)
        parts = [
            sigmoid(rng.normal(-1.8 + moved * (place >= since), 1.1, n // repeat)).repeat(repeat)
            for place in range(len(MONTHS))
        ]
        quiet = float(sigmoid(rng.normal(-1.8, 1.1, 200_000)).mean())
        at = np.repeat(np.array(MONTHS, "datetime64[D]"), len(parts[0]))
        patient = np.repeat(np.arange(len(at) // repeat), repeat)
        every = make.answers(np.concatenate(parts), at=at, patient=patient)
        now = every.at >= np.datetime64("2026-05-01")
        window = make.window(every.take(now), every.take(~now))
        figures = {"n": 1000, "events": 1000 * quiet * 0.9, "calibration": {"oe": 0.9}}
        return case_mix.signals(window, spec, figures if then is None else then)

    return found


def test_the_mean_risk_at_promotion_is_told_by_its_figures():
    """By hand: 180 events, 0.9 of what was expected of 1,000 patients: a mean risk of 0.2."""
    assert case_mix.expected({"n": 1000, "events": 180, "calibration": {"oe": 0.9}}) == 0.2
    for nothing in (
        None,
        {},
        {"n": 0, "events": 0},
        {"n": 10, "events": 1, "calibration": {"oe": None}},
    ):
        assert case_mix.expected(nothing) is None


def test_sicker_patients_are_told_with_the_month_since_when(found):
    (signal,) = found(0.35)
    assert (signal.what, signal.column, signal.site, signal.since) == (
        "prediction_drift", "risk", None, "2026-04-01",
    )  # fmt: skip
    # By quadrature: the means of the logistic-normal at -1.45 and -2.15 over that at -1.8.
    assert signal.value == pytest.approx(1.262, abs=0.04)
    assert "sicker patients" in signal.message
    (signal,) = found(-0.35)
    assert signal.value == pytest.approx(0.779, abs=0.04)
    assert "less ill patients" in signal.message


@pytest.mark.parametrize("moved", [0.0, 0.1, -0.1])
def test_a_little_more_or_less_is_none(found, moved):
    for seed in range(20):
        assert found(moved, since=0, seed=seed) == []


def test_twenty_rows_a_patient_promise_no_more_than_they_hold(found):
    """100 patients a month: their mean strays by a tenth of chance alone."""
    for seed in range(20):
        assert found(repeat=20, seed=seed) == []


def test_the_spec_s_own_bounds_are_held_to(found, loaded):
    wide = Watch(alarms=(Alarm(what="prediction_drift", response="watch", low=0.5, high=2.0),))
    assert found(0.35, spec=replace(loaded.spec, watch=wide)) == []
    none = Watch(alarms=(Alarm(what="silence", response="watch"),))
    assert found(0.35, spec=replace(loaded.spec, watch=none)) == []


def test_nothing_is_said_without_figures_or_of_too_few(found):
    assert found(0.35, then={}) == []
    assert found(2.0, n=99) == []
