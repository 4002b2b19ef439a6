"""From a typed request to answers and what the log keeps of them. No transport in it.

read -> cohort -> features -> score -> explain, the same check and features as in training.
"""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from data.contract import Rows, Text
from data.errors import FieldError
from data.pseudonym import keyed_hash
from models.artifact import Artifact
from models.artifact import Scored as ScoredRows
from models.calibration import sigmoid
from models.feature import show_cell
from models.manifest import NOTICE
from serving.answers import (
    Abstained,
    Contribution,
    Explanation,
    Fault,
    NamedBand,
    Prediction,
    PredictionSet,
    Reason,
    Refused,
    Scored,
)
from serving.reading import REFUSED, Asked, read
from serving.schema import INSTANCE, Context, PredictRequest

UNKNOWN = "(unknown)"
"""What the log calls a field that nobody declared: a caller may put anything into a name."""
MISSING, NOT_ADDITIVE = "missing", "does not add up to the risk"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """When a request came, on the calendar and on :func:`time.perf_counter`, and from whom."""

    at: datetime
    began: float
    caller: str | None = None

    @classmethod
    def now(cls, *, caller: str | None = None) -> Receipt:
        return cls(at=datetime.now(UTC), began=time.perf_counter(), caller=caller)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """``predictions``: one answer an instance. ``records``: one row of the log for each."""

    predictions: list[Prediction]
    records: tuple[dict[str, object], ...]
    not_additive: int

    @property
    def refused(self) -> int:
        return sum(isinstance(prediction, Refused) for prediction in self.predictions)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a version says of some rows: ``sets`` (rows, classes), ``novelty`` a percentile."""

    scored: ScoredRows
    additive: npt.NDArray[np.bool_]
    sets: npt.NDArray[np.bool_]
    novelty: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A released version, ready to answer. ``key`` is the one for keyed hashes."""

    artifact: Artifact
    version: str
    key: bytes

    @property
    def name(self) -> str:
        return self.artifact.spec.name

    @property
    def series(self) -> bool:
        """Whether the instances of a request are the rows of one series."""
        return self.artifact.spec.lookback is not None

    @property
    def notice(self) -> Text | None:
        """What every answer says of a model that was not trained for care."""
        demonstration = self.artifact.manifest.provenance.use == "demonstration"
        return NOTICE if demonstration else None

    @cached_property
    def _bands(self) -> dict[str, NamedBand]:
        bands = self.artifact.spec.bands
        return {band.id: NamedBand(band.id, band.label, band.action) for band in bands}

    def predict(self, request: PredictRequest, receipt: Receipt) -> Answered:
        """Answer each instance, or the one series: scored, abstained, or refused with its faults.

        Raises ContractError for a unit that no instance could have.
        """
        asked = read(self.artifact, request)
        outside = self._outside(asked)
        within = [p for p in range(len(asked.contexts)) if p not in asked.faults and p not in outside]
        found = self._found(asked, np.array(within, dtype=np.intp))
        ranks = {position: rank for rank, position in enumerate(within)}
        predictions: list[Prediction] = []
        records = []
        for position, context in enumerate(asked.contexts):
            row, prediction_id = int(asked.place[position]), _new_id(receipt.at)
            prediction: Prediction
            record: dict[str, object] = {}
            if position in asked.faults:
                prediction = Refused(prediction_id, asked.faults[position])
                # The inputs of a refused instance are not kept: they may be anything.
                record["reasons"] = self._nameless(asked.faults[position])
            else:
                record["inputs"] = self._inputs(asked.rows, row)
                if position in outside:
                    prediction = Abstained(prediction_id, tuple(outside[position]))
                    record["reasons"] = _json(prediction.reasons)
                else:
                    rank = ranks[position]
                    values = [f.show(asked.rows, row) for f in self.artifact.features.features]
                    prediction = self._scored(prediction_id, found, rank, values, top=request.top)
                    record |= self._scored_record(prediction, found.scored, rank)
            predictions.append(prediction)
            records.append(self._record(prediction, context, receipt) | record)
        # Of the whole request, up to its place in the log: each patient waited for all of it.
        spent = (time.perf_counter() - receipt.began) * 1000
        return Answered(
            predictions=predictions,
            records=tuple({**record, "latency_ms": spent} for record in records),
            not_additive=int((~found.additive).sum()),
        )

    def _outside(self, asked: Asked) -> dict[int, list[Reason]]:
        """Position of each prediction that the model is not for, and why it is not."""
        whole = np.flatnonzero(asked.place != REFUSED)
        rows = {name: values[asked.place[whole]] for name, values in asked.rows.items()}
        reasons: dict[int, list[Reason]] = {}
        for criterion in self.artifact.spec.at_request(self.artifact.mart):
            met = criterion.met(self.artifact.mart[criterion.column], rows)
            for position in whole[~met].tolist():
                why = Reason(criterion.column, criterion.reason.en, criterion.reason.zh)
                reasons.setdefault(position, []).append(why)
        return reasons

    def _found(self, asked: Asked, positions: npt.NDArray[np.intp]) -> Found:
        """What the version says of the predictions at ``positions``."""
        places = asked.place[positions]
        # All rows make the matrix, since those of a series look back on one another.
        matrix = self.artifact.features.matrix(asked.rows)[places]
        site = np.array([asked.contexts[position].site for position in positions], dtype=object)
        scored = self.artifact.score_matrix(matrix, site)
        rows = {name: values[places] for name, values in asked.rows.items()}
        return Found(
            scored=scored,
            additive=scored.additive,
            sets=self.artifact.sets(rows, scored.margin),
            novelty=self.artifact.novelty.percentile(rows),
        )

    def _scored(
        self,
        prediction_id: str,
        found: Found,
        rank: int,
        values: Sequence[Any],
        *,
        top: int | None,
    ) -> Scored:
        scored, conformal = found.scored, self.artifact.conformal
        features = self.artifact.features.features
        contributions = scored.contributions[rank]
        order = np.argsort(-np.abs(contributions), kind="stable")
        listed = order if top is None else order[:top]
        said = contributions.tolist()
        warnings = [
            FieldError(field=feature.name, reason=MISSING)
            for feature, value in zip(features, values, strict=True)
            if value is None
        ]
        if not found.additive[rank]:
            warnings.append(FieldError(field="explanation", reason=NOT_ADDITIVE))
        return Scored(
            prediction_id=prediction_id,
            risk=float(scored.risk[rank]),
            level=UNSET if scored.level is None else int(scored.level[rank]),
            probabilities=(
                UNSET if scored.probabilities is None else tuple(scored.probabilities[rank].tolist())
            ),
            conformal=PredictionSet(
                tuple(itertools.compress(conformal.classes, found.sets[rank].tolist())),
                conformal.coverage,
            ),
            novelty=float(found.novelty[rank]),
            band=self._bands[self.artifact.spec.band(_event(scored, rank)).id],
            explanation=Explanation(
                space="log-odds",
                base_value=float(scored.base_value[rank]),
                contributions=tuple(
                    Contribution(
                        features[i].name, features[i].label, values[i], features[i].unit, said[i]
                    )
                    for i in listed.tolist()
                ),
                other=float(contributions[order[len(listed) :]].sum()),
            ),
            warnings=tuple(warnings),
        )

    def _record(self, prediction: Prediction, context: Context, receipt: Receipt) -> dict[str, object]:
        """What the log's row holds whatever became of the instance."""
        return {
            "prediction_id": prediction.prediction_id,
            "model": self.name,
            "version": self.version,
            "at": context.at or receipt.at,
            "received_at": receipt.at,
            "site": context.site,
            "patient": self._hashed(context.patient_id, "patient"),
            "encounter": self._hashed(context.encounter_id or context.series_id, "encounter"),
            "status": prediction.__struct_config__.tag,
            "groups": _json(context.groups),
            "warnings": "[]",
            "reasons": "[]",
            "caller": receipt.caller,
        }

    def _scored_record(self, answer: Scored, scored: ScoredRows, rank: int) -> dict[str, object]:
        names = [feature.name for feature in self.artifact.features.features]
        contributions = scored.contributions[rank].tolist()
        return {
            "risk": answer.risk,
            "margin": float(scored.margin[rank]),
            "band": answer.band.id,
            "base_value": answer.explanation.base_value,
            "contributions": _json(dict(zip(names, contributions, strict=True))),
            "warnings": _json(answer.warnings),
        }

    def _inputs(self, rows: Rows, row: int) -> str:
        """The row as the log keeps it; of a series also, as ``series``, what was measured before."""
        columns = self.artifact.mart.columns

        def shown(of: int) -> dict[str, Any]:
            return {column.name: show_cell(column, rows[column.name][of]) for column in columns}

        inputs = shown(row)
        if self.series:
            before = [{n: v for n, v in shown(of).items() if v is not None} for of in range(row)]
            inputs["series"] = before
        return _json(inputs)

    def _nameless(self, faults: Sequence[Fault]) -> str:
        """The faults as the log keeps them: each once, and no name that nobody declared."""
        declared = {*self.artifact.mart.by_name, INSTANCE}
        said = [
            FieldError(field=fault.field, reason=fault.reason)
            if fault.field in declared
            else FieldError(field=UNKNOWN, reason="unknown field")
            for fault in faults
        ]
        return _json(list(dict.fromkeys(said)))

    def _hashed(self, value: str | None, kind: str) -> str | None:
        return None if value is None else keyed_hash(self.key, value, kind=kind)


def _event(scored: ScoredRows, rank: int) -> float:
    """The risk of the model's event, by which its bands are cut."""
    return float(sigmoid(scored.margin[rank : rank + 1])[0])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _new_id(moment: datetime) -> str:
    """A UUID of version 7 (RFC 9562): ordered by time, so that the log's index grows at its end."""
    milliseconds = int(moment.timestamp() * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    bits = (milliseconds << 80) | random
    bits = (bits & ~(0xF << 76)) | (0x7 << 76)
    bits = (bits & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=bits))
