"""The parts of FHIR resources that are read, R4 and R5 alike. Whatever else a resource holds is left.

Types, dates and references: what a resource says. What it means to a model stands in
:mod:`serving.fhir.inputs`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from msgspec import Raw, Struct, field

LOINC = ("http://loinc.org", "urn:oid:2.16.840.1.113883.6.1")
SNOMED = ("http://snomed.info/sct", "urn:oid:2.16.840.1.113883.6.96")
UCUM = ("http://unitsofmeasure.org", "urn:oid:2.16.840.1.113883.6.8")
ICD10 = ("http://hl7.org/fhir/sid/icd-10", "urn:oid:2.16.840.1.113883.6.3")
"""The first is also the beginning of the national editions' names: icd-10-cm, icd-10-cn."""
OWN = "urn:caremodels"
"""What our own systems, identifiers and extensions start with."""

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d)"  # seconds are often left out
)


NONE = Raw()
"""A field that may hold anything and is not there."""


def there(raw: Raw) -> bool:
    """Whether a field holds something."""
    return bytes(raw).strip() not in (b"", b"null")


class Coding(Struct, frozen=True):
    system: str | None = None
    code: str | None = None


class Concept(Struct, frozen=True):
    """A CodeableConcept."""

    coding: list[Coding] | None = None

    def codes(self, systems: tuple[str, ...]) -> list[str]:
        """Its codes in any of ``systems``."""
        found = self.coding or []
        return [coding.code for coding in found if coding.code and coding.system in systems]


class Identifier(Struct, frozen=True):
    system: str | None = None
    value: str | None = None


class Reference(Struct, frozen=True):
    reference: str | None = None
    type: str | None = None
    identifier: Identifier | None = None

    @property
    def id(self) -> str | None:
        """The id in it: of ``Patient/1``, of an absolute address or of a URN."""
        if not self.reference:
            return None
        plain = self.reference.split("/_history/")[0]
        return re.split(r"[/:]", plain)[-1] or None


class Period(Struct, frozen=True):
    start: str | None = None
    end: str | None = None


class Quantity(Struct, frozen=True):
    value: float | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Measured(Struct, frozen=True, kw_only=True):
    """What an Observation and its components have in common."""

    code: Concept | None = None
    valueQuantity: Quantity | None = None  # noqa: N815 the standard's name, as below
    valueInteger: int | None = None  # noqa: N815
    valueBoolean: bool | None = None  # noqa: N815
    valueCodeableConcept: Concept | None = None  # noqa: N815
    valueString: str | None = None  # noqa: N815
    valueRange: Raw = NONE  # noqa: N815
    valueRatio: Raw = NONE  # noqa: N815
    valueSampledData: Raw = NONE  # noqa: N815
    valueTime: Raw = NONE  # noqa: N815
    valueDateTime: Raw = NONE  # noqa: N815
    valuePeriod: Raw = NONE  # noqa: N815
    dataAbsentReason: Concept | None = None  # noqa: N815

    @property
    def absent(self) -> bool:
        """Whether it says that there is no value, or simply has none."""
        if self.dataAbsentReason is not None:
            return True
        values = (getattr(self, n) for n in self.__struct_fields__ if n.startswith("value"))
        return not any(there(v) if isinstance(v, Raw) else v is not None for v in values)


class Component(Measured, frozen=True, kw_only=True):
    pass


class Observation(Measured, frozen=True, kw_only=True):
    id: str | None = None
    status: str
    subject: Reference | None = None
    encounter: Reference | None = None
    effectiveDateTime: str | None = None  # noqa: N815
    effectiveInstant: str | None = None  # noqa: N815
    effectivePeriod: Period | None = None  # noqa: N815
    issued: str | None = None
    component: list[Component] | None = None


class Patient(Struct, frozen=True, kw_only=True):
    id: str | None = None
    identifier: list[Identifier] | None = None
    birthDate: str | None = None  # noqa: N815
    gender: str | None = None
    managingOrganization: Reference | None = None  # noqa: N815
    deceasedBoolean: bool | None = None  # noqa: N815
    deceasedDateTime: str | None = None  # noqa: N815


class Hospitalization(Struct, frozen=True, kw_only=True):
    """``hospitalization`` in R4, ``admission`` in R5."""

    admitSource: Concept | None = None  # noqa: N815
    dischargeDisposition: Concept | None = None  # noqa: N815


class EncounterLocation(Struct, frozen=True, kw_only=True):
    location: Reference | None = None
    status: str | None = None


class Encounter(Struct, frozen=True, kw_only=True):
    id: str | None = None
    status: str | None = None
    kind: Coding | list[Concept] | None = field(default=None, name="class")
    subject: Reference | None = None
    period: Period | None = None
    actualPeriod: Period | None = None  # noqa: N815
    hospitalization: Hospitalization | None = None
    admission: Hospitalization | None = None
    serviceProvider: Reference | None = None  # noqa: N815
    location: list[EncounterLocation] | None = None

    @property
    def classes(self) -> set[str]:
        """Its codes: one in R4, any number in R5."""
        kinds = self.kind if isinstance(self.kind, list) else [Concept(coding=[self.kind or Coding()])]
        return {coding.code for kind in kinds for coding in kind.coding or [] if coding.code}

    @property
    def when(self) -> Period:
        return self.period or self.actualPeriod or Period()

    @property
    def stay(self) -> Hospitalization:
        return self.hospitalization or self.admission or Hospitalization()


class Condition(Struct, frozen=True, kw_only=True):
    id: str | None = None
    subject: Reference | None = None
    code: Concept | None = None
    verificationStatus: Concept | None = None  # noqa: N815
    onsetDateTime: str | None = None  # noqa: N815
    recordedDate: str | None = None  # noqa: N815


def moment(written: str, zone: datetime) -> datetime | None:
    """A FHIR dateTime or instant as a time with an offset; None for what is neither.

    A day alone begins at midnight where ``zone`` is.
    """
    found = _TIME.fullmatch(written)
    try:
        if found is not None:
            minute, second, fraction, offset = found.groups()
            exact = f"{minute}{second or ':00'}{(fraction or '')[:7]}{offset}"
            read = datetime.fromisoformat(exact)
        else:
            day = born(written)
            if day is None or len(written) < len("2026-01-01"):
                return None
            read = datetime(day[0].year, day[0].month, day[0].day, tzinfo=zone.tzinfo)
        read.astimezone(UTC)  # a moment that has no place there cannot be kept
    except (ValueError, OverflowError):
        return None
    return read


def born(written: str) -> tuple[date, bool] | None:
    """A FHIR date, and whether it names a day; the middle of a year or month that is named alone.

    >>> born("1955"), born("1955-03-09")
    ((datetime.date(1955, 7, 1), False), (datetime.date(1955, 3, 9), True))
    """
    found = _DATE.fullmatch(written)
    if found is None:
        return None
    year, month, day = found.groups()
    try:
        return date(int(year), int(month or 7), int(day or (15 if month else 1))), day is not None
    except ValueError:
        return None


def years(birth: date, on: date) -> float:
    """Completed years, as people count them; of an infant the part of the first year.

    >>> years(date(2008, 11, 24), date(2026, 11, 24)), years(date(2008, 11, 25), date(2026, 11, 24))
    (18.0, 17.0)
    """
    whole = on.year - birth.year - ((on.month, on.day) < (birth.month, birth.day))
    if whole < 1:
        return round((on - birth) / timedelta(days=365.25), 2)
    return float(whole)
