"""``icu_hour``: one row a patient and hour in intensive care, what was charted in that hour.

Most cells are empty: a laboratory value stands in the hour in which it was reported, and nowhere
else. What a model carries forward is the model's choice, not the mart's.
"""

from typing import Any

from data.contract import Column, Kind, Mart, Role, Text
from data.marts.shared import SEXES, TIERS, categories


def _column(
    name: str, en: str, zh: str, *, kind: Kind = "number", role: Role = "input", **more: Any
) -> Column:
    known = {"id": "arrival", "audit": "after", "outcome": "after"}.get(role, "hourly")
    return Column(
        **{"name": name, "kind": kind, "role": role, "available": known, "label": Text(en, zh), **more}
    )


# Further codes of the same quantity, in other specimens of the same blood or in moles, and molar masses
# (g/mol) by which those are converted: CIAAW's atomic weights. A mole of urea holds two of nitrogen;
# phosphate is told as phosphorus. Not here: what is another quantity, as ionised calcium or
# high-sensitivity troponin.
_ALSO: dict[str, dict[str, Any]] = {
    "spo2": {"loinc_also": ("2708-6",)},
    "temperature": {"loinc_also": ("8331-1", "8332-9", "8333-7", "8328-7")},
    "fio2": {"loinc_also": ("3150-0", "19994-3")},
    "base_excess": {"loinc_also": ("1925-7",)},
    "bicarbonate": {"loinc_also": ("1959-6", "1960-4")},
    "ph": {"loinc_also": ("2744-1",)},
    "ast": {"loinc_also": ("30239-8",)},
    "urea_nitrogen": {"loinc_also": ("22664-7",), "molar_mass": 28.014},
    "calcium": {"loinc_also": ("2000-8",), "molar_mass": 40.078},
    "chloride": {"loinc_also": ("2069-3",)},
    "creatinine": {"loinc_also": ("14682-9",), "molar_mass": 113.12},
    "bilirubin_direct": {"loinc_also": ("14629-0",), "molar_mass": 584.67},
    "bilirubin_total": {"loinc_also": ("14631-6",), "molar_mass": 584.67},
    "glucose": {"loinc_also": ("14749-6", "2339-0", "15074-8"), "molar_mass": 180.156},
    "lactate": {"loinc_also": ("32693-4", "2518-9"), "molar_mass": 90.078},
    "magnesium": {"loinc_also": ("2601-3",), "molar_mass": 24.305},
    "phosphate": {"loinc_also": ("14879-1",), "molar_mass": 30.974},
    "potassium": {"loinc_also": ("6298-4",)},
    "haematocrit": {"loinc_also": ("20570-8",)},
    "leucocytes": {"loinc_also": ("26464-8",)},
    "platelets": {"loinc_also": ("26515-7",)},
    "ptt": {"loinc_also": ("3173-2",)},
}

# Wide enough for every living patient, and for how a monitor or laboratory writes its limits; beyond
# them a number is a slip (FiO2 of 0.04 or 10, a potassium of 27) and refuses its hour.
MEASURED = tuple(
    _column(name, en, zh, unit=unit, loinc=loinc, low=low, high=high, **_ALSO.get(name, {}))
    for name, en, zh, unit, loinc, low, high in (
        ("heart_rate", "Heart rate", "心率", "/min", "8867-4", 10, 300),
        ("spo2", "Oxygen saturation by pulse oximetry", "脉搏血氧饱和度", "%", "59408-5", 10, 100),
        ("temperature", "Body temperature", "体温", "Cel", "8310-5", 15, 45),
        ("sbp", "Systolic blood pressure", "收缩压", "mm[Hg]", "8480-6", 10, 320),
        ("map", "Mean arterial pressure", "平均动脉压", "mm[Hg]", "8478-0", 10, 320),
        ("dbp", "Diastolic blood pressure", "舒张压", "mm[Hg]", "8462-4", 5, 320),
        ("respiratory_rate", "Respiratory rate", "呼吸频率", "/min", "9279-1", 0, 100),
        ("etco2", "End-tidal carbon dioxide", "呼气末二氧化碳分压", "mm[Hg]", None, 0, 150),
        ("base_excess", "Base excess", "碱剩余", "mmol/L", "11555-0", -45, 45),
        ("bicarbonate", "Bicarbonate", "碳酸氢根", "mmol/L", "1963-8", 1, 70),
        ("fio2", "Fraction of inspired oxygen", "吸入氧浓度（分数）", "1", None, 0.2, 1),
        ("ph", "Blood pH", "血液酸碱度（pH）", "[pH]", "11558-4", 6.3, 8),
        ("paco2", "Arterial carbon dioxide pressure", "动脉血二氧化碳分压", "mm[Hg]", "2019-8", 5, 250),
        # No code: pulse oximeters report under the same 2708-6 as blood gas analysers.
        ("sao2", "Arterial oxygen saturation", "动脉血氧饱和度", "%", None, 10, 100),
        ("ast", "Aspartate aminotransferase", "天冬氨酸氨基转移酶", "U/L", "1920-8", 0, 50_000),
        ("urea_nitrogen", "Blood urea nitrogen", "血尿素氮", "mg/dL", "3094-0", 0, 400),
        ("alkaline_phosphatase", "Alkaline phosphatase", "碱性磷酸酶", "U/L", "6768-6", 0, 20_000),
        ("calcium", "Calcium", "钙", "mg/dL", "17861-6", 1, 25),
        ("chloride", "Chloride", "氯", "mmol/L", "2075-0", 40, 200),
        ("creatinine", "Creatinine", "肌酐", "mg/dL", "2160-0", 0, 50),
        ("bilirubin_direct", "Direct bilirubin", "直接胆红素", "mg/dL", "1968-7", 0, 100),
        ("glucose", "Glucose", "葡萄糖", "mg/dL", "2345-7", 1, 3000),
        ("lactate", "Lactate", "乳酸", "mmol/L", "2524-7", 0, 50),
        ("magnesium", "Magnesium", "镁", "mg/dL", "19123-9", 0, 20),
        ("phosphate", "Phosphate", "磷", "mg/dL", "2777-1", 0, 30),
        ("potassium", "Potassium", "钾", "mmol/L", "2823-3", 0.5, 15),
        ("bilirubin_total", "Total bilirubin", "总胆红素", "mg/dL", "1975-2", 0, 100),
        ("troponin_i", "Troponin I", "肌钙蛋白I", "ng/mL", "10839-9", 0, 1000),
        ("haematocrit", "Haematocrit", "红细胞压积", "%", "4544-3", 2, 80),
        ("haemoglobin", "Haemoglobin", "血红蛋白", "g/dL", "718-7", 0.5, 30),
        ("ptt", "Partial thromboplastin time", "部分凝血活酶时间", "s", "14979-9", 5, 400),
        ("leucocytes", "White blood cells", "白细胞计数", "10*3/uL", "6690-2", 0, 1000),
        ("fibrinogen", "Fibrinogen", "纤维蛋白原", "mg/dL", "3255-7", 0, 3000),
        ("platelets", "Platelets", "血小板计数", "10*3/uL", "777-3", 0, 5000),
    )
)

MART = Mart(
    name="icu_hour",
    row=Text("Hour in intensive care", "重症监护小时"),
    key=("stay_id", "icu_hour"),
    encounter="stay_id",
    patient="patient_id",
    site="site",
    time="charted_at",
    order="icu_hour",
    classes=("IMP", "ACUTE", "NONAC"),
    columns=(
        _column(
            "stay_id",
            "Stay in intensive care",
            "重症监护住院号",
            kind="text",
            role="id",
            required=True,
            identity="encounter",
        ),
        _column("patient_id", "Patient", "患者号", kind="text", role="id", identity="patient"),
        _column("site", "Site", "机构", kind="text", role="id", required=True),
        _column(
            "site_tier",
            "Tier of the site",
            "机构级别",
            kind="category",
            role="id",
            categories=TIERS,
        ),
        _column("charted_at", "End of the hour, local time", "记录时间（当地）", kind="time", role="id"),
        # An input as well: how long a patient has been there tells much of what comes next.
        _column(
            "icu_hour",
            "Hour in intensive care (the first is 1)",
            "重症监护第几小时",
            kind="integer",
            unit="h",
            low=1,
            high=100_000,
            required=True,
        ),
        _column(
            "age",
            "Age",
            "年龄",
            unit="a",
            loinc="30525-0",
            low=0,
            high=120,
            available="arrival",
            place="Patient.birthDate",
        ),
        _column(
            "sex",
            "Sex",
            "性别",
            kind="category",
            available="arrival",
            categories=SEXES,
            place="Patient.gender",
        ),
        _column(
            "icu_unit",
            "Kind of intensive care unit",
            "重症监护病房类型",
            kind="category",
            available="arrival",
            categories=categories(("medical", "Medical", "内科"), ("surgical", "Surgical", "外科")),
        ),
        # Admissions are often known by their day alone: some seem to follow the hour by up to a day.
        _column(
            "hours_since_admission",
            "Hours since admission to the hospital",
            "入院后小时数",
            unit="h",
            low=-24,
            high=100_000,
        ),
        *MEASURED,
        _column(
            "sepsis_known_at",
            "When sepsis was known or ruled out",
            "脓毒症结局确定时间",
            kind="time",
            role="audit",
        ),
        _column(
            "sepsis_6h",
            "Sepsis now or within six hours",
            "当前或6小时内脓毒症",
            kind="flag",
            role="outcome",
            known_at="sepsis_known_at",
            known_within=1,
        ),
    ),
)
