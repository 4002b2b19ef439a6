"""Every table of the page; those of figures are made in ``measures``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.artifact import LOGISTIC
from training.documents import measures
from training.documents import rows as told
from training.documents.bundle import Bundle
from training.documents.table import Table
from training.documents.words import NONE, at, count, interval, number, percent, unit


def of(b: Bundle) -> dict[str, Table]:
    """Every table of the page; one without rows has nothing to show."""
    return {
        "bands": bands(b),
        "inputs": inputs(b),
        "performance": measures.performance(b),
        "alerts": measures.alerts(b),
        "triage": measures.triage(b),
        "agreement": measures.agreement(b),
        "benefit": measures.benefit(b),
        "groups": measures.groups(b),
        "sites": measures.sites(b),
        "ablations": measures.ablations(b),
        "sets": measures.sets(b),
        "parts": parts(b),
        "flow": flow(b),
        "gate": gate(b),
        "ledger": ledger(b),
    }


def bands(b: Bundle) -> Table:
    """The highest first; of levels of urgency also their place among China's four."""
    levels = b.spec.triage.levels if b.spec.triage else ()
    national = {str(level.value): level.national for level in levels}
    return Table(
        head=("Risk from", "Band", "What to do", *(("Level of four",) if national else ())),
        rows=tuple(
            (
                percent(band.at_least),
                band.label,
                band.action,
                *((national.get(band.id, NONE),) if national else ()),
            )
            for band in reversed(b.spec.bands)
        ),
        words=4,
    )


def inputs(b: Bundle) -> Table:
    head = ("Input", "Known at", "Unit", "Plausible range", "Missing at training")
    found = []
    for name in b.inputs:
        column = b.mart[name]
        ranged = column.low is not None and column.high is not None
        found.append(
            (
                column.label,
                column.available,
                unit(column.unit),
                f"{column.low:g} to {column.high:g}" if ranged else "",
                percent(b.missing(name)),
            )
        )
    return Table(head=head, rows=tuple(found), words=4)


def parts(b: Bundle) -> Table:
    names = dict.fromkeys([*b.provenance.periods, *b.provenance.rows])
    return Table(
        head=("Part", "Period", "Rows"),
        rows=tuple(
            (
                told.PARTS.get(name, name),
                " to ".join(b.provenance.periods.get(name, (NONE,))),
                count(b.provenance.rows.get(name)),
            )
            for name in names
        ),
        words=2,
    )


def flow(b: Bundle) -> Table:
    return Table(
        head=("From the mart to the cohort", "Rows"),
        rows=tuple((step, count(rows)) for step, rows in told.flow(b)),
    )


def gate(b: Bundle) -> Table:
    """Each limit beside this version's figure. The judgement itself is made, and kept, at promotion."""
    limits, figures = b.spec.limits, b.figures
    calibration = at(figures, "calibration", default={})
    gain = at(b.comparators, LOGISTIC, "model_minus_this", "auroc")
    found = [
        ("Events among the test rows", f"at least {count(limits.events)}", count(figures.get("events"))),
        ("AUROC", f"at least {limits.auroc:g}", interval(figures.get("auroc"))),
        (
            "AUROC over logistic regression",
            f"lower bound at least {-limits.logistic_margin + 0.0:g}",
            interval(gain),
        ),
        (
            "AUROC over the champion",
            f"lower bound at least {-limits.champion_margin + 0.0:g}",
            interval(at(figures, "champion", "auroc")) if figures.get("champion") else "at promotion",
        ),
        *(
            (title, f"{bounds[0]:g} to {bounds[1]:g}", number(calibration.get(name), 2))
            for title, name, bounds in (
                ("Calibration slope", "slope", limits.slope),
                ("Calibration intercept", "intercept", limits.intercept),
                ("Observed over expected", "oe", limits.oe),
            )
        ),
        (
            f"AUROC of each group with {limits.subgroup_events} events",
            f"at least {limits.subgroup_auroc:g}",
            _least(b, limits.subgroup_events),
        ),
        (
            f"Observed over expected of each group with {limits.subgroup_events} events",
            f"{limits.subgroup_oe[0]:g} to {limits.subgroup_oe[1]:g}",
            _range(b, limits.subgroup_events),
        ),
    ]
    chosen = at(figures, "at_threshold", default={})
    if limits.alerts_per_100 < 100:
        told_alerts = number(chosen.get("alerts_per_100"), 1)
        found.append(("Alerts per 100 patients", f"at most {limits.alerts_per_100:g}", told_alerts))
    if limits.sensitivity is not None:
        reached = percent(chosen.get("sensitivity"))
        found.append(("Sensitivity", f"at least {percent(limits.sensitivity)}", reached))
    if limits.utility is not None:
        found.append(("Utility", f"at least {limits.utility:g}", interval(figures.get("utility"))))
    return Table(head=("Criterion", "Limit", "This version"), rows=tuple(found))


def _held(b: Bundle, events: int) -> list[Mapping[str, Any]]:
    return [row for row in b.groups if not row["suppressed"] and (row.get("events") or 0) >= events]


def _least(b: Bundle, events: int) -> str:
    values = [at(row, "auroc", "value") for row in _held(b, events)]
    return number(min((value for value in values if value is not None), default=None))


def _range(b: Bundle, events: int) -> str:
    values = [row["oe"] for row in _held(b, events) if row.get("oe") is not None]
    return f"{number(min(values), 2)} to {number(max(values), 2)}" if values else NONE


def ledger(b: Bundle) -> Table:
    return Table(
        head=("When", "What", "By", "Why"),
        rows=tuple((entry.at, entry.act, entry.by, entry.reason) for entry in b.ledger),
        words=4,
    )
