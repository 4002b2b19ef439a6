"""The figures of the test rows as tables: the model, and beside it every comparator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.artifact import LOGISTIC
from training.documents.bundle import Bundle
from training.documents.rows import SMALLEST
from training.documents.table import Cell, Table
from training.documents.words import (
    at,
    comparator,
    count,
    interval,
    measured,
    number,
    percent,
    plain,
    share,
)

MOST_SITES = 12
"""On the page; ``evaluation.json`` holds them all."""
STEPS = 7
"""Thresholds of the net benefit on the page; the plot and ``evaluation.json`` hold the whole curve."""


def _compared(b: Bundle) -> list[tuple[str, Mapping[str, Any]]]:
    """The model, the model weighted to the population, every comparator."""
    found = [("This model", b.figures)]
    if b.figures.get("weighted"):
        found.append(("This model, weighted to the population", b.figures["weighted"]))
    return found + [(comparator(name), row) for name, row in b.comparators.items()]


def _own(b: Bundle) -> int:
    return 2 if b.figures.get("weighted") else 1


def performance(b: Bundle) -> Table:
    head = ("", "AUROC", "Model minus this", "AUPRC", "Brier", "Slope", "Intercept", "Obs./exp.", "ICI")
    found = []
    for name, row in _compared(b):
        calibration = at(row, "calibration", default={})
        found.append(
            (
                name,
                interval(row.get("auroc")),
                interval(at(row, "model_minus_this", "auroc")),
                interval(row.get("auprc")),
                number(row.get("brier")),
                number(calibration.get("slope"), 2),
                number(calibration.get("intercept"), 2),
                number(calibration.get("oe"), 2),
                number(calibration.get("ici")),
            )
        )
    return Table(head=head, rows=tuple(found), own=_own(b))


def alerts(b: Bundle) -> Table:
    head = ("", "Sensitivity", "Specificity", "PPV", "NPV", "Alerts per 100", "Alerts per event")
    found = []
    for name, row in _compared(b):
        chosen = at(row, "at_threshold", default={})
        found.append(
            (
                name,
                *(_percents(row, metric, chosen) for metric in ("sensitivity", "specificity")),
                *(_percents(row, metric, chosen) for metric in ("ppv", "npv")),
                number(chosen.get("alerts_per_100"), 1),
                number(chosen.get("nne"), 1),
            )
        )
    return Table(head=head, rows=tuple(found), own=_own(b))


def _percents(row: Mapping[str, Any], metric: str, chosen: Mapping[str, Any]) -> str:
    return share(measured(row, metric, chosen.get(metric)))


def triage(b: Bundle) -> Table:
    found = b.figures.get("triage") or {}
    if not found:
        return Table(head=(), rows=())
    urgent = b.spec.triage.urgent if b.spec.triage else 0
    shown = (
        ("Quadratic kappa with the nurse's level", interval(found.get("kappa"))),
        ("Quadratic kappa on China's four levels", interval(found.get("kappa_four"))),
        ("Quadratic kappa at the cut-points best for it", interval(found.get("kappa_best"))),
        (f"Of levels 1 to {urgent}, given one of them", share(found.get("sensitivity_urgent"))),
        ("Of the others, given one of the others", share(found.get("specificity_urgent"))),
        ("Under-triage: all rows given a less urgent level", share(found.get("under_triage"))),
        ("Over-triage: all rows given a more urgent level", share(found.get("over_triage"))),
        ("Under-triage of the urgent (committee on trauma: under 5%)", share(found.get("under_urgent"))),
        ("Over-triage of the others (committee on trauma: under 35%)", share(found.get("over_urgent"))),
        ("Came to harm", count(at(found, "harm", "events"))),
        (f"Of these given a level after {urgent} by the model", share(at(found, "harm", "missed"))),
        (
            f"Of these given a level after {urgent} by the nurse",
            share(at(found, "harm", "nurse_missed")),
        ),
    )
    return Table(head=("", "Test rows"), rows=shown)


def agreement(b: Bundle) -> Table:
    """Rows: the level in the mart; columns: the level given."""
    counts: Sequence[Sequence[int]] = at(b.figures, "triage", "table", default=[])
    if not counts:
        return Table(head=(), rows=())
    levels = [str(value) for value in at(b.figures, "triage", "levels", default=[])]
    if len(levels) != len(counts):
        levels = [str(position) for position in range(1, len(counts) + 1)]
    return Table(
        head=("Nurse's level", *(f"given {level}" for level in levels)),
        rows=tuple(
            (level, *(count(cell) for cell in row)) for level, row in zip(levels, counts, strict=True)
        ),
    )


def benefit(b: Bundle) -> Table:
    """The model beside treating all and none and every comparator that has a curve of its own."""
    curves = {
        comparator(name): at(row, "net_benefit", "curve", default=[])
        for name, row in b.comparators.items()
    }
    curves = {name: curve for name, curve in curves.items() if curve}
    own = at(b.figures, "net_benefit", "curve", default=[])
    last = len(own) - 1
    steps = sorted({round(step * last / (STEPS - 1)) for step in range(STEPS)}) if own else []
    return Table(
        head=("Net benefit at", "This model", "Treat all", "Treat none", *curves),
        rows=tuple(
            (
                percent(own[step]["threshold"]),
                *(number(own[step].get(name)) for name in ("model", "treat_all", "treat_none")),
                *(
                    number(curve[step].get("model") if step < len(curve) else None)
                    for curve in curves.values()
                ),
            )
            for step in steps
        ),
    )


def groups(b: Bundle) -> Table:
    head = (
        "Group",
        "",
        "Rows",
        "Events",
        "AUROC",
        "Slope",
        "Obs./exp.",
        "Brier",
        "Sensitivity",
        "Alerts/100",
    )
    found: list[tuple[Cell, ...]] = []
    last = None
    for row in b.groups:
        title = plain(row["group"]) if row["group"] != last else ""
        last = row["group"]
        if row["suppressed"]:
            found.append((title, plain(row["level"]), SMALLEST, *[""] * 7))
            continue
        found.append(
            (
                title,
                plain(row["level"]),
                count(row.get("n")),
                count(row.get("events")),
                interval(row.get("auroc")),
                number(row.get("slope"), 2),
                interval(measured(row, "oe", row.get("oe")), 2),
                number(row.get("brier")),
                percent(row.get("sensitivity")),
                number(row.get("alerts_per_100"), 1),
            )
        )
    return Table(head=head, rows=tuple(found), words=2)


def sites(b: Bundle) -> Table:
    """The largest; one of fewer than 20 rows is not told."""
    shown = [row for row in at(b.figures, "sites", "rows", default=[]) if (row.get("n") or 0) >= 20]
    return Table(
        head=("Site", "Rows", "Events", "AUROC", "Obs./exp."),
        rows=tuple(
            (
                str(row["site"]),
                count(row.get("n")),
                count(row.get("events")),
                number(row.get("auroc")),
                number(row.get("oe"), 2),
            )
            for row in shown[:MOST_SITES]
        ),
    )


def recalibration(b: Bundle) -> Table:
    """What was measured at each site that the version was recalibrated for."""
    return Table(
        head=("Site", "Rows", "Events", "Obs./exp. before", "Obs./exp. after"),
        rows=tuple(
            (
                site,
                count(found.get("n")),
                count(found.get("events")),
                number(at(found, "before", "oe"), 2),
                number(at(found, "after", "oe"), 2),
            )
            for site, found in (b.figures.get("recalibration") or {}).items()
        ),
    )


def ablations(b: Bundle) -> Table:
    found = b.figures.get("ablations") or {}
    whole = (
        "with all inputs",
        number(at(b.figures, "auroc", "value")),
        number(at(b.comparators, LOGISTIC, "auroc", "value")),
    )
    shown = [(name, number(row.get("auroc")), number(row.get(LOGISTIC))) for name, row in found.items()]
    return Table(
        head=("AUROC on the same test rows", "Model", "Logistic regression"),
        rows=tuple([whole, *shown] if shown else []),
        own=1,
    )


def sets(b: Bundle) -> Table:
    """A line for all test rows and for each group; the coverage overall and of each true class."""
    lines: dict[str, dict[Any, Mapping[str, Any]]] = {}
    for row in b.figures.get("conformal") or []:
        level = f"{plain(row['group'])}: {plain(row['level'])}" if row["group"] else "all test rows"
        lines.setdefault(level, {})[row.get("class")] = row
    classes = sorted({which for line in lines.values() for which in line if which is not None})
    return Table(
        head=(
            "",
            "Count",
            "Covered",
            *(f"covered, {_class(b, which)}" for which in classes),
            "Mean size",
            "More than one",
            "Empty",
        ),
        rows=tuple((level, *_covered(line, classes)) for level, line in lines.items()),
        own=1,
    )


def _covered(line: Mapping[Any, Mapping[str, Any]], classes: Sequence[int]) -> tuple[str, ...]:
    whole = line.get(None, {})
    if whole.get("coverage") is None:
        return (SMALLEST, *[""] * (len(classes) + 4))
    return (
        count(whole.get("n")),
        *(percent(at(line.get(which), "coverage")) for which in (None, *classes)),
        number(whole.get("size"), 2),
        percent(whole.get("ambiguous")),
        percent(whole.get("empty")),
    )


def _class(b: Bundle, value: int) -> str:
    return f"level {value}" if b.spec.triage else ("with outcome" if value else "without")
