"""Charts of explanations as SVG text: numbers in, a picture out. Pure; the numbers stand beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import accumulate

from monitoring.charts import DOT, GRID, INK, LIMIT, LINE, SOFT, Scale, svg, ticks
from monitoring.drift import percent

UP, DOWN = LIMIT, LINE
"""Raises the risk, lowers it: red and blue, told apart by their side of the line as well."""
ROW = 22


def shares(
    rows: Sequence[tuple[str, float, float, float, float | None]], *, title: str, width: int = 720
) -> str:
    """A bar a feature with its interval; a grey mark where it stood at training.

    ``rows``: label, share, both ends of its interval, the share at training or None.
    """
    left, right = 260, width - 130
    most = max((max(high, then or 0.0) for _, _, _, high, then in rows), default=0.0) or 1.0
    x = Scale(low=0.0, high=most * 1.05, start=left, end=right)
    parts = []
    for place, (label, share, low, high, then) in enumerate(rows):
        y = place * ROW + 4
        parts.append(
            f'<text x="{left - 10}" y="{y + 12}" text-anchor="end" class="label">{escape(label)}</text>'
            f'<rect x="{left}" y="{y}" width="{x(share) - left:.1f}" height="14" fill="{LINE}"/>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + 7}" y2="{y + 7}" stroke="{DOT}"/>'
            f'<text x="{right + 8}" y="{y + 12}" class="label">{percent(share)} '
            f'<tspan class="tick">({percent(low)} to {percent(high)})</tspan></text>'
        )
        if then is not None:
            at = x(then)
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 2}" y2="{y + 16}" stroke="{SOFT}" '
                'stroke-width="3"/>'
            )
    return svg(width, len(rows) * ROW + 6, title, parts)


def course(
    points: Sequence[tuple[str, float | None]],
    *,
    title: str,
    most: float,
    then: float | None,
    width: int = 220,
    height: int = 92,
) -> str:
    """One feature's share month by month, from 0 to ``most``; dotted where it stood at training."""
    left, right, top, bottom = 34, width - 6, 6, height - 18
    y = Scale(low=0.0, high=most or 1.0, start=bottom, end=top)
    step = (right - left) / max(1, len(points))
    parts = [
        f'<line x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{GRID}"/>'
        f'<text x="{left - 4}" y="{y(tick) + 4:.1f}" class="tick" text-anchor="end">'
        f"{percent(tick)}</text>"
        for tick in ticks(0.0, most or 1.0, most=3)
    ]
    if then is not None:
        parts.append(
            f'<line x1="{left}" x2="{right}" y1="{y(then):.1f}" y2="{y(then):.1f}" stroke="{SOFT}" '
            'stroke-dasharray="2 3"/>'
        )
    last: tuple[float, float] | None = None
    for place, (_, share) in enumerate(points):
        here = None if share is None else (left + step * (place + 0.5), y(share))
        if here and last:
            parts.append(
                f'<line x1="{last[0]:.1f}" y1="{last[1]:.1f}" x2="{here[0]:.1f}" y2="{here[1]:.1f}" '
                f'stroke="{LINE}" stroke-width="2"/>'
            )
        if here:
            parts.append(f'<circle cx="{here[0]:.1f}" cy="{here[1]:.1f}" r="2.4" fill="{DOT}"/>')
        last = here
    if points:
        ends = (points[0][0], points[-1][0])
        parts.append(f'<text x="{left}" y="{height - 4}" class="tick">{escape(ends[0])}</text>')
        if len(points) > 1:
            parts.append(
                f'<text x="{right}" y="{height - 4}" class="tick" text-anchor="end">'
                f"{escape(ends[1])}</text>"
            )
    return svg(width, height, title, parts)


def effects(cells: Sequence[tuple[str, float]], *, title: str, reach: float, width: int = 340) -> str:
    """What each value of a feature adds to the log-odds: to the right it raises, to the left it lowers.

    ``reach``: the largest effect of all that are drawn side by side.
    """
    left, right = 130, width - 44
    x = Scale(low=-(reach or 1.0), high=reach or 1.0, start=left, end=right)
    height = len(cells) * 18 + 6
    zero = x(0.0)
    parts = [f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height}" stroke="{SOFT}"/>']
    for place, (label, effect) in enumerate(cells):
        y, end = place * 18 + 3, x(effect)
        parts.append(
            f'<text x="{left - 8}" y="{y + 11}" text-anchor="end" class="tick">{escape(label)}</text>'
            f'<rect x="{min(zero, end):.1f}" y="{y}" width="{abs(end - zero):.1f}" height="12" '
            f'fill="{UP if effect > 0 else DOWN}"/>'
            f'<text x="{right + 6}" y="{y + 11}" class="tick">{effect:+.2f}</text>'
        )
    return svg(width, height, title, parts)


def waterfall(steps: Sequence[tuple[str, float]], *, base: float, title: str, width: int = 760) -> str:
    """From the base value to the patient's log-odds, a step a feature, the largest first.

    ``steps``: label and contribution. The axis is in log-odds, where steps add up; risks stand at its
    ticks.
    """
    left, right = 300, width - 60
    ends = [base, *accumulate((contribution for _, contribution in steps), initial=base)]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or 0.5
    x = Scale(low=low - room, high=high + room, start=left, end=right)
    height = (len(steps) + 2) * ROW + 34
    parts = [
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="0" y2="{height - 34}" stroke="{GRID}"/>'
        f'<text x="{x(tick):.1f}" y="{height - 20}" class="tick" text-anchor="middle">{tick:g}</text>'
        f'<text x="{x(tick):.1f}" y="{height - 6}" class="tick" text-anchor="middle">'
        f"{_risk(tick)}</text>"
        for tick in ticks(low - room, high + room, most=7)
    ]
    parts.append(_point("without any of it", base, x, 0, left))
    at = base
    for place, (label, contribution) in enumerate(steps, start=1):
        y, start, end = place * ROW + 4, x(at), x(at + contribution)
        colour = UP if contribution > 0 else DOWN
        parts.append(
            f'<text x="{left - 12}" y="{y + 12}" text-anchor="end" class="label">{escape(label)}</text>'
            f'<rect x="{min(start, end):.1f}" y="{y}" width="{max(abs(end - start), 0.8):.1f}" '
            f'height="14" fill="{colour}"/>'
            f'<line x1="{end:.1f}" x2="{end:.1f}" y1="{y}" y2="{y + ROW + 14}" stroke="{SOFT}" '
            'stroke-width="0.7"/>'
            f'<text x="{right + 8}" y="{y + 12}" class="label">{contribution:+.2f}</text>'
        )
        at += contribution
    parts.append(_point("this patient", at, x, len(steps) + 1, left))
    return svg(width, height, title, parts)


def _point(label: str, at: float, x: Scale, place: int, left: int) -> str:
    y = place * ROW + 4
    return (
        f'<text x="{left - 12}" y="{y + 12}" text-anchor="end" class="label" font-weight="600">'
        f"{escape(label)}</text>"
        f'<rect x="{x(at) - 3:.1f}" y="{y + 4}" width="6" height="6" fill="{INK}"/>'
        f'<text x="{x(at) + 8:.1f}" y="{y + 12}" class="label" font-weight="600">'
        f"{_risk(at)}</text>"
    )


def _risk(log_odds: float) -> str:
    """The risk with a decimal, since none is certain."""
    return f"{1 / (1 + math.exp(-log_odds)):.1%}"
