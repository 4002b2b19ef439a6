"""The alarms of a home as the ledger tells them: open, acknowledged or closed, since when, by whom.

An alarm is one condition of one version: what, and in which column, at which site, in which group. It
is opened once. Windows in which it goes on are entries of their own, so that what was seen when is
known without the reports; a person acknowledges and closes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from data.errors import NotFoundError
from models import ledger
from models.ledger import Entry

State = Literal["open", "acknowledged", "closed"]
PLACE = ("what", "column", "site", "group")
"""What makes an alarm the same one in another window."""
Key = tuple[str, str, str, str | None, str | None, str | None, str | None]
"""Model, version and pointer, then :data:`PLACE`."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """What a person did with an alarm."""

    at: str
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An alarm that was opened by the entry ``number``, as it stands after all entries.

    ``alarm``: what was raised, as a report tells it. ``window``: the one that opened it. ``seen_to``:
    the last day of the latest window that raised it. ``quiet_from``: the first day of the first later
    window that did not, None while it goes on. ``answered``: entries of what was done about it.
    """

    number: int
    at: str
    model: str
    version: str
    pointer: str
    alarm: Mapping[str, Any]
    window: Mapping[str, str]
    seen_to: str
    quiet_from: str | None = None
    state: State = "open"
    acknowledged: Act | None = None
    closed: Act | None = None
    answered: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        return key(self.model, self.version, self.pointer, self.alarm)


def key(model: str, version: str, pointer: str, alarm: Mapping[str, Any]) -> Key:
    """What tells an alarm from all others.

    >>> key("sepsis", "3", "champion", {"what": "silence", "site": "county-01"})
    ('sepsis', '3', 'champion', 'silence', None, 'county-01', None)
    """
    what, column, site, group = (alarm.get(name) for name in PLACE)
    return model, version, pointer, str(what), column, site, group


def standing(entries: Iterable[Entry]) -> dict[int, Opened]:
    """Every alarm that was ever opened, by the number of the entry that opened it, oldest first."""
    found: dict[int, Opened] = {}
    for entry in entries:
        told = entry.evidence
        if entry.act == ledger.ALARM_OPENED:
            found[entry.number] = Opened(
                number=entry.number,
                at=entry.at,
                model=entry.model,
                version=entry.version,
                pointer=told["pointer"],
                alarm=told["alarm"],
                window=told["window"],
                seen_to=told["window"]["to"],
            )
        elif entry.act == ledger.ALARM_SEEN:
            for number in told["raised"]:
                found[number] = replace(found[number], seen_to=told["window"]["to"], quiet_from=None)
            for number in told["quiet"]:
                if found[number].quiet_from is None:
                    found[number] = replace(found[number], quiet_from=told["window"]["from"])
        elif entry.act == ledger.ALARM_ANSWERED:
            for number in told["alarms"]:
                answered = (*found[number].answered, entry.number)
                found[number] = replace(found[number], answered=answered)
        elif entry.act in (ledger.ALARM_ACKNOWLEDGED, ledger.ALARM_CLOSED):
            act = Act(at=entry.at, by=entry.by, reason=entry.reason)
            one = found[told["alarm"]]
            found[one.number] = (
                replace(one, state="closed", closed=act)
                if entry.act == ledger.ALARM_CLOSED
                else replace(one, state="acknowledged", acknowledged=act)
            )
    return found


def latest(found: Mapping[int, Opened]) -> dict[Key, Opened]:
    """Of each condition the alarm that was opened last."""
    return {one.key: one for one in found.values()}


def named(found: Mapping[int, Opened], number: int) -> Opened:
    """The alarm of that number. Raises NotFoundError where the entry opened none."""
    if number not in found:
        known = (
            ", ".join(str(one) for one in found) if 0 < len(found) <= 20 else "caremodels alarms list"
        )
        raise NotFoundError(f"no alarm has the number {number}; known: {known if found else 'none'}")
    return found[number]
