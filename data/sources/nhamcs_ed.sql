-- mart: ed_visit
-- use: demonstration
-- terms: Public-use file for statistical analysis only; no attempt to identify anyone, no linking, not for care.
-- attribution: National Center for Health Statistics, National Hospital Ambulatory Medical Care Survey, Emergency Department public-use files.
--
-- The survey's variables to the contract. Negative codes mean blank (-9), unknown (-8) or not
-- applicable (-7): all are missing here. A hospital's code holds within one year only, so a site is
-- a hospital-year. The date is withheld but for month and weekday: arrived_at is the first day of
-- that month that falls on that weekday, good for windows of months and no finer.
--
-- The survey comes as Stata, SAS or Parquet: ARRTIME is text in some, a column of whole numbers with
-- gaps is one of fractions, and Stata keeps seven digits of a weight. Not every year has every box.

WITH survey AS (
    SELECT * FROM source
    UNION ALL BY NAME
    SELECT CAST(NULL AS INTEGER) AS LEFTBTRI, CAST(NULL AS INTEGER) AS LEFTATRI WHERE false
),
complaint_class (low, high, complaint) AS (
    -- Reason-for-visit classes, with the survey's decimal digit, to our complaints.
    -- 8997, "none", is no complaint and stays missing.
    VALUES
        (10050, 10059, 'fever'), (10100, 10123, 'fever'), (10150, 10150, 'fatigue'),
        (10200, 10200, 'general_weakness'), (10250, 10250, 'unwell'), (10300, 10300, 'syncope'),
        (10350, 10353, 'fluid_abnormality'), (10400, 10452, 'weight_change'), (10460, 10460, 'face_symptom'),
        (10500, 10503, 'chest_pain'), (10550, 10553, 'flank_pain'), (10554, 10554, 'face_symptom'),
        (10600, 10603, 'general_pain'), (10650, 10660, 'mass'), (10700, 10700, 'bleeding'),
        (10750, 10803, 'infant_symptom'), (10850, 10850, 'infection_other'), (10900, 10900, 'allergy'),
        (10950, 10960, 'movement_disorder'), (11000, 11050, 'anxiety'), (11100, 11100, 'depression'),
        (11150, 11305, 'behaviour'), (11350, 11355, 'sleep'), (11400, 11400, 'environment'),
        (11450, 11450, 'alcohol'), (11500, 11501, 'drug_use'), (11550, 11550, 'psychosis'),
        (11600, 11654, 'behaviour'), (12000, 12000, 'movement_disorder'), (12050, 12050, 'seizure'),
        (12070, 12101, 'headache'), (12150, 12150, 'memory'), (12200, 12204, 'numbness'),
        (12250, 12250, 'dizziness'), (12300, 12300, 'focal_weakness'), (12350, 12352, 'speech'),
        (12400, 12400, 'nervous_other'), (12600, 12603, 'palpitations'), (12650, 12650, 'chest_pain'),
        (12700, 12700, 'heart_disease'), (12750, 12803, 'circulation_other'), (13050, 13404, 'eye'),
        (13450, 13654, 'ear'), (14000, 14000, 'nose'), (14050, 14050, 'nose'),
        (14051, 14051, 'nosebleed'), (14052, 14103, 'nose'), (14150, 14200, 'dyspnoea'),
        (14250, 14250, 'wheezing'), (14300, 14302, 'breathing_other'), (14350, 14350, 'common_cold'),
        (14400, 14400, 'cough'), (14450, 14501, 'common_cold'), (14550, 14600, 'throat'),
        (14700, 14700, 'cough'), (14701, 14701, 'haemoptysis'), (14702, 14703, 'cough'),
        (14750, 14750, 'breathing_other'), (14800, 14802, 'throat'), (14850, 14852, 'breathing_other'),
        (15000, 15003, 'tooth'), (15010, 15154, 'mouth'), (15200, 15200, 'dysphagia'),
        (15250, 15250, 'nausea'), (15300, 15300, 'vomiting'), (15350, 15350, 'heartburn'),
        (15400, 15400, 'diarrhoea'), (15450, 15453, 'abdominal_pain'), (15650, 15653, 'abdominal_distension'),
        (15700, 15750, 'appetite'), (15800, 15800, 'melaena'), (15801, 15801, 'melaena'),
        (15802, 15802, 'haematemesis'), (15850, 15900, 'constipation'), (15950, 15950, 'diarrhoea'),
        (16000, 16004, 'bowel_other'), (16050, 16054, 'anorectal'), (16100, 16102, 'jaundice'),
        (16150, 16150, 'digestive_other'), (16400, 16403, 'haematuria'), (16450, 16551, 'urinary_symptom'),
        (16552, 16552, 'urinary_symptom'), (16600, 16604, 'urinary_retention'), (16650, 16653, 'urinary_infection'),
        (16700, 16703, 'kidney'), (16750, 16750, 'urinary_infection'), (16800, 16800, 'urinary_other'),
        (17000, 17200, 'male_genital'), (17300, 17503, 'menstrual'), (17550, 17553, 'vaginal_bleeding'),
        (17600, 17753, 'menstrual'), (17900, 17910, 'pregnancy'), (17950, 17950, 'menstrual'),
        (18000, 18103, 'breast'), (18150, 18150, 'menstrual'), (18200, 18200, 'endocrine_other'),
        (18250, 18250, 'menstrual'), (18300, 18350, 'rash'), (18400, 18403, 'skin_infection'),
        (18450, 18550, 'skin_lesion'), (18600, 18601, 'rash'), (18650, 18904, 'skin_lesion'),
        (18950, 18950, 'skin_lesion'), (19000, 19006, 'neck'), (19050, 19056, 'back'),
        (19100, 19106, 'low_back'), (19150, 19156, 'hip'), (19200, 19206, 'leg'),
        (19250, 19256, 'knee'), (19300, 19356, 'ankle_foot'), (19400, 19406, 'shoulder'),
        (19450, 19506, 'arm'), (19550, 19606, 'hand'), (19650, 19800, 'muscle_joint'),
        (20050, 20050, 'diarrhoea'), (20100, 20100, 'throat'), (20150, 20150, 'common_cold'),
        (20151, 20200, 'infection_other'), (20250, 20250, 'skin_infection'), (20300, 20300, 'infection_other'),
        (20310, 20310, 'sepsis'), (20350, 20350, 'infection_other'), (21000, 21350, 'cancer'),
        (21400, 21500, 'neoplasm_other'), (22000, 22000, 'endocrine_other'), (22010, 22050, 'diabetes'),
        (22100, 22100, 'muscle_joint'), (22150, 22150, 'endocrine_other'), (22500, 22550, 'anaemia'),
        (23000, 23050, 'psychosis'), (23100, 23150, 'psychiatric_other'), (23200, 23200, 'alcohol'),
        (23210, 23210, 'drug_use'), (23250, 23301, 'psychiatric_other'), (23500, 23550, 'nervous_other'),
        (23600, 23600, 'seizure'), (23650, 23650, 'headache'), (23700, 23700, 'nervous_other'),
        (24000, 24200, 'eye'), (24500, 24550, 'ear'), (25000, 25000, 'heart_disease'),
        (25050, 25100, 'hypertension'), (25150, 25200, 'heart_disease'), (25250, 25250, 'stroke'),
        (25300, 25300, 'circulation_other'), (25350, 25350, 'thrombosis'), (25400, 25400, 'circulation_other'),
        (25450, 25450, 'anorectal'), (25500, 25500, 'circulation_other'), (26000, 26000, 'common_cold'),
        (26050, 26050, 'throat'), (26100, 26100, 'common_cold'), (26200, 26200, 'copd'),
        (26250, 26250, 'asthma'), (26300, 26300, 'pneumonia'), (26301, 26301, 'respiratory_other'),
        (26310, 26320, 'respiratory_other'), (26360, 26370, 'respiratory_other'), (26350, 26350, 'allergy'), (26400, 26400, 'copd'),
        (26500, 26500, 'digestive_other'), (26550, 26550, 'digestive_other'), (26600, 26600, 'hernia'),
        (26650, 26650, 'digestive_other'), (26700, 26700, 'jaundice'), (26750, 26750, 'digestive_other'),
        (26751, 26753, 'tooth'), (26755, 26755, 'mouth'), (27000, 27000, 'urinary_infection'),
        (27050, 27050, 'kidney'), (27100, 27100, 'male_genital'), (27150, 27150, 'breast'),
        (27200, 27300, 'menstrual'), (27350, 27350, 'pregnancy'), (27360, 27360, 'urinary_other'),
        (28000, 28050, 'skin_infection'), (28100, 28250, 'rash'), (29000, 29100, 'muscle_joint'),
        (29500, 29600, 'infant_symptom'), (29800, 29800, 'infant_symptom'), (29900, 29900, 'infant_symptom'),
        (31000, 31050, 'examination'), (31300, 31300, 'psychiatric_other'), (32000, 32150, 'pregnancy'),
        (32200, 32200, 'breast'), (32250, 32250, 'menstrual'), (32300, 32300, 'eye'),
        (32350, 32350, 'heart_disease'), (32400, 32400, 'examination'), (33000, 33050, 'test_other'),
        (33100, 33100, 'diabetes'), (33110, 33111, 'test_other'), (33140, 33151, 'abnormal_blood_test'),
        (33200, 33200, 'hypertension'), (33250, 33350, 'test_other'), (33400, 33450, 'abnormal_imaging'),
        (33500, 33500, 'test_other'), (33550, 33550, 'test_other'), (33600, 33600, 'ear'),
        (33650, 33701, 'test_other'), (33702, 33702, 'throat'), (33703, 33704, 'test_other'),
        (34000, 34001, 'medication'), (34050, 34050, 'infection_other'), (34080, 34090, 'medication'),
        (34100, 34150, 'infection_other'), (35000, 35350, 'pregnancy'), (41000, 41000, 'allergy'),
        (41100, 41100, 'medication'), (41110, 41110, 'nonadherence'), (41150, 41150, 'medication'),
        (42000, 42050, 'surgery_visit'), (44000, 44000, 'treatment_other'), (44010, 44010, 'cardiac_arrest'),
        (44050, 44050, 'breathing_other'), (44100, 44101, 'psychiatric_other'), (44150, 44150, 'cancer'),
        (44200, 44200, 'treatment_other'), (44250, 44250, 'cancer'), (45000, 45070, 'tube'),
        (45100, 45100, 'urinary_other'), (45150, 45150, 'eye'), (45180, 45180, 'drug_use'),
        (45181, 45181, 'alcohol'), (45182, 45182, 'drug_use'), (45200, 45210, 'surgery_visit'),
        (45250, 45250, 'dialysis'), (45290, 45350, 'complication'), (45400, 45550, 'wound_care'),
        (45560, 45600, 'treatment_other'), (45650, 45652, 'complication'), (46000, 46054, 'treatment_other'),
        (47000, 47400, 'social'), (48000, 48000, 'follow_up'), (50050, 50200, 'fracture_trunk'),
        (50250, 50500, 'fracture_limb'), (51050, 51300, 'sprain'), (52050, 52100, 'laceration_head'),
        (52150, 52300, 'laceration_body'), (53050, 53250, 'puncture'), (54050, 54300, 'contusion'),
        (55050, 55050, 'injury_head'), (55100, 55250, 'injury_trunk'), (55300, 55450, 'injury_leg'),
        (55500, 55700, 'injury_arm'), (55750, 55750, 'injury_multiple'), (56000, 56200, 'foreign_body'),
        (57050, 57500, 'burn'), (57550, 57600, 'bite'), (58000, 58000, 'injury_multiple'),
        (58050, 58050, 'road_accident'), (58100, 58100, 'accident'), (58150, 58154, 'violence'),
        (58180, 58201, 'self_harm'), (58300, 58301, 'violence'), (58350, 58350, 'cardiac_arrest'),
        (58360, 58370, 'cardiac_arrest'), (58380, 58380, 'environment'), (58390, 58390, 'cardiac_arrest'),
        (58400, 58420, 'altered_consciousness'), (59000, 59002, 'poisoning'), (59050, 59050, 'adverse_drug'),
        (59100, 59100, 'drug_use'), (59150, 59160, 'alcohol'), (59200, 59250, 'environment'),
        (59300, 59302, 'complication'), (59350, 59354, 'sepsis'), (61000, 61000, 'diabetes'),
        (61050, 61050, 'endocrine_other'), (61060, 61100, 'abnormal_blood_test'), (62000, 63000, 'test_other'),
        (64000, 64000, 'abnormal_imaging'), (65000, 65000, 'test_other'), (66000, 67000, 'test_other'),
        (71000, 71351, 'examination'), (71370, 71370, 'referred_in'), (71400, 71400, 'other'),
        (89900, 89930, 'other'), (89980, 89990, 'other')
),
complaint_code AS (
    SELECT code, any_value(complaint) AS complaint
    FROM (SELECT DISTINCT unnest([RFV1, RFV2, RFV3, RFV4, RFV5]) AS code FROM source)
    JOIN complaint_class ON code BETWEEN low AND high
    GROUP BY code
),
visit AS (
    SELECT
        * REPLACE (
            CAST(YEAR AS INTEGER) AS YEAR,
            CAST(HOSPCODE AS INTEGER) AS HOSPCODE,
            CAST(PATCODE AS INTEGER) AS PATCODE,
            CAST(CAST(PATWT AS FLOAT) AS DOUBLE) AS PATWT
        ),
        row_number() OVER () AS position,  -- joins do not keep the files' order
        make_date(CAST(YEAR AS INTEGER), CAST(VMONTH AS INTEGER), 1) AS month,
        CASE WHEN VDAYR BETWEEN 1 AND 7 THEN VDAYR - 1 END AS weekday,  -- 0 is Sunday
        CAST(ARRTIME AS INTEGER) AS arrived,
        CASE WHEN arrived BETWEEN 0 AND 2359 AND arrived % 100 < 60 THEN arrived END AS clock
    FROM survey
),
timed AS (
    SELECT
        *,
        CAST(month AS TIMESTAMP)
            + to_days(CAST(coalesce((weekday - dayofweek(month) + 7) % 7, 0) AS INTEGER))
            + to_minutes(CAST(coalesce(clock // 100 * 60 + clock % 100, 0) AS INTEGER)) AS arrived_at,
        -- minutes in the department; a visit of more than four days is a slip of the pen
        CASE WHEN LOV BETWEEN 0 AND 5760 THEN arrived_at + to_minutes(CAST(LOV AS INTEGER)) END AS departed_at
    FROM visit
)
SELECT
    format('{}-{}-{}', YEAR, HOSPCODE, PATCODE) AS visit_id,
    CAST(NULL AS VARCHAR) AS patient_id,
    format('{}-{}', YEAR, HOSPCODE) AS site,
    CAST(NULL AS VARCHAR) AS site_tier,
    PATWT AS weight,
    arrived_at,
    clock // 100 AS arrival_hour,
    CASE WHEN weekday = 0 THEN 7 ELSE weekday END AS arrival_weekday,
    CASE WHEN AGE >= 0 THEN AGE END AS age,
    CASE SEX WHEN 1 THEN 'female' WHEN 2 THEN 'male' END AS sex,
    CASE ARREMS WHEN 1 THEN true WHEN 2 THEN false END AS ambulance,
    -- asked only of those who came by ambulance: "not applicable" is a no
    CASE WHEN AMBTRANSFER = 1 THEN true WHEN AMBTRANSFER IN (2, -7) THEN false END AS transferred_in,
    CASE WHEN RESIDNCE = 2 THEN true WHEN RESIDNCE > 0 THEN false END AS nursing_home,
    CASE SEEN72 WHEN 1 THEN true WHEN 2 THEN false END AS seen_72h,
    CASE EPISODE WHEN 2 THEN true WHEN 1 THEN false END AS follow_up,
    -- tenths of a degree Fahrenheit, to a tenth of a degree Celsius
    CASE WHEN TEMPF > 0 THEN round((TEMPF / 10.0 - 32) / 1.8, 1) END AS temperature,
    -- 998 means that it was felt or heard by Doppler, not counted
    CASE WHEN PULSE BETWEEN 0 AND 997 THEN PULSE END AS heart_rate,
    CASE WHEN RESPR >= 0 THEN RESPR END AS respiratory_rate,
    CASE WHEN BPSYS >= 0 THEN BPSYS END AS sbp,
    CASE WHEN BPDIAS BETWEEN 0 AND 997 THEN BPDIAS END AS dbp,
    CASE WHEN POPCT >= 0 THEN POPCT END AS spo2,
    CASE WHEN PAINSCALE >= 0 THEN PAINSCALE END AS pain,
    -- 0 and 7: the visit had no triage
    CASE WHEN IMMEDR BETWEEN 1 AND 5 THEN IMMEDR END AS acuity,
    reason1.complaint AS reason_1,
    reason2.complaint AS reason_2,
    reason3.complaint AS reason_3,
    reason4.complaint AS reason_4,
    reason5.complaint AS reason_5,
    CASE ETOHAB WHEN 1 THEN true WHEN 0 THEN false END AS alcohol_misuse,
    CASE ALZHD WHEN 1 THEN true WHEN 0 THEN false END AS dementia,
    CASE ASTHMA WHEN 1 THEN true WHEN 0 THEN false END AS asthma,
    CASE CANCER WHEN 1 THEN true WHEN 0 THEN false END AS cancer,
    CASE CEBVD WHEN 1 THEN true WHEN 0 THEN false END AS cerebrovascular_disease,
    CASE CKD WHEN 1 THEN true WHEN 0 THEN false END AS chronic_kidney_disease,
    CASE COPD WHEN 1 THEN true WHEN 0 THEN false END AS copd,
    CASE CHF WHEN 1 THEN true WHEN 0 THEN false END AS heart_failure,
    CASE CAD WHEN 1 THEN true WHEN 0 THEN false END AS coronary_artery_disease,
    CASE DEPRN WHEN 1 THEN true WHEN 0 THEN false END AS depression,
    CASE DIABTYP1 WHEN 1 THEN true WHEN 0 THEN false END AS diabetes_type_1,
    CASE DIABTYP2 WHEN 1 THEN true WHEN 0 THEN false END AS diabetes_type_2,
    CASE DIABTYP0 WHEN 1 THEN true WHEN 0 THEN false END AS diabetes_unspecified,
    CASE ESRD WHEN 1 THEN true WHEN 0 THEN false END AS end_stage_renal_disease,
    CASE HPE WHEN 1 THEN true WHEN 0 THEN false END AS thromboembolism,
    CASE EDHIV WHEN 1 THEN true WHEN 0 THEN false END AS hiv,
    CASE HYPLIPID WHEN 1 THEN true WHEN 0 THEN false END AS hyperlipidaemia,
    CASE HTN WHEN 1 THEN true WHEN 0 THEN false END AS hypertension,
    CASE OBESITY WHEN 1 THEN true WHEN 0 THEN false END AS obesity,
    CASE OSA WHEN 1 THEN true WHEN 0 THEN false END AS sleep_apnoea,
    CASE OSTPRSIS WHEN 1 THEN true WHEN 0 THEN false END AS osteoporosis,
    CASE SUBSTAB WHEN 1 THEN true WHEN 0 THEN false END AS substance_misuse,
    CASE RACEUN WHEN 1 THEN 'White' WHEN 2 THEN 'Black' WHEN 3 THEN 'Asian'
        WHEN 4 THEN 'Native Hawaiian or Pacific Islander' WHEN 5 THEN 'American Indian or Alaska Native'
        WHEN 6 THEN 'More than one race' END AS race,
    CASE ETHUN WHEN 1 THEN 'Hispanic or Latino' WHEN 2 THEN 'Not Hispanic or Latino' END AS ethnicity,
    CASE PAYTYPER WHEN 1 THEN 'Private insurance' WHEN 2 THEN 'Medicare' WHEN 3 THEN 'Medicaid'
        WHEN 4 THEN 'Workers compensation' WHEN 5 THEN 'Self-pay' WHEN 6 THEN 'Charity'
        WHEN 7 THEN 'Other' END AS payer,
    CASE REGION WHEN 1 THEN 'Northeast' WHEN 2 THEN 'Midwest' WHEN 3 THEN 'South'
        WHEN 4 THEN 'West' END AS region,
    departed_at,
    -- days in hospital; not applicable (-7) is a visit that ended with the department
    CASE WHEN LOS >= 0 THEN departed_at + to_days(CAST(LOS AS INTEGER))
        WHEN LOS = -7 THEN departed_at END AS stay_ended_at,
    -- Several boxes may be ticked. What ends the visit for the model's cohort comes first.
    CASE WHEN DOA = 1 THEN 'dead_on_arrival'
        WHEN LEFTBTRI = 1 THEN 'left_before_triage'
        WHEN LEFTATRI = 1 THEN 'left_after_triage'
        WHEN LEFTAMA = 1 THEN 'left_against_advice'
        WHEN OBSHOS = 1 THEN 'observation'
        WHEN ADMITHOS = 1 THEN 'admitted'
        WHEN TRANOTH = 1 THEN 'transferred'
        WHEN DIEDED = 1 THEN 'died'
        WHEN NODISP = 0 THEN 'discharged' END AS disposition,  -- 1: nobody said what became of them
    -- not applicable (-7) is a no; unknown and blank stay missing
    CASE WHEN ADMIT = 1 THEN true WHEN ADMIT > 1 OR ADMIT = -7 THEN false END AS critical_care,
    CASE WHEN DIEDED = 1 OR HDSTAT = 2 THEN true WHEN HDSTAT IN (1, -7) THEN false END AS died
FROM timed
LEFT JOIN complaint_code AS reason1 ON reason1.code = RFV1
LEFT JOIN complaint_code AS reason2 ON reason2.code = RFV2
LEFT JOIN complaint_code AS reason3 ON reason3.code = RFV3
LEFT JOIN complaint_code AS reason4 ON reason4.code = RFV4
LEFT JOIN complaint_code AS reason5 ON reason5.code = RFV5
ORDER BY position
