"""Which rows a version is about, in sentences: where from, who is in, and who is counted in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from models.reference import Binned
from training.documents.bundle import Bundle
from training.documents.facts import labels
from training.documents.words import count, percent, plain, sentence

SMALLEST = "fewer than 20 people: not shown"
UNCOUNTED = "No attribute is recorded by which the rows could be counted."
PARTS = {"train": "training", "validate": "tuning", "test": "test"}

# What the rule asks of each version, and the words by which a column's name or label gives it away.
PERSONAL: dict[str, frozenset[str]] = {
    "race": frozenset({"race", "racial"}),
    "ethnicity": frozenset({"ethnicity", "ethnic", "nationality"}),
    "language": frozenset({"language", "interpreter"}),
    "sexual orientation": frozenset({"orientation"}),
    "gender identity": frozenset({"gender"}),
    "sex": frozenset({"sex"}),
    "date of birth": frozenset({"birth", "birthdate", "dob", "age"}),
    "social determinants of health": frozenset(
        {
            *("payer", "insurance", "region", "income", "education", "housing", "homeless", "nursing"),
            *("employment", "occupation", "marital", "postcode", "deprivation", "poverty"),
        }
    ),
}
HEALTH = ("triage", "history", "hourly", "discharge")
"""When what is known by then tells of somebody's health."""


def cohort(b: Bundle) -> str:
    """Inclusion and exclusion, with the criteria that a request is asked too."""
    reasons = "; ".join([*(criterion.reason.en for criterion in b.spec.cohort), "outcome not known"])
    text = (
        f"One row is one {b.mart.row.en[0].lower()}{b.mart.row.en[1:]}. Left out, in order: {reasons}."
    )
    asked = "; ".join(criterion.reason.en for criterion in b.spec.at_request(b.mart))
    return f"{text} Asked of every request too: {asked}." if asked else text


def flow(b: Bundle) -> list[tuple[str, int]]:
    """Step -> rows, of all parts together."""
    if b.provenance.flow:
        return list(b.provenance.flow)
    return [(row["step"], row["rows"]) for row in b.figures.get("flow") or []]


def flow_text(b: Bundle) -> str:
    steps = "; ".join(f"{step} {count(rows)}" for step, rows in flow(b))
    n, events = b.figures.get("n"), b.figures.get("events")
    test = f" Test rows {count(n)}, with the outcome {count(events)}." if n is not None else ""
    return f"{steps}.{test}" if steps else test.strip() or "Not counted."


def source(b: Bundle) -> str:
    found = [sentence(text) for text in b.provenance.attribution] or ["The hospital's own mart."]
    found += [sentence(f"Terms: {text}") for text in b.provenance.terms]
    if b.demonstration:
        found.append("The terms forbid use in care.")
    return " ".join(found)


def dates(b: Bundle) -> str:
    """The three stretches of time, or how patients were divided where rows have no dates."""
    periods = b.provenance.periods
    if not periods:
        return "Without dates: the parts are told apart by patient."
    found = [f"{PARTS.get(part, part)} {first} to {last}" for part, (first, last) in periods.items()]
    as_of = f" Learned from what was known before {b.provenance.as_of}." if b.provenance.as_of else ""
    return f"Rows: {'; '.join(found)}.{as_of}"


def partition(b: Bundle) -> str:
    how = {
        "time": "By time; a later row of somebody who stands in an earlier part is left out.",
        "first_encounter": "By patient, in the order of first encounters: the first 70% teach, the next"
        " 10% tune, the last 20% test.",
        "patient_hash": "By a hash of the patient's identifier: 70% teach, 10% tune, 20% test.",
    }[b.spec.split]
    return f"{how} {apart(b)} {sizes(b)}"


def apart(b: Bundle) -> str:
    """Whether anybody may stand in two parts: it cannot be told where rows name nobody."""
    if b.patients is None:
        return "The rows name no patients, so that somebody may stand in two parts."
    return "Nobody stands in two parts."


def sizes(b: Bundle) -> str:
    """Rows of each part and events of the test rows."""
    found = [f"{PARTS.get(part, part)} {count(rows)}" for part, rows in b.provenance.rows.items()]
    rows = f"Rows: {'; '.join(found)}. " if found else ""
    n, events = b.figures.get("n"), b.figures.get("events")
    people = f" of {count(b.patients)} patients" if b.patients is not None else ""
    return f"{rows}Evaluated on {count(n)} rows{people} with {count(events)} events."


def centres(b: Bundle) -> str:
    sites = b.figures.get("sites") or {}
    known = len(b.calibration.sites)
    text = f"{count(sites['count'])} sites among the test rows." if sites.get("count") else "One site."
    return f"{text} {count(known)} sites have an intercept of their own." if known else text


def preparation(b: Bundle) -> str:
    ranged = sum(column.low is not None for column in b.mart.columns)
    return (
        "Each row is held to the mart's contract before it is stored, and each request to the same one:"
        f" type, allowed categories, plausible range ({count(ranged)} columns), required fields. A row"
        " that breaks a rule is refused whole, counted by reason, and never mended. The same for every"
        " group of patients."
    )


def missing(b: Bundle) -> str:
    """How often inputs are missing, the most often first, and what is done about it."""
    shares = {name: b.missing(name) for name in b.inputs}
    known = {name: share for name, share in shares.items() if share is not None}
    most = sorted(known, key=lambda name: -known[name])[:8]
    text = "Missing values stay missing; no row is left out for a missing input."
    often = [f"{labels(b, [name])} {percent(known[name])}" for name in most if known[name]]
    return f"{text} Most often missing at training: {', '.join(often)}." if often else text


def personal_inputs(b: Bundle) -> str:
    """Whether each attribute that the rule names is an input, told from columns and their roles."""
    found, told = [], set()
    for title, words in PERSONAL.items():
        used = [name for name in b.inputs if _words(name, labels(b, [name])) & words]
        told |= set(used)
        compared = [name for name in b.spec.subgroups if _words(name) & words and name not in used]
        if used:
            how = labels(b, used)
            found.append(f"{title}: {'only as age' if used == ['age'] else f'yes ({how})'}")
        else:
            found.append(f"{title}: no{', recorded only to compare groups' if compared else ''}")
    health = [name for name in b.inputs if b.mart[name].available in HEALTH and name not in told]
    yes = f"yes ({count(len(health))} inputs: {labels(b, health)})" if health else "no"
    return "; ".join([*found, f"health status: {yes}"]) + "."


def _words(*texts: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", " ".join(texts).lower()))


def development_groups(b: Bundle) -> str:
    """Training rows by group where the attribute is an input, test rows for the others."""
    learned = [binned for binned in b.learned if binned.column in b.spec.subgroups]
    found = []
    for binned in learned:
        title = binned.label.en.lower()
        cells = [(name, n) for name, n in zip(binned.labels, binned.counts, strict=True) if n]
        if cells and not binned.edges:
            found.append(_shares(title, cells, sum(binned.counts)))
        elif cells:
            found.append(f"{title}: {_quarters(binned)}")
    rest = _tested(b, {binned.column for binned in learned})
    text = f"Training rows: {'; '.join(found)}. " if found else ""
    return f"{text}{rest}".strip() or UNCOUNTED


def _quarters(binned: Binned) -> str:
    """Where about a quarter, half and three quarters of a number's known values lie below."""
    known = np.cumsum(binned.counts[:-1])
    below = known[:-1] / known[-1]
    told = {
        part: binned.edges[int(np.argmin(np.abs(below - share)))]
        for part, share in (("a quarter", 0.25), ("half", 0.5), ("three quarters", 0.75))
    }
    return ", ".join(f"{part} under {edge:g}" for part, edge in told.items())


def _tested(b: Bundle, without: Collection[str]) -> str:
    """A group under 20 people is named without its count."""
    by_attribute: dict[str, list[Mapping[str, Any]]] = {}
    for row in b.groups:
        if row["group"] not in without:
            by_attribute.setdefault(row["group"], []).append(row)
    found = [
        _shares(
            plain(attribute),
            [(plain(row["level"]), None if row["suppressed"] else row["n"]) for row in rows],
            b.figures.get("n"),
        )
        for attribute, rows in by_attribute.items()
    ]
    return f"Test rows: {'; '.join(found)}." if found else ""


def tested_groups(b: Bundle) -> str:
    """Test rows by group."""
    return _tested(b, ()) or UNCOUNTED


def _shares(title: str, cells: Iterable[tuple[str, int | None]], total: int | None) -> str:
    shown = [
        f"{level} {SMALLEST if rows is None else f'{count(rows)} ({percent(rows / total)})'}"
        if total
        else level
        for level, rows in cells
    ]
    return f"{title}: {', '.join(shown)}"


def relevance(b: Bundle) -> str:
    period = b.provenance.periods.get("train")
    when = f", {period[0]} to {period[1]}" if period else ""
    known = "; ".join(text.rstrip(".") for text in b.provenance.attribution) or "the hospital's own mart"
    return (
        f"Learned from: {known}{when}. How like its own patients that is each hospital must judge; the"
        " figures by site and by group say how much they differ."
    )


def external_source(b: Bundle) -> str:
    periods = b.provenance.periods.get("test")
    when = f" of {periods[0]} to {periods[1]}" if periods else ""
    return (
        f"Only that of the training rows: the test rows{when} are other rows of the same source."
        f" {source(b)}"
    )


def external_groups(b: Bundle) -> str:
    return f"No rows of another source. {tested_groups(b)}"


def testing_data(b: Bundle) -> str:
    return f"{source(b)} {dates(b)} {sizes(b)}"
