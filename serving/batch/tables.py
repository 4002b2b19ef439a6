"""Answers for a table of rows: what the online scorer says of each, as columns.

The same check, cohort, features and trees as :mod:`serving.scorer`, so that a row's risk is the same
bit for bit wherever it is asked. It runs where the rows are: here, or on Spark's executors. Of a series
each row is answered as a request would be that sends it with the hours that it looks back on.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.contract import ARROW_TYPES, Checked, Mart, check
from data.errors import ContractError
from models import artifact, support
from models.artifact import Artifact
from models.calibration import sigmoid
from models.series import SERIES, Line
from serving.scorer import NOT_ADDITIVE

STATUS = ("scored", "abstained", "refused")
SCORED, ABSTAINED, REFUSED = range(3)
UNSOUND = f"explanation: {NOT_ADDITIVE}"
BROKEN = "series: an earlier hour is refused"
CONTRIBUTION = "contribution."
_SENT = "contribution_"
"""How contributions are called on their way: in a name, Spark takes a dot for a step into a struct."""
REASONS = pa.list_(pa.field("element", pa.string()))

_LOADED: dict[str, Artifact] = {}
"""By the manifest's hash: an executor loads a version once and answers many batches with it."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A table of the mart's rows in, a table of answers out: one a row, in their order.

    It travels to where the rows are with the version's ``files`` as bytes: an executor shares no
    home with the driver. ``passed`` are the columns handed through as they are.
    """

    files: Mapping[str, bytes]
    version: str
    passed: tuple[str, ...]
    explain: bool

    @classmethod
    def of(cls, folder: Path, *, version: str, mart: Mart, explain: bool, threads: int) -> Answers:
        """The version in ``folder`` about rows of ``mart``, verified and loaded in this process.

        Raises ContractError where the mart has lost a column that the version reads.
        """
        names = ("manifest.json", *artifact.load(folder).manifest.files)
        order = [mart.order] if mart.order else []
        answers = cls(
            files={name: (folder / name).read_bytes() for name in names},
            version=version,
            passed=tuple(dict.fromkeys([*mart.key, mart.site, mart.time, *order])),
            explain=explain,
        )
        _LOADED[answers.digest] = artifact.load(folder, threads=threads)
        own = answers.artifact.mart
        if lost := [column.name for column in own.columns if column.name not in mart.by_name]:
            raise ContractError(
                f"{own.name} has no column {', '.join(lost)}, which version {version} reads"
            )
        return answers

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds the hashes of all other files."""
        return hashlib.sha256(self.files["manifest.json"]).hexdigest()

    @property
    def series(self) -> bool:
        """Whether rows look back on one another."""
        return self.artifact.spec.lookback is not None

    @property
    def columns(self) -> list[str]:
        """The mart's columns to read."""
        own = [column.name for column in self.artifact.mart.columns]
        return list(dict.fromkeys([*self.passed, *own]))

    def schema(self, mart: Mart) -> pa.Schema:
        """The columns of what is answered, to be :func:`named` once they are here."""
        features = self.artifact.features.features if self.explain else ()
        return pa.schema(
            [
                *((name, ARROW_TYPES[mart[name].kind]) for name in self.passed),
                ("model", pa.string()),
                ("version", pa.string()),
                ("status", pa.string()),
                ("risk", pa.float64()),
                ("margin", pa.float64()),
                ("band", pa.string()),
                *([("level", pa.int64())] if self._levels else []),
                *((name, pa.float64()) for name in self._levels),
                ("base_value", pa.float64()),
                ("reasons", REASONS),
                *((f"{_SENT}{feature.name}", pa.float64()) for feature in features),
            ]
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """The answers to the rows of ``table``, which parts no series."""
        loaded, size = self.artifact, table.num_rows
        checked = check(loaded.mart.columns, table.select([c.name for c in loaded.mart.columns]))
        status, reasons = _fates(loaded, checked)
        rows = checked.rows
        if self.series:
            series = _numbered(table[loaded.mart.encounter])
            rows = {**rows, SERIES: series[checked.kept]}
            for position in _broken(loaded, checked, table, series):
                status[position], reasons[position] = REFUSED, [BROKEN]
        positions = np.flatnonzero(status == SCORED)
        # All rows make the matrix, since those of a series look back on one another.
        place = (np.cumsum(checked.kept) - 1)[positions]
        matrix = loaded.features.matrix(rows)[place]
        site = table[loaded.mart.site].to_numpy()[positions]

        scored = loaded.score_matrix(matrix, site) if self.explain else None
        if scored is not None:
            margin = scored.margin
            for position in positions[~scored.additive]:
                reasons[position] = [UNSOUND]
        else:
            margin = loaded.margin(matrix, site) if len(positions) else np.empty(0)
        asked = {name: values[place] for name, values in rows.items()}
        withheld = support.reasons(loaded, asked, support.broken(loaded, asked, matrix, margin))
        for rank, said in withheld.items():
            status[positions[rank]] = ABSTAINED
            reasons[positions[rank]] = [f"{one.field}: {one.why.en}" for one in said]

        def spread(values: npt.NDArray[Any]) -> pa.Array:
            """Values of the scored rows at their places; null elsewhere."""
            filled = np.zeros(size, values.dtype)
            filled[positions] = values
            return pa.array(filled, mask=status != SCORED)

        explained = {}
        if scored is not None:
            for feature, values in zip(loaded.features.features, scored.contributions.T, strict=True):
                explained[f"{_SENT}{feature.name}"] = spread(values)
        bands = loaded.spec.bands
        band = np.searchsorted([band.at_least for band in bands], sigmoid(margin), side="right") - 1
        levels = {}
        if loaded.ordinal is not None:
            chances = loaded.ordinal.probabilities(margin).T
            levels = {"level": spread(loaded.level(margin))}
            levels |= {name: spread(of) for name, of in zip(self._levels, chances, strict=True)}
        return pa.table(
            {
                **{name: table[name] for name in self.passed},
                "model": pa.repeat(loaded.spec.name, size),
                "version": pa.repeat(self.version, size),
                "status": pa.array(STATUS).take(pa.array(status)),
                "risk": spread(loaded.answered(margin)),
                "margin": spread(margin),
                "band": pa.array([band.id for band in bands]).take(spread(band)),
                **levels,
                "base_value": spread(loaded.base_value(margin, site)),
                "reasons": pa.array(reasons, REASONS),
                **explained,
            }
        )

    @property
    def _levels(self) -> list[str]:
        """Columns for the chance of each level, the most urgent first; of ordinal models alone."""
        triage = self.artifact.spec.triage
        return [f"p{level.value}" for level in triage.levels] if triage else []

    @property
    def artifact(self) -> Artifact:
        """The version, loaded once a process."""
        if self.digest not in _LOADED:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self.files.items():
                    Path(folder, name).write_bytes(content)
                # An executor has a core for each task.
                _LOADED[self.digest] = artifact.load(Path(folder), threads=1)
        return _LOADED[self.digest]


def named(schema: pa.Schema) -> pa.Schema:
    """The answers' columns as the file names them. Log-odds: margin, base_value, contributions."""
    names = [name.replace(_SENT, CONTRIBUTION, 1) for name in schema.names]
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def _fates(loaded: Artifact, checked: Checked) -> tuple[npt.NDArray[np.intp], list[list[str]]]:
    """What becomes of each row, and why where it is not scored."""
    status = np.where(checked.kept, SCORED, REFUSED)
    reasons: list[list[str]] = [[] for _ in status]
    for position, faults in checked.faults().items():
        reasons[position] = [f"{fault.field}: {fault.reason}" for fault in faults]
    kept = np.flatnonzero(checked.kept)
    for criterion in loaded.spec.at_request(loaded.mart):
        met = criterion.met(loaded.mart[criterion.column], checked.rows)
        for position in kept[~met]:
            status[position] = ABSTAINED
            reasons[position].append(f"{criterion.column}: {criterion.reason.en}")
    return status, reasons


def _numbered(identifiers: pa.ChunkedArray) -> npt.NDArray[np.intp]:
    """A number for each distinct identifier."""
    return np.asarray(pc.index_in(identifiers, identifiers.unique()).to_numpy(), dtype=np.intp)


def _broken(
    loaded: Artifact, checked: Checked, table: pa.Table, series: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Positions of the rows that look back on a refused one: a request with it would be refused."""
    lookback, hour = loaded.spec.lookback, loaded.mart.order
    assert lookback  # without either there are no features of a series
    assert hour
    hours = {hour: table[hour].to_numpy(), SERIES: series}
    place = Line.of(hours, hour=hour, lookback=lookback).place
    refused = np.maximum.accumulate(np.where(checked.kept, -lookback, place))
    return np.flatnonzero(checked.kept & (place - refused < lookback))
