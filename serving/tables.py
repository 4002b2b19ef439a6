"""Answers for a table of rows: what the online scorer says of each, as columns.

The same check, cohort, features and trees as :mod:`serving.scorer`, so that a row's risk is the same
bit for bit wherever it is asked. It runs where the rows are: here, or on Spark's executors.
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

from data.contract import ARROW_TYPES, Checked, Mart, check, sample
from data.errors import ContractError
from models import artifact
from models.artifact import Artifact
from models.calibration import sigmoid
from serving.scorer import NOT_ADDITIVE

STATUS = ("scored", "abstained", "refused")
SCORED, ABSTAINED, REFUSED = range(3)
UNSOUND = f"explanation: {NOT_ADDITIVE}"
CONTRIBUTION = "contribution."
_SENT = "contribution_"
"""How contributions are called on their way: in a name, Spark takes a dot for a step into a struct."""
REASONS = pa.list_(pa.field("element", pa.string()))

_LOADED: dict[str, Loaded] = {}
"""By the manifest's hash: an executor loads a version once and answers many batches with it."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A version in this process's memory, and the base value of all its explanations."""

    artifact: Artifact
    base_value: float


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
        _LOADED[answers.digest] = _load(folder, threads)
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
    def artifact(self) -> Artifact:
        return self._loaded.artifact

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
                ("base_value", pa.float64()),
                ("reasons", REASONS),
                *((f"{_SENT}{feature.name}", pa.float64()) for feature in features),
            ]
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        loaded, size = self.artifact, table.num_rows
        checked = check(loaded.mart.columns, table.select([c.name for c in loaded.mart.columns]))
        within, reasons = _fates(loaded, checked)
        rows = {name: values[within] for name, values in checked.rows.items()}
        positions = np.flatnonzero(checked.kept)[within]
        status = np.full(size, ABSTAINED)
        status[~checked.kept], status[positions] = REFUSED, SCORED

        def spread(values: npt.NDArray[Any]) -> pa.Array:
            """Values of the scored rows at their places; null elsewhere."""
            filled = np.zeros(size, values.dtype)
            filled[positions] = values
            return pa.array(filled, mask=status != SCORED)

        explained = {}
        if self.explain:
            scored = loaded.score(rows)
            margin, risk = scored.margin, scored.risk
            for position in positions[~scored.additive]:
                reasons[position] = [UNSOUND]
            for feature, values in zip(loaded.features.features, scored.contributions.T, strict=True):
                explained[f"{_SENT}{feature.name}"] = spread(values)
        else:
            margin = loaded.margin(loaded.features.matrix(rows)) if len(positions) else np.empty(0)
            risk = sigmoid(margin)
        bands = loaded.spec.bands
        band = np.searchsorted([band.at_least for band in bands], risk, side="right") - 1
        return pa.table(
            {
                **{name: table[name] for name in self.passed},
                "model": pa.repeat(loaded.spec.name, size),
                "version": pa.repeat(self.version, size),
                "status": pa.array(STATUS).take(pa.array(status)),
                "risk": spread(risk),
                "margin": spread(margin),
                "band": pa.array([band.id for band in bands]).take(spread(band)),
                "base_value": spread(np.full(len(positions), self._loaded.base_value)),
                "reasons": pa.array(reasons, REASONS),
                **explained,
            }
        )

    @property
    def _loaded(self) -> Loaded:
        if self.digest not in _LOADED:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self.files.items():
                    Path(folder, name).write_bytes(content)
                # An executor has a core for each task.
                _LOADED[self.digest] = _load(Path(folder), threads=1)
        return _LOADED[self.digest]


def named(schema: pa.Schema) -> pa.Schema:
    """The answers' columns as the file names them. Log-odds: margin, base_value, contributions."""
    names = [name.replace(_SENT, CONTRIBUTION, 1) for name in schema.names]
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def _load(folder: Path, threads: int) -> Loaded:
    loaded = artifact.load(folder, threads=threads)
    anybody = check(loaded.mart.columns, sample(loaded.mart, 1, seed=1)).rows
    return Loaded(artifact=loaded, base_value=loaded.score(anybody).base_value)


def _fates(loaded: Artifact, checked: Checked) -> tuple[npt.NDArray[np.bool_], list[list[str]]]:
    """Mask of the kept rows that the model is for; for every row why it is not scored."""
    reasons: list[list[str]] = [[] for _ in checked.kept]
    for position, faults in checked.faults().items():
        reasons[position] = [f"{fault.field}: {fault.reason}" for fault in faults]
    kept = np.flatnonzero(checked.kept)
    within = np.ones(len(kept), dtype=bool)
    for criterion in loaded.spec.at_triage(loaded.mart):
        met = criterion.met(loaded.mart[criterion.column], checked.rows)
        for position in kept[~met]:
            reasons[position].append(criterion.reason.en)
        within &= met
    return within, reasons
