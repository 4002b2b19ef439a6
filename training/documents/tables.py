"""Every table of the page; those of figures are made in ``measures``."""

from __future__ import annotations

from training.documents import measures
from training.documents import rows as told
from training.documents.bundle import Bundle
from training.documents.table import Table
from training.documents.words import NONE, count, number, percent, unit
from training.gate import judge


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
        "recalibration": measures.recalibration(b),
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
    """What the gate finds in these figures; at promotion it holds them to the champion's as well."""
    found = judge(b.figures, b.spec)
    return Table(
        head=("Criterion", "Limit", "This version", ""),
        rows=tuple(
            (one.criterion, one.limit, _told(one.value), "met" if one.passed else "not met")
            for one in found
        ),
        words=2,
    )


def _told(value: float | None) -> str:
    """A count as such, any other figure with its decimals."""
    return count(value) if value is not None and value >= 100 else number(value)


def ledger(b: Bundle) -> Table:
    return Table(
        head=("When", "What", "By", "Why"),
        rows=tuple((entry.at, entry.act, entry.by, entry.reason) for entry in b.ledger),
        words=4,
    )
