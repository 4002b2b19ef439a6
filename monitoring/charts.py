"""Charts as SVG text: numbers in, a picture out. Pure; what is drawn stands in a table beside it too.

What is None or no finite number is a gap. Estimates are a band with a line, what came true are dots with
whiskers, so that neither colour nor print is needed to tell them apart. Beyond the end of an axis an
arrow points to where it goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

INK, SOFT, GRID, BAND = "#1d2733", "#5a6876", "#e3e8ed", "#c9dcee"
LINE, DOT, LIMIT = "#4a7fb5", "#1d2733", "#b3261e"
THEN = "#a9b4c0"
RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Where an axis of ratios has its marks."""

Span = Mapping[str, float | None]
"""``value``, ``low`` and ``high``; the ends may be unknown."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One window: what was foreseen of it, and what came true."""

    label: str
    estimate: Span | None = None
    truth: Span | None = None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Data to pixels, straight; ``start`` is the pixel of ``low``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel; a value beyond an end stays there.

        >>> Scale(low=0, high=2, start=100, end=0)(0.5)
        75.0
        """
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most so many.

    >>> ticks(0.71, 1.32)
    [0.8, 1.0, 1.2]
    """
    raw = (high - low) / max(1, most - 1)
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]


def trend(
    points: Sequence[Point],
    *,
    title: str,
    limits: Sequence[float | None] = (),
    reference: float | None = None,
    form: Callable[[float], str] = "{:.2f}".format,
    width: int = 460,
    height: int = 190,
) -> str:
    """Windows from left to right; ``limits`` dashed in red, ``reference`` (at promotion) in grey.

    "" where nothing is known.
    """
    spans = [span for point in points for span in (point.estimate, point.truth) if _known(span)]
    if not spans:
        return ""
    lines = [*limits, reference]
    low, high = _domain(spans, [line for line in lines if line is not None])
    left, right, top, bottom = 46, width - 12, 8, height - 26
    y = Scale(low=low, high=high, start=bottom, end=top)
    step = (right - left) / len(points)
    xs = [left + step * (place + 0.5) for place in range(len(points))]
    parts = [_axis(tick, y(tick), left, right, form) for tick in ticks(low, high)]
    parts += _labels([point.label for point in points], xs, height - 10, width)
    parts += _lines(limits, y, left, right)
    parts += _lines([reference], y, left, right, stroke=SOFT, dashes="1 3")
    parts += _bands(points, xs, y)
    parts += [_whisker(x, y, point.truth) for x, point in zip(xs, points, strict=True)]
    return svg(width, height, title, parts)


def site(
    points: Sequence[tuple[str, int, Span | None]],
    *,
    title: str,
    reach: float,
    limits: Sequence[float],
    width: int = 220,
    height: int = 132,
) -> str:
    """One site's observed/expected over windows, the same axis for every site, above its requests.

    ``points``: window, requests, observed/expected. The axis goes from 1 / ``reach`` to ``reach`` in
    equal ratios. The bars of the requests are of the site's own highest, which is written beside them.
    """
    left, right, top, middle, bottom = 36, width - 6, 8, 84, height - 16
    y = Scale(low=-math.log(reach), high=math.log(reach), start=middle, end=top)
    most = max((n for _, n, _ in points), default=0)
    bars = Scale(low=0, high=max(most, 1), start=0, end=bottom - middle - 10)
    step = (right - left) / max(1, len(points))
    marks = [ratio for ratio in RATIOS if 1 / reach <= ratio <= reach]
    parts = [_axis(ratio, y(math.log(ratio)), left, right, "{:g}".format) for ratio in marks]
    parts += _lines([math.log(limit) for limit in limits], y, left, right)
    parts.append(_text(left - 6, middle + 20, f"{most:,}"))
    for place, (_, n, found) in enumerate(points):
        x, tall = left + step * (place + 0.5), bars(n)
        parts.append(
            f'<rect x="{x - step * 0.35:.1f}" y="{bottom - tall:.1f}" width="{step * 0.7:.1f}" '
            f'height="{tall:.1f}" fill="{LINE}"/>'
            if n
            else f'<text x="{x:.1f}" y="{bottom}" class="gone">×</text>'
        )
        parts.append(_whisker(x, y, _logged(found), size=2.4))
    ends = [(left, "start", 0), (right, "end", -1)][: len(points)]
    parts += [_text(x, height - 3, points[at][0], anchor=side) for x, side, at in ends]
    return svg(width, height, title, parts)


def extent(spans: Iterable[Span | None], limits: Sequence[float]) -> float:
    """How far an axis of ratios must go: 2 or, at most, 4. What lies beyond is an arrow.

    >>> extent([{"value": 0.4, "low": 0.2, "high": 0.8}], (0.8, 1.25))
    4.0
    """
    values = [span["value"] for span in spans if span is not None and _known(span)]
    near = all(x is not None and 0.5 <= x <= 2 for x in (*values, *limits))
    return 2.0 if near else RATIOS[-1]


def interval(span: Span | None, *, reach: float, limits: Sequence[float]) -> str:
    """A ratio and its interval in one line of a table, whose numbers stand beside it."""
    x, height = Scale(low=-math.log(reach), high=math.log(reach), start=6, end=124), 18
    parts = [
        f'<path d="M{x(math.log(ratio)):.1f} 0v{height}" stroke="{GRID}"/>'
        for ratio in RATIOS
        if 1 / reach <= ratio <= reach
    ]
    parts += [
        f'<path d="M{x(math.log(limit)):.1f} 0v{height}" stroke="{LIMIT}" stroke-dasharray="4 3"/>'
        for limit in limits
    ]
    parts.append(_whisker(height / 2, x, _logged(span), upright=False))
    return _small(130, height, parts)


def scale(reach: float) -> str:
    """The marks of the axis over a column of :func:`interval`."""
    x = Scale(low=-math.log(reach), high=math.log(reach), start=6, end=124)
    return _small(
        130,
        14,
        [
            _text(x(math.log(ratio)), 11, f"{ratio:g}", anchor="middle")
            for ratio in RATIOS
            if 1 / reach < ratio < reach
        ],
    )


def pair(then: float, now: float, *, most: float, over: bool) -> str:
    """Two shares of a cell, at training above and now below, in one line of a table."""
    x = Scale(low=0.0, high=max(most, 1e-9), start=0, end=200)
    colour = LIMIT if over else LINE
    return _small(
        200,
        20,
        [
            f'<rect y="{y}" width="{x(share):.1f}" height="8" fill="{fill}"/>'
            for y, share, fill in ((1, then, THEN), (11, now, colour))
        ],
    )


def gauge(ratio: float, *, over: bool) -> str:
    """How far a statistic has come to its limit, which is the mark."""
    x = Scale(low=0.0, high=1.5, start=0, end=120)
    colour = LIMIT if over else LINE
    return _small(
        120,
        12,
        [
            f'<rect y="3" width="120" height="6" fill="{GRID}"/>',
            f'<rect y="3" width="{x(ratio):.1f}" height="6" fill="{colour}"/>',
            f'<rect x="{x(1.0) - 1:.0f}" width="2" height="12" fill="{INK}"/>',
        ],
    )


def _known(span: Span | None) -> bool:
    """Whether there is a value to draw."""
    return span is not None and _finite(span.get("value"))


def _whole(span: Span | None) -> bool:
    """Whether its interval is known too."""
    return span is not None and all(_finite(span.get(name)) for name in ("value", "low", "high"))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _logged(span: Span | None) -> Span | None:
    """In logarithms; no event at all is far below every axis."""
    if span is None or not _known(span):
        return None
    return {
        name: None if value is None else math.log(max(value, 1e-9))
        for name in ("value", "low", "high")
        for value in (span.get(name),)
    }


def _domain(spans: Sequence[Span | None], lines: Sequence[float]) -> tuple[float, float]:
    """Where an axis begins and ends: every value and line, and intervals up to as far again."""
    core = [x for span in spans if span for x in (span["value"],) if x is not None] + [*lines]
    ends = [x for span in spans if span and _whole(span) for x in (span["low"], span["high"])]
    far = [*core, *(x for x in ends if x is not None)]
    low, high = min(core), max(core)
    beyond = (high - low) or math.inf
    low, high = max(min(far), low - beyond), min(max(far), high + beyond)
    room = (high - low) * 0.08 or max(abs(high) * 0.1, 0.01)
    return low - room, high + room


def _axis(value: float, at: float, left: float, right: float, form: Callable[[float], str]) -> str:
    return f'<line x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="{GRID}"/>' + _text(
        left - 6, at + 4, form(value)
    )


def _text(x: float, y: float, said: str, *, anchor: str = "end") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} class="tick" text-anchor="{anchor}">{escape(said)}</text>'


def _lines(
    values: Iterable[float | None],
    y: Scale,
    left: float,
    right: float,
    *,
    stroke: str = LIMIT,
    dashes: str = "5 4",
) -> list[str]:
    return [
        f'<line x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{stroke}" '
        f'stroke-dasharray="{dashes}"/>'
        for value in values
        if value is not None and _finite(value)
    ]


def _labels(labels: Sequence[str], xs: Sequence[float], at: float, width: float) -> list[str]:
    """As many labels as have room, the last always among them."""
    half = 3.3 * max(map(len, labels))
    step = (xs[-1] - xs[0]) / (len(xs) - 1) if len(xs) > 1 else math.inf
    every = max(1, math.ceil((2 * half + 8) / step))
    return [
        _text(min(xs[place], width - half), at, labels[place], anchor="middle")
        for place in range(len(labels) - 1, -1, -every)
    ]


def _bands(points: Sequence[Point], xs: Sequence[float], y: Scale) -> list[str]:
    """The estimates: a band and its middle, in one piece for each run of windows without a gap."""
    runs: list[list[int]] = []
    for place, point in enumerate(points):
        if _whole(point.estimate):
            if runs and runs[-1][-1] == place - 1:
                runs[-1].append(place)
            else:
                runs.append([place])
    parts = []
    for run in runs:
        spans = [(xs[place], points[place].estimate or {}) for place in run]
        if len(spans) == 1:
            # Of a window alone the band is as wide as a bar.
            ((x, span),) = spans
            spans = [(x - 8, span), (x + 8, span)]
        edge = [(x, y(span["high"] or 0.0)) for x, span in spans]
        edge += [(x, y(span["low"] or 0.0)) for x, span in reversed(spans)]
        middle = [(x, y(span["value"] or 0.0)) for x, span in spans]
        parts.append(f'<polygon points="{_path(edge)}" fill="{BAND}"/>')
        parts += [
            f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{LINE}" '
            'stroke-width="2"/>'
            for a, b in pairwise(middle)
        ]
    return parts


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _whisker(
    place: float, axis: Scale, span: Span | None, *, upright: bool = True, size: float = 3.5
) -> str:
    """A dot, the line of its interval, and an arrow at either end that lies beyond the axis."""
    if span is None or not _known(span):
        return ""
    parts = []
    value, way = span["value"] or 0.0, 1 if axis.end > axis.start else -1
    low, high = (span["low"] or 0.0, span["high"] or 0.0) if _whole(span) else (value, value)
    if low < high:
        side, ends = f"{place:.1f}", [f"{axis(end):.1f}" for end in (low, high)]
        names = ("x1", "x2", "y1", "y2") if upright else ("y1", "y2", "x1", "x2")
        told = " ".join(f'{name}="{at}"' for name, at in zip(names, (side, side, *ends), strict=True))
        parts.append(f'<line {told} stroke="{DOT}"/>')
    if low < axis.low:
        parts.append(_arrow(place, axis.start, -way, upright=upright))
    if high > axis.high:
        parts.append(_arrow(place, axis.end, way, upright=upright))
    if axis.low <= value <= axis.high:
        x, y = (place, axis(value)) if upright else (axis(value), place)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{DOT}"/>')
    return "".join(parts)


def _arrow(place: float, tip: float, way: int, *, upright: bool) -> str:
    """A head at ``tip`` that points to where the axis ends."""
    corners = [(place - 3, tip - 4 * way), (place + 3, tip - 4 * way), (place, tip + 2 * way)]
    if not upright:
        corners = [(y, x) for x, y in corners]
    return f'<polygon class="beyond" points="{_path(corners)}" fill="{DOT}"/>'


def _small(width: int, height: int, parts: Sequence[str]) -> str:
    """A picture in a line of a table, which says the same in numbers."""
    return (
        f'<svg class="line" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A picture of its own."""
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )
