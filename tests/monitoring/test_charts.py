"""Charts as text: where things lie, what gaps and the ends of an axis look like, and no NaN in it."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from monitoring import charts
from monitoring.charts import Point, Scale


def span(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def circles(drawn):
    """Centres (x, y) of the dots."""
    return [tuple(map(float, at)) for at in re.findall(r'<circle cx="([\d.-]+)" cy="([\d.-]+)"', drawn)]


def attribute(drawn, name, tag="line"):
    return re.findall(rf'<{tag}[^>]*?\b{name}="([^"]+)"', drawn)


def said(drawn):
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawn)


def sound(drawn):
    """A picture that any parser takes, and each number in it is one."""
    ET.fromstring(drawn)
    assert not re.search(r"nan|inf|None", drawn)
    return drawn


def test_a_scale_goes_from_pixel_to_pixel_and_keeps_what_is_beyond():
    y = Scale(low=0, high=4, start=100, end=20)
    assert [y(value) for value in (-1, 0, 1, 4, 9)] == [100, 100, 80, 20, 20]


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (-0.02, 0.11, [0.0, 0.05, 0.1]),
        (0.94, 1.06, [0.95, 1.0, 1.05]),
        (0, 25_000, [0, 10_000, 20_000]),
    ],
)
def test_marks_are_round_and_within(low, high, marks):
    assert charts.ticks(low, high) == marks


def test_a_trend_by_hand():
    """Values 1 and 2: 8 % of room, so the axis is 0.92 to 2.08 over the pixels 164 to 8."""
    drawn = sound(
        charts.trend([Point(label="a", truth=span(1.0)), Point(label="b", truth=span(2.0))], title="t")
    )
    (x1, y1), (x2, y2) = circles(drawn)
    assert (x1, x2) == (46 + 402 / 4, 46 + 402 * 3 / 4)
    assert y1 == pytest.approx(164 - 156 * 0.08 / 1.16, abs=0.05)
    assert y2 == pytest.approx(8 + 156 * 0.08 / 1.16, abs=0.05)


def test_a_gap_parts_the_band_and_leaves_its_place():
    known = Point(label="k", estimate=span(1.0, 0.9, 1.1))
    drawn = sound(charts.trend([known, known, Point(label="gap"), known], title="t"))
    assert drawn.count("<polygon") == 2
    ends = [float(x) for x in re.findall(r"([\d.]+),", attribute(drawn, "points", "polygon")[0])]
    assert (min(ends), max(ends)) == pytest.approx((46 + 402 / 8, 46 + 402 * 3 / 8), abs=0.06)
    assert "gap" in said(drawn)


def test_a_window_alone_has_a_band_as_wide_as_a_bar():
    drawn = sound(charts.trend([Point(label="one", estimate=span(1.0, 0.9, 1.1))], title="t"))
    xs = [float(x) for x in re.findall(r"([\d.]+),", attribute(drawn, "points", "polygon")[0])]
    assert (min(xs), max(xs)) == (239.0, 255.0)  # 8 on either side of 247
    assert said(drawn)[-1] == "one"


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-12])
def test_values_that_are_all_alike_lie_in_the_middle(value):
    drawn = sound(
        charts.trend([Point(label=m, truth=span(value, value, value)) for m in "ab"], title="t")
    )
    assert {y for _, y in circles(drawn)} == {86.0}  # halfway from 8 to 164


def test_of_nothing_known_nothing_is_drawn():
    assert charts.trend([], title="t") == ""
    assert charts.trend([Point(label="a"), Point(label="b", truth=span(None))], title="t") == ""
    assert charts.trend([Point(label="a", truth=span(math.nan))], title="t", limits=(1.0,)) == ""


def test_what_is_no_number_is_a_gap():
    points = [
        Point(label="a", truth=span(1.0, 0.9, 1.1), estimate=span(1.0, math.nan, 1.2)),
        Point(label="b", truth=span(math.inf, math.inf, math.inf)),
        Point(label="c", truth=span(1.2, None, math.inf)),
    ]
    drawn = sound(charts.trend(points, title="t", limits=(0.8, None), reference=math.nan))
    assert len(circles(drawn)) == 2
    assert "<polygon" not in drawn  # a band without an end is none
    assert drawn.count("stroke-dasharray") == 1


def test_an_interval_far_beyond_the_values_ends_in_an_arrow():
    """Values 1 and 1.2, limits 0.8 and 1.2: the axis goes as far again, to 0.4 and 1.6."""
    points = [Point(label="a", truth=span(1.0, 0.9, 1.1)), Point(label="b", truth=span(1.2, 0.01, 40.0))]
    drawn = sound(charts.trend(points, title="t", limits=(0.8, 1.2)))
    assert drawn.count('class="beyond"') == 2
    near = [Point(label="a", truth=span(1.0, 0.9, 1.1))]
    assert 'class="beyond"' not in charts.trend(near, title="t", limits=(0.8, 1.2))


def test_labels_never_overlap_and_the_last_is_among_them():
    months = [f"2026-{month:02}" for month in range(1, 13)]
    days = [f"2026-03-{day:02}" for day in range(1, 13)]
    for labels in (months, days):
        drawn = charts.trend([Point(label=label, truth=span(1.0)) for label in labels], title="t")
        shown = [
            (float(x), label) for x, label in re.findall(r'<text x="([\d.]+)"[^>]*>(2026[^<]*)<', drawn)
        ]
        places, names = zip(*sorted(shown), strict=True)
        assert names[-1] == labels[-1]
        wide = 6.6 * len(labels[0])
        assert min(b - a for a, b in pairwise(places)) > wide
        assert places[-1] + wide / 2 <= 460


def test_limits_and_the_promotion_are_told_apart_without_colour():
    drawn = charts.trend(
        [Point(label="a", truth=span(1.0))], title="t", limits=(0.8, 1.25), reference=1.1
    )
    assert attribute(drawn, "stroke-dasharray") == ["5 4", "5 4", "1 3"]


def test_titles_and_labels_are_escaped():
    drawn = charts.trend([Point(label="<b>", truth=span(1.0))], title="<script>")
    assert "<script>" not in drawn
    assert "<b>" not in drawn
    made = charts.site([("<i>", 3, None)], title="a & b", reach=2, limits=(0.8, 1.25))
    assert "<title>a &amp; b</title>" in made
    assert "<i>" not in made


def site(*points, reach=2.0):
    return sound(charts.site(points, title="t", reach=reach, limits=(0.8, 1.25)))


def test_a_site_s_ratio_lies_by_its_logarithm():
    """Over the pixels 84 (a half) to 8 (twice): 1 in the middle, the root of 2 a quarter above it."""
    drawn = site(("a", 10, span(1.0)), ("b", 10, span(2**0.5)), ("c", 10, span(2.0)))
    assert [y for _, y in circles(drawn)] == [46.0, 27.0, 8.0]


def test_a_site_s_bars_go_to_its_own_highest_which_is_written():
    drawn = site(("a", 1200, None), ("b", 600, None), ("c", 0, None))
    assert attribute(drawn, "height", "rect") == ["22.0", "11.0"]
    assert "1,200" in said(drawn)
    assert said(drawn).count("×") == 1


def test_a_site_without_any_request_or_window_is_drawn_empty():
    assert site(("a", 0, None)).count("×") == 1
    assert "circle" not in site()


def test_a_value_beyond_the_axis_is_an_arrow_and_no_dot():
    low, high = site(("a", 9, span(0.0, 0.0, 0.0))), site(("a", 9, span(5.0)))
    for drawn in (low, high):
        assert circles(drawn) == []
        assert drawn.count('class="beyond"') == 1
    tips = [
        re.findall(r",([\d.]+)", attribute(drawn, "points", "polygon")[0])[-1] for drawn in (low, high)
    ]
    assert tips == ["86.0", "6.0"]  # below the axis' foot, above its head


@pytest.mark.parametrize(
    ("values", "reach"),
    [([], 2), ([1.0, None], 2), ([0.5, 2.0], 2), ([0.49], 4), ([2.1], 4), ([0.0], 4), ([90.0], 4)],
)
def test_the_axis_of_ratios_goes_to_two_or_four(values, reach):
    assert charts.extent([span(value) for value in values] + [None], (0.8, 1.25)) == reach


def test_a_line_of_a_table_lies_as_its_axis():
    """Over the pixels 6 (a quarter) to 124 (four times): 1 at 65, 2 at 94.5."""
    drawn = sound(charts.interval(span(1.0, 0.5, 2.0), reach=4, limits=(0.5, 2)))
    assert circles(drawn) == [(65.0, 9.0)]
    assert (attribute(drawn, "x1"), attribute(drawn, "x2")) == (["35.5"], ["94.5"])
    assert re.findall(r'<text x="([\d.]+)"', charts.scale(4)) == ["35.5", "65.0", "94.5"]
    assert said(charts.scale(4)) == ["0.5", "1", "2"]
    assert circles(charts.interval(None, reach=4, limits=())) == []


def test_bars_of_two_shares_by_hand():
    drawn = sound(charts.pair(0.2, 0.05, most=0.4, over=True))
    assert attribute(drawn, "width", "rect") == ["100.0", "25.0"]
    assert attribute(charts.pair(0.0, 0.0, most=0.0, over=False), "width", "rect") == ["0.0", "0.0"]


@pytest.mark.parametrize(
    ("ratio", "wide"), [(0.5, "40.0"), (1.0, "80.0"), (7.0, "120.0"), (-0.1, "0.0")]
)
def test_a_gauge_is_at_its_mark_at_the_limit_and_full_beyond(ratio, wide):
    drawn = sound(charts.gauge(ratio, over=ratio > 1))
    assert attribute(drawn, "width", "rect") == ["120", wide, "2"]
    assert attribute(drawn, "x", "rect") == ["79"]
