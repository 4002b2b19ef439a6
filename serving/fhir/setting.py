"""Whether a record is of the setting that a mart, and so its models, are about."""

from __future__ import annotations

from data.contract import Mart
from serving.fhir.record import Record

ENDED = ("finished", "completed", "discharged")
"""Statuses of an Encounter that has ended, of R4 and of R5."""
VOID = ("cancelled", "discontinued", "entered-in-error")


def fits(mart: Mart, record: Record) -> bool:
    """Whether the encounter is of a class that the mart is about. One that tells no class may be."""
    told = record.encounter.classes if record.encounter is not None else set()
    return not told or not mart.classes or bool(told & set(mart.classes))


def present(record: Record) -> bool:
    """Whether there is a patient to act on: alive, in an encounter that is not over."""
    patient, encounter = record.patient, record.encounter
    dead = patient is not None and (patient.deceasedBoolean or patient.deceasedDateTime is not None)
    return not dead and (encounter is None or encounter.status not in (*ENDED, *VOID))
