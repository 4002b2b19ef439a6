"""From a typed request to answers and what the log keeps of them. No transport in it.

check -> cohort -> features -> score -> explain, the same check and features as in training.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from data.contract import Checked, check
from data.errors import ContractError, FieldError
from data.pseudonym import keyed_hash
from data.units import converter
from models.artifact import NOTICE, Artifact, Scored
from models.features import show_cell
from serving.schema import Context, PredictRequest

NOBODY = Context()


@dataclass(frozen=True, kw_only=True)
class Answered:
    """``predictions``: one answer an instance. ``records``: one row of the log for each."""

    predictions: list[dict[str, Any]]
    records: tuple[dict[str, object], ...]
    refused: int
    not_additive: int


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
    def notice(self) -> dict[str, str] | None:
        """What every answer says of a model that was not trained for care."""
        demonstration = self.artifact.manifest.provenance.use == "demonstration"
        return asdict(NOTICE) if demonstration else None

    def predict(self, request: PredictRequest, *, caller: str | None = None) -> Answered:
        """Answer each instance on its own: scored, abstained, or refused with its faults.

        Raises ContractError for a unit that no instance could have.
        """
        began = time.perf_counter()
        received = datetime.now(UTC)
        instances = self._in_contract_units(request)
        checked = check(self.artifact.mart.columns, instances)
        within, reasons = self._cohort(checked)
        scored = self.artifact.score({name: v[within] for name, v in checked.rows.items()})
        additive = scored.additive
        faults = checked.faults()
        kept = iter(range(len(checked)))
        ranks = np.cumsum(within) - 1
        predictions, records = [], []
        for position in range(len(instances)):
            context = request.context[position] if request.context else NOBODY
            answer: dict[str, Any] = {"prediction_id": _new_id(received)}
            inputs = None
            rank = None
            if position in faults:
                answer |= {"status": "refused", "errors": [asdict(f) for f in faults[position]]}
            else:
                row = next(kept)
                inputs = {
                    column.name: show_cell(column, checked.rows[column.name][row])
                    for column in self.artifact.mart.columns
                }
                if within[row]:
                    rank = int(ranks[row])
                    answer |= self._scored(scored, rank, checked, row, request.top)
                    if not additive[rank]:
                        answer["warnings"].append(
                            {"field": "explanation", "reason": "does not add up to the risk"}
                        )
                else:
                    answer |= {"status": "abstained", "reasons": reasons[row]}
            predictions.append(answer)
            records.append(self._record(answer, context, inputs, received, scored, rank, caller))
        spent = (time.perf_counter() - began) * 1000 / len(instances)
        return Answered(
            predictions=predictions,
            records=tuple({**record, "latency_ms": spent} for record in records),
            refused=len(faults),
            not_additive=int((~additive).sum()),
        )

    def _in_contract_units(self, request: PredictRequest) -> list[dict[str, Any]]:
        """The instances with every number in the contract's unit."""
        if not request.units:
            return request.instances
        convert: dict[str, Callable[[float], float]] = {}
        faults = []
        for name, unit in request.units.items():
            column = self.artifact.mart.by_name.get(name)
            if column is None:
                faults.append(FieldError(field=f"units.{name}", reason="unknown field"))
                continue
            how = converter(unit, column.unit)
            if how is None or column.kind not in ("number", "integer"):
                wanted = f"cannot be converted to {column.unit}" if column.unit else "has no unit"
                faults.append(FieldError(field=f"units.{name}", reason=wanted))
                continue
            convert[name] = how
        if faults:
            raise ContractError("a unit that cannot be", errors=tuple(faults))
        return [
            {
                name: convert[name](value)
                if name in convert and isinstance(value, int | float) and not isinstance(value, bool)
                else value
                for name, value in instance.items()
            }
            for instance in request.instances
        ]

    def _cohort(self, checked: Checked) -> tuple[npt.NDArray[np.bool_], list[list[dict[str, str]]]]:
        """Mask of the kept rows that the model is for, and for the others why it is not."""
        within = np.ones(len(checked), dtype=bool)
        reasons: list[list[dict[str, str]]] = [[] for _ in within]
        for criterion in self.artifact.spec.at_triage(self.artifact.mart):
            met = criterion.met(self.artifact.mart[criterion.column], checked.rows)
            for row in np.flatnonzero(~met):
                reasons[row].append(
                    {
                        "field": criterion.column,
                        "reason": criterion.reason.en,
                        "reason_zh": criterion.reason.zh,
                    }
                )
            within &= met
        return within, reasons

    def _scored(
        self, scored: Scored, rank: int, checked: Checked, row: int, top: int | None
    ) -> dict[str, Any]:
        risk = float(scored.risk[rank])
        band = self.artifact.spec.band(risk)
        features = self.artifact.features.features
        contributions = scored.contributions[rank]
        order = np.argsort(-np.abs(contributions), kind="stable")
        listed = order if top is None else order[:top]
        values = [feature.show(checked.rows, row) for feature in features]
        return {
            "status": "scored",
            "risk": risk,
            "band": {"id": band.id, "label": asdict(band.label), "action": asdict(band.action)},
            "explanation": {
                "space": "log-odds",
                "base_value": scored.base_value,
                "contributions": [
                    {
                        "feature": features[i].name,
                        "label": asdict(features[i].label),
                        "value": values[i],
                        "unit": features[i].unit,
                        "contribution": float(contributions[i]),
                    }
                    for i in listed
                ],
                "other": float(contributions[order[len(listed) :]].sum()),
            },
            "warnings": [
                {"field": feature.name, "reason": "missing"}
                for feature, value in zip(features, values, strict=True)
                if value is None
            ],
        }

    def _record(
        self,
        answer: Mapping[str, Any],
        context: Context,
        inputs: dict[str, Any] | None,
        received: datetime,
        scored: Scored,
        rank: int | None,
        caller: str | None,
    ) -> dict[str, object]:
        """The log's row. The inputs of a refused instance are not kept: they may be anything."""
        record: dict[str, object] = {
            "prediction_id": answer["prediction_id"],
            "model": self.name,
            "version": self.version,
            "at": context.at or received,
            "received_at": received,
            "site": context.site,
            "patient": self._hashed(context.patient_id, "patient"),
            "encounter": self._hashed(context.encounter_id, "encounter"),
            "status": answer["status"],
            "inputs": None if inputs is None else _json(inputs),
            "groups": _json(context.groups),
            "warnings": _json(answer.get("warnings", [])),
            "reasons": _json(answer.get("errors", answer.get("reasons", []))),
            "caller": caller,
        }
        if rank is not None:
            names = [feature.name for feature in self.artifact.features.features]
            contributions = scored.contributions[rank].tolist()
            record |= {
                "risk": answer["risk"],
                "margin": float(scored.margin[rank]),
                "band": answer["band"]["id"],
                "base_value": scored.base_value,
                "contributions": _json(dict(zip(names, contributions, strict=True))),
            }
        return record

    def _hashed(self, value: str | None, kind: str) -> str | None:
        return None if value is None else keyed_hash(self.key, value, kind=kind)


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
