"""``ed_admission``: will this adult leave the emergency department for a hospital bed?"""

from data.contract import Text
from models.emergency import ADULT, ALIVE, GROUPS, HISTORY, STAYED, SUPPORT
from models.spec import Ablation, Band, Boosting, Event, ModelSpec, Outcome

SPEC = ModelSpec(
    name="ed_admission",
    title=Text("Admission from the emergency department", "急诊收治入院风险"),
    mart="ed_visit",
    cohort=(ADULT, ALIVE, *STAYED),
    outcome=Outcome(
        any_of=(Event(column="disposition", positive=("admitted", "observation", "transferred")),),
        label=Text("Admitted, kept for observation or transferred", "收治入院、留观后入院或转院"),
        horizon=Text("at the end of this visit", "本次就诊结束时"),
    ),
    features=(
        "age",
        "sex",
        "arrival_hour",
        "arrival_weekday",
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
        "acuity",
        "reason_1",
        "reasons",
        *HISTORY,
    ),
    monotone={
        "acuity": -1,
        "spo2": -1,
        "shock_index": 1,
        "dementia": 1,
        "cancer": 1,
        "chronic_kidney_disease": 1,
        "end_stage_renal_disease": 1,
        "heart_failure": 1,
        "copd": 1,
    },
    comparators=("news2", "qsofa", "shock_index", "acuity"),
    boosting=Boosting(
        max_depth=6, learning_rate=0.05, min_child_weight=20, colsample_bytree=0.25, reg_lambda=5
    ),
    bands=(
        Band(
            id="low",
            at_least=0.0,
            label=Text("Low", "低"),
            action=Text("Usual flow.", "按常规流程处理。"),
        ),
        Band(
            id="moderate",
            at_least=0.1,
            label=Text("Moderate", "中"),
            action=Text("Review once the first results are in.", "首批结果回报后复核。"),
            card="info",
        ),
        Band(
            id="high",
            at_least=0.3,
            label=Text("High", "高"),
            action=Text(
                "Tell the bed manager; ask a senior to see the patient early.",
                "通知床位管理，请上级医师尽早接诊。",
            ),
            card="warning",
        ),
        Band(
            id="very_high",
            at_least=0.6,
            label=Text("Very high", "极高"),
            action=Text(
                "Request a bed or a transfer now, in parallel with the work-up.",
                "检查同时即申请床位或转院。",
            ),
            card="warning",
        ),
    ),
    alert_at=0.3,
    subgroups=GROUPS,
    support=SUPPORT,
    intended_use=Text(
        "Early planning of beds and transfers for adults at triage, by staff who see the patient.",
        "供接诊人员在分诊时为成年患者提前安排床位与转诊。",
    ),
    cautions=(
        Text("Not a reason to send a patient home.", "不得作为让患者离院的依据。"),
        Text("Not for patients under 18.", "不适用于18岁以下患者。"),
        Text("Says who is admitted today, not who ought to be.", "反映现行收治情况，并非应否收治。"),
    ),
    ablations=(
        Ablation(name="without history", without=HISTORY),
        Ablation(name="without the nurse's acuity", without=("acuity",)),
        Ablation(name="without either", without=(*HISTORY, "acuity")),
        Ablation(name="without knowing what was not measured", imputed=True),
    ),
)
