"""How a version did on its test rows, in sentences; the tables of the page hold the same figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from training.documents.bundle import Bundle
from training.documents.words import (
    at,
    comparator,
    count,
    interval,
    listed,
    measured,
    number,
    percent,
    plain,
    share,
)

NOT_MEASURED = "Not measured in this version."


def validity(b: Bundle) -> str:
    """Discrimination, calibration and the alert, beside every comparator."""
    if b.figures.get("n") is None:
        return NOT_MEASURED
    figures = b.figures
    text = f"{count(figures['n'])} test rows with {count(figures.get('events'))} events. {_headline(b)}"
    return " ".join([text, compared(b), triage(b), utility(b)]).strip()


def _headline(b: Bundle) -> str:
    figures, calibration = b.figures, at(b.figures, "calibration", default={})
    told = [
        f"AUROC {interval(figures.get('auroc'))}",
        f"AUPRC {interval(figures.get('auprc'))}",
        f"Brier {number(figures.get('brier'))} (skill {number(figures.get('brier_skill'))})",
        f"calibration intercept {_with(figures, 'intercept', calibration.get('intercept'))}",
        f"slope {_with(figures, 'slope', calibration.get('slope'))}",
        f"observed over expected {_with(figures, 'oe', calibration.get('oe'))}",
        f"ICI {number(calibration.get('ici'))}",
    ]
    return f"{', '.join(told)}. {alert(b)}"


def _with(figures: Mapping[str, Any], metric: str, value: float | None) -> str:
    return interval(measured(figures, metric, value), 2)


def alert(b: Bundle) -> str:
    """What a ward sees that acts on the alert."""
    chosen = at(b.figures, "at_threshold", default={})
    if chosen.get("threshold") is None:
        return ""
    return (
        f"At a risk of {percent(chosen['threshold'])}: sensitivity {percent(chosen.get('sensitivity'))},"
        f" specificity {percent(chosen.get('specificity'))}, positive predictive value"
        f" {percent(chosen.get('ppv'))}, {number(chosen.get('alerts_per_100'), 1)} alerts per 100"
        f" patients, {number(chosen.get('nne'), 1)} alerts for one event."
    )


def compared(b: Bundle) -> str:
    """The AUROC of every comparator, and by how much the model's is higher on the same rows."""
    found = []
    for name, row in b.comparators.items():
        gain = at(row, "model_minus_this", "auroc")
        more = f", model minus this {interval(gain)}" if gain else ""
        found.append(f"{comparator(name)} {interval(row.get('auroc'))}{more}")
    return f"Beside it on the same rows, AUROC: {'; '.join(found)}." if found else ""


def triage(b: Bundle) -> str:
    found = b.figures.get("triage")
    if not found:
        return ""
    missed = at(found, "harm", "missed")
    text = (
        f"Quadratic kappa with the nurse's level {interval(found.get('kappa'))}"
        f" ({interval(found.get('kappa_best'))} at the cut-points best for it). Of the urgent,"
        f" {share(found.get('sensitivity_urgent'))} are given an urgent level; under-triage"
        f" {percent(found.get('under_triage'))}, over-triage {percent(found.get('over_triage'))}."
    )
    if missed:
        nurse = at(found, "harm", "nurse_missed")
        text += (
            f" Of those who came to harm {share(missed)} were given a less urgent level, by the"
            f" nurse {share(nurse)}."
        )
    return text


def utility(b: Bundle) -> str:
    found = b.figures.get("utility")
    if not found:
        return ""
    return (
        f"Utility by the definition of the PhysioNet challenge of 2019: {interval(found)} at a risk of"
        f" {percent(found.get('threshold'))} (0 is never to alarm, 1 the best that any rule could do)."
    )


def benefit(b: Bundle) -> str:
    """Where in the stated range of thresholds the model is of more use than treating all or none."""
    low, high = b.spec.benefit
    curve = at(b.figures, "net_benefit", "curve", default=[])
    if not curve:
        return (
            f"Net benefit for thresholds from {percent(low)} to {percent(high)}: {NOT_MEASURED.lower()}"
        )
    above = [row for row in curve if row["model"] > max(row["treat_all"], row["treat_none"])]
    return (
        f"For thresholds from {percent(low)} to {percent(high)} the net benefit is above that of"
        f" treating all and of treating none at {len(above)} of {len(curve)} thresholds."
    )


def fairness(b: Bundle) -> str:
    """The span of the figures over the levels of each attribute, and the groups not shown."""
    by_attribute: dict[str, list[Mapping[str, Any]]] = {}
    for row in b.groups:
        if not row["suppressed"]:
            by_attribute.setdefault(row["group"], []).append(row)
    found = [text for text in (_spans(name, rows) for name, rows in by_attribute.items()) if text]
    hidden = sum(row["suppressed"] for row in b.groups)
    if not found:
        return "No group of test rows is large enough to be judged."
    text = f"Span over groups of at least 20 people: {'; '.join(found)}."
    return f"{text} Not shown, as under 20 people: {hidden}." if hidden else text


def _spans(attribute: str, rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    auroc = _span([(row["level"], at(row, "auroc", "value")) for row in rows], 3)
    oe = _span([(row["level"], row.get("oe")) for row in rows], 2)
    told = [f"{title} {span}" for title, span in (("AUROC", auroc), ("observed/expected", oe)) if span]
    return f"{plain(attribute)}: {', '.join(told)}" if told else ""


def _span(values: Iterable[tuple[str, float | None]], digits: int) -> str:
    known = sorted(((value, level) for level, value in values if value is not None), key=lambda v: v[0])
    if not known:
        return ""
    (low, first), (high, last) = known[0], known[-1]
    if len(known) == 1:
        return f"{number(low, digits)} ({plain(first)})"
    return f"{number(low, digits)} ({plain(first)}) to {number(high, digits)} ({plain(last)})"


def sites(b: Bundle) -> str:
    found = b.figures.get("sites")
    if not found:
        return "There is nothing to compare."
    if not found.get("measured"):
        return "No site had enough events among the test rows to be measured alone."
    return (
        f"{count(found['measured'])} of {count(found.get('count'))} sites with at least 10 events and 20"
        f" people: AUROC {_median(found.get('auroc'), 3)}, observed over expected"
        f" {_median(found.get('oe'), 2)} (median, 10th to 90th percentile of sites)."
    )


def _median(row: Mapping[str, Any] | None, digits: int) -> str:
    return interval({**row, "value": row.get("median")}, digits) if row else "–"


def sets(b: Bundle) -> str:
    """Coverage of the prediction sets among all test rows."""
    text = f"Prediction sets made to hold the true class in {percent(b.spec.coverage)} of cases"
    overall = next(
        (
            row
            for row in b.figures.get("conformal") or []
            if not row["group"] and row.get("class") is None and row.get("coverage") is not None
        ),
        None,
    )
    if overall is None:
        return f"{text}: {NOT_MEASURED.lower()}"
    return (
        f"{text}: {percent(overall['coverage'])} of {count(overall['n'])} test rows,"
        f" {percent(overall.get('ambiguous'))} with more than one class and"
        f" {percent(overall.get('empty'))} with none. A set is no interval around the risk."
    )


def comparison_of_data(b: Bundle) -> str:
    """How the test rows differ from those learned from."""
    strange = b.figures.get("novelty")
    text = "Same mart, same criteria, same definition of outcome and inputs; other rows"
    text += ", later in time." if b.spec.split == "time" else "."
    if not strange:
        return text
    told = [
        f"{percent(strange.get(key))} stranger than {share} of the training rows (expected {expected})"
        for key, share, expected in (
            ("above_95", "95%", "5.0%"),
            ("above_99", "99%", "1.0%"),
            ("above_999", "99.9%", "0.1%"),
        )
        if strange.get(key) is not None
    ]
    return f"{text} Of the test rows' inputs, {listed(told)}."


def known_risks(b: Bundle) -> str:
    """Limits that the figures show by themselves."""
    found = []
    if b.demonstration:
        found.append("Demonstration, not for care: the terms of its data forbid it.")
    hidden = [row for row in b.groups if row["suppressed"]]
    few = [
        f"{plain(row['group'])} {plain(row['level'])}"
        for row in b.groups
        if not row["suppressed"] and (row.get("events") or 0) < b.spec.limits.subgroup_events
    ]
    if few:
        found.append(
            f"Fewer than {b.spec.limits.subgroup_events} events, so that its figures say little:"
            f" {', '.join(few)}."
        )
    if hidden:
        found.append(f"Groups of under 20 people, not judged at all: {len(hidden)}.")
    if at(b.figures, "sites", "measured"):
        found.append(f"Sites differ: {sites(b)}")
    found.append(
        "Not measured on rows of another source; a new site needs its own look and recalibration."
    )
    return " ".join(found)


def known_biases(b: Bundle) -> str:
    return (
        f"{judged(b)} The outcome is what was done for patients so far, or befell them, not what ought"
        " to have been: what the model learned from practice, unfair practice included, it repeats."
    )


def judged(b: Bundle) -> str:
    hidden = sum(row["suppressed"] for row in b.groups)
    shown = len(b.groups) - hidden
    if not shown:
        return "No group of test rows is large enough to be judged."
    text = (
        f"{count(shown)} groups are judged apart: where their figures differ, so does its use to them."
    )
    return f"{text} Not judged, as under 20 people: {count(hidden)}." if hidden else text


def bias_management(b: Bundle) -> str:
    compared = [plain(name) for name in b.spec.subgroups]
    return (
        f"Figures by {listed(compared) or 'no attribute'}, with counts and intervals, none under 20"
        f" people; in every group with at least {b.spec.limits.subgroup_events} events the gate holds"
        f" the AUROC to at least {b.spec.limits.subgroup_auroc:g} and observed over expected to"
        f" {b.spec.limits.subgroup_oe[0]:g} to {b.spec.limits.subgroup_oe[1]:g}."
    )
