"""What the FHIR side of the service can do: CapabilityStatement and OperationDefinition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.spec import ModelSpec
from serving.fhir.outcome import MEDIA_TYPE
from serving.fhir.release import FULL, JSON

EVALUATE = "evaluate"
DATE = "2026-11-24"
"""When what is said here last changed."""


def capability(base: str, release: str, models: Sequence[ModelSpec]) -> dict[str, Any]:
    """The CapabilityStatement of the service at ``base``, which serves ``models``."""
    known = ", ".join(f"{spec.name} ({spec.title.en})" for spec in models) or "none now"
    return {
        "resourceType": "CapabilityStatement",
        "language": "en",
        "status": "active",
        "date": DATE,
        "kind": "instance",
        "software": {"name": "caremodels"},
        "implementation": {"description": "Clinical risk models", "url": f"{base}/fhir"},
        "fhirVersion": FULL[release],
        "format": [MEDIA_TYPE, JSON],
        "rest": [
            {
                "mode": "server",
                "documentation": f"Stateless: an assessment is made and recorded, and found again "
                f"by its identifier in the prediction log. Models: {known}.",
                "security": {
                    "description": "An API key or a SMART Backend Services token as Bearer; "
                    "system/RiskAssessment.c allows $evaluate."
                },
                "resource": [
                    {
                        "type": "RiskAssessment",
                        "operation": [{"name": EVALUATE, "definition": _definition(base)}],
                    }
                ],
            }
        ],
    }


def operation(base: str) -> dict[str, Any]:
    """The OperationDefinition of ``RiskAssessment/$evaluate``."""
    return {
        "resourceType": "OperationDefinition",
        "id": f"RiskAssessment-{EVALUATE}",
        "language": "en",
        "url": _definition(base),
        "name": "EvaluateRisk",
        "title": "Evaluate a risk",
        "status": "active",
        "kind": "operation",
        "date": DATE,
        "description": "The risk that a released model gives for one patient, from the record sent.",
        "affectsState": False,
        "code": EVALUATE,
        "resource": ["RiskAssessment"],
        "system": False,
        "type": True,
        "instance": False,
        "parameter": [
            _parameter("model", "string", "The model's name", least=1),
            _parameter("subject", "Reference", "Whom it is about; else the Patient in data"),
            _parameter("encounter", "Reference", "Which visit, where data hold several"),
            _parameter("at", "dateTime", "The moment as of which the record is read"),
            _parameter("site", "string", "Where the patient is, where data do not tell"),
            _parameter("data", "Resource", "The record: Bundles or resources", most="*"),
            _parameter("return", "RiskAssessment", "The assessment", use="out", least=1),
        ],
    }


def _definition(base: str) -> str:
    return f"{base}/fhir/OperationDefinition/RiskAssessment-{EVALUATE}"


def _parameter(
    name: str, kind: str, said: str, *, use: str = "in", least: int = 0, most: str = "1"
) -> dict[str, Any]:
    return {
        "name": name,
        "use": use,
        "min": least,
        "max": most,
        "documentation": said,
        "type": kind,
    }
