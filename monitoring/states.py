"""Alarms over the windows: opened once, seen again, acknowledged and closed, all of it in the ledger.

Entries hold what was raised and the window, never a patient's value. They are anchored in the
releases as every other; MLflow, which shows who released what, is not told of each.

A ledger that was tampered with is not written to: then :func:`record` raises, and a report is still
made with :func:`unrecorded`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from data.errors import ConflictError
from data.home import Home
from data.pseudonym import load_key
from models import alarms as told
from models import ledger
from models.alarms import Opened
from models.ledger import Book, Entry
from models.signature import Signature
from monitoring.alarms import where

WATCHER = "caremodels monitor"
"""Who opens an alarm: nobody signs for it, and a person may be woken by it."""
ENDLESS = "9000"
"""A window that ends after that year was given no end."""


def record(
    home: Home,
    model: str,
    version: str,
    pointer: str,
    alarms: Sequence[Mapping[str, Any]],
    window: Mapping[str, str],
    *,
    judged: bool = True,
    unjudged: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The ``alarms`` of a ``window`` (from, to), each with its ``number`` and ``state``.

    An alarm that stands open or acknowledged is not opened again. One that was closed is opened again
    by a window that ends later than the last that raised it; in an earlier one it stays closed. A window
    without an end ends today. ``judged``: False where there was too little to judge, so that what is
    not raised has not come to rest; ``unjudged``: the kinds of alarm of which there was too little.
    Raises IntegrityError where the ledger was tampered with: nothing is written then.
    """
    if not alarms and not home.ledger.exists():
        return []
    ends = window["to"] if window["to"] < ENDLESS else datetime.now(UTC).date().isoformat()
    window = {"from": window["from"], "to": ends}
    with _opened(home) as book:
        size = len(book.entries)
        known = told.latest(told.standing(book.entries))
        numbered = []
        for alarm in alarms:
            stands = known.get(told.key(model, version, pointer, alarm))
            if stands is None or (stands.state == "closed" and window["to"] > stands.seen_to):
                entry = _open(book, model, version, pointer, alarm, window)
                stands = told.standing(book.entries)[entry.number]
            numbered.append({**alarm, **_state(stands)})
        ours = [
            stands
            for stands in known.values()
            if (stands.model, stands.version, stands.pointer) == (model, version, pointer)
        ]
        resting = [one for one in ours if judged and one.alarm["what"] not in unjudged]
        _see(book, ours, {alarm["number"] for alarm in numbered}, window, resting=resting)
        if len(book.entries) > size:
            ledger.anchor(home.releases, book.entries[-1])
    return numbered


def unrecorded(alarms: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The alarms of a window where the ledger cannot be written: without a number, and open."""
    nothing = {"number": None, "state": "open", "opened": None, "acknowledged": None, "closed": None}
    return [{**alarm, **nothing} for alarm in alarms]


def acknowledge(home: Home, number: int, *, by: str, reason: str) -> Opened:
    """Somebody has seen it and looks into it.

    Raises NotFoundError for a number that is no alarm's, ConflictError where it is acknowledged or
    closed already, UsageError where nobody signs, IntegrityError where the ledger was tampered with.
    """
    return _act(home, number, ledger.ALARM_ACKNOWLEDGED, Signature.of(by, reason))


def close(home: Home, number: int, *, by: str, reason: str) -> Opened:
    """It is dealt with. A later window that raises it opens it again. Raises as :func:`acknowledge`."""
    return _act(home, number, ledger.ALARM_CLOSED, Signature.of(by, reason))


def listed(home: Home, *, model: str | None = None, closed: bool = False) -> list[Opened]:
    """The alarms that stand, oldest first; with the ``closed`` ones where they are asked for.

    Raises IntegrityError where the ledger was tampered with.
    """
    # The anchors first: an entry that is added meanwhile is in the ledger before it is anchored.
    kept = ledger.anchors(home.releases)
    entries = ledger.verify(home.ledger, load_key(home.path)) if home.ledger.exists() else []
    ledger.hold(entries, kept)
    found = told.standing(entries)
    return [
        one
        for one in found.values()
        if (model is None or one.model == model) and (closed or one.state != "closed")
    ]


def _opened(home: Home) -> AbstractContextManager[Book]:
    return ledger.opened(home.ledger, load_key(home.path), releases=home.releases)


def _open(
    book: Book,
    model: str,
    version: str,
    pointer: str,
    alarm: Mapping[str, Any],
    window: Mapping[str, str],
) -> Entry:
    return book.append(
        act=ledger.ALARM_OPENED,
        model=model,
        version=version,
        by=WATCHER,
        reason=alarm["message"],
        evidence={"pointer": pointer, "alarm": dict(alarm), "window": dict(window)},
    )


def _see(
    book: Book,
    ours: Sequence[Opened],
    raised: set[int],
    window: Mapping[str, str],
    *,
    resting: Sequence[Opened],
) -> None:
    """Write down which alarms go on in a later window, and which have come to rest; no word twice.

    ``resting``: those of ``ours`` that the window could have raised.
    """
    later = [one for one in ours if one.state != "closed" and window["to"] > one.seen_to]
    again = [one.number for one in later if one.number in raised]
    rest = [one for one in later if one.number not in raised and one.quiet_from is None]
    quiet = [one.number for one in rest if one in resting]
    if not again and not quiet:
        return
    book.append(
        act=ledger.ALARM_SEEN,
        model=ours[0].model,
        version=ours[0].version,
        by=WATCHER,
        reason=f"window {window['from']} to {window['to']}",
        evidence={
            "pointer": ours[0].pointer,
            "window": dict(window),
            "raised": again,
            "quiet": quiet,
        },
    )


def _act(home: Home, number: int, act: str, signed: Signature) -> Opened:
    if not home.ledger.exists():
        return told.named({}, number)  # which raises; no ledger and no key is made for a wrong number
    with _opened(home) as book:
        alarm = told.named(told.standing(book.entries), number)
        done = alarm.closed or (alarm.acknowledged if act == ledger.ALARM_ACKNOWLEDGED else None)
        if done:
            raise ConflictError(
                f"alarm {number} ({where(alarm.alarm)}) was {alarm.state} by {done.by} at {done.at}"
            )
        entry = book.append(
            act=act,
            model=alarm.model,
            version=alarm.version,
            by=signed.by,
            reason=signed.reason,
            evidence={"alarm": number, "pointer": alarm.pointer, "what": where(alarm.alarm)},
        )
        ledger.anchor(home.releases, entry)
        return told.standing(book.entries)[number]


def _state(stands: Opened) -> dict[str, Any]:
    """What a report tells of an alarm's state."""
    acts = {"acknowledged": stands.acknowledged, "closed": stands.closed}
    said = {
        name: {"at": act.at, "by": act.by, "reason": act.reason} if act else None
        for name, act in acts.items()
    }
    return {"number": stands.number, "state": stands.state, "opened": dict(stands.window), **said}
