"""Which CDS services there are: one a released model and hook, and what each wants to be sent along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.fhir.types import LOINC, OWN
from serving.scorer import Scorer

HOOKS = ("patient-view", "encounter-start")
PANEL = "85354-9"
"""A blood pressure is one Observation with two components, found under the panel's code."""
_PRESSURES = {"8480-6", "8462-4"}
MOST = {False: 100, True: 1000}
"""Observations asked for: of a model of one moment, of a series."""
Prefetch = dict[str, str]


def service_id(model: str, hook: str) -> str:
    return f"{model}-{hook}"


def named(service: str) -> tuple[str, str] | None:
    """Model and hook of a service's id; None for what is no id."""
    for hook in HOOKS:
        model = service.removesuffix(f"-{hook}")
        if model != service and model:
            return model, hook
    return None


def prefetch(scorer: Scorer) -> Prefetch:
    """What the model reads, as templates: only of resources that some input of it is found in."""
    columns = [column for column in scorer.artifact.mart.columns if column.role == "input"]
    places = {column.place.split(".")[0] for column in columns if column.place}
    codes = [code for column in columns for code in column.loincs]
    if _PRESSURES & set(codes):
        codes.append(PANEL)
    mart = scorer.artifact.mart
    uncoded = [c.name for c in columns if not c.loincs and not c.place and c.name != mart.order]
    templates = {"patient": "Patient/{{context.patientId}}"}
    if "Encounter" in places or scorer.series:
        templates["encounter"] = "Encounter/{{context.encounterId}}"
    tokens = ",".join(
        [f"{LOINC[0]}|{code}" for code in codes] + [f"{OWN}:{mart.name}|{name}" for name in uncoded]
    )
    if tokens:
        templates["observations"] = (
            "Observation?patient={{context.patientId}}"
            f"&code={tokens}&_sort=-date&_count={MOST[scorer.series]}"
        )
    if "Condition" in places:
        templates["conditions"] = "Condition?patient={{context.patientId}}&_count=200"
    return templates


def discovery(scorers: Mapping[str, Scorer]) -> dict[str, Any]:
    """The answer to discovery."""
    return {"services": [_service(scorer, hook) for scorer in scorers.values() for hook in HOOKS]}


def _service(scorer: Scorer, hook: str) -> dict[str, Any]:
    spec = scorer.artifact.spec
    needs = (
        "The encounter is that of the stay in intensive care: hours are counted from its start."
        if scorer.series
        else "Without an encounter what only it tells is taken as not known."
    )
    said = f"{spec.intended_use.en} {' '.join(caution.en for caution in spec.cautions)}"
    if scorer.notice is not None:
        said = f"{scorer.notice.en} {said}"
    return {
        "hook": hook,
        "title": spec.title.en,
        "description": said,
        "id": service_id(spec.name, hook),
        "prefetch": prefetch(scorer),
        "usageRequirements": needs,
        "version": scorer.version,
    }
