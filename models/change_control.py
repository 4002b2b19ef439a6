"""What may happen to a model without a signature: ``change-control.toml`` in the home.

It is what the FDA calls a predetermined change control plan (guidance of December 2024): which
modifications, by what protocol, with what impact, agreed before they happen. Written by people:

    approved_by = "Dr Chen, model committee, 2026-11-24"

    [default.recalibrate]                     # every model
    without_signature = true
    as = "challenger"                         # never champion: a person promotes
    largest_shift = 0.5                       # log-odds, by which a site's risks move
    fewest_events = 100                       # that an intercept was learned from
    most_a_year = 4
    description = "The intercept of a site is learned anew."
    protocol = "Cross-validated by patient; the promotion gate."
    impact = "Risks at one site move by one number; their order and explanation stay."

    [ed_admission.retrain]                    # one model: instead of its default, nothing is mixed
    without_signature = true
    fewest_events = 500                       # in the test period
    auroc_loss = 0.01                         # at most, on the new version's test rows
    most_a_year = 2
    …

    [default.withdraw]
    without_signature = true
    most_a_year = 2
    …

Without the file nothing happens without a signature. What is registered enters as challenger, whose
answers nobody sees. To withdraw is the safe half, as everywhere here: clinicians fall back on their
own judgement; but it is felt on the wards, so that it too has to be allowed, by name.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from data.errors import UsageError
from models import catalog, ledger
from models.ledger import Entry
from models.signature import PLAN, of_plan
from models.sites import FEWEST_EVENTS

FILE = "change-control.toml"
DEFAULT = "default"
Action = Literal["recalibrate", "retrain", "withdraw"]
ACTIONS: tuple[Action, ...] = get_args(Action)
TEXTS = ("description", "protocol", "impact")
YEAR = timedelta(days=365)
_BOUNDS: dict[Action, tuple[str, ...]] = {
    "recalibrate": ("largest_shift", "fewest_events", "most_a_year"),
    "retrain": ("fewest_events", "auroc_loss", "most_a_year"),
    "withdraw": ("most_a_year",),
}
_ALLOWED: dict[str, tuple[float, float]] = {
    # e^2 = 7.4 times the odds: more is another population, and no calibration
    "largest_shift": (0.01, 2.0),
    "fewest_events": (FEWEST_EVENTS, 1_000_000),
    "most_a_year": (1, 52),
    "auroc_loss": (0.0, 0.1),
}


class _Rule(msgspec.Struct, forbid_unknown_fields=True, rename={"as_": "as"}):
    without_signature: bool
    as_: Literal["challenger"] = "challenger"
    largest_shift: float | None = None
    fewest_events: int | None = None
    most_a_year: int | None = None
    auroc_loss: float | None = None
    description: str = ""
    protocol: str = ""
    impact: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one action on one model may do without a signature; bounds that it has none of are None."""

    action: Action
    without_signature: bool = False
    largest_shift: float | None = None
    fewest_events: int | None = None
    most_a_year: int | None = None
    auroc_loss: float | None = None
    description: str = ""
    protocol: str = ""
    impact: str = ""

    def broken(
        self,
        *,
        shifts: Mapping[str, float] | None = None,
        events: Mapping[str, int] | None = None,
        auroc_loss: float | None = None,
    ) -> list[str]:
        """Each bound that a result breaks, in words. ``shifts`` and ``events``: place -> figure.

        >>> rule = Rule(action="recalibrate", largest_shift=0.5, fewest_events=100)
        >>> rule.broken(shifts={"county-01": -0.61}, events={"county-01": 140})
        ['county-01: a shift of -0.61, largest_shift is 0.5']
        """
        return [
            *(
                f"{place}: a shift of {shift:+.2f}, largest_shift is {self.largest_shift:g}"
                for place, shift in (shifts or {}).items()
                if self.largest_shift is not None and not abs(shift) <= self.largest_shift
            ),
            *(
                f"{place}: {count} events, fewest_events is {self.fewest_events}"
                for place, count in (events or {}).items()
                if self.fewest_events is not None and count < self.fewest_events
            ),
            *(
                [f"AUROC falls by {auroc_loss:.3f}, auroc_loss is {self.auroc_loss:g}"]
                if self.auroc_loss is not None
                and auroc_loss is not None
                and not auroc_loss <= self.auroc_loss
                else []
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The file, read. ``sha256`` of its bytes; both None without a file."""

    sha256: str | None = None
    approved_by: str | None = None
    rules: Mapping[tuple[str, Action], Rule] = field(default_factory=dict)

    @property
    def signature(self) -> str:
        """Who signs what the plan lets happen; see :func:`signs`."""
        return f"{PLAN} ({self.approved_by})"

    def rule(self, model: str, action: Action) -> Rule:
        """The model's own rule, else the default, else that a person signs."""
        nothing = Rule(action=action)
        return self.rules.get((model, action)) or self.rules.get((DEFAULT, action)) or nothing

    def evidence(self, model: str, action: Action) -> dict[str, Any]:
        """What an act that rests on the file writes down of it."""
        rule = self.rule(model, action)
        bounds = {name: getattr(rule, name) for name in _BOUNDS[action]}
        return {"file": FILE, "sha256": self.sha256, "approved_by": self.approved_by, **bounds}


def read(home: Path) -> Plan:
    """The plan of the home. Raises UsageError naming the file, the key and the rule that it breaks."""
    try:
        content = (home / FILE).read_bytes()
    except FileNotFoundError:
        return Plan()
    try:
        given = tomllib.loads(content.decode())
    except ValueError as error:  # TOML's and Unicode's errors are ValueErrors
        raise UsageError(f"{FILE}: {error}") from None
    approved_by = given.pop("approved_by", None)
    if approved_by is not None and (not isinstance(approved_by, str) or not approved_by.strip()):
        raise UsageError(f"{FILE}: approved_by: expected who approved it and when, in quotes")
    rules: dict[tuple[str, Action], Rule] = {}
    for model, actions in given.items():
        if model != DEFAULT and model not in catalog.names():
            raise UsageError(
                f"{FILE}: {model}: expected approved_by, {DEFAULT} or a model: "
                f"{', '.join(catalog.names())}"
            )
        if not isinstance(actions, dict):
            raise UsageError(f"{FILE}: {model}: expected tables such as [{model}.recalibrate]")
        for action, written in actions.items():
            if action not in ACTIONS:
                raise UsageError(f"{FILE}: {model}.{action}: expected one of {', '.join(ACTIONS)}")
            rules[model, action] = _rule(f"{FILE}: {model}.{action}", action, written)
    if approved_by is None and any(rule.without_signature for rule in rules.values()):
        raise UsageError(f"{FILE}: approved_by: who approved what may happen without a signature?")
    return Plan(
        sha256=hashlib.sha256(content).hexdigest(),
        approved_by=approved_by.strip() if approved_by else None,
        rules=rules,
    )


def spent(entries: Iterable[Entry], model: str, action: Action, *, now: datetime) -> int:
    """How often in the year before ``now`` the action was taken on the model without a signature.

    Also where a bound was then broken, or the process was ended before it wrote down its answer: what
    is tried again and again is no exception any more.
    """
    ours = [
        entry
        for entry in entries
        if entry.model == model and datetime.fromisoformat(entry.at) > now - YEAR
    ]
    answers = [entry.evidence for entry in ours if entry.act == ledger.ALARM_ANSWERED]
    told = {number for answer in answers for number in answer.get("acts", ())}
    cut_short = [
        entry
        for entry in ours
        if entry.act != ledger.ALARM_ANSWERED and of_plan(entry.by) and entry.number not in told
    ]
    whole = [
        answer
        for answer in answers
        if answer["action"] == action and answer["change_control"] is not None
    ]
    begun = {entry.version for entry in cut_short if _led_to(entry, cut_short) == action}
    return len(whole) + len(begun)


def _led_to(act: Entry, acts: Iterable[Entry]) -> Action:
    """The action that an act was a part of: a recalibrated version is made challenger as well."""
    if act.act.startswith("withdraw"):
        return "withdraw"
    made = (one.act == ledger.RECALIBRATE and one.version == act.version for one in acts)
    return "recalibrate" if any(made) else "retrain"


def _rule(where: str, action: Action, written: object) -> Rule:
    try:
        given = msgspec.convert(written, _Rule)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from None
    bounds = {name: getattr(given, name) for name in _ALLOWED}
    for name, value in bounds.items():
        low, high = _ALLOWED[name]
        if value is not None and name not in _BOUNDS[action]:
            raise UsageError(f"{where}.{name}: {action} is bounded by {', '.join(_BOUNDS[action])}")
        if value is not None and not low <= value <= high:
            raise UsageError(f"{where}.{name}: expected {low:g} to {high:g}")
        if value is None and given.without_signature and name in _BOUNDS[action]:
            raise UsageError(f"{where}.{name}: nothing happens without a signature and without a bound")
    texts = {name: str(getattr(given, name)).strip() for name in TEXTS}
    for name, text in texts.items():
        if given.without_signature and not text:
            raise UsageError(f"{where}.{name}: a plan says it; it may not be empty")
    return Rule(
        action=action,
        without_signature=given.without_signature,
        **bounds,
        description=texts["description"],
        protocol=texts["protocol"],
        impact=texts["impact"],
    )
