"""How well the levels that were answered agree with those that turned out to be right.

Of an ordinal model only, and where the outcome was told with its level: by ``outcomes load``, or by
``POST /v1/outcomes``. The measures are those at promotion.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models import agreement
from models.metrics import SMALLEST_GROUP
from models.spec import ModelSpec, Triage
from monitoring import strata
from monitoring.answers import Answers
from monitoring.strata import Ints
from monitoring.window import Window

FEWEST = 50
"""Outcomes with a level."""
BOOTSTRAP, OF_GROUP = 500, 200
MOST = 20_000
"""Answers that are measured, of more some so many, by patient: a kappa's interval is then 0.014 wide."""
BY_GROUP = ("kappa", "under_urgent", "over_urgent")


def measure(window: Window, spec: ModelSpec) -> dict[str, Any] | None:
    """``{n, reason, measure: {value, low, high}, table, groups}``, None of a model without levels.

    Measures as in :func:`models.agreement.triage`. ``table``: counts by the right level and by the one
    that was answered. ``groups``: the chief measures by site and by subgroup, of the levels of at least
    twenty patients. A level that contradicts the outcome told with it is not counted.
    """
    triage = spec.triage
    if triage is None:
        return None
    answers = window.answers
    places = np.flatnonzero(answers.labelled & _sound(answers, triage))
    n, levels = len(places), len(triage.levels)
    people = len(np.unique(answers.patient[places]))
    if n < FEWEST or people < SMALLEST_GROUP:
        reason = (
            f"{n} outcomes of {people} patients were told with their level; "
            f"at least {FEWEST} of {SMALLEST_GROUP} are needed"
        )
        return {"n": n, "reason": reason, "table": None, "groups": []}
    measured = strata.sampled(places, answers.patient, MOST)
    found: dict[str, Any] = {"n": n, "reason": None, **_measures(answers, measured, triage, BOOTSTRAP)}
    table = agreement.confusion(answers.outcome_level[places], answers.level[places], levels=levels)
    groups = []
    for attribute, level, rows in strata.shown(strata.at(window, places), answers.patient[places]):
        some = strata.sampled(places[rows], answers.patient, MOST)
        if len(some) >= FEWEST:
            chief = _measures(answers, some, triage, OF_GROUP)
            groups.append(
                {
                    "group": attribute,
                    "level": level,
                    "n": len(rows),
                    **{name: chief[name] for name in BY_GROUP},
                }
            )
    return {**found, "table": table.tolist(), "groups": groups}


def _sound(answers: Answers, triage: Triage) -> Any:
    """Mask of the rows in which both levels make sense."""
    known = (answers.level > 0) & (answers.outcome_level > 0)
    possible = np.maximum(answers.level, answers.outcome_level) <= len(triage.levels)
    return known & possible & ((answers.outcome_level <= triage.urgent) == (answers.outcome == 1))


def _measures(answers: Answers, places: Ints, triage: Triage, bootstrap: int) -> dict[str, Any]:
    found = agreement.measure(
        answers.outcome_level[places],
        answers.level[places],
        levels=len(triage.levels),
        urgent=triage.urgent,
        cluster=answers.patient[places],
        bootstrap=bootstrap,
    )
    rows = found.itertuples(index=False)
    return {
        name: {"value": value, "low": low, "high": high} if np.isfinite(value) else None
        for name, value, low, high in rows
    }
