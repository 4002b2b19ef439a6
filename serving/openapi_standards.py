"""The routes whose shape a standard gives, as the OpenAPI document tells of them.

Their bodies are said in outline: the standards are their contract, and each is checked against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from models.spec import ModelSpec
from serving.cds.services import HOOKS

JSON, FHIR = "application/json", "application/fhir+json"
PROBLEM = "application/problem+json"
SCHEMAS = {
    "OperationOutcome": {
        "type": "object",
        "description": "FHIR: what is wrong, with the place of each fault",
        "required": ["resourceType", "issue"],
        "properties": {
            "resourceType": {"const": "OperationOutcome"},
            "issue": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "required": ["severity", "code"]},
            },
        },
    },
    "OAuthError": {
        "type": "object",
        "description": "RFC 6749, 5.2",
        "required": ["error"],
        "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
    },
}
_RESOURCE = {"type": "object", "required": ["resourceType"]}
_CARDS = {
    "type": "object",
    "required": ["cards"],
    "properties": {
        "cards": {
            "type": "array",
            "items": {"type": "object", "required": ["uuid", "summary", "indicator", "source"]},
        }
    },
}
_OPEN: tuple[int, ...] = (429, 500)
_GUARDED = (401, 403, 408, 413, 415, 422, *_OPEN, 503)
_FAULT = {
    FHIR: {"$ref": "#/components/schemas/OperationOutcome"},
    PROBLEM: {"$ref": "#/components/schemas/Problem"},
    JSON: {"$ref": "#/components/schemas/OAuthError"},
}


def paths(models: Iterable[ModelSpec], said: Mapping[int, str]) -> dict[str, Any]:
    """Path -> its operations. ``said``: what each status means."""

    def operation(
        summary: str,
        answer: Mapping[str, Any],
        *,
        statuses: Iterable[int],
        fault: str = PROBLEM,
        kinds: tuple[str, ...] = (JSON,),
        asked: Mapping[str, Mapping[str, Any]] | None = None,
        guarded: bool = False,
    ) -> dict[str, Any]:
        failed = {"content": {fault: {"schema": _FAULT[fault]}}}
        found: dict[str, Any] = {
            "summary": summary,
            "responses": {
                "200": {
                    "description": "Answered",
                    "content": {kind: {"schema": answer} for kind in kinds},
                },
                **{str(of): {"description": said[of], **failed} for of in sorted(statuses)},
            },
        }
        if asked is not None:
            content = {kind: {"schema": schema} for kind, schema in asked.items()}
            found["requestBody"] = {"required": True, "content": content}
        return found if guarded else found | {"security": []}

    plain: dict[str, Any] = {"type": "object"}
    discovered = plain | {"required": ["services"]}
    fhir = (FHIR, JSON)
    smart = operation("SMART: where tokens are had", plain, statuses=(*_OPEN, 503), fault=JSON)
    found: dict[str, Any] = {
        "/cds-services": {"get": operation("CDS Hooks: discovery", discovered, statuses=_OPEN)},
        "/fhir/metadata": {
            "get": operation(
                "FHIR: CapabilityStatement", _RESOURCE, statuses=(406, *_OPEN), fault=FHIR, kinds=fhir
            )
        },
        "/fhir/OperationDefinition/RiskAssessment-evaluate": {
            "get": operation(
                "FHIR: the operation", _RESOURCE, statuses=(406, *_OPEN), fault=FHIR, kinds=fhir
            )
        },
        "/fhir/RiskAssessment/$evaluate": {
            "post": operation(
                "FHIR: Parameters in, RiskAssessment out; the release by fhirVersion in Accept",
                _RESOURCE,
                statuses=(404, 406, *_GUARDED),
                fault=FHIR,
                kinds=fhir,
                asked=dict.fromkeys(fhir, _RESOURCE),
                guarded=True,
            )
        },
        "/.well-known/smart-configuration": {"get": smart},
        "/fhir/.well-known/smart-configuration": {"get": smart},
        "/auth/token": {
            "post": operation(
                "SMART Backend Services: a signed assertion for an access token",
                plain | {"required": ["access_token", "token_type", "expires_in", "scope"]},
                statuses=(400, 401, 408, *_OPEN, 503),
                fault=JSON,
                asked={"application/x-www-form-urlencoded": plain},
            )
        },
    }
    for spec in models:
        for hook in HOOKS:
            place = f"/cds-services/{spec.name}-{hook}"
            called = plain | {"required": ["hook", "hookInstance", "context"]}
            told = plain | {"required": ["feedback"]}
            found[place] = {
                "post": operation(
                    f"{spec.title.en}: cards for {hook}",
                    _CARDS,
                    statuses=(404, 412, *_GUARDED),
                    fault=FHIR,
                    asked={JSON: called},
                    guarded=True,
                )
            }
            found[f"{place}/feedback"] = {
                "post": operation(
                    f"{spec.title.en}: what became of a card",
                    plain,
                    statuses=(404, *_GUARDED),
                    asked={JSON: told},
                    guarded=True,
                )
            }
    return found
