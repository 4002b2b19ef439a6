"""``ed_critical_care``: will this adult need a critical care unit, or die, in this visit or stay?"""

from data.contract import Text
from models.emergency import ADULT, ALIVE, GROUPS, HISTORY, STAYED, SUPPORT
from models.spec import Ablation, Band, Boosting, Event, Limits, ModelSpec, Outcome

_VITALS = ("temperature", "heart_rate", "respiratory_rate", "sbp", "dbp", "spo2", "shock_index")

SPEC = ModelSpec(
    name="ed_critical_care",
    title=Text("Critical care or death after the emergency department", "急诊后重症监护或死亡风险"),
    mart="ed_visit",
    cohort=(ADULT, ALIVE, *STAYED),
    outcome=Outcome(
        any_of=(Event(column="critical_care"), Event(column="died")),
        label=Text("Critical care unit, or death", "入住重症监护或死亡"),
        horizon=Text("in this visit or the stay that follows", "本次就诊及后续住院期间"),
    ),
    features=(
        "age",
        "sex",
        "arrival_hour",
        "ambulance",
        "transferred_in",
        "nursing_home",
        "seen_72h",
        *_VITALS,
        "pain",
        "acuity",
        "reason_1",
        "reasons",
        *HISTORY,
    ),
    monotone={"acuity": -1, "spo2": -1, "shock_index": 1},
    comparators=("news2", "qsofa", "shock_index", "acuity"),
    boosting=Boosting(
        max_depth=4,
        learning_rate=0.03,
        min_child_weight=10,
        colsample_bytree=0.3,
        reg_lambda=5,
        early_stopping_rounds=60,
    ),
    bands=(
        Band(
            id="low",
            at_least=0.0,
            label=Text("Low", "低"),
            action=Text("Usual flow.", "按常规流程处理。"),
        ),
        Band(
            id="raised",
            at_least=0.02,
            label=Text("Raised", "升高"),
            action=Text("Repeat the vital signs within 30 minutes.", "30分钟内复测生命体征。"),
            card="info",
        ),
        Band(
            id="high",
            at_least=0.06,
            label=Text("High", "高"),
            action=Text(
                "A senior sees the patient at once; place under monitoring.",
                "上级医师立即接诊，予以监护。",
            ),
            card="warning",
        ),
        Band(
            id="very_high",
            at_least=0.2,
            label=Text("Very high", "极高"),
            action=Text(
                "Resuscitation room; call critical care; plan the transfer upwards now.",
                "进入抢救室，呼叫重症医学科，立即准备上转。",
            ),
            card="critical",
        ),
    ),
    alert_at=0.06,
    benefit=(0.02, 0.2),
    subgroups=GROUPS,
    support=SUPPORT,
    intended_use=Text(
        "A second look at adults at triage who may deteriorate, beside the nurse's acuity and NEWS2.",
        "在分诊时结合护士分级与NEWS2，对可能恶化的成年患者进行再次评估。",
    ),
    cautions=(
        Text("A low risk does not rule out a need for critical care.", "低风险不能排除重症监护需要。"),
        Text("Not for patients under 18.", "不适用于18岁以下患者。"),
        Text(
            "Says who was given critical care, which depends on beds as well as on illness.",
            "反映实际收入重症者，亦受床位影响。",
        ),
    ),
    ablations=(
        Ablation(name="without history", without=HISTORY),
        Ablation(name="without the nurse's acuity", without=("acuity",)),
        Ablation(name="without knowing what was not measured", imputed=True),
    ),
    limits=Limits(auroc=0.8, alerts_per_100=20, subgroup_auroc=0.75, sensitivity=0.5),
)
