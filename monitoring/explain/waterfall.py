"""One prediction: its waterfall, reconstructed from the log and computed again.

The log holds the inputs as they were scored, the version and the explanation that was answered. The
version's files are in its release, so that the same numbers come out, bit for bit, years later: where
they do not, that is said. Each value stands beside the version's training patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from data.contract import Rows, check
from data.errors import IntegrityError, NotEnoughDataError
from data.log.one import Prediction
from models.artifact import Artifact, Scored
from models.reference import Binned


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One step. ``percentile``: of 100 training patients with a value, how many lie in a lower cell, and
    how many in that of this value or a lower one; None of a category. ``share``: of the training
    patients, those in the same cell. Both None of what is no column of its own.
    """

    feature: str
    label: dict[str, str]
    value: Any
    unit: str | None
    contribution: float
    percentile: tuple[float, float] | None
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Waterfall:
    """What ``caremodels explain --prediction --json`` prints.

    Where no risk was given, ``withheld`` says why and there are no ``reasons``. ``exact``: computed
    again it is the same, bit for bit; else ``apart`` is by how much the risks differ.
    """

    prediction_id: str
    model: str
    version: str
    pointer: str
    at: str
    site: str | None
    status: str
    used: str
    outcome: int | None
    risk: float | None = None
    percentile: tuple[float, float] | None = None
    band: dict[str, str] | None = None
    level: int | None = None
    novelty: float | None = None
    base_value: float | None = None
    reasons: tuple[Reason, ...] = ()
    withheld: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    exact: bool | None = None
    apart: float | None = None


def waterfall(loaded: Artifact, told: Prediction) -> Waterfall:
    """Of a prediction of the version ``loaded``.

    Raises NotEnoughDataError where its inputs were purged, IntegrityError where what the log holds is
    no row of the version's.
    """
    known: dict[str, Any] = {
        "prediction_id": told.prediction_id,
        "model": told.model,
        "version": told.version,
        "pointer": told.pointer,
        "at": f"{told.at:%Y-%m-%dT%H:%M:%SZ}",
        "site": told.site,
        "status": told.status,
        "used": told.used,
        "outcome": told.outcome,
    }
    if told.status != "scored":
        return Waterfall(**known, withheld=tuple(_read(told.reasons or "[]", list[dict[str, Any]])))
    if told.inputs is None:
        raise NotEnoughDataError(
            "the inputs of this prediction were purged: its reasons cannot be shown"
        )
    rows = _rows(loaded, told.inputs)
    last = len(rows[loaded.features.inputs[0]]) - 1
    matrix = loaded.features.matrix(rows)[-1:]  # of a series the last hour is the one that was asked for
    scored = loaded.score_matrix(matrix, np.array([told.site], dtype=object))
    band = next((one for one in loaded.spec.bands if one.id == told.band), None)
    return Waterfall(
        **known,
        risk=told.risk,
        percentile=_percentile(loaded.reference.risk, told.risk),
        band=None if band is None else {"en": band.label.en, "zh": band.label.zh},
        level=told.level,
        novelty=told.novelty,
        base_value=float(scored.base_value[0]),
        reasons=tuple(_reasons(loaded, rows, last, scored.contributions[0].tolist())),
        exact=_exact(loaded, told, scored),
        apart=abs(float(scored.risk[0]) - (told.risk or 0.0)),
    )


def _rows(loaded: Artifact, inputs: str) -> Rows:
    cells = _read(inputs, dict[str, Any])
    before = cells.pop("series", [])
    checked = check(loaded.mart.columns, [*before, cells])
    if checked.refused:
        columns = {refusal.column for refusal in checked.refused}
        named = ", ".join(sorted(columns & loaded.mart.by_name.keys())) or "an unknown field"
        raise IntegrityError(f"what the log holds is no row of {loaded.spec.name}: {named}")
    return checked.rows


def _read(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError):
        raise IntegrityError("what the log holds of this prediction cannot be read") from None


def _exact(loaded: Artifact, told: Prediction, scored: Scored) -> bool:
    """Whether margin, risk, base value and each contribution are those that were logged."""
    names = [feature.name for feature in loaded.features.features]
    then = _read(told.contributions or "{}", dict[str, float])
    now = dict(zip(names, scored.contributions[0].tolist(), strict=True))
    numbers = (told.margin, told.risk, told.base_value)
    again = (scored.margin[0], scored.risk[0], scored.base_value[0])
    return then == now and numbers == tuple(map(float, again))


def _reasons(loaded: Artifact, rows: Rows, last: int, contributions: Sequence[float]) -> list[Reason]:
    """The steps, the largest first."""
    binned: Mapping[str, Binned] = {one.column: one for one in loaded.reference.columns}
    found = []
    for feature, contribution in zip(loaded.features.features, contributions, strict=True):
        value = feature.show(rows, last)
        own = binned.get(feature.name)
        found.append(
            Reason(
                feature=feature.name,
                label={"en": feature.label.en, "zh": feature.label.zh},
                value=value,
                unit=feature.unit,
                contribution=contribution,
                percentile=None if own is None or own.kept else _percentile(own, value),
                share=None if own is None else _share(own, value),
            )
        )
    return sorted(found, key=lambda reason: -abs(reason.contribution))


def _percentile(binned: Binned, value: float | None) -> tuple[float, float] | None:
    """Where a number lies among those at training, as its cells tell.

    >>> from data.contract import Text
    >>> age = Binned(
    ...     column="age", label=Text("", ""), labels=("under 40", "40-64", "65+", "missing"),
    ...     counts=(50, 30, 20, 7), edges=(40.0, 65.0),
    ... )
    >>> _percentile(age, 50), _percentile(age, None)
    ((50.0, 80.0), None)
    """
    known = np.array(binned.counts[:-1], dtype=np.float64)
    if value is None or not known.sum():
        return None
    cell = int(binned.assign([value])[0])
    ends = 100 * np.cumsum(known) / known.sum()
    return float(ends[cell] - 100 * known[cell] / known.sum()), float(ends[cell])


def _share(binned: Binned, value: Any) -> float | None:
    total = sum(binned.counts)
    return binned.counts[int(binned.assign([value])[0])] / total if total else None
