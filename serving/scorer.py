"""From a typed request to answers and what the log keeps of them. No transport in it.

check -> cohort -> features -> score -> explain, the same check and features as in training.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from data.contract import Checked, Text, check
from data.errors import ContractError, FieldError
from data.pseudonym import keyed_hash
from data.units import converter
from models.artifact import Artifact
from models.artifact import Scored as ScoredRows
from models.features import show_cell
from models.manifest import NOTICE
from serving.answers import (
    Abstained,
    Contribution,
    Explanation,
    NamedBand,
    Prediction,
    Reason,
    Refused,
    Scored,
)
from serving.schema import INSTANCE, Context, Instance, PredictRequest, named, read_instance

NOBODY = Context()
MOST_UNKNOWN = 20
"""Unknown fields of one instance that are named to the caller; the rest are only counted."""
UNKNOWN = "(unknown)"
"""What the log calls a field that nobody declared: a caller may put anything into a name."""
MISSING, NOT_ADDITIVE = "missing", "does not add up to the risk"

Faults = dict[int, tuple[FieldError, ...]]


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
class Scorer:
    """A released version, ready to answer. ``key`` is the one for keyed hashes."""

    artifact: Artifact
    version: str
    key: bytes

    @property
    def name(self) -> str:
        return self.artifact.spec.name

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
        """Answer each instance on its own: scored, abstained, or refused with its faults.

        Raises ContractError for a unit that no instance could have.
        """
        instances, faults, checked = self._checked(request)
        rows = np.cumsum(checked.kept) - 1  # position -> row of ``checked``
        within, reasons = self._cohort(checked)
        within[[rows[position] for position in faults if checked.kept[position]]] = False
        ranks = np.cumsum(within) - 1  # row -> row of ``scored``
        scored = self.artifact.score({name: v[within] for name, v in checked.rows.items()})
        additive = scored.additive
        predictions: list[Prediction] = []
        records = []
        for position in range(len(instances)):
            row, prediction_id = int(rows[position]), _new_id(receipt.at)
            prediction: Prediction
            record: dict[str, object] = {}
            if position in faults:
                prediction = Refused(prediction_id, faults[position])
                # The inputs of a refused instance are not kept: they may be anything.
                record["reasons"] = self._nameless(faults[position])
            else:
                record["inputs"] = self._inputs(checked, row)
                if within[row]:
                    rank = int(ranks[row])
                    values = [f.show(checked.rows, row) for f in self.artifact.features.features]
                    prediction = self._scored(
                        prediction_id, scored, rank, values, top=request.top, sound=bool(additive[rank])
                    )
                    record |= self._scored_record(prediction, scored, rank)
                else:
                    prediction = Abstained(prediction_id, tuple(reasons[row]))
                    record["reasons"] = _json(prediction.reasons)
            predictions.append(prediction)
            context = request.context[position] if request.context else NOBODY
            records.append(self._record(prediction, context, receipt) | record)
        # Of the whole request, up to its place in the log: each patient waited for all of it.
        spent = (time.perf_counter() - receipt.began) * 1000
        return Answered(
            predictions=predictions,
            records=tuple({**record, "latency_ms": spent} for record in records),
            not_additive=int((~additive).sum()),
        )

    def _checked(self, request: PredictRequest) -> tuple[list[Instance], Faults, Checked]:
        """The instances in the contract's units, what is wrong with which, and the typed rows."""
        convert = self._converters(request.units)
        fields = self.artifact.mart.by_name
        instances: list[Instance] = []
        unread: Faults = {}
        unknown: Faults = {}
        for position, raw in enumerate(request.instances):
            instance = read_instance(raw)
            if isinstance(instance, FieldError):
                unread[position] = (instance,)
                instance = {}
            strangers = instance.keys() - fields.keys()
            if strangers:
                unknown[position] = _strangers(strangers)
                instance = {name: instance[name] for name in instance.keys() & fields.keys()}
            for name in convert.keys() & instance.keys():
                if type(instance[name]) in (int, float):
                    with suppress(OverflowError):  # the check refuses what no float holds
                        instance[name] = convert[name](instance[name])
            instances.append(instance)
        checked = check(self.artifact.mart.columns, instances)
        faults = checked.faults()
        for position, found in unknown.items():
            faults[position] = (*faults.get(position, ()), *found)
        return instances, faults | unread, checked

    def _converters(self, units: Mapping[str, str]) -> dict[str, Callable[[float], float]]:
        """Field -> how its numbers come into the contract's unit. Raises ContractError."""
        convert: dict[str, Callable[[float], float]] = {}
        faults = []
        for name, unit in units.items():
            column = self.artifact.mart.by_name.get(name)
            if column is None:
                faults.append(FieldError(field=f"units.{named(name)}", reason="unknown field"))
                continue
            how = converter(unit, column.unit)
            if how is None or column.kind not in ("number", "integer"):
                wanted = f"cannot be converted to {column.unit}" if column.unit else "has no unit"
                faults.append(FieldError(field=f"units.{name}", reason=wanted))
                continue
            convert[name] = how
        if faults:
            raise ContractError("a unit that cannot be", errors=tuple(faults[:MOST_UNKNOWN]))
        return convert

    def _cohort(self, checked: Checked) -> tuple[npt.NDArray[np.bool_], list[list[Reason]]]:
        """Mask of the kept rows that the model is for, and for the others why it is not."""
        within = np.ones(len(checked), dtype=bool)
        reasons: list[list[Reason]] = [[] for _ in within]
        for criterion in self.artifact.spec.at_triage(self.artifact.mart):
            met = criterion.met(self.artifact.mart[criterion.column], checked.rows)
            for row in np.flatnonzero(~met):
                why = Reason(criterion.column, criterion.reason.en, criterion.reason.zh)
                reasons[row].append(why)
            within &= met
        return within, reasons

    def _scored(
        self,
        prediction_id: str,
        scored: ScoredRows,
        rank: int,
        values: Sequence[Any],
        *,
        top: int | None,
        sound: bool,
    ) -> Scored:
        risk = float(scored.risk[rank])
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
        if not sound:
            warnings.append(FieldError(field="explanation", reason=NOT_ADDITIVE))
        return Scored(
            prediction_id=prediction_id,
            risk=risk,
            band=self._bands[self.artifact.spec.band(risk).id],
            explanation=Explanation(
                space="log-odds",
                base_value=scored.base_value,
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
            "encounter": self._hashed(context.encounter_id, "encounter"),
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
            "base_value": scored.base_value,
            "contributions": _json(dict(zip(names, contributions, strict=True))),
            "warnings": _json(answer.warnings),
        }

    def _inputs(self, checked: Checked, row: int) -> str:
        columns = self.artifact.mart.columns
        return _json({c.name: show_cell(c, checked.rows[c.name][row]) for c in columns})

    def _nameless(self, faults: Sequence[FieldError]) -> str:
        """The faults as the log keeps them."""
        fields = self.artifact.mart.by_name
        known = [fault for fault in faults if fault.field in fields or fault.field == INSTANCE]
        strange = [FieldError(field=UNKNOWN, reason="unknown field")] if len(known) < len(faults) else []
        return _json([*known, *strange])

    def _hashed(self, value: str | None, kind: str) -> str | None:
        return None if value is None else keyed_hash(self.key, value, kind=kind)


def _strangers(names: set[str]) -> tuple[FieldError, ...]:
    faults = [
        FieldError(field=named(name), reason="unknown field") for name in sorted(names)[:MOST_UNKNOWN]
    ]
    if len(names) > MOST_UNKNOWN:
        more = f"{len(names) - MOST_UNKNOWN} more unknown fields"
        faults.append(FieldError(field=INSTANCE, reason=more))
    return tuple(faults)


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
