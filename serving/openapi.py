"""The OpenAPI document, made from the contract: each field with its unit, range and label."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from data.contract import Column
from models.artifact import Artifact
from serving import openapi_standards
from serving.answers import OutcomesAnswer, PredictAnswer, Problem
from serving.schema import MOST_INSTANCES, MOST_OUTCOMES, OutcomeItem, PredictRequest

PROBLEMS = {
    400: "Not what the standard asks for",
    401: "No key or token, or one that is wrong, expired or revoked",
    403: "The caller may not do this, or not for that site",
    404: "No such model",
    406: "The caller takes no format, or no release of FHIR, that is spoken here",
    408: "The body came too slowly",
    409: "The Idempotency-Key was used with another body",
    412: "Data that the model needs were neither sent nor to be had",
    413: "Body too large, or too many instances",
    415: "Not application/json",
    422: "The body does not fit the contract; `errors` names field and rule",
    429: "Too many requests; Retry-After says when to come back",
    500: "Internal error; nothing was answered",
    503: "No version is released, or the prediction log cannot be written",
}
_GUARDED = (401, 403, 429, 500, 503)
"""Of every route that asks who calls."""
_READS = (408, 413, 415, 422)
"""Of every route that reads a body."""
_SCHEMAS = "#/components/schemas/"
_OWN = {
    "PredictRequest": "request",
    "Context": "context",
    "PredictAnswer": "answer",
    "Scored": "scored",
    "PredictionSet": "prediction_set",
}
"""Of these each model has its own, and how they are called behind its name."""
_KINDS = {"number": "number", "integer": "integer", "flag": "boolean"}
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, or a token by SMART Backend Services. On loopback, while no key exists,"
    " none is asked for",
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The same key and body are answered once; the key with another body is refused",
}


def instance_schema(artifact: Artifact) -> dict[str, Any]:
    """JSON Schema of one instance."""
    columns = artifact.mart.columns
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [column.name for column in columns if column.required],
        "properties": {column.name: _field(column) for column in columns},
    }


def document(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """OpenAPI 3.1 of every route, with one prediction path a model."""
    types = (PredictRequest, PredictAnswer, OutcomeItem, OutcomesAnswer, Problem)
    references, schemas = msgspec.json.schema_components(types, ref_template=_SCHEMAS + "{name}")
    _, _, outcome, outcomes, _ = references
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
    named = ({"required": ["prediction_id"]}, {"required": ["model", "encounter_id"]})
    schemas["OutcomeItem"]["anyOf"] = list(named)
    untyped = {name: schemas.pop(name) for name in _OWN}
    reports = {"type": "array", "maxItems": MOST_OUTCOMES, "items": outcome}
    paths: dict[str, Any] = {
        "/v1/models": {"get": _operation("The models served", problems=_GUARDED)},
        "/v1/outcomes": {
            "post": _operation(
                "Report what happened",
                reports,
                outcomes,
                problems=(*_GUARDED, *_READS),
            )
        },
        "/openapi.json": {"get": _operation("This document", problems=(429, 500)) | {"security": []}},
        "/metrics": {"get": _metrics()},
    }
    for artifact in artifacts:
        name, title = artifact.spec.name, artifact.spec.title.en
        schemas |= _model_schemas(artifact, untyped)
        paths[f"/v1/{name}"] = {
            "get": _operation(f"{name}: version, figures, schema, card", problems=_GUARDED)
        }
        request, answer = ({"$ref": f"{_SCHEMAS}{name}_{of}"} for of in ("request", "answer"))
        asked = _operation(title, request, answer, problems=(*_GUARDED, *_READS, 404, 409))
        paths[f"/v1/{name}/predict"] = {"post": {**asked, "parameters": [_IDEMPOTENCY]}}
    specs = [artifact.spec for artifact in artifacts]
    paths |= openapi_standards.paths(specs, PROBLEMS)
    schemas |= openapi_standards.SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {"title": "caremodels", "version": "1"},
        "paths": paths,
        "security": [{"bearer": []}],
        "components": {"schemas": schemas, "securitySchemes": {"bearer": _BEARER}},
    }


def _model_schemas(artifact: Artifact, untyped: Mapping[str, Any]) -> dict[str, Any]:
    """What this model is asked and what it answers; ``untyped`` is what all models have of it."""
    model, spec = artifact.spec.name, artifact.spec
    own = copy.deepcopy(dict(untyped))
    request, context, scored, conformal = (
        own[name]["properties"] for name in ("PredictRequest", "Context", "Scored", "PredictionSet")
    )
    request["instances"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_INSTANCES,
        "items": {"$ref": f"{_SCHEMAS}{model}_instance"},
        "description": "One object a patient",
    }
    request["units"]["anyOf"][0] |= {
        "propertyNames": {"enum": [column.name for column in artifact.mart.columns]}
    }
    if spec.lookback is None:
        del context["series_id"]
    else:
        rows = f"Rows of one series, {artifact.mart.order} rising. The last is scored, in the light of "
        rows += f"those in the {spec.lookback} h that it ends; of more than one, series_id says whose. "
        rows += "What is not hourly (age, sex) is read from the last row"
        request["instances"]["description"] = rows
        request["context"]["anyOf"][0] |= {"minItems": 1, "maxItems": 1}
    if spec.triage is None:
        del scored["level"], scored["probabilities"]
    else:
        levels = [level.value for level in spec.triage.levels]
        scored["level"]["enum"] = levels
        scored["probabilities"] |= {"minItems": len(levels), "maxItems": len(levels)}
        own["Scored"]["required"] += ["level", "probabilities"]
    conformal["set"]["items"]["enum"] = list(artifact.conformal.classes)
    named = {f"{_SCHEMAS}{name}": f"{_SCHEMAS}{model}_{of}" for name, of in _OWN.items()}
    schemas = {
        f"{model}_{_OWN[name]}": _pointed({**schema, "title": f"{model}_{_OWN[name]}"}, named)
        for name, schema in own.items()
    }
    return {f"{model}_instance": instance_schema(artifact), **schemas}


def _pointed(node: Any, named: Mapping[str, str]) -> Any:
    """``node`` with its references as ``named``."""
    if isinstance(node, dict):
        return {key: _pointed(value, named) for key, value in node.items()}
    if isinstance(node, list):
        return [_pointed(value, named) for value in node]
    return named.get(node, node) if isinstance(node, str) else node


def _operation(
    summary: str,
    body: dict[str, Any] | None = None,
    answer: dict[str, Any] | None = None,
    *,
    problems: Sequence[int],
) -> dict[str, Any]:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    answered = {"application/json": {"schema": answer or {"type": "object"}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Answered", "content": answered},
            **{
                str(status): {
                    "description": PROBLEMS[status],
                    "content": {"application/problem+json": problem},
                }
                for status in sorted(problems)
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _metrics() -> dict[str, Any]:
    shown = {"description": "Answered", "content": {"text/plain": {"schema": {"type": "string"}}}}
    guarded = _operation("Figures for Prometheus", problems=_GUARDED)
    return guarded | {"responses": guarded["responses"] | {"200": shown}}


def _field(column: Column) -> dict[str, Any]:
    kind = _KINDS.get(column.kind, "string")
    field: dict[str, Any] = {
        "type": kind if column.required else [kind, "null"],
        "title": column.label.en,
        "x-label-zh": column.label.zh,
    }
    if column.categories:
        ids: list[str | None] = [category.id for category in column.categories]
        field["enum"] = ids if column.required else [*ids, None]
    if column.low is not None and column.high is not None:
        field |= {"minimum": column.low, "maximum": column.high}
    if column.unit:
        field |= {"x-unit": column.unit, "description": f"in {column.unit} (UCUM)"}
    if column.loinc:
        field["x-loinc"] = column.loinc
    return field
