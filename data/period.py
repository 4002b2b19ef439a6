"""Stretches of time, as people name them: whole months or days, both ends inclusive."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from data.errors import UsageError

_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 1, 1)  # noqa: DTZ001 wall clock


@dataclass(frozen=True)
class Period:
    """``start`` <= t < ``end``, on the site's wall clock."""

    start: datetime
    end: datetime

    @property
    def open(self) -> bool:
        """Whether it leaves out nothing."""
        return (self.start, self.end) == (_FIRST, _LAST)

    def utc(self, zone: tzinfo) -> tuple[datetime, datetime]:
        """Start and end as naive UTC, where they are the wall clock of ``zone``.

        >>> from zoneinfo import ZoneInfo
        >>> start, end = Period.between("2021-03", "2021-03").utc(ZoneInfo("Europe/Berlin"))
        >>> str(start), str(end)  # the clocks went forward in between
        ('2021-02-28 23:00:00', '2021-03-31 22:00:00')
        """
        start, end = (_utc(moment, zone) for moment in (self.start, self.end))
        return start, end

    @property
    def days(self) -> tuple[str, str]:
        """The first and the last day."""
        # strftime would write the year 1 as 1.
        last = self.end - timedelta(days=1)
        return self.start.date().isoformat(), last.date().isoformat()

    def __str__(self) -> str:
        return " to ".join(self.days)

    @classmethod
    def between(cls, first: str | None, last: str | None) -> Period:
        """From the start of ``first`` to the end of ``last``, each YYYY-MM or YYYY-MM-DD.

        None leaves that side open. Raises UsageError where one is no month or day, or where
        ``last`` lies before ``first``.

        >>> Period.between("2021-01", "2021-12").end
        datetime.datetime(2022, 1, 1, 0, 0)
        """
        start = _parse(first)[0] if first else _FIRST
        end = _parse(last)[1] if last else _LAST
        if end <= start:
            raise UsageError(f"the period ends before it starts: {first} to {last}")
        return cls(start, end)


def _utc(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # the calendar ends there
        return moment


def _parse(text: str) -> tuple[datetime, datetime]:
    """Start and end of the month or day ``text``."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}", text):
            start = datetime.strptime(text, "%Y-%m")  # noqa: DTZ007 wall clock
            return start, (start + timedelta(days=32)).replace(day=1)
        start = datetime.strptime(text, "%Y-%m-%d")  # noqa: DTZ007 wall clock
        return start, start + timedelta(days=1)
    except (ValueError, OverflowError):  # the last month of the calendar has no end
        raise UsageError(f"not a month (YYYY-MM) or day (YYYY-MM-DD): {text!r}") from None
