"""The statistic, its threshold, and how often it cries wolf."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from data.contract import Text
from models.reference import Binned
from monitoring import drift
from monitoring.drift import ALPHA, FLOOR, SCALE, missing, prepare, psi, refusal_limit, threshold

X = Text("x", "x")


def numbers(counts):
    """A column of ``len(counts) - 1`` bins at whole edges; the last count is of the missing."""
    bins = len(counts) - 1
    return Binned(
        column="x",
        label=X,
        labels=(*map(str, range(bins)), "missing"),
        counts=tuple(counts),
        edges=tuple(map(float, range(1, bins))),
    )


def categories(counts, *names):
    labels = (*names, "other", "missing")
    return Binned(column="x", label=X, labels=labels, counts=tuple(counts), kept=(*names, "other"))


def counts(cells):
    return dict(zip(cells.labels, cells.now.tolist(), strict=True))


def test_psi_by_hand():
    expected = 0.1 * math.log(0.3 / 0.2) + (-0.1) * math.log(0.7 / 0.8)
    assert psi([30, 70], [200, 800]) == pytest.approx(expected)
    assert psi([10, 20, 70], [1, 2, 7]) == pytest.approx(0)


def test_threshold_by_hand():
    cells = prepare(numbers([1000, 1000, 1000, 1000, 0]), np.array([100, 100, 100, 100, 0]))
    noise = stats.chi2.isf(ALPHA / 40, df=3) * (1 / 400 + 1 / 4000)
    assert threshold(cells, tests=40) == pytest.approx(FLOOR + noise)


def test_visits_of_one_patient_count_once_in_the_noise():
    window = np.array([100, 100, 100, 100, 0])
    alone = prepare(numbers([1000] * 4 + [0]), window)
    often = prepare(numbers([1000] * 4 + [0]), window, patients=50)
    assert threshold(often, tests=1) > threshold(alone, tests=1)
    taught = prepare(numbers([1000] * 4 + [0]), window, trained=0.1)
    noise = stats.chi2.isf(ALPHA, df=3) * (1 / 400 + 1 / 400)
    assert threshold(taught, tests=1) == pytest.approx(FLOOR + noise)
    lost = [
        prepare(numbers([1000] * 4 + [500]), np.array([100] * 4 + [50]), trained=trained)
        for trained in (1.0, 0.1)
    ]
    assert missing(lost[0], tests=1).threshold < missing(lost[1], tests=1).threshold


def test_rare_neighbours_are_merged_and_named_after_their_edges():
    made = prepare(numbers([5000, 30, 30, 4940, 0]), np.array([100, 1, 0, 99, 0]))
    assert made.labels == ("under 1", "1 and over")
    assert made.now.tolist() == [100, 100]


def test_rare_categories_go_to_the_rest():
    reference = categories([5000, 4000, 30, 970, 0], "a", "b", "c")
    assert counts(prepare(reference, np.array([100, 80, 3, 17, 0]))) == {"a": 100, "b": 80, "other": 20}


def test_an_empty_rest_costs_no_cell():
    made = prepare(categories([5000, 5000, 0, 0], "false", "true"), np.array([90, 110, 0, 0]))
    assert made.labels == ("false", "true")


def test_what_was_never_missing_and_now_is_stands_out_in_a_small_window():
    made = prepare(numbers([5000] * 10 + [0]), np.array([27] * 10 + [30]))
    assert made.labels[-1] == "missing"
    assert psi(made.drawn_now, made.drawn_then) > threshold(made, tests=50)
    assert made.missing == (0.0, 0.1)
    assert made.moved == "“not recorded” 0.0% at training, 10% now"


def test_what_was_always_recorded_and_no_longer_is():
    made = prepare(numbers([5000, 5000, 0]), np.array([0, 0, 200]))
    assert psi(made.drawn_now, made.drawn_then) > 5


@pytest.mark.parametrize("window", [[0, 200, 0], [1, 1, 198], [77, 123, 0], [10**6, 10**6, 10**6]])
def test_both_sides_are_drawn_out_alike_and_no_cell_is_empty(window):
    made = prepare(numbers([4000, 6000, 30]), np.array(window))
    for side in (made.drawn_now, made.drawn_then):
        assert side.sum() == SCALE
        assert side.min() >= 1


def test_too_few_rows_on_either_side_are_no_test():
    assert prepare(numbers([5000, 5000, 0]), np.array([40, 40, 0])) is None
    assert prepare(numbers([40, 40, 0]), np.array([500, 500, 0])) is None
    assert prepare(numbers([0, 0, 0]), np.array([500, 500, 0])) is None


COLUMNS = 40


@pytest.mark.parametrize(("n", "windows"), [(300, 150), (1000, 150), (10_000, 100)])
@pytest.mark.parametrize("m", [2000, 50_000])
def test_false_alarms_are_few(n, m, windows):
    """Columns of every shape: tenths, skewed bins, rare flags, many categories, some missing."""
    rng = np.random.default_rng(n + m)
    shapes = []
    for _ in range(COLUMNS):
        shape = rng.dirichlet(np.full(rng.integers(2, 22), rng.choice([0.5, 2, 50])))
        shape = np.maximum(shape, 25 / m)  # what has fewer has no cell in a reference
        shapes.append(shape / shape.sum())
    alarms = noise = 0
    for _ in range(windows):
        over = []
        for shape in shapes:
            made = prepare(numbers(rng.multinomial(m, shape).tolist()), rng.multinomial(n, shape))
            value = psi(made.drawn_now, made.drawn_then)
            over.append(value - threshold(made, tests=COLUMNS))
        alarms += max(over) > 0
        noise += max(over) > -FLOOR
    assert alarms / windows <= 0.02
    # The noise term is no mere padding: alone it nearly holds what it promises.
    assert noise / windows <= 3 * ALPHA


@pytest.mark.parametrize(("n", "shift"), [(300, 0.8), (1000, 0.6), (10_000, 0.45)])
def test_real_shifts_are_found(n, shift):
    """A shift in standard deviations of a normal column: 0.45 is seven beats of the heart rate."""
    rng = np.random.default_rng(n)
    edges = stats.norm.ppf(np.arange(1, 10) / 10)
    found = 0
    for _ in range(100):
        window = np.histogram(rng.normal(shift, 1, n), [-np.inf, *edges, np.inf])[0]
        made = prepare(numbers([2000] * 10 + [0]), np.array([*window, 0]))
        found += psi(made.drawn_now, made.drawn_then) > threshold(made, tests=600)
    assert found >= 95


@pytest.mark.parametrize("rows", [100, 1000, 20_000])
def test_the_limit_of_refusals_is_binomial(rows):
    most = round(refusal_limit(rows, tests=60) * rows)
    assert stats.binom.sf(most, rows, drift.TOLERATED) <= ALPHA / 60
    assert stats.binom.sf(most - 1, rows, drift.TOLERATED) > ALPHA / 60
