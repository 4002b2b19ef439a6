"""Each criterion passes and fails alone, by the figure and the limit that it shows."""

from copy import deepcopy
from dataclasses import replace

import pytest

from models import catalog
from models.spec import Limits
from training.gate import judge

LIMITS = Limits(
    events=100,
    auroc=0.7,
    slope=(0.8, 1.25),
    intercept=(-0.25, 0.25),
    oe=(0.8, 1.25),
    logistic_margin=0.0,
    champion_margin=0.01,
    subgroup_events=50,
    subgroup_auroc=0.6,
    subgroup_oe=(0.67, 1.5),
    alerts_per_100=30.0,
)
SPEC = replace(catalog.load("ed_admission"), limits=LIMITS, benefit=(0.1, 0.5), subgroups=("sex", "age"))
TRIAGE = replace(catalog.load("ed_triage"), limits=replace(LIMITS, sensitivity=0.8), benefit=(0.1, 0.5))


def group(name, level, events, auroc, oe):
    return {
        "group": name,
        "level": level,
        "n": events and 10 * events,
        "events": events,
        "suppressed": events is None,
        "auroc": {"value": auroc, "low": None, "high": None},
        "oe": oe,
    }


GOOD = {
    "events": 500,
    "auroc": {"value": 0.85, "low": 0.83, "high": 0.87},
    "calibration": {"intercept": 0.1, "slope": 1.0, "oe": 1.05, "ici": 0.01},
    "at_threshold": {"sensitivity": 0.81, "alerts_per_100": 20.0},
    "groups": [
        group("sex", "female", 260, 0.84, 1.02),
        group("sex", "male", 240, 0.86, 0.98),
        group("age", "80+", 50, 0.62, 0.7),
        group("age", "under 18", 49, 0.5, 3.0),  # too few to be held
        group("age", "not recorded", None, None, None),  # not even shown
    ],
    "net_benefit": {
        "curve": [
            {"threshold": 0.1, "model": 0.06, "treat_all": 0.05, "treat_none": 0.0},
            {"threshold": 0.3, "model": 0.02, "treat_all": -0.2, "treat_none": 0.0},
            {"threshold": 0.5, "model": 0.01, "treat_all": -0.7, "treat_none": 0.0},
        ]
    },
    "comparators": {
        "logistic_regression": {
            "model_minus_this": {"auroc": {"value": 0.02, "low": 0.001, "high": 0.04}}
        }
    },
    "triage": {"sensitivity_urgent": {"value": 0.82, "low": 0.8, "high": 0.84}},
    "utility": {"value": 0.41, "low": 0.38, "high": 0.44, "threshold": 0.02},
}
BENEFIT = "net benefit above treating all or none, the least"
LOGISTIC = "AUROC over logistic regression, lower 95 % bound"
CHAMPION = "AUROC over the champion, version 7, lower 95 % bound"
WORST_AUROC = "AUROC of the worst subgroup (age: 80+)"
WORST_OE = "observed over expected of the worst subgroup (age: 80+)"


def changed(*path_and_value):
    """The good figures with another value at the end of a path."""
    *path, last, value = path_and_value
    figures = deepcopy(GOOD)
    place = figures
    for name in path:
        place = place[name]
    place[last] = value
    return figures


def failed(figures, spec=SPEC):
    return [finding.criterion for finding in judge(figures, spec) if not finding.passed]


def found(figures, criterion, spec=SPEC):
    (finding,) = [finding for finding in judge(figures, spec) if finding.criterion == criterion]
    return finding


def test_a_good_version_passes_every_criterion():
    assert failed(GOOD) == []
    assert [(finding.criterion, finding.value, finding.limit) for finding in judge(GOOD, SPEC)] == [
        ("events in the test period", 500, "at least 100"),
        ("AUROC", 0.85, "at least 0.7"),
        ("calibration slope", 1.0, "0.8 to 1.25"),
        ("calibration intercept", 0.1, "-0.25 to 0.25"),
        ("observed over expected", 1.05, "0.8 to 1.25"),
        (LOGISTIC, 0.001, "at least 0"),
        (WORST_AUROC, 0.62, "at least 0.6 in each subgroup of 50 events or more"),
        (WORST_OE, 0.7, "0.67 to 1.5 in each subgroup of 50 events or more"),
        (BENEFIT, pytest.approx(0.01), "at least 0 over thresholds of 0.1 to 0.5"),
        ("alerts per 100", 20.0, "at most 30"),
    ]


def test_a_logistic_regression_is_held_to_the_trees_beside_it():
    linear, trees = replace(SPEC, learner="logistic"), "AUROC over boosted trees, lower 95 % bound"
    assert failed(GOOD, linear) == [trees]
    beside = {"boosted_trees": {"model_minus_this": {"auroc": {"value": 0.0, "low": 0.0, "high": 0.01}}}}
    assert failed({**GOOD, "comparators": beside}, linear) == []


@pytest.mark.parametrize(
    ("change", "criterion"),
    [
        (("events", 99), "events in the test period"),
        (("auroc", "value", 0.699), "AUROC"),
        (("calibration", "slope", 0.79), "calibration slope"),
        (("calibration", "slope", 1.26), "calibration slope"),
        (("calibration", "intercept", -0.26), "calibration intercept"),
        (("calibration", "intercept", 0.26), "calibration intercept"),
        (("calibration", "oe", 0.79), "observed over expected"),
        (("calibration", "oe", 1.26), "observed over expected"),
        (
            ("comparators", "logistic_regression", "model_minus_this", "auroc", "low", -0.001),
            LOGISTIC,
        ),
        (("groups", 2, "auroc", "value", 0.599), WORST_AUROC),
        (("groups", 2, "oe", 0.66), WORST_OE),
        (("groups", 2, "oe", 1.51), WORST_OE),
        (("net_benefit", "curve", 1, "model", -0.001), BENEFIT),
        (("net_benefit", "curve", 0, "model", 0.049), BENEFIT),
        (("at_threshold", "alerts_per_100", 30.1), "alerts per 100"),
    ],
)
def test_each_criterion_can_fail_alone(change, criterion):
    assert failed(changed(*change)) == [criterion]


@pytest.mark.parametrize(
    ("change", "criterion"),
    [
        (("events", None), "events in the test period"),
        (("auroc", "value", None), "AUROC"),
        (("calibration", "slope", None), "calibration slope"),
        (("calibration", "intercept", None), "calibration intercept"),
        (("calibration", "oe", None), "observed over expected"),
        (("comparators", {}), LOGISTIC),
        (("comparators", "logistic_regression", "model_minus_this", None), LOGISTIC),
        (("groups", 2, "auroc", "value", None), WORST_AUROC),
        (("groups", 2, "oe", None), WORST_OE),
        (("net_benefit", "curve", 1, "model", None), BENEFIT),
        (("net_benefit", None), BENEFIT),
        (("at_threshold", "alerts_per_100", None), "alerts per 100"),
    ],
)
def test_a_figure_that_is_not_defined_fails(change, criterion):
    finding = found(changed(*change), criterion)
    assert (finding.value, finding.passed) == (None, False)
    assert failed(changed(*change)) == [criterion]


def test_an_older_evaluation_that_lacks_a_figure_fails_and_does_not_break():
    assert len(failed({})) == len(judge(GOOD, SPEC))


@pytest.mark.parametrize(("oe", "worst"), [((1.4, 0.75), 1.4), ((1.3, 0.7), 0.7)])
def test_the_worst_group_is_the_one_nearest_to_its_limit_as_a_ratio(oe, worst):
    figures = changed(
        "groups", [group("sex", level, 99, 0.8, of) for level, of in zip("fm", oe, strict=True)]
    )
    (finding,) = [f for f in judge(figures, SPEC) if f.criterion.startswith("observed over expected of")]
    assert finding.value == worst


def test_where_no_group_is_large_enough_the_floors_are_not_shown_to_hold():
    figures = changed("groups", [group("sex", "female", 49, 0.9, 1.0)])
    assert failed(figures) == [
        "AUROC of the worst subgroup (none is large enough)",
        "observed over expected of the worst subgroup (none is large enough)",
    ]


def test_a_spec_without_subgroups_has_no_floors():
    criteria = [finding.criterion for finding in judge(GOOD, replace(SPEC, subgroups=()))]
    assert not [name for name in criteria if "subgroup" in name]


def test_alerting_on_everybody_is_worth_treating_all_but_for_rounding():
    assert failed(changed("net_benefit", "curve", 0, "model", 0.05 - 1e-12)) == []


def test_net_benefit_is_held_within_the_declared_range_only():
    outside = {"threshold": 0.6, "model": -1.0, "treat_all": -1.5, "treat_none": 0.0}
    assert failed(changed("net_benefit", "curve", [*GOOD["net_benefit"]["curve"], outside])) == []


def test_a_curve_that_was_drawn_over_less_than_the_declared_range_shows_nothing():
    assert failed(GOOD, replace(SPEC, benefit=(0.05, 0.5))) == [BENEFIT]
    assert failed(GOOD, replace(SPEC, benefit=(0.1, 0.6))) == [BENEFIT]


def test_against_a_champion_the_lower_bound_is_held_to_the_margin():
    beside = {"version": "7", "auroc": {"value": 0.0, "low": -0.009, "high": 0.009}, "seen": 0}
    assert failed({**GOOD, "champion": beside}) == []
    worse = {**beside, "auroc": {"value": 0.0, "low": -0.011, "high": 0.009}}
    assert failed({**GOOD, "champion": worse}) == [CHAMPION]
    assert found({**GOOD, "champion": worse}, CHAMPION).value == -0.011


def test_a_comparison_that_cannot_be_had_fails_and_says_why():
    nothing = {"value": None, "low": None, "high": None}
    figures = {**GOOD, "champion": {"version": "7", "auroc": nothing, "why": "the rows are gone"}}
    finding = found(figures, CHAMPION)
    assert (finding.value, finding.passed) == (None, False)
    assert finding.limit == "at least -0.01; it cannot be told: the rows are gone"


def test_sensitivity_is_held_where_it_is_declared():
    held = replace(SPEC, limits=replace(LIMITS, sensitivity=0.81))
    assert failed(GOOD, held) == []
    assert failed(changed("at_threshold", "sensitivity", 0.8), held) == ["sensitivity of the alert"]


def test_of_triage_the_sensitivity_for_urgent_levels_is_held():
    name = "sensitivity for level 2 or more urgent"
    assert found(GOOD, name, TRIAGE).value == 0.82
    assert name in failed(changed("triage", "sensitivity_urgent", "value", 0.79), TRIAGE)
    assert name in failed(changed("triage", None), TRIAGE)


def test_utility_is_held_where_it_is_declared():
    held = replace(SPEC, limits=replace(LIMITS, utility=0.4))
    assert failed(GOOD, held) == []
    assert failed(changed("utility", "value", 0.39), held) == ["utility"]
    assert failed(changed("utility", None), held) == ["utility"]


def test_a_recalibrated_site_is_held_to_the_range_of_a_subgroup():
    def at(oe):
        return {**GOOD, "recalibration": {"county-09": {"after": {"oe": oe}}}}

    name = "observed over expected at county-09, recalibrated"
    assert found(at(1.1), name).limit == "0.67 to 1.5"
    assert failed(at(1.1)) == []
    assert failed(at(1.6)) == [name]
    assert failed(at(None)) == [name]
