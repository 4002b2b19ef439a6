-- mart: icu_hour
-- use: demonstration
-- terms: CC BY 4.0: free to use with attribution; de-identified patients, not for care.
-- attribution: Reyna et al., Crit Care Med 2020;48:210-217, doi:10.13026/v64v-d857; Goldberger et al., Circulation 2000;101:e215. PhysioNet/Computing in Cardiology Challenge 2019.
-- cells: text
--
-- One row a patient and hour, from the challenge's own files (PSV, a file a patient, whose name is the
-- patient's) or from one table with patient_id and hospital_system. A patient has one stay. No dates.
--
-- Values have two decimals at most: rounding makes four-byte floats of a table and the text of a PSV
-- file the same number. Hospital system A names its patients p0…, B p1….
--
-- Units are the challenge's, but for two that its documentation cannot mean: lactate is said to be in
-- mg/dL, yet half of the values lie above 1.8, which is ordinary in mmol/L and no life in mg/dL;
-- magnesium is said to be in mmol/dL, yet 2.0 is ordinary in mg/dL and no life otherwise. FiO2 is
-- said to be in per cent and is a fraction. SepsisLabel is shifted by the challenge: it is 1 from six
-- hours before the onset of sepsis.

WITH charted AS (
    SELECT
        coalesce(patient_id, source_file) AS patient,
        coalesce(hospital_system, CASE left(patient, 2) WHEN 'p0' THEN 'A' WHEN 'p1' THEN 'B' END) AS system,
        CAST(COLUMNS(* EXCLUDE (patient_id, hospital_system, source_file)) AS DOUBLE)
    FROM (
        SELECT * FROM source
        UNION ALL BY NAME
        SELECT CAST(NULL AS VARCHAR) AS patient_id, CAST(NULL AS VARCHAR) AS hospital_system WHERE false
    )
),
hour AS (
    SELECT
        patient,
        system,
        -- not nullif(…, 'NaN'): Parquet's statistics tell DuckDB that there is none
        CASE WHEN NOT isnan(COLUMNS(* EXCLUDE (patient, system)))
            THEN round(COLUMNS(* EXCLUDE (patient, system)), 2) END
    FROM charted
)
SELECT
    patient AS stay_id,
    patient AS patient_id,
    system AS site,
    CAST(NULL AS VARCHAR) AS site_tier,
    CAST(NULL AS TIMESTAMP) AS charted_at,
    CAST(ICULOS AS BIGINT) AS icu_hour,
    Age AS age,
    CASE Gender WHEN 0 THEN 'female' WHEN 1 THEN 'male' END AS sex,
    CASE WHEN Unit1 = 1 THEN 'medical' WHEN Unit2 = 1 THEN 'surgical' END AS icu_unit,
    -- HospAdmTime: hours from intensive care back to the hospital's door, so mostly below zero
    round(ICULOS - HospAdmTime, 2) AS hours_since_admission,
    HR AS heart_rate,
    O2Sat AS spo2,
    Temp AS temperature,
    SBP AS sbp,
    MAP AS map,
    DBP AS dbp,
    Resp AS respiratory_rate,
    EtCO2 AS etco2,
    BaseExcess AS base_excess,
    HCO3 AS bicarbonate,
    FiO2 AS fio2,
    pH AS ph,
    PaCO2 AS paco2,
    SaO2 AS sao2,
    AST AS ast,
    BUN AS urea_nitrogen,
    Alkalinephos AS alkaline_phosphatase,
    Calcium AS calcium,
    Chloride AS chloride,
    Creatinine AS creatinine,
    Bilirubin_direct AS bilirubin_direct,
    Glucose AS glucose,
    Lactate AS lactate,
    Magnesium AS magnesium,
    Phosphate AS phosphate,
    Potassium AS potassium,
    Bilirubin_total AS bilirubin_total,
    TroponinI AS troponin_i,
    Hct AS haematocrit,
    Hgb AS haemoglobin,
    PTT AS ptt,
    WBC AS leucocytes,
    Fibrinogen AS fibrinogen,
    Platelets AS platelets,
    CAST(NULL AS TIMESTAMP) AS sepsis_known_at,
    CASE SepsisLabel WHEN 1 THEN true WHEN 0 THEN false END AS sepsis_6h
FROM hour
