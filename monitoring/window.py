"""A stretch of the prediction log, counted: no row of it goes further than this module.

Inputs become counts on the cells of the version's own reference, for all sites together and for
each site that the reference knows. Only risk, outcome and the patient's keyed hash of answered
rows stay as arrays: performance is resampled by patient. The risk is that of the model's event: of an
ordinal model the log's own ``risk`` is that of the level which was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from sqlalchemy import Engine

from data.contract import Kind
from data.log.read import Pointer, batches, count
from data.log.seal import Keyring
from data.period import Period
from models.artifact import Artifact
from models.calibration import sigmoid
from models.reference import Reference

FloatArray = npt.NDArray[np.float64]
Texts = npt.NDArray[np.object_]
UNDECLARED = "(field that the model does not declare)"
_JSON_TYPES: dict[Kind, Any] = {
    "number": float | None,
    "integer": float | None,
    "flag": bool | None,
    "category": str | None,
    "text": str | None,
    "time": str | None,
}
_FAULTS = msgspec.json.Decoder(list[dict[str, str]])


@dataclass(kw_only=True)
class Counts:
    """One site, or all together. ``cells``: column -> rows in each cell of ``reference``.

    ``refusals`` counts rows by (field, rule), ``refused`` rows by field: a row that breaks two
    rules of one field counts once. ``reference`` is None for a site that the version never knew.
    ``people`` numbers the patient of each row whose cells are counted.
    """

    reference: Reference | None
    status: Counter[str] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    cells: dict[str, npt.NDArray[np.intp]] = field(default_factory=dict)
    people: list[npt.NDArray[np.int64]] = field(default_factory=list)
    outcomes: int = 0
    unreadable: int = 0

    @property
    def rows(self) -> int:
        return self.status.total()

    @property
    def scored(self) -> int:
        return self.status["scored"]

    @property
    def patients(self) -> int:
        """Different people behind the cells; a row that names none stands alone."""
        return len(np.unique(np.concatenate(self.people))) if self.people else 0

    def add(self, column: str, codes: npt.NDArray[np.intp], cells: int) -> None:
        counted = np.bincount(codes, minlength=cells)
        self.cells[column] = self.cells[column] + counted if column in self.cells else counted


@dataclass(frozen=True, kw_only=True)
class Window:
    """``outcome`` (0 or 1), ``risk`` of it and ``patient`` of the scored rows whose outcome is known."""

    period: Period
    whole: Counts
    sites: Mapping[str, Counts]
    outcome: FloatArray
    risk: FloatArray
    patient: npt.NDArray[np.intp]


def read(
    engine: Engine,
    loaded: Artifact,
    version: str,
    period: Period,
    *,
    keyring: Keyring,
    pointer: Pointer = "champion",
    done: Callable[[float], None] = lambda share: None,  # noqa: ARG005 a listener that does not listen
) -> Window:
    """Count the window batch by batch. ``period`` is taken as UTC and goes by the log's ``at``.

    ``pointer``: a version's own answers, or what it silently said to another's requests; never both.
    Inputs that ``keyring`` does not open count as unreadable.

    Raises UnavailableError where the log cannot be read.
    """
    span: dict[str, Any] = {
        "model": loaded.spec.name,
        "start": period.start,
        "end": period.end,
        "version": version,
        "pointer": pointer,
    }
    expected = count(engine, **span)
    counting = _Counting(loaded)
    seen = 0
    for batch in batches(engine, keyring=keyring, **span):
        counting.take(batch)
        seen += batch.num_rows
        done(seen / max(expected, seen))
    return counting.window(period)


def quality(window: Window) -> dict[str, Any]:
    """Rows by status, refusals by field and rule, shares not recorded beside training, sites."""
    whole = window.whole
    assert whole.reference is not None
    return {
        "rows": whole.rows,
        "status": {name: whole.status[name] for name in ("scored", "abstained", "refused")},
        "outcomes": whole.outcomes,
        "unreadable": whole.unreadable,
        "refusals": [
            {
                "field": name,
                "rule": rule,
                "rows": rows,
                "sites": {
                    site: counts.refusals[name, rule]
                    for site, counts in window.sites.items()
                    if counts.refusals[name, rule]
                },
            }
            for (name, rule), rows in whole.refusals.most_common()
        ],
        "missing": [
            {
                "column": binned.column,
                "label": binned.label.en,
                "training": _last_share(binned.counts),
                "window": _last_share(whole.cells.get(binned.column, ())),
            }
            for binned in whole.reference.columns
        ],
        "sites": [
            {
                "site": site,
                "rows": counts.rows,
                **{name: counts.status[name] for name in ("scored", "abstained", "refused")},
                "outcomes": counts.outcomes,
                "training_rows": counts.reference.rows if counts.reference else None,
            }
            for site, counts in window.sites.items()
        ],
    }


def _last_share(counts: Sequence[int] | npt.NDArray[np.intp]) -> float | None:
    """The share of the last cell, which holds the missing."""
    total = int(sum(counts))
    return int(counts[-1]) / total if total else None


class _Counting:
    """What is known of the window so far."""

    def __init__(self, loaded: Artifact) -> None:
        self._reference = loaded.reference
        self._declared = {column.name for column in loaded.mart.columns}
        self._decoder = _decoder(loaded)
        self._whole = Counts(reference=loaded.reference)
        self._sites: dict[str, Counts] = {}
        self._answered: list[tuple[FloatArray, FloatArray]] = []
        self._patients: list[npt.NDArray[np.int64]] = []
        self._nobody = 0

    def take(self, batch: pa.RecordBatch) -> None:
        site = _texts(batch["site"])
        status = _texts(batch["status"])
        self._statuses(site, status, batch)
        scored = np.flatnonzero(status == "scored")
        if not len(scored):
            return
        risk = sigmoid(batch["margin"].to_numpy(zero_copy_only=False)[scored])
        texts = batch["inputs"].to_pylist()
        patient = self._numbered(_texts(batch["patient"])[scored])
        self._inputs([texts[position] for position in scored], site[scored], patient, risk)

        outcome = batch["outcome"].to_numpy(zero_copy_only=False).astype(np.float64)[scored]
        known = ~np.isnan(outcome) & ~np.isnan(risk)
        self._answered.append((outcome[known], risk[known]))
        self._patients.append(patient[known])
        for name, rows in Counter(site[scored[known]]).items():
            for counts in self._slices(name):
                counts.outcomes += rows

    def window(self, period: Period) -> Window:
        empty = np.zeros(0)
        outcome, risk = (
            np.concatenate([empty, *(answered[part] for answered in self._answered)]) for part in (0, 1)
        )
        return Window(
            period=period,
            whole=self._whole,
            sites=dict(sorted(self._sites.items())),
            outcome=outcome,
            risk=risk,
            # In order of appearance: the numbers differ from run to run, the bootstrap must not.
            patient=pd.factorize(np.concatenate([np.zeros(0, np.int64), *self._patients]))[0],
        )

    def _slices(self, site: str | None) -> Iterable[Counts]:
        """All sites together, and ``site``."""
        yield self._whole
        if site is not None:
            if site not in self._sites:
                self._sites[site] = Counts(reference=self._reference.sites.get(site))
            yield self._sites[site]

    def _statuses(self, site: Texts, status: Texts, batch: pa.RecordBatch) -> None:
        for (name, kind), rows in Counter(zip(site, status, strict=True)).items():
            for counts in self._slices(name):
                counts.status[kind] += rows
        refused = np.flatnonzero(status == "refused")
        reasons = batch["reasons"].take(pa.array(refused)).to_pylist()
        for position, text in zip(refused, reasons, strict=True):
            faults = {(self._field(fault["field"]), fault["reason"]) for fault in _faults(text)}
            for counts in self._slices(site[position]):
                counts.refusals.update(faults)
                counts.refused.update({name for name, _ in faults})

    def _field(self, name: str) -> str:
        # A caller may put anything into the name of a field, a patient's included.
        return name if name in self._declared else UNDECLARED

    def _numbered(self, patients: Texts) -> npt.NDArray[np.int64]:
        """A number for each patient, another for each row that names none."""
        first = self._nobody
        self._nobody += len(patients)
        return np.array(
            [hash(first + position if name is None else name) for position, name in enumerate(patients)],
            dtype=np.int64,
        )

    def _inputs(
        self,
        texts: list[str | None],
        site: Texts,
        patient: npt.NDArray[np.int64],
        risk: FloatArray,
    ) -> None:
        """Count the cells of scored rows; the reference is of the same cohort."""
        rows, readable = self._decode(texts)
        for name, lost in Counter(site[~readable]).items():
            for counts in self._slices(name):
                counts.unreadable += lost
        site, patient = site[readable], patient[readable]
        values = {"risk": risk[readable]}
        if rows:
            columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
            for binned, cells in zip(self._reference.columns, columns, strict=True):
                values[binned.column] = np.array(cells, dtype=object if binned.kept else np.float64)
        own = [name for name in set(site) if name in self._reference.sites]
        parts = [(self._whole, slice(None)), *((self._sites[name], site == name) for name in own)]
        for counts, mask in parts:
            assert counts.reference is not None
            counts.people.append(patient[mask])
            for binned in (*counts.reference.columns, counts.reference.risk):
                if binned.column in values:
                    codes = binned.assign(values[binned.column][mask])
                    counts.add(binned.column, codes, len(binned.labels))

    def _decode(self, texts: list[str | None]) -> tuple[list[msgspec.Struct], npt.NDArray[np.bool_]]:
        """The inputs that can be read, and the mask of them."""
        readable = np.array([text is not None for text in texts], dtype=bool)
        joined = ",".join(text for text in texts if text is not None)
        with suppress(msgspec.MsgspecError):
            rows = self._decoder.decode(f"[{joined}]")
            if len(rows) == readable.sum():
                return rows, readable
        rows = []
        for position in np.flatnonzero(readable):
            alone: list[msgspec.Struct] = []
            with suppress(msgspec.MsgspecError):
                alone = self._decoder.decode(f"[{texts[position]}]")
            readable[position] = len(alone) == 1
            rows += alone if len(alone) == 1 else []
        return rows, readable


def _decoder(loaded: Artifact) -> msgspec.json.Decoder[list[msgspec.Struct]]:
    """Typed: a text in the place of a number makes its row unreadable, and nothing fails."""
    fields = [
        (binned.column, _JSON_TYPES[loaded.mart[binned.column].kind], None)
        for binned in loaded.reference.columns
    ]
    return msgspec.json.Decoder(list[msgspec.defstruct("Inputs", fields)])  # type: ignore[misc]


def _faults(text: str | None) -> list[dict[str, str]]:
    try:
        return _FAULTS.decode(text or "[]")
    except msgspec.MsgspecError:
        return []


def _texts(column: pa.Array) -> Texts:
    return np.array(column.to_pylist(), dtype=object)
