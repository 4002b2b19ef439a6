"""Reported outcomes, from the request to rows of the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

from sqlalchemy import Engine

from data.errors import ContractError, FieldError
from data.log.outcomes import OutcomeRow, models_of
from data.pseudonym import keyed_hash
from models import catalog
from models.spec import Triage
from serving.schema import OutcomeItem


def rows(
    items: Sequence[OutcomeItem], key: bytes, engine: Engine, *, sites: Collection[str] | None = None
) -> list[OutcomeRow]:
    """Rows for ``record_outcomes``; identifiers become keyed hashes. Of predictions elsewhere than at
    ``sites`` nothing is said, not even that their model has no levels.

    Raises ContractError where a level does not fit its model or the outcome told with it,
    UnavailableError where the log cannot be read. Blocks while it looks up what was predicted.
    """
    _hold_levels(items, engine, sites)
    return [
        OutcomeRow(
            outcome=item.outcome,
            level=item.level or 0,
            observed_at=item.observed_at,
            prediction_id=item.prediction_id,
            model=item.model,
            encounter=_hashed(key, item.encounter_id),
        )
        for item in items
    ]


def _hashed(key: bytes, encounter_id: str | None) -> str | None:
    return keyed_hash(key, encounter_id, kind="encounter") if encounter_id else None


def _hold_levels(items: Sequence[OutcomeItem], engine: Engine, sites: Collection[str] | None) -> None:
    told = {place: item for place, item in enumerate(items) if item.level is not None}
    names = {item.prediction_id for item in told.values() if item.prediction_id}
    models = models_of(engine, names, sites=sites) if names else {}
    faults = tuple(
        FieldError(field=f"[{place}].level", reason=reason)
        for place, item in told.items()
        if (reason := _broken(item, models)) is not None
    )
    if faults:
        raise ContractError("a level does not fit", errors=faults)


def _broken(item: OutcomeItem, models: Mapping[str, str]) -> str | None:
    """The rule that the level breaks; None of a prediction that the log does not know."""
    model = models.get(item.prediction_id) if item.prediction_id else item.model
    if model is None or item.level is None:
        return None
    triage = _triage(model)
    if triage is None:
        return "the model answers no levels"
    last = len(triage.levels)
    if item.level > last:
        return f"at most {last}"
    if (item.level <= triage.urgent) != (item.outcome == 1):
        return f"with outcome 1 a level up to {triage.urgent}, with outcome 0 one after it"
    return None


@cache
def _triage(model: str) -> Triage | None:
    return catalog.load(model).triage if model in catalog.names() else None
