"""Typed requests. What a body may hold is said here and in the contract, nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from data.errors import ContractError, FieldError, TooLargeError

LARGEST_BODY = 2 * 1024 * 1024
MOST_INSTANCES = 1000
MOST_OUTCOMES = 10_000
LONGEST_NAME = 64
"""Of a field that nobody declared: an answer does not send a body back to its sender."""

INSTANCE = "instance"
"""What a fault is said to be of that concerns no single field."""
SERIES_ID = "context[0].series_id"
Instance = dict[str, Any]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Moment = Annotated[datetime, Meta(tz=True)]
T = TypeVar("T")


class Context(Struct, forbid_unknown_fields=True, frozen=True):
    """Who, where and when. Identifiers are kept as keyed hashes only; of all this a model reads the
    ``site``, where its calibration knows that one. ``series_id``: the series whose rows are sent.
    """

    patient_id: Name | None = None
    encounter_id: Name | None = None
    series_id: Name | None = None
    site: Name | None = None
    at: Moment | None = None
    groups: dict[Name, Name | None] | None = None

    def __post_init__(self) -> None:
        _hold(self.at)


class PredictRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """``instances``: one object a patient, or a row of the one series; see :func:`read_instance`."""

    instances: Annotated[list[Raw], Meta(min_length=1)]
    context: list[Context] | None = None
    units: dict[str, str] | None = None
    top: Annotated[int, Meta(ge=0, le=1000)] | None = None


class OutcomeItem(Struct, forbid_unknown_fields=True, frozen=True):
    """What happened to a patient: by prediction, or by model and encounter.

    ``level``: of a model of levels, the one that turned out to be right.
    """

    outcome: Annotated[int, Meta(ge=0, le=1)]
    observed_at: Moment
    level: Annotated[int, Meta(ge=1, le=99)] | None = None
    prediction_id: Name | None = None
    model: Name | None = None
    encounter_id: Name | None = None

    def __post_init__(self) -> None:
        _hold(self.observed_at)


def read_predict(body: bytes, *, series: bool = False) -> PredictRequest:
    """A prediction request, of a model of a ``series`` or not. Raises ContractError or TooLargeError."""
    request = read(body, _predict.decode)
    if len(request.instances) > MOST_INSTANCES:
        fault = FieldError(field="instances", reason=f"at most {MOST_INSTANCES}")
        raise TooLargeError(f"more than {MOST_INSTANCES} instances", errors=(fault,))
    _hold_context(request.context, len(request.instances), series=series)
    return request


def _hold_context(context: list[Context] | None, instances: int, *, series: bool) -> None:
    """One context an instance; of a series one, which names it: else patients could be mixed up."""
    if context is not None and len(context) != (1 if series else instances):
        wanted = "one entry, for the whole series" if series else "one entry an instance, in their order"
        raise _refused("context and instances differ in length", "context", wanted)
    named = [entry.series_id is not None for entry in context or ()]
    if series and instances > 1 and not any(named):
        raise _refused("the rows may be of several", SERIES_ID, "required: the rows are of one series")
    if not series and any(named):
        place = SERIES_ID.replace("0", str(named.index(True)))
        raise _refused("the model is of no series", place, "the model takes no series")


def read_instance(raw: Raw) -> Instance | FieldError:
    """One instance, or what is wrong with it. Its fields are the contract's to judge."""
    try:
        return _instance.decode(raw)
    except msgspec.ValidationError as error:
        reason = "not an object" if " - at " not in str(error) else "a number too large for any use"
    except (ValueError, RecursionError):
        reason = "not valid JSON"
    return FieldError(field=INSTANCE, reason=reason)


def read_outcomes(body: bytes) -> list[OutcomeItem]:
    """Outcomes. Raises ContractError or TooLargeError."""
    items = read(body, _outcomes.decode)
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


def named(field: str) -> str:
    """A name that the caller chose, short enough to be said back."""
    return field if len(field) <= LONGEST_NAME else field[: LONGEST_NAME - 1] + "…"


_UNKNOWN = r"Object contains unknown field `(.*?)`(?: - at `\$\.?([^`]*)`)?"
_LACKING = r"Object missing required field `(.*?)`"
_predict = msgspec.json.Decoder(PredictRequest)
_instance = msgspec.json.Decoder(Instance)
_outcomes = msgspec.json.Decoder(list[OutcomeItem])


def read(body: bytes, decode: Callable[[bytes], T]) -> T:
    """Decode JSON. Raises ContractError naming the field and the rule, never a value."""
    try:
        typed = decode(body)
        _hold_names_apart(body)
    except msgspec.ValidationError as error:
        raise _refused("the request does not fit its schema", *_field_and_rule(str(error))) from None
    except (ValueError, RecursionError):
        raise _refused("the request is not JSON", "body", "not valid JSON") from None
    return typed


def _field_and_rule(said: str) -> tuple[str, str]:
    """What msgspec says, taken apart. It names places and types; of the body only unknown fields."""
    unknown = re.fullmatch(_UNKNOWN, said, re.DOTALL)
    if unknown:
        name, place = named(unknown[1]), unknown[2]
        return f"{place}.{name}" if place else name, "unknown field"
    rule, _, place = said.partition(" - at ")
    if lacking := re.fullmatch(_LACKING, rule):
        within = re.sub(r"^`\$\.?|`$", "", place)
        return f"{within}.{lacking[1]}" if within else lacking[1], "required"
    return re.sub(r"^(`key` in )?`\$\.?|`$", "", place) or "body", rule


def _hold_names_apart(body: bytes) -> None:
    """Refuse an object that names a field twice: parsers differ in which of the two they take."""

    def apart(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > 1 and len({name for name, _ in pairs}) != len(pairs):
            names = sorted(name for name, _ in pairs)
            twice = next(a for a, b in pairwise(names) if a == b)
            raise _refused("the request is ambiguous", named(twice), "stands twice in one object")

    # The numbers are not needed, and Python refuses to read very long ones.
    json.loads(body.decode(), object_pairs_hook=apart, parse_int=len, parse_float=len)


def _refused(message: str, field: str, reason: str) -> ContractError:
    return ContractError(message, errors=(FieldError(field=field, reason=reason),))


def _hold(moment: datetime | None) -> None:
    """Refuse a moment that has no place in UTC, in which the log keeps it: 0001-01-01 at +14:00."""
    try:
        if moment is not None:
            moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("Expected a time of the years 1 to 9999 in UTC") from None
