"""Typed answers: what a caller gets for one instance, and so what the OpenAPI document promises."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from data.contract import Text
from data.errors import FieldError

Risk = Annotated[float, Meta(ge=0, le=1)]
Value = bool | int | float | str | list[str] | None


class Contribution(Struct, frozen=True):
    """What one feature adds to the log-odds. ``value`` is in ``unit``, null where not measured."""

    feature: str
    label: Text
    value: Value
    unit: str | None
    contribution: float


class Explanation(Struct, frozen=True):
    """sigmoid(base_value + all contributions + other) is the risk. ``other``: those not listed."""

    space: Literal["log-odds"]
    base_value: float
    contributions: tuple[Contribution, ...]
    other: float


class NamedBand(Struct, frozen=True):
    """The band that the risk falls into, and what is done in it."""

    id: str
    label: Text
    action: Text


class Reason(Struct, frozen=True):
    """Why a patient is not one that the model is for."""

    field: str
    reason: str
    reason_zh: str


class Scored(Struct, frozen=True, tag_field="status", tag="scored"):
    prediction_id: str
    risk: Risk
    band: NamedBand
    explanation: Explanation
    warnings: tuple[FieldError, ...]


class Abstained(Struct, frozen=True, tag_field="status", tag="abstained"):
    prediction_id: str
    reasons: tuple[Reason, ...]


class Refused(Struct, frozen=True, tag_field="status", tag="refused"):
    prediction_id: str
    errors: tuple[FieldError, ...]


Prediction = Scored | Abstained | Refused


class PredictAnswer(Struct, frozen=True, omit_defaults=True):
    """One prediction an instance, in their order. ``notice``: the model is not for care."""

    model: str
    version: str
    predictions: list[Prediction]
    notice: Text | None = None


class OutcomeResult(Struct, frozen=True):
    status: Literal["joined", "revised", "repeated", "superseded", "unknown"]


class OutcomesAnswer(Struct, frozen=True):
    """How many reports met which fate, and the fate of each in their order."""

    joined: int
    unknown: int
    revised: int
    repeated: int
    superseded: int
    results: list[OutcomeResult]


class Fault(Struct, frozen=True, omit_defaults=True):
    """One fault; ``instance`` is the place of the instance that has it."""

    field: str
    reason: str
    instance: int | None = None


class Problem(Struct, frozen=True):
    """RFC 9457."""

    title: str
    status: int
    detail: str
    errors: tuple[Fault, ...] = ()
    type: str = "about:blank"
