"""Columns that no Observation carries: from the Patient, the Encounter and the Conditions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from data.contract import Column
from serving.fhir.record import Found, Record, refused
from serving.fhir.types import ICD10, SNOMED, Concept, Condition, Patient, born, moment, years
from serving.fhir.values import Reading

ADMIT_SOURCE = "http://terminology.hl7.org/CodeSystem/admit-source"
DISPOSITION = "http://terminology.hl7.org/CodeSystem/discharge-disposition"


def placed(
    columns: Sequence[Column], record: Record, at: datetime
) -> tuple[dict[str, Reading], list[str]]:
    """Column -> what the record says of it, and references to the Conditions that were read."""
    told: dict[str, Reading] = {}
    used = []
    for column in columns:
        if column.place == "Condition":
            shown = next((one for one in record.conditions if _shows(column, one, at)), None)
            if shown is not None:
                told[column.name] = Reading(value=True)
                used += [shown.reference] if shown.reference else []
            elif record.whole_history:  # of a list that may be short it would not follow
                told[column.name] = Reading(value=False)
        elif column.place is not None and (said := _told(column, record, at)) is not None:
            told[column.name] = said
    return told, used


def _told(column: Column, record: Record, at: datetime) -> Reading | None:
    patient, encounter = record.patient, record.encounter
    match column.place:
        case "Patient.birthDate" if patient is not None and patient.birthDate:
            return _age(patient, record, at)
        case "Patient.gender" if patient is not None and patient.gender in column.codes:
            return Reading(value=patient.gender)
    if encounter is None:
        return None
    match column.place:
        case "Encounter.period.hour" | "Encounter.period.weekday":
            return _arrival(column, encounter.when.start, at)
        case "Encounter.period.days":
            start, end = (moment(when, at) if when else None for when in _ends(record))
            whole = start is not None and end is not None and end >= start
            return Reading(value=(end.date() - start.date()).days) if whole and start and end else None
        case "Encounter.admitSource":
            return _coded(column, encounter.stay.admitSource, ADMIT_SOURCE)
        case "Encounter.dischargeDisposition":
            return _coded(column, encounter.stay.dischargeDisposition, DISPOSITION)
    return None


def _age(patient: Patient, record: Record, at: datetime) -> Reading:
    read = born(patient.birthDate or "")
    if read is None:
        raise refused("Patient.birthDate", "not a date")
    birth, to_the_day = read
    # The day at the bedside, where the encounter tells its offset.
    start = _ends(record)[0]
    local = moment(start, at) if start else None
    today = at.astimezone(local.tzinfo).date() if local is not None else at.date()
    if birth > today:
        if to_the_day:
            raise refused("Patient.birthDate", "later than the time asked about")
        birth = today
    warning = None if to_the_day else "the day of birth is not known"
    return Reading(value=years(birth, today), warning=warning)


def _arrival(column: Column, start: str | None, at: datetime) -> Reading | None:
    """Hour or weekday on the wall clock. In UTC the site's own hour does not stand."""
    if start is None or len(start) < len("2026-01-01"):
        return None
    began = moment(start, at)
    if began is None:
        raise refused("Encounter.period.start", "not a date and time with an offset")
    if start.endswith("Z"):
        return Reading(warning="told in UTC: the local time is not known")
    if column.place == "Encounter.period.weekday":
        return Reading(value=began.isoweekday())
    return Reading(value=began.hour) if "T" in start else None


def _coded(column: Column, concept: Concept | None, system: str) -> Reading | None:
    known = dict(column.terms)
    codes = concept.codes((system,)) if concept is not None else []
    told = next((known[code] for code in codes if code in known), None)
    if told is None:
        return None
    return Reading(value=True if column.kind == "flag" else told)


def _shows(column: Column, found: Found[Condition], at: datetime) -> bool:
    """Whether it says that the patient has, or once had, what the column asks about."""
    condition = found.resource
    status = condition.verificationStatus
    if status is not None and {coding.code for coding in status.coding or []} != {"confirmed"}:
        return False
    known_since = condition.recordedDate or condition.onsetDateTime
    since = moment(known_since, at) if known_since else None
    if (since is not None and since > at) or condition.code is None:
        return False
    for coding in condition.code.coding or []:
        system, code = coding.system or "", coding.code or ""
        if system in SNOMED and code in column.snomed:
            return True
        bare = code.upper().replace(".", "")
        icd10 = system.startswith(ICD10[0]) or system == ICD10[1]
        if icd10 and any(bare.startswith(start.replace(".", "")) for start in column.icd10):
            return True
    return False


def _ends(record: Record) -> tuple[str | None, str | None]:
    period = record.encounter.when if record.encounter is not None else None
    return (period.start, period.end) if period is not None else (None, None)
