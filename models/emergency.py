"""What the emergency department's models have in common: whom they leave out, and the history."""

from data.contract import Text
from data.marts.ed_visit import HISTORY as HISTORY_COLUMNS
from models.spec import Criterion, Support

ADULT = Criterion(column="age", at_least=18, reason=Text("under 18 years", "未满18岁"))
ALIVE = Criterion(
    column="disposition", not_in=("dead_on_arrival",), reason=Text("dead on arrival", "到达时已死亡")
)
STAYED = (
    Criterion(
        column="disposition",
        not_in=("left_before_triage", "left_after_triage"),
        reason=Text("left before being seen", "就诊前离开"),
    ),
    Criterion(
        column="disposition",
        not_in=("left_against_advice",),
        reason=Text("left against advice", "违医嘱离开"),
    ),
)
HISTORY = tuple(column.name for column in HISTORY_COLUMNS)
GROUPS = ("sex", "age", "site_tier", "ethnicity", "race", "region")
"""Whom the figures are shown for. Race, ethnicity and region are looked at and never read."""

# Two of these, or hardly anything of this patient's is known; a temperature of 45 is within the
# plausible range, and beyond what any model has learned from.
SUPPORT = Support(
    measured=("temperature", "heart_rate", "respiratory_rate", "sbp", "dbp", "spo2", "reason_1"),
    at_least=2,
    novelty=0.99997,
)
"""When the emergency department's models give no risk."""
