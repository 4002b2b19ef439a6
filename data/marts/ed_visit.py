"""``ed_visit``: one row a visit to an emergency department, as known at triage, and its outcome."""

from typing import Any

from data.contract import Available, Column, Kind, Mart, Role, Text
from data.marts.complaint import COMPLAINTS
from data.marts.shared import SEXES, TIERS, categories


def _vital(name: str, label: Text, *, unit: str, loinc: str, low: float, high: float) -> Column:
    return Column(
        name=name,
        kind="number",
        role="input",
        available="triage",
        label=label,
        unit=unit,
        loinc=loinc,
        low=low,
        high=high,
    )


def _plain(
    name: str, label: Text, *, kind: Kind = "flag", role: Role = "input", known: Available, **more: Any
) -> Column:
    return Column(name=name, kind=kind, role=role, available=known, label=label, **more)


# Outside these ranges a number is a slip of the pen or of the unit (98.6 is no temperature in
# Celsius, 0.97 no saturation in per cent), not a patient; the widest values come from living
# patients in NHAMCS 2015-2021.
VITALS = (
    _vital("temperature", Text("Body temperature", "体温"), unit="Cel", loinc="8310-5", low=25, high=45),
    _vital("heart_rate", Text("Heart rate", "心率"), unit="/min", loinc="8867-4", low=20, high=300),
    _vital(
        "respiratory_rate",
        Text("Respiratory rate", "呼吸频率"),
        unit="/min",
        loinc="9279-1",
        low=4,
        high=80,
    ),
    _vital(
        "sbp", Text("Systolic blood pressure", "收缩压"), unit="mm[Hg]", loinc="8480-6", low=30, high=300
    ),
    _vital(
        "dbp",
        Text("Diastolic blood pressure", "舒张压"),
        unit="mm[Hg]",
        loinc="8462-4",
        low=10,
        high=220,
    ),
    _vital("spo2", Text("Oxygen saturation", "血氧饱和度"), unit="%", loinc="2708-6", low=40, high=100),
)

HISTORY = tuple(
    _plain(name, Text(en, zh), known="history")
    for name, en, zh in (
        ("alcohol_misuse", "Alcohol misuse", "酒精滥用"),
        ("dementia", "Dementia", "痴呆"),
        ("asthma", "Asthma", "哮喘"),
        ("cancer", "Cancer", "癌症"),
        ("cerebrovascular_disease", "Stroke or cerebrovascular disease", "脑卒中或脑血管病"),
        ("chronic_kidney_disease", "Chronic kidney disease", "慢性肾病"),
        ("copd", "Chronic obstructive pulmonary disease", "慢性阻塞性肺疾病"),
        ("heart_failure", "Heart failure", "心力衰竭"),
        ("coronary_artery_disease", "Coronary artery disease", "冠心病"),
        ("depression", "Depression", "抑郁症"),
        ("diabetes_type_1", "Type 1 diabetes", "1型糖尿病"),
        ("diabetes_type_2", "Type 2 diabetes", "2型糖尿病"),
        ("diabetes_unspecified", "Diabetes, type not given", "糖尿病（未分型）"),
        ("end_stage_renal_disease", "End-stage renal disease", "终末期肾病"),
        ("thromboembolism", "Past pulmonary embolism or thrombosis", "肺栓塞或血栓史"),
        ("hiv", "HIV infection", "艾滋病病毒感染"),
        ("hyperlipidaemia", "High blood lipids", "高脂血症"),
        ("hypertension", "High blood pressure", "高血压"),
        ("obesity", "Obesity", "肥胖"),
        ("sleep_apnoea", "Obstructive sleep apnoea", "阻塞性睡眠呼吸暂停"),
        ("osteoporosis", "Osteoporosis", "骨质疏松"),
        ("substance_misuse", "Substance misuse", "药物滥用"),
    )
)

REASONS = tuple(
    Column(
        name=f"reason_{n}",
        kind="category",
        role="input",
        available="triage",
        label=Text(f"Reason for visit {n}", f"就诊原因 {n}"),
        categories=COMPLAINTS,
    )
    for n in range(1, 6)
)

DISPOSITION = categories(
    ("discharged", "Discharged", "离院"),
    ("admitted", "Admitted", "收治入院"),
    ("observation", "Kept for observation, then admitted", "留观后入院"),
    ("transferred", "Transferred to another hospital", "转院"),
    ("died", "Died in the department", "急诊死亡"),
    ("dead_on_arrival", "Dead on arrival", "到达时已死亡"),
    ("left_before_triage", "Left before triage", "分诊前离开"),
    ("left_after_triage", "Left after triage", "分诊后离开"),
    ("left_against_advice", "Left against advice", "违医嘱离开"),
)

MART = Mart(
    name="ed_visit",
    row=Text("Emergency department visit", "急诊就诊"),
    key=("visit_id",),
    encounter="visit_id",
    patient="patient_id",
    site="site",
    time="arrived_at",
    weight="weight",
    columns=(
        Column(
            name="visit_id",
            kind="text",
            role="id",
            available="arrival",
            label=Text("Visit", "就诊号"),
            required=True,
            identity="encounter",
        ),
        Column(
            name="patient_id",
            kind="text",
            role="id",
            available="arrival",
            label=Text("Patient", "患者号"),
            identity="patient",
        ),
        Column(
            name="site",
            kind="text",
            role="id",
            available="arrival",
            label=Text("Site", "机构"),
            required=True,
        ),
        Column(
            name="site_tier",
            kind="category",
            role="id",
            available="arrival",
            label=Text("Tier of the site", "机构级别"),
            categories=TIERS,
        ),
        Column(
            name="weight",
            kind="number",
            role="audit",
            available="after",
            label=Text("Survey weight", "抽样权重"),
            low=0,
            high=1e9,
        ),
        Column(
            name="arrived_at",
            kind="time",
            role="id",
            available="arrival",
            label=Text("Arrival, local time", "到达时间（当地）"),
            required=True,
        ),
        # Apart from arrived_at, because a survey may give the month and withhold the hour.
        Column(
            name="arrival_hour",
            kind="integer",
            role="input",
            available="arrival",
            label=Text("Hour of arrival", "到达时点（小时）"),
            unit="h",
            low=0,
            high=23,
        ),
        Column(
            name="arrival_weekday",
            kind="integer",
            role="input",
            available="arrival",
            label=Text("Weekday of arrival (1 is Monday)", "到达星期（1为周一）"),
            unit="1",
            low=1,
            high=7,
        ),
        Column(
            name="age",
            kind="number",
            role="input",
            available="arrival",
            label=Text("Age", "年龄"),
            unit="a",
            loinc="30525-0",
            low=0,
            high=120,
            required=True,
        ),
        Column(
            name="sex",
            kind="category",
            role="input",
            available="arrival",
            label=Text("Sex", "性别"),
            categories=SEXES,
        ),
        _plain("ambulance", Text("Arrived by ambulance", "救护车送达"), known="arrival"),
        _plain(
            "transferred_in", Text("Transferred from another hospital", "由外院转入"), known="arrival"
        ),
        _plain("nursing_home", Text("Lives in a nursing home", "居住于养老院"), known="arrival"),
        _plain("seen_72h", Text("Seen here within 72 hours", "72小时内曾就诊"), known="arrival"),
        _plain("follow_up", Text("Follow-up visit", "复诊"), known="arrival"),
        *VITALS,
        Column(
            name="pain",
            kind="integer",
            role="input",
            available="triage",
            label=Text("Pain score", "疼痛评分"),
            unit="{score}",
            loinc="72514-3",
            low=0,
            high=10,
        ),
        Column(
            name="acuity",
            kind="integer",
            role="input",
            available="triage",
            label=Text("Nurse's acuity (1 is most urgent)", "护士分诊级别（1最急）"),
            unit="{level}",
            low=1,
            high=5,
        ),
        *REASONS,
        *HISTORY,
        *(
            _plain(name, Text(en, zh), kind="text", role="audit", known="arrival")
            for name, en, zh in (
                ("race", "Race", "种族"),
                ("ethnicity", "Ethnicity", "族裔"),
                ("payer", "Payer", "支付方式"),
                ("region", "Region", "地区"),
            )
        ),
        _plain(
            "departed_at",
            Text("Left the department", "离开急诊时间"),
            kind="time",
            role="audit",
            known="after",
        ),
        _plain(
            "stay_ended_at",
            Text("End of the visit and of any stay that followed", "就诊及后续住院结束时间"),
            kind="time",
            role="audit",
            known="after",
        ),
        # Nine visits in ten end within a day and nine stays in ten within two weeks; where a site does
        # not tell when, the outcome waits until it is hardly ever still open.
        Column(
            name="disposition",
            kind="category",
            role="outcome",
            available="after",
            label=Text("Disposition", "去向"),
            categories=DISPOSITION,
            known_at="departed_at",
            known_within=2,
        ),
        _plain(
            "critical_care",
            Text("Critical care unit", "入住重症监护"),
            role="outcome",
            known="after",
            known_at="departed_at",
            known_within=2,
        ),
        _plain(
            "died",
            Text("Died in the department or hospital", "急诊或住院死亡"),
            role="outcome",
            known="after",
            known_at="stay_ended_at",
            known_within=30,
        ),
    ),
)
