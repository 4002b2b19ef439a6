"""Typed requests. What a body may hold is said here and in the contract, nowhere else."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from data.errors import ContractError, FieldError, TooLargeError

LARGEST_BODY = 2 * 1024 * 1024
MOST_INSTANCES = 1000
MOST_OUTCOMES = 10_000
T = TypeVar("T")

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Moment = Annotated[datetime, Meta(tz=True)]


class Context(Struct, forbid_unknown_fields=True, frozen=True):
    """Who and where; never scored. Identifiers are kept as keyed hashes only."""

    patient_id: Name | None = None
    encounter_id: Name | None = None
    site: Name | None = None
    at: Moment | None = None
    groups: dict[Name, Name] = {}


class PredictRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """``instances``: one object a patient, held to the contract one by one."""

    instances: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    context: list[Context] | None = None
    units: dict[str, str] = {}
    top: Annotated[int, Meta(ge=0, le=1000)] | None = None


class OutcomeItem(Struct, forbid_unknown_fields=True, frozen=True):
    """What happened to a patient: by prediction, or by model and encounter."""

    outcome: Annotated[int, Meta(ge=0, le=1)]
    observed_at: Moment
    prediction_id: Name | None = None
    model: Name | None = None
    encounter_id: Name | None = None


def read(body: bytes, kind: type[T]) -> T:
    """Decode JSON into ``kind``. Raises ContractError naming the field and the rule, never a value."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        rule, _, path = str(error).partition(" - at ")
        field = re.sub(r"^`\$\.?|`$", "", path) or "body"
        unknown = re.fullmatch(r"Object contains unknown field `(.+)`", rule)
        if unknown:
            field, rule = f"{field}.{unknown[1]}".removeprefix("body."), "unknown field"
        raise ContractError(
            "the request does not fit its schema", errors=(FieldError(field=field, reason=rule),)
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError(
            "the request is not JSON", errors=(FieldError(field="body", reason="not valid JSON"),)
        ) from None


def read_predict(body: bytes) -> PredictRequest:
    """A prediction request. Raises ContractError or TooLargeError."""
    request = read(body, PredictRequest)
    if len(request.instances) > MOST_INSTANCES:
        raise TooLargeError(f"more than {MOST_INSTANCES} instances")
    if request.context is not None and len(request.context) != len(request.instances):
        raise ContractError(
            "context and instances differ in length",
            errors=(FieldError(field="context", reason="one entry an instance, in their order"),),
        )
    return request


def read_outcomes(body: bytes) -> list[OutcomeItem]:
    """Outcomes. Raises ContractError or TooLargeError."""
    items = read(body, list[OutcomeItem])
    if len(items) > MOST_OUTCOMES:
        raise TooLargeError(f"more than {MOST_OUTCOMES} outcomes")
    errors = tuple(
        FieldError(field=f"[{position}]", reason="prediction_id, or model and encounter_id, is required")
        for position, item in enumerate(items)
        if item.prediction_id is None and (item.model is None or item.encounter_id is None)
    )
    if errors:
        raise ContractError("an outcome names no prediction", errors=errors)
    return items
