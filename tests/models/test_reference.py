"""What a reference tells of its training rows, and what it must not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from data.contract import Category, Column, Text
from models.reference import MOST_CATEGORIES, SMALLEST_CELL, SMALLEST_SITE, Reference, build, worth
from models.spec import to_json

X = Text("x", "x")
NOBODY = np.zeros(0)


def column(kind, name="x", ids=()):
    categories = tuple(Category(id=i, label=X) for i in ids)
    return Column(name=name, kind=kind, role="input", available="triage", label=X, categories=categories)


def binned(values, kind="number", ids=()):
    made = column(kind, ids=ids)
    dtype = np.int16 if kind == "category" else np.float64
    return build({"x": np.array(values, dtype=dtype)}, [made], NOBODY).columns[0]


def test_a_number_falls_into_tenths_and_a_value_on_an_edge_into_the_upper():
    made = binned(np.arange(1000.0))
    assert made.counts == (100,) * 10 + (0,)
    assert made.labels[0] == "under 99.9"
    assert made.labels[-1] == "missing"
    assert made.assign([None, -5, 99.9, 1e9]).tolist() == [10, 0, 1, 9]


def test_flags_and_categories_fall_into_their_own_cell_and_what_is_new_into_other():
    flag = binned([0] * 50 + [1] * 30 + [np.nan] * 20, "flag")
    assert dict(zip(flag.labels, flag.counts, strict=True)) == {
        "false": 50,
        "true": 30,
        "other": 0,
        "missing": 20,
    }
    assert flag.assign([True, False, None]).tolist() == [1, 0, 3]
    kind = binned([0] * 50 + [1] * 30, "category", ids=("a", "b"))
    assert kind.assign(["b", "never seen", None, "a"]).tolist() == [1, 2, 3, 0]
    assert kind.assign([None, None]).tolist() == [3, 3]


def test_a_category_that_is_called_other_is_part_of_the_rest():
    made = binned([0] * 50 + [1] * 30, "category", ids=("a", "other"))
    assert made.labels == ("a", "other", "missing")
    assert made.counts == (50, 30, 0)
    assert made.assign(["a", "other"]).tolist() == [0, 1]


def test_only_the_largest_categories_have_a_cell():
    ids = [f"c{i}" for i in range(40)]
    made = binned(np.repeat(np.arange(40), np.arange(100, 60, -1)), "category", ids=ids)
    assert made.kept == (*ids[:MOST_CATEGORIES], "other")
    assert made.counts[-2] == sum(range(100, 60, -1)[MOST_CATEGORIES:])


@pytest.mark.parametrize("seed", range(30))
def test_no_count_points_at_a_person_and_none_gets_lost(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    number = rng.choice([1.0, 2.0, 3.0, 7.0, 30.0], n) + rng.integers(0, 2) * rng.normal(0, 1, n)
    number[rng.random(n) < rng.choice([0, 0.02, 0.3])] = np.nan
    category = rng.choice(6, n, p=[0.5, 0.3, 0.12, 0.05, 0.02, 0.01])
    category[rng.random(n) < 0.03] = -1
    for made in (binned(number), binned(category, "category", ids="abcdef")):
        assert all(count == 0 or count >= SMALLEST_CELL for count in made.counts)
        # A difference between rows and counts would tell what the counts hide.
        assert sum(made.counts) == (n if n >= SMALLEST_CELL else 0)


def test_nothing_at_all_is_a_reference_too():
    assert binned([]).counts == (0, 0)
    assert binned([np.nan] * 30).counts == (0, 30)
    assert sum(binned([], "category", ids=("a",)).counts) == 0


def test_a_large_site_has_a_reference_of_its_own():
    rng = np.random.default_rng(0)
    site = np.array(["large"] * 1000 + ["small"] * (SMALLEST_SITE - 1), dtype=object)
    values = np.where(site == "large", 100.0, 0.0) + rng.normal(0, 1, len(site))
    risk, of_risk = rng.random(300), np.array(["large"] * 250 + ["small"] * 50, dtype=object)
    made = build({"x": values}, [column("number")], risk, site=site, risk_site=of_risk)
    assert list(made.sites) == ["large"]
    assert made.sites["large"].rows == 1000
    assert min(made.sites["large"].columns[0].edges) > 90
    assert sum(made.sites["large"].risk.counts) == 250
    assert sum(made.risk.counts) == 300


def test_it_survives_its_own_json():
    values = {"x": np.arange(500.0)}
    made = build(values, [column("number")], NOBODY, site=np.array(["s"] * 500, dtype=object))
    assert msgspec.json.decode(to_json(made), type=Reference) == made


def test_rows_are_worth_as_many_patients_as_they_tell_of():
    rng = np.random.default_rng(0)
    site = np.array(["large"] * 1000 + ["other"] * 500, dtype=object)
    person = np.concatenate([np.arange(1000) // 4, 1000 + np.arange(500)])
    values = {"x": rng.random(1500)}
    made = build(values, [column("number")], NOBODY, site=site, person=person)
    assert made.sites["large"].patients == pytest.approx(250)
    assert made.sites["other"].patients == pytest.approx(500)
    assert made.patients == pytest.approx(1500**2 / (250 * 16 + 500))
    assert build(values, [column("number")], NOBODY).patients == 1500


def test_the_mean_of_clustered_rows_varies_as_that_of_so_many_patients():
    """A second source: the variance itself, of something that never changes in a patient."""
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 8, 60)
    person = np.repeat(np.arange(60), rows)
    means = [np.repeat(rng.normal(size=60), rows).mean() for _ in range(4000)]
    assert 1 / np.var(means) == pytest.approx(worth(person), rel=0.06)


def test_a_reference_from_before_it_counted_patients_is_read():
    made = msgspec.json.decode(to_json(build({"x": np.arange(500.0)}, [column("number")], NOBODY)))
    del made["patients"]
    assert msgspec.convert(made, Reference).patients is None
