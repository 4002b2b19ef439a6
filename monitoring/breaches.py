"""Where performance is no longer what the version was promoted for.

Calibration in the large and net benefit are tested by betting over the year's windows, at all sites
together and at each; slope, discrimination and subgroups in this window, by intervals at the level
that their share of the false alarms leaves. Every bound is one of effect: no model is exact, and none
is alarmed over for that.

A warning changes the outcome that it warned of, so that answers are judged which no clinician was shown.
Where nearly all were shown, more events than expected are still an alarm, since no warning makes
them; nothing else is, as each of the others falls with the events that were prevented.

A subgroup is held to the gap between its observed/expected and that of all others: where every group
is off alike, that is one alarm of calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from models import metrics
from models.groups import NOT_RECORDED
from models.metrics import SMALLEST_GROUP
from models.spec import ModelSpec
from models.watch import What
from monitoring import analytic, looks, sequential
from monitoring.answers import Answers
from monitoring.sequential import Evidence
from monitoring.signal import Signal
from monitoring.window import Window

MOSTLY = 0.8
"""The share of answers shown from which those not shown are too few, and too odd, to judge by."""
FEWEST = 100
"""Answers with an outcome in a year, from which a site is bet on."""

Looks = Sequence[tuple[str, Answers]]
"""The first day of each window, and its answers that can be held against an outcome."""


@dataclass(frozen=True, kw_only=True)
class Bet:
    """One stream of bets: of what, where, on which side, and what it won."""

    what: What
    site: str | None
    side: str
    found: Evidence
    limit: float
    since: str

    @property
    def raised(self) -> bool:
        return self.found.value >= self.limit

    def as_dict(self) -> dict[str, Any]:
        """A row of ``sequential`` in the report."""
        return {
            "what": self.what,
            "site": self.site,
            "side": self.side,
            "evidence": self.found.value,
            "limit": self.limit,
            "raised": self.raised,
            "since": self.since if self.raised else None,
        }


def signals(window: Window, spec: ModelSpec) -> tuple[list[Signal], list[dict[str, Any]]]:
    """What is beyond its bounds, and every stream of bets, raised or not."""
    year, shown = judged(window, spec)
    bets = list(_calibration(year, spec, shown=shown))
    if not shown:
        bets += _useful(year, spec)
    found = [_said(bet, year, spec) for bet in bets if bet.raised]
    if year and not shown:
        found += _intervals(year[-1][1], spec)
        found += _subgroups(window, spec, spread=_spread(year[-1:], None))
    return found, [bet.as_dict() for bet in bets]


def judged(window: Window, spec: ModelSpec) -> tuple[Looks, bool]:
    """The year's windows with the answers to judge by, and whether those are the shown ones."""
    labelled = [
        (period.days[0], answers.take(answers.labelled))
        for period, answers in looks.answers(window, looks=spec.watch.looks)
    ]
    total = sum(len(part) for _, part in labelled)
    shown = total > 0 and sum(int(part.shown.sum()) for _, part in labelled) > MOSTLY * total
    return [(first, part.take(part.shown == shown)) for first, part in labelled], shown


def _calibration(year: Looks, spec: ModelSpec, *, shown: bool) -> Iterator[Bet]:
    low, high = bounds(spec, "calibration", spec.limits.oe)
    sides = [("more", high)] if shown else [("more", high), ("fewer", low)]
    places = _places(year)
    for site in places:
        # Half of what may be spent is for all sites together, which ought not to wait for each of them.
        streams = 2 * len(sides) * (1 if site is None else len(places) - 1)
        for side, bound in sides:
            windows = [
                sequential.capital(y, np.minimum(risk * bound, 1.0), more=side == "more")
                for y, risk in _of(year, site)
            ]
            yield _bet("calibration", site, side, windows, year, spec, streams)


def _useful(year: Looks, spec: ModelSpec) -> Iterator[Bet]:
    """Net benefit at the alert's threshold, less than that of alerting on all, or on nobody."""
    weight = spec.alert_at / (1 - spec.alert_at)
    for side in ("all", "none"):
        windows = []
        for y, risk in _of(year, None):
            gain = analytic.gains(y, risk, threshold=spec.alert_at)
            if side == "all":
                gain = gain - (y - (1 - y) * weight)
            windows.append(sequential.below_zero(gain, most=max(1.0, weight)))
        yield _bet("net_benefit", None, side, windows, year, spec, 2)


def _bet(
    what: What,
    site: str | None,
    side: str,
    windows: Sequence[sequential.FloatArray],
    year: Looks,
    spec: ModelSpec,
    streams: int,
) -> Bet:
    found = sequential.evidence(windows, looks=spec.watch.looks, spread=_spread(year, site))
    limit = float(np.log10(streams / spec.watch.alpha))
    since = year[found.start][0] if year else ""
    return Bet(what=what, site=site, side=side, found=found, limit=limit, since=since)


def _places(year: Looks) -> list[str | None]:
    """All sites together, and each with answers enough in the year."""
    if not year:
        return []
    names = year[-1][1].sites
    size = np.zeros(len(names) + 1, dtype=np.intp)
    for _, part in year:
        size += np.bincount(part.site + 1, minlength=len(names) + 1)
    return [None, *(name for name, rows in zip(names, size[1:], strict=True) if rows >= FEWEST)]


def _of(year: Looks, site: str | None) -> Iterator[tuple[sequential.FloatArray, sequential.FloatArray]]:
    """Outcome and risk of each window, at ``site``."""
    for _, part in year:
        there = slice(None) if site is None else _there(part, site)
        yield part.outcome[there], part.risk[there]


def _spread(year: Looks, site: str | None) -> float:
    """How much more the events of several rows a patient vary than those of single rows."""
    parts = [part if site is None else part.take(_there(part, site)) for _, part in year]
    if not parts:
        return 1.0
    columns = ([getattr(part, name) for part in parts] for name in ("outcome", "risk", "patient"))
    return metrics.design_effect(*(np.concatenate(column) for column in columns))


def _there(part: Answers, site: str) -> npt.NDArray[np.bool_]:
    return np.asarray(part.site == part.sites.index(site))


def _said(bet: Bet, year: Looks, spec: ModelSpec) -> Signal:
    place = f" at {bet.site}" if bet.site else ""
    recent = [pair for (_, _), pair in zip(year, _of(year, bet.site), strict=True)][bet.found.start :]
    y, risk = (np.concatenate(part) for part in zip(*recent, strict=True))
    if bet.what == "net_benefit":
        value = analytic.net_benefit(y, risk, threshold=spec.alert_at)
        other = "alerting on everybody" if bet.side == "all" else "alerting on nobody"
        message = f"Net benefit is {value[0]:.3f}{place}, less than {other}, since {bet.since}"
        return Signal(what=bet.what, message=message, value=value[0], since=bet.since)
    value, limits = analytic.oe(y, risk), bounds(spec, "calibration", spec.limits.oe)
    # Without an event a ratio has no interval.
    interval = f" ({value[1]:.2f} to {value[2]:.2f})" if y.any() else ""
    value = value if y.any() else (0.0, 0.0, 0.0)
    message = (
        f"Observed/expected is {value[0]:.2f}{interval}{place}, outside {limits[0]:g} to {limits[1]:g}, "
        f"since {bet.since}: {int(y.sum()):,} events where {risk.sum():,.0f} were expected"
    )
    return Signal(
        what=bet.what, message=message, site=bet.site, value=value[0], limits=limits, since=bet.since
    )


def _intervals(now: Answers, spec: ModelSpec) -> list[Signal]:
    """Slope and AUROC of the window, wholly outside their bounds."""
    y, risk = now.outcome, now.risk
    z = _z(spec, tests=1) * metrics.design_effect(y, risk, now.patient) ** 0.5
    found = []
    limits = bounds(spec, "slope", spec.limits.slope)
    value, low, high = analytic.slope(y, risk, z=z)
    if low > limits[1] or high < limits[0]:
        message = (
            f"The calibration slope is {value:.2f} ({low:.2f} to {high:.2f}), outside {limits[0]:g} to "
            f"{limits[1]:g}: risks are {'too alike' if value > 1 else 'too extreme'}"
        )
        found.append(Signal(what="slope", message=message, value=value, limits=limits))
    alarm = spec.watch.of("discrimination")
    least = spec.limits.auroc if alarm is None or alarm.low is None else alarm.low
    value, low, high = analytic.auroc(y, risk, z=z)
    if high < least:
        message = f"AUROC is {value:.3f} ({low:.3f} to {high:.3f}), under {least:g}"
        found.append(Signal(what="discrimination", message=message, value=value, limits=(least, None)))
    return found


def _subgroups(window: Window, spec: ModelSpec, *, spread: float) -> list[Signal]:
    """Subgroups whose observed/expected is apart from that of the others; sites are bet on instead.

    ``spread``: of several rows a patient, as of :func:`models.metrics.design_effect`.
    """
    answers, limits = window.answers, bounds(spec, "subgroup", spec.limits.subgroup_oe)
    known = answers.labelled & ~answers.shown
    parts = [
        (f"{attribute}: {level}", known & (levels == level))
        for attribute, levels in window.groups.items()
        for level in sorted({level for level in levels[known] if level not in (None, NOT_RECORDED)})
    ]
    parts = [(group, there) for group, there in parts if _people(answers, there) >= SMALLEST_GROUP]
    z = _z(spec, tests=len(parts)) * spread**0.5
    found = []
    for group, there in parts:
        own, gap, low, high = _gap(answers, there, known & ~there, z)
        # Of two groups that are apart it is the one that is off.
        if (low > limits[1] and own > limits[1]) or (high < limits[0] and own < limits[0]):
            message = (
                f"Observed/expected is {own:.2f} in the subgroup {group}, {gap:.2f} times that of all "
                f"others ({low:.2f} to {high:.2f}), outside {limits[0]:g} to {limits[1]:g}"
            )
            found.append(Signal(what="subgroup", message=message, group=group, value=gap, limits=limits))
    return found


def _gap(
    answers: Answers, there: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_], z: float
) -> tuple[float, float, float, float]:
    """Observed/expected there, over that of the others, and the ends of its interval; NaN of none.

    The variances of the two logarithms add up.
    """
    (own, *ends), (other, *theirs) = (
        analytic.oe(answers.outcome[rows], answers.risk[rows], z=z) for rows in (there, others)
    )
    reach = np.hypot(np.log(ends[1] / own), np.log(theirs[1] / other))
    gap = own / other
    return own, gap, float(gap * np.exp(-reach)), float(gap * np.exp(reach))


def _people(answers: Answers, there: npt.NDArray[np.bool_]) -> int:
    return len(np.unique(answers.patient[there]))


def bounds(spec: ModelSpec, what: What, gate: tuple[float, float]) -> tuple[float, float]:
    """What an alarm tolerates: its own bounds, or else those of the gate."""
    alarm = spec.watch.of(what)
    low, high = (alarm.low, alarm.high) if alarm else (None, None)
    return (gate[0] if low is None else low, gate[1] if high is None else high)


def _z(spec: ModelSpec, *, tests: int) -> float:
    """Standard errors of an interval that leaves a truth at its bound with the share of one test."""
    return float(-ndtri(spec.watch.alpha / (2 * spec.watch.looks * max(1, tests))))
