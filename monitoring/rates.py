"""How often no risk is given, and how often an alert, held against what was known at promotion.

Both bounds are multiples of the rate at promotion, so that a site which always sees the sicker is
held to its own: its risks at training say how many of them are alerts. A rate is beyond a bound when
its whole interval is (Wilson 1927, J Am Stat Assoc 22:209).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtri

from models.artifact import Artifact
from models.reference import Binned
from models.watch import Alarm
from monitoring.counting import MIN_ROWS
from monitoring.drift import Finding, percent, tested
from monitoring.signal import Signal
from monitoring.window import Counts, Window

LEAST = 0.02
"""By how much a rate must have moved, of all requests: twice a thousandth is no burden."""
COHORT = "cohort"
"""Who is no patient of the model is turned away by right, and how many those are says nothing."""


def findings(window: Window, loaded: Artifact, at_promotion: Mapping[str, Any] | None) -> list[Finding]:
    """``abstained_share`` and ``alert_share``, over all sites and at each that can be judged.

    Without figures of the promotion they are told and not judged.
    """
    slices = list(tested(window))
    z = _z(loaded, tests=2 * len(slices))
    found = []
    for site, counts in slices:
        # Who is none of the model's is told by that rule alone; a row that tells none counts too.
        withheld = counts.status["abstained"] - counts.abstentions[COHORT]
        asked = counts.scored + withheld
        then = ((at_promotion or {}).get("poor_inputs") or {}).get("abstained", {}).get("any")
        alarm = loaded.spec.watch.of("abstained_rate")
        found.append(_judged("abstained", site, withheld, asked, then, alarm, z))
        expected = _expected(loaded, counts, site, at_promotion)
        alarm = loaded.spec.watch.of("alert_rate")
        found.append(_judged("alert", site, counts.alerts, counts.scored, expected, alarm, z))
    return found


def signals(window: Window, found: list[Finding]) -> list[Signal]:
    """One for each rate: over all sites, or else at the site where it moved."""
    words = {
        "abstained": "of the model's patients are given no risk",
        "alert": "of the risks are alerts",
    }
    raised = []
    for name, said in words.items():
        beyond = [one for one in found if one.column == name and one.drifted]
        together = [one for one in beyond if one.site is None]
        for one in together or beyond:
            limit = one.threshold or 0.0
            place = f" at {one.site}" if one.site else ""
            over = one.value > limit
            raised.append(
                Signal(
                    what="abstained_rate" if name == "abstained" else "alert_rate",
                    message=(
                        f"{percent(one.value)} {said}{place}; at "
                        f"{'most' if over else 'least'} {percent(limit)} is expected"
                    ),
                    site=one.site,
                    value=one.value,
                    limits=(None, limit) if over else (limit, None),
                    since=window.period.days[0],
                )
            )
    return raised


def _judged(
    name: str,
    site: str | None,
    rows: int,
    of: int,
    then: float | None,
    alarm: Alarm | None,
    z: float,
) -> Finding:
    """``threshold`` is the bound that is nearer to the rate, or that it broke."""
    share = rows / of if of else 0.0
    limit, beyond = None, False
    if then is not None and alarm is not None and of >= MIN_ROWS:
        low, high = wilson(rows, of, z=z)
        most = None if alarm.high is None else max(alarm.high * then, then + LEAST)
        least = None if alarm.low is None else min(alarm.low * then, then - LEAST)
        if most is not None:
            limit, beyond = most, low > most
        if least is not None and share < then:
            limit, beyond = least, high < least
    return Finding(
        column=name,
        site=site,
        statistic=f"{name}_share",
        value=share,
        threshold=limit,
        drifted=beyond,
    )


def wilson(rows: int, of: int, *, z: float) -> tuple[float, float]:
    """Interval of a share at ``z`` standard errors.

    >>> [round(x, 4) for x in wilson(10, 100, z=1.959964)]  # Newcombe 1998, Stat Med 17:857
    [0.0552, 0.1744]
    """
    share = rows / of
    centre = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * np.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    return float(centre - half), float(centre + half)


def _expected(
    loaded: Artifact, counts: Counts, site: str | None, at_promotion: Mapping[str, Any] | None
) -> float | None:
    """The share of alerts at promotion; of a site that its risks at training tell."""
    if site is not None and counts.reference is not None:
        own = over(counts.reference.risk, loaded.spec.alert_at)
        if own is not None:
            return own
    if site is not None and loaded.reference.sites:
        return None  # whom it sees was not known at training
    at = ((at_promotion or {}).get("at_threshold") or {}).get("alerts_per_100")
    return None if at is None else at / 100


def over(risk: Binned, threshold: float) -> float | None:
    """The share of the reference's risks at or over ``threshold``, straight within a cell.

    None where it has no counts.

    >>> from data.contract import Text
    >>> risk = Binned(
    ...     column="risk", label=Text("", ""), labels=("a", "b", "c", "missing"),
    ...     counts=(50, 30, 20, 0), edges=(0.2, 0.4),
    ... )
    >>> round(over(risk, 0.3), 3)  # half of the middle cell, and the last
    0.35
    """
    counts = np.array(risk.counts[:-1], dtype=np.float64)
    if not counts.sum():
        return None
    ends = np.array([0.0, *risk.edges, 1.0])
    within = np.clip((ends[1:] - threshold) / np.diff(ends), 0, 1)
    return float((counts * within).sum() / counts.sum())


def _z(loaded: Artifact, *, tests: int) -> float:
    watch = loaded.spec.watch
    return float(-ndtri(watch.alpha / watch.looks / (2 * max(1, tests))))
