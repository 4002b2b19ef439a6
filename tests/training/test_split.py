import numpy as np
import pytest

from data.errors import NotEnoughDataError, UsageError
from models.cohort import NOBODY
from training.split import by_time_and_patient, limits, periods


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
