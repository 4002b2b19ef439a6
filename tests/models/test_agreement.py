"""Expected numbers are worked by hand or come from scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from data.errors import NotEnoughDataError
from models import agreement, ordinal

# True level down, level given across; 1 and 2 are urgent. Of 100 rows:
# under-triage (right of the diagonal) 2 + 1 + 0 + 6 + 3 + 5 = 17,
# over-triage 1 + 2 + 8 + 0 + 3 + 9 = 23;
# urgent 5 + 2 + 1 + 0 + 1 + 10 + 6 + 3 = 28, of which 5 + 2 + 1 + 10 = 18 were given an urgent level;
# not urgent 72, of which 2 + 8 + 0 + 3 = 13 were.
TABLE = np.array([[5, 2, 1, 0], [1, 10, 6, 3], [2, 8, 25, 5], [0, 3, 9, 20]])


def rows_of(table):
    """The rows that are counted in a table."""
    true, given_ = np.indices(table.shape) + 1
    return true.ravel().repeat(table.ravel()), given_.ravel().repeat(table.ravel())


def value(frame, measure):
    return frame.set_index("measure").loc[measure, "value"]


def test_under_and_over_triage_by_hand():
    found = agreement.triage(TABLE, urgent=2)
    assert found["sensitivity_urgent"] == pytest.approx(18 / 28)
    assert found["under_urgent"] == pytest.approx(10 / 28)
    assert found["over_urgent"] == pytest.approx(13 / 72)
    assert found["specificity_urgent"] == pytest.approx(59 / 72)
    assert found["under_triage"] == pytest.approx(17 / 100)
    assert found["over_triage"] == pytest.approx(23 / 100)


def test_a_table_counts_the_rows():
    level, given_ = rows_of(TABLE)
    assert (agreement.confusion(level, given_, levels=4) == TABLE).all()
    assert agreement.confusion([2], [2], levels=3).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


pairs = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=60).map(
    lambda rows: tuple(np.array(of) for of in zip(*rows, strict=True))
)


@settings(max_examples=60)
@given(pairs)
def test_quadratic_kappa_agrees_with_scikit_learn(case):
    level, given_ = case
    found = agreement.kappa(agreement.confusion(level, given_, levels=5))
    if len(set(level.tolist()) | set(given_.tolist())) == 1:
        assert np.isnan(found)
        return
    expected = cohen_kappa_score(level, given_, weights="quadratic", labels=range(1, 6))
    assert found == pytest.approx(expected, abs=1e-12)
    assert ordinal.kappa(level.astype(float), given_, levels=5) == pytest.approx(expected, abs=1e-12)


def test_many_tables_are_measured_at_once():
    tables = np.stack([TABLE, TABLE.T, np.eye(4) * 7])
    found = agreement.triage(tables, urgent=2)
    assert found["kappa"][0] == found["kappa"][1] == agreement.kappa(TABLE)
    assert found["kappa"][2] == 1
    assert found["under_triage"].tolist() == pytest.approx([0.17, 0.23, 0])


def test_levels_taken_together_have_the_kappa_of_the_coarser_levels():
    level, given_ = rows_of(TABLE)
    made = agreement.measure(level, given_, levels=4, urgent=2, coarser=[1, 2, 3, 3], bootstrap=20)
    together = np.array([0, 1, 2, 3, 3])
    expected = cohen_kappa_score(together[level], together[given_], weights="quadratic")
    assert value(made, "kappa_coarser") == pytest.approx(expected)
    assert value(made, "kappa_coarser") != pytest.approx(value(made, "kappa"))


def test_levels_given_in_another_way_have_a_kappa_of_their_own():
    level, given_ = rows_of(TABLE)
    made = agreement.measure(level, given_, levels=4, urgent=2, others={"true": level}, bootstrap=20)
    assert value(made, "kappa_true") == 1
    assert value(made, "kappa") == pytest.approx(float(agreement.kappa(TABLE)))


def test_the_harmed_that_were_given_no_urgent_level_by_hand():
    level = [1, 2, 3, 3, 4, 4, 2, 1]
    given_ = [1, 3, 2, 4, 4, 1, 3, 1]
    harm = [1, 1, 1, 1, 0, np.nan, np.nan, 0]
    made = agreement.measure(level, given_, levels=4, urgent=2, harm=harm, bootstrap=0)
    # Four are known to be harmed; the second and the fourth were given level 3 and 4.
    assert value(made, "missed") == pytest.approx(2 / 4)
    # Of the same four the nurse put the third and the fourth into level 3.
    assert value(made, "missed_true") == pytest.approx(2 / 4)
    nobody = agreement.measure(level, given_, levels=4, urgent=2, harm=np.zeros(8), bootstrap=0)
    assert np.isnan(value(nobody, "missed"))


def test_intervals_are_those_of_a_loop_that_copies_rows():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 60, 300)
    level = rng.integers(1, 6, 300)
    given_ = np.clip(level + rng.integers(-1, 2, 300), 1, 5)
    harm = np.where(rng.random(300) < 0.2, np.nan, rng.random(300) < 0.3)
    made = agreement.measure(
        level, given_, levels=5, urgent=2, harm=harm, cluster=cluster, bootstrap=79, seed=3
    ).set_index("measure")
    drawn = np.random.default_rng(3)
    samples = {"kappa": [], "sensitivity_urgent": [], "over_triage": [], "missed": []}
    for _ in range(79):
        rows = np.concatenate([np.flatnonzero(cluster == k) for k in drawn.integers(0, 60, 60)])
        true, said, harmed = level[rows], given_[rows], harm[rows] == 1
        samples["kappa"].append(cohen_kappa_score(true, said, weights="quadratic"))
        samples["sensitivity_urgent"].append((said[true <= 2] <= 2).mean())
        samples["over_triage"].append((said < true).mean())
        samples["missed"].append((said[harmed] > 2).mean())
    for name, of in samples.items():
        ordered = np.sort(of)
        assert made.loc[name, "low"] == pytest.approx(ordered[1]), name
        assert made.loc[name, "high"] == pytest.approx(ordered[-2]), name


def test_without_samples_there_are_figures_and_no_intervals():
    made = agreement.measure(*rows_of(TABLE), levels=4, urgent=2, bootstrap=0)
    assert made["value"].notna().all()
    assert made[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("level", "given_", "words"),
    [
        ([0, 1], [1, 1], "1 to 3"),
        ([1, 4], [1, 1], "1 to 3"),
        ([1, 2], [1, 2.5], "1 to 3"),
        ([1, np.nan], [1, 1], "1 to 3"),
        ([1, 2], [1], "length"),
    ],
)
def test_what_is_no_level_is_refused(level, given_, words):
    with pytest.raises(ValueError, match=words):
        agreement.confusion(level, given_, levels=3)


def test_harm_of_other_rows_is_refused():
    with pytest.raises(ValueError, match="harm"):
        agreement.measure([1, 2], [1, 2], levels=2, urgent=1, harm=[1.0])


def test_no_rows_are_not_enough_data():
    with pytest.raises(NotEnoughDataError):
        agreement.measure([], [], levels=3, urgent=1)
