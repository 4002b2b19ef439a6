"""From a typed request to answers and what the log keeps of them. No transport in it.

read -> cohort -> features -> score -> explain, the same check and features as in training.
"""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from data.contract import Rows, Text
from data.errors import ContractError, FieldError
from data.pseudonym import keyed_hash
from models import support
from models.artifact import Artifact
from models.artifact import Scored as ScoredRows
from models.calibration import sigmoid
from models.feature import Feature, show_cell
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
from serving.reading import Asked, Converters, converters, read, read_series
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
class Ask:
    """One request, and when it came."""

    request: PredictRequest
    receipt: Receipt


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
    """What a version says of some rows: ``sets`` (rows, classes), ``novelty`` a percentile.

    ``withheld``: place of each row that is given no risk, and why.
    """

    scored: ScoredRows
    additive: npt.NDArray[np.bool_]
    sets: npt.NDArray[np.bool_]
    novelty: npt.NDArray[np.float64]
    withheld: dict[int, list[Reason]]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A released version, ready to answer. ``key`` is the one for keyed hashes, ``metrics`` the headline
    of its evaluation.
    """

    artifact: Artifact
    version: str
    key: bytes
    metrics: Mapping[str, Any] = field(default_factory=dict)

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

    @cached_property
    def _shown(self) -> tuple[tuple[Feature, bool], ...]:
        """Each feature, and whether its value is another than the cell of its name."""
        columns = self.artifact.mart.by_name
        features = self.artifact.features.features
        return tuple((feature, self.series or feature.name not in columns) for feature in features)

    def predict(self, request: PredictRequest, receipt: Receipt) -> Answered:
        """Answer each instance, or the one series: scored, abstained, or refused with its faults.

        Raises ContractError for a unit that no instance could have.
        """
        (answered,) = self.predict_all([Ask(request=request, receipt=receipt)])
        if isinstance(answered, ContractError):
            raise answered
        return answered

    def predict_all(self, asks: Sequence[Ask]) -> list[Answered | ContractError]:
        """:meth:`predict` for some requests, whose instances are scored in one go.

        Most of what one instance costs is the same for ten.
        """
        answers: dict[int, Answered | ContractError] = {}
        sound: list[tuple[int, Ask, Converters]] = []
        for position, ask in enumerate(asks):
            try:
                sound.append((position, ask, converters(self.artifact, ask.request.units or {})))
            except ContractError as error:
                answers[position] = error
        # A series is a matrix of its own.
        groups = [[one] for one in sound] if self.series else [sound] if sound else []
        for group in groups:
            places, these, _ = zip(*group, strict=True)
            answers |= zip(places, self._answer(these, self._read(group)), strict=True)
        return [answers[position] for position in range(len(asks))]

    def _read(self, group: Sequence[tuple[int, Ask, Converters]]) -> Asked:
        if self.series:
            ((_, ask, convert),) = group
            return read_series(self.artifact, ask.request, convert)
        return read(self.artifact, [(ask.request, convert) for _, ask, convert in group])

    def _answer(self, asks: Sequence[Ask], asked: Asked) -> Iterator[Answered]:
        """The answer to each of ``asks``, whose instances stand in ``asked`` one after the other."""
        outside = self._outside(asked)
        within = [p for p in range(len(asked.contexts)) if p not in asked.faults and p not in outside]
        found = self._found(asked, np.array(within, dtype=np.intp))
        ranks = {position: rank for rank, position in enumerate(within)}
        outside |= {within[rank]: reasons for rank, reasons in found.withheld.items()}
        first = 0
        for ask in asks:
            last = first + (1 if self.series else len(ask.request.instances))
            predictions, records, unsound = [], [], 0
            for position in range(first, last):
                prediction, record = self._prediction(ask, asked, position, outside, found, ranks)
                predictions.append(prediction)
                records.append(record)
                if isinstance(prediction, Scored):
                    unsound += not found.additive[ranks[position]]
            first = last
            # Of the whole request, up to its place in the log: each patient waited for all of it.
            spent = (time.perf_counter() - ask.receipt.began) * 1000
            yield Answered(
                predictions=predictions,
                records=tuple({**record, "latency_ms": spent} for record in records),
                not_additive=unsound,
            )

    def _prediction(
        self,
        ask: Ask,
        asked: Asked,
        position: int,
        outside: Mapping[int, Sequence[Reason]],
        found: Found,
        ranks: Mapping[int, int],
    ) -> tuple[Prediction, dict[str, object]]:
        """One answer, and the log's row of it."""
        row, prediction_id = int(asked.place[position]), _new_id(ask.receipt.at)
        prediction: Prediction
        record: dict[str, object] = {}
        if position in asked.faults:
            prediction = Refused(prediction_id, asked.faults[position])
            # The inputs of a refused instance are not kept: they may be anything.
            record["reasons"] = self._nameless(asked.faults[position])
        else:
            cells = self._cells(asked.rows, row)
            record["inputs"] = self._inputs(cells, asked.rows, row)
            if position in outside:
                prediction = Abstained(prediction_id, tuple(outside[position]))
                record["reasons"] = _json(prediction.reasons)
            else:
                rank = ranks[position]
                values = [
                    feature.show(asked.rows, row) if apart else cells[feature.name]
                    for feature, apart in self._shown
                ]
                prediction = self._scored(prediction_id, found, rank, values, top=ask.request.top)
                record |= self._scored_record(prediction, found.scored, rank)
            if position in ranks:
                record["novelty"] = float(found.novelty[ranks[position]])
        return prediction, self._record(prediction, asked.contexts[position], ask.receipt) | record

    def _outside(self, asked: Asked) -> dict[int, list[Reason]]:
        """Position of each prediction that the model is not for, and why it is not."""
        whole = np.array([p for p in range(len(asked.place)) if p not in asked.faults], dtype=np.intp)
        rows = {name: values[asked.place[whole]] for name, values in asked.rows.items()}
        reasons: dict[int, list[Reason]] = {}
        for criterion in self.artifact.spec.at_request(self.artifact.mart):
            met = criterion.met(self.artifact.mart[criterion.column], rows)
            for position in whole[~met].tolist():
                why = Reason("cohort", criterion.column, criterion.reason.en, criterion.reason.zh)
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
        sets = self.artifact.sets(rows, scored.margin)
        novelty = self.artifact.novelty.percentile(rows)
        rules = support.broken(self.artifact, rows, matrix, scored.margin, novelty=novelty, sets=sets)
        withheld = support.reasons(self.artifact, rows, rules)
        return Found(
            scored=scored,
            additive=scored.additive,
            sets=sets,
            novelty=novelty,
            withheld={
                place: [Reason(one.rule, one.field, one.why.en, one.why.zh) for one in said]
                for place, said in withheld.items()
            },
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
            for (feature, derived), value in zip(self._shown, values, strict=True)
            if value is None and (self.series or not derived)
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
            "groups": _json({k: v for k, v in (context.groups or {}).items() if v is not None}),
            "warnings": "[]",
            "reasons": "[]",
            "caller": receipt.caller,
            "pointer": "champion",
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
            "level": None if answer.level is UNSET else answer.level,
            "conformal": _json(answer.conformal),
        }

    def _cells(self, rows: Rows, row: int) -> dict[str, Any]:
        """The row as JSON shows it."""
        columns = self.artifact.mart.columns
        return {column.name: show_cell(column, rows[column.name][row]) for column in columns}

    def _inputs(self, cells: dict[str, Any], rows: Rows, row: int) -> str:
        """The row as the log keeps it; of a series also, as ``series``, what was measured before."""
        if not self.series:
            return _json(cells)
        shown = (self._cells(rows, earlier) for earlier in range(row))
        before = [{n: value for n, value in of.items() if value is not None} for of in shown]
        return _json({**cells, "series": before})

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
