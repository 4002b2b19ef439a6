"""What to do about the alarms: one proposal for each declared response, and who must sign it.

Monitoring proposes; ``caremodels respond`` carries it out. Of a recalibration the effect is shown
beforehand, from the log's own answers: those that no clinician was shown, since a warning changes
the outcome that it warned of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

import numpy as np

from data.errors import NotEnoughDataError
from models import sites
from models.artifact import Artifact
from models.change_control import ACTIONS, Plan, Rule
from models.metrics import SMALLEST_GROUP
from models.watch import Response
from monitoring.answers import Answers
from monitoring.window import Window

GRAVEST: tuple[Response, ...] = tuple(reversed(get_args(Response)))
"""From withdraw to watch."""
SIGNED = "--by WHO --reason TEXT"


def proposals(
    window: Window, loaded: Artifact, alarms: Sequence[Mapping[str, Any]], plan: Plan
) -> list[dict[str, Any]]:
    """One proposal for each response that the ``alarms`` call for, the gravest first.

    ``alarms`` with number and state; those that a person closed call for nothing. ``why`` is all that
    speaks for it, ``command`` what to type (None for what a person does by looking, or where an alarm
    has no number), ``signature`` whether a person must sign, by the ``plan`` and by what is foreseen,
    and ``beyond`` which of its bounds would be broken. ``details`` of a recalibration: for each site
    what would be added to its log-odds, and the calibration before and, cross-validated, after.
    """
    standing = [alarm for alarm in alarms if alarm["state"] != "closed"]
    proposed = []
    for response in GRAVEST:
        calling = [alarm for alarm in standing if alarm["response"] == response]
        if not calling:
            continue
        details: list[dict[str, Any]] = []
        if response == "recalibrate":
            named = {alarm["site"] for alarm in calling}
            details = recalibration(
                window,
                loaded,
                None if None in named else {name for name in named if name},
                since=min((alarm["since"] for alarm in calling if alarm["since"]), default=None),
            )
        rule = plan.rule(loaded.spec.name, response) if response in ACTIONS else None
        beyond = _beyond(rule, details) if rule else []
        signature = rule is not None and (not rule.without_signature or bool(beyond))
        numbers = [alarm["number"] for alarm in calling]
        proposed.append(
            {
                "action": response,
                "why": "; ".join(dict.fromkeys(alarm["message"] for alarm in calling)),
                "alarms": [number for number in numbers if number is not None],
                "signature": signature,
                "beyond": beyond,
                "command": _command(numbers, signed=signature) if rule else None,
                "details": details,
            }
        )
    return proposed


def recalibration(
    window: Window, loaded: Artifact, of: set[str] | None = None, *, since: str | None = None
) -> list[dict[str, Any]]:
    """Of each site in ``of``, None: of every site, the intercept that its answers call for.

    From the answers of the window and of the past year that count, are mature and were not shown;
    ``since`` a day (YYYY-MM-DD) on which the calibration changed: what was before it teaches nothing of
    what is now. A site that has too few is told with the ``reason``, and without figures.
    """
    found = []
    for site, answers in _by_site(window, of, since).items():
        try:
            found.append({"site": site, "reason": None, **_estimate(loaded, site, answers)})
        except NotEnoughDataError as error:
            nothing = dict.fromkeys(("n", "events", "before", "after", "shift", "previous"))
            found.append({"site": site, "reason": str(error), **nothing})
    return found


def _by_site(window: Window, of: set[str] | None, since: str | None) -> dict[str, Answers]:
    """The answers that teach, of the past year and of the window, by the name of their site."""
    first = np.datetime64(since or "0001-01-01", "s")
    parts = [
        answers.take(answers.labelled & ~answers.shown & (answers.at >= first))
        for answers in (window.past, window.answers)
    ]
    names = sorted({name for part in parts for name in part.sites})
    found = {}
    for name in names if of is None else sorted(of):
        there = [part.take(part.site == _place(part, name)) for part in parts]
        if of is not None or any(len(part) for part in there):
            found[name] = _joined(there)
    return found


def _place(answers: Answers, name: str) -> int:
    """-2, which no row has, where the answers know no such site."""
    return answers.sites.index(name) if name in answers.sites else -2


def _joined(parts: Sequence[Answers]) -> Answers:
    """One after the other. Sites keep the places of the first: of one site, nobody asks them again."""
    first = parts[0]
    names = [name for name in vars(first) if name != "sites"]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Answers(sites=first.sites, **arrays)


def _estimate(loaded: Artifact, site: str, answers: Answers) -> dict[str, Any]:
    patients, person = np.unique(answers.patient, return_inverse=True)
    if len(patients) < SMALLEST_GROUP:
        raise NotEnoughDataError(f"under {SMALLEST_GROUP} patients")
    # What was answered has the site's shift in it, of which the estimate is made anew.
    previous = loaded.calibration.sites.get(site, 0.0)
    risk = np.clip(answers.risk, 1e-12, 1 - 1e-12)
    overall = np.log(risk) - np.log1p(-risk) - previous
    spread = loaded.calibration.spread
    return asdict(sites.estimate(overall, answers.outcome, person, between=spread, previous=previous))


def _beyond(rule: Rule, details: Sequence[Mapping[str, Any]]) -> list[str]:
    measured = [row for row in details if row["reason"] is None]
    # Of several sites those with too few events are left as they are.
    enough = [row for row in measured if row["events"] >= (rule.fewest_events or 0)]
    held = enough or measured
    return rule.broken(
        shifts={row["site"]: row["shift"] - row["previous"] for row in held},
        events={row["site"]: row["events"] for row in held},
    )


def _command(numbers: Sequence[int | None], *, signed: bool) -> str | None:
    if None in numbers:
        return None
    words = ["caremodels respond", *(str(number) for number in numbers)]
    return " ".join([*words, SIGNED] if signed else words)
