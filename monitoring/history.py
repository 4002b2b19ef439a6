"""What earlier windows found, from their reports on disk."""

from __future__ import annotations

from typing import Any

import msgspec

from data.home import Home
from data.period import Period

REPORT = "report.json"


class _Found(msgspec.Struct):
    """A row of ``columns``: what was tested."""

    column: str
    site: str | None
    drifted: bool


class _Raised(msgspec.Struct):
    """A row of ``alarms``."""

    column: str | None
    site: str | None
    since: str | None = None


class _Report(msgspec.Struct):
    """What is asked of ``report.json``; of a year of them the rest is not even read."""

    pointer: str
    window: dict[str, str]
    columns: list[_Found] = []
    alarms: list[_Raised] = []


_READER = msgspec.json.Decoder(_Report)


def earlier(home: Home, model: str, version: str, pointer: str, before: Period) -> list[dict[str, Any]]:
    """Of each window of that version and pointer that ended before: what its report found, oldest first.

    ``{window, columns, alarms}``, as :func:`monitoring.attribution.since` wants them. What is no report,
    or was cut, is passed over: a trend has a gap then, and a verdict needs none.
    """
    found = []
    for file in (home.reports / model / version).glob(f"[!.]*/{REPORT}"):
        try:
            report = _READER.decode(file.read_bytes())
            first, last = report.window["from"], report.window["to"]
        except (OSError, msgspec.MsgspecError, KeyError, UnicodeError):
            continue
        if report.pointer == pointer and last < before.days[0]:
            found.append((first, last, report))
    found.sort(key=lambda one: one[:2])
    return [msgspec.to_builtins(report) for _, _, report in found]
