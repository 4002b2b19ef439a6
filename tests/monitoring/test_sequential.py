"""Bets hold their promise whenever one looks, and win where the promise is broken."""

from __future__ import annotations

import numpy as np
import pytest

from models.metrics import design_effect
from monitoring.sequential import FEWER, MORE, STAKES, below_zero, capital, evidence

LOOKS = 12


def year(rng, *, visits, truth, bound, more, looks=LOOKS):
    """Log-capital of each look; the true chance is ``truth(risk, look)``."""
    for look in range(looks):
        risk = rng.beta(1, 6, visits)
        outcome = (rng.random(visits) < np.minimum(truth(risk, look), 1)).astype(float)
        yield capital(outcome, np.minimum(risk * bound, 1), more=more)


def first_over(windows, limit):
    seen = []
    for look, window in enumerate(windows):
        seen.append(window)
        if evidence(seen, looks=LOOKS).value >= limit:
            return look
    return None


def test_a_bet_is_the_likelihood_ratio_of_two_chances():
    """By hand: an event whose chance is bet to be 0.3 and not 0.2 wins 1.5, none 0.7 / 0.8."""
    bound, outcome = np.full(3, 0.2), np.array([1.0, 0.0, 0.0])
    won = np.exp(capital(outcome, bound, more=True)[MORE.index(1.5)])
    assert won == pytest.approx(1.5 * 0.875**2)
    won = np.exp(capital(outcome, bound, more=False)[FEWER.index(0.5)])
    assert won == pytest.approx(0.5 * (0.9 / 0.8) ** 2)


def test_a_bet_is_fair_at_the_bound_and_a_loss_within_it():
    bound = np.array([0.05, 0.2, 0.7, 0.95])
    for more, within in ((True, bound * 0.7), (False, np.minimum(bound * 1.3, 1))):
        for truth, expected in ((bound, 1.0), (within, None)):
            won = [
                truth[i] * np.exp(capital(np.ones(1), bound[i : i + 1], more=more))
                + (1 - truth[i]) * np.exp(capital(np.zeros(1), bound[i : i + 1], more=more))
                for i in range(len(bound))
            ]
            if expected is not None:
                assert np.allclose(won, expected)
            else:
                assert np.max(won) <= 1 + 1e-12


@pytest.mark.parametrize(("more", "bound"), [(True, 1.25), (False, 0.8)])
def test_at_the_bound_itself_a_year_of_looks_is_rarely_alarmed_over(more, bound):
    rng, alpha, years = np.random.default_rng(1), 0.05, 400
    limit = np.log10(1 / alpha)
    false = sum(
        first_over(
            year(rng, visits=120, truth=lambda risk, _: risk * bound, bound=bound, more=more), limit
        )
        is not None
        for _ in range(years)
    )
    assert false / years <= alpha


@pytest.mark.parametrize(("ratio", "bound", "more"), [(1.6, 1.25, True), (0.5, 0.8, False)])
def test_a_change_in_june_is_found_within_three_thousand_outcomes(ratio, bound, more):
    rng = np.random.default_rng(2)
    limit = np.log10(30 / 0.004)
    for _ in range(10):
        found = first_over(
            year(
                rng,
                visits=1000,
                truth=lambda risk, look: risk * (ratio if look >= 5 else 1),
                bound=bound,
                more=more,
            ),
            limit,
        )
        assert found is not None
        assert 5 <= found < 8


def test_a_small_miscalibration_is_none_however_many_patients():
    rng = np.random.default_rng(3)
    windows = year(rng, visits=50_000, truth=lambda risk, _: risk * 1.15, bound=1.25, more=True)
    assert first_over(windows, 1.0) is None


def test_the_look_whose_bet_won_most_is_named():
    quiet, moved = np.full(5, -2.0), np.full(5, 3.0)
    found = evidence([quiet, quiet, moved, moved], looks=LOOKS)
    assert found.start == 2
    # By hand: of 12 bets four have begun; they hold e^2, e^4, e^6 and e^3, the others 1.
    expected = np.log10((np.exp([2, 4, 6, 3]).sum() + 8) / 12)
    assert found.value == pytest.approx(expected)


def test_only_the_last_year_is_bet_on():
    windows = [np.full(5, 50.0)] + [np.zeros(5)] * LOOKS
    assert evidence(windows, looks=LOOKS).value == pytest.approx(0)


def test_no_look_and_no_patient_win_nothing():
    nobody = capital(np.zeros(0), np.zeros(0), more=True)
    assert evidence([], looks=LOOKS).value == 0
    assert evidence([nobody], looks=LOOKS).value == pytest.approx(0)


def test_capital_that_no_number_holds_is_still_evidence():
    found = evidence([np.full(5, 5000.0)], looks=LOOKS)
    assert found.value == pytest.approx(5000 / np.log(10) - np.log10(12), rel=1e-9)


def test_a_loss_that_no_number_holds_is_a_finite_one():
    """By hand: of twelve bets the last lost least, e to the -3000; the mean divides it by 12."""
    found = evidence([np.full(5, -3000.0)] * LOOKS, looks=LOOKS)
    assert found.value == pytest.approx((-3000 - np.log(12)) / np.log(10))


def test_hours_of_the_same_patients_are_bet_on_as_the_patients_that_they_are():
    """Each patient's twenty hours have one outcome: without the spread every second year alarms."""
    rng, alpha, years, hours = np.random.default_rng(4), 0.05, 60, 20
    false = {"rows": 0, "patients": 0}
    for _ in range(years):
        rows, seen = [], []
        crossed = set()
        for look in range(LOOKS):
            risk = np.repeat(rng.beta(1, 6, 40), hours)
            outcome = np.repeat((rng.random(40) < risk[::hours] * 1.25).astype(float), hours)
            rows.append((outcome, risk, look * 40 + np.repeat(np.arange(40), hours)))
            seen.append(capital(outcome, np.minimum(risk * 1.25, 1), more=True))
            spread = design_effect(*(np.concatenate(part) for part in zip(*rows, strict=True)))
            for name, by in (("rows", 1.0), ("patients", spread)):
                if evidence(seen, looks=LOOKS, spread=by).value >= np.log10(1 / alpha):
                    crossed.add(name)
        for name in crossed:
            false[name] += 1
    assert false["rows"] / years > 0.3
    assert false["patients"] / years <= alpha


def test_a_mean_below_zero_is_bet_on():
    """By hand: a stake of half of the capital on -1 wins 1.5, on 1 loses to 0.5."""
    won = np.exp(below_zero(np.array([-1.0, -1.0, 1.0]), most=1.0)[STAKES.index(0.5)])
    assert won == pytest.approx(1.5 * 1.5 * 0.5)
