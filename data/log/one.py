"""One prediction, whole: what was asked, what was answered, how it was used and what then happened.

Whoever opens one is written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from data.errors import NotFoundError
from data.log import audit
from data.log.schema import feedback, guarded, outcome, prediction
from data.log.seal import Keyring


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A row of the log. Times are naive UTC; ``inputs``, ``contributions`` and ``reasons`` are JSON.

    ``inputs`` are opened, None where none were kept. ``used``: what a clinician said of the card, else
    how the answer was handed over. ``outcome``: the one recorded last, None where none is known.
    """

    prediction_id: str
    model: str
    version: str
    pointer: str
    at: datetime
    site: str | None
    status: str
    risk: float | None
    margin: float | None
    base_value: float | None
    band: str | None
    level: int | None
    novelty: float | None
    contributions: str | None
    inputs: str | None
    reasons: str | None
    used: str
    outcome: int | None


def find(engine: Engine, prediction_id: str, *, keyring: Keyring) -> Prediction:
    """The prediction of that id; that this machine's user asked for it is written down before.

    Raises NotFoundError where there is none, SealedError where ``keyring`` does not open its inputs,
    UnavailableError where the log cannot be read, or written.
    """
    names = [name for name in Prediction.__dataclass_fields__ if name not in ("used", "outcome")]
    with guarded("read"), engine.connect() as connection:
        row = connection.execute(
            select(*(prediction.c[name] for name in names), prediction.c.used).where(
                prediction.c.prediction_id == prediction_id
            )
        ).one_or_none()
        if row is None:
            raise NotFoundError("the prediction log holds no prediction of this id")
        said = connection.scalar(
            select(feedback.c.outcome)
            .where(feedback.c.prediction_id == prediction_id)
            .order_by(feedback.c.occurred_at.desc(), feedback.c.id.desc())
            .limit(1)
        )
        known = connection.scalar(
            select(outcome.c.outcome)
            .where(outcome.c.prediction_id == prediction_id)
            .order_by(outcome.c.id.desc())
            .limit(1)
        )
    audit.record(engine, "open", {"model": row.model, "prediction_id": prediction_id})
    told = dict(row._mapping)  # noqa: SLF001 - public despite its name
    told["used"] = said or told["used"]
    if told["inputs"] is not None:
        told["inputs"] = keyring.open(told["inputs"], bound_to=prediction_id)
    return Prediction(**told, outcome=known)
