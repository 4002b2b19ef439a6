"""What is strange, worked by hand, simulated, and on the survey's visits where they are at hand."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from data import source
from data.contract import Category, Column, Text, check, complete, sample
from data.errors import NotEnoughDataError
from data.marts.ed_visit import MART
from models import catalog, novelty
from models.cohort import select
from models.features import FeatureMap
from models.metrics import auroc
from models.novelty import MOST, Driver, Novelty, fit
from models.reference import SMALLEST_CELL
from models.spec import to_json

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("CAREMODELS_DATA") or ROOT.parent / "shared" / "data") / "nhamcs_ed"
SPEC = catalog.load("ed_admission")
INPUTS = MART.select(FeatureMap.of(MART, SPEC.features).inputs)
VITALS = ("temperature", "heart_rate", "respiratory_rate", "sbp", "dbp", "spo2")
X = Text("x", "x")


def column(name, kind="number", ids=()):
    categories = tuple(Category(id=i, label=X) for i in ids)
    return Column(name=name, kind=kind, role="input", available="triage", label=X, categories=categories)


def one(**values):
    return {name: np.array([value], dtype=np.float64) for name, value in values.items()}


def pressures(n, seed=0):
    """Two numbers that go together, and one that goes with neither."""
    rng = np.random.default_rng(seed)
    high = rng.normal(130, 20, n)
    return {"high": high, "low": high * 0.6 + rng.normal(0, 6, n), "other": rng.normal(0, 1, n)}


PRESSURES = [column("high"), column("low"), column("other")]


def test_a_number_is_as_strange_as_it_is_far_out():
    usual = fit([column("x")], {"x": np.arange(1.0, 1001.0)})
    tails = usual.numbers[0].tails
    # 25 rows lie up to the first edge, told as 20; they are 25.975 - 13 away from it on average.
    assert tails.edges[0] == pytest.approx(25.975)
    assert tails.below[0] == 0.02
    assert tails.reach == pytest.approx((12.975, 12.975))
    assert usual.score(one(x=500.5)) == 0
    assert usual.score(one(x=25.975)) == pytest.approx(-math.log(0.04))
    assert usual.score(one(x=25.975 - 3 * 12.975)) == pytest.approx(-math.log(0.04) + 3)
    assert usual.score(one(x=975.025)) == usual.score(one(x=25.975))
    assert usual.score(one(x=1e12)) == MOST


def test_a_cell_is_as_strange_as_it_is_rare():
    usual = fit([column("x", "flag")], {"x": np.repeat([0.0, 1.0, np.nan], [900, 80, 20])})
    # Of 980 that are known, in cells no more common: all; 80, which is told in steps of 20.
    assert usual.cells[0].shares == pytest.approx((1.0, 80 / 980, 1.0))
    found = usual.score({"x": np.array([0.0, 1.0, np.nan])})
    assert found == pytest.approx([0, -math.log(80 / 980), 0])


def test_a_category_never_seen_is_stranger_than_any_that_was():
    codes = np.repeat([0, 1, 2], [700, 200, 100]).astype(np.int16)
    usual = fit([column("x", "category", ids="abcd")], {"x": codes})
    score = usual.score({"x": np.array([0, 1, 2, 3], dtype=np.int16)})
    assert (np.diff(score) > 0).all()
    assert usual.drivers({"x": np.array([2], dtype=np.int16)}) == [
        (Driver(columns=("x",), share=pytest.approx(0.1)),)
    ]


@pytest.mark.parametrize("rate", [0.4, 0.002])
def test_what_was_not_measured_is_never_strange_however_rare_that_was(rate):
    rng = np.random.default_rng(1)
    names = [f"x{i}" for i in range(8)]
    rows = {name: np.where(rng.random(20_000) < rate, np.nan, rng.normal(size=20_000)) for name in names}
    usual = fit([column(name) for name in names], rows)
    assert usual.score(one(**dict.fromkeys(names, np.nan))) == 0
    whole = dict.fromkeys(names, 0.3) | {"x0": 4.2}
    for left_out in range(1, 8):
        fewer = whole | {f"x{i}": np.nan for i in range(1, left_out + 1)}
        assert usual.score(one(**fewer)) <= usual.score(one(**whole))


def test_two_ordinary_numbers_that_do_not_go_together_are_strange():
    usual = fit(PRESSURES, pressures(10_000))
    assert [pair.columns for pair in usual.pairs] == [("high", "low")]
    swapped = one(high=100, low=98, other=0)
    for high, low in ((100, 60), (163, 98)):
        assert usual.percentile(one(high=high, low=low, other=0)) < 0.95
    assert usual.percentile(swapped) > 0.99
    assert usual.drivers(swapped)[0][0].columns == ("high", "low")


def test_what_goes_together_is_found_as_numpy_finds_it():
    rows = pressures(5_000)
    rows["low"][::3] = np.nan
    correlation, slope = novelty._related(np.array(list(rows.values())))
    known = ~np.isnan(rows["low"])
    high, low = rows["high"][known], rows["low"][known]
    assert correlation[0, 1] == pytest.approx(np.corrcoef(high, low)[0, 1])
    assert slope[0, 1] == pytest.approx(np.polyfit(low, high, 1)[0])
    assert slope[1, 0] == pytest.approx(np.polyfit(high, low, 1)[0])
    assert correlation[0, 0] == 0


def test_numbers_that_hardly_ever_stand_together_are_not_asked_together():
    rows = pressures(5_000)
    rows["low"][novelty.TOGETHER - 1 :] = np.nan
    assert fit(PRESSURES, rows).pairs == ()
    rows = pressures(5_000)
    rows["low"][novelty.TOGETHER :] = np.nan
    assert len(fit(PRESSURES, rows).pairs) == 1


def test_a_score_adds_the_three_largest_and_names_them():
    usual = fit(INPUTS, check(INPUTS, sample(MART, 5_000, 0).select([c.name for c in INPUTS])).rows)
    rows = check(INPUTS, sample(MART, 50, 1).select([c.name for c in INPUTS])).rows
    for score, drivers in zip(usual.score(rows), usual.drivers(rows), strict=True):
        assert len(drivers) == 3
        shares = [driver.share for driver in drivers]
        assert shares == sorted(shares)
        assert score == pytest.approx(-sum(math.log(share) for share in shares))


def test_training_rows_fall_evenly_over_the_percentiles():
    rows = pressures(20_000)
    percentile = fit(PRESSURES, rows).percentile(rows)
    for limit in (0.05, 0.25, 0.5, 0.9, 0.99):
        assert (percentile < limit).mean() == pytest.approx(limit, abs=0.003)
    assert percentile.max() > 0.999
    again = fit(PRESSURES, rows).percentile(pressures(20_000, seed=1))
    assert (again > 0.99).mean() == pytest.approx(0.01, abs=0.003)


def test_rows_are_judged_one_by_one_whatever_the_order_of_their_columns():
    rows = pressures(3_000)
    usual = fit(PRESSURES, rows)
    some = {name: values[:40] for name, values in rows.items()}
    alone = [usual.percentile({n: v[i : i + 1] for n, v in some.items()}).item() for i in range(40)]
    assert np.array_equal(usual.percentile(some), alone)
    assert np.array_equal(usual.percentile(dict(reversed(some.items()))), alone)
    nobody = {name: values[:0] for name, values in rows.items()}
    assert usual.percentile(nobody).shape == (0,)
    assert usual.drivers(nobody) == []


def test_all_inputs_in_one_pass_surprise_bit_for_bit_as_each_by_itself(cohort):
    """On the edges, past them, and with gaps."""
    usual, rng = fit(INPUTS, cohort.rows), np.random.default_rng(0)
    rows = {name: values.copy() for name, values in cohort.rows.items()}
    for name, values in rows.items():
        if values.dtype.kind == "f":
            values[rng.random(len(values)) < 0.2] = np.nan
        tails = [number.tails for number in usual.numbers if number.columns == (name,)]
        for edge in (*(e for of in tails for e in of.edges), *([-1e9, 1e9] if tails else [])):
            values[rng.integers(0, len(values), 5)] = edge
    whole = novelty._surprises(usual._asked, rows)
    for start in range(0, 600, 60):
        few = {name: values[start : start + 60] for name, values in rows.items()}
        assert np.array_equal(usual.surprises(few), whole[start : start + 60])
    assert np.array_equal(usual.surprises(rows), whole)


def test_it_survives_its_own_json(cohort):
    usual = fit(INPUTS, cohort.rows)
    read = msgspec.json.decode(to_json(usual), type=Novelty)
    assert read == usual
    assert np.array_equal(read.percentile(cohort.rows), usual.percentile(cohort.rows))


def test_no_share_and_no_value_points_at_a_person(cohort):
    usual = fit(INPUTS, cohort.rows)
    assert usual.pairs
    for number in (*usual.numbers, *usual.pairs):
        known = cohort.rows[number.columns[0]]
        if len(number.columns) == 2:
            known = known - number.slope * cohort.rows[number.columns[1]]
        known = known[~np.isnan(known)]
        for edge in number.tails.edges:
            assert min((known <= edge).sum(), (known >= edge).sum()) >= SMALLEST_CELL
        for share in (*number.tails.below, *number.tails.above):
            steps = share * len(known) / SMALLEST_CELL
            assert share == 1 or steps == pytest.approx(max(1, round(steps)))
    told = [(len(cohort), usual.scores.below)]
    for cells in usual.cells:
        values = cohort.rows[cells.columns[0]]
        known = values >= 0 if values.dtype.kind == "i" else ~np.isnan(values)
        told.append((len(cohort) if len(cells.shares) == 2 else int(known.sum()), cells.shares))
    for rows, shares in told:
        for share in shares:
            steps = share * rows / SMALLEST_CELL
            assert share == 1 or steps == pytest.approx(max(1, round(steps)))


def test_a_column_without_values_or_with_one_is_no_obstacle():
    rows = {"none": np.full(500, np.nan), "same": np.full(500, 7.0), "few": np.full(500, np.nan)}
    rows["few"][:9] = 1.0
    usual = fit([column(name) for name in rows], rows)
    ordinary = {"none": np.nan, "same": 7, "few": np.nan}
    assert usual.score(one(**ordinary)) == 0
    assert usual.score(one(**{**ordinary, "none": 3})) == pytest.approx(-math.log(20 / 500))
    assert usual.score(one(**{**ordinary, "few": -3})) == pytest.approx(-math.log(20 / 500))
    assert usual.score(one(**{**ordinary, "same": 8})) == MOST


def test_of_very_many_rows_some_are_enough(monkeypatch):
    rows = pressures(9_000)
    every_third = {name: values[::3] for name, values in rows.items()}
    monkeypatch.setattr(novelty, "LARGEST", 3_000)
    assert fit(PRESSURES, rows).numbers == fit(PRESSURES, every_third).numbers
    assert fit(PRESSURES, rows).rows == 9_000


def test_too_few_rows_do_not_tell_what_is_usual():
    with pytest.raises(NotEnoughDataError, match="39 rows"):
        fit(PRESSURES, pressures(39))
    assert fit(PRESSURES, pressures(40)).scores.edges


def wrong(rows, seed=0):
    """Slips of unit and field in rows that were right, each with the columns that ought to be named."""
    swapped = {**rows, "sbp": rows["dbp"], "dbp": rows["sbp"]}
    within = (rows["dbp"] >= 30) & (rows["sbp"] <= 220)
    yield "pressures swapped", {n: v[within] for n, v in swapped.items()}, {("sbp", "dbp"), ("sbp",)}
    hot = {**rows, "temperature": np.minimum(rows["temperature"] * 1.8 + 32, 45)}  # as far as it may be
    known = ~np.isnan(rows["temperature"])
    yield "Fahrenheit", {n: v[known] for n, v in hot.items()}, {("temperature",)}
    names = [c.name for c in INPUTS]
    yield "random", check(INPUTS, sample(MART, 2_000, seed).select(names)).rows, None


def test_slips_are_found_among_simulated_visits_and_named(cohort):
    first = np.arange(len(cohort)) < len(cohort) / 2
    then, now = ({n: v[of] for n, v in cohort.rows.items()} for of in (first, ~first))
    usual = fit(INPUTS, then)
    assert (usual.percentile(now) > 0.99).mean() < 0.03
    for what, rows, named in wrong(now):
        assert (usual.percentile(rows) > 0.99).mean() > 0.9, what
        if named:
            strangest = [drivers[0].columns in named for drivers in usual.drivers(rows)]
            assert np.mean(strangest) > 0.9, what


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the survey's files are not part of the repository")
def test_slips_are_found_among_real_visits_as_often_as_measured():
    query = source.load("nhamcs_ed")
    tables = source.batches(query, source.find(str(REAL / "ed*.parquet")))
    visits = pa.concat_tables(complete(MART, table) for table in tables)
    adults = select(SPEC, MART, visits.append_column("load_id", pa.repeat("real", len(visits))))
    last = adults.time >= np.datetime64("2021-01-01")
    before = adults.time < np.datetime64("2020-01-01")
    then, now = ({n: v[of] for n, v in adults.rows.items()} for of in (before, last))
    usual = fit(INPUTS, then)
    assert (usual.percentile(now) > 0.99).mean() < 0.025

    def found(rows):
        scores = np.concatenate([usual.score(now), usual.score(rows)])
        slip = np.arange(len(scores)) >= len(now["age"])
        return auroc(slip, scores.argsort().argsort() / len(scores))

    for what, rows, _ in wrong(now):
        assert found(rows) > 0.995, what
        assert (usual.percentile(rows) > 0.99).mean() > 0.98, what
    every = check(INPUTS, visits.select([c.name for c in INPUTS])).rows
    small = {name: values[every["age"] < 5] for name, values in every.items()}
    ages = np.resize(now["age"], len(small["age"]))
    # Hardly any has a pressure, which would give more of them away and is not strange.
    assert 0.65 < found({**small, "age": ages}) < 0.75
    unmeasured = dict.fromkeys(VITALS, np.full(len(now["age"]), np.nan))
    assert found({**now, **unmeasured}) < 0.5
