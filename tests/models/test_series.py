"""What a feature of a series says, held to a plain walk back through the hours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.contract import check, sample
from data.errors import ContractError
from data.marts.icu_hour import MART
from models.features import FeatureMap
from models.series import (
    DERIVED_SERIES,
    SERIES,
    Line,
    last_known,
    recent,
    series_feature,
    window,
)

LOOKBACK, WINDOWS = 9, (3, 8)
LACTATE = series_feature(MART["lactate"], lookback=LOOKBACK, hour="icu_hour", windows=WINDOWS)


def rows_of(stays):
    """Stays, each a list of (hour, value), as typed columns."""
    flat = [(code, hour, value) for code, stay in enumerate(stays) for hour, value in stay]
    series, hours, values = np.array(flat, dtype=float).reshape(-1, 3).T
    return {SERIES: series.astype(int), "icu_hour": hours, "lactate": values}


def walked(stays):
    """Every part of every row, by a walk back through the rows of its own stay."""
    return np.array([parts(stay[: i + 1]) for stay in stays for i in range(len(stay))])


def parts(stay):
    now = stay[-1][0]
    known = [(hour, value) for hour, value in stay if hour > now - LOOKBACK and not math.isnan(value)]
    nothing = math.nan
    last_hour, last = known[-1] if known else (nothing, nothing)
    found = [last, now - last_hour, last - known[-2][1] if len(known) > 1 else nothing, len(known)]
    for hours in WINDOWS:
        before = [value for hour, value in known if hour <= now - hours]
        inside = [value for hour, value in known if hour > now - hours]
        found.append(last - before[-1] if before else nothing)
        if not inside:
            found += [nothing] * 4
            continue
        mean = math.fsum(inside) / len(inside)
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in inside) / len(inside))
        found += [mean, spread, min(inside), max(inside)]
    return found


values = st.one_of(st.just(math.nan), st.floats(0.1, 30).map(lambda value: round(value, 2)))
steps = st.one_of(st.just(1), st.integers(1, 2 * LOOKBACK))


@st.composite
def stay(draw):
    first = draw(st.integers(1, 50))
    between = draw(st.lists(steps, max_size=40))
    hours = np.cumsum([first, *between]).tolist()
    return [(hour, draw(values)) for hour in hours]


stays = st.lists(stay(), min_size=1, max_size=3)


@given(stays)
def test_every_part_agrees_with_a_walk_back_through_the_hours(several):
    found, expected = LACTATE.fill(rows_of(several)), walked(several)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (len(expected), len(LACTATE.parts))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def every_feature(lookback=LOOKBACK):
    mart = [column for column in MART.columns if column.kind == "number" and column.name != "age"]
    hourly = [
        series_feature(column, lookback=lookback, hour="icu_hour", windows=(2, 6)) for column in mart
    ]
    return [*hourly, *(make(MART, lookback) for make in DERIVED_SERIES.values())]


def drawn(n, seed, *, stays=3):
    """Rows of the mart with made-up values, most of them missing, hours rising with gaps."""
    rng = np.random.default_rng(seed)
    rows = check(MART.columns, sample(MART, n, seed)).rows
    for name in [column.name for column in MART.columns if column.kind == "number"]:
        rows[name] = np.where(rng.random(n) < 0.6, np.nan, rows[name])
    series = np.sort(rng.integers(0, stays, n))
    return rows | {
        SERIES: series,
        "icu_hour": np.cumsum(rng.choice([1, 1, 1, 2, 5, 30], n)).astype(float),
    }


@given(st.integers(0, 2**16), st.integers(1, 60))
def test_the_recent_hours_alone_give_the_same_bits(seed, size):
    rows, made = drawn(size, seed), every_feature()
    whole = np.column_stack([feature.fill(rows) for feature in made])
    names = {name for feature in made for name in feature.reads}
    for i in {0, size // 2, size - 1}:
        alone = recent(rows, i, sorted(names), "icu_hour", LOOKBACK)
        assert len(alone["icu_hour"]) <= LOOKBACK
        last = np.concatenate([feature.fill(alone)[-1] for feature in made])
        assert last.tobytes() == whole[i].tobytes()


def test_blocks_of_whole_stays_give_the_same_bits():
    rows, made = drawn(200, 1, stays=8), every_feature()
    whole = np.column_stack([feature.fill(rows) for feature in made])
    cut = np.searchsorted(rows[SERIES], 4)
    blocks = [{name: of[part] for name, of in rows.items()} for part in (slice(cut), slice(cut, None))]
    halves = [np.column_stack([feature.fill(block) for feature in made]) for block in blocks]
    assert np.concatenate(halves).tobytes() == whole.tobytes()


def test_two_stays_side_by_side_never_mix():
    one, other = [(1, 5.0), (2, 6.0)], [(3, math.nan), (4, 1.0)]
    together = LACTATE.fill(rows_of([one, other]))
    assert together[:2].tobytes() == LACTATE.fill(rows_of([one])).tobytes()
    assert together[2:].tobytes() == LACTATE.fill(rows_of([other])).tobytes()


def test_without_a_series_all_rows_are_of_one():
    rows = rows_of([[(1, 5.0), (2, math.nan), (4, 6.0)]])
    alone = {name: of for name, of in rows.items() if name != SERIES}
    assert LACTATE.fill(alone).tobytes() == LACTATE.fill(rows).tobytes()


def test_a_value_is_known_for_as_many_hours_as_the_lookback_and_no_longer():
    rows = rows_of([[(1, 5.0), (LOOKBACK, math.nan), (LOOKBACK + 1, math.nan)]])
    last, since = LACTATE.fill(rows)[:, :2].T
    assert last.tolist()[:2] == [5, 5]
    assert since.tolist()[:2] == [0, LOOKBACK - 1]
    assert np.isnan([last[2], since[2]]).all()


def test_a_single_hour_has_no_change_and_no_spread():
    found = dict(zip(LACTATE.parts, LACTATE.fill(rows_of([[(7, 2.5)]]))[0].tolist(), strict=True))
    assert found["lactate:last"] == found["lactate:mean_3h"] == found["lactate:max_8h"] == 2.5
    assert (found["lactate:since"], found["lactate:count"], found["lactate:sd_8h"]) == (0, 1, 0)
    assert math.isnan(found["lactate:change"])
    assert math.isnan(found["lactate:change_3h"])


def test_nothing_measured_is_missing_and_counts_none():
    found = LACTATE.fill(rows_of([[(hour, math.nan) for hour in range(1, 20)]]))
    count = LACTATE.parts.index("lactate:count")
    assert (found[:, count] == 0).all()
    assert np.isnan(np.delete(found, count, axis=1)).all()


def test_equal_values_have_no_spread():
    found = LACTATE.fill(rows_of([[(hour, 7.41) for hour in range(1, 20)]]))
    assert (found[:, LACTATE.parts.index("lactate:sd_8h")] == 0).all()


def test_no_rows_give_no_rows():
    assert LACTATE.fill(rows_of([])).shape == (0, len(LACTATE.parts))


def test_years_between_two_hours_take_no_memory():
    line = Line.of(rows_of([[(1, 5.0), (10**9, 6.0)]]), hour="icu_hour", lookback=LOOKBACK)
    assert line.place.tolist() == [LOOKBACK, 2 * LOOKBACK]


@pytest.mark.parametrize(
    ("hours", "rule"),
    [
        ([1, 1], "rise"),
        ([2, 1], "rise"),
        ([1, math.nan], "whole number"),
        ([1, math.inf], "whole number"),
        ([1, 1.5], "whole number"),
    ],
)
def test_hours_that_are_no_series_are_refused(hours, rule):
    with pytest.raises(ContractError, match=f"icu_hour.*{rule}"):
        Line.of({"icu_hour": np.array(hours)}, hour="icu_hour", lookback=LOOKBACK)


@pytest.mark.parametrize("hours", range(1, 18))
def test_a_window_joins_as_many_places_as_it_says(hours):
    line = np.arange(1.0, 12.0)
    expected = [line[max(0, i + 1 - hours) : i + 1].sum() for i in range(len(line))]
    assert window(line, hours, np.add, 0.0).tolist() == expected


def test_last_known_carries_forward_and_leaves_the_rest():
    rows = rows_of([[(1, 5.0), (2, math.nan), (3, 4.0)], [(4, math.nan)]])
    known = last_known(rows, ["lactate"], "icu_hour", LOOKBACK)
    np.testing.assert_array_equal(known["lactate"], [5, 5, 4, math.nan])
    assert known["icu_hour"] is rows["icu_hour"]
    np.testing.assert_array_equal(rows["lactate"], [5, math.nan, 4, math.nan])


def test_what_is_shown_is_the_last_known_value_as_charted():
    rows = rows_of([[(1, 5.0)], [(3, math.nan), (4, 2.37), (6, math.nan), (30, math.nan)]])
    assert [LACTATE.show(rows, i) for i in range(5)] == [5, None, 2.37, 2.37, None]


@pytest.mark.parametrize("name", ["sex", "icu_hour", "sepsis_6h"])
def test_a_column_that_is_no_number_is_no_series(name):
    with pytest.raises(ContractError, match=name):
        series_feature(MART[name], lookback=LOOKBACK, hour="icu_hour")


@pytest.mark.parametrize("hours", [0, LOOKBACK + 1])
def test_a_window_beyond_the_lookback_is_refused(hours):
    with pytest.raises(ContractError, match="lactate"):
        series_feature(MART["lactate"], lookback=LOOKBACK, hour="icu_hour", windows=(hours,))


def test_features_of_a_series_make_one_matrix():
    rows, made = drawn(30, 2), tuple(every_feature())
    features = FeatureMap(MART, made)
    matrix = features.matrix(rows)
    assert matrix.shape == (30, len(features.parts))
    assert len(set(features.parts)) == len(features.parts)
    np.testing.assert_array_equal(matrix[:, : len(made[0].parts)], made[0].fill(rows))


def derived(name, known, hours=(1, 4)):
    """What a derived feature says in the last of the hours, each of ``known`` charted in the first."""
    made = DERIVED_SERIES[name](MART, LOOKBACK)
    rows = {of: np.full(len(hours), math.nan) for of in made.reads} | {"icu_hour": np.array(hours)}
    for of, value in known.items():
        rows[of][0] = value
    return made.fill(rows)[-1, 0].item(), made.show(rows, len(hours) - 1)


@pytest.mark.parametrize(
    ("name", "known", "value"),
    [
        ("shock_index", {"heart_rate": 90, "sbp": 120}, 0.75),
        ("shock_index", {"heart_rate": 90}, None),
        ("sirs", {"heart_rate": 91, "leucocytes": 13}, 2),
        ("news2", {"heart_rate": 131, "spo2": 91}, 6),
        ("bun_creatinine", {"urea_nitrogen": 30, "creatinine": 1.5}, 20),
        ("bun_creatinine", {"urea_nitrogen": 30, "creatinine": 0}, None),
        ("spo2_fio2", {"spo2": 90, "fio2": 0.5}, 180),
        ("sofa_partial", {}, 0),
        ("sofa_partial", {"creatinine": 2.0}, 2),
        ("sofa_partial", {"spo2": 90, "fio2": 0.5, "platelets": 99, "map": 69}, 3 + 2 + 1),
        ("sofa_partial", {"map": 70, "bilirubin_total": 12, "platelets": 150}, 4),
    ],
)
def test_a_derived_feature_is_told_from_what_was_last_known(name, known, value):
    filled, shown = derived(name, known)
    assert shown == value
    assert filled == pytest.approx(math.nan if value is None else value, nan_ok=True)


def test_a_derived_feature_forgets_what_lies_beyond_the_lookback():
    assert derived("shock_index", {"heart_rate": 90, "sbp": 120}, hours=(1, 1 + LOOKBACK))[1] is None


def test_the_hours_before_intensive_care_are_the_same_in_every_hour():
    made = DERIVED_SERIES["hours_before_icu"](MART, LOOKBACK)
    rows = {
        "icu_hour": np.array([1.0, 2.0, 5.0]),
        "hours_since_admission": np.array([31.5, math.nan, 35.5]),
    }
    np.testing.assert_array_equal(made.fill(rows)[:, 0], np.float32([30.5, math.nan, 30.5]))


def test_what_is_charted_at_the_bedside_has_a_course_as_far_as_the_lookback_reaches():
    pulse, lactate = (
        {
            hours: series_feature(MART[name], lookback=hours, hour="icu_hour").parts
            for hours in (5, 12, 24)
        }
        for name in ("heart_rate", "lactate")
    )
    assert [len(parts) for parts in pulse.values()] == [4, 9, 14]
    assert [len(parts) for parts in lactate.values()] == [4, 4, 4]
    assert pulse[24][-1] == "heart_rate:max_24h"


def test_a_clock_is_no_measurement():
    assert DERIVED_SERIES["hours_since_admission"](MART, 24).parts == ("hours_since_admission",)


def test_the_work_up_counts_what_was_measured_whatever_it_shows():
    made = DERIVED_SERIES["workup"](MART, 12)
    rows = {name: np.full(3, math.nan) for name in made.reads} | {"icu_hour": np.array([1.0, 8.0, 9.0])}
    rows["ph"][0] = rows["lactate"][0] = rows["lactate"][1] = rows["heart_rate"][2] = 5.0
    found = dict(zip(made.parts, made.fill(rows)[2].tolist(), strict=True))
    assert [
        found[f"workup:laboratory_{part}"] for part in ("count_6h", "count_12h", "since", "known")
    ] == [
        1,
        3,
        1,
        2,
    ]
    assert found["workup:gas_count_12h"] == 3
    assert (found["workup:bedside_count_6h"], found["workup:bedside_since"]) == (1, 0)
    assert made.show(rows, 2) == 3
