"""What alarms call for, and who lets it happen: a person who signs, or the change control plan.

All of it is read from the ledger, whose chain and anchors must hold: else nothing is begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data.errors import ConflictError, GateRefusedError, UsageError
from data.home import Home
from data.pseudonym import load_key
from models import alarms, change_control, ledger, release
from models.alarms import Opened
from models.change_control import ACTIONS, FILE, Action, Plan, Rule
from models.ledger import Entry
from models.release import Pointer
from models.signature import Signature, of_plan

CHALLENGER: Pointer = "challenger"
SIGN = "give --by and --reason"


@dataclass(frozen=True, kw_only=True)
class Called:
    """What some alarms call for, and who answers for it.

    ``window``: first and last day of the latest window that raised one of them. ``plan``: the change
    control plan that lets it happen, None where a person signs.
    """

    alarms: tuple[Opened, ...]
    action: Action
    window: Mapping[str, str]
    signed: Signature
    rule: Rule
    plan: Plan | None

    @property
    def about(self) -> Opened:
        return self.alarms[0]

    @property
    def pointer(self) -> Pointer:
        """The one that names the version which alarms."""
        return _pointer(self.about)

    @property
    def since(self) -> str | None:
        """The first day of what the alarms are about, as far as any of them tells it."""
        return min((one.alarm["since"] for one in self.alarms if one.alarm.get("since")), default=None)

    @property
    def because(self) -> str:
        """The reason of every act that this leads to."""
        numbers = ", ".join(str(one.number) for one in self.alarms)
        text = f"alarm {numbers}: {self.signed.reason}"
        return f"{text} (sha256 {self.plan.sha256})" if self.plan else text

    @property
    def evidence(self) -> dict[str, Any] | None:
        return self.plan.evidence(self.about.model, self.action) if self.plan else None


def called(
    home: Home, numbers: Sequence[int], by: str | None, reason: str | None, *, now: datetime
) -> Called:
    """The alarms, what they call for, and the right to do it. Raises as ``respond`` does."""
    entries = read(home)
    found = alarms.standing(entries)
    asked = tuple(alarms.named(found, number) for number in dict.fromkeys(numbers))
    action = _action(asked)
    _open(home, asked)
    signed = by is not None or reason is not None
    for one in asked:
        if before := _answered(entries, one.number, signed=signed):
            raise ConflictError(
                f"alarm {one.number} was answered in entry {before.number} of the ledger"
            )
    window = _window(entries, asked)
    if not signed:
        plan, rule = _planned(home, entries, asked, action, now)
        return Called(
            alarms=asked,
            action=action,
            window=window,
            signed=Signature(by=plan.signature, reason=rule.description),
            rule=rule,
            plan=plan,
        )
    return Called(
        alarms=asked,
        action=action,
        window=window,
        signed=Signature.of(by or "", reason or ""),
        rule=Rule(action=action),
        plan=None,
    )


def read(home: Home) -> list[Entry]:
    """The ledger's entries. Raises IntegrityError where it, or what is anchored of it, was changed."""
    # The anchors first: an entry that is added meanwhile is in the ledger before it is anchored.
    kept = ledger.anchors(home.releases)
    entries = ledger.verify(home.ledger, load_key(home.path)) if home.ledger.exists() else []
    ledger.hold(entries, kept)
    return entries


def in_the_way(home: Home, model: str, entries: Sequence[Entry]) -> str | None:
    """The challenger that no plan placed, so that none replaces it; None where there is none."""
    standing = release.pointed(home.releases, model=model, pointer=CHALLENGER)
    placed = ledger.standing(entries, model, CHALLENGER).present
    if placed and placed.version == standing and of_plan(placed.by):
        return None
    return standing


def _action(asked: Sequence[Opened]) -> Action:
    """The one thing that all call for, of one version."""
    about = asked[0]
    action = about.alarm["response"]
    for one in asked:
        named = (one.model, one.version, one.pointer, one.alarm["response"])
        if named != (about.model, about.version, about.pointer, action):
            raise UsageError(
                f"alarms {about.number} and {one.number} are of two versions or call for two things: "
                "answer one after the other"
            )
    if action not in ACTIONS:
        raise UsageError(f"alarm {about.number} calls for {action}: a person looks, no command does it")
    found: Action = action
    return found


def _open(home: Home, asked: Sequence[Opened]) -> None:
    """Raises ConflictError where there is nothing left to answer."""
    for one in asked:
        if one.closed:
            raise ConflictError(f"alarm {one.number} was closed by {one.closed.by}: {one.closed.reason}")
    about, pointer = asked[0], _pointer(asked[0])
    pointed = release.pointed(home.releases, model=about.model, pointer=pointer)
    if pointed != about.version:
        raise ConflictError(
            f"alarm {about.number} is about {about.model} {about.version}, and {pointer} is now "
            f"{pointed or 'none'}: close it"
        )


def _answered(entries: Sequence[Entry], number: int, *, signed: bool) -> Entry | None:
    """The entry that answered the alarm since it was last raised, and holds it for answered.

    What was refused may be tried again by a person; without one it would be refused again.
    """
    for entry in reversed(entries):
        told = entry.evidence
        if entry.act == ledger.ALARM_SEEN and number in told["raised"]:
            return None
        if entry.act == ledger.ALARM_ANSWERED and number in told["alarms"]:
            return None if told["refused"] and signed else entry
    return None


def _window(entries: Sequence[Entry], asked: Sequence[Opened]) -> Mapping[str, str]:
    numbers = {one.number for one in asked}
    later: list[Mapping[str, str]] = [
        entry.evidence["window"]
        for entry in entries
        if entry.act == ledger.ALARM_SEEN and numbers & {*entry.evidence["raised"]}
    ]
    return max([*(one.window for one in asked), *later], key=lambda window: window["to"])


def _planned(
    home: Home, entries: Sequence[Entry], asked: Sequence[Opened], action: Action, now: datetime
) -> tuple[Plan, Rule]:
    """The plan and its rule, if they let it happen now without a signature."""
    model = asked[0].model
    plan = change_control.read(home.path)
    rule = plan.rule(model, action)
    if not rule.without_signature:
        raise UsageError(f"{action} of {model}: {FILE} lets it not happen without a signature: {SIGN}")
    for one in asked:
        if one.quiet_from:
            raise ConflictError(
                f"alarm {one.number} was not raised again from {one.quiet_from} on: close it, or {SIGN}"
            )
    spent = change_control.spent(entries, model, action, now=now)
    if rule.most_a_year is not None and spent >= rule.most_a_year:
        raise GateRefusedError(
            f"{action} of {model}: {spent} within a year without a signature, most_a_year of "
            f"{FILE} is {rule.most_a_year}: {SIGN}"
        )
    if action != "withdraw" and (standing := in_the_way(home, model, entries)):
        raise GateRefusedError(
            f"{model}: version {standing} is challenger, and not by {FILE}: a person replaces it: {SIGN}"
        )
    return plan, rule


def _pointer(about: Opened) -> Pointer:
    return CHALLENGER if about.pointer == CHALLENGER else "champion"
