"""One patient's record out of what was sent: Bundles and resources, and that they are of one patient.

Whatever is not of the patient asked about refuses the whole: two patients are never mixed. An
Observation or Condition that names nobody counts as theirs for whom it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from data.errors import ContractError, FieldError
from serving.fhir.types import (
    NONE,
    Condition,
    Encounter,
    Identifier,
    Observation,
    Patient,
    Reference,
    moment,
    there,
)

T = TypeVar("T")
LONGEST_NAME = 128
"""Of an identifier or a site: what the log's context takes."""
_RESOURCES: dict[str, Callable[[Raw], Any]] = {
    kind.__name__: msgspec.json.Decoder(kind).decode
    for kind in (Patient, Encounter, Observation, Condition)
}
_REFERENCE = re.compile(r"(?:(https?://\S+)/)?([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})")


class _Head(Struct, frozen=True):
    resourceType: str  # noqa: N815 the standard's name, as below


class _Entry(Struct, frozen=True):
    fullUrl: str | None = None  # noqa: N815
    resource: Raw = NONE


class _Link(Struct, frozen=True):
    relation: str | None = None


class _Bundle(Struct, frozen=True):
    entry: list[_Entry] | None = None
    timestamp: str | None = None
    link: list[_Link] | None = None


_head = msgspec.json.Decoder(_Head).decode
_bundle = msgspec.json.Decoder(_Bundle).decode


@dataclass(frozen=True, kw_only=True)
class Found(Generic[T]):
    """A resource, its ``place`` in the request, and the address that it was sent under."""

    resource: T
    place: str
    url: str | None = None

    @property
    def reference(self) -> str | None:
        """How an answer names it."""
        name: str | None = getattr(self.resource, "id", None)
        return f"{type(self.resource).__name__}/{name}" if name else self.url

    @property
    def id(self) -> str | None:
        name: str | None = getattr(self.resource, "id", None)
        return name or Reference(reference=self.url).id

    def named_by(self, reference: Reference) -> bool:
        """Whether ``reference``, in any of its forms, names this resource and no other."""
        if not reference.reference:
            known: list[Identifier] = getattr(self.resource, "identifier", None) or []
            given = reference.identifier
            return given is not None and given.value is not None and given in known
        written = reference.reference.split("/_history/")[0]
        if written == self.url:
            return True
        parts, own = _REFERENCE.fullmatch(written), _REFERENCE.fullmatch(self.url or "")
        if parts is None or parts[2] != type(self.resource).__name__ or parts[3] != self.id:
            return False
        # Patient/1 of one server is not Patient/1 of another.
        return parts[1] is None or own is None or own[1] is None or parts[1] == own[1]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """All that was sent and is read. ``taken_at``: when each Bundle says that it was put together;
    ``paged``: the places of those that go on on another page.
    """

    found: dict[str, list[Found[Any]]] = field(default_factory=dict)
    taken_at: list[datetime] = field(default_factory=list)
    paged: list[str] = field(default_factory=list)

    @property
    def unread(self) -> tuple[FieldError, ...]:
        """A warning for each page that was not sent."""
        return tuple(
            FieldError(field=place, reason="further pages were not read") for place in self.paged
        )

    def of(self, kind: type[T]) -> list[Found[T]]:
        return self.found.get(kind.__name__, [])


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one patient. ``subject`` and ``encounter_reference`` as an answer names them;
    ``whole_history``: no diagnosis is left out of ``conditions``.
    """

    subject: str
    patient_id: str | None
    patient: Patient | None
    encounter: Encounter | None
    encounter_id: str | None
    encounter_reference: str | None
    observations: Sequence[Found[Observation]]
    conditions: Sequence[Found[Condition]]
    site: str | None
    whole_history: bool = False


def gather(sent: Sequence[tuple[str, Raw]], now: datetime) -> Gathered:
    """Read resources and Bundles, each beside its place in the request.

    An entry without a resource holds nothing; a resource of a kind that no model reads is passed over.
    Raises ContractError naming the place and the rule.
    """
    gathered = Gathered()
    for place, raw in sent:
        if _read(_head, raw, place).resourceType != "Bundle":
            _take(gathered, place, raw, None)
            continue
        bundle = _read(_bundle, raw, place)
        if bundle.timestamp and (taken := moment(bundle.timestamp, now)):
            gathered.taken_at.append(taken)
        if any(link.relation == "next" for link in bundle.link or []):
            gathered.paged.append(place)
        for position, entry in enumerate(bundle.entry or []):
            if there(entry.resource):
                within = f"{place}.entry[{position}].resource"
                if _read(_head, entry.resource, within).resourceType == "Bundle":
                    raise refused(within, "a Bundle within a Bundle")
                _take(gathered, within, entry.resource, entry.fullUrl)
    return gathered


def record(
    gathered: Gathered,
    *,
    subject: Reference | None,
    encounter: Reference | None,
    whole_history: bool = False,
) -> Record:
    """The one patient's record. Raises ContractError where it is nobody's or somebody else's too."""
    patient = _patient(gathered, subject)
    visit, visit_id, visit_reference = _encounter(gathered, encounter)
    observations, conditions = gathered.of(Observation), gathered.of(Condition)
    for found in (*observations, *conditions, *([visit] if visit else ())):
        whose: Reference | None = found.resource.subject
        if whose is not None and not patient.named_by(whose):
            raise refused(f"{found.place}.subject", "of another patient than the one asked about")
    named = (subject.reference if subject is not None else None) or patient.reference
    if named is None:
        raise refused("subject", "required: the Patient has neither id nor address")
    known = patient.resource if patient.place else None
    return Record(
        subject=named,
        patient_id=short(patient.id, "subject"),
        patient=known,
        encounter=visit.resource if visit else None,
        encounter_id=short(visit_id, "encounter"),
        encounter_reference=visit_reference,
        observations=observations,
        conditions=conditions,
        site=short(_site(known, visit.resource if visit else None), "site"),
        whole_history=whole_history,
    )


def refused(place: str, reason: str) -> ContractError:
    return ContractError("the record cannot be used", errors=(FieldError(field=place, reason=reason),))


def _take(gathered: Gathered, place: str, raw: Raw, url: str | None) -> None:
    kind = _read(_head, raw, place).resourceType
    decode = _RESOURCES.get(kind)
    if decode is not None:
        resource = _read(decode, raw, place)
        gathered.found.setdefault(kind, []).append(Found(resource=resource, place=place, url=url))


def _read(decode: Callable[[Raw], T], raw: Raw, place: str) -> T:
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        # It names places and types, never a value.
        rule, _, within = str(error).partition(" - at ")
        raise refused(f"{place}{within.strip('`').removeprefix('$')}", rule) from None
    except (ValueError, RecursionError):
        raise refused(place, "not valid JSON") from None


def _patient(gathered: Gathered, subject: Reference | None) -> Found[Patient]:
    """Whose record it is: the Patient sent, or who ``subject`` names where none was."""
    patients = _distinct(gathered.of(Patient))
    if len(patients) > 1:
        raise refused(patients[1].place, "a second patient")
    if not patients:
        if subject is None or not subject.reference:
            raise refused("subject", "required: whom is it about?")
        return Found(resource=Patient(id=subject.id), place="", url=subject.reference)
    if subject is not None and not patients[0].named_by(subject):
        raise refused("subject", "another patient than the one in data")
    return patients[0]


def _encounter(
    gathered: Gathered, named: Reference | None
) -> tuple[Found[Encounter] | None, str | None, str | None]:
    """The encounter asked about, its id and how an answer names it."""
    encounters = _distinct(gathered.of(Encounter))
    if named is not None:
        matching = [found for found in encounters if found.named_by(named)]
        if encounters and not matching:
            raise refused(encounters[0].place, "another encounter than the one asked about")
        if not matching:
            return None, named.id, named.reference
        encounters = matching
    if len(encounters) > 1:
        raise refused("encounter", "required: the record holds several")
    if not encounters:
        return None, None, None
    written = named.reference if named is not None else None
    return encounters[0], encounters[0].id, written or encounters[0].reference


def _distinct(found: Sequence[Found[T]]) -> list[Found[T]]:
    """Each resource once: a search may bring the same one along with several others."""
    kept: list[Found[T]] = []
    for one in found:
        if all(one.resource != other.resource for other in kept):
            kept.append(one)
    return kept


def _site(patient: Patient | None, encounter: Encounter | None) -> str | None:
    """Where the patient is treated: the first that is told of the encounter's service provider, its
    active (or else last) location and the organisation that keeps the patient's record. Of each the
    identifier's value, or the id in the reference.
    """
    told: list[Reference | None] = []
    if encounter is not None:
        places = encounter.location or []
        active = [place for place in places if place.status == "active"] or places[-1:]
        told = [encounter.serviceProvider, *(place.location for place in active)]
    if patient is not None:
        told.append(patient.managingOrganization)
    names = (_name(reference) for reference in told if reference is not None)
    return next((name for name in names if name), None)


def _name(reference: Reference) -> str | None:
    if reference.identifier is not None and reference.identifier.value:
        return reference.identifier.value
    return reference.id


def short(name: str | None, place: str) -> str | None:
    """An identifier or a site as the log can keep it. Raises ContractError."""
    if name is not None and "\0" in name:
        raise refused(place, "holds a NUL character")
    if name is not None and len(name) > LONGEST_NAME:
        raise refused(place, f"longer than {LONGEST_NAME} characters")
    return name
