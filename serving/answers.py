"""Typed answers: what a caller gets for one instance, and so what the OpenAPI document promises."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from data.contract import Text
from data.errors import FieldError

Share = Annotated[float, Meta(ge=0, le=1)]
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
    """Why no risk is given: which rule, and what of the patient's breaks it.

    cohort: the model is not for this patient. missing: too little was measured. novelty: the inputs are
    unlike those that it was taught with. ambiguous: they rule out too little.
    """

    rule: Literal["cohort", "missing", "novelty", "ambiguous"]
    field: str
    reason: str
    reason_zh: str


class PredictionSet(Struct, frozen=True):
    """The outcomes (0 and 1) or levels that the inputs do not rule out.

    Such sets hold the true one in the share ``coverage`` of patients; see ``models.conformal``. Never an
    interval around the risk.
    """

    classes: tuple[int, ...] = field(name="set")
    coverage: Share


class Scored(Struct, frozen=True, kw_only=True, tag_field="status", tag="scored"):
    """``risk`` is that of the event; of an ordinal model the chance of this ``level`` or a more urgent
    one, beside the ``probabilities`` of each, the most urgent first. ``novelty`` is the share of the
    training rows that are less strange in their inputs.
    """

    prediction_id: str
    risk: Share
    level: int | UnsetType = UNSET
    probabilities: tuple[Share, ...] | UnsetType = UNSET
    conformal: PredictionSet | UnsetType = UNSET
    novelty: Share | UnsetType = UNSET
    band: NamedBand
    explanation: Explanation
    warnings: tuple[FieldError, ...]


class Abstained(Struct, frozen=True, tag_field="status", tag="abstained"):
    prediction_id: str
    reasons: tuple[Reason, ...]


class Fault(Struct, frozen=True, omit_defaults=True):
    """One fault; ``instance`` is the place of the instance that has it, where that is not plain."""

    field: str
    reason: str
    instance: int | None = None


class Refused(Struct, frozen=True, tag_field="status", tag="refused"):
    """The faults of the instance; of a series those of any of its rows."""

    prediction_id: str
    errors: tuple[Fault, ...]


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


class Problem(Struct, frozen=True):
    """RFC 9457."""

    title: str
    status: int
    detail: str
    errors: tuple[Fault, ...] = ()
    type: str = "about:blank"
