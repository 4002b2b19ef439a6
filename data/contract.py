"""What a row is: columns and marts, declared once and held everywhere.

The same :func:`check` stands at both doors, before a mart is stored and before a request is
scored. It takes an Arrow table or a list of JSON objects, and gives typed columns for the rows
kept and, for every row refused, the field and the rule. It never repeats a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.errors import ContractError, FieldError
from data.parse import MISSING, Parsed, as_typed, nul, parse_arrow, parse_json

Role = Literal["id", "input", "audit", "outcome"]
Available = Literal["arrival", "triage", "hourly", "discharge", "history", "after"]
Kind = Literal["number", "integer", "flag", "category", "text", "time"]
Identity = Literal["patient", "encounter"]
Place = Literal[
    "Patient.birthDate",
    "Patient.gender",
    "Encounter.period.hour",
    "Encounter.period.weekday",
    "Encounter.period.days",
    "Encounter.admitSource",
    "Encounter.dischargeDisposition",
    "Condition",
]
"""Where in a FHIR record a column is found that no Observation carries."""
Rows = dict[str, npt.NDArray[Any]]
"""Typed columns of equal length, by name.

number, integer, flag: float64, missing is NaN. category: int16 index into the column's
categories, missing is -1. text: object (str or None). time: datetime64[us], local wall clock.
"""

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "flag": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
}


@dataclass(frozen=True)
class Text:
    """A phrase that a person reads, in English and in Chinese."""

    en: str
    zh: str


@dataclass(frozen=True, kw_only=True)
class Category:
    """One allowed value of a category column."""

    id: str
    label: Text


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: what it means, when it is known, what values it may hold.

    ``unit`` is UCUM, ``loinc`` the code under which an Observation carries it, ``low`` and
    ``high`` the plausible range (inclusive): outside it a value is a mistake, not a patient.
    ``identity`` says whose identifier it is: a mart holds its keyed hash only.

    ``known_at`` belongs to an outcome and names the column with the time at which it became known.
    Where a row does not tell that time, it counts as ``known_within`` days after the event.

    The rest says how it is found in a FHIR record. ``loinc_also``: further codes of the same quantity.
    ``current_for``: hours for which an Observation stands for the present, None for as long as one
    likes. ``molar_mass`` (g/mol): by it amounts and masses of this substance are the same quantity.
    ``place``: where it is, where no Observation carries it; ``terms`` are the codes found there, each
    with what it says (a category's id, or "true" of a flag); of Conditions the beginnings of their
    ``icd10`` codes (any national edition) and whole ``snomed`` codes set the flag.
    """

    name: str
    kind: Kind
    role: Role
    available: Available
    label: Text
    unit: str | None = None
    loinc: str | None = None
    low: float | None = None
    high: float | None = None
    categories: tuple[Category, ...] = ()
    required: bool = False
    identity: Identity | None = None
    known_at: str | None = None
    known_within: int | None = None
    loinc_also: tuple[str, ...] = ()
    current_for: float | None = None
    molar_mass: float | None = None
    place: Place | None = None
    terms: tuple[tuple[str, str], ...] = ()
    icd10: tuple[str, ...] = ()
    snomed: tuple[str, ...] = ()

    @cached_property
    def codes(self) -> dict[str, int]:
        """Category id -> its index."""
        return {category.id: index for index, category in enumerate(self.categories)}

    @property
    def loincs(self) -> tuple[str, ...]:
        """Every code under which an Observation may carry it."""
        return (self.loinc, *self.loinc_also) if self.loinc else self.loinc_also

    @property
    def range_rule(self) -> str:
        unit = f" {self.unit}" if self.unit and self.unit != "1" else ""
        return f"outside {self.low:g} to {self.high:g}{unit}"


@dataclass(frozen=True, kw_only=True)
class Mart:
    """A table of rows of one kind: one row is one ``row`` (a visit, a stay, an hour).

    ``key`` names the columns that no two rows share; ``encounter`` the one under which predictions
    and outcomes meet. ``time`` is the event on the site's wall clock. Where a mart has an ``order``
    (a whole number), a row may give that instead of a time. ``classes`` are those of a FHIR Encounter
    (ActCode) that it is about; none: any.
    """

    name: str
    row: Text
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    encounter: str
    patient: str
    site: str
    time: str
    order: str | None = None
    weight: str | None = None
    classes: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    def __getitem__(self, name: str) -> Column:
        """The column ``name``. Raises ContractError where the mart has none."""
        try:
            return self.by_name[name]
        except KeyError:
            raise ContractError(f"mart {self.name} has no column {name}") from None

    @property
    def sequence(self) -> tuple[str, ...]:
        """The columns in whose order rows are read: time, but the rows of one series together."""
        order = () if self.order is None else (self.order,)
        if len(self.key) > 1:
            return (self.encounter, *order)
        return (self.time, *order, *self.key)

    def select(self, names: Sequence[str]) -> tuple[Column, ...]:
        """The columns ``names``, in the mart's own order."""
        wanted = {self[name].name for name in names}
        return tuple(column for column in self.columns if column.name in wanted)

    def only(self, names: Sequence[str]) -> Mart:
        """The mart with the columns ``names`` alone."""
        return replace(self, columns=self.select(names), weight=None)

    @property
    def arrow_schema(self) -> pa.Schema:
        return pa.schema([(column.name, ARROW_TYPES[column.kind]) for column in self.columns])


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Rows that break one rule of one column."""

    column: str
    rule: str
    positions: npt.NDArray[np.intp]

    @property
    def reason(self) -> str:
        return f"{self.column}: {self.rule}"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What :func:`check` found. ``kept`` is a mask over the rows that came in."""

    kept: npt.NDArray[np.bool_]
    refused: tuple[Refusal, ...]
    parsed: Parsed = field(repr=False)

    def __len__(self) -> int:
        return int(self.kept.sum())

    @cached_property
    def rows(self) -> Rows:
        """The kept rows, typed. Made when asked for: who only stores rows needs no objects."""
        everything = bool(self.kept.all())
        typed = {name: as_typed(values) for name, (values, _) in self.parsed.items()}
        return typed if everything else {name: values[self.kept] for name, values in typed.items()}

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of rows that it refused. A row may have several reasons."""
        return {refusal.reason: len(refusal.positions) for refusal in self.refused}

    def faults(self) -> dict[int, tuple[FieldError, ...]]:
        """Position of each refused row -> its faults."""
        found: dict[int, list[FieldError]] = {}
        for refusal in self.refused:
            for position in refusal.positions:
                fault = FieldError(field=refusal.column, reason=refusal.rule)
                found.setdefault(int(position), []).append(fault)
        return {position: tuple(faults) for position, faults in sorted(found.items())}


Fault = tuple[str, str, npt.NDArray[np.bool_]]


def check(columns: Sequence[Column], rows: pa.Table | Sequence[Mapping[str, object]]) -> Checked:
    """Hold each row to its columns: type, category, plausible range, required.

    ``rows`` is an Arrow table (every column must be there) or JSON objects (an absent field and
    a null both mean "not measured"; a field that no column declares refuses its row). Raises
    ContractError where the rows as a whole cannot be read: a column missing, unknown or of
    another type.

    >>> age = Column(name="age", kind="number", role="input", available="arrival",
    ...              label=Text("Age", "年龄"), unit="a", low=0, high=120, required=True)
    >>> checked = check([age], [{"age": 71}, {"age": 710}, {"age": None}])
    >>> checked.rows["age"], checked.reasons
    (array([71.]), {'age: outside 0 to 120 a': 1, 'age: required': 1})
    """
    if isinstance(rows, pa.Table):
        parsed = parse_arrow(columns, rows)
        return _judged(columns, parsed, [], rows.num_rows)
    parsed, unknown = parse_json(columns, rows)
    return _judged(columns, parsed, unknown, len(rows))


def complete(mart: Mart, table: pa.Table) -> pa.Table:
    """The table with every optional column of the mart: what a source does not have is missing.

    A name that was misspelt does not slip through: :func:`check_mart` refuses what it does not know.
    """
    for column in mart.columns:
        if column.name not in table.column_names and not column.required:
            table = table.append_column(column.name, pa.nulls(len(table), ARROW_TYPES[column.kind]))
    return table


def check_mart(mart: Mart, table: pa.Table) -> Checked:
    """:func:`check`, and that each row has its place in time or in the mart's order.

    That no two rows share a key is for the store to see, which knows them all.
    """
    parsed = parse_arrow(mart.columns, table)
    faults: list[Fault] = []
    if mart.order is not None:
        nowhere = MISSING["time"](parsed[mart.time][0]) & MISSING["integer"](parsed[mart.order][0])
        faults.append((mart.time, f"required, or {mart.order}", nowhere))
    return _judged(mart.columns, parsed, faults, table.num_rows)


def _judged(columns: Sequence[Column], parsed: Parsed, faults: list[Fault], size: int) -> Checked:
    for column in columns:
        values, not_parsed = parsed[column.name]
        faults += [(column.name, rule, bad) for rule, bad in _broken(column, values, not_parsed)]
    kept = np.ones(size, dtype=bool)
    refused = []
    for name, rule, bad in faults:
        if bad.any():
            kept &= ~bad
            refused.append(Refusal(column=name, rule=rule, positions=np.flatnonzero(bad)))
    return Checked(kept=kept, refused=tuple(refused), parsed=parsed)


def _broken(
    column: Column, values: npt.NDArray[Any], not_parsed: npt.NDArray[np.bool_] | None
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The rules of ``column`` that some row breaks, with the mask of those rows."""
    found = []
    if not_parsed is not None:
        rule = "not an allowed value" if column.kind == "category" else f"not a {column.kind}"
        found.append((rule, not_parsed))
    if column.kind in ("number", "integer") and column.low is not None and column.high is not None:
        with np.errstate(invalid="ignore"):
            found.append((column.range_rule, (values < column.low) | (values > column.high)))
    if column.kind == "text":
        # PostgreSQL cannot hold it, and no text of a person's has it.
        found.append(("holds a NUL character", nul(values)))
    if column.kind == "integer":
        found.append(("not a whole number", np.isfinite(values) & (values != np.rint(values))))
    if column.required:
        missing = MISSING[column.kind](values)
        found.append(("required", missing if not_parsed is None else missing & ~not_parsed))
    return found


def sample(mart: Mart, n: int, seed: int) -> pa.Table:
    """``n`` rows that fit the contract and belong to nobody: golden rows and tests.

    Every optional column is missing in about a fifth of the rows, so that each path is walked.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for column in mart.columns:
        missing = np.zeros(n, dtype=bool) if column.required else rng.random(n) < 0.2
        arrays[column.name] = pa.array(
            _draw(column, n, rng), mask=missing, type=ARROW_TYPES[column.kind]
        )
    arrays[mart.encounter] = pa.array([f"{mart.name}-{seed}-{i}" for i in range(n)], pa.string())
    if mart.order is not None:
        arrays[mart.order] = pa.array(np.arange(1, n + 1))
    return pa.table(arrays, schema=mart.arrow_schema)


def _draw(column: Column, n: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    low = 0.0 if column.low is None else column.low
    high = low + 1000.0 if column.high is None else column.high
    match column.kind:
        case "number":
            return np.clip(np.round(rng.uniform(low, high, n), 1), low, high)
        case "integer":
            return rng.integers(int(low), int(high) + 1, n)
        case "flag":
            return rng.random(n) < 0.3
        case "category":
            ids = np.array([category.id for category in column.categories], dtype=object)
            return np.asarray(ids[rng.integers(0, len(ids), n)])
        case "text":
            return np.array([f"{column.name}-{i}" for i in rng.integers(0, 50, n)], dtype=object)
        case "time":
            minutes = rng.integers(0, 365 * 24 * 60, n).astype("timedelta64[m]")
            return np.datetime64("2024-01-01T00:00", "us") + minutes
