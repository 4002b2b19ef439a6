"""A site that stopped sending, or nearly: nobody complains about answers that were never asked for.

The pace of a site is the mean of its days, by weekday, over the past year and the window up to the day
it was last heard of. A silence of some days is news when chance would hardly make it: with the expected
number of requests e and days that scatter phi times as much as Poisson's, exp(-e / phi) (quasi-Poisson;
McCullagh & Nelder 1989, ch. 6). A clinic that closes over the holidays has been as silent before, so
that a silence must also be longer than any that the site came back from.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr

from models.spec import ModelSpec
from monitoring.answers import Answers
from monitoring.signal import Signal
from monitoring.window import Window

FEWEST_DAYS = 14
"""Of history; of fewer no pace is known."""
SHORTEST = 2
"""Days of silence that are worth a word."""
LONGER = 1.5
"""Times the longest silence before."""
FALLEN = 0.2
"""Of the pace, below which a site that still sends has nearly stopped."""

Days = npt.NDArray[np.int64]


def signals(window: Window, spec: ModelSpec) -> list[Signal]:
    """One for each site that is silent at the end of the window, or fell under a fifth of its pace."""
    names = window.answers.sites
    end = np.datetime64(_end(window), "D")
    counted = {name: _days(window, place, end) for place, name in enumerate(names)}
    chance = spec.watch.alpha / (spec.watch.looks * max(1, len(names)))
    found = []
    for name, (first, rows) in counted.items():
        signal = judged(name, first, rows, chance=chance, length=_length(window, end))
        if signal is not None:
            found.append(signal)
    return found


def judged(site: str, first: np.datetime64, rows: Days, *, chance: float, length: int) -> Signal | None:
    """Of a site's ``rows`` a day from day ``first`` on; ``length`` days of them are the window's."""
    heard = np.flatnonzero(rows)
    if not len(heard):
        return None
    last = int(heard[-1])
    past = rows[: last + 1]
    if len(past) < FEWEST_DAYS:
        return None
    weekday = (first.astype("datetime64[D]").astype(np.int64) + np.arange(len(rows))) % 7
    gap = len(rows) - 1 - last
    before = int(np.diff(heard).max(initial=1)) - 1
    pace = np.array(
        [
            past[weekday[: last + 1] == day].mean() if (weekday[: last + 1] == day).any() else 0.0
            for day in range(7)
        ]
    )
    expected = float(pace[weekday[last + 1 :]].sum())
    scatter = _scatter(past, pace[weekday[: last + 1]])
    since = first + np.timedelta64(last + 1, "D")
    if gap >= SHORTEST and gap > LONGER * before and np.exp(-expected / scatter) < chance:
        return Signal(
            what="silence",
            message=(
                f"{site} has sent nothing for {gap} days, where {expected:,.0f} requests were "
                f"expected; it was last heard of on {first + np.timedelta64(last, 'D')}"
            ),
            site=site,
            value=0.0,
            since=str(since),
        )
    return _fallen(site, first, rows, weekday, chance=chance, length=length)


def _fallen(
    site: str, first: np.datetime64, rows: Days, weekday: Days, *, chance: float, length: int
) -> Signal | None:
    """Whether the window's requests are under a fifth of what the days before it lead one to expect."""
    start = len(rows) - length
    past, now = rows[:start], rows[start:]
    if start < FEWEST_DAYS or not len(now):
        return None
    pace = np.array([past[weekday[:start] == day].mean() for day in range(7)])
    expected, sent = float(pace[weekday[start:]].sum()), int(now.sum())
    scatter = _scatter(past, pace[weekday[:start]])
    if sent >= FALLEN * expected or pdtr(sent / scatter, expected / scatter) >= chance:
        return None
    return Signal(
        what="silence",
        message=f"{site} sent {sent:,} requests, where {expected:,.0f} were expected",
        site=site,
        value=sent / expected,
        limits=(FALLEN, None),
        since=str(first + np.timedelta64(start, "D")),
    )


def _scatter(rows: Days, expected: npt.NDArray[np.float64]) -> float:
    """How many times as much as Poisson's the days scatter; at least 1."""
    known = expected > 0
    if known.sum() < 2:
        return 1.0
    return max(1.0, float(((rows[known] - expected[known]) ** 2 / expected[known]).mean()))


def _end(window: Window) -> datetime:
    """The day after the last that could have been heard of: of a window that goes on, today."""
    return min(window.period.end, window.as_of + timedelta(days=1))


def _length(window: Window, end: np.datetime64) -> int:
    return int((end - np.datetime64(window.period.start, "D")).astype(int))


def _days(window: Window, place: int, end: np.datetime64) -> tuple[np.datetime64, Days]:
    """The first day on which the site was heard of, and its rows a day from then to the window's end."""
    at = np.concatenate([_of(answers, place) for answers in (window.past, window.answers)])
    at = at[at < end]
    if not len(at):
        return end, np.zeros(0, dtype=np.int64)
    first = at.min()
    return first, np.bincount((at - first).astype(int), minlength=int((end - first).astype(int)))


def _of(answers: Answers, place: int) -> npt.NDArray[np.datetime64]:
    return np.asarray(answers.at[answers.site == place].astype("datetime64[D]"))
