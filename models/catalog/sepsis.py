"""``sepsis``: will this patient in intensive care have sepsis within six hours?"""

from data.contract import Text
from data.marts.icu_hour import MEASURED
from models.spec import Ablation, Band, Boosting, Event, Limits, ModelSpec, Outcome, Support
from models.watch import Watch

SPEC = ModelSpec(
    name="sepsis",
    title=Text("Sepsis within six hours", "6小时内脓毒症风险"),
    mart="icu_hour",
    cohort=(),
    outcome=Outcome(
        any_of=(Event(column="sepsis_6h"),),
        label=Text("Sepsis (Sepsis-3)", "脓毒症（Sepsis-3）"),
        horizon=Text("now or within six hours", "当前或6小时内"),
    ),
    split="patient_hash",
    lookback=24,
    features=(
        "icu_hour",
        "age",
        "sex",
        "icu_unit",
        "hours_before_icu",
        *(column.name for column in MEASURED),
        "shock_index",
        "bun_creatinine",
        "spo2_fio2",
        "news2",
        "sirs",
        "sofa_partial",
        "workup",
    ),
    comparators=("news2", "qsofa", "sirs", "shock_index"),
    boosting=Boosting(
        max_depth=5,
        learning_rate=0.15,
        min_child_weight=20,
        subsample=0.4,
        colsample_bytree=0.15,
        reg_lambda=30,
        trees_a_round=4,
        early_stopping_rounds=20,
    ),
    bands=(
        Band(id="low", at_least=0.0, label=Text("Low", "低"), action=Text("Usual care.", "常规护理。")),
        Band(
            id="alert",
            at_least=0.02,
            label=Text("Alert", "警示"),
            action=Text(
                "Examine for infection; lactate, cultures; if likely, treat by the sepsis bundle.",
                "排查感染，送检乳酸与培养；若可能，按科室脓毒症集束化方案处理。",
            ),
            card="warning",
        ),
    ),
    alert_at=0.02,
    alert_by="utility",
    benefit=(0.01, 0.1),
    subgroups=("sex", "age", "icu_unit"),
    support=Support(
        measured=("heart_rate", "spo2", "temperature", "sbp", "map", "respiratory_rate"),
        at_least=2,
        novelty=0.99997,
    ),
    intended_use=Text(
        "A prompt to examine adults in intensive care for sepsis, hour by hour.",
        "逐小时提示重症监护成年患者的脓毒症排查。",
    ),
    cautions=(
        Text("No alert does not rule sepsis out.", "无警示不能排除脓毒症。"),
        Text(
            "Models of sepsis lose much between hospital systems: hold it to local outcomes first.",
            "脓毒症模型跨医院性能下降明显，使用前须以本院结局验证。",
        ),
        Text("Not for wards outside intensive care.", "不适用于重症监护以外的病区。"),
    ),
    ablations=(Ablation(name="without knowing what was not measured", imputed=True),),
    limits=Limits(auroc=0.75, alerts_per_100=25, subgroup_auroc=0.7, utility=0.3),
    watch=Watch(counts="every"),
)
