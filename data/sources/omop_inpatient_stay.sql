-- mart: inpatient_stay
-- use: care
-- tables: person, visit_occurrence, measurement, condition_occurrence, procedure_occurrence, drug_exposure, death
--
-- OMOP Common Data Model 5.4 (https://ohdsi.github.io/CommonDataModel/cdm54.html), in the SQL that DuckDB
-- and PostgreSQL share; see omop_ed_visit.sql for midnight, missing ends and the middle of a birth date.
--
-- A row is a discharge. Inpatient Visits (9201) and Emergency Room and Inpatient Visits (262) that
-- overlap or follow on the same or the next day are one stay, as transfers are in the readmission
-- measures of CMS: it begins with the first, and its identity, site and disposition are the last one's.
-- A stay that is still open is nobody's discharge and gives no row. What happened in a stay is counted
-- by its dates, to the day of discharge and no further.
--
-- The outcome is a stay that begins 2 to 30 days after the day of discharge. A "no" is known when day 30
-- is over and the data reach beyond it; until then it is missing. How far they reach is told by the last
-- start of a visit to hospital or emergency department: an end may lie in the future by a slip, and an
-- observation period ends in many databases with a patient's last visit, so that only those who came
-- back would be known. Who died in the stay cannot come back: that outcome is missing too.
--
-- Left missing, as CDM has no standard place for it: elective and urgent admission, the specialty, the
-- diagnoses' groups (they are of ICD), doses of the drugs against diabetes, payer, the site's tier.

WITH moment AS (
    SELECT
        CAST(visit_occurrence_id AS BIGINT) AS visit_id, CAST(person_id AS BIGINT) AS person_id,
        CAST(visit_concept_id AS BIGINT) AS kind, CAST(care_site_id AS BIGINT) AS care_site,
        CAST(admitted_from_concept_id AS BIGINT) AS came_from,
        CAST(discharged_to_concept_id AS BIGINT) AS went_to,
        CAST(visit_start_date AS DATE) AS start_date,
        COALESCE(CAST(visit_start_datetime AS TIMESTAMP), CAST(visit_start_date AS TIMESTAMP)) AS started_at,
        COALESCE(CAST(visit_end_date AS DATE), CAST(visit_end_datetime AS DATE)) AS end_date,
        CAST(visit_end_datetime AS TIMESTAMP) AS end_time
    FROM visit_occurrence
    WHERE CAST(visit_concept_id AS BIGINT) IN (9201, 9202, 9203, 262)
),
visit AS (
    SELECT
        visit_id, person_id, kind, care_site, came_from, went_to, start_date, started_at,
        -- an end before the start is no end
        CASE WHEN end_date >= start_date THEN end_date END AS end_date,
        CASE
            WHEN end_date < start_date THEN NULL
            WHEN end_time IS NULL OR end_time = CAST(CAST(end_time AS DATE) AS TIMESTAMP)
                THEN CAST(end_date AS TIMESTAMP) + INTERVAL '1' DAY
            WHEN end_time >= started_at THEN end_time
        END AS ended_at
    FROM moment
),
observed AS (
    SELECT MIN(start_date) AS since, MAX(started_at) AS until FROM visit WHERE kind IN (9201, 9203, 262)
),
linked AS (
    SELECT
        *,
        CASE WHEN start_date <= 1 + MAX(COALESCE(end_date, start_date)) OVER (
            PARTITION BY person_id ORDER BY started_at, visit_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) THEN 0 ELSE 1 END AS opens
    FROM visit
    WHERE kind IN (9201, 262)
),
numbered AS (
    SELECT *, SUM(opens) OVER (PARTITION BY person_id ORDER BY started_at, visit_id) AS episode
    FROM linked
),
placed AS (
    SELECT
        *,
        ROW_NUMBER() OVER (PARTITION BY person_id, episode ORDER BY started_at, visit_id) AS from_first,
        ROW_NUMBER() OVER (
            PARTITION BY person_id, episode ORDER BY started_at DESC, visit_id DESC
        ) AS from_last
    FROM numbered
),
stay AS (
    SELECT
        person_id,
        episode,
        MIN(start_date) AS admitted_on,
        MIN(started_at) AS admitted_at,
        MAX(CASE WHEN from_first = 1 THEN kind END) AS first_kind,
        MAX(CASE WHEN from_first = 1 THEN came_from END) AS came_from,
        MAX(CASE WHEN from_last = 1 THEN visit_id END) AS visit_id,
        MAX(CASE WHEN from_last = 1 THEN care_site END) AS care_site,
        MAX(CASE WHEN from_last = 1 THEN went_to END) AS went_to,
        -- open where the visit that began last has no end
        CASE WHEN MAX(CASE WHEN from_last = 1 THEN end_date END) IS NULL THEN NULL
            ELSE MAX(end_date) END AS discharged_on,
        CASE WHEN MAX(CASE WHEN from_last = 1 THEN end_date END) IS NULL THEN NULL
            ELSE MAX(COALESCE(ended_at, started_at)) END AS discharged_at
    FROM placed
    GROUP BY person_id, episode
),
-- Through which visit to the emergency department the person came: the last that began before the stay
-- and ended at most a day before it. A stay without a time may have begun at any hour of its day.
through_ed AS (
    SELECT
        stay.person_id, stay.episode, visit.visit_id,
        ROW_NUMBER() OVER (
            PARTITION BY stay.person_id, stay.episode ORDER BY visit.started_at DESC, visit.visit_id DESC
        ) AS place
    FROM stay
    JOIN visit ON visit.person_id = stay.person_id
    WHERE visit.kind = 9203
        AND (visit.started_at <= stay.admitted_at
            OR (stay.admitted_at = CAST(stay.admitted_on AS TIMESTAMP)
                AND visit.start_date = stay.admitted_on))
        AND stay.admitted_at <= COALESCE(visit.ended_at, visit.started_at) + INTERVAL '1' DAY
),
arrival AS (
    SELECT person_id, episode, visit_id FROM through_ed WHERE place = 1
),
-- The year before: whole days before admission, without the visit through which the person came.
past AS (
    SELECT
        stay.person_id,
        stay.episode,
        COUNT(DISTINCT CASE WHEN visit.kind = 9202 THEN visit.visit_id END) AS outpatient_visits,
        COUNT(DISTINCT CASE WHEN visit.kind = 9203 AND arrival.visit_id IS NULL THEN visit.visit_id END)
            AS emergency_visits
    FROM stay
    JOIN visit ON visit.person_id = stay.person_id
        AND visit.start_date < stay.admitted_on
        AND visit.start_date >= stay.admitted_on - 365
    LEFT JOIN arrival ON arrival.person_id = stay.person_id
        AND arrival.episode = stay.episode AND arrival.visit_id = visit.visit_id
    GROUP BY stay.person_id, stay.episode
),
past_stay AS (
    SELECT stay.person_id, stay.episode, COUNT(*) AS inpatient_stays
    FROM stay
    JOIN stay AS earlier ON earlier.person_id = stay.person_id
        AND earlier.episode < stay.episode
        AND earlier.admitted_on >= stay.admitted_on - 365
    GROUP BY stay.person_id, stay.episode
),
next_stay AS (
    SELECT
        person_id,
        episode,
        LEAD(admitted_on) OVER (PARTITION BY person_id ORDER BY episode) AS returned_on,
        LEAD(admitted_at) OVER (PARTITION BY person_id ORDER BY episode) AS returned_at
    FROM stay
),
-- What happened in the stay.
test AS (
    SELECT
        CAST(person_id AS BIGINT) AS person_id,
        CAST(measurement_id AS BIGINT) AS measurement_id,
        CAST(measurement_concept_id AS BIGINT) AS concept,
        CAST(measurement_date AS DATE) AS done_on,
        -- Lab, and its older form Lab result: vital signs are measurements too and have another type
        CAST(measurement_type_concept_id AS BIGINT) IN (32856, 44818702) AS laboratory,
        CAST(unit_concept_id AS BIGINT) AS unit,
        CASE WHEN COALESCE(CAST(operator_concept_id AS BIGINT), 0) IN (0, 4172703)  -- equals
            THEN CAST(value_as_number AS DOUBLE PRECISION) END AS result
    FROM measurement
),
tested AS (
    SELECT
        stay.person_id,
        stay.episode,
        COUNT(DISTINCT CASE WHEN test.laboratory THEN test.measurement_id END) AS laboratory_tests,
        -- Haemoglobin A1c, per cent; glucose in serum or plasma, mg/dL. In another unit: not read.
        MAX(CASE WHEN test.concept = 3004410 AND test.unit = 8554 THEN test.result END) AS hba1c,
        MAX(CASE WHEN test.concept = 3004501 AND test.unit = 8840 THEN test.result END) AS glucose
    FROM stay
    JOIN test ON test.person_id = stay.person_id
        AND test.done_on BETWEEN stay.admitted_on AND stay.discharged_on
    GROUP BY stay.person_id, stay.episode
),
operated AS (
    SELECT
        stay.person_id,
        stay.episode,
        COUNT(DISTINCT CAST(procedure_occurrence.procedure_occurrence_id AS BIGINT)) AS procedures
    FROM stay
    JOIN procedure_occurrence ON CAST(procedure_occurrence.person_id AS BIGINT) = stay.person_id
        AND CAST(procedure_occurrence.procedure_date AS DATE)
            BETWEEN stay.admitted_on AND stay.discharged_on
    GROUP BY stay.person_id, stay.episode
),
medicated AS (
    -- different drugs as CDM tells them apart: a strength and form of one substance is a drug
    SELECT
        stay.person_id,
        stay.episode,
        COUNT(DISTINCT NULLIF(CAST(drug_exposure.drug_concept_id AS BIGINT), 0)) AS medications
    FROM stay
    JOIN drug_exposure ON CAST(drug_exposure.person_id AS BIGINT) = stay.person_id
        AND CAST(drug_exposure.drug_exposure_start_date AS DATE)
            BETWEEN stay.admitted_on AND stay.discharged_on
    GROUP BY stay.person_id, stay.episode
),
diagnosed AS (
    SELECT
        stay.person_id,
        stay.episode,
        COUNT(DISTINCT NULLIF(CAST(condition_occurrence.condition_concept_id AS BIGINT), 0)) AS diagnoses
    FROM stay
    JOIN condition_occurrence ON CAST(condition_occurrence.person_id AS BIGINT) = stay.person_id
        AND CAST(condition_occurrence.condition_start_date AS DATE)
            BETWEEN stay.admitted_on AND stay.discharged_on
    GROUP BY stay.person_id, stay.episode
),
-- A kind of record that the data nowhere hold is not "none" in this stay.
recorded AS (
    SELECT
        EXISTS (SELECT 1 FROM test WHERE laboratory) AS laboratory,
        EXISTS (SELECT 1 FROM procedure_occurrence) AS procedures,
        EXISTS (SELECT 1 FROM drug_exposure) AS drugs,
        EXISTS (SELECT 1 FROM condition_occurrence) AS conditions,
        EXISTS (SELECT 1 FROM visit WHERE kind = 9202) AS office_visits,
        EXISTS (SELECT 1 FROM visit WHERE kind = 9203) AS ed_visits
),
dead AS (
    SELECT
        CAST(person_id AS BIGINT) AS person_id,
        MIN(CAST(death_date AS DATE)) AS died_on,
        MIN(NULLIF(CAST(death_datetime AS TIMESTAMP),
            CAST(CAST(death_datetime AS DATE) AS TIMESTAMP))) AS died_at
    FROM death
    GROUP BY CAST(person_id AS BIGINT)
),
born AS (
    SELECT
        CAST(person_id AS BIGINT) AS person_id, CAST(gender_concept_id AS BIGINT) AS gender,
        CAST(race_concept_id AS BIGINT) AS race, CAST(race_source_value AS VARCHAR) AS race_text,
        CAST(year_of_birth AS BIGINT) AS year,
        CASE WHEN month_of_birth IS NULL THEN 701
            ELSE CAST(month_of_birth AS BIGINT) * 100 + COALESCE(CAST(day_of_birth AS BIGINT), 15)
            END AS birthday,
        day_of_birth IS NULL AS guessed
    FROM person
),
discharge AS (
    SELECT
        stay.*,
        born.gender, born.race, born.race_text, born.guessed,
        CAST(EXTRACT(YEAR FROM stay.admitted_on) AS BIGINT) - born.year AS years,
        CASE WHEN EXTRACT(MONTH FROM stay.admitted_on) * 100 + EXTRACT(DAY FROM stay.admitted_on)
            < born.birthday THEN 1 ELSE 0 END AS to_come,
        stay.first_kind = 262 OR arrival.episode IS NOT NULL AS emergency,
        COALESCE(stay.went_to = 4216643, false) OR COALESCE(
            dead.died_on BETWEEN stay.admitted_on AND stay.discharged_on
            AND COALESCE(dead.died_at <= stay.discharged_at, true), false) AS died,
        CASE WHEN next_stay.returned_on <= stay.discharged_on + 30 THEN next_stay.returned_at
            END AS returned_at,
        -- the first moment after day 30
        CAST(stay.discharged_on AS TIMESTAMP) + INTERVAL '31' DAY AS settled_at
    FROM stay
    JOIN next_stay ON next_stay.person_id = stay.person_id AND next_stay.episode = stay.episode
    LEFT JOIN arrival ON arrival.person_id = stay.person_id AND arrival.episode = stay.episode
    LEFT JOIN born ON born.person_id = stay.person_id
    LEFT JOIN dead ON dead.person_id = stay.person_id
    WHERE stay.discharged_on IS NOT NULL
)
SELECT
    CAST(discharge.visit_id AS VARCHAR) AS stay_id,
    CAST(discharge.person_id AS VARCHAR) AS patient_id,
    COALESCE(CAST(care_site AS VARCHAR), 'unknown') AS site,
    CAST(NULL AS VARCHAR) AS site_tier,
    admitted_at,
    discharged_at,
    CAST(NULL AS BIGINT) AS encounter_order,
    -- whole years; who was born this year, on a day not told, is not yet one
    CAST(CASE WHEN guessed AND years = 0 THEN 0 ELSE years - to_come END AS DOUBLE PRECISION) AS age,
    CASE gender WHEN 8532 THEN 'female' WHEN 8507 THEN 'male' END AS sex,
    CASE WHEN emergency THEN 'emergency' END AS admission_type,
    CASE
        WHEN emergency OR came_from IN (9203, 8870) THEN 'emergency_room'
        WHEN came_from IN (8717, 38004279) THEN 'other_hospital'  -- inpatient, acute hospital
        WHEN came_from = 8863 THEN 'skilled_nursing'
        -- nursing facility, rehabilitation, psychiatric hospital and facility, hospice
        WHEN came_from IN (8676, 8920, 38004284, 8971, 8546) THEN 'other_facility'
        WHEN came_from = 38004195 THEN 'home_care'  -- home health agency
        WHEN came_from = 38003619 THEN 'court'  -- prison
    END AS admission_source,
    -- nothing, or 0, is home by CDM's convention, and in practice also "no concept found": missing
    CASE
        WHEN died THEN 'died'
        WHEN went_to IN (8536, 581476) THEN 'home'
        WHEN went_to = 38004195 THEN 'home_care'
        WHEN went_to = 8863 THEN 'skilled_nursing'
        WHEN went_to = 8676 THEN 'nursing_home'
        WHEN went_to = 8920 THEN 'rehabilitation'
        WHEN went_to IN (8717, 38004279) THEN 'other_hospital'
        WHEN went_to IN (38004284, 8971) THEN 'psychiatric'
        WHEN went_to = 4021968 THEN 'left_against_advice'
        WHEN went_to = 8546 THEN 'hospice'
    END AS discharge_disposition,
    CAST(NULL AS VARCHAR) AS specialty,
    CAST(discharged_on - admitted_on AS DOUBLE PRECISION) AS length_of_stay,
    CASE WHEN recorded.laboratory THEN COALESCE(laboratory_tests, 0) END AS laboratory_tests,
    CASE WHEN recorded.procedures THEN COALESCE(operated.procedures, 0) END AS procedures,
    CASE WHEN recorded.drugs THEN COALESCE(medications, 0) END AS medications,
    CASE WHEN recorded.conditions THEN COALESCE(diagnoses, 0) END AS diagnoses,
    -- where the data do not reach back a year, nobody knows
    CASE WHEN recorded.office_visits AND since <= admitted_on - 365 THEN COALESCE(outpatient_visits, 0)
        END AS outpatient_visits,
    CASE WHEN recorded.ed_visits AND since <= admitted_on - 365 THEN COALESCE(emergency_visits, 0)
        END AS emergency_visits,
    CASE WHEN since <= admitted_on - 365 THEN COALESCE(inpatient_stays, 0) END AS inpatient_stays,
    CAST(NULL AS VARCHAR) AS diagnosis_1, CAST(NULL AS VARCHAR) AS diagnosis_2,
    CAST(NULL AS VARCHAR) AS diagnosis_3,
    CASE WHEN hba1c > 8 THEN 'above_8' WHEN hba1c >= 7 THEN 'above_7' WHEN hba1c >= 0 THEN 'normal'
        END AS hba1c,
    CASE WHEN glucose > 300 THEN 'above_300' WHEN glucose > 200 THEN 'above_200'
        WHEN glucose >= 0 THEN 'normal' END AS glucose,
    CAST(NULL AS BOOLEAN) AS diabetes_medication, CAST(NULL AS BOOLEAN) AS medication_change,
    CAST(NULL AS VARCHAR) AS metformin, CAST(NULL AS VARCHAR) AS repaglinide,
    CAST(NULL AS VARCHAR) AS nateglinide, CAST(NULL AS VARCHAR) AS glimepiride,
    CAST(NULL AS VARCHAR) AS glipizide, CAST(NULL AS VARCHAR) AS glibenclamide,
    CAST(NULL AS VARCHAR) AS glibenclamide_metformin, CAST(NULL AS VARCHAR) AS pioglitazone,
    CAST(NULL AS VARCHAR) AS rosiglitazone, CAST(NULL AS VARCHAR) AS acarbose,
    CAST(NULL AS VARCHAR) AS insulin,
    CASE race WHEN 8527 THEN 'White' WHEN 8516 THEN 'Black' WHEN 8515 THEN 'Asian'
        WHEN 8557 THEN 'Native Hawaiian or Pacific Islander'
        WHEN 8657 THEN 'American Indian or Alaska Native' ELSE race_text END AS race,
    CAST(NULL AS VARCHAR) AS payer,
    CASE WHEN died THEN NULL WHEN returned_at IS NOT NULL THEN returned_at
        WHEN observed.until >= settled_at THEN settled_at END AS readmission_known_at,
    CASE WHEN died THEN NULL WHEN returned_at IS NOT NULL THEN true
        WHEN observed.until >= settled_at THEN false END AS readmitted_30d
FROM discharge
CROSS JOIN observed
CROSS JOIN recorded
LEFT JOIN past ON past.person_id = discharge.person_id AND past.episode = discharge.episode
LEFT JOIN past_stay ON past_stay.person_id = discharge.person_id AND past_stay.episode = discharge.episode
LEFT JOIN tested ON tested.person_id = discharge.person_id AND tested.episode = discharge.episode
LEFT JOIN operated ON operated.person_id = discharge.person_id AND operated.episode = discharge.episode
LEFT JOIN medicated ON medicated.person_id = discharge.person_id AND medicated.episode = discharge.episode
LEFT JOIN diagnosed ON diagnosed.person_id = discharge.person_id AND diagnosed.episode = discharge.episode
ORDER BY discharged_at, discharge.visit_id
