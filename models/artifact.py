"""A fitted model as a folder of plain files: write, load, verify, score, explain.

No pickle: XGBoost's own UBJSON and JSON. ``manifest.json`` holds the hash of every other file and
is read and checked before anything is built from them. What production needs is all here: the
spec and the contract of its inputs are stored with the trees that were grown under them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import xgboost as xgb

from data.contract import Mart, Rows, check, sample
from data.errors import IntegrityError
from models import manifest
from models.calibration import Calibration, sigmoid
from models.features import FeatureMap, Matrix, show_cell
from models.linear import Logistic
from models.manifest import Manifest
from models.reference import Reference
from models.spec import ModelSpec, to_json

ADDITIVITY = 1e-5
"""The most by which sigmoid(base + contributions) may miss the risk."""

GOLDEN_ROWS = 24

FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Answers for some rows. ``contributions`` is (rows, features), in log-odds."""

    margin: FloatArray
    risk: FloatArray
    base_value: float
    contributions: FloatArray

    @property
    def additive(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows whose explanation adds up to their risk, which was computed apart."""
        explained = sigmoid(self.base_value + self.contributions.sum(axis=1))
        return np.asarray(np.abs(explained - self.risk) <= ADDITIVITY)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One fitted model, ready to score."""

    manifest: Manifest
    spec: ModelSpec
    mart: Mart
    booster: xgb.Booster
    calibration: Calibration
    logistic: Logistic
    reference: Reference

    @cached_property
    def features(self) -> FeatureMap:
        return FeatureMap.of(self.mart, self.spec.features)

    def margin(self, matrix: Matrix) -> FloatArray:
        """(rows,) the calibrated log-odds."""
        raw = self.booster.inplace_predict(matrix, predict_type="margin")
        return self.calibration.log_odds(np.asarray(raw, dtype=np.float64))

    def risk(self, rows: Rows) -> FloatArray:
        """(rows,) the calibrated risk."""
        return sigmoid(self.margin(self.features.matrix(rows)))

    def score(self, rows: Rows) -> Scored:
        """Risk and exact SHAP contributions (path-dependent TreeSHAP, Lundberg 2020).

        The calibration is a straight line, so that each contribution is the tree's own times its
        slope. The risk comes from another routine than the contributions: their agreement is a
        check and no tautology.
        """
        matrix = self.features.matrix(rows)
        if not len(matrix):
            none = np.empty(0)
            return Scored(
                margin=none,
                risk=none,
                base_value=0.0,
                contributions=np.empty((0, len(self.features.features))),
            )
        margin = self.margin(matrix)
        parts = self.booster.predict(xgb.DMatrix(matrix, nthread=1), pred_contribs=True).astype(
            np.float64
        )
        contributions = self.features.by_feature(parts[:, :-1]) * self.calibration.slope
        bias = parts[:1, -1]  # the same in every row
        return Scored(
            margin=margin,
            risk=sigmoid(margin),
            base_value=float(self.calibration.log_odds(bias)[0]),
            contributions=contributions,
        )


def write(folder: Path, artifact: Artifact, *, evidence: Mapping[str, bytes]) -> None:
    """Write the artifact into the new ``folder``. ``evidence``: further files (evaluation, card)."""
    folder.mkdir(parents=True)
    files = {
        "spec.json": to_json(artifact.spec),
        "mart.json": to_json(artifact.mart),
        "booster.ubj": bytes(artifact.booster.save_raw("ubj")),
        "calibration.json": to_json(artifact.calibration),
        "logistic.json": to_json(artifact.logistic),
        "reference.json": to_json(artifact.reference),
        "golden.json": msgspec.json.encode(_golden(artifact)),
        **evidence,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    stored = replace(artifact.manifest, files=hashes)
    (folder / "manifest.json").write_bytes(to_json(stored))


def load(folder: Path, *, threads: int = 1) -> Artifact:
    """Read an artifact whose files are the ones that were written, then replay its golden rows.

    Raises NotFoundError where there is none, IntegrityError naming the file that changed or
    saying that this machine answers differently.
    """
    stored = manifest.verify(folder)
    booster = xgb.Booster({"nthread": threads})
    try:
        booster.load_model(bytearray((folder / "booster.ubj").read_bytes()))
        artifact = Artifact(
            manifest=stored,
            spec=_read(folder / "spec.json", ModelSpec),
            mart=_read(folder / "mart.json", Mart),
            booster=booster,
            calibration=_read(folder / "calibration.json", Calibration),
            logistic=_read(folder / "logistic.json", Logistic),
            reference=_read(folder / "reference.json", Reference),
        )
        golden = _read(folder / "golden.json", list[dict[str, Any]])
    except (msgspec.MsgspecError, xgb.core.XGBoostError) as error:
        raise IntegrityError(f"{folder} cannot be read: {type(error).__name__}") from None
    _replay(artifact, golden)
    return artifact


def _read(path: Path, kind: type[T]) -> T:
    return msgspec.json.decode(path.read_bytes(), type=kind)


def _golden(artifact: Artifact) -> list[dict[str, Any]]:
    """Rows that belong to nobody, as a request would send them, and their risks."""
    drawn = sample(artifact.mart, GOLDEN_ROWS, seed=1)
    rows = check(artifact.mart.columns, drawn).rows
    risk = artifact.risk(rows)
    return [
        {
            "instance": {c.name: show_cell(c, rows[c.name][i]) for c in artifact.mart.columns},
            "risk": float(risk[i]),
        }
        for i in range(GOLDEN_ROWS)
    ]


def _replay(artifact: Artifact, golden: list[dict[str, Any]]) -> None:
    rows = check(artifact.mart.columns, [row["instance"] for row in golden]).rows
    expected = np.array([row["risk"] for row in golden])
    scored = artifact.score(rows)
    if len(scored.risk) != len(expected) or np.abs(scored.risk - expected).max() > 1e-9:
        raise IntegrityError(f"{artifact.spec.name}: the golden rows are answered differently here")
    if not scored.additive.all():
        raise IntegrityError(f"{artifact.spec.name}: explanations do not add up on the golden rows")
