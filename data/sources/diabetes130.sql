-- mart: inpatient_stay
-- use: demonstration
-- terms: CC BY 4.0: free to use with attribution; de-identified patients of 1999-2008, not for care.
-- attribution: Strack et al., BioMed Research International 2014:781670, doi:10.1155/2014/781670; UCI Machine Learning Repository, Diabetes 130-US hospitals for years 1999-2008.
-- member: *diabetic_data.csv
-- cells: text
--
-- "?" is missing. There are no dates: encounter_id rises with time and gives the order. Which of the 130
-- hospitals a stay was in is withheld, so all are one site. Age comes as a band of ten years and
-- becomes the band's middle. Prior visits are those of the year before.
--
-- Left out: weight (known of 3 %), and the twelve drugs that fewer than one patient in a thousand was
-- given (chlorpropamide, acetohexamide, tolbutamide, miglitol, troglitazone, tolazamide, examide,
-- citoglipton, and four combinations).
--
-- Who died or went to a hospice cannot be readmitted; the row stays, and the disposition tells.

WITH diagnosis_class (low, high, diagnosis) AS (
    -- ICD-9-CM; a V code counts from 1000, an E code from 2000. The data keep four digits of diabetes
    -- and three of most others, so 518 is every disease of the lung in that class, 599 mostly infection,
    -- and 995, which stands beside 038 in three stays of four, sepsis.
    VALUES
        (1, 37.99, 'infection_other'), (38, 38.99, 'sepsis'), (39, 139.99, 'infection_other'),
        (140, 149.99, 'cancer_other'), (150, 159.99, 'cancer_digestive'), (160, 165.99, 'cancer_lung'),
        (170, 195.99, 'cancer_other'), (196, 199.99, 'cancer_secondary'), (200, 208.99, 'cancer_blood'),
        (209, 209.39, 'cancer_other'), (209.4, 239.99, 'neoplasm_benign'), (240, 246.99, 'thyroid'),
        (249, 249.99, 'diabetes_other'), (250, 250.09, 'diabetes'), (250.1, 250.39, 'diabetes_acute'),
        (250.4, 250.49, 'diabetes_renal'), (250.5, 250.99, 'diabetes_other'),
        (251, 271.99, 'endocrine_other'), (272, 272.99, 'lipids'), (273, 275.99, 'endocrine_other'),
        (276, 276.99, 'fluid_electrolyte'), (277, 277.99, 'endocrine_other'), (278, 278.99, 'obesity'),
        (279, 279.99, 'endocrine_other'), (280, 285.99, 'anaemia'), (286, 289.99, 'blood_other'),
        (290, 290.99, 'dementia_delirium'), (291, 292.99, 'substance_use'),
        (293, 294.99, 'dementia_delirium'), (295, 299.99, 'psychosis'), (300, 300.99, 'depression_anxiety'),
        (301, 302.99, 'mental_other'), (303, 305.99, 'substance_use'), (306, 307.99, 'mental_other'),
        (308, 309.99, 'depression_anxiety'), (310, 310.99, 'mental_other'),
        (311, 311.99, 'depression_anxiety'), (312, 319.99, 'mental_other'), (320, 344.99, 'nervous_other'),
        (345, 345.99, 'epilepsy'), (346, 359.99, 'nervous_other'), (360, 389.99, 'eye_ear'),
        (390, 398.99, 'valve_muscle'), (401, 401.99, 'hypertension'), (402, 404.99, 'hypertension_organ'),
        (405, 405.99, 'hypertension'), (410, 410.99, 'infarction'), (411, 414.99, 'ischaemic_heart'),
        (415, 417.99, 'pulmonary_circulation'), (420, 425.99, 'valve_muscle'), (426, 427.99, 'arrhythmia'),
        (428, 428.99, 'heart_failure'), (429, 429.99, 'circulatory_other'), (430, 438.99, 'stroke'),
        (440, 449.99, 'artery'), (451, 457.99, 'vein'), (458, 459.99, 'circulatory_other'),
        (460, 479.99, 'respiratory_other'), (480, 488.99, 'pneumonia'), (490, 492.99, 'copd'),
        (493, 493.99, 'asthma'), (494, 494.99, 'copd'), (495, 495.99, 'respiratory_other'),
        (496, 496.99, 'copd'), (500, 517.99, 'respiratory_other'), (518, 518.99, 'respiratory_failure'),
        (519, 519.99, 'respiratory_other'), (520, 529.99, 'digestive_other'), (530, 539.99, 'stomach'),
        (540, 543.99, 'bowel'), (550, 553.99, 'digestive_other'), (555, 569.99, 'bowel'),
        (570, 573.99, 'liver'), (574, 577.99, 'biliary_pancreas'), (578, 578.99, 'gi_bleeding'),
        (579, 579.99, 'digestive_other'), (580, 583.99, 'urinary_other'), (584, 584.99, 'kidney_acute'),
        (585, 586.99, 'kidney_chronic'), (587, 589.99, 'urinary_other'), (590, 590.99, 'urinary_infection'),
        (591, 594.99, 'urinary_other'), (595, 595.99, 'urinary_infection'), (596, 598.99, 'urinary_other'),
        (599, 599.09, 'urinary_infection'), (599.1, 599.99, 'urinary_other'), (600, 629.99, 'genital'),
        (630, 679.99, 'pregnancy'), (680, 686.99, 'skin_infection'), (690, 706.99, 'skin_other'),
        (707, 707.99, 'skin_ulcer'), (708, 709.99, 'skin_other'), (710, 719.99, 'joint'),
        (720, 724.99, 'spine'), (725, 739.99, 'bone_muscle_other'), (740, 759.99, 'congenital'),
        (760, 779.99, 'pregnancy'), (780, 781.99, 'symptom_nervous'), (782, 784.99, 'symptom_other'),
        (785, 785.51, 'symptom_chest'), (785.52, 785.52, 'sepsis'), (785.53, 786.99, 'symptom_chest'),
        (787, 789.99, 'symptom_abdomen'), (790, 799.99, 'symptom_other'), (800, 829.99, 'fracture'),
        (830, 959.99, 'injury_other'), (960, 994.99, 'poisoning'), (995, 995.99, 'sepsis'),
        (996, 999.99, 'complication'), (1001, 1009.99, 'contact_other'),
        (1010, 1015.99, 'history_personal'), (1016, 1041.99, 'contact_other'),
        (1042, 1042.99, 'transplant_dialysis'), (1043, 1043.19, 'contact_other'),
        (1043.2, 1043.49, 'cardiac_device'), (1043.5, 1044.99, 'contact_other'),
        (1045, 1045.09, 'cardiac_device'), (1045.1, 1045.19, 'transplant_dialysis'),
        (1045.2, 1045.79, 'contact_other'), (1045.8, 1045.82, 'cardiac_device'),
        (1045.83, 1050.99, 'contact_other'), (1051, 1055.99, 'aftercare'),
        (1056, 1056.99, 'transplant_dialysis'), (1057, 1058.59, 'aftercare'),
        (1058.6, 1058.69, 'history_personal'), (1058.7, 1058.99, 'aftercare'),
        (1059, 1065.99, 'contact_other'), (1066, 1067.99, 'aftercare'), (1068, 1086.99, 'contact_other'),
        (1087, 1088.99, 'history_personal'), (1089, 1091.99, 'contact_other'),
        (2000, 2999.99, 'external_cause')
),
icd9 AS (
    SELECT code, any_value(diagnosis) AS diagnosis
    FROM (SELECT DISTINCT unnest([diag_1, diag_2, diag_3]) AS code FROM source)
    JOIN diagnosis_class ON CASE left(code, 1) WHEN 'V' THEN 1000 WHEN 'E' THEN 2000 ELSE 0 END
        + TRY_CAST(ltrim(code, 'VE') AS DECIMAL(6, 2)) BETWEEN low AND high
    GROUP BY code
),
stay AS (
    SELECT
        row_number() OVER () AS position,  -- joins do not keep the file's order
        CAST(admission_source_id AS INTEGER) AS admitted_from,
        CAST(discharge_disposition_id AS INTEGER) AS discharged_to,
        *
    FROM source
)
SELECT
    encounter_id AS stay_id,
    patient_nbr AS patient_id,
    'diabetes130' AS site,
    CAST(NULL AS VARCHAR) AS site_tier,
    CAST(NULL AS TIMESTAMP) AS admitted_at,
    CAST(NULL AS TIMESTAMP) AS discharged_at,
    CAST(encounter_id AS BIGINT) AS encounter_order,
    CAST(regexp_extract(age, '(\d+)-', 1) AS DOUBLE) + 5 AS age,
    CASE gender WHEN 'Female' THEN 'female' WHEN 'Male' THEN 'male' END AS sex,
    CASE CAST(admission_type_id AS INTEGER) WHEN 1 THEN 'emergency' WHEN 2 THEN 'urgent' WHEN 3 THEN 'elective'
        WHEN 4 THEN 'newborn' WHEN 7 THEN 'trauma' END AS admission_type,  -- 5, 6, 8: not told
    CASE  -- 9, 15, 17, 20, 21: not told
        WHEN admitted_from = 7 THEN 'emergency_room'
        WHEN admitted_from IN (1, 2, 3) THEN 'referral'
        WHEN admitted_from IN (4, 10) THEN 'other_hospital'
        WHEN admitted_from = 22 THEN 'same_hospital'
        WHEN admitted_from = 5 THEN 'skilled_nursing'
        WHEN admitted_from IN (6, 25, 26) THEN 'other_facility'
        WHEN admitted_from IN (18, 19) THEN 'home_care'
        WHEN admitted_from IN (11, 12, 13, 14, 23, 24) THEN 'birth'
        WHEN admitted_from = 8 THEN 'court'
    END AS admission_source,
    CASE  -- 18, 25, 26: not told
        WHEN discharged_to = 1 THEN 'home'
        WHEN discharged_to IN (6, 8) THEN 'home_care'
        WHEN discharged_to IN (3, 15) THEN 'skilled_nursing'
        WHEN discharged_to IN (4, 24) THEN 'nursing_home'
        WHEN discharged_to = 22 THEN 'rehabilitation'
        WHEN discharged_to = 23 THEN 'long_term_hospital'
        WHEN discharged_to IN (2, 10, 29) THEN 'other_hospital'
        WHEN discharged_to = 28 THEN 'psychiatric'
        WHEN discharged_to IN (5, 27, 30) THEN 'other_facility'
        WHEN discharged_to IN (12, 16, 17) THEN 'outpatient_care'
        WHEN discharged_to = 9 THEN 'readmitted_here'
        WHEN discharged_to = 7 THEN 'left_against_advice'
        WHEN discharged_to IN (13, 14) THEN 'hospice'
        WHEN discharged_to IN (11, 19, 20, 21) THEN 'died'
    END AS discharge_disposition,
    CASE
        WHEN medical_specialty IN ('InternalMedicine', 'Osteopath') THEN 'internal_medicine'
        WHEN medical_specialty = 'Family/GeneralPractice' THEN 'family_practice'
        WHEN medical_specialty = 'Emergency/Trauma' THEN 'emergency'
        WHEN medical_specialty = 'Cardiology' THEN 'cardiology'
        WHEN medical_specialty = 'Pulmonology' THEN 'pulmonology'
        WHEN medical_specialty = 'Gastroenterology' THEN 'gastroenterology'
        WHEN medical_specialty = 'Nephrology' THEN 'nephrology'
        WHEN medical_specialty IN ('Endocrinology', 'Endocrinology-Metabolism') THEN 'endocrinology'
        WHEN medical_specialty IN (
            'Hematology', 'Oncology', 'Hematology/Oncology'
        ) THEN 'haematology_oncology'
        WHEN medical_specialty IN ('Neurology', 'Neurophysiology') THEN 'neurology'
        WHEN medical_specialty = 'InfectiousDiseases' THEN 'infectious_diseases'
        WHEN medical_specialty IN (
            'Rheumatology', 'AllergyandImmunology', 'Dermatology'
        ) THEN 'rheumatology_allergy'
        WHEN medical_specialty IN ('Psychiatry', 'Psychiatry-Addictive', 'Psychology') THEN 'psychiatry'
        WHEN medical_specialty = 'PhysicalMedicineandRehabilitation' THEN 'rehabilitation'
        WHEN medical_specialty = 'Hospitalist' THEN 'hospitalist'
        WHEN medical_specialty IN (
            'Surgery-General', 'Surgeon', 'Surgery-Colon&Rectal', 'Proctology'
        ) THEN 'general_surgery'
        WHEN medical_specialty IN (
            'Orthopedics', 'Orthopedics-Reconstructive', 'SportsMedicine'
        ) THEN 'orthopaedics'
        WHEN medical_specialty IN (
            'Surgery-Cardiovascular/Thoracic', 'Surgery-Cardiovascular', 'Surgery-Thoracic'
        ) THEN 'cardiothoracic_surgery'
        WHEN medical_specialty = 'Surgery-Vascular' THEN 'vascular_surgery'
        WHEN medical_specialty = 'Surgery-Neuro' THEN 'neurosurgery'
        WHEN medical_specialty = 'Urology' THEN 'urology'
        WHEN medical_specialty IN (
            'Surgery-Plastic', 'Surgery-PlasticwithinHeadandNeck', 'SurgicalSpecialty'
        ) THEN 'other_surgery'
        WHEN medical_specialty IN (
            'Ophthalmology', 'Otolaryngology', 'Dentistry', 'Surgery-Maxillofacial', 'Speech'
        ) THEN 'head'
        WHEN medical_specialty IN (
            'ObstetricsandGynecology', 'Obsterics&Gynecology-GynecologicOnco', 'Obstetrics', 'Gynecology', 'Perinatology'
        ) THEN 'obstetrics_gynaecology'
        WHEN medical_specialty LIKE 'Pediatrics%' OR medical_specialty IN (
            'Pediatrics', 'Cardiology-Pediatric', 'Surgery-Pediatric', 'Anesthesiology-Pediatric', 'Psychiatry-Child/Adolescent'
        ) THEN 'paediatrics'
        WHEN medical_specialty = 'Podiatry' THEN 'podiatry'
        WHEN medical_specialty IN (
            'Radiologist', 'Radiology', 'Pathology', 'Anesthesiology'
        ) THEN 'diagnostics'
        WHEN medical_specialty IN ('OutreachServices', 'DCPTEAM', 'Resident') THEN 'other'
    END AS specialty,
    CAST(time_in_hospital AS DOUBLE) AS length_of_stay,
    CAST(num_lab_procedures AS BIGINT) AS laboratory_tests,
    CAST(num_procedures AS BIGINT) AS procedures,
    CAST(num_medications AS BIGINT) AS medications,
    CAST(number_diagnoses AS BIGINT) AS diagnoses,
    CAST(number_outpatient AS BIGINT) AS outpatient_visits,
    CAST(number_emergency AS BIGINT) AS emergency_visits,
    CAST(number_inpatient AS BIGINT) AS inpatient_stays,
    first.diagnosis AS diagnosis_1,
    second.diagnosis AS diagnosis_2,
    third.diagnosis AS diagnosis_3,
    CASE A1Cresult WHEN 'Norm' THEN 'normal' WHEN '>7' THEN 'above_7' WHEN '>8' THEN 'above_8' END AS hba1c,
    CASE max_glu_serum WHEN 'Norm' THEN 'normal' WHEN '>200' THEN 'above_200'
        WHEN '>300' THEN 'above_300' END AS glucose,
    CASE diabetesMed WHEN 'Yes' THEN true WHEN 'No' THEN false END AS diabetes_medication,
    CASE change WHEN 'Ch' THEN true WHEN 'No' THEN false END AS medication_change,
    lower(metformin) AS metformin,
    lower(repaglinide) AS repaglinide,
    lower(nateglinide) AS nateglinide,
    lower(glimepiride) AS glimepiride,
    lower(glipizide) AS glipizide,
    lower(glyburide) AS glibenclamide,
    lower("glyburide-metformin") AS glibenclamide_metformin,
    lower(pioglitazone) AS pioglitazone,
    lower(rosiglitazone) AS rosiglitazone,
    lower(acarbose) AS acarbose,
    lower(insulin) AS insulin,
    nullif(race, '?') AS race,
    nullif(payer_code, '?') AS payer,
    CAST(NULL AS TIMESTAMP) AS readmission_known_at,
    CASE readmitted WHEN '<30' THEN true WHEN '>30' THEN false WHEN 'NO' THEN false END AS readmitted_30d
FROM stay
LEFT JOIN icd9 AS first ON first.code = diag_1
LEFT JOIN icd9 AS second ON second.code = diag_2
LEFT JOIN icd9 AS third ON third.code = diag_3
ORDER BY position
