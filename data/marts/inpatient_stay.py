"""``inpatient_stay``: one row a discharge from hospital, what was known, and who returned.

It holds what a hospital anywhere has at discharge. Glucose, HbA1c and the drugs against diabetes are
there because the open data on readmission are of people with diabetes; elsewhere they stay missing.
"""

from typing import Any

from data.contract import Column, Kind, Mart, Role, Text
from data.marts.diagnosis import DIAGNOSES
from data.marts.shared import SEXES, TIERS, categories


def _column(
    name: str, en: str, zh: str, *, kind: Kind = "category", role: Role = "input", **more: Any
) -> Column:
    known = {"id": "arrival", "audit": "arrival", "outcome": "after"}.get(role, "discharge")
    return Column(
        **{"name": name, "kind": kind, "role": role, "available": known, "label": Text(en, zh), **more}
    )


def _count(name: str, en: str, zh: str, *, high: float, **more: Any) -> Column:
    return _column(name, en, zh, kind="integer", unit="{count}", low=0, high=high, **more)


DOSE = categories(
    ("no", "Not given", "未使用"),
    ("steady", "Dose unchanged", "剂量不变"),
    ("up", "Dose raised", "剂量增加"),
    ("down", "Dose lowered", "剂量减少"),
)
DRUGS = tuple(
    _column(name, en, zh, categories=DOSE)
    for name, en, zh in (
        ("metformin", "Metformin", "二甲双胍"),
        ("repaglinide", "Repaglinide", "瑞格列奈"),
        ("nateglinide", "Nateglinide", "那格列奈"),
        ("glimepiride", "Glimepiride", "格列美脲"),
        ("glipizide", "Glipizide", "格列吡嗪"),
        ("glibenclamide", "Glibenclamide (glyburide)", "格列本脲"),
        ("glibenclamide_metformin", "Glibenclamide with metformin", "格列本脲二甲双胍"),
        ("pioglitazone", "Pioglitazone", "吡格列酮"),
        ("rosiglitazone", "Rosiglitazone", "罗格列酮"),
        ("acarbose", "Acarbose", "阿卡波糖"),
        ("insulin", "Insulin", "胰岛素"),
    )
)

ADMISSION_TYPE = categories(
    ("emergency", "Emergency", "急诊"),
    ("urgent", "Urgent", "紧急"),
    ("elective", "Elective", "择期"),
    ("newborn", "Newborn", "新生儿"),
    ("trauma", "Trauma centre", "创伤中心"),
)
ADMISSION_SOURCE = categories(
    ("emergency_room", "Emergency department", "急诊科"),
    ("referral", "Referred by a physician, clinic or insurer", "医生、门诊或保险机构转介"),
    ("other_hospital", "Another hospital", "其他医院"),
    ("same_hospital", "Another unit of this hospital", "本院其他部门"),
    ("skilled_nursing", "Skilled nursing facility", "专业护理机构"),
    ("other_facility", "Another health care facility", "其他医疗机构"),
    ("home_care", "Home health care", "居家护理"),
    ("birth", "Birth", "出生"),
    ("court", "Court or police", "司法机关"),
)
DISPOSITION = categories(
    ("home", "Home", "回家"),
    ("home_care", "Home with health care", "居家护理"),
    ("skilled_nursing", "Skilled nursing facility", "专业护理机构"),
    ("nursing_home", "Nursing home or intermediate care", "养老院或中级护理"),
    ("rehabilitation", "Rehabilitation", "康复机构"),
    ("long_term_hospital", "Long-term care hospital", "长期照护医院"),
    ("other_hospital", "Another hospital", "其他医院"),
    ("psychiatric", "Psychiatric hospital or unit", "精神科"),
    ("other_facility", "Another inpatient facility", "其他住院机构"),
    ("outpatient_care", "Outpatient treatment goes on", "继续门诊治疗"),
    ("readmitted_here", "Admitted to this hospital again at once", "随即再次收入本院"),
    ("left_against_advice", "Left against advice", "违医嘱离院"),
    ("hospice", "Hospice, at home or in a facility", "临终关怀"),
    ("died", "Died", "死亡"),
)
SPECIALTY = categories(
    ("internal_medicine", "Internal medicine", "内科"),
    ("family_practice", "Family or general practice", "全科"),
    ("emergency", "Emergency and trauma", "急诊与创伤"),
    ("cardiology", "Cardiology", "心内科"),
    ("pulmonology", "Pulmonology", "呼吸科"),
    ("gastroenterology", "Gastroenterology", "消化科"),
    ("nephrology", "Nephrology", "肾内科"),
    ("endocrinology", "Endocrinology", "内分泌科"),
    ("haematology_oncology", "Haematology and oncology", "血液肿瘤科"),
    ("neurology", "Neurology", "神经内科"),
    ("infectious_diseases", "Infectious diseases", "感染科"),
    ("rheumatology_allergy", "Rheumatology, allergy and dermatology", "风湿、过敏与皮肤科"),
    ("psychiatry", "Psychiatry and psychology", "精神心理科"),
    ("rehabilitation", "Rehabilitation medicine", "康复医学科"),
    ("hospitalist", "Hospital medicine", "住院医学科"),
    ("general_surgery", "General surgery", "普通外科"),
    ("orthopaedics", "Orthopaedics", "骨科"),
    ("cardiothoracic_surgery", "Heart and chest surgery", "心胸外科"),
    ("vascular_surgery", "Vascular surgery", "血管外科"),
    ("neurosurgery", "Neurosurgery", "神经外科"),
    ("urology", "Urology", "泌尿外科"),
    ("other_surgery", "Other surgery", "其他外科"),
    ("head", "Eye, ear, nose, throat and teeth", "眼耳鼻喉口腔科"),
    ("obstetrics_gynaecology", "Obstetrics and gynaecology", "妇产科"),
    ("paediatrics", "Paediatrics", "儿科"),
    ("podiatry", "Podiatry", "足病科"),
    ("diagnostics", "Radiology, pathology and anaesthesia", "影像、病理与麻醉科"),
    ("other", "Other", "其他"),
)

MART = Mart(
    name="inpatient_stay",
    row=Text("Hospital stay", "住院"),
    key=("stay_id",),
    encounter="stay_id",
    patient="patient_id",
    site="site",
    time="discharged_at",
    order="encounter_order",
    classes=("IMP", "ACUTE", "NONAC", "SS"),
    columns=(
        _column(
            "stay_id", "Stay", "住院号", kind="text", role="id", required=True, identity="encounter"
        ),
        _column("patient_id", "Patient", "患者号", kind="text", role="id", identity="patient"),
        _column("site", "Site", "机构", kind="text", role="id", required=True),
        _column(
            "site_tier",
            "Tier of the site",
            "机构级别",
            role="id",
            categories=TIERS,
        ),
        _column("admitted_at", "Admission, local time", "入院时间（当地）", kind="time", role="id"),
        _column(
            "discharged_at",
            "Discharge, local time",
            "出院时间（当地）",
            kind="time",
            role="id",
            available="discharge",
        ),
        _column(
            "encounter_order",
            "Place in the order of stays, where dates are withheld",
            "住院次序（无日期时）",
            kind="integer",
            role="id",
            low=0,
            high=2**53,  # beyond it a double skips whole numbers
        ),
        _column(
            "age",
            "Age",
            "年龄",
            kind="number",
            available="arrival",
            unit="a",
            loinc="30525-0",
            low=0,
            high=120,
            required=True,
            place="Patient.birthDate",
        ),
        _column(
            "sex",
            "Sex",
            "性别",
            available="arrival",
            categories=SEXES,
            place="Patient.gender",
        ),
        _column(
            "admission_type",
            "Type of admission",
            "入院类型",
            available="arrival",
            categories=ADMISSION_TYPE,
        ),
        _column(
            "admission_source",
            "Admitted from",
            "入院来源",
            available="arrival",
            categories=ADMISSION_SOURCE,
            place="Encounter.admitSource",
            terms=(
                ("emd", "emergency_room"),
                ("gp", "referral"),
                ("mp", "referral"),
                ("hosp-trans", "other_hospital"),
                ("nursing", "skilled_nursing"),
                ("born", "birth"),
            ),
        ),
        _column(
            "discharge_disposition",
            "Discharged to",
            "出院去向",
            categories=DISPOSITION,
            place="Encounter.dischargeDisposition",
            terms=(
                ("home", "home"),
                ("alt-home", "home"),
                ("other-hcf", "other_facility"),
                ("hosp", "hospice"),
                ("long", "long_term_hospital"),
                ("aadvice", "left_against_advice"),
                ("exp", "died"),
                ("psy", "psychiatric"),
                ("rehab", "rehabilitation"),
                ("snf", "skilled_nursing"),
            ),
        ),
        _column("specialty", "Specialty of the admitting physician", "收治专科", categories=SPECIALTY),
        _column(
            "length_of_stay",
            "Length of stay",
            "住院天数",
            kind="number",
            unit="d",
            low=0,
            high=3650,
            place="Encounter.period.days",
        ),
        _count("laboratory_tests", "Laboratory tests", "检验项目数", high=10_000),
        _count("procedures", "Procedures other than laboratory tests", "操作项目数", high=1_000),
        _count("medications", "Different medications", "用药种数", high=1_000),
        _count("diagnoses", "Diagnoses", "诊断数", high=1_000),
        *(
            _count(name, en, zh, high=1_000, available="history")
            for name, en, zh in (
                ("outpatient_visits", "Outpatient visits in the year before", "前一年门诊次数"),
                ("emergency_visits", "Emergency visits in the year before", "前一年急诊次数"),
                ("inpatient_stays", "Hospital stays in the year before", "前一年住院次数"),
            )
        ),
        *(
            _column(f"diagnosis_{n}", f"Diagnosis {n}", f"诊断 {n}", categories=DIAGNOSES)
            for n in range(1, 4)
        ),
        _column(
            "hba1c",
            "HbA1c in this stay",
            "本次住院糖化血红蛋白",
            categories=categories(
                ("normal", "Below 7 %", "低于7%"),
                ("above_7", "7 to 8 %", "7%至8%"),
                ("above_8", "Above 8 %", "高于8%"),
            ),
        ),
        _column(
            "glucose",
            "Highest serum glucose in this stay",
            "本次住院最高血糖",
            categories=categories(
                ("normal", "Normal", "正常"),
                ("above_200", "Above 200 mg/dL", "高于200 mg/dL"),
                ("above_300", "Above 300 mg/dL", "高于300 mg/dL"),
            ),
        ),
        _column("diabetes_medication", "Any medication for diabetes", "使用降糖药物", kind="flag"),
        _column("medication_change", "Medication for diabetes changed", "降糖药物调整", kind="flag"),
        *DRUGS,
        _column("race", "Race", "种族", kind="text", role="audit"),
        _column("payer", "Payer", "支付方式", kind="text", role="audit"),
        _column(
            "readmission_known_at",
            "When a readmission was known or ruled out",
            "再入院结局确定时间",
            kind="time",
            role="audit",
            available="after",
        ),
        _column(
            "readmitted_30d",
            "Admitted again within 30 days",
            "30天内再入院",
            kind="flag",
            role="outcome",
            known_at="readmission_known_at",
            known_within=30,
        ),
    ),
)
