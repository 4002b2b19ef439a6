"""What a version is held to in production: the alarms that its spec declares, and what each calls for.

Bounds that an alarm leaves open are those of the spec's gate, so that a version is held in production
to what it was promoted for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Response = Literal["watch", "inspect_inputs", "recalibrate", "retrain", "withdraw"]
What = Literal[
    "refusals",
    "input_drift",
    "prediction_drift",
    "reason_drift",
    "calibration",
    "slope",
    "discrimination",
    "net_benefit",
    "subgroup",
    "abstained_rate",
    "alert_rate",
    "silence",
]
Counts = Literal["first", "last", "every"]


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One kind of alarm and its response; ``low`` and ``high`` bound what is still tolerated.

    Of ``alert_rate`` and ``abstained_rate`` they are multiples of the rate at promotion, of
    ``prediction_drift`` of the mean risk then, of ``calibration`` observed/expected, of ``slope`` the
    calibration slope, of ``discrimination`` (low) the AUROC, of ``subgroup`` observed/expected in a
    subgroup over that of all others. None: that of the gate, or no bound.
    """

    what: What
    response: Response
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a model is watched.

    ``false_alarms`` is the chance of any false alarm in a year of looks, shared by all. ``counts``:
    which prediction of an encounter that was scored several times is held against its outcome. An
    input whose share of the explanations at training is under ``important`` raises no alarm by
    drifting; it is told. ``looks`` are how many windows a year are planned for, 12 where it is a month.
    """

    alarms: tuple[Alarm, ...] = (
        Alarm(what="refusals", response="inspect_inputs"),
        Alarm(what="input_drift", response="inspect_inputs"),
        Alarm(what="prediction_drift", response="watch"),
        Alarm(what="reason_drift", response="watch"),
        Alarm(what="calibration", response="recalibrate"),
        Alarm(what="slope", response="retrain"),
        Alarm(what="discrimination", response="retrain"),
        Alarm(what="net_benefit", response="withdraw"),
        Alarm(what="subgroup", response="retrain"),
        Alarm(what="abstained_rate", response="inspect_inputs", high=2.0),
        Alarm(what="alert_rate", response="watch", low=0.5, high=2.0),
        Alarm(what="silence", response="inspect_inputs"),
    )
    counts: Counts = "first"
    false_alarms: float = 0.05
    looks: int = 12
    important: float = 0.01

    @property
    def alpha(self) -> float:
        """The share of ``false_alarms`` that one kind of alarm may spend in a year."""
        return self.false_alarms / max(1, len(self.alarms))

    def of(self, what: What) -> Alarm | None:
        """The alarm of that kind, None where none is declared."""
        return next((alarm for alarm in self.alarms if alarm.what == what), None)
