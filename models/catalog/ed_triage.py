"""``ed_triage``: which level of urgency would the triage nurse give?"""

from data.contract import Text
from models.emergency import ALIVE, GROUPS, HISTORY, SUPPORT
from models.spec import Ablation, Boosting, Event, Level, Limits, ModelSpec, Outcome, Triage

# Five levels, as ESI, CTAS and KTAS count them; the national scheme has four, and its last takes two.
_LEVELS = (
    Level(
        value=1,
        national="I",
        label=Text("Level 1, resuscitation", "一级（濒危）"),
        action=Text("See at once, in the resuscitation room.", "立即接诊，进入抢救室。"),
        card="critical",
    ),
    Level(
        value=2,
        national="II",
        label=Text("Level 2, emergent", "二级（危重）"),
        action=Text("See within 15 minutes.", "15分钟内接诊。"),
        card="warning",
    ),
    Level(
        value=3,
        national="III",
        label=Text("Level 3, urgent", "三级（急症）"),
        action=Text("See within 30 minutes.", "30分钟内接诊。"),
        card="info",
    ),
    Level(
        value=4,
        national="IV",
        label=Text("Level 4, less urgent", "四级（亚急症）"),
        action=Text("See within an hour.", "60分钟内接诊。"),
        card="info",
    ),
    Level(
        value=5,
        national="IV",
        label=Text("Level 5, not urgent", "五级（非急症）"),
        action=Text("See in turn; a fast track or a clinic may do.", "按序就诊，可至快速通道或门诊。"),
        card="info",
    ),
)

SPEC = ModelSpec(
    name="ed_triage",
    title=Text("Triage level in the emergency department", "急诊预检分诊级别"),
    mart="ed_visit",
    cohort=(ALIVE,),
    outcome=Outcome(
        any_of=(Event(column="acuity", at_most=2),),
        label=Text("Level 1 or 2 by the triage nurse", "护士分诊为一级或二级"),
        horizon=Text("at triage", "分诊时"),
    ),
    triage=Triage(
        column="acuity",
        levels=_LEVELS,
        urgent=2,
        under_weight=12.0,
        harm=Outcome(
            any_of=(Event(column="critical_care"), Event(column="died")),
            label=Text("Critical care unit, or death", "入住重症监护或死亡"),
            horizon=Text("in this visit or the stay that follows", "本次就诊及后续住院期间"),
        ),
    ),
    features=(
        "age",
        "sex",
        "arrival_hour",
        "ambulance",
        "transferred_in",
        "nursing_home",
        "seen_72h",
        "follow_up",
        "temperature",
        "heart_rate",
        "respiratory_rate",
        "sbp",
        "dbp",
        "spo2",
        "shock_index",
        "pain",
        "reason_1",
        "reasons",
        *HISTORY,
    ),
    monotone={"spo2": -1, "shock_index": 1},
    comparators=("news2", "shock_index"),
    boosting=Boosting(
        max_depth=5, learning_rate=0.05, min_child_weight=20, colsample_bytree=0.25, reg_lambda=5
    ),
    alert_at=0.5,
    benefit=(0.1, 0.4),
    subgroups=GROUPS,
    support=SUPPORT,
    intended_use=Text(
        "A second opinion at the triage desk; the nurse decides.", "为分诊台提供参考意见，由护士决定。"
    ),
    cautions=(
        Text("Never lowers a level that a nurse has given.", "不得用于下调护士已给出的级别。"),
        Text(
            "Learned from nurses' levels, with their habits; not from what patients turned out to need.",
            "学习自护士分级及其习惯，而非患者最终所需。",
        ),
        Text(
            "At these cut-points many patients are given a level that is too urgent: see over-triage.",
            "在现行切点下，较多患者会被过度分级，请参阅过度分诊数据。",
        ),
    ),
    ablations=(
        Ablation(name="without history", without=HISTORY),
        Ablation(name="without knowing what was not measured", imputed=True),
    ),
    limits=Limits(
        auroc=0.7,
        alerts_per_100=60,
        subgroup_auroc=0.65,
        sensitivity=0.75,
    ),
)
