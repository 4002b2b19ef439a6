"""The calibration curve and the decision curve of a window as SVG text: numbers in, a picture out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitoring.charts import DOT, GRID, LINE, SOFT, Scale, svg, ticks

SIDE, LEFT, TOP, BOTTOM, RIGHT = 340, 46, 8, 40, 12
Row = Mapping[str, float]


def calibration(rows: Sequence[Row], *, title: str) -> str:
    """Observed against predicted, with Wilson intervals; on the dotted line they agree.

    ``rows``: risk, observed, low, high; the axes end a little above the largest of them.
    """
    if not rows:
        return ""
    most = min(1.0, 1.05 * max(max(row["high"], row["risk"]) for row in rows))
    x, y = _axes(0.0, most, 0.0, most)
    parts = _frame(x, y, "Risk that was given", "Share in whom it came about")
    parts.append(_line([(0.0, 0.0), (most, most)], x, y, SOFT, dashes="2 3"))
    parts.append(_line([(row["risk"], row["observed"]) for row in rows], x, y, LINE))
    for row in rows:
        at = x(row["risk"])
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(row["low"]):.1f}" y2="{y(row["high"]):.1f}" '
            f'stroke="{DOT}"/><circle cx="{at:.1f}" cy="{y(row["observed"]):.1f}" r="3.2" fill="{DOT}"/>'
        )
    return svg(SIDE, SIDE, title, parts)


def net_benefit(rows: Sequence[Row], *, alert_at: float, title: str) -> str:
    """The decision curve: the model in full, alerting on all dashed, on nobody dotted.

    ``rows``: threshold, model, treat_all, treat_none; where the model is below one of the two others,
    acting on it does harm. A thin line marks the alert's threshold.
    """
    if not rows:
        return ""
    highest = max(max(row["model"], row["treat_all"]) for row in rows)
    low, high = min(-0.02, *(row["model"] for row in rows)), 1.08 * max(highest, 0.01)
    x, y = _axes(rows[0]["threshold"], rows[-1]["threshold"], low, high)
    parts = _frame(x, y, "Threshold from which one acts", "Net benefit")
    at = x(alert_at)
    parts.append(
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{SIDE - BOTTOM}" stroke="{GRID}" '
        'stroke-width="3"/>'
    )
    for name, colour, dashes in (
        ("treat_none", SOFT, "2 3"),
        ("treat_all", SOFT, "6 4"),
        ("model", LINE, ""),
    ):
        points = [(row["threshold"], row[name]) for row in rows if row[name] >= low]
        parts.append(_line(points, x, y, colour, dashes=dashes))
    return svg(SIDE, SIDE, title, parts)


def _axes(left: float, right: float, low: float, high: float) -> tuple[Scale, Scale]:
    return (
        Scale(low=left, high=right, start=LEFT, end=SIDE - RIGHT),
        Scale(low=low, high=high, start=SIDE - BOTTOM, end=TOP),
    )


def _frame(x: Scale, y: Scale, below: str, beside: str) -> list[str]:
    """Grid, numbers and what the axes are."""
    parts = [
        f'<line x1="{LEFT}" x2="{SIDE - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{GRID}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" class="tick" text-anchor="end">{tick:g}</text>'
        for tick in ticks(y.low, y.high)
    ]
    parts += [
        f'<text x="{x(tick):.1f}" y="{SIDE - BOTTOM + 14}" class="tick" text-anchor="middle">'
        f"{tick:g}</text>"
        for tick in ticks(x.low, x.high)
    ]
    middle = (TOP + SIDE - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + SIDE - RIGHT) / 2}" y="{SIDE - 8}" class="tick" text-anchor="middle">{below}'
        f'</text><text x="11" y="{middle}" class="tick" text-anchor="middle" '
        f'transform="rotate(-90 11 {middle})">{beside}</text>'
    )
    return parts


def _line(
    points: Sequence[tuple[float, float]], x: Scale, y: Scale, colour: str, *, dashes: str = ""
) -> str:
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{style}/>'
