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
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xgboost as xgb

from data.contract import Mart, Rows, check, sample
from data.errors import IntegrityError
from models import groups, manifest
from models.calibration import Calibration, sigmoid
from models.comparator import Comparator, score
from models.conformal import Conformal
from models.explain import Explainer, Looked, Walked, explainer
from models.feature import show_cell
from models.features import FeatureMap, Matrix
from models.linear import Logistic, Weighed
from models.manifest import Manifest
from models.novelty import Novelty
from models.ordinal import Ordinal
from models.reference import Reference
from models.spec import ModelSpec, to_json

ADDITIVITY = 1e-5
"""The most by which sigmoid(base + contributions) may miss the risk."""

AGREEMENT = 1e-5
"""The most by which a contribution may differ from XGBoost's own at loading, in log-odds."""

CERTAIN = 60.0
"""Log-odds of the last level or a more urgent one: 1 as a double, and a number that JSON can hold."""

GOLDEN_ROWS = 24
LOGISTIC = "logistic_regression"
TREES = "boosted_trees"

FloatArray = npt.NDArray[np.float64]
Sites = npt.NDArray[np.object_] | None
"""Where each row is from, None where that is not known: the overall intercept."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Answers for some rows. ``margin`` (rows,) is the log-odds of the model's event.

    ``risk`` (rows,) is explained by ``base_value`` (rows,) and ``contributions`` (rows, features), in
    log-odds. It is the chance of the event; of an ordinal model the chance of the row's ``level`` or a
    more urgent one, beside the ``probabilities`` (rows, levels) of each.
    """

    margin: FloatArray
    risk: FloatArray
    base_value: FloatArray
    contributions: FloatArray
    level: npt.NDArray[np.intp] | None = None
    probabilities: FloatArray | None = None

    @property
    def additive(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows whose explanation adds up to their risk, which was computed apart."""
        explained = sigmoid(self.base_value + self.contributions.sum(axis=1))
        return np.asarray(np.abs(explained - self.risk) <= ADDITIVITY)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One fitted model, ready to score. ``spec`` has the bands and the alert that were fitted.

    Trees and logistic regression learned from the same rows. One of them answers, as the spec's
    ``learner`` says; the other is a rival.
    """

    manifest: Manifest
    spec: ModelSpec
    mart: Mart
    booster: xgb.Booster
    calibration: Calibration
    logistic: Logistic
    comparators: tuple[Comparator, ...]
    conformal: Conformal
    novelty: Novelty
    reference: Reference
    ordinal: Ordinal | None = None

    @cached_property
    def features(self) -> FeatureMap:
        return FeatureMap.of(self.mart, self.spec.features, self.spec.lookback)

    @cached_property
    def explainer(self) -> Explainer:
        """What explains the raw margin, feature by feature; made when it is first asked for."""
        widths = [len(feature.parts) for feature in self.features.features]
        output = np.repeat(np.arange(len(widths)), widths)
        if self.spec.learner == "logistic":
            return Weighed(logistic=self.logistic, output=output)
        return explainer(self.booster, output)

    @property
    def rival(self) -> str:
        """The learner that does not answer, by its name among the :meth:`rivals`."""
        return TREES if self.spec.learner == "logistic" else LOGISTIC

    def _raw(self, matrix: Matrix) -> FloatArray:
        """(rows,) the log-odds before calibration."""
        if self.spec.learner == "logistic":
            return self.logistic.log_odds(matrix)
        return self._trees(matrix)

    def _trees(self, matrix: Matrix) -> FloatArray:
        raw = self.booster.inplace_predict(matrix, predict_type="margin")
        return np.asarray(raw, dtype=np.float64)

    def margin(self, matrix: Matrix, site: Sites = None) -> FloatArray:
        """(rows,) the calibrated log-odds of the event."""
        return self.calibration.log_odds(self._raw(matrix), site)

    def risk(self, rows: Rows, site: Sites = None) -> FloatArray:
        """(rows,) the calibrated risk of the event."""
        return sigmoid(self.margin(self.features.matrix(rows), site))

    def score(self, rows: Rows, site: Sites = None) -> Scored:
        """Answers for typed rows; of a series for each hour. ``site``: where each row is from."""
        return self.score_matrix(self.features.matrix(rows), site)

    def score_matrix(self, matrix: Matrix, site: Sites = None) -> Scored:
        """Risk and exact SHAP contributions (of trees path-dependent TreeSHAP, Lundberg 2020).

        The calibration is a straight line, so that each contribution is the learner's own times its
        slope. The risk comes from another routine than the contributions: their agreement is a
        check and no tautology.
        """
        size = len(matrix)
        if not size:
            none = np.empty(0)
            nothing = np.empty((0, len(self.features.features)))
            return Scored(margin=none, risk=none, base_value=none, contributions=nothing)
        margin = self.margin(matrix, site)
        contributions = self.explainer.contributions(matrix) * self.calibration.slope
        return Scored(
            margin=margin,
            risk=self.answered(margin),
            base_value=self.base_value(margin, site),
            contributions=contributions,
            level=None if self.ordinal is None else self.level(margin),
            probabilities=None if self.ordinal is None else self.ordinal.probabilities(margin),
        )

    def answered(self, margin: FloatArray) -> FloatArray:
        """(rows,) the risk that is answered and explained: see :class:`Scored`."""
        if self.ordinal is None:
            return sigmoid(margin)
        at_most = self.ordinal.at_most(margin)
        return np.asarray(at_most[np.arange(len(margin)), self.level(margin) - 1])

    def base_value(self, margin: FloatArray, site: Sites = None) -> FloatArray:
        """(rows,) log-odds before any feature: the mean margin, the site's shift, the level's offset."""
        base = self.calibration.log_odds(np.full(len(margin), self.explainer.bias), site)
        if self.ordinal is None:
            return base
        return np.asarray(base + np.append(self.ordinal.offsets, CERTAIN)[self.level(margin) - 1])

    def level(self, margin: FloatArray) -> npt.NDArray[np.intp]:
        """(rows,) the level of an ordinal model whose event has the log-odds ``margin``."""
        starts = [band.at_least for band in self.spec.bands]
        band = np.searchsorted(starts, sigmoid(margin), side="right") - 1
        return np.asarray([int(band.id) for band in self.spec.bands])[band]

    def sets(self, rows: Rows, margin: FloatArray) -> npt.NDArray[np.bool_]:
        """(rows, classes) the classes that the inputs do not rule out, as ``conformal.classes``."""
        risk = sigmoid(margin)
        shares = (
            np.column_stack([1 - risk, risk])
            if self.ordinal is None
            else self.ordinal.probabilities(margin)
        )
        return self.conformal.sets(shares, groups.crossed(self.spec.subgroups, self.mart, rows))

    def rival_risk(self, matrix: Matrix) -> FloatArray:
        """(rows,) the risks of the learner that does not answer, as it learned them."""
        if self.spec.learner == "logistic":
            return sigmoid(self._trees(matrix))
        return self.logistic.risk(matrix)

    def rivals(self, rows: Rows) -> dict[str, FloatArray]:
        """Name -> (rows,) risks of what a hospital could use instead, on the same rows."""
        found = {self.rival: self.rival_risk(self.features.matrix(rows))}
        for comparator in self.comparators:
            scores = score(comparator.name, rows, self.mart, self.spec.lookback)
            found[comparator.name] = comparator.risk(scores)
        return found


def write(folder: Path, artifact: Artifact, *, evidence: Mapping[str, bytes]) -> None:
    """Write the artifact into the new ``folder``. ``evidence``: further files (evaluation, card)."""
    folder.mkdir(parents=True)
    files = {
        "spec.json": to_json(artifact.spec),
        "mart.json": to_json(artifact.mart),
        "booster.ubj": bytes(artifact.booster.save_raw("ubj")),
        "calibration.json": to_json(artifact.calibration),
        "ordinal.json": to_json(artifact.ordinal),
        "logistic.json": to_json(artifact.logistic),
        "comparators.json": to_json(artifact.comparators),
        "conformal.json": to_json(artifact.conformal),
        "novelty.json": to_json(artifact.novelty),
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
            ordinal=_read(folder / "ordinal.json", Ordinal | None),
            logistic=_read(folder / "logistic.json", Logistic),
            comparators=_read(folder / "comparators.json", tuple[Comparator, ...]),
            conformal=_read(folder / "conformal.json", Conformal),
            novelty=_read(folder / "novelty.json", Novelty),
            reference=_read(folder / "reference.json", Reference),
        )
        golden = _read(folder / "golden.json", list[dict[str, Any]])
    except (msgspec.MsgspecError, xgb.core.XGBoostError) as error:
        raise IntegrityError(f"{folder} cannot be read: {type(error).__name__}") from None
    _replay(artifact, golden)
    return artifact


def _read(path: Path, kind: Any) -> Any:
    return msgspec.json.decode(path.read_bytes(), type=kind)


def _golden(artifact: Artifact) -> list[dict[str, Any]]:
    """Rows that belong to nobody, as a request would send them, and their risks."""
    drawn = sample(artifact.mart, GOLDEN_ROWS, seed=1)
    rows = check(artifact.mart.columns, drawn).rows
    risk = artifact.answered(artifact.margin(artifact.features.matrix(rows)))
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
    if isinstance(artifact.explainer, Looked):
        matrix = artifact.features.matrix(rows)
        walked = Walked(booster=artifact.booster, output=artifact.explainer.output)
        apart = artifact.explainer.contributions(matrix) - walked.contributions(matrix)
        if np.abs(apart).max() > AGREEMENT or abs(artifact.explainer.bias - walked.bias) > AGREEMENT:
            raise IntegrityError(
                f"{artifact.spec.name}: explanations are not XGBoost's on the golden rows"
            )
