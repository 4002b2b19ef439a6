"""A prediction as a CDS Hooks card. Pure: no request, no log in it.

The indicator is the one that the spec declares for the band; a band without one shows no card. Where no
band of a model declares any, the bands from the alert's threshold up are warnings and the others are
information. An abstention shows no card to a patient whom the model is not for, and otherwise one that
says that no risk is given and why.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from data.errors import FieldError
from models.spec import Card, ModelSpec
from serving.answers import Abstained, Contribution, Prediction, Scored
from serving.fhir.types import OWN
from serving.scorer import MISSING, Scorer
from serving.wording import at_least, measured, rounded

LONGEST_SUMMARY = 139
TOP = 5
MOST_MISSING = 6
EXTENSION = "example.caremodels.prediction"
"""A reverse-domain name that can be nobody's: the project has no domain."""
OVERRIDE_REASONS = tuple(
    {"system": f"{OWN}:override-reason", "code": code, "display": display}
    for code, display in (
        ("already-done", "Already done"),
        ("other-judgement", "I judge the risk differently"),
        ("wrong-data", "The data are wrong or out of date"),
        ("not-suitable", "Not suitable for this patient"),
        ("no-capacity", "No bed, staff or equipment for it"),
    )
)
Json = dict[str, Any]


def indicator(spec: ModelSpec, prediction: Prediction) -> Card | None:
    """How urgently a card says it; None where none is shown."""
    match prediction:
        case Scored():
            band = next(band for band in spec.bands if band.id == prediction.band.id)
            if any(other.card for other in spec.bands):
                return band.card
            return "warning" if band.at_least >= spec.alert_at else "info"
        case Abstained() if all(reason.rule != "cohort" for reason in prediction.reasons):
            return "info"
    return None


def card(
    scorer: Scorer, prediction: Prediction, *, warnings: Sequence[FieldError], page: str
) -> Json | None:
    """The card, or None. ``page`` is the address of the model's own card."""
    spec = scorer.artifact.spec
    urgency = indicator(spec, prediction)
    if urgency is None or not isinstance(prediction, Scored | Abstained):
        return None
    said = _scored(scorer, prediction) if isinstance(prediction, Scored) else _abstained(prediction)
    title = spec.title.en
    demonstration = "Demonstration. " if scorer.notice is not None else ""
    summary = f"{demonstration}{said['summary'] or f'{title}: no risk is given'}"
    closing = [_limits(scorer, prediction, warnings), _signed(scorer, prediction)]
    shown: Json = {
        "uuid": prediction.prediction_id,
        "summary": _short(summary, LONGEST_SUMMARY),
        "detail": "\n\n".join(part for part in (*said["detail"], *closing) if part),
        "indicator": urgency,
        "source": {
            "label": f"caremodels: {title}",
            "url": page,
            "topic": {"system": f"{OWN}:model", "code": spec.name, "display": title},
        },
        "links": [
            {"label": "What this model is, and what it is worth", "url": page, "type": "absolute"}
        ],
        "extension": {EXTENSION: _whole(scorer, prediction)},
    }
    if isinstance(prediction, Scored):
        # A suggestion without an action: what is accepted is the advice, which orders nothing.
        shown["suggestions"] = [
            {
                "label": prediction.band.action.en,
                "uuid": str(uuid.uuid5(uuid.UUID(prediction.prediction_id), "advice")),
            }
        ]
        shown["selectionBehavior"] = "at-most-one"
        shown["overrideReasons"] = list(OVERRIDE_REASONS)
    said_whole: Json = pruned(shown)
    return said_whole


def pruned(value: Any) -> Any:
    """``value`` without nulls and empty texts, lists and objects, which an answer may not hold."""
    if isinstance(value, dict):
        kept = {name: pruned(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner not in (None, "", [], {})}
    if isinstance(value, list | tuple):
        return [inner for inner in map(pruned, value) if inner not in (None, "", [], {})]
    return value


def _scored(scorer: Scorer, answer: Scored) -> Json:
    spec, band = scorer.artifact.spec, answer.band
    outcome = f"{spec.outcome.label.en}, {spec.outcome.horizon.en}"
    if answer.level is UNSET:
        summary = f"{rounded(answer.risk)} risk ({band.label.en.lower()}): {outcome}"
        chance = f"{rounded(answer.risk)}: {outcome}"
    else:
        summary = f"{spec.title.en}: {band.label.en}"
        chance = f"{rounded(answer.risk)}: {at_least(band.label, answer.level).en}"
    leading = [one for one in answer.explanation.contributions if one.contribution][:TOP]
    reasons = "\n".join(map(_reason, leading))
    return {
        "summary": summary,
        "detail": [
            f"**{band.label.en}** ({band.label.zh}). {chance}.",
            f"**{band.action.en}** {band.action.zh}",
            f"What moves it most (↑ raises, ↓ lowers):\n\n{reasons}" if reasons else "",
        ],
    }


def _abstained(answer: Abstained) -> Json:
    reasons = "\n".join(f"- {reason.reason} ({reason.reason_zh})" for reason in answer.reasons)
    return {"summary": "", "detail": [f"No risk is given (不给出风险):\n\n{reasons}"]}


def _reason(one: Contribution) -> str:
    arrow = "↑" if one.contribution > 0 else "↓"
    return f"- {arrow} {one.label.en} ({one.label.zh}): {measured(one)}"


def _limits(scorer: Scorer, prediction: Scored | Abstained, warnings: Sequence[FieldError]) -> str:
    """What was not measured, and what is to be said of what was."""
    labels = {f.name: f.label.en for f in scorer.artifact.features.features}
    labels |= {column.name: column.label.en for column in scorer.artifact.mart.columns}
    own = prediction.warnings if isinstance(prediction, Scored) else ()
    missing = [labels.get(w.field, w.field) for w in own if w.reason == MISSING]
    said = [f"- {labels.get(w.field, w.field)}: {w.reason}" for w in warnings]
    said += [f"- {labels.get(w.field, w.field)}: {w.reason}" for w in own if w.reason != MISSING]
    if missing:
        more = len(missing) - MOST_MISSING
        rest = f" and {more} more" if more > 0 else ""
        said.append(f"- not measured: {', '.join(missing[:MOST_MISSING])}{rest}")
    return "\n".join(said)


def _signed(scorer: Scorer, prediction: Scored | Abstained) -> str:
    signed = f"`{scorer.name}` version {scorer.version}, prediction {prediction.prediction_id}"
    if scorer.notice is None:
        return signed
    return f"**{scorer.notice.en}** {scorer.notice.zh}\n\n{signed}"


def _whole(scorer: Scorer, prediction: Scored | Abstained) -> Json:
    """The answer as REST gives it."""
    said: Json = msgspec.to_builtins(prediction)
    return {"model": scorer.name, "version": scorer.version, **said}


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"
