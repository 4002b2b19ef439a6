import numpy as np
import pytest

from data.errors import ContractError, NotEnoughDataError, UsageError
from models.cohort import NOBODY
from training.split import by_patient, by_time_and_patient, limits, of, periods


def days(*texts):
    return np.array(texts, dtype="datetime64[us]")


def numbers(*values):
    return np.array(values, dtype=np.int64)


def test_limits_are_inclusive_months():
    times = days("2018-03-05", "2021-12-31T23:59:59")
    found = periods(times, limits("2019-12", "2020-12", "2021-12"))

    assert found["train"].days == ("2018-03-05", "2019-12-31")
    assert found["validate"].days == ("2020-01-01", "2020-12-31")
    assert found["test"].days == ("2021-01-01", "2021-12-31")


def test_without_limits_the_last_year_tests_and_the_one_before_tunes():
    found = periods(days("2015-01-01", "2021-06-30"), ())

    assert found["test"].days == ("2020-07-01", "2021-06-30")
    assert found["validate"].days == ("2019-07-01", "2020-06-30")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train_to": "2019-12"}, "go together"),
        ({"train_to": "2020-12", "validate_to": "2019-12", "test_to": "2021-12"}, "must rise"),
        ({"train_to": "2019-13", "validate_to": "2020-12", "test_to": "2021-12"}, "not a month"),
    ],
)
def test_limits_that_make_no_sense_are_refused(given, says):
    with pytest.raises(UsageError, match=says):
        limits(**given)


def test_no_patient_stands_on_two_sides():
    times = days("2018-01-01", "2019-01-01", "2020-01-01", "2020-02-01", "2021-01-01", "2021-02-01")
    patients = numbers(1, 2, 1, 3, 3, 4)
    stretches = periods(times, limits("2019-12", "2020-12", "2021-12"))

    split = by_time_and_patient(times, patients, stretches)

    assert split.train.tolist() == [True, True, False, False, False, False]
    assert split.validate.tolist() == [False, False, False, True, False, False]  # 1 is known by then
    assert split.test.tolist() == [False, False, False, False, False, True]
    assert split.seen_before == 2


def test_rows_without_a_patient_are_strangers():
    times = days("2018-01-01", "2020-01-01", "2021-01-01")
    stretches = periods(times, limits("2019-12", "2020-12", "2021-12"))

    split = by_time_and_patient(times, numbers(NOBODY, NOBODY, NOBODY), stretches)

    assert split.seen_before == 0
    assert split.test.sum() == 1


def test_an_empty_part_is_named():
    times = days("2018-01-01", "2021-01-01")
    stretches = periods(times, limits("2019-12", "2020-12", "2021-12"))

    with pytest.raises(NotEnoughDataError, match="no rows to validate on: 2020-01-01 to 2020-12-31"):
        by_time_and_patient(times, numbers(1, 2), stretches)


@pytest.fixture
def patients():
    """Nine hundred patients with one to three rows each, in no order."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**63 - 1, 900)
    rows = np.repeat(numbers, rng.integers(1, 4, 900))
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("how", ["first_encounter", "patient_hash"])
def test_a_patient_stands_on_one_side_only_and_every_row_somewhere(patients, how):
    order = np.arange(len(patients), dtype=float) if how == "first_encounter" else None
    split = by_patient(patients, order)

    parts = [set(patients[split[part]].tolist()) for part in ("train", "validate", "test")]
    assert sum(map(len, parts)) == len(set(patients.tolist())) == len(set.union(*parts))
    assert (split.train ^ split.validate ^ split.test).all()
    shares = [len(part) / 900 for part in parts]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.002 if order is not None else 0.05)


def test_patients_who_came_first_teach_whatever_came_of_them_later(patients):
    order = np.random.default_rng(1).permutation(len(patients)).astype(float)
    split = by_patient(patients, order)
    first = {person: order[patients == person].min() for person in set(patients.tolist())}

    def firsts(part):
        return [first[person] for person in set(patients[split[part]].tolist())]

    assert max(firsts("train")) < min(firsts("validate"))
    assert max(firsts("validate")) < min(firsts("test"))


def test_a_hash_splits_the_same_patient_alike_whoever_else_is_there(patients):
    whole, some = by_patient(patients, None), np.arange(len(patients)) % 3 == 0
    again = by_patient(patients[some], None)
    assert np.array_equal(whole.test[some], again.test)


def test_a_split_by_patient_needs_patients_and_takes_no_dates(cohort):
    with pytest.raises(ContractError, match="a patient in every row"):
        by_patient(numbers(1, 2, NOBODY), None)
    with pytest.raises(NotEnoughDataError, match="no patient is left to validate on, of 2"):
        by_patient(numbers(1, 2), np.array([0.0, 1.0]))
    with pytest.raises(UsageError, match="split by patient, not by time: give no --train-to"):
        of("patient_hash", cohort, limits("2019-12", "2020-12", "2021-12"))


def test_the_split_is_the_one_that_the_spec_declares(cohort):
    by_time = of("time", cohort, limits("2019-12", "2020-12", "2021-12"))
    by_hash = of("patient_hash", cohort, ())
    by_first = of("first_encounter", cohort, ())

    assert by_time.periods
    assert not by_hash.periods
    assert cohort.time[by_first.train].min() < cohort.time[by_first.test].min()
    assert not np.array_equal(by_hash.test, by_first.test)
