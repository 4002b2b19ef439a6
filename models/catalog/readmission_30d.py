"""``readmission_30d``: will this patient be back in hospital within thirty days of going home?"""

from data.contract import Text
from data.marts.inpatient_stay import DRUGS
from models.spec import Ablation, Band, Boosting, Criterion, Event, Limits, ModelSpec, Outcome, Support

_PRIOR = ("outpatient_visits", "emergency_visits", "inpatient_stays")

SPEC = ModelSpec(
    name="readmission_30d",
    title=Text("Readmission within 30 days", "30天内再入院风险"),
    mart="inpatient_stay",
    cohort=(
        Criterion(
            column="discharge_disposition",
            not_in=("died", "hospice"),
            reason=Text("died or went to a hospice", "死亡或转入临终关怀"),
        ),
    ),
    outcome=Outcome(
        any_of=(Event(column="readmitted_30d"),),
        label=Text("Admitted again", "再次入院"),
        horizon=Text("within 30 days of discharge", "出院后30天内"),
    ),
    split="first_encounter",
    features=(
        "age",
        "sex",
        "admission_type",
        "admission_source",
        "discharge_disposition",
        "specialty",
        "length_of_stay",
        "laboratory_tests",
        "procedures",
        "medications",
        "diagnoses",
        *_PRIOR,
        "diagnosis_1",
        "diagnosis_groups",
        "hba1c",
        "glucose",
        "diabetes_medication",
        "medication_change",
        *(drug.name for drug in DRUGS),
    ),
    monotone={"inpatient_stays": 1, "emergency_visits": 1},
    comparators=("prior_stays",),
    boosting=Boosting(
        max_depth=6,
        learning_rate=0.02,
        min_child_weight=20,
        colsample_bytree=0.3,
        reg_lambda=5,
        early_stopping_rounds=60,
    ),
    bands=(
        Band(
            id="low",
            at_least=0.0,
            label=Text("Low", "低"),
            action=Text("Usual discharge letter.", "常规出院小结。"),
        ),
        Band(
            id="moderate",
            at_least=0.1,
            label=Text("Moderate", "中"),
            action=Text(
                "Book a visit with the grassroots clinic within 14 days.", "14天内预约基层医疗机构随访。"
            ),
            card="info",
        ),
        Band(
            id="high",
            at_least=0.2,
            label=Text("High", "高"),
            action=Text(
                "Call within 3 days; tele-consultation within 7; reconcile the medication.",
                "3天内电话随访，7天内互联网复诊，核对用药。",
            ),
            card="warning",
        ),
    ),
    alert_at=0.2,
    benefit=(0.08, 0.25),
    subgroups=("sex", "age", "site_tier", "race"),
    support=Support(
        measured=(
            "admission_type",
            "discharge_disposition",
            "length_of_stay",
            "medications",
            "diagnosis_1",
        ),
        at_least=3,
        novelty=0.99997,
    ),
    intended_use=Text(
        "Planning follow-up at discharge: calls, tele-consultations, hand-over to a grassroots clinic.",
        "用于出院时安排随访：电话、互联网复诊及转回基层。",
    ),
    cautions=(
        Text("Not a reason to delay or refuse a discharge.", "不得作为延迟或拒绝出院的依据。"),
        Text(
            "Learned from hospital stays of people with diabetes, 1999 to 2008, where so trained.",
            "若以公开数据训练，则仅来自1999至2008年糖尿病患者的住院。",
        ),
        Text("Not for patients who died or went to a hospice.", "不适用于死亡或转入临终关怀者。"),
    ),
    ablations=(
        Ablation(name="without earlier visits and stays", without=_PRIOR),
        Ablation(name="without knowing what was not measured", imputed=True),
    ),
    limits=Limits(auroc=0.6, alerts_per_100=25, subgroup_auroc=0.55),
)
