"""What one measurement says of one column: a value in the contract's unit, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from data.contract import Column
from data.units import as_code, converter, dimensionless
from serving.fhir.record import Found, refused
from serving.fhir.types import OWN, UCUM, Measured, Observation, Quantity, moment

SKEW = timedelta(minutes=10)
"""By how much the clocks of a device and of this service may differ."""
USED = ("final", "amended", "corrected", "preliminary")
"""What may be read of an Observation's statuses. Those of monitors are often preliminary; what was
registered, cancelled or entered in error, or has an unknown fate, is no measurement."""
BOUNDS = ("<", "<=", ">=", ">")
Value = float | int | bool | str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One measurement of one column. ``at``: None where nobody says when."""

    part: Measured
    found: Found[Observation]
    at: datetime | None
    issued: datetime | None

    @property
    def rank(self) -> tuple[float, float]:
        """The latest wins; of the same moment what was issued last."""
        return _seconds(self.at), _seconds(self.issued)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """``value`` None: not measured. ``warning``: what a reader of the answer should know of it."""

    value: Value | None = None
    warning: str | None = None


def measured_at(found: Found[Observation], now: datetime) -> tuple[datetime | None, datetime | None]:
    """When it was true (the end of a period) and when it was issued.

    Raises ContractError for a time that cannot be read.
    """
    of, period = found.resource, found.resource.effectivePeriod
    spans = (period.end or period.start) if period else None
    issued = _moment(of.issued, f"{found.place}.issued", now)
    written = of.effectiveDateTime or of.effectiveInstant or spans
    return _moment(written, f"{found.place}.effective", now) or issued, issued


def reading(column: Column, candidate: Candidate) -> Reading:
    """Its value in the contract's unit. Raises ContractError naming column and rule, never the value."""
    part = candidate.part
    if part.absent or (part.valueQuantity is not None and part.valueQuantity.value is None):
        return Reading(warning="recorded without a value")
    hasty = candidate.found.resource.status == "preliminary"
    warning = "preliminary" if hasty else None
    match column.kind:
        case "number" | "integer":
            value, bound = _number(column, part)
            return Reading(value=value, warning=bound or warning)
        case "flag" if part.valueBoolean is not None:
            return Reading(value=part.valueBoolean, warning=warning)
        case "category":
            return Reading(value=_category(column, part), warning=warning)
    raise refused(column.name, f"not a {column.kind}")


def _number(column: Column, part: Measured) -> tuple[float | int, str | None]:
    quantity = part.valueQuantity
    if quantity is None:
        if part.valueInteger is None:
            raise refused(column.name, "not a quantity")
        quantity = Quantity(value=part.valueInteger)
    value = quantity.value
    assert value is not None  # else it is no reading
    given = _unit(column, quantity)
    if given is not None and given != column.unit:
        convert = converter(given, column.unit, molar_mass=column.molar_mass)
        if convert is None:
            wanted = f"cannot be converted to {column.unit}" if column.unit else "has no unit"
            raise refused(column.name, f"unit {wanted}")
        value = round(convert(value), 6)
    if quantity.comparator in BOUNDS:
        # A laboratory's limit is the nearest to it that is known, as in the rows that models learn from.
        return value, "a limit, not a measurement"
    if quantity.comparator is not None:
        raise refused(column.name, "with a comparator that is none of <, <=, >=, >")
    return value, None


def _unit(column: Column, quantity: Quantity) -> str | None:
    """The unit as a UCUM code; None where the number has none and needs none."""
    if quantity.system is not None and quantity.code is not None:
        if quantity.system not in UCUM:
            raise refused(column.name, "unit not in UCUM")
        return quantity.code
    written = quantity.code or quantity.unit
    if written:
        return as_code(written)
    if dimensionless(column.unit):
        return None
    raise refused(column.name, f"without a unit: {column.unit}, or one that can be converted to it")


def _category(column: Column, part: Measured) -> str:
    told = part.valueCodeableConcept
    codes = told.codes((f"{OWN}:{column.name}",)) if told is not None else [part.valueString or ""]
    known = [code for code in codes if code in column.codes]
    if len(known) != 1:
        raise refused(column.name, "not an allowed value")
    return known[0]


def _moment(written: str | None, place: str, now: datetime) -> datetime | None:
    if written is None:
        return None
    read = moment(written, now)
    if read is None:
        raise refused(place, "not a date and time with an offset")
    return read


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else float("-inf")
