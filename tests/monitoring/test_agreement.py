"""The levels answered in a window beside those that turned out to be right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from models import catalog
from monitoring.agreement import FEWEST, measure

SPEC = catalog.load("ed_triage")
URGENT = SPEC.triage.urgent


@pytest.fixture
def window(make):
    """Two visits a patient; answers are a level off now and then, and more so in the south."""

    def window(n=2000, **given):
        rng = np.random.default_rng(3)
        site = rng.integers(0, 2, n)
        right = rng.choice([1, 2, 3, 4, 5], n, p=[0.03, 0.2, 0.45, 0.25, 0.07])
        off = rng.choice([-1, 0, 1], n, p=[0.15, 0.7, 0.15]) + (site == 1) * rng.choice([0, 2], n)
        told = {
            "level": np.clip(right + off, 1, 5).astype(np.int8),
            "outcome_level": right.astype(np.int8),
            "patient": np.arange(n) // 2,
        }
        outcome = (right <= URGENT).astype(float)
        return make.window(make.answers(np.full(n, 0.3), outcome, site=site, **told | given))

    return window


def test_it_agrees_with_scikit_learn_and_with_counts_by_hand(window):
    read = window()
    right, given = read.answers.outcome_level, read.answers.level
    found = measure(read, SPEC)
    assert (found["n"], found["reason"]) == (2000, None)
    kappa = cohen_kappa_score(right, given, weights="quadratic")
    assert found["kappa"]["value"] == pytest.approx(kappa)
    assert found["kappa"]["low"] < kappa < found["kappa"]["high"]
    urgent = right <= URGENT
    assert found["under_urgent"]["value"] == pytest.approx((given[urgent] > URGENT).mean())
    assert found["over_urgent"]["value"] == pytest.approx((given[~urgent] <= URGENT).mean())
    assert found["under_triage"]["value"] == pytest.approx((given > right).mean())
    assert found["table"][0][0] == ((right == 1) & (given == 1)).sum()
    assert np.sum(found["table"]) == 2000


def test_sites_and_subgroups_are_told_apart(window):
    sex = np.array(["female", "male"] * 1000, dtype=object)
    sex[:100] = None  # not opened
    read = replace(window(), groups={"sex": sex})
    rows = {(row["group"], row["level"]): row for row in measure(read, SPEC)["groups"]}
    assert set(rows) == {
        ("site", "north"), ("site", "south"), ("sex", "female"), ("sex", "male"),
    }  # fmt: skip
    north, south = rows["site", "north"], rows["site", "south"]
    assert north["kappa"]["low"] > south["kappa"]["high"]
    assert south["under_urgent"]["value"] > north["under_urgent"]["value"]
    assert rows["sex", "female"]["n"] == 950


def test_of_very_many_a_sample_of_patients_is_measured(window, monkeypatch):
    whole = measure(window(), SPEC)
    monkeypatch.setattr("monitoring.agreement.MOST", 1000)
    some = measure(window(), SPEC)
    assert some["n"] == 2000
    assert np.sum(some["table"]) == 2000
    assert some["kappa"]["value"] != whole["kappa"]["value"]
    assert some["kappa"]["value"] == pytest.approx(whole["kappa"]["value"], abs=0.06)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"outcome_level": 0},  # told without its level
        {"level": 0},  # answered by a version that had none
        {"outcome_level": 5},  # of an outcome that says urgent
        {"level": 6},
    ],
)
def test_what_makes_no_sense_is_not_counted(window, spoilt):
    read = window()
    rows = np.flatnonzero(read.answers.outcome == 1)[:10]
    [(name, value)] = spoilt.items()
    getattr(read.answers, name)[rows] = value
    assert measure(read, SPEC)["n"] == 1990


def test_too_few_levels_are_a_reason(window):
    found = measure(window(FEWEST - 1), SPEC)
    said = "49 outcomes of 25 patients were told with their level; at least 50 of 20 are needed"
    assert (found["reason"], found["groups"]) == (said, [])
    one = measure(window(patient=np.zeros(2000, int)), SPEC)
    assert one["reason"].startswith("2000 outcomes of 1 patients")


def test_an_outcome_that_may_still_come_does_not_count(window):
    read = window()
    read.answers.mature[:500] = False
    assert measure(read, SPEC)["n"] == 1500


def test_another_model_has_no_levels(window):
    assert measure(window(), catalog.load("ed_admission")) is None
