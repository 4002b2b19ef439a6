"""The calibration and decision curves: where the points lie, and what is drawn of nothing."""

from __future__ import annotations

import re

from monitoring import curve_charts

RISKS = [
    {"risk": 0.1, "observed": 0.2, "low": 0.1, "high": 0.3, "n": 60},
    {"risk": 0.8, "observed": 0.7, "low": 0.6, "high": 0.8, "n": 60},
]
BENEFITS = [
    {"threshold": 0.1, "model": 0.15, "treat_all": 0.12, "treat_none": 0.0},
    {"threshold": 0.3, "model": 0.08, "treat_all": -0.5, "treat_none": 0.0},
]


def points(drawn, place):
    text = re.findall(r'points="([^"]+)"', drawn)[place]
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def test_a_bin_stands_at_its_risk_and_what_was_observed():
    """By hand: the axes end at 0.84, 282 pixels right of 46 and 292 above 300."""
    drawn = curve_charts.calibration(RISKS, title="t")
    first, last = points(drawn, 1)
    assert first == (round(46 + 282 * 0.1 / 0.84, 1), round(300 - 292 * 0.2 / 0.84, 1))
    assert last == (round(46 + 282 * 0.8 / 0.84, 1), round(300 - 292 * 0.7 / 0.84, 1))
    assert points(drawn, 0) == [(46.0, 300.0), (328.0, 8.0)]
    assert drawn.count("<circle") == 2


def test_what_lies_below_the_frame_is_left_out():
    drawn = curve_charts.net_benefit(BENEFITS, alert_at=0.2, title="t")
    assert [len(points(drawn, place)) for place in range(3)] == [2, 1, 2]
    assert 'x1="187.0" x2="187.0"' in drawn  # the alert's threshold, halfway from 46 to 328


def test_of_nothing_nothing_is_drawn():
    assert curve_charts.calibration([], title="t") == ""
    assert curve_charts.net_benefit([], alert_at=0.2, title="t") == ""
