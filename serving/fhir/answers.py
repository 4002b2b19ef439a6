"""A prediction as a FHIR RiskAssessment. What is said of it is the same in R4 and R5.

Chances are percentages, as the standard has them. An abstention is an assessment that was not made:
status ``cancelled``, which FHIR has for what was not completed, no ``prediction``, and the reasons
as a note and an extension.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import UNSET

from data.contract import Text
from data.errors import FieldError
from models.spec import ModelSpec
from serving.answers import Abstained, Contribution, Explanation, Prediction, Refused, Scored
from serving.fhir.types import OWN
from serving.scorer import Scorer
from serving.wording import at_least, percent, reason_of, shown

TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"
TOP = 5
"""Contributions that the rationale names; the extension holds them all."""
Json = dict[str, Any]


def risk_assessment(
    scorer: Scorer,
    prediction: Prediction,
    *,
    subject: str,
    encounter: str | None,
    at: datetime,
    basis: Sequence[str],
    warnings: Sequence[FieldError] = (),
) -> Json:
    """The resource. ``subject``, ``encounter`` and ``basis`` are references as the caller wrote them."""
    assert not isinstance(prediction, Refused)  # that is an OperationOutcome
    spec = scorer.artifact.spec
    answer: Json = {
        "resourceType": "RiskAssessment",
        "language": "en",
        "extension": _extensions(prediction),
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{prediction.prediction_id}"}],
        "status": "final" if isinstance(prediction, Scored) else "cancelled",
        "method": _method(scorer),
        "code": _concept(f"{OWN}:model", spec.name, spec.title),
        "subject": {"reference": subject},
        "encounter": {"reference": encounter} if encounter else None,
        "occurrenceDateTime": at.isoformat(timespec="seconds"),
        "performer": {"type": "Device", "display": f"caremodels, {spec.name} {scorer.version}"},
        "basis": [{"reference": reference} for reference in basis],
    }
    if isinstance(prediction, Scored):
        answer["prediction"] = _predictions(spec, prediction)
        answer["mitigation"] = prediction.band.action.en
        answer["_mitigation"] = _translated(prediction.band.action)
    answer["note"] = [{"text": text} for text in _notes(scorer, prediction, warnings)]
    return {name: value for name, value in answer.items() if value not in (None, [], {})}


def _method(scorer: Scorer) -> Json:
    spec = scorer.artifact.spec
    coding = {
        "system": f"{OWN}:model",
        "version": scorer.version,
        "code": spec.name,
        "display": spec.title.en,
        "_display": _translated(spec.title),
    }
    return {"coding": [coding], "text": f"{spec.name} {scorer.version}"}


def _predictions(spec: ModelSpec, answer: Scored) -> list[Json]:
    """The risk; of an ordinal model also the chance of each level, the most urgent first."""
    said = Text(
        f"{spec.outcome.label.en}, {spec.outcome.horizon.en}",
        f"{spec.outcome.horizon.zh}{spec.outcome.label.zh}",
    )
    if answer.level is not UNSET:
        said = at_least(answer.band.label, answer.level)
    first: Json = {
        "outcome": {"text": said.en, "_text": _translated(said)},
        "probabilityDecimal": percent(answer.risk),
        "qualitativeRisk": _concept(f"{OWN}:{spec.name}:band", answer.band.id, answer.band.label),
    }
    if rationale := _rationale(answer.explanation):
        first["rationale"] = rationale
    levels: list[Json] = []
    if spec.triage is not None and answer.probabilities is not UNSET:
        levels = [
            {
                "outcome": _concept(f"{OWN}:{spec.name}:level", str(level.value), level.label),
                "probabilityDecimal": percent(chance),
            }
            for level, chance in zip(spec.triage.levels, answer.probabilities, strict=True)
        ]
    return [first, *levels]


def _rationale(explanation: Explanation) -> str:
    leading = [one for one in explanation.contributions if one.contribution][:TOP]
    return "; ".join(reason_of(one) for one in leading)


def _extensions(prediction: Prediction) -> list[Json]:
    match prediction:
        case Scored():
            return [_explained(prediction.explanation), *_bounds(prediction)]
        case Abstained():
            return [
                _complex(
                    "abstained",
                    ("field", "valueString", reason.field),
                    ("rule", "valueCode", reason.rule),
                    ("reason", "valueString", reason.reason),
                    ("reason-zh", "valueString", reason.reason_zh),
                )
                for reason in prediction.reasons
            ]
    return []


def _explained(explanation: Explanation) -> Json:
    """The whole explanation: sigmoid(base + contributions + other) is the risk, as a share of one."""
    head = _complex(
        "explanation",
        ("space", "valueCode", explanation.space),
        ("base-value", "valueDecimal", explanation.base_value),
        ("other", "valueDecimal", explanation.other),
    )
    head["extension"] += [_contribution(one) for one in explanation.contributions]
    return head


def _contribution(one: Contribution) -> Json:
    inner = _complex(
        "contribution",
        ("feature", "valueString", one.feature),
        ("label", "valueString", one.label.en),
        ("label-zh", "valueString", one.label.zh),
        ("value", "valueString", shown(one.value)),
        ("unit", "valueString", one.unit),
        ("log-odds", "valueDecimal", one.contribution),
    )
    return {**inner, "url": "contribution"}


def _bounds(answer: Scored) -> list[Json]:
    found = []
    if answer.conformal is not UNSET:
        members = [("member", "valueInteger", member) for member in answer.conformal.classes]
        found.append(
            _complex("conformal", *members, ("coverage", "valueDecimal", answer.conformal.coverage))
        )
    if answer.novelty is not UNSET:
        found.append({"url": f"{OWN}:novelty", "valueDecimal": answer.novelty})
    return found


def _complex(name: str, *parts: tuple[str, str, object]) -> Json:
    told = [{"url": url, kind: value} for url, kind, value in parts if value not in (None, "")]
    return {"url": f"{OWN}:{name}", "extension": told}


def _notes(scorer: Scorer, prediction: Prediction, warnings: Sequence[FieldError]) -> list[str]:
    notes = []
    if isinstance(prediction, Abstained):
        notes += [f"No risk is given: {reason.reason}." for reason in prediction.reasons]
        notes += [f"不给出风险：{reason.reason_zh}。" for reason in prediction.reasons]
    elif isinstance(prediction, Scored):
        warnings = [*warnings, *prediction.warnings]
    notes += [f"{warning.field}: {warning.reason}" for warning in dict.fromkeys(warnings)]
    if scorer.notice is not None:
        notes += [scorer.notice.en, scorer.notice.zh]
    return notes


def _concept(system: str, code: str, text: Text) -> Json:
    coding = {"system": system, "code": code, "display": text.en, "_display": _translated(text)}
    return {"coding": [coding], "text": text.en, "_text": _translated(text)}


def _translated(text: Text) -> Json:
    said = [{"url": "lang", "valueCode": "zh"}, {"url": "content", "valueString": text.zh}]
    return {"extension": [{"url": TRANSLATION, "extension": said}]}
