"""The 31 source attributes of a predictive decision support intervention, in the rule's order.

Source: Health Data, Technology, and Interoperability rule (HTI-1), 45 CFR 170.315(b)(11)(iv)(B). The
numbers and the short titles are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.documents.field import Field


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One source attribute, answered by the field ``asks`` names, and by a second where there is one."""

    number: int
    part: str
    title: str
    asks: tuple[str, ...]


_PARTS: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = (
    (
        "Details and output",
        (
            ("Developer and contact", ("developer", "contact")),
            ("Funding of the technical implementation", ("funding",)),
            ("Value that the output produces", ("output_value",)),
            ("Type of output", ("output_type",)),
        ),
    ),
    (
        "Purpose",
        (
            ("Intended use", ("intended_use",)),
            ("Intended population", ("intended_population",)),
            ("Intended users", ("intended_users",)),
            ("Role in the decision", ("decision_role",)),
        ),
    ),
    (
        "Cautioned use",
        (
            ("Tasks, situations and populations to avoid", ("out_of_scope",)),
            ("Known risks, inappropriate settings and limitations", ("known_risks",)),
        ),
    ),
    (
        "Development",
        (
            ("Inclusion and exclusion criteria of the data", ("cohort",)),
            ("Personal attributes used as inputs", ("personal_inputs",)),
            ("Demographic representativeness of the data", ("development_groups",)),
            ("Relevance of the data to the setting", ("relevance",)),
        ),
    ),
    (
        "Fairness of development",
        (
            ("Approach to make the output fair", ("fairness_approach",)),
            ("Approach to manage, reduce or remove bias", ("bias_management",)),
        ),
    ),
    (
        "External validation",
        (
            ("Source of the data", ("external_source",)),
            ("Who tested", ("external_testers",)),
            ("Demographic representativeness of the data", ("external_groups",)),
            ("Process of validation", ("validation_process",)),
        ),
    ),
    (
        "Quantitative measures",
        (
            ("Validity in data of the same source", ("validity",)),
            ("Fairness in data of the same source", ("fairness",)),
            ("Validity in data of an external source", ("external_validity",)),
            ("Fairness in data of an external source", ("external_fairness",)),
            ("References on the effect on outcomes", ("outcome_references",)),
        ),
    ),
    (
        "Maintenance",
        (
            ("Process and frequency of monitoring validity", ("monitoring",)),
            ("Validity in local data", ("local_validity",)),
            ("Process and frequency of monitoring fairness", ("monitoring_fairness",)),
            ("Fairness in local data", ("local_fairness",)),
        ),
    ),
    (
        "Update",
        (
            ("Process and frequency of updating", ("updating",)),
            ("Frequency of correcting when risks are found", ("correction",)),
        ),
    ),
)
ATTRIBUTES: tuple[Attribute, ...] = tuple(
    Attribute(number=number, part=part, title=title, asks=asks)
    for number, (part, title, asks) in enumerate(
        ((part, title, asks) for part, entries in _PARTS for title, asks in entries), start=1
    )
)


def answered(fields: Mapping[str, Field]) -> list[tuple[Attribute, Field]]:
    """Each attribute with the field that answers it."""
    return [(attribute, _one([fields[name] for name in attribute.asks])) for attribute in ATTRIBUTES]


def attributes(fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    """The same as JSON: number, part, title, source, value, who and section of the page."""
    return [
        {
            "number": attribute.number,
            "part": attribute.part,
            "title": attribute.title,
            "source": field.source,
            "value": field.value,
            "who": field.who,
            "state": field.state,
            "anchor": field.anchor,
        }
        for attribute, field in answered(fields)
    ]


def _one(fields: list[Field]) -> Field:
    """Several fields as one: nothing while nothing is written, else each text, and what is missing."""
    first = fields[0]
    if len(fields) == 1 or all(field.value is None for field in fields):
        return first
    return Field(
        id=first.id,
        title=first.title,
        source=first.source,
        value="; ".join(f"{field.title}: {field.text}" for field in fields),
        who=first.who,
        anchor=first.anchor,
    )
