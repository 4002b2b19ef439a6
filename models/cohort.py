"""The rows that a model is about, and the count of every exclusion on the way to them.

They come a batch at a time and are kept in files, one a column, that are mapped into memory: a
mart of any size makes a cohort without growing the process.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.contract import Mart, Rows, check
from models.features import FeatureMap
from models.scores import SCORES
from models.series import SERIES
from models.spec import ModelSpec

FloatArray = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
NOBODY = -1
"""Number of a patient without an identifier."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Typed rows with a known outcome, who stands in them, and the flow that led here.

    ``patient`` numbers the patients (``NOBODY`` where there is no identifier), ``site`` and the text
    columns of ``rows`` are objects, ``order`` is the mart's order key (NaN where it has none) and
    ``load_ids`` the loads that the rows came with. An ordinal model's rows also have the ``level``
    and whether there was ``harm`` (NaN where that is not known).
    """

    rows: Rows
    outcome: FloatArray
    level: FloatArray | None
    harm: FloatArray | None
    patient: Codes
    site: npt.NDArray[np.object_]
    time: npt.NDArray[np.datetime64]
    order: FloatArray
    weight: FloatArray | None
    load_ids: tuple[str, ...]
    flow: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.outcome)

    def take(self, mask: npt.NDArray[np.bool_]) -> Cohort:
        """The rows of ``mask``, in memory."""

        def taken(values: npt.NDArray[Any] | None) -> Any:
            return None if values is None else values[mask]

        return replace(
            self,
            rows={name: values[mask] for name, values in self.rows.items()},
            **{
                name: taken(getattr(self, name))
                for name in ("outcome", "level", "harm", "patient", "site", "time", "order", "weight")
            },
        )

    @property
    def person(self) -> npt.NDArray[np.intp]:
        """Who each row is, numbered; a row without a patient id is a person of its own."""
        codes = np.array(self.patient)
        unknown = codes == NOBODY
        codes[unknown] = NOBODY - 1 - np.arange(unknown.sum())
        return np.unique(codes, return_inverse=True)[1]

    @property
    def cluster(self) -> npt.NDArray[np.intp]:
        """What the bootstrap resamples: patients; where nobody has an id, sites."""
        if (self.patient == NOBODY).all():
            return np.unique(self.site, return_inverse=True)[1]
        return self.person

    @property
    def fingerprint(self) -> str:
        """SHA-256 of outcome and columns: equal rows in equal order have the same one."""
        digest = hashlib.sha256(np.ascontiguousarray(self.outcome).data)
        told = {"#level": self.level, "#harm": self.harm}
        columns = self.rows | {name: values for name, values in told.items() if values is not None}
        for name in sorted(columns):
            values = columns[name]
            if values.dtype == object:
                digest.update(repr(values.tolist()).encode())
            else:
                digest.update(np.ascontiguousarray(values).view(np.uint8).data)
        return digest.hexdigest()


def columns(spec: ModelSpec, mart: Mart) -> list[str]:
    """The columns that a cohort of ``spec`` is made from, in the mart's order."""
    optional = [name for name in (mart.weight, mart.order) if name]
    special = (mart.patient, mart.site, mart.time, *optional)
    series = mart.key if spec.lookback else ()
    asked = (*spec.told, *(criterion.column for criterion in spec.cohort), *spec.subgroups)
    read = FeatureMap.of(mart, spec.features, spec.lookback).inputs
    scored = [name for score in spec.comparators for name in SCORES[score].inputs(mart)]
    return [c.name for c in mart.select([*special, *series, *asked, *read, *scored])]


@contextmanager
def gathered(
    spec: ModelSpec, mart: Mart, tables: Iterable[pa.Table], *, scratch: Path | None = None
) -> Iterator[Cohort]:
    """The cohort in ``tables``, whose columns are :func:`columns` and ``load_id``.

    Applies the spec's criteria in order, then leaves out rows whose outcome is not known. The files
    lie in a folder of ``scratch`` and are gone when the block ends, and the cohort with them.
    """
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cohort-", dir=scratch) as folder:
        yield _gather(spec, mart, tables, Path(folder))


def select(spec: ModelSpec, mart: Mart, table: pa.Table) -> Cohort:
    """The cohort in one table, in memory."""
    with gathered(spec, mart, [table.select([*columns(spec, mart), "load_id"])]) as cohort:
        return cohort.take(np.ones(len(cohort), dtype=bool))


def _gather(spec: ModelSpec, mart: Mart, tables: Iterable[pa.Table], folder: Path) -> Cohort:
    kept = _Files(folder)
    flow: Counter[str] = Counter()
    loads: set[str] = set()
    unweighted = mart.weight is None
    names = columns(spec, mart)
    for table in tables:
        checked = check(mart.select(names), table.select(names))
        rows = checked.rows
        flow["rows in the mart"] += table.num_rows
        flow["no longer fits the contract"] += int((~checked.kept).sum())
        within = np.ones(len(checked), dtype=bool)
        for criterion in spec.cohort:
            met = criterion.met(mart[criterion.column], rows)
            flow[criterion.reason.en] += int((within & ~met).sum())
            within &= met
        outcome = spec.outcome.of(mart, rows)
        unknown = np.isnan(outcome)
        flow["outcome not known"] += int((within & unknown).sum())
        within &= ~unknown
        flow["in the cohort"] += int(within.sum())
        loads |= set(table["load_id"].filter(pa.array(checked.kept)).unique().to_pylist())
        for name, values in rows.items():
            if name not in (mart.patient, mart.encounter):
                kept.add(name, values[within])
        kept.add("#outcome", outcome[within])
        kept.add("#patient", _numbered(rows[mart.patient][within]))
        if spec.lookback:
            kept.add(SERIES, _numbered(rows[mart.encounter][within]))
        if spec.triage:
            kept.add("#level", rows[spec.triage.column][within])
            kept.add("#harm", spec.triage.harm.of(mart, rows)[within])
        if mart.weight is not None:
            # A mart that mixes weighted and unweighted rows has no population to speak of.
            unweighted |= bool(np.isnan(rows[mart.weight][within]).any())
    found = kept.arrays()
    if not flow["no longer fits the contract"]:
        del flow["no longer fits the contract"]
    inputs = [name for name in names if name not in (mart.patient, mart.encounter)]
    size = len(found["#outcome"])
    return Cohort(
        rows={name: found[name] for name in (*inputs, *([SERIES] if spec.lookback else []))},
        outcome=found["#outcome"],
        level=found.get("#level"),
        harm=found.get("#harm"),
        patient=found["#patient"],
        site=found[mart.site],
        time=found[mart.time],
        order=np.full(size, np.nan) if mart.order is None else found[mart.order],
        weight=None if mart.weight is None or unweighted else found[mart.weight],
        load_ids=tuple(sorted(loads)),
        flow=tuple(flow.items()),
    )


def _numbered(identifiers: npt.NDArray[np.object_]) -> Codes:
    """A number for each identifier, the same in every batch: 63 bits of its SHA-256."""
    encoded = pc.dictionary_encode(pa.array(identifiers, pa.string()))
    numbers = [
        int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1
        for name in encoded.dictionary.to_pylist()
    ]
    lookup = np.array([*numbers, NOBODY], dtype=np.int64)
    indices = pc.fill_null(encoded.indices, len(numbers)).to_numpy(zero_copy_only=False)
    return np.asarray(lookup[indices])


class _Files:
    """Columns that grow in files. Texts are kept as numbers, each distinct one once in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._types: dict[str, np.dtype[Any]] = {}
        self._texts: dict[str, dict[str | None, int]] = {}

    def add(self, name: str, values: npt.NDArray[Any]) -> None:
        if values.dtype == object:
            known = self._texts.setdefault(name, {None: 0})
            encoded = pc.dictionary_encode(pa.array(values, pa.string()))
            lookup = [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()]
            indices = pc.fill_null(encoded.indices, len(lookup)).to_numpy(zero_copy_only=False)
            values = np.array([*lookup, 0], dtype=np.int32)[indices]
        if name not in self._types:
            self._names.append(name)
            self._types[name] = values.dtype
        with self._path(name).open("ab") as file:
            values.tofile(file)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: self._array(name) for name in self._names}

    def _array(self, name: str) -> npt.NDArray[Any]:
        path = self._path(name)
        empty = not path.stat().st_size  # which cannot be mapped
        kind = self._types[name]
        stored = np.empty(0, kind) if empty else np.memmap(path, kind, mode="r")
        if name not in self._texts:
            return np.asarray(stored)
        return np.array(list(self._texts[name]), dtype=object)[stored]

    def _path(self, name: str) -> Path:
        return self._folder / str(self._names.index(name) if name in self._names else len(self._names))
