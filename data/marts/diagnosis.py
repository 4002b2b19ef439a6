"""Groups of diagnoses: fine enough for a readmission model, coarse enough for ICD-9 and ICD-10 alike.

A source maps its own codes to these. Which ICD-9 codes make a group stands in
``data/sources/diabetes130.sql``; beside each group here stand the ICD-10 codes that match it.
"""

from data.contract import Category, Text

DIAGNOSES = tuple(
    Category(id=name, label=Text(en, zh))
    for name, en, zh in (
        ("sepsis", "Sepsis", "脓毒症"),  # A40-A41
        ("infection_other", "Other infection", "其他感染"),  # A00-B99
        ("cancer_digestive", "Cancer of the digestive organs", "消化系统恶性肿瘤"),  # C15-C26
        ("cancer_lung", "Cancer of the lung or chest", "肺及胸部恶性肿瘤"),  # C30-C39
        ("cancer_blood", "Cancer of blood or lymph", "血液及淋巴恶性肿瘤"),  # C81-C96
        ("cancer_secondary", "Metastatic cancer", "转移性恶性肿瘤"),  # C77-C80
        ("cancer_other", "Other cancer", "其他恶性肿瘤"),  # C00-C14, C40-C76, C97
        ("neoplasm_benign", "Benign or uncertain neoplasm", "良性或性质未定肿瘤"),  # D00-D49
        ("thyroid", "Disease of the thyroid", "甲状腺疾病"),  # E00-E07
        ("diabetes", "Diabetes without complication", "糖尿病（无并发症）"),  # E1x.9
        (
            "diabetes_acute",
            "Diabetes with ketoacidosis, hyperosmolarity or coma",
            "糖尿病急性并发症",
        ),  # E1x.0-1
        ("diabetes_renal", "Diabetes with kidney complication", "糖尿病肾病"),  # E1x.2
        ("diabetes_other", "Diabetes with another complication", "糖尿病其他并发症"),  # E1x.3-8
        ("lipids", "Disorder of blood lipids", "血脂异常"),  # E78
        ("fluid_electrolyte", "Disorder of fluid or electrolytes", "水电解质紊乱"),  # E86-E87
        ("obesity", "Obesity", "肥胖"),  # E66
        (
            "endocrine_other",
            "Other endocrine, nutritional or immune disease",
            "其他内分泌、营养或免疫疾病",
        ),
        ("anaemia", "Anaemia", "贫血"),  # D50-D64
        ("blood_other", "Other disease of the blood", "其他血液疾病"),  # D65-D89
        ("dementia_delirium", "Dementia or delirium", "痴呆或谵妄"),  # F01-F09
        ("psychosis", "Psychosis or bipolar disorder", "精神病性或双相障碍"),  # F20-F31
        ("substance_use", "Alcohol or drug use", "酒精或药物使用"),  # F10-F19
        ("depression_anxiety", "Depression, anxiety or stress", "抑郁、焦虑或应激"),  # F32-F48
        ("mental_other", "Other mental disorder", "其他精神障碍"),  # F50-F99
        ("epilepsy", "Epilepsy", "癫痫"),  # G40
        ("nervous_other", "Other disease of the nervous system", "其他神经系统疾病"),  # G00-G99
        ("eye_ear", "Disease of the eye or ear", "眼耳疾病"),  # H00-H95
        ("hypertension", "High blood pressure", "高血压"),  # I10, I15
        (
            "hypertension_organ",
            "High blood pressure with heart or kidney disease",
            "高血压性心肾病",
        ),  # I11-I13
        ("infarction", "Acute myocardial infarction", "急性心肌梗死"),  # I21-I22
        ("ischaemic_heart", "Other ischaemic heart disease", "其他缺血性心脏病"),  # I20, I23-I25
        ("heart_failure", "Heart failure", "心力衰竭"),  # I50
        ("arrhythmia", "Disorder of heart rhythm or conduction", "心律或传导障碍"),  # I44-I49
        (
            "valve_muscle",
            "Disease of the heart's valves or muscle",
            "心脏瓣膜或心肌病",
        ),  # I05-I09, I33-I43
        ("pulmonary_circulation", "Disease of the lung's circulation", "肺循环疾病"),  # I26-I28
        ("stroke", "Stroke or cerebrovascular disease", "脑卒中或脑血管病"),  # I60-I69
        ("artery", "Disease of the arteries", "动脉疾病"),  # I70-I79
        ("vein", "Disease of veins or lymph vessels", "静脉或淋巴管疾病"),  # I80-I89
        ("circulatory_other", "Other disease of the circulation", "其他循环系统疾病"),  # I95-I99
        ("pneumonia", "Pneumonia or influenza", "肺炎或流感"),  # J09-J18
        ("copd", "Chronic obstructive pulmonary disease", "慢性阻塞性肺疾病"),  # J40-J44, J47
        ("asthma", "Asthma", "哮喘"),  # J45-J46
        (
            "respiratory_failure",
            "Respiratory failure or collapsed lung",
            "呼吸衰竭或肺不张",
        ),  # J80-J81, J96, J98
        ("respiratory_other", "Other disease of the airways or lungs", "其他呼吸系统疾病"),  # J00-J99
        ("gi_bleeding", "Bleeding of stomach or bowel", "消化道出血"),  # K92.0-2
        ("liver", "Disease of the liver", "肝脏疾病"),  # K70-K77
        ("biliary_pancreas", "Disease of gallbladder or pancreas", "胆囊或胰腺疾病"),  # K80-K87
        ("stomach", "Disease of oesophagus or stomach", "食管或胃疾病"),  # K20-K31
        ("bowel", "Disease of the bowel", "肠道疾病"),  # K35-K63
        ("digestive_other", "Other disease of the digestive organs", "其他消化系统疾病"),  # K00-K95
        ("kidney_acute", "Acute kidney failure", "急性肾衰竭"),  # N17
        ("kidney_chronic", "Chronic kidney disease", "慢性肾病"),  # N18-N19
        ("urinary_infection", "Infection of kidney or urinary tract", "泌尿系感染"),  # N10, N30, N39.0
        ("urinary_other", "Other disease of kidney or urinary tract", "其他泌尿系统疾病"),  # N00-N39
        ("genital", "Disease of breast or genital organs", "乳腺或生殖系统疾病"),  # N40-N98
        ("pregnancy", "Pregnancy, birth or newborn", "妊娠、分娩或新生儿"),  # O00-P96
        ("skin_infection", "Infection of the skin", "皮肤感染"),  # L00-L08
        ("skin_ulcer", "Chronic ulcer of the skin", "慢性皮肤溃疡"),  # L89, L97, L98.4
        ("skin_other", "Other disease of the skin", "其他皮肤疾病"),  # L10-L99
        ("joint", "Disease of the joints", "关节疾病"),  # M00-M25
        ("spine", "Disease of the spine", "脊柱疾病"),  # M40-M54
        ("bone_muscle_other", "Other disease of bone or muscle", "其他骨骼肌肉疾病"),  # M30-M99
        ("congenital", "Congenital anomaly", "先天畸形"),  # Q00-Q99
        (
            "symptom_nervous",
            "Fainting, seizure, fever, fatigue or disturbed consciousness",
            "晕厥、抽搐、发热、乏力或意识障碍",
        ),
        (
            "symptom_chest",
            "Chest pain, dyspnoea or other symptom of the chest",
            "胸痛、呼吸困难等胸部症状",
        ),
        ("symptom_abdomen", "Abdominal or urinary symptom", "腹部或泌尿症状"),  # R10-R19, R30-R39
        ("symptom_other", "Other symptom or finding", "其他症状或异常所见"),  # R00-R99
        ("fracture", "Fracture", "骨折"),  # S02 … S92
        ("injury_other", "Other injury", "其他损伤"),  # S00-T35
        ("poisoning", "Poisoning or effect of drugs", "中毒或药物作用"),  # T36-T65
        ("complication", "Complication of a device or procedure", "器械或手术并发症"),  # T80-T88
        ("external_cause", "External cause", "外部原因"),  # V00-Y99
        ("cardiac_device", "Heart or vessel repaired or implanted", "心脏血管手术或植入后"),  # Z95
        ("transplant_dialysis", "Transplant or dialysis", "移植或透析"),  # Z94, Z99.2
        ("history_personal", "Past disease or treatment", "既往疾病或治疗史"),  # Z79-Z92
        ("aftercare", "Rehabilitation or aftercare", "康复或术后照护"),  # Z40-Z53
        ("contact_other", "Other reason for contact", "其他就医原因"),  # Z00-Z99
    )
)
