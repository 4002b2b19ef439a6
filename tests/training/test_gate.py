import pytest

from models.spec import Limits
from training.gate import judge

GOOD = {
    "events": 500,
    "calibration": {"slope": 1.0, "oe": 1.0},
    "comparators": {"logistic_regression": {"model_minus_this": {"auroc": {"value": 0.02}}}},
}


def test_a_good_version_passes_every_criterion():
    assert all(finding.passed for finding in judge(GOOD, Limits()))


@pytest.mark.parametrize(
    ("change", "criterion"),
    [
        ({"events": 99}, "events in the test period"),
        ({"calibration": {"slope": 0.79, "oe": 1.0}}, "calibration slope"),
        ({"calibration": {"slope": None, "oe": 1.0}}, "calibration slope"),
        ({"calibration": {"slope": 1.0, "oe": 1.26}}, "observed over expected"),
    ],
)
def test_each_criterion_can_fail_alone(change, criterion):
    failed = [finding.criterion for finding in judge({**GOOD, **change}, Limits()) if not finding.passed]

    assert failed == [criterion]


def test_a_version_worse_than_logistic_regression_fails():
    worse = {"logistic_regression": {"model_minus_this": {"auroc": {"value": -0.001}}}}

    failed = [f.criterion for f in judge({**GOOD, "comparators": worse}, Limits()) if not f.passed]

    assert failed == ["AUROC over logistic regression"]
