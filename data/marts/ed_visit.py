"""``ed_visit``: one row a visit to an emergency department, as known at triage, and its outcome."""

from typing import Any

from data.contract import Available, Column, Kind, Mart, Role, Text
from data.marts.complaint import COMPLAINTS
from data.marts.shared import SEXES, TIERS, categories

CURRENT_FOR = 24.0
"""Hours for which a vital sign stands for the present: a visit to the department hardly ever takes more,
and what was measured before that is of another visit."""


def _vital(
    name: str,
    label: Text,
    *,
    unit: str,
    loinc: str,
    low: float,
    high: float,
    also: tuple[str, ...] = (),
) -> Column:
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
        loinc_also=also,
        current_for=CURRENT_FOR,
    )


def _plain(
    name: str, label: Text, *, kind: Kind = "flag", role: Role = "input", known: Available, **more: Any
) -> Column:
    return Column(name=name, kind=kind, role=role, available=known, label=label, **more)


# Outside these ranges a number is a slip of the pen or of the unit (98.6 is no temperature in
# Celsius, 0.97 no saturation in per cent), not a patient; the widest values come from living
# patients in NHAMCS 2015-2021.
VITALS = (
    _vital(
        "temperature",
        Text("Body temperature", "体温"),
        unit="Cel",
        loinc="8310-5",
        low=25,
        high=45,
        also=("8331-1", "8332-9", "8333-7", "8328-7"),  # oral, rectal, tympanic, axillary
    ),
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
    _vital(
        "spo2",
        Text("Oxygen saturation", "血氧饱和度"),
        unit="%",
        loinc="2708-6",
        low=40,
        high=100,
        also=("59408-5",),  # by pulse oximetry
    ),
)

# The survey asks of each whether the patient has it, now or ever. ICD-10 as WHO and its national
# editions number it; where an edition splits a code further, the beginning is the same. SNOMED CT:
# the disease itself, since no hierarchy is at hand to find its kinds by.
HISTORY = tuple(
    _plain(
        name,
        Text(en, zh),
        known="history",
        place="Condition",
        icd10=tuple(icd10.split()),
        snomed=tuple(snomed.split()),
    )
    for name, en, zh, icd10, snomed in (
        ("alcohol_misuse", "Alcohol misuse", "酒精滥用", "F10", "7200002 15167005"),
        ("dementia", "Dementia", "痴呆", "F00 F01 F02 F03 G30", "52448006 26929004"),
        ("asthma", "Asthma", "哮喘", "J45 J46", "195967001"),
        ("cancer", "Cancer", "癌症", "C", "363346000"),
        (
            "cerebrovascular_disease",
            "Stroke or cerebrovascular disease",
            "脑卒中或脑血管病",
            "G45 I60 I61 I62 I63 I64 I65 I66 I67 I68 I69",
            "62914000 230690007 266257000",
        ),
        ("chronic_kidney_disease", "Chronic kidney disease", "慢性肾病", "N18", "709044004 46177005"),
        ("copd", "Chronic obstructive pulmonary disease", "慢性阻塞性肺疾病", "J43 J44", "13645005"),
        (
            "heart_failure",
            "Heart failure",
            "心力衰竭",
            "I50 I11.0 I13.0 I13.2",
            "84114007 42343007",
        ),
        (
            "coronary_artery_disease",
            "Coronary artery disease",
            "冠心病",
            "I20 I21 I22 I23 I24 I25",
            "53741008 22298006 414545008",
        ),
        ("depression", "Depression", "抑郁症", "F32 F33", "35489007 370143000"),
        ("diabetes_type_1", "Type 1 diabetes", "1型糖尿病", "E10", "46635009"),
        ("diabetes_type_2", "Type 2 diabetes", "2型糖尿病", "E11", "44054006"),
        ("diabetes_unspecified", "Diabetes, type not given", "糖尿病（未分型）", "E14", "73211009"),
        (
            "end_stage_renal_disease",
            "End-stage renal disease",
            "终末期肾病",
            "N18.6 Z99.2",
            "46177005",
        ),
        (
            "thromboembolism",
            "Past pulmonary embolism or thrombosis",
            "肺栓塞或血栓史",
            "I26 I80.1 I80.2 I80.3 I82 Z86.71",
            "59282003 128053003",
        ),
        ("hiv", "HIV infection", "艾滋病病毒感染", "B20 B21 B22 B23 B24 Z21", "86406008"),
        (
            "hyperlipidaemia",
            "High blood lipids",
            "高脂血症",
            "E78.0 E78.1 E78.2 E78.3 E78.4 E78.5",
            "55822004",
        ),
        ("hypertension", "High blood pressure", "高血压", "I10 I11 I12 I13 I15", "38341003 59621000"),
        ("obesity", "Obesity", "肥胖", "E66", "414916001"),
        ("sleep_apnoea", "Obstructive sleep apnoea", "阻塞性睡眠呼吸暂停", "G47.3", "78275009"),
        ("osteoporosis", "Osteoporosis", "骨质疏松", "M80 M81", "64859006"),
        (
            "substance_misuse",
            "Substance misuse",
            "药物滥用",
            "F11 F12 F13 F14 F15 F16 F18 F19",
            "66214007",
        ),
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
    classes=("EMER",),
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
            place="Encounter.period.hour",
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
            place="Encounter.period.weekday",
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
            place="Patient.birthDate",
        ),
        Column(
            name="sex",
            kind="category",
            role="input",
            available="arrival",
            label=Text("Sex", "性别"),
            categories=SEXES,
            place="Patient.gender",
        ),
        _plain("ambulance", Text("Arrived by ambulance", "救护车送达"), known="arrival"),
        _plain(
            "transferred_in",
            Text("Transferred from another hospital", "由外院转入"),
            known="arrival",
            place="Encounter.admitSource",
            terms=(("hosp-trans", "true"),),
        ),
        _plain(
            "nursing_home",
            Text("Lives in a nursing home", "居住于养老院"),
            known="arrival",
            place="Encounter.admitSource",
            terms=(("nursing", "true"),),
        ),
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
            current_for=CURRENT_FOR,
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
