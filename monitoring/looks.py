"""The windows of the past year, of the length of the present one: what was looked at, and when."""

from __future__ import annotations

from datetime import timedelta

from data.period import Period
from monitoring.answers import PAST, Answers
from monitoring.window import Window

SHORTEST = timedelta(days=1)


def before(period: Period, *, looks: int) -> list[Period]:
    """Up to ``looks`` periods that end with ``period``, oldest first, none of them a year before it.

    Calendar months where it is one, else of as many days; of a period longer than half a year it is
    the only one.

    >>> [str(one) for one in before(Period.between("2021-03", "2021-03"), looks=2)]
    ['2021-02-01 to 2021-02-28', '2021-03-01 to 2021-03-31']
    >>> [str(one) for one in before(Period.between("2021-03-08", "2021-03-14"), looks=2)]
    ['2021-03-01 to 2021-03-07', '2021-03-08 to 2021-03-14']
    """
    length = period.end - period.start
    if length > PAST / 2 or length < SHORTEST:
        return [period]
    month = Period.between(f"{period.start:%Y-%m}", f"{period.start:%Y-%m}") == period
    found, end = [period], period.start
    while len(found) < looks:
        last = end - timedelta(days=1)
        start = Period.between(f"{last:%Y-%m}", f"{last:%Y-%m}").start if month else end - length
        if period.start - start > PAST:
            break
        found.append(Period(start, end))
        end = start
    return found[::-1]


def answers(window: Window, *, looks: int) -> list[tuple[Period, Answers]]:
    """The answers of each of those windows, from the first in which there were any."""
    parts = [
        (
            period,
            window.answers if period == window.period else window.past.between(period.start, period.end),
        )
        for period in before(window.period, looks=looks)
    ]
    first = next((place for place, (_, part) in enumerate(parts) if len(part)), len(parts) - 1)
    return parts[first:]
