"""A patient's record to the rows of a mart: which Observation stands for which column, and for when.

The latest Observation of a quantity wins; one older than its column allows is not measured. What is
missing, old, a limit or preliminary is said in a warning. Columns that have no code of any standard are
sent under the project's own: system ``urn:caremodels:{mart}``, code the column's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Raw

from data.contract import Column, Mart
from data.errors import FieldError
from models.artifact import Artifact
from serving.fhir.places import placed
from serving.fhir.record import Record, refused
from serving.fhir.types import LOINC, OWN, Measured, moment
from serving.fhir.values import SKEW, USED, Candidate, Reading, measured_at, reading
from serving.schema import Context, PredictRequest

HOUR = timedelta(hours=1)
Candidates = Mapping[str, list[Candidate]]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """``basis``: references to what was read. ``at``: the moment as of which the record was read."""

    request: PredictRequest
    warnings: tuple[FieldError, ...]
    basis: tuple[str, ...]
    at: datetime


def inputs(
    artifact: Artifact, record: Record, at: datetime, *, site: str | None, top: int | None = None
) -> Inputs:
    """What ``artifact`` is asked about ``record`` as of ``at``.

    Raises ContractError for a unit or value that cannot be, and for a series of which nobody says
    when it began.
    """
    columns = _columns(artifact.mart)
    told, basis = placed(columns, record, at)
    own: dict[str, Any] = {n: r.value for n, r in told.items() if r.value is not None}
    warnings = [
        FieldError(field=name, reason=said.warning) for name, said in told.items() if said.warning
    ]
    rest = [column for column in columns if column.name not in own]
    measured = _candidates(artifact.mart, rest, record, at)
    lookback = artifact.spec.lookback
    if lookback is None:
        row, used = _now(rest, measured, at, warnings)
        rows, series = [own | row], None
    else:
        rows, used = _hours(artifact, rest, measured, record, at, warnings)
        rows, series = [own | row for row in rows], record.encounter_id or record.subject
    context = Context(
        patient_id=record.patient_id,
        encounter_id=record.encounter_id,
        series_id=series,
        site=site,
        at=at,
    )
    return Inputs(
        request=PredictRequest(
            instances=[Raw(msgspec.json.encode(row)) for row in rows], context=[context], top=top
        ),
        warnings=tuple(dict.fromkeys(warnings)),
        basis=tuple(dict.fromkeys([*_references(used), *basis])),
        at=at,
    )


def newest(artifact: Artifact, record: Record, now: datetime) -> datetime | None:
    """When the latest of the measurements that ``artifact`` reads was true, of those before ``now``."""
    columns = _columns(artifact.mart)
    found = _candidates(artifact.mart, columns, record, now).values()
    times = [one.at for every in found for one in every if one.at and one.at <= now + SKEW]
    return min(now, max(times)) if times else None


def _columns(mart: Mart) -> list[Column]:
    """Those that a record may hold. The hour of a series is counted, never sent."""
    return [column for column in mart.columns if column.role == "input" and column.name != mart.order]


def _candidates(mart: Mart, columns: list[Column], record: Record, at: datetime) -> Candidates:
    """Column -> every measurement of it that may be read."""
    by_code = defaultdict(list)
    for column in columns:
        for code in column.loincs:
            by_code[code].append(column.name)
    names = {column.name for column in columns}
    found: dict[str, list[Candidate]] = defaultdict(list)

    def carried(part: Measured) -> list[str]:
        if part.code is None:
            return []
        loincs = [name for code in part.code.codes(LOINC) for name in by_code.get(code, ())]
        own = [code for code in part.code.codes((f"{OWN}:{mart.name}",)) if code in names]
        return list(dict.fromkeys([*loincs, *own]))

    for one in record.observations:
        if one.resource.status not in USED:
            continue
        parts: list[Measured] = [one.resource, *(one.resource.component or [])]
        which = [(part, carried(part)) for part in parts]
        if any(names for _, names in which):
            when, issued = measured_at(one, at)
            for part, carries in which:
                for name in carries:
                    found[name].append(Candidate(part=part, found=one, at=when, issued=issued))
    return found


def _now(
    columns: list[Column], measured: Candidates, at: datetime, warnings: list[FieldError]
) -> tuple[dict[str, Any], list[Candidate]]:
    """The one row as of ``at``."""
    row: dict[str, Any] = {}
    used = []
    for column in columns:
        every = measured.get(column.name, [])
        past = [one for one in every if one.at is None or one.at <= at + SKEW]
        if len(past) < len(every):
            warnings.append(FieldError(field=column.name, reason="later than the time asked about"))
        if not past:
            continue
        latest = max(past, key=lambda one: one.rank)
        said = _stale(column, latest, at) or reading(column, latest)
        if said.warning:
            warnings.append(FieldError(field=column.name, reason=said.warning))
        if said.value is not None:
            row[column.name] = said.value
            used.append(latest)
    return row, used


def _stale(column: Column, latest: Candidate, at: datetime) -> Reading | None:
    if column.current_for is None:
        return None
    if latest.at is None:
        return Reading(warning="of an unknown time")
    if at - latest.at > timedelta(hours=column.current_for):
        return Reading(warning=f"older than {column.current_for:g} h")
    return None


def _hours(
    artifact: Artifact,
    columns: list[Column],
    measured: Candidates,
    record: Record,
    at: datetime,
    warnings: list[FieldError],
) -> tuple[list[dict[str, Any]], list[Candidate]]:
    """A row for each hour that the model looks back on and that something was measured in; the last is
    the hour of ``at``. Hours are counted from the encounter's start, the first is 1.
    """
    order, lookback = artifact.mart.order, artifact.spec.lookback
    assert order  # a mart of series has one
    assert lookback
    written = record.encounter.when.start if record.encounter else None
    start = moment(written, at) if written else None
    if start is None:
        raise refused("Encounter.period.start", "required: hours are counted from it")
    if start > at + SKEW:
        raise refused("Encounter.period.start", "later than the time asked about")
    last = max(0, int((at - start) / HOUR)) + 1
    rows: dict[int, dict[str, Any]] = {last: {}}
    used = []
    for column in columns:
        by_hour: dict[int, list[Candidate]] = defaultdict(list)
        for one in measured.get(column.name, []):
            if one.at is None or one.at > at + SKEW:
                late = "of an unknown time" if one.at is None else "later than the time asked about"
                warnings.append(FieldError(field=column.name, reason=late))
            elif one.at >= start:
                by_hour[min(int((one.at - start) / HOUR) + 1, last)].append(one)
        for hour in sorted(hour for hour in by_hour if hour > last - lookback):
            latest = max(by_hour[hour], key=lambda one: one.rank)
            said = reading(column, latest)
            if said.warning:
                warnings.append(FieldError(field=column.name, reason=said.warning))
            if said.value is not None:
                rows.setdefault(hour, {})[column.name] = said.value
                used.append(latest)
    return [{order: hour, **rows[hour]} for hour in sorted(rows)], used


def _references(used: Iterable[Candidate]) -> list[str]:
    references = (one.found.reference for one in used)
    return [reference for reference in references if reference]
