"""The Applied Model Card of the Coalition for Health AI, v0.2, as XML.

Source: https://mc.chai.org/v0.2/schema.xsd (elements, their order, which may be left out) and the
values of its published examples (``ValueJson``: one estimate with its interval, or one value).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from training.documents.bundle import Bundle
from training.documents.field import Field
from training.documents.words import at, comparator, measured, plain

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold at all, not even escaped."""

Result = tuple[str, Mapping[str, Any]]
Element = tuple[str, Any]
"""A name, and what it holds: other elements, or the id of a field. "?" after it: left out while nobody
wrote it; "*" before it: a list of elements of one kind."""

_METRIC = ("TestType", "test_type"), ("TestingDataDescription", "testing_data")


def _metric(name: str, goal: str, results: str, meaning: str) -> Element:
    return (
        name,
        (
            ("MetricGoal", goal),
            ("Results", f"*{results}"),
            ("Interpretation", meaning),
            *_METRIC,
            ("ValidationProcessAndJustification", "validation_process"),
        ),
    )


CARD: tuple[Element, ...] = (
    (
        "BasicInfo",
        (("ModelName", "name"), ("ModelDeveloper", "developer"), ("DeveloperContact", "contact")),
    ),
    (
        "ReleaseInfo",
        (
            ("ReleaseStage", "stage"),
            ("ReleaseDate", "release_date"),
            ("ReleaseVersion", "version"),
            ("GlobalAvailability", "availability"),
            ("EHRCompatibility", "*ehr"),
            ("RegulatoryApproval", "regulatory_approval?"),
        ),
    ),
    ("ModelSummary", (("Summary", "summary"), ("Keywords", "*keywords"))),
    (
        "UsesAndDirections",
        (
            ("IntendedUseAndWorkflow", "intended_use"),
            ("PrimaryIntendedUsers", "intended_users"),
            ("HowToUse", "how_to_use"),
            ("TargetedPatientPopulation", "intended_population"),
            ("CautionedOutOfScopeSettings", "out_of_scope"),
        ),
    ),
    (
        "Warnings",
        (
            ("KnownRisksAndLimitations", "known_risks"),
            ("KnownBiasesOrEthicalConsiderations", "known_biases"),
            ("ClinicalRiskLevel", "clinical_risk"),
        ),
    ),
    (
        "TrustIngredients",
        (
            (
                "AISystemFacts",
                (
                    ("OutcomesAndOutputs", "outcome"),
                    ("ModelType", "model_type"),
                    ("InputDataSource", "source"),
                    ("OutputAndInputDataTypes", "input_types"),
                    ("DevelopmentDataCharacterization", "development_groups"),
                    ("BiasMitigationApproaches", "bias_management"),
                    ("OngoingMaintenance", "monitoring"),
                    ("Security", "security?"),
                    ("Transparency", "transparency"),
                ),
            ),
            (
                "TransparencyInformation",
                (
                    ("FundingSource", "funding"),
                    ("ThirdPartyInformation", "third_party"),
                    ("StakeholdersConsulted", "stakeholders"),
                ),
            ),
        ),
    ),
    (
        "KeyMetrics",
        (
            _metric("UsefulnessUsabilityEfficacy", "usefulness_goal", "usefulness", "interpretation"),
            _metric("FairnessEquity", "fairness_goal", "fairness", "interpretation_fairness"),
            _metric("SafetyReliability", "safety_goal", "safety", "interpretation_safety"),
        ),
    ),
    (
        "Resources",
        (
            ("EvaluationReferences", "evaluation_references?"),
            ("ClinicalTrial", "clinical_trial?"),
            ("PeerReviewedPublications", "publications"),
            ("ReimbursementStatus", "reimbursement?"),
            ("PatientConsentOrDisclosure", "consent"),
        ),
    ),
    ("Bibliography", "bibliography"),
)
"""No foundation model is among them: ``FoundationModels`` is left out."""


def xml(b: Bundle, fields: Mapping[str, Field]) -> bytes:
    """The card, in UTF-8."""
    root = ET.Element(_name("AppliedModelCard"))
    for element in CARD:
        _add(root, element, b, fields)
    ET.indent(root)
    # Written with the namespace as the default one, so that no element carries a prefix.
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True, default_namespace=NAMESPACE)
    return text + b"\n"


def _name(element: str) -> str:
    return f"{{{NAMESPACE}}}{element}"


def _add(parent: ET.Element, element: Element, b: Bundle, fields: Mapping[str, Field]) -> None:
    name, holds = element
    if isinstance(holds, tuple):
        nested = ET.SubElement(parent, _name(name))
        for inner in holds:
            _add(nested, inner, b, fields)
    elif holds.startswith("*"):
        _add_list(parent, name, holds[1:], b, fields)
    else:
        field = fields[holds.removesuffix("?")]
        if field.value is not None or not holds.endswith("?"):
            _text(parent, name, field.text)


def _add_list(parent: ET.Element, name: str, asked: str, b: Bundle, fields: Mapping[str, Field]) -> None:
    """What holds several elements of one kind."""
    match asked:
        case "ehr":
            lines = [line.strip() for line in (fields["ehr"].value or "").splitlines() if line.strip()]
            if lines:
                nested = ET.SubElement(parent, _name(name))
                for line in lines:
                    _text(nested, "EHR", line)
        case "keywords":
            nested = ET.SubElement(parent, _name(name))
            for word in fields["keywords"].text.split("; "):
                _text(nested, "Keyword", word)
        case _:
            nested = ET.SubElement(parent, _name(name))
            for label, value in RESULTS[asked](b):
                result = ET.SubElement(nested, _name("MetricResult"))
                _text(result, "Label", label)
                _text(result, "ValueJson", msgspec.json.encode(value).decode())


def _text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, _name(name)).text = _ILLEGAL.sub("\ufffd", text)


def _value(row: Mapping[str, Any] | None, unit: str | None = None) -> dict[str, Any]:
    """A figure as the published examples write it; null where it is not defined."""
    row = row or {}
    more = {} if unit is None else {"unit": unit}
    if row.get("value") is None or row.get("low") is None or row.get("high") is None:
        return {"kind": "single", "value": row.get("value"), **more}
    return {
        "kind": "estimate_ci",
        "estimate": row["value"],
        "lower": row["low"],
        "upper": row["high"],
        "level": 95,
        **more,
    }


ALERT = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "alerts_per_100": "alerts per 100 patients",
    "net_benefit": "net benefit",
}


def _usefulness(b: Bundle) -> Iterator[Result]:
    yield "AUROC", _value(b.figures.get("auroc"))
    yield "AUPRC", _value(b.figures.get("auprc"))
    chosen = at(b.figures, "at_threshold", default={})
    for name, title in ALERT.items():
        if chosen.get(name) is not None:
            yield f"{title} at the alert", _value(measured(b.figures, name, chosen[name]))
    for name, row in b.comparators.items():
        yield f"AUROC of {comparator(name)}", _value(row.get("auroc"))
        gain = at(row, "model_minus_this", "auroc")
        if gain:
            yield f"AUROC, model minus {comparator(name)}", _value(gain)
    for title, path in (
        ("quadratic kappa", ("triage", "kappa")),
        ("sensitivity for urgent levels", ("triage", "sensitivity_urgent")),
        ("utility", ("utility",)),
    ):
        found = at(b.figures, *path)
        if found:
            yield title, _value(found)


def _fairness(b: Bundle) -> Iterator[Result]:
    shown = [row for row in b.groups if not row["suppressed"]]
    yield "groups of at least 20 people", {"kind": "single", "value": len(shown)}
    yield "groups not shown, under 20 people", {"kind": "single", "value": len(b.groups) - len(shown)}
    for row in shown:
        label = f"{plain(row['group'])} {plain(row['level'])}"
        yield f"AUROC, {label}", _value(row.get("auroc"))
        yield f"observed over expected, {label}", {"kind": "single", "value": row.get("oe")}


def _safety(b: Bundle) -> Iterator[Result]:
    calibration = at(b.figures, "calibration", default={})
    for name, title in (
        ("intercept", "calibration intercept"),
        ("slope", "calibration slope"),
        ("oe", "observed over expected"),
        ("ici", "ICI"),
    ):
        yield title, _value(measured(b.figures, name, calibration.get(name)))
    yield "Brier score", _value(measured(b.figures, "brier", b.figures.get("brier")))
    missed = at(b.figures, "triage", "harm", "missed")
    if missed:
        yield "share of harmed given a less urgent level", _value(missed)


RESULTS = {"usefulness": _usefulness, "fairness": _fairness, "safety": _safety}
